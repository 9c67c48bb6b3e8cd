package broker

import (
	"slices"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/record"
)

const (
	// keptWindow is how many deliveries of a kept Session wait in memory, in wait and again in tail, before the rest is on
	// disk only: more than a client's window, so that loading runs beside sending. Limits.keptBytes bounds them in bytes.
	keptWindow = 256
	// fetchEntries and fetchBytes are how much one load brings.
	fetchEntries = 128
	fetchBytes   = 256 << 10
)

// idle says that nothing waits for the Session, so that a new delivery may be sent at once.
func (sess *Session) idle() bool {
	k := sess.kept
	return sess.wait.n == 0 && (k == nil || !k.disk.any && k.tail.n == 0)
}

// behind says that something is left to be sent when the client acts.
func (sess *Session) behind() bool {
	return !sess.idle() || sess.resend != 0 || sess.cursors != nil
}

// queueFor is the list that a new delivery of the Session goes to. One of QoS 0 is not kept: it waits in memory.
func (s *Shard) queueFor(sess *Session, qos uint8) *queue {
	k := sess.kept
	switch {
	case sess.arriving:
		return &sess.held
	case qos == 0:
		return &sess.wait
	case k != nil && (sess.conn == 0 || k.disk.any || k.tail.n > 0 || sess.wait.n >= keptWindow || sess.wait.n > 0 && sess.waitBytes > s.limits.keptBytes()):
		return &k.tail
	}
	return &sess.wait
}

// keptFull says whether a kept Session has as much waiting as the operator allows; without a limit the disk decides. How many messages earlier
// runs have left is counted when the first message of this run would queue behind them; what comes until the answer is let through. Their
// bytes do not count.
func (s *Shard) keptFull(sess *Session, cost int64) bool {
	switch {
	case !s.limits.BytesOnDisk && sess.waitBytes+sess.kept.disk.bytes+cost > s.limits.MaxQueuedBytes:
		return true
	case s.limits.QueueOnDisk:
		return false
	case s.tooMany(sess):
		return true
	}
	s.countEarlier(sess)
	return false
}

// tooMany says whether as many messages wait as the operator allows, as far as they are counted.
func (s *Shard) tooMany(sess *Session) bool {
	k := sess.kept
	return uint64(sess.wait.n+sess.held.n+k.tail.n)+k.disk.waiting >= uint64(s.limits.MaxQueuedMessages)
}

// countEntries and countBytes are how much is looked at for one answer to countEarlier.
const (
	countEntries = 1024
	countBytes   = 4 << 20
)

// countEarlier asks what of earlier runs waits on disk, from where it is not counted yet.
func (s *Shard) countEarlier(sess *Session) {
	k := sess.kept
	if !k.disk.uncounted || k.counting || sess.arriving || s.stream.loading() >= loadsMax {
		return
	}
	k.counting = true
	s.askStore(Load{Session: sess.id, Serial: k.serial, SID: k.sid, From: max(k.disk.from, k.disk.counted+1, k.sentTo+1), To: s.firstPosition() - 1,
		Entries: countEntries, Bytes: countBytes, Count: true})
}

// counted takes the answer, unless the queue has been loaded from, or has moved, since the question: then it is asked again. As long as the
// Session's limit is not met it asks on: what has expired may stand before what has not.
func (s *Shard) counted(sess *Session, r *Loaded) {
	k := sess.kept
	if !k.counting {
		return
	}
	k.counting = false
	s.expireOnDisk(k)
	for _, at := range r.Expires {
		s.countOnDisk(k, s.clockOf(at), 0)
	}
	k.disk.counted, k.disk.uncounted = max(k.disk.counted, r.Last), !r.Done
	if !s.tooMany(sess) {
		s.countEarlier(sess)
	}
}

// nextLoad has answers to earlier questions ignored.
func (k *kept) nextLoad() {
	k.serial++
	k.loading, k.counting = false, false
}

