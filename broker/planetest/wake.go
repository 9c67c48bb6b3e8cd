package planetest

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
)

// earlyReturnsMax is how often Wait may return before its time without a reason, in one period of quiet.
const earlyReturnsMax = 4

func testBuffer(t *testing.T, r *rig) {
	for _, p := range r.h.Planes {
		first := p.Buffer()
		if len(first) < 64<<10 {
			t.Errorf("Buffer of %d bytes; want at least 64 KiB", len(first))
		}
		first[0], first[len(first)-1] = 1, 2
		r.wait(p, 0)
		if second := p.Buffer(); &second[0] != &first[0] || len(second) != len(first) {
			t.Error("Buffer is another one after Wait")
		}
	}
}

// idle checks that a plane with nothing to do blocks: how often Wait returns during a period of quiet.
func (r *rig) idle(p broker.Plane) {
	r.t.Helper()
	returns, deadline := 0, time.Now().Add(quiet)
	for left := quiet; left > 0; left = time.Until(deadline) {
		if events := r.wait(p, left); len(events) != 0 {
			r.t.Fatalf("events of an idle plane: %+v", events)
		}
		returns++
	}
	if returns > 1+earlyReturnsMax {
		r.t.Errorf("Wait returned %d times in %v without an event", returns, quiet)
	}
}

func testTimeout(t *testing.T, r *rig) {
	for _, p := range r.h.Planes {
		start := time.Now()
		for range 100 {
			r.wait(p, 0)
		}
		r.wait(p, 100*time.Microsecond)
		r.idle(p)
		if took := time.Since(start); took > patience/2 {
			t.Errorf("waiting for %v in all took %v", quiet, took)
		}
	}
}

func testWakeBefore(t *testing.T, r *rig) {
	for _, p := range r.h.Planes {
		p.Wake()
		start := time.Now()
		if events := r.wait(p, patience); len(events) != 0 {
			t.Errorf("Wake made events: %+v", events)
		}
		if time.Since(start) > patience/2 {
			t.Error("Wait did not return at once after Wake")
		}
		r.idle(p)
	}
}

func testWakesMerge(t *testing.T, r *rig) {
	const wakers, wakes = 4, 500
	p := r.h.Planes[0]
	var group sync.WaitGroup
	for range wakers {
		group.Go(func() {
			for range wakes {
				p.Wake()
			}
		})
	}
	r.wait(p, patience)
	group.Wait()
	r.wait(p, 0) // What came after the first Wait.
	r.idle(p)
}

// testNoWakeLost has another goroutine publish a number, wake, and go on when the loop has seen the number.
func testNoWakeLost(t *testing.T, r *rig) {
	const rounds = 2000
	p := r.h.Planes[0]
	var published atomic.Int64
	seen := make(chan struct{})
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for range rounds {
			published.Add(1)
			p.Wake()
			select {
			case <-seen:
			case <-stop:
				return
			}
		}
	}()
	for round := range int64(rounds) {
		for start := time.Now(); published.Load() <= round; {
			r.wait(p, patience)
			if time.Since(start) > patience/2 {
				t.Fatalf("wake %d of %d did not end Wait", round, rounds)
			}
		}
		seen <- struct{}{}
	}
}
