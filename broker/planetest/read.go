package planetest

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
)

func testReadable(t *testing.T, r *rig) {
	l := r.connect(0)
	l.never(broker.Readable | broker.Writable | broker.Hangup)
	if _, err := l.peer.Write(pattern(0, 10)); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		l.await(broker.Readable)
		n, err := l.conn.Read(l.plane.Buffer()[:1])
		if n != 1 || err != nil {
			t.Fatalf("Read of byte %d = %d, %v", i, n, err)
		}
		if err := checkPattern(i, l.plane.Buffer()[:1]); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := l.conn.Read(l.plane.Buffer()); n != 0 || !errors.Is(err, broker.ErrWouldBlock) {
		t.Fatalf("Read when all is read = %d, %v; want 0, ErrWouldBlock", n, err)
	}
	l.never(broker.Readable | broker.Writable | broker.Hangup)
	l.echo("goes on")
}

func testEOF(t *testing.T, r *rig) {
	l := r.connect(0)
	if _, err := l.peer.Write(pattern(0, 1000)); err != nil {
		t.Fatal(err)
	}
	must(t, l.peer.CloseWrite())
	if err := checkPattern(0, l.read(1000)); err != nil {
		t.Fatal(err)
	}
	l.readEOF()
	l.write(pattern(0, 1000)) // The other direction is still open.
	l.conn.Close()
	r.during(func() error { return readPattern(l.peer, 1000, true) })
}

// testEOFBehindData: bytes and the end of input come at once and are read with room to spare: the end is still reported.
func testEOFBehindData(t *testing.T, r *rig) {
	l := r.connect(0)
	if _, err := l.peer.Write(pattern(0, 1000)); err != nil {
		t.Fatal(err)
	}
	must(t, l.peer.CloseWrite())
	for got := 0; got < 1000; {
		l.await(broker.Readable)
		n, err := l.conn.Read(l.plane.Buffer())
		if err != nil && !errors.Is(err, broker.ErrWouldBlock) {
			t.Fatalf("Read after %d of 1000 bytes: %v", got, err)
		}
		got += n
	}
	l.readEOF()
}

func testReset(t *testing.T, r *rig) {
	l := r.connect(0)
	remote := l.conn.RemoteAddr()
	must(t, l.peer.Reset())
	l.await(broker.Hangup)
	if got := l.conn.RemoteAddr(); got != remote {
		t.Errorf("RemoteAddr after a reset = %v; want %v", got, remote)
	}
	if n, err := l.conn.Read(l.plane.Buffer()); n != 0 || err == nil || errors.Is(err, broker.ErrWouldBlock) {
		t.Errorf("Read after a reset = %d, %v; want 0 and an error", n, err)
	}
	l.conn.Close()
	l.never(broker.Readable | broker.Writable | broker.Hangup)
}

func testResetPaused(t *testing.T, r *rig) {
	l := r.connect(0)
	l.conn.Pause()
	if _, err := l.peer.Write(pattern(0, 1000)); err != nil {
		t.Fatal(err)
	}
	l.never(broker.Readable | broker.Hangup)
	must(t, l.peer.Reset())
	l.await(broker.Hangup)
	l.conn.Close()
	l.never(broker.Readable | broker.Writable | broker.Hangup)
}

// testResetUnread lets a plane keep or drop the bytes that came before a reset, but not invent any.
func testResetUnread(t *testing.T, r *rig) {
	l := r.connect(0)
	if _, err := l.peer.Write(pattern(0, 1000)); err != nil {
		t.Fatal(err)
	}
	l.await(broker.Readable)
	must(t, l.peer.Reset())
	got, deadline := 0, time.Now().Add(patience)
	for time.Now().Before(deadline) {
		e := l.await(broker.Readable | broker.Hangup)
		if e.Kind&broker.Hangup != 0 {
			l.conn.Close()
			return
		}
		buffer := l.plane.Buffer()[:300]
		n, err := l.conn.Read(buffer)
		if bad := checkPattern(got, buffer[:n]); bad != nil {
			t.Fatal(bad)
		}
		got += n
		if err != nil && !errors.Is(err, broker.ErrWouldBlock) {
			l.conn.Close()
			return
		}
	}
	t.Fatal("the connection neither hung up nor failed")
}

func testPause(t *testing.T, r *rig) {
	l := r.connect(0)
	l.conn.Pause()
	if _, err := l.peer.Write(pattern(0, 1000)); err != nil {
		t.Fatal(err)
	}
	l.never(broker.Readable)
	l.conn.Resume()
	l.await(broker.Readable)
	l.conn.Pause() // With bytes reported but not read.
	l.never(broker.Readable)
	l.conn.Pause() // In any state.
	l.conn.Resume()
	l.conn.Resume()
	l.conn.Pause()
	l.conn.Resume()
	if err := checkPattern(0, l.read(1000)); err != nil {
		t.Fatal(err)
	}
	l.echo("goes on")
}

// testPauseEOF: a peer that closes its side of a paused connection must not keep the loop awake.
func testPauseEOF(t *testing.T, r *rig) {
	l := r.connect(0)
	l.conn.Pause()
	if _, err := l.peer.Write(pattern(0, 100)); err != nil {
		t.Fatal(err)
	}
	must(t, l.peer.CloseWrite())
	l.never(broker.Readable | broker.Hangup)
	r.idle(l.plane)
	l.write(pattern(0, 100))
	r.during(func() error { return readPattern(l.peer, 100, false) })
	l.conn.Resume()
	if err := checkPattern(0, l.read(100)); err != nil {
		t.Fatal(err)
	}
	l.readEOF()
	l.conn.Close()
	r.during(func() error {
		if n, err := l.peer.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			return errors.New("the peer does not read the end of input")
		}
		return nil
	})
}
