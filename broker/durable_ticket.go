package broker

import (
	"slices"
	"sync"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/record"
)

// ticket is the durable part of one publication; see durable.go.
type ticket struct {
	number      uint64
	open        bool  // this shard is still at it
	outstanding int64 // weights that other shards have not given back
	failed      bool  // a shard had no memory for it: it is not written, and not acknowledged
	forgotten   bool  // its Packet Identifier is free again for that
	again       bool  // it acknowledges what was received before

	conn   uint64   // token of the connection to acknowledge to; 0: none
	sess   *Session // for PUBREC, whose Packet Identifier pid is
	kept   *kept    // that Session's
	kind   packet.Kind
	pid    uint16
	reason packet.Reason

	msg        uint32 // its message, referenced, when it has entries or a mid, or is held; otherwise 0
	mid        uint64 // what other shards' entries refer to it by; 0: they have it in them
	head, tail uint32 // entries of this shard's Sessions, by mark.next
	ops        []byte // other records
	bytes      int    // about what it takes while it waits to be handed over

	first, last *contribution // other shards' entries, by contribution.next
}

// contribution is what a shard adds to another one's ticket. It goes to that shard with its memory, which goes back to the pool when it is
// handed over.
type contribution struct {
	ops    []byte
	failed bool
	next   *contribution
}

// contributions are those that nobody uses, of all shards. A publication for another shard's kept Sessions takes one: the lock is held for
// some instructions, and what it saves is as much memory as the message has, fresh each time.
type contributions struct {
	max int // bytes that are kept at most

	mu    sync.Mutex // guards what follows
	free  *contribution
	bytes int
	used  int // that somebody uses
}

// contributionBytes is what a contribution takes beside its records.
const contributionBytes = 64

func (l *contributions) take() *contribution {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used++
	c := l.free
	if c == nil {
		return &contribution{}
	}
	l.free = c.next
	l.bytes -= cap(c.ops) + contributionBytes
	c.next = nil
	return c
}

func (l *contributions) give(c *contribution) {
	size := cap(c.ops) + contributionBytes
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used--
	if l.bytes+size > l.max {
		return
	}
	l.bytes += size
	*c = contribution{ops: c.ops[:0], next: l.free}
	l.free = c
}

// ticketWeight is what each shard that must contribute gets; it splits its weight where it passes a publication on. A ticket is
// complete when all weights are back, so nobody needs to know who else is asked.
const ticketWeight = 1 << 20

// wantsTicket says whether a publication from connection c must be durable before it is acknowledged, or must wait its turn
// behind one that must, or behind the end of a Session that would have got it.
func (s *Shard) wantsTicket(c *conn, p *publication, sess *Session, e *cached) bool {
	return p.qos > 0 && (c.unacked > 0 || p.qos == 2 && sess.kept != nil || s.concernsKept(p.retain, e))
}

// concernsKept says whether a publication of QoS 1 or 2 has something that is kept.
func (s *Shard) concernsKept(retain bool, e *cached) bool {
	return e.kept || retain || slices.ContainsFunc(e.groups, (*group).isKept)
}

// isKept says whether a member that asked for QoS 1 or 2 is kept, or was, and its end may not be durable yet.
func (g *group) isKept() bool {
	return slices.ContainsFunc(*g.members.Load(), func(m *subscription) bool { return m.options.qos() > 0 && (m.session.durable.Load() || m.isOver()) })
}

// numberMessage gives the message of a publication that this shard has a ticket for a mid, where entries of several Sessions may need it and not all
// of them are this shard's: the others are told before anybody knows how many there will be. A Session that turns up only then has the message in its
// entry, as one that is alone.
func (s *Shard) numberMessage(p *publication, e *cached) {
	away, several := slices.ContainsFunc(e.remote, func(r remoteShard) bool { return r.kept }), e.several
	for _, g := range e.groups {
		if g.isKept() {
			several = several || e.kept || away
			away = true
		}
	}
	if several && away {
		p.mid = s.newNumber()
		p.own.mid = p.mid
	}
}

// openTicket gives a publication a ticket, which stays open until closeTicket.
func (s *Shard) openTicket(p *publication) *ticket {
	st := s.stream
	var t *ticket
	if n := len(st.free); n > 0 {
		t, st.free = st.free[n-1], st.free[:n-1]
	} else {
		t = &ticket{}
	}
	*t = ticket{number: st.next(), open: true, ops: t.ops[:0]}
	st.tickets = append(st.tickets, t)
	p.own, p.ticket, p.hold = t, ticketName(s.id, t.number), p.qos == 2
	return t
}

