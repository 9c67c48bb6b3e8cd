package planetest

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
)

// rig drives the planes of one test.
type rig struct {
	t         *testing.T
	h         Harness
	lastToken uint64
	peers     []Peer
	closed    bool
}

// link is one connection, seen from both ends.
type link struct {
	r     *rig
	plane broker.Plane
	conn  broker.Conn
	token uint64
	peer  Peer
}

func newRig(t *testing.T, h Harness) *rig {
	t.Helper()
	r := &rig{t: t, h: h}
	t.Cleanup(r.close)
	return r
}

// finish ends a test that has not failed, and checks what the harness can check.
func (r *rig) finish() {
	r.t.Helper()
	r.close()
	if r.h.Close == nil {
		return
	}
	if err := r.h.Close(); err != nil {
		r.t.Errorf("after the planes were closed: %v", err)
	}
}

func (r *rig) close() {
	if r.closed {
		return
	}
	r.closed = true
	r.closePlanes()
	for _, p := range r.peers {
		_ = p.Close() // The test may have closed it.
	}
}

// closePlanes may be called again: a second Close of a plane does nothing.
func (r *rig) closePlanes() {
	for _, p := range r.h.Planes {
		if err := p.Close(); err != nil {
			r.t.Errorf("Close of a plane: %v", err)
		}
	}
}

// wait is Plane.Wait without its error, as a copy that lasts.
func (r *rig) wait(p broker.Plane, timeout time.Duration) []broker.Event {
	r.t.Helper()
	events, err := p.Wait(timeout)
	if err != nil {
		r.t.Fatalf("Wait: %v", err)
	}
	for _, e := range events {
		if e.Kind&broker.AcceptFailed != 0 {
			r.t.Fatalf("listener %d: %v", e.Listener, e.Err)
		}
	}
	return append([]broker.Event(nil), events...)
}

// connect makes one connection and gives it a token.
func (r *rig) connect(listener int) *link {
	r.t.Helper()
	return r.connectMany(1, listener)[0]
}

// connectMany makes n connections to one listener, all at once, and pairs the two ends by their addresses.
func (r *rig) connectMany(n, listener int) []*link {
	r.t.Helper()
	dialled := make(chan Peer)
	failed := make(chan error, 1)
	go func() {
		defer close(dialled)
		for range n {
			peer, err := r.h.Dial(listener)
			if err != nil {
				failed <- err
				return
			}
			dialled <- peer
		}
	}()
	var links []*link
	peers, deadline := 0, time.Now().Add(patience)
	for len(links) < n || peers < n {
		select {
		case peer, ok := <-dialled:
			if !ok && peers == n {
				dialled = nil // All have dialled; the plane has yet to accept some.
				continue
			}
			if !ok {
				r.t.Fatalf("Dial: %v", <-failed)
			}
			peers++
			must(r.t, peer.SetDeadline(time.Now().Add(patience)))
			r.peers = append(r.peers, peer)
		default:
		}
		links = append(links, r.accepted(listener)...)
		if time.Now().After(deadline) {
			r.t.Fatalf("after %v %d of %d connections are accepted", patience, len(links), n)
		}
	}
	for _, l := range links {
		l.pair(r.peers[len(r.peers)-n:])
	}
	return links
}

// accepted looks at every plane once for new connections.
func (r *rig) accepted(listener int) []*link {
	r.t.Helper()
	var links []*link
	for _, p := range r.h.Planes {
		for _, e := range r.wait(p, time.Millisecond) {
			if e.Kind&broker.Accepted == 0 {
				continue
			}
			if e.Listener != listener || e.Token != 0 {
				r.t.Fatalf("Accepted by listener %d with token %d; want listener %d, token 0", e.Listener, e.Token, listener)
			}
			r.lastToken++
			e.Conn.SetToken(r.lastToken)
			links = append(links, &link{r: r, plane: p, conn: e.Conn, token: r.lastToken})
		}
	}
	return links
}

func (l *link) pair(peers []Peer) {
	l.r.t.Helper()
	for _, peer := range peers {
		if peer.Local() == l.conn.RemoteAddr() {
			l.peer = peer
			return
		}
	}
	l.r.t.Fatalf("no peer has the address %v", l.conn.RemoteAddr())
}

// await waits until the connection reports one of the kinds.
func (l *link) await(kinds broker.EventKind) broker.Event {
	l.r.t.Helper()
	deadline := time.Now().Add(patience)
	for left := patience; left > 0; left = time.Until(deadline) {
		for _, e := range l.r.wait(l.plane, left) {
			if e.Token == l.token && e.Kind&kinds != 0 {
				return e
			}
		}
	}
	l.r.t.Fatalf("after %v there is no event of kind %05b", patience, kinds)
	return broker.Event{}
}

// never watches for a while that the connection does not report any of the kinds.
func (l *link) never(kinds broker.EventKind) {
	l.r.t.Helper()
	deadline := time.Now().Add(quiet)
	for left := quiet; left > 0; left = time.Until(deadline) {
		for _, e := range l.r.wait(l.plane, left) {
			if e.Token == l.token && e.Kind&kinds != 0 {
				l.r.t.Fatalf("event of kind %05b (%v); want none of %05b", e.Kind, e.Err, kinds)
			}
		}
	}
}

// read reads n bytes, waiting for them as long as it takes.
func (l *link) read(n int) []byte {
	l.r.t.Helper()
	var got []byte
	for len(got) < n {
		l.await(broker.Readable)
		buffer := l.plane.Buffer()
		m, err := l.conn.Read(buffer[:min(len(buffer), n-len(got))])
		if err != nil && !errors.Is(err, broker.ErrWouldBlock) {
			l.r.t.Fatalf("Read after %d of %d bytes: %v", len(got), n, err)
		}
		got = append(got, buffer[:m]...)
	}
	return got
}

// readEOF waits for the end of input.
func (l *link) readEOF() {
	l.r.t.Helper()
	l.await(broker.Readable)
	if n, err := l.conn.Read(l.plane.Buffer()); n != 0 || err != io.EOF {
		l.r.t.Fatalf("Read = %d, %v; want 0, EOF", n, err)
	}
}

// write writes all of p, which must fit.
func (l *link) write(p []byte) {
	l.r.t.Helper()
	if n, err := l.conn.Write([][]byte{p}); n != len(p) || err != nil {
		l.r.t.Fatalf("Write of %d bytes = %d, %v", len(p), n, err)
	}
	l.plane.Flush()
}

// during runs f, which uses the peer, while the planes are waited for.
func (r *rig) during(f func() error) {
	r.t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		select {
		case err := <-done:
			must(r.t, err)
			return
		default:
		}
		for _, p := range r.h.Planes {
			r.wait(p, time.Millisecond)
		}
	}
	r.t.Fatalf("the peer is not finished after %v", patience)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
