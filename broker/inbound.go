package broker

import "github.com/ringmq/ringmq/broker/packet"

// connectSizeMax is the largest packet in bytes before a client is known: a CONNECT with the longest strings and a Will.
const connectSizeMax = 512 << 10

// filterWork is what it takes to make or end a subscription, in deliveries.
const filterWork = 8

func pagesFor(n int) int { return (n + pageSize - 1) / pageSize }

// Receive takes input of connection id: what Carry gave, and what was read behind it. data is the caller's again when
// Receive returns.
func (s *Shard) Receive(id uint32, data []byte, fresh int) {
	c := &s.conns[id]
	size, before := len(data), c.heard
	s.counters[CounterBytesReceived] += uint64(fresh)
	if fresh > 0 {
		c.heard = s.now
	}
	if c.is(connYielded) && s.pool.holds(pagesFor(size)) {
		s.keep(id, data) // It has had its turn.
		return
	}
	wasStalled := c.is(connStalled)
	c.clear(connStalled)
	s.work = 0
	if c.asmNeed != 0 && c.asmGot == c.asmNeed {
		data = s.assemble(id, c, data) // a large PUBLISH that was stalled
	}
	for len(data) > 0 && !c.is(connStalled) {
		if c.state != connOpen && c.state != connLive && c.state != connExchange {
			if c.state == connAuth || c.state == connClaim {
				s.keep(id, data)
			}
			break
		}
		if s.work >= s.limits.InputWork && s.yield(id, c, data) { // Limit: InputWork.
			break
		}
		if c.asmNeed != 0 {
			data = s.assemble(id, c, data)
			continue
		}
		n, v := s.next(id, c, data)
		if v == stalled {
			s.stall(id, c, data)
			break
		}
		if n == 0 && len(data) == size && c.asmNeed == 0 {
			c.heard = before // Of a packet that is not whole only large ones count, which have to make progress [MQTT-3.1.2-22].
		}
		if n == 0 || v == gone {
			break
		}
		data = data[n:]
	}
	if !c.is(connStalled) {
		if wasStalled {
			s.unstall(id)
		}
		if c.is(connEnded) && !c.is(connYielded) && (c.state == connOpen || c.state == connLive || c.state == connExchange) {
			s.Closed(id, closedByClient)
		}
	}
	s.settle()
}

// closedByClient is the reason in the log for a peer that closed its side.
const closedByClient = "connection closed by client"

// next handles the packet at the start of data and says how many bytes it took; 0 when it is not complete, and then
// the rest is kept.
func (s *Shard) next(id uint32, c *conn, data []byte) (int, verdict) {
	h, r := packet.ParseHeader(data)
	if r != packet.Success {
		return 0, s.violate(id, r)
	}
	if h.Size == 0 || len(data) < h.Size+h.Remaining {
		return 0, s.partial(id, c, h, data)
	}
	n := h.Size + h.Remaining
	if n > s.limits.MaxPacketSize {
		return 0, s.refuseTooLarge(id)
	}
	if h.Kind == packet.PUBLISH && c.state == connLive {
		s.counters[CounterMessagesReceived]++
		return n, s.onPublish(id, c, h.Flags, data[:n:n], h.Size)
	}
	if s.requestWaits(id, c, h.Kind, h.Remaining) {
		return n, stalled
	}
	s.counters[CounterMessagesReceived]++
	return n, s.dispatch(id, c, h, data[h.Size:n:n])
}

// partial decides how to wait for the rest of a packet: in the carry when it fits a page, otherwise page by page,
// after its whole size was promised or refused.
func (s *Shard) partial(id uint32, c *conn, h packet.Header, data []byte) verdict {
	total := h.Size + h.Remaining
	switch {
	case h.Size == 0:
		s.keep(id, data)
	case c.state == connOpen && h.Kind != packet.CONNECT:
		return s.refuseUnconnected(id)
	case total > s.limits.MaxPacketSize, c.state != connLive && total > connectSizeMax, !s.pool.a.everHolds(pagesFor(total)):
		return s.refuseTooLarge(id)
	case total <= pageSize:
		s.keep(id, data)
	case !s.pool.commit(pagesFor(total)):
		return s.refuseLarge(id, c, h, data)
	default:
		c.asmNeed = uint32(total)
		if c.state == connLive { // ConnectTimeout holds for a large CONNECT, too.
			s.wheel.start(id, s.tickAfter(s.limits.PacketTimeout.Milliseconds()))
		}
		s.assemble(id, c, data)
		c.asmMark = c.asmGot
	}
	return consumed
}

// refuseTooLarge ends a connection for a packet above the Maximum Packet Size that CONNACK told, or above what is taken from
// somebody who is not known yet: whole, or at its fixed header.
func (s *Shard) refuseTooLarge(id uint32) verdict {
	return s.violate(id, packet.PacketTooLarge) // [MQTT-3.2.2-15]
}

