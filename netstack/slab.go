package netstack

// slotsPerBlock is how many slots are allocated at once.
const slotsPerBlock = 64

// slab holds the connections of one plane, as in broker/kernel: slots never move, blocks are kept.
type slab struct {
	blocks []*[slotsPerBlock]conn
	free   *conn // the first free slot: the one freed last
	taken  int
}

func (s *slab) take(p *Plane) *conn {
	if s.free == nil {
		s.grow(p)
	}
	c := s.free
	s.free = c.nextFree
	s.taken++
	return c
}

// release makes a slot free. Its place in lists of the plane stays: they look at the state.
func (s *slab) release(c *conn) {
	c.state, c.token, c.flags, c.writes, c.written = free, 0, 0, 0, 0
	c.endpoint, c.queue, c.flow, c.cause = nil, nil, nil, nil
	c.generation++
	c.nextFree = s.free
	s.free = c
	s.taken--
}

func (s *slab) grow(p *Plane) {
	block := new([slotsPerBlock]conn)
	s.blocks = append(s.blocks, block)
	for i := range block {
		c := &block[i]
		c.plane, c.nextFree = p, s.free
		s.free = c
	}
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
