package broker

import "github.com/ringmq/ringmq/broker/record"

// Loaded takes a part of a Session's queue.
func (s *Shard) Loaded(r Loaded) {
	s.stream.loads--
	s.askOn()
	if r.Session == 0 {
		s.onPassing(&r)
		return
	}
	sess := s.asker(&r.Load)
	if sess == nil {
		return
	}
	k := sess.kept
	if r.Count {
		s.counted(sess, &r)
		return
	}
	if !k.loading {
		return // It was for a connection that has ended, and what is on disk may begin earlier since then.
	}
	k.nextLoad() // What was to be counted at the same time stands before what is on disk from here on.
	if sess.conn == 0 {
		return
	}
	before, sent := k.sentTo, k.sentTo
	var e record.Entry
	for i := range r.Entries {
		if e.Decode(r.Entries[i].Value) == nil && e.Flags&(record.EntrySent|record.EntryReleased) != 0 {
			sent = max(sent, r.Entries[i].Pos)
		}
	}
	k.sentTo = sent
	for i := range r.Entries {
		if !s.takeLoaded(sess, &r.Entries[i]) {
			s.wantMemory(sess)
			return
		}
		s.takeOff(k, &r.Entries[i], before)
	}
	s.releasedFirst(sess)
	switch {
	case r.Done && r.To == k.disk.to:
		k.emptyDisk()
		s.concat(&sess.wait, &k.tail)
	case r.Done: // more has gone to disk meanwhile
		k.disk.from, k.disk.uncounted = r.To+1, false
	}
	s.pump(sess)
	s.settle()
}

// takeLoaded puts an entry that was loaded where it belongs; false when memory is used up.
func (s *Shard) takeLoaded(sess *Session, l *LoadedEntry) bool {
	var e record.Entry
	k := sess.kept
	if err := e.Decode(l.Value); err != nil {
		s.counters[CounterDroppedDamaged]++
		s.deleteEntry(sess, l.Pos, 0)
		return true
	}
	sent := l.Pos <= k.sentTo || e.Flags&record.EntryReleased != 0
	doubt := l.Pos < record.FirstOf(s.store.Boot())
	forsaken := false
	if e.Mid != 0 && e.Message.Decode(l.Message) != nil {
		s.counters[CounterDroppedDamaged]++
		if e.Flags&entryQoS != 2 || !sent && !doubt {
			s.deleteEntry(sess, l.Pos, e.Mid)
			return true
		}
		e.Flags |= record.EntryReleased
		forsaken = true
	}
	expires := s.clockOf(e.Message.Expires)
	if !forsaken && !sent && expires != 0 && expires <= s.now {
		s.counters[CounterDroppedExpired]++
		if !doubt || e.Flags&entryQoS != 2 {
			s.deleteEntry(sess, l.Pos, e.Mid)
			return true
		}
		e.Flags |= record.EntryReleased
		forsaken = true
	}
	msg := uint32(0)
	if e.Flags&record.EntryReleased == 0 {
		m := &e.Message
		if msg = s.ms.store(m.Topic, m.Props, m.Payload, origin{flags: m.Flags, from: m.From, expires: expires}); msg == 0 {
			return false
		}
	}
	id := s.loadedEntry(sess, &e, msg)
	if msg != 0 {
		s.ms.release(msg) // the entry has its own reference
	}
	if id == 0 {
		return false
	}
	s.marks[id] = mark{sid: k.sid, pos: l.Pos, mid: e.Mid}
	if forsaken {
		s.entries[id].pid = e.PID
		sess.lapped = sess.lapped || e.PID != 0
		s.forsake(sess, id)
		return true
	}
	if !sent {
		s.marks[id].doubt = doubt
		s.countWaiting(sess, id)
		s.enqueue(&sess.wait, id)
		return true
	}
	le := &s.entries[id]
	le.flags |= entrySent
	if le.pid = e.PID; le.pid == 0 {
		le.pid = record.PacketID(l.Pos)
	} else {
		sess.lapped = true
	}
	s.enqueue(&sess.sent, id)
	if sess.resend == 0 {
		sess.resend = id
	}
	return true
}

// forsake ends a delivery of QoS 2 that has expired, is too large for the client, or has lost its message. When an earlier run of the broker may have sent it, its client may hold on to the
// Packet Identifier, and would take the next message that has it for this one: it gets PUBREL, and answers with PUBCOMP either way. Like one
// that follows PUBREC, that PUBREL goes out when it is durable: otherwise the next run could send the message again, to a client
// that has taken it and forgotten its Packet Identifier since.
func (s *Shard) forsake(sess *Session, id uint32) {
	e := &s.entries[id]
	e.flags |= entrySent | entryReleased
	if e.pid == 0 {
		e.pid = record.PacketID(s.marks[id].pos)
	}
	s.enqueue(&sess.sent, id)
	if sess.resend == 0 {
		sess.resend = id
	}
	s.recordReleased(id)
	s.promiseThat(action{kind: promiseAction, session: sess})
}

// inDoubt says whether an earlier run of the broker may have sent a waiting delivery of QoS 2.
func (s *Shard) inDoubt(id uint32) bool {
	return s.stream != nil && s.marks[id].doubt && s.entries[id].qos() == 2
}

// loadedEntry makes the delivery of an entry that was loaded; 0 when memory is used up.
func (s *Shard) loadedEntry(sess *Session, e *record.Entry, msg uint32) uint32 {
	r := receiver{session: sess}
	if len(e.IDs) == 1 {
		r.id = e.IDs[0]
	} else {
		r.more = e.IDs
	}
	if e.Share != "" {
		if g := s.groups.named(e.Share, e.Filter); g != nil {
			s.viaGroup = g.number
			defer func() { s.viaGroup = 0 }()
		}
	}
	return s.newEntry(msg, e.Flags&(entryQoS|entryRetain|entryReleased), &r)
}
