package broker

import "sync/atomic"

// slotBatch is how many slot numbers move between a shard's cache and the shared stack at once: large enough that
// the shared word is touched once in many messages, small enough that caches strand little.
const slotBatch = 32

// slots hands out the numbers 1..max of a fixed set of slots; 0 means none. Shards take and return numbers in
// batches through a slotCache each, so that the only shared write is one compare-and-swap per batch.
type slots struct {
	max       uint32
	fresh     atomic.Uint32 // numbers above it were never used; batches are cut from here first come, first served
	head      atomic.Uint64 // stack of returned batches: tag<<32 | first number; the tag defeats ABA
	available atomic.Int64  // numbers neither in use nor in a cache
	next      []uint32      // link inside a batch or cache; written by whoever holds the number
	batch     []uint32      // link between batches, at each batch's first number; atomic
}

func newSlots(max int) (*slots, error) {
	s := &slots{max: uint32(max)}
	s.available.Store(int64(max))
	var err error
	if s.next, err = reserve[uint32](max + 1); err != nil {
		return nil, err
	}
	s.batch, err = reserve[uint32](max + 1)
	return s, err
}

func (s *slots) release() {
	_ = release(s.next)
	_ = release(s.batch)
}

// pop takes a batch and returns its first number, the rest linked behind it, and the count; 0 when none is left.
func (s *slots) pop() (first uint32, n int) {
	for {
		old := s.head.Load()
		first = uint32(old)
		if first == 0 {
			return s.cut()
		}
		next := atomic.LoadUint32(&s.batch[first])
		if s.head.CompareAndSwap(old, (old>>32+1)<<32|uint64(next)) {
			s.available.Add(-slotBatch)
			return first, slotBatch
		}
	}
}

// cut makes a batch of numbers never used before.
func (s *slots) cut() (first uint32, n int) {
	for {
		from := s.fresh.Load()
		if from >= s.max {
			return 0, 0
		}
		to := min(from+slotBatch, s.max)
		if !s.fresh.CompareAndSwap(from, to) {
			continue
		}
		for i := from + 1; i < to; i++ {
			s.next[i] = i + 1
		}
		s.next[to] = 0
		s.available.Add(-int64(to - from))
		return from + 1, int(to - from)
	}
}

// push returns a batch of exactly slotBatch numbers.
func (s *slots) push(first uint32) {
	for {
		old := s.head.Load()
		atomic.StoreUint32(&s.batch[first], uint32(old))
		if s.head.CompareAndSwap(old, (old>>32+1)<<32|uint64(first)) {
			s.available.Add(slotBatch)
			return
		}
	}
}

// slotCache is one shard's stock of slot numbers. Not for concurrent use.
type slotCache struct {
	s     *slots
	head  uint32
	n     int
	taken int64 // numbers taken less numbers returned through this cache; negative when others' are freed here
}

// get takes a number, or 0 when the set is used up.
func (c *slotCache) get() uint32 {
	if c.head == 0 {
		if c.head, c.n = c.s.pop(); c.head == 0 {
			return 0
		}
	}
	i := c.head
	c.head = c.s.next[i]
	c.n--
	c.taken++
	return i
}

// put returns a number.
func (c *slotCache) put(i uint32) {
	c.s.next[i] = c.head
	c.head = i
	c.n++
	c.taken--
	if c.n >= 2*slotBatch {
		c.giveBatch()
	}
}

func (c *slotCache) giveBatch() {
	first := c.head
	last := first
	for range slotBatch - 1 {
		last = c.s.next[last]
	}
	c.head = c.s.next[last]
	c.s.next[last] = 0
	c.n -= slotBatch
	c.s.push(first)
}
