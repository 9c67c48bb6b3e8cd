package planetest

import (
	"io"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
)

// sender writes a stream of a known length, as far as it goes.
type sender struct {
	l         *link
	sent      int
	total     int
	shorts    int // writes that took less than all
	writables int // times that Writable was reported
}

// fill writes until all is sent or a write is short. The vectors have slices of very different sizes, some empty.
func (s *sender) fill() (full bool) {
	s.l.r.t.Helper()
	sizes := []int{0, 1, 4096, 0, 0, 13, 1460, 2, 70000, 0}
	for turn := 0; s.sent < s.total; turn++ {
		var v [][]byte
		size := 0
		for i := range 1 + turn%100 {
			n := min(sizes[(turn+i)%len(sizes)], s.total-s.sent-size)
			v = append(v, pattern(s.sent+size, n))
			size += n
		}
		n, err := s.l.conn.Write(v)
		if err != nil || n > size {
			s.l.r.t.Fatalf("Write of %d bytes = %d, %v", size, n, err)
		}
		for _, slice := range v {
			clear(slice) // They are the caller's again.
		}
		s.sent += n
		if n < size {
			s.shorts++
			s.l.plane.Flush()
			return true
		}
	}
	s.l.plane.Flush()
	return false
}

// finish goes on at each Writable until all is sent.
func (s *sender) finish(full bool) {
	s.l.r.t.Helper()
	for full {
		s.l.await(broker.Writable)
		s.writables++
		full = s.fill()
	}
}

func testVector(t *testing.T, r *rig) {
	l := r.connect(0)
	if n, err := l.conn.Write(nil); n != 0 || err != nil {
		t.Fatalf("Write of nothing = %d, %v", n, err)
	}
	if n, err := l.conn.Write([][]byte{nil, {}}); n != 0 || err != nil {
		t.Fatalf("Write of empty slices = %d, %v", n, err)
	}
	const slices, each = 1000, 11
	v := make([][]byte, 0, 2*slices)
	for i := range slices {
		v = append(v, pattern(i*each, each), nil)
	}
	if n, err := l.conn.Write(v); n != slices*each || err != nil {
		t.Fatalf("Write of %d slices = %d, %v; want %d bytes", len(v), n, err, slices*each)
	}
	l.plane.Flush()
	r.during(func() error { return readPattern(l.peer, slices*each, false) })
	l.never(broker.Writable)
}

func testShortWrite(t *testing.T, r *rig) {
	l := r.connect(0)
	s := &sender{l: l, total: 12 << 20}
	// Fill everything there is between here and the peer, which does not read yet.
	for full := s.fill(); full; full = s.fill() {
		writable := false
		deadline := time.Now().Add(quiet)
		for left := quiet; left > 0 && !writable; left = time.Until(deadline) {
			for _, e := range r.wait(l.plane, left) {
				writable = writable || e.Token == l.token && e.Kind&broker.Writable != 0
			}
		}
		if !writable {
			break
		}
		s.writables++
		l.never(broker.Writable) // Once is enough.
	}
	if s.sent == s.total {
		t.Fatalf("a peer that does not read takes %d bytes", s.sent)
	}
	done := make(chan error, 1)
	go func() { done <- readPattern(l.peer, s.total, false) }()
	s.finish(true)
	r.during(func() error { return <-done })
	if s.writables != s.shorts {
		t.Errorf("%d short writes, but %d times Writable", s.shorts, s.writables)
	}
	l.never(broker.Writable | broker.Hangup)
	l.echo("goes on")
}

// testEchoMuch sends several megabytes both ways at once, so that pausing, short writes and reads mix.
func testEchoMuch(t *testing.T, r *rig) {
	const total = 4 << 20
	l := r.connect(0)
	done := make(chan error, 2)
	go func() {
		_, err := l.peer.Write(pattern(0, total))
		done <- err
	}()
	go func() { done <- readPattern(l.peer, total, false) }()
	s := &sender{l: l, total: total}
	full, got := s.fill(), 0
	deadline := time.Now().Add(patience)
	for (full || got < total) && time.Now().Before(deadline) {
		for _, e := range r.wait(l.plane, patience) {
			if e.Kind&broker.Readable != 0 {
				n, err := l.conn.Read(l.plane.Buffer())
				must(t, err)
				must(t, checkPattern(got, l.plane.Buffer()[:n]))
				got += n
			}
			if e.Kind&broker.Writable != 0 {
				full = s.fill()
			}
		}
	}
	if full || got < total {
		t.Fatalf("in %v %d bytes came and %d went, of %d", patience, got, s.sent, total)
	}
	r.during(func() error { return <-done })
	r.during(func() error { return <-done })
}

// testWriteGone: a peer that closed answers with a reset, which must show as an error or a Hangup.
func testWriteGone(t *testing.T, r *rig) {
	l := r.connect(0)
	must(t, l.peer.Close())
	l.readEOF()
	l.conn.Pause() // Or the end of input is reported for ever.
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		if _, err := l.conn.Write([][]byte{pattern(0, 100)}); err != nil {
			if err == io.EOF {
				t.Error("EOF is not an error of Write")
			}
			l.conn.Close()
			return
		}
		l.plane.Flush()
		for _, e := range r.wait(l.plane, time.Millisecond) {
			if e.Kind&broker.Hangup != 0 {
				l.conn.Close()
				return
			}
		}
	}
	t.Fatal("writing to a peer that is gone never fails")
}

// testLastWords: what a peer said before it was gone is there when a write has failed.
func testLastWords(t *testing.T, r *rig) {
	l := r.connect(0)
	if _, err := l.peer.Write([]byte("goodbye")); err != nil {
		t.Fatal(err)
	}
	l.await(broker.Readable)
	must(t, l.peer.Close())
	for deadline := time.Now().Add(patience); ; {
		if time.Now().After(deadline) {
			t.Fatal("writing to a peer that is gone never fails")
		}
		if _, err := l.conn.Write([][]byte{pattern(0, 100)}); err != nil {
			break
		}
		l.plane.Flush()
		for _, e := range r.wait(l.plane, time.Millisecond) {
			if e.Kind&broker.Hangup != 0 {
				t.Fatal("Hangup before everything was read")
			}
		}
	}
	buf := l.plane.Buffer()
	if n, err := l.conn.Read(buf); string(buf[:n]) != "goodbye" {
		t.Errorf("Read = %q, %v", buf[:n], err)
	}
	l.conn.Close()
}
