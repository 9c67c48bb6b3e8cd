package broker

import "github.com/ringmq/ringmq/broker/packet"

// refThreshold is the payload size in bytes from which an outbound buffer refers to the stored message instead of
// copying: below it the copy is cheaper than the bookkeeping, and a page holds several messages.
const refThreshold = 2048

// room makes sure that n more bytes fit behind the outbound buffer, taking pages; false when memory is used up, in
// which case nothing has changed.
func (s *Shard) room(c *conn, n int, u urgency) bool {
	pages := s.pool.a.pages
	free := 0
	tail := c.outTail
	if tail != 0 && pages[tail].ref == 0 {
		free = pageSize - int(pages[tail].end)
	}
	var first, last uint32
	taken := uint32(0)
	for ; free < n; free += pageSize {
		pg := s.pool.urgentPage(u)
		if pg == 0 {
			s.pool.freeChain(first)
			return false
		}
		if first == 0 {
			first = pg
		} else {
			pages[last].next = pg
		}
		last = pg
		taken++
	}
	if first != 0 {
		if tail == 0 {
			c.outHead, c.outTail = first, first
		} else {
			pages[tail].next = first
		}
		c.outBytes += taken * pageSize
	}
	return true
}

// put appends bytes for which room was made.
func (s *Shard) put(c *conn, b []byte) {
	for {
		m := &s.pool.a.pages[c.outTail]
		if m.ref == 0 {
			n := copy(s.pool.a.bytes(c.outTail)[m.end:], b)
			m.end += uint16(n)
			if b = b[n:]; len(b) == 0 {
				return
			}
		}
		c.outTail = m.next
	}
}

// putRef appends a stored message's payload by reference, behind the last byte put.
func (s *Shard) putRef(c *conn, msg uint32) {
	m := &s.pool.a.pages[c.outTail]
	m.ref, m.refAt = msg, 0
	s.ms.retain(msg, 1)
	c.outBytes += s.ms.at(msg).payloadSize
}

// send appends an acknowledgement or another packet of the broker's own: it may use the emergency store, and if even
// that is empty the connection is closed, for a lost acknowledgement would break the protocol; then there is
// no memory to say why either.
func (s *Shard) send(id uint32, b []byte) {
	c := &s.conns[id]
	if c.state == connReleased || c.state == connFree {
		return
	}
	if len(b) > int(c.maxPacket) {
		s.violate(id, packet.PacketTooLarge) // [MQTT-3.1.2-24]
		return
	}
	tail := c.outTail
	if tail != 0 {
		if m := &s.pool.a.pages[tail]; m.ref == 0 && int(m.end)+len(b) <= pageSize {
			copy(s.pool.a.bytes(tail)[m.end:], b)
			m.end += uint16(len(b))
			s.touch(id)
			return
		}
	}
	if !s.room(c, len(b), forControl) {
		s.counters[CounterClosedNoMemory]++
		s.Closed(id, "no memory for an acknowledgement")
		return
	}
	s.put(c, b)
	s.touch(id)
}

// ack sends the short form of PUBACK, PUBREC, PUBREL or PUBCOMP.
func (s *Shard) ack(id uint32, kind packet.Kind, pid uint16, reason packet.Reason) {
	b := packet.AppendAck(s.small[:0], kind, pid, reason, s.conns[id].version)
	s.counters[CounterMessagesSent]++
	s.send(id, b)
}

// Gather appends to vec the slices that connection id has to send, valid until Sent. It stops when vec is full.
func (s *Shard) Gather(id uint32, vec [][]byte) [][]byte {
	c := &s.conns[id]
	for pg := c.outHead; pg != 0 && len(vec) < cap(vec); {
		m := &s.pool.a.pages[pg]
		if m.begin < m.end {
			vec = append(vec, s.pool.a.bytes(pg)[m.begin:m.end])
		}
		if m.ref != 0 {
			vec = s.ms.payload(s.ms.at(m.ref), int(m.refAt), vec)
			if len(vec) == cap(vec) {
				return vec
			}
		}
		if pg == c.outTail {
			break
		}
		pg = m.next
	}
	return vec
}

// Sent says that the plane took n bytes of what Gather gave.
func (s *Shard) Sent(id uint32, n int) {
	c := &s.conns[id]
	s.counters[CounterBytesSent] += uint64(n)
	for c.outHead != 0 {
		m := &s.pool.a.pages[c.outHead]
		k := min(n, int(m.end-m.begin))
		m.begin += uint16(k)
		n -= k
		if m.begin < m.end || !s.sentRef(c, m, &n) {
			return
		}
		if c.outHead == c.outTail {
			s.pool.freeChain(c.outHead)
			c.outHead, c.outTail, c.outBytes = 0, 0, 0
			return
		}
		pg := c.outHead
		c.outHead = m.next
		c.outBytes -= pageSize
		s.pool.freePage(pg)
	}
}

// sentRef takes up to *n bytes off the payload that a page refers to; false while some of it is left.
func (s *Shard) sentRef(c *conn, m *page, n *int) bool {
	if m.ref == 0 {
		return true
	}
	size := s.ms.at(m.ref).payloadSize
	k := min(uint32(*n), size-m.refAt)
	m.refAt += k
	*n -= int(k)
	if m.refAt < size {
		return false
	}
	c.outBytes -= size
	s.ms.release(m.ref)
	m.ref = 0
	return true
}

// dropOutput frees everything that was to be sent.
func (s *Shard) dropOutput(c *conn) {
	for pg := c.outHead; pg != 0; {
		m := &s.pool.a.pages[pg]
		next := m.next
		if m.ref != 0 {
			s.ms.release(m.ref)
		}
		s.pool.freePage(pg)
		pg = next
	}
	c.outHead, c.outTail, c.outBytes = 0, 0, 0
}
