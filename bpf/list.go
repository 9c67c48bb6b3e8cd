package bpf

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
)

// List is one of the three lists of source prefixes.
type List uint8

// The lists. A source in Allow is never denied; to let only some in, deny 0.0.0.0/0 and ::/0 and allow those.
const (
	Deny   List = iota // every segment is dropped, of connections that are there as well
	Allow              // overrides Deny
	Exempt             // from the SYN limits
	lists  = iota
)

// String gives deny, allow or exempt.
func (l List) String() string {
	switch l {
	case Deny:
		return "deny"
	case Allow:
		return "allow"
	case Exempt:
		return "exempt"
	}
	return "list " + strconv.Itoa(int(l))
}

// listSet is a set of Lists, in the numbers of enum list in steer.c.
type listSet uint32

func (l List) set() listSet { return 1 << l }

// prefixes are source prefixes, masked, with the lists that they are in.
type prefixes map[netip.Prefix]listSet

// of gives one list's prefixes in order.
func (p prefixes) of(list List) []netip.Prefix {
	var found []netip.Prefix
	for prefix, in := range p {
		if in&list.set() != 0 {
			found = append(found, prefix)
		}
	}
	slices.SortFunc(found, netip.Prefix.Compare)
	return found
}

// with is a copy in which one list has these more.
func (p prefixes) with(list List, more []netip.Prefix) (prefixes, error) {
	next := maps.Clone(p)
	for _, prefix := range more {
		if !prefix.IsValid() || prefix.Addr().Is4In6() {
			return nil, fmt.Errorf("%s list: %s is no prefix: write it as 192.0.2.0/24 or 2001:db8::/32", list, prefix)
		}
		next[prefix.Masked()] |= list.set()
	}
	return next, nil
}

// without is a copy in which one list lacks these.
func (p prefixes) without(list List, less []netip.Prefix) prefixes {
	next := maps.Clone(p)
	for _, prefix := range less {
		prefix = prefix.Masked()
		if next[prefix] &^= list.set(); next[prefix] == 0 {
			delete(next, prefix)
		}
	}
	return next
}

// flatten gives each prefix the lists of the shorter prefixes around it, too: the program looks up the longest only.
func (p prefixes) flatten() prefixes {
	flat := make(prefixes, len(p))
	var around []netip.Prefix // the prefixes that contain the current one, longest last
	for _, prefix := range slices.SortedFunc(maps.Keys(p), outerFirst) {
		for len(around) > 0 && !around[len(around)-1].Overlaps(prefix) {
			around = around[:len(around)-1]
		}
		flat[prefix] = p[prefix]
		if len(around) > 0 {
			flat[prefix] |= flat[around[len(around)-1]]
		}
		around = append(around, prefix)
	}
	return flat
}

// outerFirst sorts masked prefixes so that each follows those that contain it, and nothing else stands between.
func outerFirst(a, b netip.Prefix) int {
	if order := a.Addr().Compare(b.Addr()); order != 0 {
		return order
	}
	return a.Bits() - b.Bits()
}

// A change is one step on the way from one flat table to another.
type change struct {
	prefix netip.Prefix
	lists  listSet // 0 removes the prefix
}

// changes are ordered so that at any moment each address is judged as by the old table or as by the new one. First comes what
// is new or other, longest prefix first: an address whose longest match is such finds its final lists. Then goes what is no
// longer there, shortest prefix first: an address whose longest match is such has its old lists, till it goes, and then no
// other of the old matches is left.
func changes(from, to prefixes) []change {
	var enter, remove []change
	for prefix, in := range to {
		if from[prefix] != in {
			enter = append(enter, change{prefix, in})
		}
	}
	for prefix := range from {
		if to[prefix] == 0 {
			remove = append(remove, change{prefix, 0})
		}
	}
	slices.SortFunc(enter, func(a, b change) int { return b.prefix.Bits() - a.prefix.Bits() })
	slices.SortFunc(remove, func(a, b change) int { return a.prefix.Bits() - b.prefix.Bits() })
	return append(enter, remove...)
}
