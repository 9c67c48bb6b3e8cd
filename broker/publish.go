package broker

import (
	"github.com/ringmq/ringmq/broker/packet"
)

// publication is one Application Message on its way to its receivers. Its slices alias the read buffer or the stored
// message; a shard routes one at a time, so there is one of it per shard and nothing is allocated.
type publication struct {
	topic   []byte
	props   []byte // what is forwarded of the properties
	payload []byte // all of it, unless it lies in pages
	size    int    // of the payload
	msg     uint32 // the stored form, 0 until it is needed
	chain   uint32 // pages of a large packet that hold the payload, until stored
	chainAt int
	// chainUsed says that a message has taken the pages of chain over.
	chainUsed bool
	qos       uint8
	retain    bool
	expires   int64 // ms; 0 never
	from      uint64

	// raw is the PUBLISH as it came, when receivers of the same version and QoS may get just that: nil when it has a
	// Topic Alias or a Message Expiry Interval, or is large.
	raw    []byte
	rawV5  bool
	rawPID int // where the Packet Identifier lies in it

	heads     []byte // encoded forms, made once per kind of receiver
	templates [4]template
	made      int

	// With a store: the publication's ticket, its name, and, where that is another shard's, this one's part in it.
	own     *ticket
	ticket  uint64
	weight  uint32
	hold    bool // nobody gets it before the ticket is durable
	failed  bool // there was no memory for a delivery that is to be kept
	records []byte
	mid     uint64 // of its message, which the ticket's shard writes, when other shards' deliveries refer to it; otherwise 0
}

// verdict is what became of an incoming packet.
type verdict uint8

const (
	consumed verdict = iota
	stalled          // stays unconsumed: there is no room for it now
	gone             // the connection was closed or is closing
)

// begin prepares p for a new message, but for raw, which its caller sets or leaves nil.
func (p *publication) begin(topic, props []byte, qos uint8, retain bool) {
	p.topic, p.props, p.payload, p.size = topic, props, nil, 0
	p.msg, p.chain, p.chainAt = 0, 0, 0
	p.qos, p.retain, p.expires, p.from = qos, retain, 0, 0
	if p.hold = false; p.ticket != 0 {
		p.own, p.ticket, p.weight, p.failed = nil, 0, 0, false
		p.records, p.mid = p.records[:0], 0
	}
	p.made, p.heads = 0, p.heads[:0]
}

// onPublish handles a PUBLISH that lies whole in raw, its first size bytes being the fixed header.
func (s *Shard) onPublish(id uint32, c *conn, flags uint8, raw []byte, size int) verdict {
	in := &s.inPublish
	if r := in.Decode(flags, raw[size:], c.version); r != packet.Success {
		return s.violate(id, r)
	}
	p := &s.pub
	p.raw, p.rawV5, p.rawPID = raw, c.version == packet.V50, size+2+len(in.Topic)
	if !in.Forwardable || len(raw) > wholePayload {
		p.raw = nil
	}
	return s.publish(id, c, in, len(in.Payload), 0, 0)
}

// publish is the first of the two steps of a PUBLISH: it is judged, matched, stored as far as needed and handed to its
// receivers. The payload is in.Payload or, for a large packet, lies in chain from byte at on.
func (s *Shard) publish(id uint32, c *conn, in *packet.Publish, size int, chain uint32, at int) verdict {
	sess := s.refs[id].session
	if sess.arriving {
		// Other shards may not have seen yet what this client published through its Session's old home: what it publishes
		// here must not overtake that [MQTT-4.6.0-6]. onArrived says when they have.
		return stalled
	}
	if in.Alias != 0 {
		if r := s.resolveAlias(c, in); r != packet.Success {
			return s.violate(id, r)
		}
	}
	if in.QoS == 2 {
		again, v := s.admitExactlyOnce(id, c, in)
		if again && s.againInTurn(c, sess) && !s.streamRoom() {
			return stalled
		}
		if again {
			s.ackAgain(id, c, in.PacketID)
		}
		if again || v != consumed {
			return v
		}
	}
	e := s.lookup(in.Topic)
	if e == nil {
		return s.violate(id, s.nameReason(in.Topic))
	}
	if c.is(connWindingUp) && in.QoS > 0 {
		return consumed // unacknowledged: the client sends it again on its next connection, see skip.go
	}
	if r := s.judge(in, size, chain, at); r != packet.Success {
		return s.refusePublish(id, in, r)
	}
	p := &s.pub
	props := in.Properties
	if !in.Forwardable {
		s.props = packet.AppendForwarded(s.props[:0], in.Properties)
		props = s.props
	}
	p.begin(in.Topic, props, in.QoS, in.Retain)
	p.payload, p.size, p.chain, p.chainAt, p.from = in.Payload, size, chain, at, sess.serial
	if in.HasExpiry {
		p.expires = s.now + int64(in.Expiry)*1000
	}
	if p.raw != nil && e.plain && in.QoS == 0 && !in.Retain && s.arriving.Load() == 0 {
		return s.acceptPlain(c, e)
	}
	return s.acceptPublish(id, c, in, e)
}

