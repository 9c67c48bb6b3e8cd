//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package kernel

// slotsPerBlock is how many slots are allocated at once: 16 KiB, a size class of Go's allocator without waste.
const slotsPerBlock = 256

// noSlot ends a list of slots.
const noSlot = ^uint32(0)

// slab holds the connections of one plane. Slots never move, so that a pointer to one may be given out, and are found
// by number without a map. Blocks are allocated as the number of connections grows and are kept.
type slab struct {
	blocks []*[slotsPerBlock]conn
	free   uint32 // the first free slot: the one freed last, which the cache still knows
	open   int    // slots taken
}

func (s *slab) at(index uint32) *conn {
	return &s.blocks[index/slotsPerBlock][index%slotsPerBlock]
}

// find returns the connection that an event names, nil if it is gone: its slot is free or someone else's.
func (s *slab) find(index, generation uint32) *conn {
	if index/slotsPerBlock >= uint32(len(s.blocks)) {
		return nil
	}
	c := s.at(index)
	if c.generation != generation || c.state == free {
		return nil
	}
	return c
}

func (s *slab) take(p *Plane) *conn {
	if s.free == noSlot {
		s.grow(p)
	}
	c := s.at(s.free)
	s.free = c.nextFree
	s.open++
	return c
}

// release makes a slot free. A new generation makes events that still name it stale.
func (s *slab) release(c *conn) {
	c.state = free
	c.generation++
	c.token = 0
	c.nextFree = s.free
	s.free = c.index
	s.open--
}

func (s *slab) grow(p *Plane) {
	block := new([slotsPerBlock]conn)
	first := uint32(len(s.blocks) * slotsPerBlock)
	s.blocks = append(s.blocks, block)
	for i := range block {
		c := &block[i]
		c.plane, c.index, c.nextFree, c.nextChanged = p, first+uint32(i), first+uint32(i)+1, noSlot
	}
	block[slotsPerBlock-1].nextFree = s.free
	s.free = first
}

// each calls f for every slot that is taken; f may release it.
func (s *slab) each(f func(*conn)) {
	for _, block := range s.blocks {
		for i := range block {
			if c := &block[i]; c.state != free {
				f(c)
			}
		}
	}
}
