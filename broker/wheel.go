package broker

import (
	"math/bits"
	"slices"
)

// The wheel has a wide first level, so that a Keep Alive of the usual length is put where it fires and never moved
// again, and coarser levels of coarseSlots slots for what lies further ahead.
const (
	fineBits    = 12
	fineSlots   = 1 << fineBits
	coarseBits  = 6
	coarseSlots = 1 << coarseBits
	levels      = 4
	wheelSlots  = fineSlots + (levels-1)*coarseSlots
	// movesPerAdvance bounds how many timers one advance moves to a finer level, so that a coarse slot with a hundred
	// thousand timers does not stop the loop. Those that wait for it may fire late by a few ticks.
	movesPerAdvance = 1024
)

// timer is one timer of the shared table: a node in the list of one wheel slot.
type timer struct {
	next, prev uint32
	when       uint64 // tick
	slot       uint16 // index into wheel.heads + 1; 0 when stopped
}

// wheel is a hierarchical timing wheel (Varghese and Lauck, 1987) over a table of timers that are named by number.
// Each shard has a wheel; the table is shared, each timer being in one wheel at the most.
type wheel struct {
	timers []timer
	now    uint64
	heads  [wheelSlots]uint32
	fine   [fineSlots / 64]uint64 // bit per slot of the first level that holds a timer
	any    uint64                 // bit per word of fine that is not zero
	coarse [levels]uint64         // bit per slot of the other levels
	opened []uint16               // coarse slots whose time has come and whose timers are being moved
}

// start arms timer id for tick when, or moves it there. A tick that has passed fires at the next advance.
func (w *wheel) start(id uint32, when uint64) {
	w.stop(id)
	t := &w.timers[id]
	t.when = max(when, w.now+1)
	w.put(id, t, w.slotFor(t.when))
}

// shift is how many bits of a tick a level leaves out.
func shift(level int) int {
	if level == 0 {
		return 0
	}
	return fineBits + (level-1)*coarseBits
}

// slotFor chooses the finest level that reaches tick when.
func (w *wheel) slotFor(when uint64) int {
	if when-w.now < fineSlots {
		return int(when % fineSlots)
	}
	for level := 1; ; level++ {
		at, now := when>>shift(level), w.now>>shift(level)
		if at-now < coarseSlots || level == levels-1 {
			// What lies beyond the last level comes round and is placed again.
			return fineSlots + (level-1)*coarseSlots + int(min(at, now+coarseSlots-1)%coarseSlots)
		}
	}
}

func (w *wheel) put(id uint32, t *timer, slot int) {
	t.slot, t.prev, t.next = uint16(slot)+1, 0, w.heads[slot]
	if t.next != 0 {
		w.timers[t.next].prev = id
	}
	w.heads[slot] = id
	w.mark(slot, true)
}

// mark notes whether a slot holds timers.
func (w *wheel) mark(slot int, holds bool) {
	switch {
	case slot >= fineSlots:
		level, bit := (slot-fineSlots)/coarseSlots+1, uint64(1)<<((slot-fineSlots)%coarseSlots)
		w.coarse[level] &^= bit
		if holds {
			w.coarse[level] |= bit
		}
	default:
		word, bit := slot/64, uint64(1)<<(slot%64)
		w.fine[word] &^= bit
		if holds {
			w.fine[word] |= bit
		}
		w.any &^= 1 << word
		if w.fine[word] != 0 {
			w.any |= 1 << word
		}
	}
}

// stop disarms timer id; a stopped one stays so.
func (w *wheel) stop(id uint32) {
	t := &w.timers[id]
	if t.slot == 0 {
		return
	}
	slot := int(t.slot) - 1
	if t.prev != 0 {
		w.timers[t.prev].next = t.next
	} else if w.heads[slot] = t.next; t.next == 0 {
		w.mark(slot, false)
	}
	if t.next != 0 {
		w.timers[t.next].prev = t.prev
	}
	t.slot, t.next, t.prev = 0, 0, 0
}

