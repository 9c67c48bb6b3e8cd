package broker

import "math/bits"

// The wheel has wheelLevels levels of wheelSlots slots; a slot of level n spans wheelSlots^n ticks. Starting, moving
// and stopping a timer is a few stores; idle timers cost nothing until due.
const (
	wheelBits   = 6
	wheelSlots  = 1 << wheelBits
	wheelLevels = 5
)

// timer is one timer of the shared table: a node in the list of one wheel slot.
type timer struct {
	next, prev uint32
	when       uint64 // tick
	slot       uint16 // level*wheelSlots + index + 1; 0 when stopped
}

// wheel is a hierarchical timing wheel (Varghese and Lauck, 1987) over a table of timers that are named by number.
// Each shard has a wheel; the table is shared, each timer being in one wheel at the most.
type wheel struct {
	timers []timer
	now    uint64
	heads  [wheelLevels * wheelSlots]uint32
	used   [wheelLevels]uint64 // bit per slot that holds a timer
}

// start arms timer id for tick when, or moves it there. A tick that has passed fires at the next advance.
func (w *wheel) start(id uint32, when uint64) {
	w.stop(id)
	t := &w.timers[id]
	t.when = max(when, w.now+1)
	w.place(id, t)
}

func (w *wheel) place(id uint32, t *timer) {
	level, at := 0, t.when
	for level < wheelLevels-1 && (t.when>>(wheelBits*level))-(w.now>>(wheelBits*level)) >= wheelSlots {
		level++
	}
	at >>= wheelBits * level
	if far := w.now>>(wheelBits*level) + wheelSlots - 1; at > far {
		at = far // beyond the wheel's span: comes round and is placed again
	}
	i := level*wheelSlots + int(at%wheelSlots)
	t.slot, t.prev, t.next = uint16(i)+1, 0, w.heads[i]
	if t.next != 0 {
		w.timers[t.next].prev = id
	}
	w.heads[i] = id
	w.used[level] |= 1 << (at % wheelSlots)
}

// stop disarms timer id; a stopped one stays so.
func (w *wheel) stop(id uint32) {
	t := &w.timers[id]
	if t.slot == 0 {
		return
	}
	i := int(t.slot) - 1
	if t.prev != 0 {
		w.timers[t.prev].next = t.next
	} else if w.heads[i] = t.next; t.next == 0 {
		w.used[i/wheelSlots] &^= 1 << (i % wheelSlots)
	}
	if t.next != 0 {
		w.timers[t.next].prev = t.prev
	}
	t.slot, t.next, t.prev = 0, 0, 0
}

// advance moves the wheel to tick now and appends the timers that have become due to due.
func (w *wheel) advance(now uint64, due []uint32) []uint32 {
	for w.now < now {
		next, ok := w.next()
		if !ok || next > now {
			w.now = now
			return due
		}
		w.now = next
		for level := wheelLevels - 1; level >= 0; level-- {
			if level > 0 && w.now&(1<<(wheelBits*level)-1) != 0 {
				continue
			}
			due = w.open(level*wheelSlots+int(w.now>>(wheelBits*level)%wheelSlots), due)
		}
	}
	return due
}

// open empties a slot: what is due is reported, the rest moves to a finer level.
func (w *wheel) open(i int, due []uint32) []uint32 {
	for id := w.heads[i]; id != 0; {
		t := &w.timers[id]
		next := t.next
		w.stop(id)
		if t.when <= w.now {
			due = append(due, id)
		} else {
			w.place(id, t)
		}
		id = next
	}
	return due
}

// next is the first tick after now at which some slot must be opened; false when no timer runs.
func (w *wheel) next() (uint64, bool) {
	best, ok := uint64(0), false
	for level := range wheelLevels {
		if w.used[level] == 0 {
			continue
		}
		cur := w.now >> (wheelBits * level)
		turned := bits.RotateLeft64(w.used[level], -int((cur+1)%wheelSlots))
		at := (cur + 1 + uint64(bits.TrailingZeros64(turned))) << (wheelBits * level)
		if !ok || at < best {
			best, ok = at, true
		}
	}
	return best, ok
}
