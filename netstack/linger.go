package netstack

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/ringmq/ringmq/broker"
)

const (
	// lingerTime is how long a peer has to close its side after we closed ours, as in broker/kernel.
	lingerTime = 2 * time.Second

	// lingerMax bounds the connections that linger, per plane.
	lingerMax = 1024

	// drainReadsMax and scratchBytes bound the work that throwing received bytes away may cause at once.
	drainReadsMax = 4
	scratchBytes  = 16 << 10
)

// deadlines lists connections in the order of their deadlines. An entry whose connection has moved on stays until it
// comes first: generation and state tell.
type deadlines struct {
	entries []deadline // a ring
	first   int
	count   int
}

type deadline struct {
	at         time.Time
	conn       *conn
	generation uint32
}

func (q *deadlines) push(d deadline) {
	if q.count == len(q.entries) {
		grown := make([]deadline, max(64, 2*q.count))
		for i := range q.count {
			grown[i] = q.entries[(q.first+i)%q.count]
		}
		q.entries, q.first = grown, 0
	}
	q.entries[(q.first+q.count)%len(q.entries)] = d
	q.count++
}

func (q *deadlines) pop() {
	q.entries[q.first] = deadline{}
	q.first = (q.first + 1) % len(q.entries)
	q.count--
}

// next forgets the entries whose connections have moved on from state, and returns the first of the others.
func (q *deadlines) next(state connState) (deadline, bool) {
	for q.count > 0 {
		d := q.entries[q.first]
		if d.conn.generation == d.generation && d.conn.state == state {
			return d, true
		}
		q.pop()
	}
	return deadline{}, false
}

// closeConn ends a connection for the broker. A stack that is told to close while received bytes are unread answers
// with RST, as the host's does, and so it does to bytes that come later; RST destroys bytes under way. So a connection
// that was written to, and whose peer has not closed its side, has its own side shut down only.
func (p *Plane) closeConn(c *conn) {
	if c.flags&untouchable == 0 && c.flags&(wrote|ended) == wrote && !c.isBroken() && !p.drain(c) &&
		c.endpoint.Shutdown(tcpip.ShutdownWrite) == nil {
		if p.lingerers.count >= lingerMax {
			p.finishOldest()
		}
		c.state = lingering
		p.lingerers.push(deadline{time.Now().Add(lingerTime), c, c.generation})
		p.review(c)
		return
	}
	p.closeEndpoint(c)
	p.finish(c)
}

// drain reads away what has come, within bounds, and tells whether that was all that will ever come.
func (p *Plane) drain(c *conn) (isFinished bool) {
	for range drainReadsMax {
		p.reader.room = p.scratch[:]
		result, err := c.endpoint.Read(&p.reader, tcpip.ReadOptions{})
		p.reader.room = nil
		switch err.(type) {
		case nil:
			p.unread.took(c.flow, result.Count)
		case *tcpip.ErrWouldBlock:
			c.flags |= drained
			return false
		default:
			return true
		}
	}
	return false
}

// closeEndpoint tells the stack that nobody wants the connection any more. It goes on sending what it has.
func (p *Plane) closeEndpoint(c *conn) {
	if c.state == closing || c.flags&untouchable != 0 {
		return
	}
	p.unread.forget(c.flow)
	c.endpoint.Close()
}

// finish keeps the slot of a closed connection for as long as the stack needs its flow: bytes may be under way, or
// TIME-WAIT last.
func (p *Plane) finish(c *conn) {
	if c.flags&untouchable != 0 || c.isBroken() {
		p.release(c)
		return
	}
	c.state = closing
	p.closers.push(deadline{time.Now().Add(p.config.TCP.CloseTimeout), c, c.generation})
}

// finishOldest ends the wait for the peer that has kept us waiting longest.
func (p *Plane) finishOldest() {
	if d, ok := p.lingerers.next(lingering); ok {
		p.lingerers.pop()
		p.drain(d.conn)
		p.closeEndpoint(d.conn)
		p.finish(d.conn)
	}
}

