package planetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
)

func testAccept(t *testing.T, r *rig) {
	for listener := range r.h.Listeners {
		l := r.connect(listener)
		if got, want := l.conn.RemoteAddr(), l.peer.Local(); got != want {
			t.Errorf("RemoteAddr = %v; want %v", got, want)
		}
		if got, want := l.conn.LocalAddr(), l.peer.Remote(); got != want {
			t.Errorf("LocalAddr = %v; want %v", got, want)
		}
		l.echo("first on this listener")
		l.conn.SetToken(1 << 60)
		l.token = 1 << 60
		l.echo("with a new token")
	}
}

// echo sends a text from the peer to the broker's side and back.
func (l *link) echo(text string) {
	l.r.t.Helper()
	if _, err := l.peer.Write([]byte(text)); err != nil {
		l.r.t.Fatalf("peer's Write: %v", err)
	}
	if got := string(l.read(len(text))); got != text {
		l.r.t.Fatalf("read %q; want %q", got, text)
	}
	l.write([]byte(text))
	l.r.during(func() error { return l.peerReads(text) })
}

func (l *link) peerReads(text string) error {
	got := make([]byte, len(text))
	for n := 0; n < len(got); {
		m, err := l.peer.Read(got[n:])
		n += m
		if err != nil && n < len(got) {
			return fmt.Errorf("peer's Read after %q: %w", got[:n], err)
		}
	}
	if string(got) != text {
		return fmt.Errorf("the peer reads %q; want %q", got, text)
	}
	return nil
}

func testMany(t *testing.T, r *rig) {
	const connections = 500
	var links []*link
	for listener := range r.h.Listeners {
		links = append(links, r.connectMany(connections/r.h.Listeners, listener)...)
	}
	perPlane := map[broker.Plane]int{}
	for _, l := range links {
		perPlane[l.plane]++
		if _, err := fmt.Fprintf(l.peer, "%8d", l.token); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range r.h.Planes {
		if perPlane[p] == 0 {
			t.Errorf("a plane has none of %d connections", len(links))
		}
		r.echoAll(p, perPlane[p])
	}
	r.during(func() error { // A plane that ends TCP itself may have to send again.
		for _, l := range links {
			if err := l.peerReads(fmt.Sprintf("%8d", l.token)); err != nil {
				return err
			}
		}
		return nil
	})
}

// echoAll answers one message of eight bytes on each of n connections, whose text must be its event's token.
func (r *rig) echoAll(p broker.Plane, n int) {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for n > 0 && time.Now().Before(deadline) {
		for _, e := range r.wait(p, patience) {
			m, err := e.Conn.Read(p.Buffer())
			text := fmt.Sprintf("%8d", e.Token)
			if err != nil || string(p.Buffer()[:m]) != text {
				r.t.Fatalf("Read on connection %d = %q, %v", e.Token, p.Buffer()[:m], err)
			}
			if m, err := e.Conn.Write([][]byte{[]byte(text)}); m != len(text) || err != nil {
				r.t.Fatalf("Write = %d, %v", m, err)
			}
			n--
		}
		p.Flush()
	}
	if n > 0 {
		r.t.Fatalf("%d connections were not reported in %v", n, patience)
	}
}

func testStopAccepting(t *testing.T, r *rig) {
	l := r.connect(0)
	for _, p := range r.h.Planes {
		p.StopAccepting()
	}
	l.echo("after StopAccepting")
	dialled := make(chan Peer, 1)
	go func() {
		peer, err := r.h.Dial(0)
		if err != nil {
			peer = nil
		}
		dialled <- peer
	}()
	// A plane may refuse at once or not answer: a connection it must not make.
	deadline := time.Now().Add(quiet)
	for time.Now().Before(deadline) {
		for _, p := range r.h.Planes {
			for _, e := range r.wait(p, time.Millisecond) {
				if e.Kind&broker.Accepted != 0 {
					t.Error("a connection was accepted after StopAccepting")
				}
			}
		}
	}
	r.close()
	if peer := <-dialled; peer != nil {
		_ = peer.Close() // A peer that nobody accepted.
	}
}