// keepOwn is openTicket for a publication that nobody is to be told about, where it has something that is kept. A Will that the store does not
// have and for which there is no room goes out as one of QoS 0: to who is connected, and its Retained Message may be late.
func (s *Shard) keepOwn(p *publication, e *cached, due uint64) {
	switch {
	case s.stream == nil || p.qos == 0 || !s.concernsKept(p.retain, e):
	case due != 0 || s.willRoom():
		s.openTicket(p)
	default:
		s.counters[CounterStoreRefused]++
		p.qos, s.ms.at(p.msg).flags = 0, packet.PublishFlags(false, 0, p.retain)
	}
}

// closeTicket says that this shard has done its part for a publication.
func (s *Shard) closeTicket(p *publication) {
	if p.own != nil {
		p.own.open = false
		s.weigh(p.own, len(p.own.ops))
		if (p.hold || p.mid != 0) && p.msg != 0 && p.own.msg == 0 {
			p.own.msg = p.msg // for refuseHeld, and to be written
			s.ms.retain(p.msg, 1)
		}
		if p.own.msg != 0 {
			s.weigh(p.own, p.size+len(p.topic)+len(p.props))
		}
		p.own = nil
		s.advanceReady()
		return
	}
	if p.weight > 0 {
		c := s.contributions.take()
		c.failed, c.ops, p.records = p.failed, p.records, c.ops
		m := shardMessage{kind: contributeMessage, ticket: p.ticket, weight: p.weight, contribution: c}
		p.weight, p.failed, p.mid = 0, false, 0
		if to := ticketShard(p.ticket); to != s.id {
			s.push(to, m)
		} else { // forwarded back to where it was published
			s.onContribute(&m)
		}
	}
}

// weigh counts bytes of a ticket that waits to be handed over.
func (s *Shard) weigh(t *ticket, bytes int) {
	t.bytes += bytes
	s.stream.inTickets += bytes
}

// onContribute takes another shard's part of a ticket.
func (s *Shard) onContribute(m *shardMessage) {
	t := s.stream.at(ticketNumber(m.ticket))
	c := m.contribution
	if t.last == nil {
		t.first = c
	} else {
		t.last.next = c
	}
	t.last = c
	s.weigh(t, len(c.ops))
	t.failed = t.failed || c.failed
	t.outstanding -= int64(m.weight)
	s.advanceReady()
}

// advanceReady finds out which tickets can be handed over.
func (s *Shard) advanceReady() {
	st := s.stream
	for st.ready < st.next() {
		if t := st.at(st.ready); t.open || t.outstanding > 0 {
			return
		}
		st.ready++
	}
}

// share gives a message for another shard its part of the publication's ticket.
func (s *Shard) share(p *publication, to int, m *shardMessage, must bool) {
	m.ticket = p.ticket
	switch {
	case p.own != nil && must:
		m.weight, m.mid = ticketWeight, p.mid
		p.own.outstanding += ticketWeight
		s.stream.told[to] = true
	case p.own != nil && p.hold:
		s.stream.told[to] = true
	case p.weight > 1:
		m.weight, m.mid = p.weight/2, p.mid
		p.weight -= m.weight
	}
}

// borrow makes p the publication of a message from another shard.
func (s *Shard) borrow(p *publication, m *shardMessage) {
	if m.ticket != 0 {
		p.ticket, p.weight, p.mid, p.hold = m.ticket, m.weight, m.mid, p.qos == 2
	}
}

// markEntry makes a new delivery part of its publication's ticket and gives it its place in the Session's queue.
func (s *Shard) markEntry(p *publication, sess *Session, id uint32, forwarded bool) {
	e, m := &s.entries[id], &s.marks[id]
	if p.hold {
		m.ticket, m.hold = p.ticket, true
	}
	k := sess.kept
	if k == nil || e.qos() == 0 {
		return
	}
	if p.own == nil && p.weight == 0 {
		s.openTicket(p) // nobody waits for it, but it is to be kept
		m.hold = p.hold
	}
	m.sid, m.ticket, m.pos = k.sid, p.ticket, k.next
	if forwarded && k.forward != 0 {
		m.pos = k.forward
		k.forward++
	} else {
		k.next++
	}
	if p.own == nil {
		p.records = s.appendEntry(p.records, id, p.mid)
		return
	}
	e.flags |= entryTicket
	t := p.own
	if t.head == 0 {
		t.head, t.msg = id, e.msg
		s.ms.retain(t.msg, 1)
	} else {
		s.marks[t.tail].next = id
	}
	t.tail = id
}