// admitExactlyOnce says whether a message of QoS 2 was received before, and otherwise whether the client may have another one under way.
func (s *Shard) admitExactlyOnce(id uint32, c *conn, in *packet.Publish) (again bool, v verdict) {
	sess := s.refs[id].session
	if !in.Dup {
		sess.showsResent()
	}
	s.forgetRestored(sess, in)
	if s.receivedHas(sess, in.PacketID) || in.Dup && s.mayHaveReceived(sess, in.PacketID) {
		return true, consumed
	}
	if int(c.inbound) >= s.limits.ReceiveMaximum && c.version == packet.V50 {
		return false, s.violate(id, packet.ReceiveMaximumExceeded) // [MQTT-3.3.4-7]
	}
	return false, consumed
}

// ackAgain acknowledges a message of QoS 2 that was received before, but not behind one that was thrown away unacknowledged [MQTT-4.6.0-3]:
// both come again on the next connection.
func (s *Shard) ackAgain(id uint32, c *conn, pid uint16) {
	if !c.is(connWindingUp) && !s.againReceived(id, c, pid) {
		s.ack(id, packet.PUBREC, pid, packet.Success) // [MQTT-4.3.3-10]
	}
}

// acceptPlain is acceptPublish for what most messages are: small, QoS 0, not retained, for receivers of this shard. There
// is nothing to reserve, store or acknowledge.
func (s *Shard) acceptPlain(c *conn, e *cached) verdict {
	p := &s.pub
	s.counters[CounterPublishReceived]++
	s.counters[CounterPublishBytesReceived] += uint64(p.size)
	s.work += len(e.local)
	for i := range e.local {
		if r := &e.local[i]; !s.deliverRaw(p, r) {
			s.deliver(p, r)
		}
	}
	if c.state != connLive {
		return gone
	}
	return consumed
}

// acceptPublish reserves room everywhere before anything is done, so that a PUBLISH is either taken or left alone.
func (s *Shard) acceptPublish(id uint32, c *conn, in *packet.Publish, e *cached) verdict {
	p := &s.pub
	if !s.reserve(e) {
		s.counters[CounterStalledQueue]++
		return stalled
	}
	wants := s.stream != nil && s.wantsTicket(c, p, s.refs[id].session, e)
	if s.stream != nil && (wants || in.Retain) {
		if v, ok := s.admitKept(id, c, in, wants); !ok {
			return v
		}
	}
	if in.Retain && p.size > 0 && c.version == packet.V50 && in.QoS > 0 && s.retainedFull(p.topic) {
		s.counters[CounterRetainedRefused]++
		return s.refusePublish(id, in, packet.QuotaExceeded) // Limit: MaxRetained.
	}
	p.hold = wants && in.QoS == 2
	if in.QoS == 2 && !s.noteReceived(id, c, in.PacketID) && !(s.makesRoom(p) && s.noteReceived(id, c, in.PacketID)) {
		return s.exhausted(id, c, in)
	}
	if !s.prepare(p, e) && !(s.makesRoom(p) && s.prepare(p, e)) {
		if in.QoS == 2 {
			s.receivedRemove(s.refs[id].session, in.PacketID)
			c.inbound--
		}
		return s.exhausted(id, c, in)
	}
	s.counters[CounterPublishReceived]++
	s.counters[CounterPublishBytesReceived] += uint64(p.size)
	var t *ticket
	if wants {
		t = s.openTicket(p)
		s.behindEnds(t)
	}
	matched := s.route(p, s.retainFirst(p, e))
	reason := packet.Success
	if !matched {
		reason = packet.NoMatchingSubscribers
	}
	if t != nil {
		s.promisePublish(t, id, c, in, reason)
		s.finish(p)
		return liveVerdict(c)
	}
	s.finish(p)
	return s.completePublish(id, c, in, reason)
}

