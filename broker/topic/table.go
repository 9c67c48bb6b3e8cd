package topic

import "sync/atomic"

// table is a hash table of pointers for many readers without locks and one writer. It is cut into segments by the
// hash's top bits so that growing moves one segment: at a million entries some 4,000, not all of them.
//
// It compares no keys: probe yields the entries whose 64-bit hash fits, and the caller compares.
type table[T any] struct {
	// segments are written by the writer and read by anyone; the atomic store publishes a filled segment. nil is an
	// empty segment.
	segments [segmentCount]atomic.Pointer[segment[T]]
}

// segment is open addressing with linear probing over a power of two of slots.
type segment[T any] struct {
	slots []slot[T]
	// live counts the slots with an entry, used those and the tombstones. Only the writer reads or writes them.
	live, used int
}

// slot is one place. The writer stores entry, then tag; a reader that sees the tag sees an entry at least as new. A
// reader that sees an older tag belongs before that change.
type slot[T any] struct {
	tag   atomic.Uint64
	entry atomic.Pointer[T]
}

const (
	segmentCount    = 256
	segmentShift    = 56 // The hash's top eight bits choose the segment,
	positionShift   = 8  // the bits below them and above the tag's mark the slot.
	segmentSlotsMin = 8

	tagEmpty     = 0
	tagTombstone = 1
	tagMark      = 2 // Set in the tag of every entry, so that it is neither of the above.
)

// probe is a walk over the slots where one hash can be.
type probe[T any] struct {
	slots []slot[T]
	at    uint64
	tag   uint64
}

func (t *table[T]) probe(hash uint64) probe[T] {
	s := t.segments[hash>>segmentShift].Load()
	if s == nil {
		return probe[T]{}
	}
	return probe[T]{slots: s.slots, at: hash >> positionShift, tag: hash | tagMark}
}

// next returns the next entry with the probed hash, or nil after the last. A segment always has an empty slot, which
// ends the walk.
func (p *probe[T]) next() *T {
	if len(p.slots) == 0 {
		return nil
	}
	mask := uint64(len(p.slots) - 1)
	for {
		s := &p.slots[p.at&mask]
		p.at++
		switch s.tag.Load() {
		case p.tag:
			if e := s.entry.Load(); e != nil { // nil: removed since the tag was read.
				return e
			}
		case tagEmpty:
			return nil
		}
	}
}

// insert adds an entry that is not there. Writer only.
func (t *table[T]) insert(hash uint64, e *T) {
	s := t.segments[hash>>segmentShift].Load()
	if s == nil || (s.used+1)*4 > len(s.slots)*3 {
		s = s.rebuilt(1)
		t.segments[hash>>segmentShift].Store(s)
	}
	s.put(hash|tagMark, e)
}

// replace puts next in the place of old: a reader finds one of them at any moment. Writer only.
func (t *table[T]) replace(hash uint64, old, next *T) {
	s := t.segments[hash>>segmentShift].Load()
	s.slots[s.find(hash, old)].entry.Store(next)
}

// remove takes e out and gives memory back when the segment has become sparse. Writer only.
func (t *table[T]) remove(hash uint64, e *T) {
	at := &t.segments[hash>>segmentShift]
	s := at.Load()
	s.clear(s.find(hash, e))
	switch {
	case s.live == 0:
		at.Store(nil)
	case len(s.slots) > segmentSlotsMin && s.live*8 < len(s.slots):
		at.Store(s.rebuilt(0))
	}
}

// find returns the slot of an entry that is there.
func (s *segment[T]) find(hash uint64, e *T) uint64 {
	mask := uint64(len(s.slots) - 1)
	i := hash >> positionShift & mask
	for s.slots[i].entry.Load() != e {
		i = (i + 1) & mask
	}
	return i
}

// put fills the first free slot for a tag.
func (s *segment[T]) put(tag uint64, e *T) {
	mask := uint64(len(s.slots) - 1)
	i := tag >> positionShift & mask
	for s.slots[i].tag.Load() > tagTombstone {
		i = (i + 1) & mask
	}
	if s.slots[i].tag.Load() == tagEmpty {
		s.used++
	}
	s.live++
	s.slots[i].entry.Store(e)
	s.slots[i].tag.Store(tag)
}

// clear empties slot i. Before an empty slot no tombstone is needed: a walk that came this far ends one slot later
// anyway. That holds for the tombstones before it too.
func (s *segment[T]) clear(i uint64) {
	mask := uint64(len(s.slots) - 1)
	s.live--
	s.slots[i].tag.Store(tagTombstone)
	s.slots[i].entry.Store(nil)
	if s.slots[(i+1)&mask].tag.Load() != tagEmpty {
		return
	}
	for s.slots[i].tag.Load() == tagTombstone {
		s.slots[i].tag.Store(tagEmpty)
		s.used--
		i = (i - 1) & mask
	}
}

// rebuilt returns a copy without tombstones, at most half full with more entries to come. The old segment is left as
// it is for the readers in it.
func (s *segment[T]) rebuilt(more int) *segment[T] {
	size := segmentSlotsMin
	if s == nil {
		return &segment[T]{slots: make([]slot[T], size)}
	}
	for size < 2*(s.live+more) {
		size *= 2
	}
	next := &segment[T]{slots: make([]slot[T], size)}
	for i := range s.slots {
		if tag := s.slots[i].tag.Load(); tag > tagTombstone {
			next.put(tag, s.slots[i].entry.Load())
		}
	}
	return next
}

// slotCount counts the slots of all segments. Writer only.
func (t *table[T]) slotCount() int {
	n := 0
	for i := range t.segments {
		if s := t.segments[i].Load(); s != nil {
			n += len(s.slots)
		}
	}
	return n
}