// refuseUnconnected ends a connection whose first packet is no CONNECT: whole, or at its fixed header.
func (s *Shard) refuseUnconnected(id uint32) verdict {
	return s.violate(id, packet.ProtocolError) // [MQTT-3.1.0-1]
}

// assemble adds input to the large packet under way, handles the packet when it is complete, and returns what is left.
func (s *Shard) assemble(id uint32, c *conn, data []byte) []byte {
	if c.is(connSkipping) {
		return s.throw(id, c, data)
	}
	for len(data) > 0 && c.asmGot < c.asmNeed {
		at := int(c.asmGot % pageSize)
		if at == 0 {
			pg := s.pool.committedPage()
			if pg == 0 {
				s.counters[CounterClosedNoMemory]++
				s.violate(id, packet.QuotaExceeded) // Limit: memory for packets.
				return nil
			}
			if c.asmHead == 0 {
				c.asmHead = pg
			} else {
				s.pool.a.pages[c.asmTail].next = pg
			}
			c.asmTail = pg
		}
		n := copy(s.pool.a.bytes(c.asmTail)[at:], data[:min(len(data), int(c.asmNeed-c.asmGot))])
		c.asmGot += uint32(n)
		data = data[n:]
	}
	if c.asmGot == c.asmNeed && s.assembled(id, c) == stalled {
		s.stall(id, c, data)
		return nil
	}
	return data
}

// assembled handles a complete large packet. A PUBLISH keeps its pages as the message's payload; any other packet is
// laid out flat first.
func (s *Shard) assembled(id uint32, c *conn) verdict {
	first := s.pool.a.bytes(c.asmHead)
	h, r := packet.ParseHeader(first)
	if r != packet.Success {
		return s.violate(id, r)
	}
	size := int(c.asmNeed)
	if s.requestWaits(id, c, h.Kind, h.Remaining) {
		s.armKeepAlive(id)
		return stalled
	}
	if h.Kind != packet.PUBLISH || c.state != connLive {
		s.counters[CounterMessagesReceived]++
		flat := s.ms.flat(c.asmHead, size)
		s.pool.freeChain(c.asmHead)
		s.endAssembly(id, c)
		return s.dispatch(id, c, h, flat[h.Size:])
	}
	s.pub.raw = nil
	// The variable header is usually in the first page; when it is not, or does not decode, the whole is laid out.
	in := &s.inPublish
	head := first[h.Size:]
	if in.Decode(h.Flags, head, c.version) != packet.Success {
		head = s.ms.flat(c.asmHead, size)[h.Size:]
		if r := in.Decode(h.Flags, head, c.version); r != packet.Success {
			return s.violate(id, r)
		}
	}
	at := h.Size + len(head) - len(in.Payload)
	in.Payload = nil
	// The head may lie in the first page, which the message takes over, or in scratch room that storing uses.
	s.large = append(append(s.large[:0], in.Topic...), in.Properties...)
	n := len(in.Topic)
	in.Topic, in.Properties = s.large[:n:n], s.large[n:]
	chain, tail := c.asmHead, c.asmTail
	s.endAssembly(id, c)
	s.pub.chainUsed = false
	v := s.publish(id, c, in, size-at, chain, at)
	switch {
	case v == stalled:
		c.asmHead, c.asmTail, c.asmGot, c.asmNeed = chain, tail, uint32(size), uint32(size)
		return v
	case !s.pub.chainUsed:
		s.pool.freeChain(chain)
	}
	s.counters[CounterMessagesReceived]++
	return v
}

// endAssembly makes the connection ready for its next packet.
func (s *Shard) endAssembly(id uint32, c *conn) {
	c.asmHead, c.asmTail, c.asmGot, c.asmNeed = 0, 0, 0, 0
	if c.state == connLive {
		s.armKeepAlive(id)
	}
}

// dispatch handles a whole packet other than a PUBLISH on a live connection.
func (s *Shard) dispatch(id uint32, c *conn, h packet.Header, body []byte) verdict {
	if c.state == connOpen {
		if h.Kind != packet.CONNECT {
			return s.refuseUnconnected(id)
		}
		return s.onConnect(id, c, h.Flags, body)
	}
	if r := packet.CheckFlags(h.Kind, h.Flags, c.version); r != packet.Success {
		return s.violate(id, r)
	}
	if c.state == connExchange && h.Kind != packet.AUTH {
		if h.Kind == packet.DISCONNECT {
			s.Closed(id, "by client")
			return gone
		}
		return s.violate(id, packet.ProtocolError) // [MQTT-3.1.2-30]
	}
	switch h.Kind {
	case packet.PUBACK, packet.PUBREC, packet.PUBREL, packet.PUBCOMP:
		return s.onAck(id, c, h.Kind, body)
	case packet.SUBSCRIBE:
		return s.onSubscribe(id, c, body)
	case packet.UNSUBSCRIBE:
		return s.onUnsubscribe(id, c, body)
	case packet.PINGREQ:
		s.counters[CounterMessagesSent]++
		s.send(id, packet.AppendPingresp(s.small[:0])) // [MQTT-3.12.4-1]
		return consumed
	case packet.DISCONNECT:
		return s.onDisconnect(id, c, body)
	case packet.AUTH:
		if c.version == packet.V50 {
			return s.onAuth(id, c, body)
		}
	}
	return s.violate(id, packet.ProtocolError) // [MQTT-3.1.0-2] for a second CONNECT, or a server's packet
}