// sendable says whether the next delivery of a Session may be sent now: what is held waits for its ticket, and a Packet Identifier for its
// last use to end.
func (s *Shard) sendable(sess *Session, id uint32) bool {
	if s.stream == nil {
		return true
	}
	m := &s.marks[id]
	if m.hold && !s.durable(m.ticket) {
		s.awaitTicket(m.ticket, sess)
		return false
	}
	if m.pos == 0 {
		return true
	}
	k := sess.kept
	k.blocked = k.blocked || s.pidTaken(sess, m.pos)
	return !k.blocked
}

// pidTaken says whether the Packet Identifier of a position is in use. Positions follow each other, so that is so only after a whole
// round, or among deliveries of an earlier run of the broker.
func (s *Shard) pidTaken(sess *Session, pos uint64) bool {
	first := sess.sent.head
	if first == 0 || pos-s.marks[first].pos < record.PacketIDs && !sess.lapped {
		return false
	}
	return s.pidInUse(sess, record.PacketID(pos))
}

// pidFor is the Packet Identifier for the first sending of a delivery.
func (s *Shard) pidFor(sess *Session, id uint32) uint16 {
	if sess.kept == nil || s.marks[id].pos == 0 {
		return s.newPID(sess)
	}
	k, pos := sess.kept, s.marks[id].pos
	k.sentTo = max(k.sentTo, pos)
	if s.entries[id].flags&entryTicket == 0 {
		k.sentDirty = true
		s.touchKept(sess)
	}
	return record.PacketID(pos)
}

// unblock goes on with a delivery that waited for its Packet Identifier, when the end of a delivery, which may be the one it waited for, is
// durable.
func (s *Shard) unblock(sess *Session) {
	if k := sess.kept; k != nil && k.blocked && !k.freeing {
		k.freeing = true
		s.promiseThat(action{kind: freeAction, session: sess})
	}
}

// discard drops a delivery that is done with, on disk as well.
func (s *Shard) discard(sess *Session, id uint32) {
	if s.stream != nil && sess.kept != nil {
		e, m := &s.entries[id], &s.marks[id]
		switch {
		case m.pos == 0 || e.flags&entryTicket != 0:
		case !s.isWritten(m.ticket):
			// It is another shard's to write: deleted before that it would come back.
			k := sess.kept
			k.undeleted++
			k.undeletedTo = max(k.undeletedTo, m.pos)
			s.addAwaited(awaited{ticket: m.ticket, session: sess, kept: k, pos: m.pos, mid: m.mid})
		default:
			s.deleteEntry(sess, m.pos, m.mid)
		}
	}
	s.dropEntry(id)
}

// isWritten says whether the records of a ticket are durable, or come before whatever this shard hands over from now on.
func (s *Shard) isWritten(ticket uint64) bool {
	return s.durable(ticket) || ticketShard(ticket) == s.id && ticketNumber(ticket) < s.stream.handed
}

// spill lets what is durable, and need not be in memory, go.
func (s *Shard) spill(sess *Session) {
	k := sess.kept
	if k == nil || sess.arriving {
		return
	}
	if sess.conn == 0 {
		s.condense(sess)
	}
	for id := k.tail.head; id != 0; id = k.tail.head {
		m := &s.marks[id]
		if !s.durable(m.ticket) {
			s.awaitTicket(m.ticket, sess)
			return
		}
		if sess.conn != 0 && !k.disk.any && k.tail.n <= keptWindow && sess.waitBytes <= s.limits.keptBytes() {
			return
		}
		s.unwait(sess, s.dequeue(&k.tail))
		if m.pos == 0 {
			s.drop(sess, CounterDroppedSlow) // QoS 0 has no place on disk
		}
		if !s.isRefused(id) {
			s.toDisk(k, id)
		}
		s.dropEntry(id)
	}
}

