package topic

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// entry is a cached match as a shard keeps it.
type entry struct {
	epoch, stamp uint64
	values       []int
}

// load brings the entry up to date by the protocol in Index's documentation.
func (e *entry) load(x *Index[int], name []byte) {
	epoch := x.Epoch()
	switch {
	case e.values != nil && epoch == e.epoch:
	case e.values != nil && x.Stamp(name) == e.stamp:
		e.epoch = epoch
	default:
		e.values, e.epoch, e.stamp = x.MatchStamped(name, e.values[:0])
	}
}

// Writers churn, readers keep caches. Whatever stays is always found; and once the writers are quiet, entries that the
// protocol takes for fresh equal a new match.
func TestConcurrentReaders(t *testing.T) {
	const writers, readers, rounds = 2, 2, 4000
	x := NewIndex[int]()
	stay := map[string]int{"a/b/c": -1, "a/+/c": -2, "a/#": -3, "+/b/c": -4, "#": -5, "a/b/+": -6, "a/b/c/#": -7}
	for filter, v := range stay {
		x.Add(filter, v)
	}
	name := []byte("a/b/c")
	names := [][]byte{name, []byte("a/b"), []byte("b/x"), []byte("a/7/c"), []byte("$x/y"), []byte("a")}
	caches := make([][]entry, readers)
	var done atomic.Bool // Written by this goroutine after the writers ended, read by the readers.
	var reading, writing sync.WaitGroup
	for r := range readers {
		caches[r] = make([]entry, len(names))
		reading.Go(func() {
			for turn := 0; !done.Load(); turn++ {
				i := turn % len(names)
				caches[r][i].load(x, names[i])
				if i == 0 && countNegative(caches[r][i].values) != len(stay) {
					t.Errorf("a value that stays is missing: %v", caches[r][i].values)
					return
				}
			}
		})
	}
	for w := range writers {
		writing.Go(func() { churnAround(x, w, rounds) })
	}
	writing.Wait()
	done.Store(true)
	reading.Wait()
	for r := range readers {
		for i := range names {
			caches[r][i].load(x, names[i])
			fresh := x.Match(names[i], nil)
			if !slices.Equal(caches[r][i].values, fresh) {
				t.Errorf("%s: cached %v, fresh %v", names[i], caches[r][i].values, fresh)
			}
		}
	}
}

// churnAround adds and removes values on, above and below the names of TestConcurrentReaders.
func churnAround(x *Index[int], writer, rounds int) {
	filters := strings.Fields("a/b/c a/+/c a/# # a/b a b/x b/+ $x/# $x/y +/+ a/7/c a/7/# +/7/+")
	random := rand.New(rand.NewPCG(uint64(writer), 3))
	for i := range rounds {
		filter := filters[random.IntN(len(filters))]
		v := writer*1000 + random.IntN(60)
		if random.IntN(2) == 0 {
			x.Add(filter, v)
		} else {
			x.Remove(filter, v)
		}
		other := fmt.Sprintf("a/%d/z", i) // Makes tables grow and shrink.
		x.Add(other, v)
		x.Remove(other, v)
	}
}

func countNegative(values []int) int {
	n := 0
	for _, v := range values {
		if v < 0 {
			n++
		}
	}
	return n
}

// A crowd's readers between removals, additions and compactions never miss who stays, nor see anyone twice.
func TestConcurrentCrowd(t *testing.T) {
	const stay, move = 100, 1000
	x := NewIndex[int]()
	for v := range stay + move {
		x.Add("crowd", (v*7919)%(stay+move))
	}
	var done atomic.Bool // Written by this goroutine at the end, read by the reader.
	var reading sync.WaitGroup
	reading.Go(func() {
		var dst []int
		seen := make([]bool, stay+move)
		for !done.Load() {
			dst = x.Match([]byte("crowd"), dst[:0])
			clear(seen)
			for _, v := range dst {
				if v < stay && seen[v] {
					t.Errorf("value %d twice", v)
				}
				seen[v] = true
			}
			if i := slices.Index(seen[:stay], false); i >= 0 {
				t.Errorf("value %d is missing among %d", i, len(dst))
				return
			}
		}
	})
	for range 3 {
		for v := range move {
			x.Remove("crowd", stay+v)
		}
		for v := range move {
			x.Add("crowd", stay+v)
		}
	}
	done.Store(true)
	reading.Wait()
}

// What a writer has finished, a reader that starts later finds, cached or not. The writer keeps one ticket in the index
// at any moment, always a higher one, and says so only when Add has returned.
func TestCacheIsNeverStale(t *testing.T) {
	for _, filters := range [][]string{
		{"a/b/c"}, {"a/+/c"}, {"a/#"}, {"#"}, {"a/b/c/#"}, // Within one filter any match shows a ticket.
		{"a/b/c", "a/+/c", "a/#", "#", "a/b/c/#", "+/b/+"}, // Between several, only a snapshot need.
	} {
		t.Run(fmt.Sprint(filters), func(t *testing.T) { passTickets(t, filters, 2000) })
	}
}

func passTickets(t *testing.T, filters []string, tickets int) {
	x := NewIndex[int]()
	var latest atomic.Int64 // Written by this goroutine after each Add, read by the readers.
	var reading sync.WaitGroup
	x.Add(filters[0], 0)
	for range 2 {
		reading.Go(func() {
			var cache entry
			name := []byte("a/b/c")
			for before := 0; before < tickets; {
				before = int(latest.Load())
				cache.load(x, name)
				if len(filters) > 1 && x.Stamp(name) != cache.stamp {
					continue
				}
				after := int(latest.Load())
				if !slices.ContainsFunc(cache.values, func(v int) bool { return v >= before && v <= after+1 }) {
					t.Errorf("found %v between tickets %d and %d", cache.values, before, after)
					return
				}
			}
		})
	}
	for i := 1; i <= tickets; i++ {
		x.Add(filters[i%len(filters)], i)
		latest.Store(int64(i))
		x.Remove(filters[(i-1)%len(filters)], i-1)
	}
	reading.Wait()
}
