package planetest

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
)

const allKinds = broker.Accepted | broker.Readable | broker.Writable | broker.Hangup

func testCloseDelivers(t *testing.T, r *rig) {
	l := r.connect(0)
	const size = 50_000
	l.write(pattern(0, size))
	l.conn.Close()
	r.during(func() error { return readPattern(l.peer, size, true) })
	must(t, l.peer.Close())
	l.never(allKinds)
}

// testCloseUnread: bytes that the broker did not read must not cost the peer the bytes that the broker wrote.
func testCloseUnread(t *testing.T, r *rig) {
	l := r.connect(0)
	if _, err := l.peer.Write(pattern(0, 200_000)); err != nil {
		t.Fatal(err)
	}
	if err := checkPattern(0, l.read(100)); err != nil {
		t.Fatal(err)
	}
	const size = 50_000
	l.write(pattern(0, size))
	l.conn.Close()
	r.during(func() error { return readPattern(l.peer, size, true) })
	must(t, l.peer.Close())
	l.never(allKinds)
}

// testCloseUnreadEnd: the same for a peer that has closed its side and reads slowly, so that much of it is still under way.
func testCloseUnreadEnd(t *testing.T, r *rig) {
	l := r.connect(0)
	if _, err := l.peer.Write(pattern(0, 200_000)); err != nil {
		t.Fatal(err)
	}
	must(t, l.peer.CloseWrite())
	if err := checkPattern(0, l.read(100)); err != nil {
		t.Fatal(err)
	}
	s := &sender{l: l, total: 16 << 20}
	if !s.fill() {
		t.Fatalf("a peer that does not read takes %d bytes", s.sent)
	}
	l.conn.Close()
	l.never(allKinds) // until the peer reads
	r.during(func() error { return readPattern(l.peer, s.sent, true) })
	must(t, l.peer.Close())
}

// testCloseFlood: the same for a peer that does not stop writing until it has read what the broker said.
func testCloseFlood(t *testing.T, r *rig) {
	l := r.connect(0)
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		chunk := make([]byte, 10_000)
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if _, err := l.peer.Write(chunk); err != nil {
				stopped <- fmt.Errorf("peer's Write: %w", err)
				return
			}
		}
	}()
	l.read(30_000)
	const size = 5_000
	l.write(pattern(0, size))
	l.conn.Close()
	r.during(func() error { return readPattern(l.peer, size, true) })
	close(stop)
	r.during(func() error { return <-stopped })
	must(t, l.peer.Close())
	l.never(allKinds)
}

// testNoEventAfterClose closes two connections that are ready in the same batch, at the first event.
func testNoEventAfterClose(t *testing.T, r *rig) {
	first := r.connect(0)
	second := r.connect(0)
	for range r.h.Planes { // One of them shares the first one's plane, if connections are dealt out in turn.
		if second.plane == first.plane {
			break
		}
		second = r.connect(0)
	}
	for _, l := range []*link{first, second} {
		l.write([]byte("x"))
		if _, err := l.peer.Write(pattern(0, 100)); err != nil {
			t.Fatal(err)
		}
		l.await(broker.Readable)
	}
	r.wait(first.plane, 0) // Both are in this batch, if they share the plane.
	first.conn.Close()
	second.conn.Close()
	first.never(allKinds)
	second.never(allKinds)
	must(t, first.peer.Reset())
	must(t, second.peer.CloseWrite())
	first.never(allKinds)
	second.never(allKinds)
}

// testReuse makes connections in the places of closed ones and looks for events with the wrong name.
func testReuse(t *testing.T, r *rig) {
	for range 20 {
		l := r.connect(0)
		if _, err := l.peer.Write(pattern(0, 100)); err != nil {
			t.Fatal(err)
		}
		l.await(broker.Readable)
		if _, err := l.conn.Write([][]byte{pattern(0, 10)}); err != nil {
			t.Fatal(err)
		}
		l.conn.Pause()
		l.conn.Close() // With unread bytes, a changed interest, and a peer that closes whenever it likes.
		must(t, l.peer.Close())
		next := r.connect(0)
		if next.token == l.token {
			t.Fatal("a token was used twice")
		}
		next.never(broker.Readable | broker.Writable | broker.Hangup)
		next.echo("in the place of a closed one")
		next.conn.Close()
		must(t, next.peer.Close())
	}
}

func testClosePlane(t *testing.T, r *rig) {
	l := r.connect(0)
	l.echo("before")
	r.closePlanes()
	for _, p := range r.h.Planes {
		p.Wake() // Goroutines that wake may be late.
	}
	must(t, l.peer.SetDeadline(time.Now().Add(patience)))
	if n, err := l.peer.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("after the plane's Close the peer reads %d bytes, error %v", n, err)
	} else if err != io.EOF {
		t.Logf("the peer sees: %v", err)
	}
}