// toDisk adds a delivery to the end of the disk part.
func (s *Shard) toDisk(k *kept, id uint32) {
	pos := s.marks[id].pos
	if pos == 0 {
		return // QoS 0: not kept
	}
	if !k.disk.any {
		k.emptyDisk()
		k.disk.from, k.disk.any = pos, true
	}
	k.disk.to = pos
	s.countOnDisk(k, s.expiryOnDisk(id), s.bytesOnDisk(id))
}

// emptyDisk says that nothing is on disk only.
func (k *kept) emptyDisk() {
	k.disk = diskPart{}
	if k.lives != nil {
		*k.lives = lifetimes{}
	}
}

// bytesOnDisk is about what a delivery takes on disk, where that counts.
func (s *Shard) bytesOnDisk(id uint32) int64 {
	if s.marks[id].pos < s.firstPosition() {
		return 0 // an earlier run has left it
	}
	m := s.ms.at(s.entries[id].msg)
	return int64(m.topicSize) + int64(m.propsSize) + int64(m.payloadSize) + entryOnDisk
}

// entryOnDisk is what a delivery takes on disk beside its message, in bytes: its key and its head.
const entryOnDisk = 32

// takeOff takes a delivery that was loaded off the disk part; sent is up to where the queue was sent when it was counted.
func (s *Shard) takeOff(k *kept, l *LoadedEntry, sent uint64) {
	d, earlier := &k.disk, l.Pos < s.firstPosition()
	counts := l.Pos > sent && record.Waits(l.Value) && !(d.uncounted && earlier && l.Pos > d.counted)
	d.from, d.counted, d.uncounted = l.Pos+1, max(d.counted, l.Pos), d.uncounted && earlier
	if !counts {
		return
	}
	var e record.Entry
	if e.Decode(l.Value) != nil || e.Mid != 0 && e.Message.Decode(l.Message) != nil {
		d.take(1, 0)
		return
	}
	m, bytes := &e.Message, int64(0)
	if !earlier {
		bytes = int64(len(m.Topic)+len(m.Props)+len(m.Payload)) + entryOnDisk
	}
	k.uncountOnDisk(s.clockOf(m.Expires), bytes)
}

// condense lets go of what is in flight to a client that is away, and of what waits, once all of it is durable.
func (s *Shard) condense(sess *Session) {
	k := sess.kept
	if k.promised > 0 || sess.sent.n+sess.wait.n == 0 {
		return
	}
	for _, q := range [...]*queue{&sess.sent, &sess.wait} {
		for id := q.head; id != 0; id = s.entries[id].next {
			if m := &s.marks[id]; !s.durable(m.ticket) {
				s.awaitTicket(m.ticket, sess)
				return
			}
		}
	}
	from, to := uint64(noPosition), uint64(0)
	for _, q := range [...]*queue{&sess.sent, &sess.wait} {
		for id := q.head; id != 0; id = s.entries[id].next {
			pos := s.marks[id].pos
			if pos != 0 {
				from, to = min(from, pos), max(to, pos)
			}
			if q == &sess.wait {
				s.unwait(sess, id)
				if pos > k.sentTo { // QoS 0 has no place on disk, and what could not be sent for want of memory counts as sent there.
					s.countOnDisk(k, s.expiryOnDisk(id), s.bytesOnDisk(id))
				}
			}
		}
	}
	s.dropQueue(&sess.sent)
	s.dropQueue(&sess.wait)
	sess.resend, sess.inflight, sess.nextExpiry = 0, 0, 0
	if to == 0 {
		return
	}
	if k.disk.any {
		to = k.disk.to
	}
	k.disk.from, k.disk.to, k.disk.any = from, to, true
}

// wantsMore says whether a Session may have more of its queue in memory.
func (s *Shard) wantsMore(sess *Session) bool {
	return sess.wait.n == 0 || sess.wait.n < fetchEntries && sess.waitBytes < s.limits.keptBytes()
}

