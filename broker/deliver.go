package broker

import (
	"encoding/binary"
	"strconv"

	"github.com/ringmq/ringmq/broker/packet"
)

// deliver gives a publication to one Session of this shard.
func (s *Shard) deliver(p *publication, r *receiver) {
	sess := r.session
	if r.noLocal && p.from == sess.serial {
		return // [MQTT-3.8.3-3]
	}
	qos := min(p.qos, r.qos) // Section 3.8.4: the lower of the two.
	retain := p.retain && r.asIs
	if qos > 0 || sess.arriving || p.hold || s.mayFollowHeld(p) && !sess.idle() {
		s.deliverQueued(p, r, qos, retain)
		return
	}
	if sess.conn == 0 {
		return
	}
	c := &s.conns[sess.conn]
	if int(c.outBytes) > s.limits.MaxOutboundBytes {
		s.drop(sess, CounterDroppedSlow)
		return
	}
	s.sendPublish(p, sess, c, packet.PublishFlags(false, 0, retain), r, 0)
}

// mayFollowHeld says whether an older message of the same publisher, to be sent with QoS 0 too, may stand in a queue: one of QoS 2
// that was held until it was durable, and is sent later in this turn [MQTT-4.6.0-6].
func (s *Shard) mayFollowHeld(p *publication) bool { return p.qos == 2 && s.stream != nil }

// deliverRaw copies the packet as it came into the outbound buffer of a receiver that gets just that; false when this
// receiver takes more than a copy.
func (s *Shard) deliverRaw(p *publication, r *receiver) bool {
	id := r.session.conn
	if id == 0 || r.noLocal || r.id != 0 {
		return false
	}
	c := &s.conns[id]
	return int(c.outBytes) <= s.limits.MaxOutboundBytes && s.sendRaw(p, id, c, 0, 0)
}

// sendRaw sends the packet as it came with other flags and another Packet Identifier, by one copy; false when the
// connection needs another encoding or a second page.
func (s *Shard) sendRaw(p *publication, id uint32, c *conn, flags uint8, pid uint16) bool {
	if (c.version == packet.V50) != p.rawV5 || c.aliasMax > 0 || len(p.raw) > int(c.maxPacket) ||
		c.outTail == 0 && !s.room(c, len(p.raw), forBulk) {
		return false
	}
	m := &s.pool.a.pages[c.outTail]
	end := int(m.end) + len(p.raw)
	if m.ref != 0 || end > pageSize {
		return false
	}
	b := s.pool.a.bytes(c.outTail)[m.end:end]
	copy(b, p.raw)
	b[0] = byte(packet.PUBLISH)<<4 | flags
	if pid != 0 {
		binary.BigEndian.PutUint16(b[p.rawPID:], pid)
	}
	m.end = uint16(end)
	s.countSent(p, id)
	return true
}

// countSent counts a PUBLISH that is in an outbound buffer.
func (s *Shard) countSent(p *publication, id uint32) {
	s.counters[CounterMessagesSent]++
	s.counters[CounterPublishSent]++
	s.counters[CounterPublishBytesSent] += uint64(p.size)
	s.touch(id)
}

// deliverQueued gives a publication of QoS 1 or 2 (while the Session arrives, of any QoS) to a Session: at once when nothing stands before it, otherwise by its
// queue. The message is stored already.
func (s *Shard) deliverQueued(p *publication, r *receiver, qos uint8, retain bool) {
	sess := r.session
	if sess.conn == 0 && !sess.arriving && (sess.expiry == 0 || qos == 0) {
		return
	}
	if p.hold && s.ms.at(p.msg).refused.Load() {
		return
	}
	flags := qos
	if retain {
		flags |= entryRetain
	}
	id := s.newEntry(p.msg, flags, r)
	if id == 0 {
		s.noMemory(p, sess, qos)
		return
	}
	direct := sess.conn != 0 && !sess.arriving && sess.idle() && s.canSend(sess)
	waits := !direct || p.hold && !s.durable(p.ticket)
	if waits && !s.mayWait(sess, id) {
		return
	}
	if s.stream != nil {
		s.markEntry(p, sess, id, false)
	}
	if direct && s.sendable(sess, id) {
		if s.sendEntry(p, sess, id, r) {
			return
		}
		s.wantMemory(sess)
	}
	if waits || s.mayWait(sess, id) {
		s.queueEntry(sess, id)
	}
}