// completePublish is the second step: the acknowledgement. Without a store it follows the first in the same turn.
func (s *Shard) completePublish(id uint32, c *conn, in *packet.Publish, reason packet.Reason) verdict {
	switch in.QoS {
	case 1:
		s.ack(id, packet.PUBACK, in.PacketID, reason) // [MQTT-4.3.2-4]
	case 2:
		s.ack(id, packet.PUBREC, in.PacketID, reason) // [MQTT-4.3.3-8]
	}
	if c.state != connLive {
		return gone
	}
	return consumed
}

// noteReceived records the Packet Identifier of a QoS 2 message, so that its duplicates are known [MQTT-4.3.3-10];
// false when memory is used up.
func (s *Shard) noteReceived(id uint32, c *conn, pid uint16) bool {
	if !s.receivedAdd(s.refs[id].session, pid) {
		return false
	}
	c.inbound++
	return true
}

// nameReason says what is wrong with a Topic Name.
func (s *Shard) nameReason(name []byte) packet.Reason {
	if !packet.ValidUTF8(name) {
		return packet.MalformedPacket // [MQTT-3.3.2-1]
	}
	return packet.TopicNameInvalid // [MQTT-3.3.2-2]; or more levels than the broker takes
}

// judge refuses what a client may not publish although the packet is well-formed.
func (s *Shard) judge(in *packet.Publish, size int, chain uint32, at int) packet.Reason {
	if in.Topic[0] == '$' {
		return packet.NotAuthorized // Section 4.7.2: such names are the broker's.
	}
	if in.PayloadFormat == 1 {
		payload := in.Payload
		if chain != 0 {
			payload = s.ms.flat(chain, at+size)[at:]
		}
		return textReason(payload)
	}
	return packet.Success
}

// refusePublish answers a PUBLISH that is not taken: by its acknowledgement where that has a Reason Code. In 3.x it is
// acknowledged and forgotten, for there is no other way to make the client stop sending it (section 3.3.5 of 3.1.1).
func (s *Shard) refusePublish(id uint32, in *packet.Publish, r packet.Reason) verdict {
	if s.conns[id].unacked > 0 && in.QoS > 0 && !s.streamRoom() {
		return stalled
	}
	return s.answerRefused(id, in, r)
}

// answerRefused is refusePublish where it cannot wait.
func (s *Shard) answerRefused(id uint32, in *packet.Publish, r packet.Reason) verdict {
	c := &s.conns[id]
	s.counters[CounterPublishRefused]++
	switch {
	case in.QoS == 1:
		s.ackInTurn(id, c, packet.PUBACK, in.PacketID, r)
	case in.QoS == 2:
		if c.version != packet.V50 {
			s.receivedAdd(s.refs[id].session, in.PacketID)
		}
		s.ackInTurn(id, c, packet.PUBREC, in.PacketID, r)
	case r == packet.PayloadFormatInvalid:
		return s.violate(id, r)
	}
	return consumed
}

// ackInTurn acknowledges a PUBLISH of which nothing is kept, behind those that wait for the store [MQTT-4.6.0-2] [MQTT-4.6.0-3].
func (s *Shard) ackInTurn(id uint32, c *conn, kind packet.Kind, pid uint16, r packet.Reason) {
	if c.unacked == 0 {
		s.ack(id, kind, pid, r)
		return
	}
	p := &s.own
	p.begin(nil, nil, 0, false)
	t := s.openTicket(p)
	s.promise(t, id, c, kind, pid, r)
	s.closeTicket(p)
}

// exhausted is the policy for a broker without memory: QoS 0 is dropped, 5.0 is told, 3.x waits unacknowledged.
func (s *Shard) exhausted(id uint32, c *conn, in *packet.Publish) verdict {
	s.counters[CounterNoMemory]++
	switch {
	case in.QoS == 0:
		s.counters[CounterDroppedNoMemory]++
		return consumed
	case c.version == packet.V50:
		return s.refusePublish(id, in, packet.QuotaExceeded) // Limit: memory for messages.
	case s.windsUp(id, c):
		return consumed
	}
	return stalled
}

