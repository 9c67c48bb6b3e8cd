package broker

import (
	"slices"

	"github.com/ringmq/ringmq/broker/record"
)

// announceEnd has the store note that a kept Session ends, before publications stop matching its subscriptions. One that does not
// match any more is acknowledged behind that note: otherwise a crash could bring the Session back without a message whose
// publisher was told that all is well.
func (s *Shard) announceEnd(sess *Session) {
	if k := sess.kept; k != nil {
		s.recordEnded(k.sid, sess.clientID)
		s.ends.Add(1)
		s.then(action{kind: endedAction, ended: sess.subs})
		s.handOver()
		s.detach(sess)
	}
}

// endedDurably takes the subscriptions of a Session whose end is durable off the index: until then what they matched stands behind the end,
// and nothing else does.
func (s *Shard) endedDurably(list *subscription) {
	s.ends.Add(-1)
	s.endLater(list)
}

// behindEnds puts the ticket of a publication that may match a Session that is ending behind its end. What it writes says nothing, but it writes.
func (s *Shard) behindEnds(t *ticket) {
	if s.ends.Load() > 0 {
		t.ops = record.AppendDelete(t.ops, record.SentKey(s.keyRoom(), 0))
	}
}

// behindEnd puts what follows behind the end of a Session, which was handed over, maybe by another shard: it says nothing new, but is
// durable only behind that.
func (s *Shard) behindEnd(sid uint64) {
	s.stream.ops = record.AppendDelete(s.stream.ops, record.SentKey(s.keyRoom(), sid))
}

// lingerUntilDurable keeps a Session that has ended in the registry until that is durable, so that a CONNECT that comes earlier waits for
// it; false when there is no need to.
func (s *Shard) lingerUntilDurable(sess *Session) bool {
	if s.stream == nil || sess.discarded == 0 {
		return false
	}
	s.behindEnd(sess.discarded)
	s.then(action{kind: leaveAction, session: sess, end: s.lingering.number(sess)})
	return true
}

// leave lets go of a Session whose end is durable, unless a connection has it by now.
func (s *Shard) leave(sess *Session, end uint32) {
	if s.present(sess) && sess.lingers == end && !s.linger(sess) {
		s.remove(sess)
	}
}

// recordEnded makes a Session's record that of one that ended with its connection. First the QoS 1 messages that came to it through
// Shared Subscriptions and are on disk are given to other members, part by part (fetchPassing); until that is done the record stays, so
// that the next run does it again if this one ends.
func (s *Shard) recordEnded(sid uint64, clientID string) {
	in := record.Session{ClientID: clientID, Offline: 1}
	s.value = in.Append(s.value[:0])
	s.stream.ops = record.AppendSet(s.stream.ops, record.SessionKey(s.keyRoom(), sid), s.value)
}

// passedFromDisk says whether a delivery of an ended Session is given to others when its record is loaded: then it is not from memory, too.
// What is not surely written by then is given from memory, and left out if its record is there after all.
func (s *Shard) passedFromDisk(sess *Session, id uint32) bool {
	if s.stream == nil || sess.kept == nil {
		return false
	}
	m := &s.marks[id]
	if m.pos == 0 || s.entries[id].flags&entryTicket != 0 {
		return false // nothing will be written
	}
	if s.isWritten(m.ticket) {
		return true
	}
	s.stream.passed[m.sid] = append(s.stream.passed[m.sid], m.pos)
	return false
}

// passedUndeleted has nobody be given what the client of an ended Session has acknowledged and what is not deleted. What a Session that has moved has
// left on another shard is given once more.
func (s *Shard) passedUndeleted(k *kept) {
	if k.undeleted == 0 {
		return
	}
	for _, list := range s.stream.awaiting {
		for i := range list {
			if list[i].kept == k {
				s.stream.passed[k.sid] = append(s.stream.passed[k.sid], list[i].pos)
			}
		}
	}
}

// fetchPassing loads the entries of an ended Session from a position on.
func (s *Shard) fetchPassing(sid, from uint64) {
	s.handOver()
	s.askStore(Load{SID: sid, From: from, To: noPosition, Entries: fetchEntries, Bytes: fetchBytes})
}

// onPassing gives a part of an ended Session's queue to others.
func (s *Shard) onPassing(r *Loaded) {
	var e record.Entry
	for i := range r.Entries {
		l := &r.Entries[i]
		if e.Decode(l.Value) != nil || e.Share == "" || e.Flags&entryQoS != 1 || slices.Contains(s.stream.passed[r.SID], l.Pos) {
			continue
		}
		if e.Mid != 0 && e.Message.Decode(l.Message) != nil {
			s.counters[CounterDroppedDamaged]++
			continue
		}
		m := &e.Message
		expires := s.clockOf(m.Expires)
		g := s.groups.named(e.Share, e.Filter)
		if g == nil || expires != 0 && expires <= s.now {
			continue
		}
		msg := s.ms.store(m.Topic, m.Props, m.Payload, origin{flags: m.Flags, from: m.From, expires: expires})
		if msg == 0 {
			s.counters[CounterDroppedNoMemory]++
			continue
		}
		s.orphans = append(s.orphans, orphan{msg: msg, group: g})
	}
	s.settle()
	if !r.Done && len(r.Entries) > 0 {
		s.fetchPassing(r.SID, r.Entries[len(r.Entries)-1].Pos+1)
		return
	}
	delete(s.stream.passed, r.SID)
	// In a ticket, behind those of the messages that were passed on.
	p := &s.own
	p.begin(nil, nil, 0, false)
	t := s.openTicket(p)
	t.ops = record.AppendDelete(t.ops, record.SessionKey(s.keyRoom(), r.SID))
	t.ops = record.AppendSet(t.ops, record.EndedKey(s.keyRoom(), r.SID), nil)
	s.closeTicket(p)
}
