package topic

import (
	"iter"
	"math/rand/v2"
	"sync"
)

// Index maps Topic Filters to values of the caller's, the receivers. Any goroutine may read (Match, Stamp, Epoch,
// Hash): readers never lock or wait. Any goroutine may write; a mutex inside lets one write at a time.
//
// # Caching a match
//
// A reader may keep the result of a match with the Epoch and the Stamp it belongs to: MatchStamped loads, in this
// order, Epoch, Stamp, the match. To use an entry the reader loads Epoch: if that is the entry's, the entry is fresh.
// If not it keeps that Epoch, loads Stamp, and if that is the entry's, the entry is fresh and gets the kept Epoch. If
// not it fills the entry anew.
//
// A stale entry is never taken for fresh. Take a change that touches the name and was complete (its call returned)
// before the check. It changed the structure, then bumped a counter of the name's, then published an epoch. If the
// check finds the entry's Stamp, no counter of the name moved between the entry's Stamp and the check's, since counters
// only grow; so the bump, and before it the change of the structure, came before the entry's Match, which saw it. If
// the check finds the entry's Epoch, all epochs published before the check were published before the entry's Epoch was
// loaded; so the bump came before the Stamp that was loaded after that Epoch, and that Stamp was the entry's: as above.
// A change that is not complete may be seen or not, as if it came before or after the check.
type Index[V comparable] struct {
	hasher
	stamps
	exact table[leaf[V]] // By hash of the filter.
	tree  tree[V]

	_ [cacheLineBytes]byte // Writers' lock traffic stays off the line of what readers load.
	// mu excludes writers. It is held across the callbacks of Update, which exist to run under it.
	mu sync.Mutex
	counts
}

// leaf is an exact filter and its receivers. It never changes; a change replaces it in the table.
type leaf[V comparable] struct {
	filter string
	to     receivers[V]
}

// NewIndex returns an empty Index. It holds 1 MiB of counters from the start.
func NewIndex[V comparable]() *Index[V] {
	return newIndex[V](newHasher(rand.Uint64(), rand.Uint64()))
}

// NewKeyedIndex returns an empty Index whose hash has a key that is known, so that a run of it can be repeated. Peers who
// know the key can flood the tables.
func NewKeyedIndex[V comparable](key [2]uint64) *Index[V] {
	return newIndex[V](newHasher(key[0], key[1]))
}

func newIndex[V comparable](h hasher) *Index[V] {
	x := &Index[V]{hasher: h, stamps: newStamps()}
	x.tree.hasher = h
	x.tree.root.path = x.seed
	return x
}

// Add makes v a receiver of filter, which is a valid Topic Filter, and keeps the string. It returns whether v was one
// already; the matches are invalidated even so, since what v stands for may have changed.
func (x *Index[V]) Add(filter string, v V) (replaced bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var first bool
	if HasWildcard(filter) {
		replaced, first = x.tree.add(filter, v)
	} else {
		replaced, first = x.addExact(filter, v)
	}
	if first {
		x.countFilter(filter, 1)
	}
	if !replaced {
		x.values++
	}
	x.bump(x.hasher, filter)
	x.epoch.Add(1)
	return replaced
}

// Remove undoes Add and returns whether there was anything to undo; if not, nothing is invalidated.
func (x *Index[V]) Remove(filter string, v V) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	var had, last bool
	if HasWildcard(filter) {
		had, last = x.tree.remove(filter, v)
	} else {
		had, last = x.removeExact(filter, v)
	}
	if !had {
		return false
	}
	if last {
		x.countFilter(filter, -1)
	}
	x.values--
	x.bump(x.hasher, filter)
	x.epoch.Add(1)
	return true
}

// Update invalidates the matches of all filters as one change. It first calls fn with the epoch that the change will
// get, before any reader can see that epoch or a bumped counter: fn records, for instance, "moved home at epoch next".
// fn and filters run under the writers' lock and must not write to this Index.
func (x *Index[V]) Update(filters iter.Seq[string], fn func(next uint64)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	fn(x.epoch.Load() + 1)
	for filter := range filters {
		x.bump(x.hasher, filter)
	}
	x.epoch.Add(1)
}

