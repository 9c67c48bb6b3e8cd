package broker

// leftovers is Leftovers, for the tests inside the package.
func (b *Broker) leftovers() []error { return b.Leftovers() }

// free is freeSet as a map.
func (s *slots) free(caches ...*slotCache) (map[uint32]bool, error) {
	set, wrong := s.freeSet(caches...)
	numbers := make(map[uint32]bool)
	for i, in := range set {
		if in {
			numbers[uint32(i)] = true
		}
	}
	return numbers, wrong
}