// refill brings more of the queue into wait; false when it must be loaded first.
func (s *Shard) refill(sess *Session) bool {
	k := sess.kept
	switch {
	case k.disk.any:
		s.fetch(sess)
		return false
	case k.tail.n > 0:
		s.concat(&sess.wait, &k.tail)
		s.pump(sess)
		return false
	}
	return true
}

// mayLoad says whether there is something to load, and nothing in the way.
func (k *kept) mayLoad() bool {
	return k.disk.any && !k.loading && k.promised == 0 && (k.undeleted == 0 || k.undeletedTo < k.disk.from)
}

// fetch asks for the next part of what is on disk. What this shard has changed is handed over first, so that the load sees it.
func (s *Shard) fetch(sess *Session) {
	k := sess.kept
	if !k.mayLoad() {
		return
	}
	s.handOver()
	if sess.conn == 0 || !k.mayLoad() {
		return // There was nothing to write, and an answer that was due with that has ended the connection, or asked already.
	}
	if s.stream.loading() >= loadsMax {
		s.wantMemory(sess)
		return
	}
	k.nextLoad()
	k.loading = true
	s.askStore(Load{Session: sess.id, Serial: k.serial, SID: k.sid, From: k.disk.from, To: k.disk.to,
		Entries: fetchEntries, Bytes: fetchBytes})
}

// askStore has the store load, now or when it has answered others; Loaded takes the answer.
func (s *Shard) askStore(l Load) {
	l.Shard = s.id
	s.stream.later = append(s.stream.later, l)
	s.askOn()
}

// askOn asks for what is still to be loaded, unless the queue that it is for has been asked for again, or has moved, since.
func (s *Shard) askOn() {
	st := s.stream
	for len(st.later) > 0 && st.loads < s.limits.loadsAtOnce() {
		l := st.later[0]
		if st.later = st.later[1:]; l.Session == 0 || s.asker(&l) != nil {
			st.loads++
			s.store.Load(l)
		}
	}
}

// asker is the Session that an answer is for; nil: it waits for another one by now.
func (s *Shard) asker(l *Load) *Session {
	sess := s.sessions[l.Session].Load()
	if sess == nil || !s.present(sess) || sess.kept == nil || sess.kept.sid != l.SID || sess.kept.serial != l.Serial {
		return nil
	}
	return sess
}

// loading is how many loads wait or are under way.
func (st *stream) loading() int { return st.loads + len(st.later) }

// released makes the PUBREC of a delivery durable; PUBREL follows then [MQTT-4.3.3-6].
func (s *Shard) released(id uint32, sess *Session, e uint32) {
	s.recordReleased(e)
	s.promiseBytes(id, sess, packet.AppendAck(nil, packet.PUBREL, s.entries[e].pid, packet.Success, s.conns[id].version))
}

// recordReleased writes the record of a delivery that is released, which needs its message no more.
func (s *Shard) recordReleased(e uint32) {
	m := &s.marks[e]
	mid := m.mid
	s.stream.ops = s.appendEntry(s.stream.ops, e, 0)
	if mid != 0 {
		s.stream.ops = record.AppendDelete(s.stream.ops, record.ReferenceKey(s.keyRoom(), mid, m.sid, m.pos))
	}
}

// promiseBytes sends a packet when all records so far are durable; until then the Session neither resends nor goes to disk nor gets
// Retained Messages.
func (s *Shard) promiseBytes(id uint32, sess *Session, b []byte) {
	s.promiseThat(action{kind: promiseAction, conn: token(id, s.conns[id].generation), session: sess, bytes: b})
}

// promiseThat is promiseBytes for any action.
func (s *Shard) promiseThat(a action) {
	a.kept = a.session.kept
	a.kept.promised++
	s.then(a)
}