// appendEntry writes an entry, with its message or, where that is shared as mid, a reference to it.
func (s *Shard) appendEntry(ops []byte, id uint32, mid uint64) []byte {
	e, m := &s.entries[id], &s.marks[id]
	out := &s.outEntry
	*out = record.Entry{Flags: e.flags & (entryQoS | entryRetain | entryReleased), Mid: mid, IDs: s.entryIDs(e, out.IDs[:0])}
	if e.flags&entrySent != 0 {
		out.Flags |= record.EntrySent
		if e.pid != record.PacketID(m.pos) {
			out.PID = e.pid
		}
	}
	if e.group != 0 {
		if g := s.groups.find(e.group); g != nil {
			out.Share, out.Filter = g.name, g.record.filter
		}
	}
	value := out.AppendHead(s.value[:0])
	if mid == 0 && e.flags&entryReleased == 0 {
		value = s.appendMessage(value, e.msg)
	}
	s.value = value
	m.mid = mid
	ops = record.AppendSet(ops, record.EntryKey(s.keyRoom(), m.sid, m.pos), value)
	if mid != 0 {
		ops = record.AppendSet(ops, record.ReferenceKey(s.keyRoom(), mid, m.sid, m.pos), nil)
	}
	return ops
}

// entryIDs appends the Subscription Identifiers of an entry.
func (s *Shard) entryIDs(e *entry, ids []uint32) []uint32 {
	r := s.entryReceiver(nil, e)
	switch {
	case len(r.more) > 0:
		return append(ids, r.more...)
	case r.id != 0:
		return append(ids, r.id)
	}
	return ids
}

// appendMessage writes a stored message.
func (s *Shard) appendMessage(dst []byte, msg uint32) []byte {
	m := s.ms.at(msg)
	topic, props := s.ms.meta(m)
	out := record.Message{Flags: m.flags, From: m.from, Expires: s.wall(m.expires), Topic: topic, Props: props}
	if n := pagesFor(int(m.chainAt)+int(m.payloadSize)) + 1; cap(s.parts) < n {
		s.parts = make([][]byte, 0, n)
	}
	s.parts = s.ms.payload(m, 0, s.parts[:0])
	dst = record.AppendMessage(dst, &out, int(m.payloadSize), s.parts...)
	clear(s.parts)
	return dst
}

// admitKept says whether a publication that is to be kept can be taken now; if not, what becomes of it.
func (s *Shard) admitKept(id uint32, c *conn, in *packet.Publish, wants bool) (v verdict, ok bool) {
	switch {
	case wants && s.refuses(RefuseMessages):
		return s.refuseKept(id, c, in), false
	case wants && !s.streamRoom(), in.Retain && in.QoS > 0 && s.retainedLog.size.Load() > int64(s.limits.streamBytes()):
		s.counters[CounterStalledStore]++
		return stalled, false
	}
	c.clear(connRefused)
	return consumed, true
}

// promisePublish has a PUBLISH acknowledged when its ticket is durable, which the Packet Identifier of a kept publisher is part of.
func (s *Shard) promisePublish(t *ticket, id uint32, c *conn, in *packet.Publish, reason packet.Reason) {
	kind := packet.PUBACK
	if in.QoS == 2 {
		kind = packet.PUBREC
		if k := s.refs[id].session.kept; k != nil {
			t.ops = record.AppendSet(t.ops, record.ReceivedKey(s.keyRoom(), k.sid, in.PacketID), nil)
		}
	}
	s.promise(t, id, c, kind, in.PacketID, reason)
}

// noMemory says that a delivery could not be made for want of memory. One that is to be kept is not lost so: its publication is not
// acknowledged.
func (s *Shard) noMemory(p *publication, sess *Session, qos uint8) {
	if sess.kept != nil && qos > 0 && p.ticket != 0 {
		p.failed = true
		if p.own != nil {
			p.own.failed = true
		}
		return
	}
	s.drop(sess, CounterDroppedNoMemory)
}