// UpdateAll is Update for all filters there are, at the price of one: every match is invalidated.
func (x *Index[V]) UpdateAll(fn func(next uint64)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	fn(x.epoch.Load() + 1)
	x.all.Add(1)
	x.epoch.Add(1)
}

// Match appends to dst each value once for each of its filters that matches a valid Topic Name. It allocates only what
// dst lacks. Bounds on its work: see tree.match; an exact filter costs one look-up.
//
// It finds each pair of filter and value that is there from beginning to end. It is no snapshot: of a value that moves
// from one matching filter to another meanwhile, it may find both or neither.
func (x *Index[V]) Match(name []byte, dst []V) []V {
	if l := x.leaf(x.hash(name), name); l != nil {
		dst = l.to.appendTo(dst)
	}
	if len(name) == 0 {
		return dst
	}
	return x.tree.match(&x.tree.root, name, name[0] == '$', dst)
}

// snapshotTries is how often MatchStamped matches a name whose filters change meanwhile: a match of a microsecond that
// meets a change three times in a row is already rare with 50,000 changes a second below the same prefix.
const snapshotTries = 3

// MatchStamped is Match with the Epoch and the Stamp to keep beside a cached result. It matches again if the Stamp
// moved meanwhile; if the Stamp stood still, the result is a snapshot. After snapshotTries it gives what it has, as
// Match does, with a Stamp that no longer holds, so that a cache asks again.
func (x *Index[V]) MatchStamped(name []byte, dst []V) (matched []V, epoch, stamp uint64) {
	for range snapshotTries {
		epoch, stamp = x.Epoch(), x.Stamp(name)
		matched = x.Match(name, dst)
		if x.Stamp(name) == stamp {
			break
		}
		dst = matched[:len(dst)] // The array may have grown.
	}
	return matched, epoch, stamp
}

// MatchSnapshot is Match at one moment: where changes do not let it be, it makes them wait.
func (x *Index[V]) MatchSnapshot(name []byte, dst []V) []V {
	matched, _, stamp := x.MatchStamped(name, dst)
	if x.Stamp(name) == stamp {
		return matched
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.Match(name, matched[:len(dst)])
}

// Epoch is the number of changes so far. It is one atomic load.
func (x *Index[V]) Epoch() uint64 {
	return x.epoch.Load()
}

// Stamp returns a number that grows when the match of name may have changed. Rarely it grows when it has not: names
// share counters by hash, and "a/+/c" counts as a change to everything below "a".
func (x *Index[V]) Stamp(name []byte) uint64 {
	return x.stamp(x.hasher, name)
}

// Hash is the hash of this Index, for tables of names that peers choose. It is seeded per Index.
func (x *Index[V]) Hash(b []byte) uint64 {
	return x.hash(b)
}

// leaf returns the exact filter that equals name, or nil.
func (x *Index[V]) leaf(hash uint64, name []byte) *leaf[V] {
	p := x.exact.probe(hash)
	for {
		l := p.next()
		if l == nil || l.filter == string(name) {
			return l
		}
	}
}

func (x *Index[V]) addExact(filter string, v V) (had, first bool) {
	hash := x.hash([]byte(filter))
	l := x.leaf(hash, []byte(filter))
	if l == nil {
		x.exact.insert(hash, &leaf[V]{filter: filter, to: receivers[V]{one: v}})
		return false, true
	}
	next, had := l.to.with(v)
	if next != &l.to {
		x.exact.replace(hash, l, &leaf[V]{filter: l.filter, to: *next})
	}
	return had, false
}

func (x *Index[V]) removeExact(filter string, v V) (had, last bool) {
	hash := x.hash([]byte(filter))
	l := x.leaf(hash, []byte(filter))
	if l == nil {
		return false, false
	}
	next, had := l.to.without(v)
	switch next {
	case nil:
		x.exact.remove(hash, l)
	case &l.to:
	default:
		x.exact.replace(hash, l, &leaf[V]{filter: l.filter, to: *next})
	}
	return had, next == nil
}