// againReceived acknowledges a QoS 2 PUBLISH that was received before, when the first one is durable [MQTT-4.3.3-10]. False: there is
// nothing to wait for.
func (s *Shard) againReceived(id uint32, c *conn, pid uint16) bool {
	sess := s.refs[id].session
	if !s.againInTurn(c, sess) {
		return false
	}
	p := &s.pub
	p.begin(nil, nil, 0, false)
	t := s.openTicket(p)
	t.again = true
	if sess.kept != nil {
		t.ops = record.AppendSet(t.ops, record.ReceivedKey(s.keyRoom(), sess.kept.sid, pid), nil)
	}
	s.promise(t, id, c, packet.PUBREC, pid, packet.Success)
	s.closeTicket(p)
	return true
}

// againInTurn says whether there is something to wait for.
func (s *Shard) againInTurn(c *conn, sess *Session) bool {
	return s.stream != nil && (sess.kept != nil || c.unacked > 0)
}

// mayHaveReceived takes the Packet Identifier of a QoS 2 PUBLISH that is sent again for one that was received, where the store has lost what
// would say so: to lose the message is better than to deliver it twice [MQTT-4.3.3-1].
func (s *Shard) mayHaveReceived(sess *Session, pid uint16) bool {
	if sess.kept == nil || !sess.kept.doubtful || !s.receivedAdd(sess, pid) {
		return false
	}
	s.counters[CounterDroppedDamaged]++
	return true
}

// forgetRestored takes the first QoS 2 PUBLISH with a Packet Identifier that the store had for a new message, where the store has lost something and
// DUP is not set [MQTT-3.3.1-1]: what is lost is that the identifier was released.
func (s *Shard) forgetRestored(sess *Session, in *packet.Publish) {
	k := sess.kept
	if k == nil || len(k.restored) == 0 {
		return
	}
	i, found := slices.BinarySearch(k.restored, in.PacketID)
	if !found {
		return
	}
	k.restored = slices.Delete(k.restored, i, i+1)
	if !in.Dup && s.receivedRemove(sess, in.PacketID) {
		s.stream.ops = record.AppendDelete(s.stream.ops, record.ReceivedKey(s.keyRoom(), k.sid, in.PacketID))
	}
}

// promise has a packet acknowledged when a ticket is durable.
func (s *Shard) promise(t *ticket, id uint32, c *conn, kind packet.Kind, pid uint16, reason packet.Reason) {
	t.conn, t.kind, t.pid, t.reason = token(id, c.generation), kind, pid, reason
	if kind == packet.PUBREC {
		t.sess = s.refs[id].session
		t.kept = t.sess.kept
	}
	c.unacked++
}

// forgetReceived forgets a QoS 2 Packet Identifier of a kept Session; PUBCOMP follows when that is durable, for the client uses the
// identifier again then [MQTT-4.3.3-11].
func (s *Shard) forgetReceived(id uint32, k *kept, pid uint16) {
	s.stream.ops = record.AppendDelete(s.stream.ops, record.ReceivedKey(s.keyRoom(), k.sid, pid))
	k.forgetting = append(k.forgetting, forgetting{pid, token(id, s.conns[id].generation)})
	s.then(action{kind: forgottenAction, kept: k})
}

// forgettingPerDelivery is how many identifiers isForgetting looks at in the time of a delivery.
const forgettingPerDelivery = 256

// isForgetting says whether an identifier is being forgotten: then PUBCOMP, which is under way, goes to the connection that asks again.
func (k *kept) isForgetting(pid uint16, conn uint64) bool {
	i := slices.IndexFunc(k.forgetting, func(f forgetting) bool { return f.pid == pid })
	if i >= 0 {
		k.forgetting[i].conn = conn
	}
	return i >= 0
}

// forgotten sends PUBCOMP for the identifier whose turn it is.
func (s *Shard) forgotten(k *kept) {
	f := k.forgetting[0]
	if k.forgetting = k.forgetting[1:]; len(k.forgetting) == 0 {
		k.forgetting = nil // There may have been 65,535.
	}
	if id := s.connOf(f.conn); id != 0 && s.conns[id].state == connLive {
		s.ack(id, packet.PUBCOMP, f.pid, packet.Success)
	}
}