// newEntry makes a delivery of a stored message; 0 when memory is used up.
func (s *Shard) newEntry(msg uint32, flags uint8, r *receiver) uint32 {
	id := s.entrySlots.get()
	if id == 0 {
		return 0
	}
	e := &s.entries[id]
	*e = entry{msg: msg, id: r.id, flags: flags, group: s.viaGroup}
	if s.stream != nil {
		s.marks[id] = mark{}
	}
	if len(r.more) > 1 {
		ref := s.pool.alloc(2 + 4*len(r.more))
		if ref == 0 {
			s.entrySlots.put(id)
			return 0
		}
		b := s.pool.a.block(ref, 2+4*len(r.more))
		putLE16(b, uint16(len(r.more)))
		for i, v := range r.more {
			putLE32(b[2+4*i:], v)
		}
		e.id = ref
		e.flags |= entryManyIDs
	}
	if msg != 0 {
		s.ms.retain(msg, 1)
	}
	return id
}

// mayWait says whether a delivery may wait; if not, it is dropped: a Session's own limit never stops a publisher. It is the newest message that is
// dropped, after those that have expired, and before it has a place on disk where that can be: another shard may write it there, and this one
// load it again, before it can be deleted.
func (s *Shard) mayWait(sess *Session, id uint32) bool {
	cost := s.cost(id)
	if !s.full(sess, cost) {
		return true
	}
	if sess.nextExpiry != 0 && sess.nextExpiry <= s.now {
		s.purge(sess)
	}
	s.expireOnDisk(sess.kept)
	if !s.full(sess, cost) {
		return true
	}
	s.discard(sess, id)
	s.drop(sess, CounterDroppedQueue)
	return false
}

// queueEntry puts a delivery that may wait behind those that wait.
func (s *Shard) queueEntry(sess *Session, id uint32) {
	s.countWaiting(sess, id)
	s.enqueue(s.queueFor(sess, s.entries[id].qos()), id)
	if s.stream != nil {
		s.spill(sess)
	}
}

// cost is what a delivery that waits pins in bytes.
func (s *Shard) cost(id uint32) int64 {
	e := &s.entries[id]
	n := int64(s.ms.at(e.msg).pinned) + sizeOf[entry]()
	if e.flags&entryManyIDs != 0 {
		n += int64(blockSize(2 + 4*int(le16(s.pool.a.block(e.id, 2)))))
	}
	return n
}

// countWaiting counts a delivery that waits.
func (s *Shard) countWaiting(sess *Session, id uint32) {
	sess.waitBytes += s.cost(id)
	m := s.ms.at(s.entries[id].msg)
	if m.expires != 0 && (sess.nextExpiry == 0 || m.expires < sess.nextExpiry) {
		sess.nextExpiry = m.expires
	}
}

func (s *Shard) full(sess *Session, cost int64) bool {
	if sess.kept != nil {
		return s.keptFull(sess, cost)
	}
	return int(sess.wait.n+sess.held.n) >= s.limits.MaxQueuedMessages || sess.waitBytes+cost > s.limits.MaxQueuedBytes
}

// purge drops the messages waiting in memory whose Message Expiry Interval has passed [MQTT-3.3.2-5].
func (s *Shard) purge(sess *Session) {
	sess.nextExpiry = 0
	s.purgeQueue(sess, &sess.wait)
	if sess.kept != nil {
		s.purgeQueue(sess, &sess.kept.tail)
	}
}

func (s *Shard) purgeQueue(sess *Session, q *queue) {
	prev := uint32(0)
	for id := q.head; id != 0; {
		next := s.entries[id].next
		if m := s.ms.at(s.entries[id].msg); m.expires != 0 && m.expires <= s.now && !s.inDoubt(id) {
			s.unqueue(q, prev, id)
			s.unwait(sess, id)
			s.discard(sess, id)
			s.counters[CounterDroppedExpired]++
		} else {
			prev = id
			if m.expires != 0 && (sess.nextExpiry == 0 || m.expires < sess.nextExpiry) {
				sess.nextExpiry = m.expires
			}
		}
		id = next
	}
}

// unwait takes an entry's cost off its Session.
func (s *Shard) unwait(sess *Session, id uint32) {
	sess.waitBytes -= s.cost(id)
}

// canSend says whether the client's window and its outbound buffer take another QoS 1 or 2 message.
func (s *Shard) canSend(sess *Session) bool {
	return sess.inflight < sess.window && sess.resend == 0 && // [MQTT-3.3.4-9]
		int(s.conns[sess.conn].outBytes) <= s.limits.MaxOutboundBytes
}

