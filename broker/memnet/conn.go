package memnet

import (
	"io"
	"net"
	"net/netip"

	"github.com/ringmq/ringmq/broker"
)

// conn is a connection as its plane sees it.
type conn struct {
	plane      *Plane
	peer       *Peer
	token      uint64
	listener   int
	local      netip.AddrPort
	remote     netip.AddrPort
	toPlane    []byte // what the Peer wrote and the plane has not read
	toPeer     []byte // what the plane wrote and the Peer has not read
	sendWindow int    // how long toPeer may be
	broken     error  // why the connection is broken in both directions, nil if it is not
	inputEnds  bool   // the Peer writes no more
	peerGone   bool   // the Peer reads no more either
	isAccepted bool
	isStirring bool // in the plane's list
	isPaused   bool
	isShort    bool // a Write took less than all, and Writable has not been reported since
	isClosed   bool // by the plane
}

// stir has the plane's next Wait look at the connection.
func (c *conn) stir() {
	if !c.isAccepted || c.isStirring || c.isClosed {
		return
	}
	c.isStirring = true
	c.plane.stirring = append(c.plane.stirring, c)
	c.plane.stir()
}

// report says what is true of the connection now.
func (c *conn) report() broker.EventKind {
	switch {
	case c.isClosed:
		return 0
	case c.broken != nil && (len(c.toPlane) == 0 || c.isPaused):
		return broker.Hangup
	case c.broken != nil:
		return broker.Readable
	}
	var kind broker.EventKind
	if !c.isPaused && (len(c.toPlane) > 0 || c.inputEnds) {
		kind |= broker.Readable
	}
	if c.isShort && len(c.toPeer) < c.sendWindow {
		kind |= broker.Writable
		c.isShort = false
	}
	return kind
}

func (c *conn) hangupError(kind broker.EventKind) error {
	if kind&broker.Hangup == 0 {
		return nil
	}
	return c.broken
}

// breakDown ends both directions and destroys what is under way.
func (c *conn) breakDown(why error) {
	c.toPlane = nil
	c.refuse(why)
}

// refuse ends both directions as the answer to something sent does: what had come before stays to be read.
func (c *conn) refuse(why error) {
	c.broken, c.toPeer = why, nil
	c.stir()
	c.peer.stir()
}

func (c *conn) SetToken(token uint64) {
	c.plane.network.mu.Lock()
	defer c.plane.network.mu.Unlock()
	c.token = token
}

func (c *conn) Read(p []byte) (int, error) {
	n := c.plane.network
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case c.isClosed:
		return 0, net.ErrClosed
	case len(c.toPlane) > 0:
		return c.read(p), nil
	case c.broken != nil:
		return 0, c.broken
	case c.inputEnds:
		return 0, io.EOF
	}
	return 0, broker.ErrWouldBlock
}

func (c *conn) read(p []byte) int {
	most := min(len(p), len(c.toPlane))
	if choose := c.plane.network.config.ReadSize; choose != nil && most > 0 {
		most = min(max(choose(most), 1), most)
	}
	copy(p, c.toPlane[:most])
	c.toPlane = dropFront(c.toPlane, most)
	signal(c.peer.writable)
	return most
}

func (c *conn) Write(v [][]byte) (int, error) {
	n := c.plane.network
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case c.isClosed:
		return 0, net.ErrClosed
	case c.broken != nil:
		return 0, c.broken
	}
	size := 0
	for _, slice := range v {
		size += len(slice)
	}
	if size == 0 {
		return 0, nil
	}
	if c.peerGone {
		c.refuse(ErrReset) // The answer of a TCP that has no such connection any more.
		return size, nil
	}
	taken := c.write(v, min(size, max(c.sendWindow-len(c.toPeer), 0)))
	if taken < size {
		c.isShort = true
		c.stir()
	}
	return taken, nil
}

func (c *conn) write(v [][]byte, most int) int {
	if choose := c.plane.network.config.WriteSize; choose != nil && most > 0 {
		most = min(max(choose(most), 0), most)
	}
	left := most
	for _, slice := range v {
		part := slice[:min(len(slice), left)]
		c.toPeer = append(c.toPeer, part...)
		left -= len(part)
	}
	c.peer.stir()
	return most
}

func (c *conn) Pause() {
	c.plane.network.mu.Lock()
	defer c.plane.network.mu.Unlock()
	c.isPaused = true
}

func (c *conn) Resume() {
	c.plane.network.mu.Lock()
	defer c.plane.network.mu.Unlock()
	c.isPaused = false
	c.stir()
}

func (c *conn) Close() {
	c.plane.network.mu.Lock()
	defer c.plane.network.mu.Unlock()
	c.close()
}

// close is called with the Network's mutex held.
func (c *conn) close() {
	if c.isClosed {
		return
	}
	c.isClosed = true
	c.toPlane = nil
	c.plane.network.open--
	delete(c.plane.conns, c)
	c.peer.stir()
}

func (c *conn) LocalAddr() netip.AddrPort  { return c.local }
func (c *conn) RemoteAddr() netip.AddrPort { return c.remote }

// dropFront removes n bytes from a queue; an empty queue gives its memory back.
func dropFront(queue []byte, n int) []byte {
	if n == len(queue) {
		return nil
	}
	return queue[n:]
}