// prepare stores the message if any receiver needs the stored form; false when memory is used up.
func (s *Shard) prepare(p *publication, e *cached) bool {
	queued := p.qos > 0 && (e.maxQoS > 0 || len(e.groups) > 0) || (p.hold || s.mayFollowHeld(p)) && len(e.local) > 0
	needs := p.chain != 0 || len(e.remote) > 0 || len(e.groups) > 0 || queued ||
		p.retain || p.size >= refThreshold && len(e.local) > 0 || s.arriving.Load() > 0
	if !needs {
		return true
	}
	if queued && s.entrySlots.n+int(s.entrySlots.s.available.Load()) < len(e.local)+len(e.groups) {
		return false
	}
	return s.stored(p)
}

// stored makes sure that p has its stored form.
func (s *Shard) stored(p *publication) bool {
	if p.msg != 0 {
		return true
	}
	o := origin{from: p.from, expires: p.expires, flags: packet.PublishFlags(false, p.qos, p.retain)}
	if p.chain != 0 {
		p.msg = s.ms.storeChain(p.topic, p.props, p.chain, p.chainAt, p.size, o)
		p.chainUsed = p.msg != 0
	} else {
		p.msg = s.ms.store(p.topic, p.props, p.payload, o)
	}
	return p.msg != 0
}

// finish drops what the shard itself holds of the publication.
func (s *Shard) finish(p *publication) {
	if p.ticket != 0 {
		s.closeTicket(p)
	}
	if p.msg != 0 {
		s.ms.release(p.msg)
		p.msg = 0
	}
}

// reserve checks that every queue this publication goes to has room for it.
func (s *Shard) reserve(e *cached) bool {
	n := min(1+len(e.groups), ringSlots) // more than an empty queue cannot be had: the rest overflows
	for _, to := range e.remote {
		if !s.hasRoom(int(to.shard), n) {
			return false
		}
	}
	if len(e.groups) > 0 {
		for to := range s.peers {
			if to != s.id && !s.hasRoom(to, n) {
				return false
			}
		}
	}
	return true
}

// route hands a publication to its receivers and says whether there was one.
func (s *Shard) route(p *publication, e *cached) bool {
	if p.own != nil && p.size >= sharedBodyMin {
		s.numberMessage(p, e)
	}
	s.work += len(e.local) + len(e.groups)
	for i := range e.local {
		s.deliver(p, &e.local[i])
	}
	for _, to := range e.remote {
		s.ms.retain(p.msg, 1)
		m := shardMessage{kind: routeMessage, msg: p.msg, epoch: e.epoch}
		if p.ticket != 0 {
			s.share(p, int(to.shard), &m, to.kept)
		}
		s.push(int(to.shard), m)
	}
	matched := len(e.local) > 0 || len(e.remote) > 0
	for _, g := range e.groups {
		matched = s.deliverShared(p, g) || matched
	}
	return matched
}

// publishOwn routes a message of the broker's own or a Will: nothing can be made to wait for it, so where a queue is
// full it goes to the overflow list, which is bounded by the number of Wills and $SYS topics. due is the record of a Will that the store
// has, 0 for none.
func (s *Shard) publishOwn(p *publication, due uint64) {
	e := s.lookup(p.topic)
	if e != nil {
		s.keepOwn(p, e, due)
	}
	if e == nil || !s.prepare(p, e) {
		s.counters[CounterDroppedNoMemory]++
	} else {
		s.route(p, s.retainFirst(p, e))
	}
	if due != 0 {
		s.forgetDue(p, due)
	}
	s.finish(p)
}

// retainFirst keeps a retained message before it is routed, and matches it again: a subscription that the match does not
// see yet is one that finds the message in the store.
func (s *Shard) retainFirst(p *publication, e *cached) *cached {
	if !p.retain {
		return e
	}
	s.retain(p)
	return s.lookup(p.topic)
}

// load makes p stand for a stored message.
func (s *Shard) load(p *publication, msg uint32) {
	m := s.ms.at(msg)
	topic, props := s.ms.meta(m)
	p.begin(topic, props, m.qos(), m.retain())
	p.raw = nil
	p.msg, p.size, p.expires, p.from = msg, int(m.payloadSize), m.expires, m.from
	if m.chain == 0 {
		n := int(m.topicSize) + int(m.propsSize)
		p.payload = s.pool.a.block(m.block, n+p.size)[n:]
	}
}