// onAck handles PUBACK, PUBREC, PUBREL and PUBCOMP.
func (s *Shard) onAck(id uint32, c *conn, kind packet.Kind, body []byte) verdict {
	in := &s.inAck
	if r := in.Decode(kind, body, c.version); r != packet.Success {
		return s.violate(id, r)
	}
	sess := s.refs[id].session
	switch kind {
	case packet.PUBACK, packet.PUBCOMP:
		s.acknowledged(sess, in.PacketID, kind == packet.PUBCOMP)
	case packet.PUBREC:
		s.onPubrec(id, sess, in)
	case packet.PUBREL:
		s.onPubrel(id, c, sess, in.PacketID)
	}
	return consumed
}

// onPubrel is the end of QoS 2 for a message that was received [MQTT-4.3.3-11].
func (s *Shard) onPubrel(id uint32, c *conn, sess *Session, pid uint16) {
	k := sess.kept
	switch {
	case !s.receivedRemove(sess, pid):
		if k != nil {
			s.work += len(k.forgetting) / forgettingPerDelivery
			if k.isForgetting(pid, token(id, c.generation)) {
				return
			}
		}
		s.ack(id, packet.PUBCOMP, pid, packet.PacketIdentifierNotFound) // Section 3.7.2.1.
		return
	case c.inbound > 0: // it may have been received on an earlier connection
		c.inbound--
	}
	if k == nil {
		s.ack(id, packet.PUBCOMP, pid, packet.Success)
		return
	}
	s.forgetReceived(id, k, pid)
}

// inFlight finds the entry with a Packet Identifier among those sent, and its predecessor.
func (s *Shard) inFlight(sess *Session, pid uint16) (prev, id uint32) {
	for id = sess.sent.head; id != 0; prev, id = id, s.entries[id].next {
		if id == sess.resend {
			return 0, 0 // not sent on this connection: the client cannot mean it
		}
		if s.entries[id].pid == pid {
			return prev, id
		}
	}
	return 0, 0
}

// acknowledged ends the delivery of a QoS 1 message (PUBACK) or of a QoS 2 message (PUBCOMP).
func (s *Shard) acknowledged(sess *Session, pid uint16, comp bool) {
	prev, id := s.inFlight(sess, pid)
	if id == 0 {
		return
	}
	if comp != (s.entries[id].flags&entryReleased != 0) || !comp && s.entries[id].qos() != 1 {
		return
	}
	s.endDelivery(sess, prev, id)
}

func (s *Shard) endDelivery(sess *Session, prev, id uint32) {
	s.unqueue(&sess.sent, prev, id)
	s.discard(sess, id)
	sess.inflight--
	s.unblock(sess)
	if sess.behind() {
		s.pump(sess)
	}
	s.woundUp(sess)
}

// onPubrec is the first half of QoS 2: from here on PUBREL is sent, never the message again [MQTT-4.3.3-6].
func (s *Shard) onPubrec(id uint32, sess *Session, in *packet.Ack) {
	prev, e := s.inFlight(sess, in.PacketID)
	switch {
	case e == 0 || s.entries[e].qos() != 2:
		s.ack(id, packet.PUBREL, in.PacketID, packet.PacketIdentifierNotFound) // Section 3.6.2.1.
	case in.Reason.Failed():
		if s.entries[e].flags&entryReleased == 0 {
			s.endDelivery(sess, prev, e) // [MQTT-4.3.3-4]: no PUBREL; the message is done with.
		}
	default:
		s.onReceived(id, sess, e, in.PacketID)
	}
}

// onReceived notes a PUBREC and answers it, when that is durable if the delivery is kept.
func (s *Shard) onReceived(id uint32, sess *Session, e uint32, pid uint16) {
	again := s.entries[e].flags&entryReleased != 0
	s.entries[e].flags |= entryReleased
	switch {
	case sess.kept == nil || s.marks[e].pos == 0 || again && sess.kept.promised == 0:
		s.ack(id, packet.PUBREL, pid, packet.Success)
	case !again: // otherwise PUBREL has been sent, or is under way
		s.released(id, sess, e)
	}
}
