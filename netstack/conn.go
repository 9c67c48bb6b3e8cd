package netstack

import (
	"io"
	"net"
	"net/netip"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/ringmq/ringmq/broker"
)

// conn is one connection.
type conn struct {
	plane      *Plane
	endpoint   *tcp.Endpoint
	queue      *waiter.Queue
	flow       *flow
	nextFree   *conn
	cause      error // why it is broken, once that was asked
	entry      waiter.Entry
	token      uint64
	written    uint32 // bytes that Write took, modulo 2^32
	marked     uint32 // of these, how many when writes was last halved
	generation uint32
	writes     uint16 // Writes whose bytes may not all be acknowledged; see mayWrite
	state      connState
	flags      connFlags

	// pending are the events that the stack has told since the owner last took them. Any goroutine of the stack sets
	// them, the owner takes them. Whoever sets the first puts the connection into the plane's ready list.
	pending atomic.Uint32
}

type connState uint8

const (
	free      connState = iota // the slot is nobody's
	open                       // the broker's
	lingering                  // closed by the broker, its side shut down, but the peer has not closed its side yet
	closing                    // closed towards the stack, which is still sending, or in TIME-WAIT
)

type connFlags uint16

const (
	reviewed    connFlags = 1 << iota // in the plane's list of connections to look at
	paused                            // the broker does not want to read
	drained                           // a Read has found the end of what was there
	short                             // a Write took less than all, and Writable has not been reported since
	crowded                           // that was because of writesMax
	pinched                           // or because of the plane's budget
	wrote                             // bytes were sent that an RST could destroy
	ended                             // the peer's end was read, or the connection is broken: an RST can do no harm
	rationed                          // in the plane's list of those whose Write another turn must take
	untouchable                       // the stack has panicked over it: its locks may be taken for ever
)

// NotifyEvent is how the stack tells that something may have changed. It is called with locks of the stack held.
func (c *conn) NotifyEvent(mask waiter.EventMask) {
	if c.pending.Or(uint32(mask)) == 0 {
		c.plane.ready.push(c)
		c.plane.stir()
	}
}

func (c *conn) SetToken(token uint64) { c.token = token }

// Read copies what has come, out of as many segments as fit. Errors other than io.EOF and broker.ErrWouldBlock say
// why the connection is broken.
func (c *conn) Read(p []byte) (int, error) {
	if c.state != open {
		return 0, net.ErrClosed
	}
	if c.flags&untouchable != 0 {
		return 0, errPanicked
	}
	n, err := c.take(p)
	switch err.(type) {
	case nil:
		// No more bytes: but the end may be there. It comes with a new state, under the lock that Read has just held.
		if n < len(p) && tcp.EndpointState(c.endpoint.State()) == tcp.StateEstablished {
			c.flags |= drained
		}
		return n, nil
	case *tcpip.ErrWouldBlock:
		c.flags |= drained
		return 0, broker.ErrWouldBlock
	}
	c.flags |= ended
	if _, isEnd := err.(*tcpip.ErrClosedForReceive); isEnd && !c.isBroken() {
		return 0, io.EOF
	}
	return 0, c.breakWith(err)
}

// take reads from the stack and has the budget know.
func (c *conn) take(b []byte) (n int, err tcpip.Error) {
	p, f := c.plane, c.flow
	var acked uint32
	mayLearn := false
	if !f.unread.isKnown {
		acked, mayLearn = p.lastAck(f)
	}
	p.reader.room = b
	result, err := c.endpoint.Read(&p.reader, tcpip.ReadOptions{})
	p.reader.room = nil
	p.unread.took(f, result.Count)
	if mayLearn && result.Count < len(b) {
		if now, _ := p.lastAck(f); now == acked {
			p.unread.learn(f, acked)
		}
	}
	return result.Count, err
}

// isBroken tells whether the connection was reset or has failed.
func (c *conn) isBroken() bool {
	switch tcp.EndpointState(c.endpoint.State()) {
	case tcp.StateError, tcp.StateClose:
		return true
	}
	return false
}

// breakWith keeps the first error: the stack tells it once only.
func (c *conn) breakWith(err tcpip.Error) error {
	if c.cause == nil {
		c.cause = goError(err)
	}
	return c.cause
}

