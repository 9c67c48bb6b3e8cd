package memnet

import (
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/ringmq/ringmq/broker"
)

// Peer is the far end of a connection. In a threaded Network one goroutine may read while another one writes.
type Peer struct {
	conn     *conn
	isClosed bool
	deadline time.Time // zero for none; used in a threaded Network only

	// Each has room for one: something has happened that a blocked Read, or Write, must look at.
	readable chan struct{}
	writable chan struct{}
}

// stir ends a blocked Read and a blocked Write. It is called with the Network's mutex held.
func (p *Peer) stir() {
	signal(p.readable)
	signal(p.writable)
}

// Read reads what the plane has written: io.EOF after the end, ErrReset after a reset and, in a Network that is not
// threaded, broker.ErrWouldBlock if nothing is there.
func (p *Peer) Read(b []byte) (int, error) {
	return p.retry(p.readable, func() (int, error) { return p.read(b) })
}

func (p *Peer) read(b []byte) (int, error) {
	c := p.conn
	switch {
	case p.isClosed:
		return 0, net.ErrClosed
	case c.broken != nil:
		return 0, c.broken
	case len(c.toPeer) > 0:
		n := copy(b, c.toPeer)
		c.toPeer = dropFront(c.toPeer, n)
		if c.isShort {
			c.stir()
		}
		return n, nil
	case c.isClosed:
		return 0, io.EOF
	case len(b) == 0:
		return 0, nil
	}
	return 0, broker.ErrWouldBlock
}

// Write writes to the plane. In a Network that is not threaded it takes what the window has room for, with
// broker.ErrWouldBlock if that is not all.
func (p *Peer) Write(b []byte) (int, error) {
	written := 0
	return p.retry(p.writable, func() (int, error) {
		n, err := p.write(b[written:])
		written += n
		return written, err
	})
}

func (p *Peer) write(b []byte) (int, error) {
	c := p.conn
	switch {
	case p.isClosed || c.inputEnds:
		return 0, net.ErrClosed
	case c.broken != nil:
		return 0, c.broken
	case c.isClosed:
		return len(b), nil // Nobody reads it.
	}
	n := min(len(b), max(c.plane.network.config.ReceiveWindowBytes-len(c.toPlane), 0))
	if n > 0 {
		c.toPlane = append(c.toPlane, b[:n]...)
		c.stir()
	}
	if n < len(b) {
		return n, broker.ErrWouldBlock
	}
	return n, nil
}

// retry calls f under the Network's mutex and, in a threaded Network, again after each event while it would block.
func (p *Peer) retry(event <-chan struct{}, f func() (int, error)) (int, error) {
	network := p.conn.plane.network
	for {
		network.mu.Lock()
		n, err := f()
		deadline := p.deadline
		network.mu.Unlock()
		if err != broker.ErrWouldBlock || !network.config.Threaded {
			return n, err
		}
		if !waitFor(event, deadline) {
			return n, os.ErrDeadlineExceeded
		}
	}
}

// waitFor returns false if the deadline passes first.
func waitFor(event <-chan struct{}, deadline time.Time) bool {
	if deadline.IsZero() {
		<-event
		return true
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-event:
		return true
	case <-timer.C:
		return false
	}
}

// CloseWrite ends the input of the plane; the Peer still reads.
func (p *Peer) CloseWrite() error {
	p.lock()
	defer p.unlock()
	p.conn.inputEnds = true
	p.conn.stir()
	return nil
}

// Close ends both directions: what was written is still read, and the plane's next Write breaks the connection.
func (p *Peer) Close() error {
	p.lock()
	defer p.unlock()
	if p.isClosed {
		return net.ErrClosed
	}
	p.isClosed = true
	c := p.conn
	c.inputEnds, c.peerGone, c.toPeer = true, true, nil
	c.stir()
	p.stir()
	return nil
}

// Reset breaks the connection at once: what is under way is lost, and the plane reports Hangup.
func (p *Peer) Reset() error {
	p.lock()
	defer p.unlock()
	if p.isClosed {
		return net.ErrClosed
	}
	p.isClosed = true
	p.conn.breakDown(ErrReset)
	return nil
}

// SetSendWindow changes how many bytes the plane may write before the Peer reads: zero makes a Peer that takes
// nothing.
func (p *Peer) SetSendWindow(bytes int) {
	p.lock()
	defer p.unlock()
	p.conn.sendWindow = bytes
	p.conn.stir()
}

// Buffered returns how many bytes the plane has written that the Peer has not read.
func (p *Peer) Buffered() int {
	p.lock()
	defer p.unlock()
	return len(p.conn.toPeer)
}

// Unread returns how many bytes the Peer has written that the plane has not read.
func (p *Peer) Unread() int {
	p.lock()
	defer p.unlock()
	return len(p.conn.toPlane)
}

// SetDeadline limits the Reads and Writes that begin to wait after it, in a threaded Network. Zero means no limit.
func (p *Peer) SetDeadline(deadline time.Time) error {
	p.lock()
	defer p.unlock()
	p.deadline = deadline
	return nil
}

// Local returns the Peer's own address.
func (p *Peer) Local() netip.AddrPort { return p.conn.remote }

// Remote returns the listener's address.
func (p *Peer) Remote() netip.AddrPort { return p.conn.local }

func (p *Peer) lock()   { p.conn.plane.network.mu.Lock() }
func (p *Peer) unlock() { p.conn.plane.network.mu.Unlock() }
