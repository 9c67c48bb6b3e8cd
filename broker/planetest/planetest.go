// Package planetest is the contract of broker.Plane as one executable test. Every plane passes Run; what a plane
// promises beyond the contract it tests itself.
//
// A Harness is what one plane's test supplies: planes, and a way to connect to them from outside, as Peers. The tests
// drive a plane from the test's own goroutine and a Peer from another one. A peer that must be slow is one that has
// not started to read yet; nothing sleeps to make things happen in order. That something does not happen can only be
// watched for a while (quiet); that it does happen is waited for with patience.
package planetest

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
)

const (
	// patience is how long a test waits for what must happen: long enough for a machine that does much else.
	patience = 20 * time.Second

	// quiet is how long a test watches for what must not happen.
	quiet = 30 * time.Millisecond
)

// Harness is a set of fresh planes and the world outside them.
type Harness struct {
	// Planes share the listeners. The test closes them.
	Planes []broker.Plane

	// Listeners is how many listeners there are, numbered from zero.
	Listeners int

	// Dial connects to a listener. It is called on a goroutine of its own while the planes are waited for.
	Dial func(listener int) (Peer, error)

	// Close, if not nil, is called after the planes are closed. It returns an error if something was left behind.
	Close func() error
}

// Peer is the far end of a connection. Its Read and Write block; one goroutine may read while another writes.
type Peer interface {
	io.ReadWriteCloser
	CloseWrite() error // FIN: it will not write any more, but still reads
	Reset() error      // RST, and Close
	SetDeadline(time.Time) error
	Local() netip.AddrPort
	Remote() netip.AddrPort
}

// TCP makes a Peer of a TCP connection of the host.
func TCP(conn *net.TCPConn) Peer { return tcpPeer{conn} }

type tcpPeer struct{ *net.TCPConn }

func (p tcpPeer) Reset() error {
	if err := p.SetLinger(0); err != nil {
		return err
	}
	return p.Close()
}

func (p tcpPeer) Local() netip.AddrPort  { return p.LocalAddr().(*net.TCPAddr).AddrPort() }
func (p tcpPeer) Remote() netip.AddrPort { return p.RemoteAddr().(*net.TCPAddr).AddrPort() }

// Run runs the contract. Each part opens planes of its own.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	parts := []struct {
		name string
		run  func(t *testing.T, r *rig)
	}{
		{"buffer", testBuffer},
		{"timeout", testTimeout},
		{"wake before Wait", testWakeBefore},
		{"wakes merge", testWakesMerge},
		{"no wake is lost", testNoWakeLost},
		{"accept", testAccept},
		{"many connections", testMany},
		{"StopAccepting", testStopAccepting},
		{"readable until read", testReadable},
		{"end of input", testEOF},
		{"end of input behind data", testEOFBehindData},
		{"reset", testReset},
		{"reset while paused", testResetPaused},
		{"reset with unread bytes", testResetUnread},
		{"pause and resume", testPause},
		{"pause and end of input", testPauseEOF},
		{"vector", testVector},
		{"short write", testShortWrite},
		{"short writes in both directions", testEchoMuch},
		{"write to a peer that is gone", testWriteGone},
		{"last words of a peer that is gone", testLastWords},
		{"close delivers", testCloseDelivers},
		{"close delivers past unread bytes", testCloseUnread},
		{"close delivers past unread bytes and their end", testCloseUnreadEnd},
		{"close delivers to a peer that goes on writing", testCloseFlood},
		{"no event after close", testNoEventAfterClose},
		{"token of a reused connection", testReuse},
		{"close of the plane", testClosePlane},
	}
	for _, part := range parts {
		t.Run(part.name, func(t *testing.T) {
			r := newRig(t, open(t))
			part.run(t, r)
			r.finish()
		})
	}
}
