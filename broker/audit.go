package broker

import (
	"fmt"
	"slices"
)

// numberSet says of each slot number whether it is in the set.
type numberSet []bool

func (s numberSet) len() (n int) {
	for _, in := range s {
		if in {
			n++
		}
	}
	return n
}

// freeSet lists the numbers that are neither in use nor in a cache other than those given, and says what is wrong with
// the lists: a number twice, a batch of the wrong length, a count that does not agree. Nothing may run meanwhile.
func (s *slots) freeSet(caches ...*slotCache) (numbers numberSet, wrong error) {
	numbers = make(numberSet, s.max+1)
	note := func(i uint32, where string) {
		switch {
		case i == 0 || i > s.max:
			wrong = fmt.Errorf("%s: number %d of 1..%d", where, i, s.max)
			return
		case numbers[i]:
			wrong = fmt.Errorf("%s: number %d is free twice", where, i)
		}
		numbers[i] = true
	}
	shared := int64(0)
	for i := s.fresh.Load() + 1; i <= s.max; i++ {
		note(i, "fresh")
		shared++
	}
	for first := uint32(s.head.Load()); first != 0 && wrong == nil; first = s.batch[first] {
		n := 0
		for i := first; i != 0 && wrong == nil; i = s.next[i] {
			note(i, "stack")
			n++
		}
		if n != slotBatch && wrong == nil {
			wrong = fmt.Errorf("stack: a batch of %d", n)
		}
		shared += int64(n)
	}
	if a := s.available.Load(); wrong == nil && a != shared {
		wrong = fmt.Errorf("available says %d, there are %d", a, shared)
	}
	for k, c := range caches {
		n := 0
		for i := c.head; i != 0 && wrong == nil; i = s.next[i] {
			note(i, fmt.Sprint("cache ", k))
			n++
		}
		if n != c.n && wrong == nil {
			wrong = fmt.Errorf("cache %d says %d, holds %d", k, c.n, n)
		}
	}
	return numbers, wrong
}

// unused counts the arena's pages that hold nothing: free ones, the emergency stores, and the one page per class that
// a shard keeps. Blocks that other shards freed come home first. Nothing may run meanwhile.
func (a *arena) unused(pools []*pool) (int, error) {
	var caches []*slotCache
	for _, p := range pools {
		p.collect()
		caches = append(caches, &p.cache)
	}
	numbers, wrong := a.slots.freeSet(caches...)
	if wrong != nil {
		return 0, wrong
	}
	for k, p := range pools {
		for _, pg := range append(slices.Clone(p.emergency), p.spare...) {
			if numbers[pg] {
				return 0, fmt.Errorf("page %d of shard %d's emergency store is free too", pg, k)
			}
			numbers[pg] = true
		}
		for i, pg := range slices.Concat(p.partial[forMessages][:], p.partial[forInput][:]) {
			class := i % len(blockClasses)
			for prev := uint32(0); pg != 0; prev, pg = pg, a.pages[pg].next {
				m := &a.pages[pg]
				switch {
				case numbers[pg]:
					return 0, fmt.Errorf("page %d is cut and free", pg)
				case int(m.class) != class || int(m.owner) != k || m.prev != prev:
					return 0, fmt.Errorf("page %d on shard %d's list of class %d: %+v", pg, k, class, *m)
				case m.end == 0:
					numbers[pg] = true
				}
			}
		}
	}
	return numbers.len(), nil
}

// Leftovers says what a broker still holds when every client is gone, every Session has ended and no message is
// retained: a slot or a page that does not come back is a leak. Nil when nothing is. It looks at everything, which takes
// milliseconds, and no loop may run meanwhile: it is for simulations and soak tests, not for a broker at work.
func (b *Broker) Leftovers() (errs []error) {
	w := b.world
	note := func(format string, v ...any) { errs = append(errs, fmt.Errorf(format, v...)) }
	var pools []*pool
	caches := make(map[*slots][]*slotCache)
	for i, s := range w.peers {
		pools = append(pools, s.pool)
		for _, c := range []*slotCache{&s.connSlots, &s.sessionSlots, &s.entrySlots, &s.ms.slots} {
			caches[c.s] = append(caches[c.s], c)
		}
		for name, n := range map[string]int{"departures": len(s.departures), "ending": len(s.ending), "claimants": len(s.claimants), "takes": len(s.takes),
			"hungry": len(s.hungry), "pumping": len(s.pumping), "stalled": len(s.stalledConns), "yielded": len(s.yielded), "orphans": len(s.orphans), "dirty": len(s.dirty),
			"arriving": int(s.arriving.Load()), "owned": len(s.owned), "partings": len(s.partings),
			"lingering": len(s.lingering.leaving) + len(s.lingering.later)} {
			if n != 0 {
				note("shard %d: %d %s", i, n, name)
			}
		}
		for to, o := range s.out {
			if n := len(o.overflow); n != 0 {
				note("shard %d: %d messages wait for shard %d", i, n, to)
			}
		}
		if s.Pending() {
			note("shard %d: messages are not read", i)
		}
		if s.stream != nil && s.stream.size() != 0 {
			note("shard %d: %d bytes wait for the store", i, s.stream.size())
		}
		if at, ok := s.wheel.next(); ok {
			note("shard %d: a timer runs, at tick %d", i, at)
		}
	}
	for name, s := range map[string]*slots{"connection": w.connSlots, "session": w.sessionSlots, "message": w.messageSlots, "entry": w.entrySlots} {
		numbers, wrong := s.freeSet(caches[s]...)
		if wrong != nil {
			note("%s slots: %v", name, wrong)
		} else if n := int(s.max) - numbers.len(); n != 0 {
			note("%d %s slots are not given back", n, name)
		}
	}
	if n, wrong := w.arena.unused(pools); wrong != nil {
		note("arena: %v", wrong)
	} else if int(w.arena.slots.max) != n {
		note("arena: %d pages are not given back", int(w.arena.slots.max)-n)
	}
	for name, n := range map[string]int64{"connected": w.connected.Load(), "sessions": w.sessionCount.Load(), "subscribed": w.subscribed.Load(), "endings": w.endings.Load(), "cursors": w.cursorCount.Load(),
		"retained": w.retained.count.Load(), "promised pages": w.arena.committed.Load(), "in the index": int64(w.index.Len()),
		"groups": int64(len(w.groups.all) + len(w.groups.byNumber)), "bytes of long names": w.longNames.Load(), "contributions": int64(w.contributions.used)} {
		if n != 0 {
			note("%s: %d", name, n)
		}
	}
	for i := range w.registry.parts {
		if n := len(w.registry.parts[i].sessions); n != 0 {
			note("%d Sessions are in the registry", n)
		}
	}
	for slot := range w.sessions {
		if sess := w.sessions[slot].Load(); sess != nil {
			note("Session %d (%s) is in its slot", slot, sess.clientID)
		}
	}
	return errs
}
