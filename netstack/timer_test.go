package netstack

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestTimers: timers are set, set again, stopped and run at random, from a millisecond to three rounds of the wheel ahead. Each
// runs when it is due, by the tick: not before, not twice, not after Stop; and rest never sleeps past one.
func TestTimers(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	stirred := 0
	c := newTurnClock(time.Now(), func() { stirred++ })
	w := &c.timers
	type wanted struct {
		timer *timer
		at    time.Duration // when it is due
		isSet bool
	}
	all := make([]*wanted, 2*timersMax)
	now := time.Duration(1)
	c.frozen.Store(int64(now))
	far := int64(3 * timerSlots * timerTick)
	ran := 0
	for i := range all {
		all[i] = &wanted{at: now + time.Duration(random.Int64N(far)), isSet: true}
		all[i].timer = w.add(all[i].at-now, func() {
			ran++
			if !all[i].isSet || now < all[i].at {
				t.Errorf("seed %d: timer %d runs at %v, due at %v, set %v", seed, i, now, all[i].at, all[i].isSet)
			}
			all[i].isSet = false
		})
	}
	for range 20_000 {
		switch i := all[random.IntN(len(all))]; random.IntN(4) {
		case 0:
			if i.timer.Stop() != i.isSet {
				t.Errorf("seed %d: Stop says %v", seed, !i.isSet)
			}
			i.isSet = false
		default:
			i.at, i.isSet = now+time.Duration(random.Int64N(far)>>random.IntN(20)), true
			i.timer.Reset(i.at - now)
		}
		rest, ok := w.rest()
		first := time.Duration(-1)
		for _, i := range all {
			if i.isSet && (first < 0 || i.at < first) {
				first = i.at
			}
		}
		if has := first >= 0; ok != has || has && rest > first-now+timerTick {
			t.Fatalf("seed %d: rest %v, %v; the first is due in %v", seed, rest, ok, first-now)
		}
		now += time.Duration(random.Int64N(far) >> random.IntN(30))
		c.frozen.Store(int64(now))
		for w.run(func(f func()) { f() }) {
		}
		for _, i := range all {
			if i.isSet && i.at+timerTick <= now {
				t.Fatalf("seed %d: due at %v, not run at %v", seed, i.at, now)
			}
		}
	}
	if stirred == 0 || ran < len(all) {
		t.Errorf("seed %d: %d timers have run, the owner was stirred %d times", seed, ran, stirred)
	}
}

// TestTimersAtOnce: more timers than a turn runs are due in one tick; the others come in the next turns.
func TestTimersAtOnce(t *testing.T) {
	c := newTurnClock(time.Now(), func() {})
	c.frozen.Store(1)
	ran := 0
	for range 2*timersMax + 1 {
		c.timers.add(time.Second, func() { ran++ })
	}
	c.frozen.Store(int64(time.Minute))
	for _, want := range []int{timersMax, 2 * timersMax, 2*timersMax + 1} {
		if hasMore := c.timers.run(func(f func()) { f() }); ran != want || hasMore != (want <= 2*timersMax) {
			t.Errorf("%d have run, more: %v; want %d", ran, hasMore, want)
		}
	}
	if _, ok := c.timers.rest(); ok {
		t.Error("a timer is left")
	}
}

// TestTimersAllocate: setting, stopping and running costs no allocation.
func TestTimersAllocate(t *testing.T) {
	c := newTurnClock(time.Now(), func() {})
	now := int64(1)
	c.frozen.Store(now)
	one := c.timers.add(time.Second, func() {})
	if n := testing.AllocsPerRun(100, func() {
		one.Stop()
		one.Reset(10 * time.Millisecond)
		now += int64(time.Second)
		c.frozen.Store(now)
		c.timers.run(func(f func()) { f() })
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
