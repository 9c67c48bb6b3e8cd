package broker

import "github.com/ringmq/ringmq/broker/packet"

// carryMax is how many bytes of unconsumed input a stalled connection may hold before it is no longer read.
const carryMax = 32 << 10

// Carry moves the input that connection id could not consume so far to the front of buf and says how long it is. The
// Loop reads more behind it and gives Receive all of it, so that packets are always parsed in place.
func (s *Shard) Carry(id uint32, buf []byte) int {
	c := &s.conns[id]
	n := len(s.appendCarry(buf[:0], c))
	s.dropCarry(c)
	return n
}

// appendCarry appends a connection's unconsumed input to buf.
func (s *Shard) appendCarry(buf []byte, c *conn) []byte {
	n := int(c.carryLen)
	switch {
	case c.carry == 0:
	case s.carriesPages(c):
		for pg := c.carry / unitsPerPage; n > 0; pg = s.pool.a.pages[pg].next {
			part := s.pool.a.bytes(pg)
			part = part[:min(n, len(part))]
			buf, n = append(buf, part...), n-len(part)
		}
	default:
		buf = append(buf, s.pool.a.block(c.carry, n)...)
	}
	return buf
}

// carriesPages tells unconsumed input in pages from that in a block.
func (s *Shard) carriesPages(c *conn) bool {
	return c.carry%unitsPerPage == 0 && s.pool.a.pages[c.carry/unitsPerPage].class == wholePage
}

func (s *Shard) dropCarry(c *conn) {
	switch {
	case c.carry == 0:
	case s.carriesPages(c):
		s.pool.freeChain(c.carry / unitsPerPage)
	default:
		s.pool.free(c.carry)
	}
	c.carry, c.carryLen = 0, 0
}

// keep stores all that a connection has not consumed: in one block, or in pages when it is much. It may use the spare
// pages, which nothing else does; when even those are used up the connection cannot go on.
func (s *Shard) keep(id uint32, data []byte) {
	c := &s.conns[id]
	if len(data) == 0 {
		return
	}
	if len(data) <= pageSize/2 {
		if c.carry = s.pool.allocSpare(len(data)); c.carry != 0 {
			copy(s.pool.a.block(c.carry, len(data)), data)
		}
	} else {
		c.carry = s.keepPages(data) * unitsPerPage
	}
	if c.carry == 0 {
		s.counters[CounterClosedNoMemory]++
		s.violate(id, packet.QuotaExceeded) // Limit: memory for input that waits.
		return
	}
	c.carryLen = uint32(len(data))
	s.touch(id) // so that the Loop finds out that it must pause
}

func (s *Shard) keepPages(data []byte) (first uint32) {
	last := uint32(0)
	for len(data) > 0 {
		pg := s.pool.sparePage()
		if pg == 0 {
			s.pool.freeChain(first)
			return 0
		}
		data = data[copy(s.pool.a.bytes(pg), data):]
		if first == 0 {
			first = pg
		} else {
			s.pool.a.pages[last].next = pg
		}
		last = pg
	}
	return first
}

// dropInput frees unconsumed input.
func (s *Shard) dropInput(c *conn) {
	s.dropCarry(c)
	if c.asmNeed != 0 && !c.is(connSkipping) {
		s.pool.freeChain(c.asmHead)
		left := pagesFor(int(c.asmNeed)) - pagesFor(int(c.asmGot))
		s.pool.a.committed.Add(-int64(left))
	}
	c.clear(connSkipping)
	c.asmHead, c.asmTail, c.asmGot, c.asmNeed = 0, 0, 0, 0
}

// stall keeps a PUBLISH that has no room, and what follows it. Acknowledgements and PINGREQ behind it are taken all the
// same: what they release may be just what the PUBLISH waits for. data is overwritten.
func (s *Shard) stall(id uint32, c *conn, data []byte) {
	s.listStalled(id, c)
	kept := 0
	for rest := data; len(rest) > 0 && c.state == connLive; {
		h, r := packet.ParseHeader(rest)
		n := h.Size + h.Remaining
		if r != packet.Success || h.Size == 0 || n > len(rest) {
			kept += copy(data[kept:], rest)
			break
		}
		switch h.Kind {
		case packet.PUBACK, packet.PUBREC, packet.PUBREL, packet.PUBCOMP, packet.PINGREQ:
			s.counters[CounterMessagesReceived]++
			s.dispatch(id, c, h, rest[h.Size:n:n])
		default:
			kept += copy(data[kept:], rest[:n])
		}
		rest = rest[n:]
	}
	if c.state == connLive {
		s.keep(id, data[:kept])
	}
}

// listStalled notes that a connection's carried input waits.
func (s *Shard) listStalled(id uint32, c *conn) {
	c.set(connStalled)
	if !c.is(connListed) {
		c.set(connListed)
		s.stalledConns = append(s.stalledConns, token(id, c.generation))
	}
	s.touch(id)
}

// unstall forgets that a connection waits; the list finds out when it is next gone through.
func (s *Shard) unstall(id uint32) {
	s.conns[id].clear(connStalled)
	s.touch(id)
}

// yield leaves the rest of a connection's input to the next turn; false when there is no room for it.
func (s *Shard) yield(id uint32, c *conn, data []byte) bool {
	if !s.pool.holds(pagesFor(len(data))) {
		return false
	}
	s.counters[CounterInputYielded]++
	s.keep(id, data)
	if !c.is(connYielded) {
		c.set(connYielded)
		s.yielded = append(s.yielded, token(id, c.generation))
	}
	return true
}

// isBehind says whether a connection has input left that has yielded.
func (c *conn) isBehind() bool {
	return c.is(connYielded) && c.carry != 0 && (c.state == connOpen || c.state == connLive || c.state == connExchange)
}

// Stalled returns the connections whose carried input is worth another try, because a queue has room again or time has
// passed. The Loop gives each to Carry and Receive. Valid until the next call of Stalled or Behind.
func (s *Shard) Stalled() []uint32 {
	s.retrying = s.retrying[:0]
	if len(s.stalledConns) > 0 && (s.roomAgain || s.now >= s.retryAt) {
		s.retryStalled()
	}
	return s.retrying
}

// Behind returns the connections whose input has yielded in the last turn, for Carry and Receive as with Stalled. They come before what this
// turn brings: that yields too, so that a connection has its turn once.
func (s *Shard) Behind() []uint32 {
	s.retrying = s.retrying[:0]
	for _, t := range s.yielded {
		if id := s.connOf(t); id != 0 {
			s.conns[id].clear(connYielded)
			s.retrying = append(s.retrying, id)
			s.touch(id) // it may be read again
		}
	}
	s.yielded = s.yielded[:0]
	return s.retrying
}

func (s *Shard) retryStalled() {
	s.feedHungry() // receivers first: what they acknowledge is what publishers wait for
	s.roomAgain, s.retryAt = false, s.now+stalledRetryMS
	for _, t := range s.stalledConns {
		id := s.connOf(t)
		if id == 0 {
			continue
		}
		s.conns[id].clear(connListed)
		if s.conns[id].is(connStalled) {
			s.retrying = append(s.retrying, id)
		}
	}
	s.stalledConns = s.stalledConns[:0]
}

// stalledRetryMS is how long a stalled connection waits at most before it is tried again: memory may have come free
// without anything that says so.
const stalledRetryMS = 20
