package topic

import "reflect"

// Stats describes an Index at one moment.
type Stats struct {
	Filters   int // Distinct Topic Filters.
	Wildcards int // Of these, with a wildcard.
	Values    int // Pairs of filter and value.
	Nodes     int // Levels in the tree of filters with wildcards.
	Bytes     int // An estimate of the memory in use, filters included, what V points to not.
}

// counts are what Stats cannot read off the structure. Index.mu guards them.
type counts struct {
	filters, wildcards, values int
	filterBytes                int
}

// allocationBytes is the granularity to which the estimate rounds an allocation: the Go heap's at these sizes.
const allocationBytes = 16

func (c *counts) countFilter(filter string, change int) {
	c.filters += change
	c.filterBytes += change * roundUp(len(filter))
	if HasWildcard(filter) {
		c.wildcards += change
	}
}

// Len returns how many pairs of filter and value there are.
func (x *Index[V]) Len() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.values
}

// Nodes returns how many levels of filters with wildcards there are, those counted once that filters have in common. It takes no lock.
func (x *Index[V]) Nodes() int64 { return x.tree.nodes.Load() }

// Stats counts. It takes the writers' lock.
func (x *Index[V]) Stats() Stats {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := Stats{Filters: x.filters, Wildcards: x.wildcards, Values: x.values, Nodes: int(x.Nodes())}
	slots := x.exact.slotCount() + x.tree.children.slotCount()
	s.Bytes = sizeOf[Index[V]]() + 2*sizeOf[[stampCount]uint64]() +
		x.filterBytes +
		slots*sizeOf[slot[V]]() +
		(s.Filters-s.Wildcards)*sizeOf[leaf[V]]() +
		s.Wildcards*sizeOf[receivers[V]]() +
		s.Nodes*sizeOf[node[V]]() +
		// Values that share a filter: at most a place in a chunk and one in a crowd's map, which may be half empty.
		(s.Values-s.Filters)*3*sizeOf[V]()
	return s
}

func sizeOf[T any]() int {
	return roundUp(int(reflect.TypeFor[T]().Size()))
}

func roundUp(sizeBytes int) int {
	return (sizeBytes + allocationBytes - 1) / allocationBytes * allocationBytes
}