// isDue says whether timer id runs and its tick has come, although the wheel has not been moved that far.
func (w *wheel) isDue(id uint32, tick uint64) bool {
	t := &w.timers[id]
	return t.slot != 0 && t.when <= tick
}

// advance moves the wheel to tick now and appends the timers that have become due to due: about most of them. When there are
// more, the wheel stands at their tick, which has not fired to its end (isFiring), until it is called again.
func (w *wheel) advance(now uint64, due []uint32, most int) []uint32 {
	budget := movesPerAdvance
	due = w.fire(due, most)
	for w.now < now && len(due) < most {
		next, ok := w.nextSlot()
		if !ok || next > now {
			w.now = now
			break
		}
		w.now = next
		for level := 1; level < levels && w.now&(1<<shift(level)-1) == 0; level++ {
			slot := fineSlots + (level-1)*coarseSlots + int(w.now>>shift(level)%coarseSlots)
			if w.heads[slot] != 0 && !slices.Contains(w.opened, uint16(slot)) {
				w.opened = append(w.opened, uint16(slot))
			}
		}
		due = w.fire(w.move(due, &budget), most)
	}
	return w.move(due, &budget)
}

// isFiring says whether timers of the current tick are left. No timer is ever started for it.
func (w *wheel) isFiring() bool { return w.heads[w.now%fineSlots] != 0 }

// fire takes timers of the current tick until there are most in due.
func (w *wheel) fire(due []uint32, most int) []uint32 {
	for id := w.heads[w.now%fineSlots]; id != 0 && len(due) < most; id = w.heads[w.now%fineSlots] {
		w.stop(id)
		due = append(due, id)
	}
	return due
}

// move places timers of opened slots anew, as many as budget allows; those that are due are reported.
func (w *wheel) move(due []uint32, budget *int) []uint32 {
	for len(w.opened) > 0 {
		slot := w.opened[len(w.opened)-1]
		for id := w.heads[slot]; id != 0; id = w.heads[slot] {
			if *budget == 0 {
				return due
			}
			*budget--
			w.stop(id)
			if t := &w.timers[id]; t.when <= w.now {
				due = append(due, id)
			} else {
				w.put(id, t, w.slotFor(t.when))
			}
		}
		w.opened = w.opened[:len(w.opened)-1]
	}
	return due
}

// next is the first tick at which the wheel must advance, now itself when it is firing; false when no timer runs.
func (w *wheel) next() (uint64, bool) {
	if w.isFiring() {
		return w.now, true
	}
	if len(w.opened) > 0 {
		return w.now + 1, true
	}
	return w.nextSlot()
}

// nextSlot is the first tick after now at which a slot must be looked at.
func (w *wheel) nextSlot() (uint64, bool) {
	best, ok := w.nextFine()
	for level := 1; level < levels; level++ {
		if w.coarse[level] == 0 {
			continue
		}
		cur := w.now>>shift(level) + 1
		turned := bits.RotateLeft64(w.coarse[level], -int(cur%coarseSlots))
		at := (cur + uint64(bits.TrailingZeros64(turned))) << shift(level)
		if !ok || at < best {
			best, ok = at, true
		}
	}
	return best, ok
}

// nextFine is the first tick after now whose slot of the first level holds a timer.
func (w *wheel) nextFine() (uint64, bool) {
	if w.any == 0 {
		return 0, false
	}
	from := w.now + 1
	word := int(from % fineSlots / 64)
	if rest := w.fine[word] >> (from % 64); rest != 0 {
		return from + uint64(bits.TrailingZeros64(rest)), true
	}
	// The words behind, round to the part of this word before from.
	turned := bits.RotateLeft64(w.any, -(word + 1))
	skip := bits.TrailingZeros64(turned)
	base := from - from%64 + uint64(skip+1)*64
	return base + uint64(bits.TrailingZeros64(w.fine[(word+1+skip)%len(w.fine)])), true
}