// sendEntry sends a delivery for the first time and notes it as in flight; false when memory is used up. A
// packet that is too large for the client is dropped, entry and all, unless an earlier run of the broker may have sent it.
func (s *Shard) sendEntry(p *publication, sess *Session, id uint32, r *receiver) bool {
	e := &s.entries[id]
	c := &s.conns[sess.conn]
	if e.qos() > 0 {
		e.pid = s.pidFor(sess, id)
	}
	again := s.stream != nil && s.marks[id].doubt // [MQTT-3.3.1-1]
	flags := packet.PublishFlags(again, e.qos(), e.flags&entryRetain != 0)
	switch s.sendPublish(p, sess, c, flags, r, e.pid) {
	case sendNoMemory:
		return false
	case sendTooLarge:
		if s.inDoubt(id) {
			s.forsake(sess, id)
		} else {
			s.discard(sess, id)
		}
		return true
	}
	if e.qos() == 0 {
		s.dropEntry(id)
		return true
	}
	e.flags |= entrySent
	sess.inflight++
	s.enqueue(&sess.sent, id)
	return true
}

// sendResult is what became of a PUBLISH to a client.
type sendResult uint8

const (
	sendDone sendResult = iota
	sendNoMemory
	sendTooLarge
)

// sendPublish appends a PUBLISH to a connection's outbound buffer.
func (s *Shard) sendPublish(p *publication, sess *Session, c *conn, flags uint8, r *receiver, pid uint16) sendResult {
	if p.raw != nil && flags&flagQoS == p.qos<<1 && r.id == 0 && s.sendRaw(p, sess.conn, c, flags, pid) {
		return sendDone
	}
	if c.aliasMax > 0 {
		return s.sendAliased(p, sess, c, flags, r, pid)
	}
	return s.sendTemplate(p, sess, c, s.template(p, c.version == packet.V50, flags, r.id, r.more), pid)
}

func (s *Shard) sendTemplate(p *publication, sess *Session, c *conn, t *template, pid uint16) sendResult {
	if t.size > int(c.maxPacket) {
		s.drop(sess, CounterDroppedTooLarge) // [MQTT-3.1.2-24] [MQTT-3.1.2-25]
		return sendTooLarge
	}
	b := p.heads[t.from:t.to]
	if t.pidAt != 0 {
		binary.BigEndian.PutUint16(b[t.pidAt:], pid)
	}
	if !t.whole || !s.putFast(c, b) {
		if r := s.putSlow(p, sess, c, t, b); r != sendDone {
			return r
		}
	}
	s.countSent(p, sess.conn)
	return sendDone
}

// putFast copies b behind the outbound buffer's last byte if its page has room.
func (s *Shard) putFast(c *conn, b []byte) bool {
	if c.outTail == 0 {
		return false
	}
	m := &s.pool.a.pages[c.outTail]
	if m.ref != 0 || int(m.end)+len(b) > pageSize {
		return false
	}
	copy(s.pool.a.bytes(c.outTail)[m.end:], b)
	m.end += uint16(len(b))
	return true
}

// putSlow appends a PUBLISH that needs a page or whose payload is large.
func (s *Shard) putSlow(p *publication, sess *Session, c *conn, t *template, head []byte) sendResult {
	byRef := !t.whole && p.msg != 0 && p.size >= refThreshold
	n := len(head)
	if !t.whole && !byRef {
		n += p.size
	}
	u := forBulk
	if t.flags&flagQoS != 0 && c.outHead == 0 && n <= pageSize {
		u = forDelivery // its acknowledgement is what gives memory back
	}
	if !s.room(c, n, u) {
		s.counters[CounterNoMemory]++
		if t.flags&flagQoS == 0 {
			s.drop(sess, CounterDroppedNoMemory)
		}
		return sendNoMemory
	}
	s.put(c, head)
	switch {
	case t.whole:
	case byRef:
		s.putRef(c, p.msg)
	case p.payload != nil:
		s.put(c, p.payload)
	default:
		s.putPayload(c, p.msg)
	}
	return sendDone
}

// putPayload copies a stored payload that is small and yet lies in pages.
func (s *Shard) putPayload(c *conn, msg uint32) {
	var vec [2][]byte
	for _, b := range s.ms.payload(s.ms.at(msg), 0, vec[:0]) {
		s.put(c, b)
	}
}

// caughtUp says in the log how many messages a Session has lost, when nothing waits for it any more.
func (s *Shard) caughtUp(sess *Session) {
	if sess.dropped == 0 || int(s.conns[sess.conn].outBytes) > s.limits.MaxOutboundBytes/2 {
		return
	}
	s.event(LogEvent{Kind: EventCaughtUp, ClientID: sess.clientID, Text: strconv.FormatUint(uint64(sess.dropped), 10)})
	sess.dropped = 0
}

// drop counts a message that a Session does not get, and says so once in the log until the Session has caught up.
func (s *Shard) drop(sess *Session, reason Counter) {
	s.counters[reason]++
	sess.dropped++
	if sess.dropped == 1 {
		s.event(LogEvent{Kind: EventDropping, ClientID: sess.clientID, Text: reason.String()})
	}
}
