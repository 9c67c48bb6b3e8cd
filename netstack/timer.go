package netstack

import (
	"math/bits"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

const (
	// timerTick is how exact a stack's timers are: none is early, and the least of them, a retransmission timeout, takes 200
	// ticks by default.
	timerTick = time.Millisecond

	// timerSlots is how many ticks ahead a slot holds timers of one round only. A later timer is passed by until its round has
	// come, at the price of waking a plane that rests once per round.
	timerSlots = 4096

	// timersMax bounds the timers that one turn runs.
	timersMax = 512
)

// timers are those of one stack, in a hashed wheel: each is in the slot of the tick in which it is due. The plane's owner runs
// them in its turns. The runtime would run each on a goroutine of its own, and most for nothing: the stack lets a retransmission
// timer run out rather than stop it, so that every connection with traffic has some in a second.
type timers struct {
	clock *turnClock
	stir  func()   // has the owner ask for rest again, if it sleeps
	due   []*timer // scratch of run

	mu     sync.Mutex // guards what follows, and the timers' fields
	now    int64      // the tick up to which timers were run; the owner alone writes it
	slots  [timerSlots]*timer
	filled [timerSlots / 64]uint64 // a bit for each slot that is not empty
}

// timer is one of them. It runs at most once for each time that it is set.
type timer struct {
	of         *timers
	f          func()
	next, prev *timer // in its slot; prev of the first is nil
	tick       int64  // when it is due
	isSet      bool
}

var _ tcpip.Timer = (*timer)(nil)

// add makes a timer and sets it.
func (w *timers) add(d time.Duration, f func()) *timer {
	t := &timer{of: w, f: f}
	t.Reset(d)
	return t
}

// Reset sets the timer, instead of for when it was set before.
func (t *timer) Reset(d time.Duration) {
	w := t.of
	at := int64((w.clock.elapsed() + max(0, d) + timerTick - 1) / timerTick)
	w.mu.Lock()
	if t.isSet {
		w.remove(t)
	}
	t.tick = max(at, w.now+1)
	w.insert(t)
	w.mu.Unlock()
	w.stir()
}

// Stop tells whether it has kept the timer from running.
func (t *timer) Stop() bool {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	wasSet := t.isSet
	if wasSet {
		t.of.remove(t)
	}
	return wasSet
}

func (w *timers) insert(t *timer) {
	slot := t.tick % timerSlots
	first := w.slots[slot]
	if t.isSet, t.prev, t.next = true, nil, first; first != nil {
		first.prev = t
	}
	w.slots[slot] = t
	w.filled[slot/64] |= 1 << (slot % 64)
}

func (w *timers) remove(t *timer) {
	if t.next != nil {
		t.next.prev = t.prev
	}
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		slot := t.tick % timerSlots
		if w.slots[slot] = t.next; t.next == nil {
			w.filled[slot/64] &^= 1 << (slot % 64)
		}
	}
	t.isSet, t.next, t.prev = false, nil, nil
}

// run gives the timers that are due to do, and tells whether there are more. The owner calls it, within a turn.
func (w *timers) run(do func(f func())) (hasMore bool) {
	tick := int64(w.clock.elapsed() / timerTick)
	if tick <= w.now {
		return false
	}
	hasMore = w.take(tick)
	for i, t := range w.due {
		do(t.f)
		w.due[i] = nil
	}
	return hasMore
}

// take moves the timers that are due to the list of these.
func (w *timers) take(tick int64) (hasMore bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.due = w.due[:0]
	from := max(w.now, tick-timerSlots) // A round has all slots.
	for at := from + 1; at <= tick; at++ {
		if w.filled[at%timerSlots/64]&(1<<(at%64)) == 0 {
			continue
		}
		for t := w.slots[at%timerSlots]; t != nil; {
			next := t.next
			if t.tick <= tick {
				if len(w.due) == timersMax {
					w.now = at - 1
					return true
				}
				w.remove(t)
				w.due = append(w.due, t)
			}
			t = next
		}
	}
	w.now = tick
	return false
}

// rest is how long the owner may sleep on behalf of timers; ok is false if there are none.
func (w *timers) rest() (d time.Duration, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for at := w.now + 1; at <= w.now+timerSlots; at += 64 - at%64 {
		if word := w.filled[at%timerSlots/64] >> (at % 64); word != 0 {
			at += int64(bits.TrailingZeros64(word))
			return time.Duration(at)*timerTick - w.clock.elapsed(), true
		}
	}
	return 0, false
}
