package netstack

import (
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/ringmq/ringmq/broker"
)

// readyList is where the stack puts connections that something has happened to, and says that a listener has news.
type readyList struct {
	mu    sync.Mutex // guards conns
	conns []*conn    // each once at most: conn.pending sees to it
	taken []*conn    // the owner's

	// filled is set by whoever has news, and cleared by the owner before it looks.
	filled atomic.Bool
}

func (l *readyList) push(c *conn) {
	l.mu.Lock()
	l.conns = append(l.conns, c)
	l.mu.Unlock()
	l.filled.Store(true)
}

func (l *readyList) take() []*conn {
	if !l.filled.Swap(false) {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns, l.taken = l.taken[:0], l.conns
	return l.taken
}

// gather makes the events of this Wait: of connections first, of listeners after.
func (p *Plane) gather() {
	p.events, p.hasMore = p.events[:0], false
	for _, c := range p.ready.take() {
		c.pending.Store(0)
		if c.state != free {
			c.flags &^= drained
			p.review(c)
		}
	}
	p.passRations()
	list := p.reviewed
	p.reviewed = p.spare[:0]
	for i, c := range list {
		if len(p.events) >= eventsMax {
			p.reviewed = append(p.reviewed, list[i:]...)
			break
		}
		c.flags &^= reviewed
		if p.look(c) {
			p.review(c)
		}
	}
	p.spare = list
	for _, l := range p.listeners {
		p.accept(l)
	}
}

// review has the connection looked at in the next Wait.
func (p *Plane) review(c *conn) {
	if c.flags&reviewed == 0 {
		c.flags |= reviewed
		p.reviewed = append(p.reviewed, c)
	}
}

// look reports what is true of a connection and tells whether to look at it again without being told to.
func (p *Plane) look(c *conn) (again bool) {
	switch {
	case c.state == open:
	case c.state == lingering:
		p.lookLingering(c)
		return false
	case c.state == closing:
		p.lookClosing(c)
		return false
	default:
		return false
	}
	e := broker.Event{Conn: c, Token: c.token}
	switch {
	case c.flags&untouchable != 0:
		e.Kind, e.Err = broker.Hangup, errPanicked
	case c.isBroken():
		e.Kind, e.Err = c.lookBroken()
	default:
		e.Kind = c.lookWhole()
	}
	if e.Kind == 0 {
		return false
	}
	p.events = append(p.events, e)
	return e.Kind&(broker.Readable|broker.Hangup) != 0
}

// lookWhole looks at a connection that is not broken.
func (c *conn) lookWhole() (kind broker.EventKind) {
	var mask waiter.EventMask
	if c.flags&(paused|drained) == 0 {
		mask = waiter.ReadableEvents
	}
	if c.flags&(short|rationed) == short && (c.flags&crowded == 0 || c.mayWrite()) && (c.flags&pinched == 0 || c.mayPinMore()) {
		mask |= waiter.WritableEvents
		c.flags &^= crowded | pinched
	}
	is := c.endpoint.Readiness(mask)
	if is&mask&waiter.ReadableEvents != 0 {
		kind = broker.Readable
	}
	if is&mask&waiter.WritableEvents != 0 {
		kind |= broker.Writable
		c.flags &^= short
	}
	return kind
}

// lookBroken tells whether the broker must first read what came before the connection broke.
func (c *conn) lookBroken() (broker.EventKind, error) {
	if c.flags&(paused|drained) == 0 {
		if left, err := c.endpoint.GetSockOptInt(tcpip.ReceiveQueueSizeOption); err == nil && left > 0 {
			return broker.Readable, nil
		}
	}
	c.flags |= ended
	if c.cause == nil {
		_ = c.breakWith(c.endpoint.LastError())
	}
	return broker.Hangup, c.cause
}

// lookLingering throws away what a connection has received and closes it when the peer has closed its side.
func (p *Plane) lookLingering(c *conn) {
	if c.isBroken() || p.drain(c) {
		p.closeEndpoint(c)
		p.finish(c)
	} else if c.flags&drained == 0 {
		p.review(c)
		p.hasMore = true
	}
}

// lookClosing lets go of a connection that the stack has finished with.
func (p *Plane) lookClosing(c *conn) {
	if c.isBroken() {
		p.release(c)
	}
}

// listener is a port that the plane's stack listens on, for one family.
type listener struct {
	plane    *Plane
	number   int // of Config.Addresses, the first that has its port and family
	port     uint16
	isV6     bool
	cookies  cookies
	endpoint tcpip.Endpoint
	queue    waiter.Queue
	entry    waiter.Entry

	// filled is set by the stack when a connection may be there to accept, and cleared by the owner before it looks.
	filled atomic.Bool

	restsUntil time.Time // after an error
}

// NotifyEvent is how the stack tells of connections.
func (l *listener) NotifyEvent(waiter.EventMask) {
	l.filled.Store(true)
	l.plane.ready.filled.Store(true)
	l.plane.stir()
}

func (l *listener) close() {
	l.queue.EventUnregister(&l.entry)
	l.endpoint.Close()
}

// endpointIsUp tells whether a connection that is to be accepted is one still.
func endpointIsUp(e tcpip.Endpoint) bool {
	switch tcp.EndpointState(e.State()) {
	case tcp.StateError, tcp.StateClose:
		return false
	}
	return true
}
