//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package kernel

import (
	"io"
	"net"
	"net/netip"
	"syscall"

	"github.com/ringmq/ringmq/broker"
)

// conn is one connection: 64 bytes, which a test holds it to, because there may be a million of them.
type conn struct {
	plane       *Plane
	token       uint64
	remote      endpoint
	fd          int32
	index       uint32 // its own number in the slab
	generation  uint32
	nextFree    uint32
	nextChanged uint32
	want        interest // what the broker needs to hear of
	armed       interest // what the poller has been told
	state       connState
	flags       connFlags
}

type connState uint8

const (
	free      connState = iota // the slot is nobody's
	open                       // the broker's
	lingering                  // closed by the broker, but the peer has not closed its side yet
)

type connFlags uint8

const (
	changed connFlags = 1 << iota // in the plane's list of changed interest
	wrote                         // bytes were sent that an RST could destroy
	ended                         // the peer's end was read, or the connection is broken: an RST can do no harm
)

// interest is a set of bits: what the poller watches a connection for. A broken connection is always reported.
type interest uint8

const (
	toRead interest = 1 << iota
	toWrite
)

func (c *conn) SetToken(token uint64) { c.token = token }

// Read does one system call. Errors other than io.EOF and broker.ErrWouldBlock are the kernel's (syscall.Errno).
func (c *conn) Read(p []byte) (int, error) {
	if c.state != open {
		return 0, net.ErrClosed
	}
	n, errno := readSocket(c.fd, p)
	switch {
	case n > 0:
		return n, nil
	case errno == syscall.EAGAIN:
		return 0, broker.ErrWouldBlock
	}
	c.flags |= ended
	if errno == 0 {
		return 0, io.EOF
	}
	return 0, errno
}

// Write does one system call for each gatherMax slices; less than all always means that the kernel's buffer is full.
func (c *conn) Write(v [][]byte) (int, error) {
	if c.state != open {
		return 0, net.ErrClosed
	}
	n, full, errno := c.plane.gather.send(c.fd, v)
	if n > 0 {
		c.flags |= wrote
	}
	if errno != 0 {
		c.flags |= ended
		return n, errno
	}
	if full {
		c.watch(c.want | toWrite)
	}
	return n, nil
}

func (c *conn) Pause() {
	if c.state == open {
		c.watch(c.want &^ toRead)
	}
}

func (c *conn) Resume() {
	if c.state == open {
		c.watch(c.want | toRead)
	}
}

// watch notes what to watch for. The poller hears of it in the next Wait, and only if by then it is a change: pausing
// and resuming within a turn is free, and so is a write that is short again right after Writable.
func (c *conn) watch(want interest) {
	c.want = want
	if c.want == c.armed || c.flags&changed != 0 {
		return
	}
	c.flags |= changed
	c.nextChanged = c.plane.changed
	c.plane.changed = c.index
}

// Close follows the policy in the package's documentation.
func (c *conn) Close() {
	if c.state != open {
		return
	}
	if c.flags&wrote != 0 && c.flags&ended == 0 && c.plane.linger(c) {
		return
	}
	c.plane.release(c)
}

func (c *conn) LocalAddr() netip.AddrPort {
	if c.state != open {
		return netip.AddrPort{}
	}
	address, err := localAddress(int(c.fd))
	if err != nil {
		// An open socket has an address; should the kernel think otherwise, a log line goes without.
		return netip.AddrPort{}
	}
	return address
}

func (c *conn) RemoteAddr() netip.AddrPort { return c.remote.addrPort() }