// cutOldest resets the connection that has been closing longest.
func (p *Plane) cutOldest() {
	if d, ok := p.closers.next(closing); ok {
		p.closers.pop()
		d.conn.endpoint.Abort()
		p.release(d.conn)
	}
}

// makeRoom frees a slot that nobody but the stack needs.
func (p *Plane) makeRoom() bool {
	before := p.slab.taken
	p.cutOldest()
	if p.slab.taken == before {
		p.finishOldest()
		p.cutOldest()
	}
	return p.slab.taken < before
}

// release gives a slot back. The stack has finished with the connection, or has panicked over it: then its flow stays,
// so that no more frames get to it.
func (p *Plane) release(c *conn) {
	if c.flags&untouchable == 0 {
		c.queue.EventUnregister(&c.entry)
		p.budget.forget(c.flow)
		p.unread.forget(c.flow)
		p.dropFlow(c.flow)
	}
	inList := c.flags & reviewed
	p.slab.release(c)
	c.flags = inList
	p.counters.connections.Add(^uint64(0))
}

// dropFlow forgets a flow, unless a new connection of the same name has another one. Where a SYN has ended the flow's
// TIME-WAIT, the handshake that it began takes over the name: were it nobody's until the connection is accepted, what
// arrives on another queue meanwhile would be answered with RST there.
func (p *Plane) dropFlow(f *flow) {
	l := p.link
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.flows.find(&f.key) != f:
	case f.isReborn && !l.isClosed:
		l.discardHeld(f)
		l.flows.abandon(f)
		p.addFlow(&f.key, f.isV6, f.link)
	default:
		p.group.owners.remove(&f.key, p)
		l.forget(f)
	}
}

// poison gives up a connection over which the stack has panicked.
func (p *Plane) poison(f *flow) {
	p.slab.each(func(c *conn) {
		if c.flow == f {
			c.flags |= untouchable
			p.review(c)
		}
	})
}

// untilHousekeeping shortens timeout to the plane's own next deadline.
func (p *Plane) untilHousekeeping(timeout time.Duration) time.Duration {
	if d, ok := p.lingerers.next(lingering); ok {
		timeout = sooner(timeout, time.Until(d.at))
	}
	if d, ok := p.closers.next(closing); ok {
		timeout = sooner(timeout, time.Until(d.at))
	}
	if p.budget.isScarce {
		timeout = sooner(timeout, time.Until(p.budget.sweepAt))
	}
	if p.link.flows.halfOpen > 0 {
		timeout = sooner(timeout, time.Until(p.expireAt))
	}
	if p.slab.taken > 0 {
		timeout = sooner(timeout, p.probeAt-p.link.clock.elapsed())
	}
	for _, l := range p.listeners {
		if !l.restsUntil.IsZero() {
			timeout = sooner(timeout, time.Until(l.restsUntil))
		}
	}
	return timeout
}

// keepHouse does what is due of the plane's own business.
func (p *Plane) keepHouse() {
	if p.lingerers.count == 0 && p.closers.count == 0 && !p.hasFailed() && !p.budget.isScarce &&
		p.link.flows.halfOpen == 0 && p.link.clock.elapsed() < p.probeAt {
		return
	}
	now := time.Now()
	p.sweep(now)
	p.expire(now)
	for d, ok := p.lingerers.next(lingering); ok && !d.at.After(now); d, ok = p.lingerers.next(lingering) {
		p.finishOldest()
	}
	for d, ok := p.closers.next(closing); ok && !d.at.After(now); d, ok = p.closers.next(closing) {
		p.cutOldest()
	}
	p.rouse(now)
	p.probeSilent()
}

// hasFailed tells whether a listener rests after an error.
func (p *Plane) hasFailed() bool {
	for _, l := range p.listeners {
		if !l.restsUntil.IsZero() {
			return true
		}
	}
	return false
}

// sooner returns the lesser of two timeouts, of which the first may be negative for "never".
func sooner(timeout, left time.Duration) time.Duration {
	left = max(left, 0)
	if timeout < 0 || left < timeout {
		return left
	}
	return timeout
}

var _ broker.Conn = (*conn)(nil)
