package broker

import "github.com/ringmq/ringmq/broker/packet"

// A large PUBLISH for which no memory can be promised is not taken, and its connection goes on where it can: its bytes are
// read and thrown away, and then it is answered as a small one is (exhausted). To cut the connection instead would have a client
// that publishes and subscribes come back with the same PUBLISH each time, before it has taken and acknowledged what waits
// for it: and that may be what the memory is full of.
//
// A client of 3.x cannot be told. Its PUBLISH waits where it is; but when its own Session has something in flight, what it
// waits for may be an acknowledgement that its client has sent behind it. Then, after patienceMS, the connection is winding up: what it
// publishes with QoS 1 or 2 is thrown away unacknowledged, so that nothing overtakes, acknowledgements are taken, and when none is
// missing the connection is closed. The client sends again what was not acknowledged when it is back [MQTT-4.4.0-1].

// patienceMS is how long a PUBLISH of 3.x waits for memory before its connection is wound up, in milliseconds.
const patienceMS = 1000

// skipped is the PUBLISH that a connection is throwing away.
type skipped struct {
	pid    uint16
	flags  uint8         // of its fixed header
	reason packet.Reason // what it is answered with; Success: it is one of QoS 2 that was received before
}

// refuseLarge decides what becomes of a packet for which no pages can be promised. data begins with it.
func (s *Shard) refuseLarge(id uint32, c *conn, h packet.Header, data []byte) verdict {
	switch {
	case c.state == connOpen:
		return s.refuseLargeConnect(id, c, data, data[h.Size:])
	case h.Kind != packet.PUBLISH || c.state != connLive:
		s.counters[CounterNoMemory]++
		s.counters[CounterClosedNoMemory]++
		return s.violate(id, packet.QuotaExceeded) // Limit: memory for packets other than PUBLISH.
	}
	in := &s.inPublish
	if in.Decode(h.Flags, data[h.Size:], c.version) != packet.Success {
		// The variable header may not be here yet. One that does not come to its end within a page is not waited for.
		if len(data) <= pageSize {
			s.keep(id, data)
			return consumed
		}
		s.counters[CounterNoMemory]++
		s.counters[CounterClosedNoMemory]++
		return s.violate(id, packet.QuotaExceeded) // Limit: pageSize, of the variable header of a PUBLISH.
	}
	r, v := s.judgeSkipped(id, c, in)
	switch {
	case v == gone:
		return gone
	case r == packet.QuotaExceeded && in.QoS > 0 && c.version != packet.V50 && !s.windsUp(id, c):
		s.counters[CounterNoMemory]++
		return stalled
	}
	if r == packet.QuotaExceeded {
		s.counters[CounterNoMemory]++
	}
	c.set(connSkipping)
	c.skip = skipped{in.PacketID, h.Flags, r}
	c.asmNeed = uint32(h.Size + h.Remaining)
	s.wheel.start(id, s.tickAfter(s.limits.PacketTimeout.Milliseconds()))
	s.assemble(id, c, data)
	c.asmMark = c.asmGot
	return consumed
}

// refuseLargeConnect refuses a CONNECT for which no pages can be promised, as soon as the version is there in which to say so.
func (s *Shard) refuseLargeConnect(id uint32, c *conn, data, body []byte) verdict {
	const versionEnds = 9 // "MQIsdp", its length, and the Protocol Level
	if len(body) < versionEnds {
		s.keep(id, data)
		return consumed
	}
	r := s.inConnect.Decode(body) // It fails: there is more. The version has been read.
	if c.version = s.inConnect.Version; c.version == 0 {
		return s.refuseUndecoded(id, c, body, r)
	}
	s.counters[CounterNoMemory]++
	return s.refuse(id, packet.QuotaExceeded) // Limit: memory for CONNECT.
}

// judgeSkipped is what publish does with a PUBLISH before it takes memory, and the Reason Code that it is to be answered with.
func (s *Shard) judgeSkipped(id uint32, c *conn, in *packet.Publish) (packet.Reason, verdict) {
	if in.Alias != 0 {
		if r := s.resolveAlias(c, in); r != packet.Success {
			return r, s.violate(id, r)
		}
	}
	if in.QoS == 2 {
		if again, v := s.admitExactlyOnce(id, c, in); again || v != consumed {
			return packet.Success, v
		}
	}
	if s.lookup(in.Topic) == nil {
		r := s.nameReason(in.Topic)
		return r, s.violate(id, r)
	}
	in.PayloadFormat = 0 // nobody is going to see the payload
	if r := s.judge(in, 0, 0, 0); r != packet.Success && !c.is(connWindingUp) {
		return r, consumed
	}
	return packet.QuotaExceeded, consumed // Limit: memory for large messages.
}

// throw throws input of a PUBLISH away, answers it behind its last byte, and returns what is left.
func (s *Shard) throw(id uint32, c *conn, data []byte) []byte {
	n := min(len(data), int(c.asmNeed-c.asmGot))
	c.asmGot += uint32(n)
	if c.asmGot == c.asmNeed {
		c.clear(connSkipping)
		s.endAssembly(id, c)
		s.counters[CounterMessagesReceived]++
		s.answerSkipped(id, c)
	}
	return data[n:]
}

// answerSkipped answers a PUBLISH that was thrown away. It was let in: it is answered even if there is little room for that.
func (s *Shard) answerSkipped(id uint32, c *conn) {
	in := &s.inPublish
	*in = packet.Publish{QoS: c.skip.flags & flagQoS >> 1, PacketID: c.skip.pid}
	switch r := c.skip.reason; {
	case r == packet.QuotaExceeded && c.version == packet.V50 && in.QoS > 0:
		s.counters[CounterNoMemory]++
		s.answerRefused(id, in, r)
	case r == packet.QuotaExceeded:
		s.exhausted(id, c, in)
	case r == packet.Success:
		s.ackAgain(id, c, c.skip.pid)
	default:
		s.answerRefused(id, in, r)
	}
}

// windsUp says whether a connection of 3.x is winding up, or is to from now on.
func (s *Shard) windsUp(id uint32, c *conn) bool {
	if !c.is(connWindingUp) && s.refs[id].session.inflight > 0 && s.now-c.heard >= patienceMS {
		c.set(connWindingUp)
	}
	return c.is(connWindingUp)
}

// woundUp closes a connection that is winding up when everything sent to it has been acknowledged.
func (s *Shard) woundUp(sess *Session) {
	if id := sess.conn; id != 0 && s.conns[id].is(connWindingUp) && sess.inflight == 0 {
		s.counters[CounterClosedNoMemory]++
		s.endSessionAs(id, false, packet.QuotaExceeded, "memory is used up") // Limit: memory for messages, in 3.x.
	}
}
