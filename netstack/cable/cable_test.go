package cable

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

// put sends frames of 20 bytes, each with its number, and kicks after each.
func put(t *testing.T, e *End, numbers ...byte) {
	t.Helper()
	for _, n := range numbers {
		frame := e.Reserve()
		if frame == nil {
			t.Fatal("no frame")
		}
		e.Commit(frame, copy(frame, bytes.Repeat([]byte{n}, 20)))
		e.Kick()
	}
}

// got takes everything that has come, and looks often enough for what is delayed.
func got(e *End) (numbers []byte) {
	for range 2 * delayMax {
		for e.Receive(4, func(frame []byte) { numbers = append(numbers, frame[0]) }) > 0 {
		}
	}
	return numbers
}

func upTo(n int) (numbers []byte) {
	for i := range n {
		numbers = append(numbers, byte(i))
	}
	return numbers
}

func TestPerfectCable(t *testing.T) {
	c := New(Config{Queues: 2, Steer: func(frame []byte) int { return int(frame[0]) }})
	put(t, c.Far(), 0, 1, 2, 3)
	put(t, c.Near()[1], 7, 8)
	if a, b := got(c.Near()[0]), got(c.Near()[1]); string(a) != "\x00\x02" || string(b) != "\x01\x03" {
		t.Errorf("the queues get %v and %v", a, b)
	}
	if n := got(c.Far()); string(n) != "\x07\x08" {
		t.Errorf("the far end gets %v", n)
	}
	if !c.Conserved() {
		t.Error("a frame is lost")
	}
}

func TestNothingMovesBeforeKick(t *testing.T) {
	c := New(Config{})
	frame := c.Far().Reserve()
	if c.Conserved() {
		t.Error("a reserved frame counts as free")
	}
	c.Far().Commit(frame, 20)
	if n := got(c.Near()[0]); n != nil {
		t.Errorf("before Kick %v has come", n)
	}
	c.Far().Discard(c.Far().Reserve())
	c.Far().Kick()
	if n := got(c.Near()[0]); len(n) != 1 || !c.Conserved() {
		t.Errorf("after Kick %v has come", n)
	}
}

// TestFaultsOfASeed: each fault happens, and twice the same with the same seed.
func TestFaultsOfASeed(t *testing.T) {
	const frames = 200
	for name, test := range map[string]struct {
		faults Faults
		check  func(n []byte, c Counts) bool
	}{
		"loss":      {Faults{Loss: 0.3}, func(n []byte, c Counts) bool { return c.Lost > 0 && len(n) == frames-c.Lost }},
		"duplicate": {Faults{Duplicate: 0.3}, func(n []byte, c Counts) bool { return c.Duplicated > 0 && len(n) == frames+c.Duplicated }},
		"reorder": {Faults{Reorder: 0.3}, func(n []byte, c Counts) bool {
			return c.Delayed > 0 && len(n) == frames && !bytes.Equal(n, upTo(frames))
		}},
		"corrupt": {Faults{Corrupt: 0.3}, func(n []byte, c Counts) bool { return c.Corrupted > 0 && len(n) == frames }},
	} {
		run := func(seed uint64) ([]byte, Counts, bool) {
			test.faults.Seed = seed
			c := New(Config{Faults: test.faults})
			put(t, c.Far(), upTo(frames)...)
			n := got(c.Near()[0])
			return n, c.Counts(), c.Conserved()
		}
		first, counts, conserved := run(1)
		if !test.check(first, counts) || !conserved {
			t.Errorf("%s: %d frames came, conserved %v, counts %+v", name, len(first), conserved, counts)
		}
		second, again, _ := run(1)
		if !bytes.Equal(first, second) || counts != again {
			t.Errorf("%s: two runs of one seed differ", name)
		}
		if other, counted, _ := run(2); bytes.Equal(first, other) && counts == counted {
			t.Errorf("%s: the seed changes nothing", name)
		}
	}
}

func TestBounds(t *testing.T) {
	c := New(Config{Frames: 4})
	put(t, c.Far(), 1, 2, 3, 4, 5)
	if n := got(c.Near()[0]); string(n) != "\x01\x02\x03\x04" || c.Counts().NoRoom != 1 {
		t.Errorf("%v came, counts %+v", n, c.Counts())
	}
	for range 4 {
		c.Far().Reserve()
	}
	if c.Far().Reserve() != nil {
		t.Error("a fifth frame of four")
	}
}

func TestWait(t *testing.T) {
	c := New(Config{Faults: Faults{Seed: 1, Reorder: 1}})
	e := c.Near()[0]
	start := time.Now()
	if err := e.Wait(time.Millisecond); err != nil || time.Since(start) < time.Millisecond {
		t.Errorf("Wait of nothing: %v after %v", err, time.Since(start))
	}
	e.Wake()
	if err := e.Wait(-1); err != nil {
		t.Error(err)
	}
	put(t, c.Far(), 1)
	if err := e.Wait(-1); err != nil { // Delayed, but there.
		t.Error(err)
	}
	if n := got(e); len(n) != 1 {
		t.Errorf("%v came", n)
	}
	woken := make(chan error)
	go func() {
		_ = e.Wait(0)
		woken <- e.Wait(-1)
	}()
	e.Unplug()
	if err := <-woken; !errors.Is(err, ErrUnplugged) {
		t.Errorf("Wait of an unplugged end: %v", err)
	}
}
