package broker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestWheelAgainstModel starts, moves and stops timers at random, near and far beyond the wheel's span, and advances
// by random steps: each timer fires in the first advance that reaches its tick, and next never lies beyond it.
func TestWheelAgainstModel(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 5))
		w := wheel{timers: make([]timer, 200)}
		w.now = r.Uint64N(1 << (1 + r.UintN(40)))
		model := make(map[uint32]uint64)
		for step := range 2000 {
			id := 1 + uint32(r.IntN(len(w.timers)-1))
			switch r.IntN(10) {
			case 0, 1, 2, 3, 4:
				when := w.now + r.Uint64N(1<<(r.UintN(34)+1)) - min(w.now, r.Uint64N(3))
				w.start(id, when)
				model[id] = max(when, w.now+1)
			case 5, 6:
				w.stop(id)
				delete(model, id)
			default:
				to := w.now + r.Uint64N(1<<(r.UintN(36)+1))
				advanceBoth(t, &w, model, to, 1+r.IntN(30), fmt.Sprintf("seed %d, step %d", seed, step))
			}
			checkNext(t, &w, model, fmt.Sprintf("seed %d, step %d", seed, step))
			if t.Failed() {
				return
			}
		}
	}
}

func advanceBoth(t *testing.T, w *wheel, model map[uint32]uint64, to uint64, most int, where string) {
	t.Helper()
	var want []uint32
	for id, when := range model {
		if when <= to {
			want = append(want, id)
			delete(model, id)
		}
	}
	got := w.advance(to, nil, most)
	for calls := 1; w.now < to || w.isFiring(); calls++ {
		if len(got) < calls*most {
			t.Fatalf("%s: advance to %d stops at %d with %d timers after %d calls for %d each", where, to, w.now, len(got), calls, most)
		}
		checkFiring(t, w, where)
		got = append(got, w.advance(to, nil, most)...)
	}
	if !slices.IsSortedFunc(got, func(a, b uint32) int { return int(int64(w.timers[a].when) - int64(w.timers[b].when)) }) {
		t.Errorf("%s: timers fire out of order", where)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s: advance to %d fired %v; want %v", where, to, got, want)
	}
	if w.now != to {
		t.Errorf("%s: after advance to %d it is %d", where, to, w.now)
	}
}

// checkFiring: a wheel that has stopped in the middle of a tick is to be advanced at once.
func checkFiring(t *testing.T, w *wheel, where string) {
	t.Helper()
	if next, ok := w.next(); w.isFiring() && (!ok || next != w.now) {
		t.Fatalf("%s: at %d timers are left, and the next look is at %d, %v", where, w.now, next, ok)
	}
}

func checkNext(t *testing.T, w *wheel, model map[uint32]uint64, where string) {
	t.Helper()
	next, ok := w.next()
	if ok != (len(model) > 0) {
		t.Errorf("%s: next says %v with %d timers", where, ok, len(model))
	}
	for id, when := range model {
		if next > when || next <= w.now {
			t.Errorf("%s: at %d the next look is at %d, beyond timer %d at %d", where, w.now, next, id, when)
			return
		}
	}
}

// BenchmarkWheelIdle is a tick of 50 ms with a million timers running that are not due: Keep Alives of 60 s and
// Sessions that expire in a day, all moved once in their time, as traffic moves them.
func BenchmarkWheelIdle(b *testing.B) {
	const n = 1_000_000
	w := wheel{timers: make([]timer, n+1)}
	r := rand.New(rand.NewPCG(1, 1))
	for id := uint32(1); id <= n; id++ {
		w.start(id, 1800+r.Uint64N(1800)) // 90 s and more: 1.5 times a Keep Alive of 60 s
	}
	var due []uint32
	fired, tick, worst := 0, uint64(0), time.Duration(0)
	for b.Loop() {
		tick++
		start := time.Now()
		due = w.advance(tick, due[:0], len(w.timers))
		worst = max(worst, time.Since(start))
		fired += len(due)
		for _, id := range due {
			w.start(id, tick+1800)
		}
	}
	b.ReportMetric(float64(fired)/float64(b.N), "fired/op")
	b.ReportMetric(float64(worst.Milliseconds()), "worst-ms")
}
