package topic

import (
	"encoding/binary"
	"math"
	"sync/atomic"
)

// stamps says which Topic Names a change may have touched. A change to an exact filter bumps the counter of that name,
// a change to one with wildcards that of its literal prefix. Counters only grow, so equal sums mean that each is equal.
//
// Counters are shared by hash: two names that share one are invalidated together, which costs a match and nothing else.
// Exact filters and prefixes have counters of their own, because a name depends on one of the first and on one of the
// second per level: churn of exact filters then hits a bystander once in 65,536 changes, not seven times. A change to very
// many filters at once bumps a counter that all names depend on.
type stamps struct {
	// The counters and epoch are written by the writer, under Index.mu, and read by anyone. The writer changes the
	// structure, then bumps counters, then publishes the epoch.
	exact    *[stampCount]atomic.Uint64
	prefixes *[stampCount]atomic.Uint64
	all      atomic.Uint64 // Of changes to everything, which are rare.

	_     [cacheLineBytes]byte // The epoch changes often; what is around it never does, and every match loads it.
	epoch atomic.Uint64
	_     [cacheLineBytes]byte
}

const (
	stampCount     = math.MaxUint16 + 1 // 512 KiB each.
	cacheLineBytes = 64
)

func newStamps() stamps {
	return stamps{exact: new([stampCount]atomic.Uint64), prefixes: new([stampCount]atomic.Uint64)}
}

// bump invalidates what a change to filter may have touched. Writer only.
func (s *stamps) bump(h hasher, filter string) {
	switch prefix := LiteralPrefix(filter); {
	case len(prefix) == len(filter):
		s.exact[exactAt(h.prefix([]byte(filter)))].Add(1)
	case filter[0] == '+' || filter[0] == '#':
		s.prefixes[noLevelAt].Add(1)
	default:
		s.prefixes[prefixAt(h.prefix([]byte(prefix)))].Add(1)
	}
}

// stamp sums the counters that a Topic Name depends on: its own, and that of each prefix that ends at a level, from no
// level to all of them, since "a/b/#" matches "a/b".
//
// It looks for separators in the words that h.prefix would hash, at fixed places, so that no load and no multiplication
// waits for where a level ended.
func (s *stamps) stamp(h hasher, name []byte) uint64 {
	sum := s.all.Load()
	if len(name) == 0 || name[0] != '$' { // Filters without a literal first level do not match it: [MQTT-4.7.2-1]
		sum += s.prefixes[noLevelAt].Load()
	}
	state, rest := h.seed, name
	for ; len(rest) >= wordBytes; rest = rest[wordBytes:] {
		w := binary.LittleEndian.Uint64(rest)
		for m := separators(w); m != 0; m &= m - 1 {
			sum += s.prefixes[prefixAt(fold(state^w&below(m), h.key))].Load()
		}
		state = fold(state^w, h.seed)
	}
	w, whole := lastWord(name, len(rest)), uint64(0)
	for m := separators(w); m != 0; m &= m - 1 { // The last one is the separator that lastWord put after the name.
		whole = fold(state^w&below(m), h.key)
		sum += s.prefixes[prefixAt(whole)].Load()
	}
	return sum + s.exact[exactAt(whole)].Load()
}

// prefix hashes the levels at the beginning of a name as stamp does.
func (h hasher) prefix(levels []byte) uint64 {
	state, rest := h.seed, levels
	for ; len(rest) >= wordBytes; rest = rest[wordBytes:] {
		state = fold(state^binary.LittleEndian.Uint64(rest), h.seed)
	}
	size := len(rest)
	return fold(state^lastWord(levels, size)&(1<<(8*size)-1), h.key)
}

// below is the mask of the bytes below the lowest byte marked in m.
func below(m uint64) uint64 {
	return m&-m>>7 - 1
}

// noLevelAt is the counter of filters that begin with a wildcard: their literal prefix has no level.
const noLevelAt = 0

// prefixAt and exactAt choose the counter of a hash, from different bits of it.
func prefixAt(hash uint64) uint16 { return uint16(hash >> 48) }
func exactAt(hash uint64) uint16  { return uint16(hash >> 32) }