// Write gives the stack everything in one call, which copies it.
func (c *conn) Write(v [][]byte) (int, error) {
	if c.state != open {
		return 0, net.ErrClosed
	}
	if c.flags&untouchable != 0 {
		return 0, errPanicked
	}
	out := &c.plane.writer
	total := out.reset(v)
	if total == 0 {
		return 0, nil
	}
	c.plane.warmed += c.plane.warmth.warm(c.endpoint)
	if c.writes >= writesMax && !c.isBroken() && !c.mayWrite() {
		out.slices = nil
		c.flags |= short | crowded
		return 0, nil
	}
	ration := c.plane.ration.left(total)
	if ration == 0 {
		out.slices = nil
		c.waitForRation()
		return 0, nil
	}
	room := c.plane.budget.room(c.flow, total)
	if out.limit(min(room, ration)) == 0 {
		out.slices = nil
		c.pinch()
		return 0, nil
	}
	// Atomic: the endpoint stays locked while it copies, so that "less than all" means that its buffer is full now.
	taken, err := c.endpoint.Write(out, tcpip.WriteOptions{Atomic: true})
	out.slices = nil
	switch err.(type) {
	case nil:
	case *tcpip.ErrWouldBlock:
		taken = 0
	default:
		c.flags |= ended
		return 0, c.breakWith(err)
	}
	if taken > 0 {
		c.flags |= wrote
		c.written += uint32(taken)
		c.plane.budget.pin(c.flow, int(taken))
		c.plane.ration.written += int(taken)
		if c.writes++; c.writes == writesMax/2 {
			c.marked = c.written
		}
	}
	switch {
	case int(taken) == total:
	case out.left == 0 && ration < room: // All that it was given, this turn,
		c.waitForRation()
	case out.left == 0: // or for the time being.
		c.pinch()
	default:
		c.flags |= short
	}
	return int(taken), nil
}

// writesMax bounds the Writes that wait in the stack to be acknowledged. The stack counts bytes, but each Write is a
// segment of its own there, which takes about 1 KB however small it is: a slow consumer of small messages would take
// megabytes. Beyond the bound Write takes nothing, and what the broker gathers meanwhile goes in one.
const writesMax = 128

// mayWrite tells whether the first half of the Writes that were counted are acknowledged, and then counts the others
// only. If not, the connection becomes Writable when they are.
func (c *conn) mayWrite() bool {
	l := c.plane.link
	l.mu.Lock()
	defer l.mu.Unlock()
	f := c.flow
	if f.answered && int32(f.start+c.marked-f.peerAck) > 0 {
		f.waiter, f.wanted = c, f.start+c.marked
		return false
	}
	c.writes, c.marked = writesMax/2, c.written
	return true
}

// pinch makes a connection that the plane's budget has stopped Writable when all that it has written is acknowledged.
func (c *conn) pinch() {
	c.flags |= short | pinched
	l := c.plane.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := c.flow; f.answered && f.unacknowledged > 0 {
		f.waiter, f.wanted = c, f.start+c.written
		return
	}
	c.plane.review(c) // What it has to wait for came meanwhile.
}

// mayPinMore tells whether the budget lets a connection go on that it has stopped.
func (c *conn) mayPinMore() bool {
	if c.plane.budget.room(c.flow, writeMin) > 0 {
		return true
	}
	c.pinch()
	return false
}

func (c *conn) Pause() {
	if c.state == open {
		c.flags |= paused
	}
}

func (c *conn) Resume() {
	if c.state == open && c.flags&paused != 0 {
		c.flags &^= paused | drained
		c.plane.review(c)
	}
}

// Close follows the policy in the package's documentation.
func (c *conn) Close() {
	if c.state == open {
		c.plane.closeConn(c)
	}
}

func (c *conn) LocalAddr() netip.AddrPort {
	if c.state != open {
		return netip.AddrPort{}
	}
	return c.flow.key.localAddr()
}

func (c *conn) RemoteAddr() netip.AddrPort {
	if c.state != open {
		return netip.AddrPort{}
	}
	return c.flow.key.remoteAddr()
}

// sliceReader lets the stack read from a vector of slices.
type sliceReader struct {
	slices [][]byte
	offset int // in the first
	left   int
}

// reset returns how many bytes there are.
func (r *sliceReader) reset(v [][]byte) int {
	r.slices, r.offset, r.left = v, 0, 0
	for _, b := range v {
		r.left += len(b)
	}
	return r.left
}

// limit leaves out what is more than n bytes and returns how many are left.
func (r *sliceReader) limit(n int) int {
	r.left = min(r.left, n)
	return r.left
}

// Len is part of tcpip.Payloader.
func (r *sliceReader) Len() int { return r.left }

// Read is part of tcpip.Payloader.
func (r *sliceReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	total := 0
	for total < len(p) && r.left > 0 {
		n := copy(p[total:], r.slices[0][r.offset:])
		total += n
		r.offset += n
		r.left -= n
		if r.offset == len(r.slices[0]) {
			r.slices, r.offset = r.slices[1:], 0
		}
	}
	return total, nil
}

// roomWriter lets the stack write into a slice.
type roomWriter struct{ room []byte }

// Write takes what fits.
func (w *roomWriter) Write(p []byte) (int, error) {
	n := copy(w.room, p)
	w.room = w.room[n:]
	if n < len(p) {
		return n, io.ErrShortWrite
	}
	return n, nil
}
