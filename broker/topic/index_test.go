package topic

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// All filters up to four levels in one Index, then with every other one removed, against the naive matcher. With a
// hasher of zeros every hash is 0, and only the comparison of keys tells filters and nodes apart.
func TestIndexAgainstNaive(t *testing.T) {
	for what, x := range map[string]*Index[int]{
		"seeded":       NewIndex[int](),
		"all collides": newIndex[int](hasher{}),
	} {
		t.Run(what, func(t *testing.T) { fillAndEmpty(t, x) })
	}
}

func fillAndEmpty(t *testing.T, x *Index[int]) {
	filters, names := allFilters(), allNames()
	for i, filter := range filters {
		x.Add(filter, i)
	}
	compareNaive(t, x, filters, names, func(int) bool { return true })
	for i, filter := range filters {
		if i%2 == 0 && !x.Remove(filter, i) {
			t.Fatalf("Remove(%q) found nothing", filter)
		}
	}
	compareNaive(t, x, filters, names, func(i int) bool { return i%2 != 0 })
	for i, filter := range filters {
		x.Remove(filter, i)
	}
	checkEmpty(t, x)
}

func compareNaive(t *testing.T, x *Index[int], filters, names []string, in func(int) bool) {
	t.Helper()
	for _, name := range names {
		var want []int
		for i, filter := range filters {
			if in(i) && naive(filter, name) {
				want = append(want, i)
			}
		}
		got := x.Match([]byte(name), nil)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("%q: got %d filters, want %d", name, len(got), len(want))
		}
	}
}

// checkEmpty fails unless everything that was added has gone, nodes and tables included.
func checkEmpty[V comparable](t *testing.T, x *Index[V]) {
	t.Helper()
	s := x.Stats()
	if s.Filters != 0 || s.Wildcards != 0 || s.Values != 0 || s.Nodes != 0 || x.Len() != 0 || x.filterBytes != 0 {
		t.Errorf("not empty: %+v", s)
	}
	if n := x.exact.slotCount() + x.tree.children.slotCount(); n != 0 {
		t.Errorf("%d slots left", n)
	}
}

// One filter from no value to thousands and back, through every form of receivers.
func TestManyReceivers(t *testing.T) {
	for _, filter := range []string{"a/b", "a/+", "a/#"} {
		const most = 3000
		x, present := NewIndex[int](), map[int]bool{}
		random := rand.New(rand.NewPCG(1, 2))
		for step := range 8 * most {
			v := random.IntN(most)
			adding := (step < 4*most) == (random.IntN(4) > 0) // Three in four steps add at first, remove then.
			if adding {
				if x.Add(filter, v) != present[v] {
					t.Fatalf("%s: step %d: Add(%d) disagrees", filter, step, v)
				}
				present[v] = true
			} else {
				if x.Remove(filter, v) != present[v] {
					t.Fatalf("%s: step %d: Remove(%d) disagrees", filter, step, v)
				}
				delete(present, v)
			}
			if step%97 == 0 || len(present) < 40 {
				compareSet(t, x.Match([]byte("a/b"), nil), present)
			}
		}
		for v := range most {
			x.Remove(filter, v)
		}
		checkEmpty(t, x)
	}
}

func compareSet(t *testing.T, got []int, want map[int]bool) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d values, want %d", len(got), len(want))
	}
	for _, v := range got {
		if !want[v] {
			t.Fatalf("value %d should not be there", v)
		}
	}
}

// Which names a change invalidates, and which it leaves alone.
func TestStampDependsOn(t *testing.T) {
	names := []string{"a", "a/b", "a/b/c", "a/c", "b", "$x", "$x/a", "/a"}
	for filter, want := range map[string][]string{
		"a/b":   {"a/b"},
		"a/b/#": {"a/b", "a/b/c"},
		"a/+":   {"a", "a/b", "a/b/c", "a/c"},
		"$x/#":  {"$x", "$x/a"},
		"+/b":   {"a", "a/b", "a/b/c", "a/c", "b", "/a"}, // [MQTT-4.7.2-1]
		"/+":    {"/a"},
	} {
		x := newIndex[int](hasher{seed: 0xb5297a4d3f84d5b5, key: 0x68e31da4d2c8f1e7}) // No names share counters by chance.
		for _, change := range []func(){
			func() { x.Add(filter, 1) },
			func() { x.Add(filter, 1) },
			func() { x.Update(slices.Values([]string{filter}), func(uint64) {}) },
			func() { x.Remove(filter, 1) },
		} {
			before, epoch := stampsOf(x, names), x.Epoch()
			change()
			var touched []string
			for i, s := range stampsOf(x, names) {
				if s != before[i] {
					touched = append(touched, names[i])
				}
			}
			if !slices.Equal(touched, want) {
				t.Errorf("%q touches %q, want %q", filter, touched, want)
			}
			if x.Epoch() != epoch+1 {
				t.Errorf("%q: epoch %d after %d", filter, x.Epoch(), epoch)
			}
		}
		if before := x.Epoch(); x.Remove(filter, 1) || x.Epoch() != before {
			t.Errorf("%q: a second Remove found something", filter)
		}
	}
}

func stampsOf(x *Index[int], names []string) []uint64 {
	all := make([]uint64, len(names))
	for i, name := range names {
		all[i] = x.Stamp([]byte(name))
	}
	return all
}

func TestUpdate(t *testing.T) {
	x := NewIndex[int]()
	x.Add("a", 1)
	epoch, stamp := x.Epoch(), x.Stamp([]byte("a"))
	called := false
	x.Update(slices.Values([]string{"a", "b/#"}), func(next uint64) {
		called = true
		if next != epoch+1 || x.Epoch() != epoch || x.Stamp([]byte("a")) != stamp {
			t.Errorf("fn is told %d and sees epoch %d after %d", next, x.Epoch(), epoch)
		}
	})
	if !called || x.Epoch() != epoch+1 || x.Stamp([]byte("a")) == stamp {
		t.Errorf("Update published nothing")
	}
}

func TestUpdateAll(t *testing.T) {
	x := NewIndex[int]()
	names := []string{"a", "a/b", "$x/a"}
	epoch, before := x.Epoch(), stampsOf(x, names)
	x.UpdateAll(func(next uint64) {
		if next != epoch+1 || x.Epoch() != epoch || !slices.Equal(stampsOf(x, names), before) {
			t.Errorf("fn is told %d and sees epoch %d after %d", next, x.Epoch(), epoch)
		}
	})
	for i, stamp := range stampsOf(x, names) {
		if stamp == before[i] || x.Epoch() != epoch+1 {
			t.Errorf("%q: stamp %d after %d, epoch %d after %d", names[i], stamp, before[i], x.Epoch(), epoch)
		}
	}
}

// TestMatchSnapshot has a value's place taken by another one all the time, for an exact filter and one with wildcards that many have: of
// the two one is always there.
func TestMatchSnapshot(t *testing.T) {
	for _, filter := range []string{"a/b", "a/+"} {
		x := NewIndex[int]()
		const chunks = 100
		const last, others = chunks*chunkValues - 1, chunks*chunkValues - 2
		for v := range last + 1 {
			x.Add(filter, v)
		}
		x.Remove(filter, 0) // So that there is room for one in the first chunk, and then in the last, by turns.
		end := make(chan struct{})
		var stopped sync.WaitGroup
		stopped.Go(func() {
			for v := last; ; v++ {
				select {
				case <-end:
					return
				default:
					x.Add(filter, v+1)
					x.Remove(filter, v)
				}
			}
		})
		var found []int
		for range 20_000 {
			found = x.MatchSnapshot([]byte("a/b"), found[:0])
			if n := len(found) - others; n != 1 && n != 2 {
				t.Errorf("%q: %d values, of which %d never change", filter, len(found), others)
				break
			}
		}
		close(end)
		stopped.Wait()
	}
}

func TestNoAllocations(t *testing.T) {
	x := loadedIndex(2000)
	name := []byte("site/0007/line/3/device/000123/temperature")
	exact, wild := string(name), "site/0007/+/3/device/000123/#"
	x.Add(exact, 1)
	x.Add(wild, 2)
	x.Add("site/+/line/+/device/000123/#", 2)
	for v := range 100 {
		x.Add("site/#", v)
	}
	dst := make([]int, 0, 200)
	long := strings.Repeat("温/", 60)
	for what, f := range map[string]func(){
		"Match":             func() { dst = x.Match(name, dst[:0]) },
		"MatchStamped":      func() { dst, _, _ = x.MatchStamped(name, dst[:0]) },
		"Stamp":             func() { x.Stamp(name) },
		"Epoch":             func() { x.Epoch() },
		"Hash":              func() { x.Hash(name) },
		"ValidName":         func() { ValidName(name) },
		"Levels":            func() { Levels(name) },
		"ValidFilter":       func() { ValidFilter(name) },
		"ValidFilter, text": func() { ValidFilter(long) },
		"ParseShared":       func() { ParseShared("$share/group/a/much/longer/filter/than/thirty-two/bytes/+/#") },
		"Add, again":        func() { x.Add(wild, 2) },
		"Add, again, exact": func() { x.Add(exact, 1) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
	if len(dst) != 103 {
		t.Errorf("%d matches", len(dst))
	}
}

// What comes and goes leaves nothing: neither values, nodes, nor slots, nor the strings that long filters pin.
func TestChurnKeepsMemory(t *testing.T) {
	x := loadedIndex(1000)
	churn := func(rounds int) {
		for i := range rounds {
			exact, wild := fmt.Sprintf("churn/%d/exact", i), fmt.Sprintf("churn/%d/+/wild/#", i)
			x.Add(exact, i)
			x.Add(wild, i)
			x.Add("churn/crowd", i)
			if i%2 == 0 {
				x.Remove(exact, i)
				x.Remove(wild, i)
				x.Remove("churn/crowd", i)
			} else { // In another order, after others came.
				x.Remove("churn/crowd", i-100)
				x.Remove(fmt.Sprintf("churn/%d/+/wild/#", i-100), i-100)
				x.Remove(fmt.Sprintf("churn/%d/exact", i-100), i-100)
			}
		}
	}
	churn(2000)
	slots, heap := x.exact.slotCount()+x.tree.children.slotCount(), heapBytes()
	churn(20000)
	if now := x.exact.slotCount() + x.tree.children.slotCount(); now > 2*slots {
		t.Errorf("%d slots, before %d", now, slots)
	}
	if now := heapBytes(); now > heap+256<<10 {
		t.Errorf("%d bytes of heap, before %d", now, heap)
	}
	runtime.KeepAlive(x)
}

func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// loadedIndex has n filters, one in ten with wildcards, of 4 to 5 levels and about 30 bytes.
func loadedIndex(n int) *Index[int] {
	x := NewIndex[int]()
	for i := range n {
		x.Add(filterNumber(i), i)
	}
	return x
}

func filterNumber(i int) string {
	switch {
	case i%10 != 9:
		return fmt.Sprintf("site/%04d/line/%03d/dev%07d/t", i%1000, i%77, i)
	case i%40 == 9:
		return fmt.Sprintf("site/%04d/line/+/dev%07d/t", i%1000, i)
	case i%40 == 19:
		return fmt.Sprintf("site/%04d/line/%03d/dev%07d/#", i%1000, i%77, i)
	case i%40 == 29:
		return fmt.Sprintf("site/+/line/%03d/dev%07d/+", i%77, i)
	}
	return fmt.Sprintf("+/%04d/line/%03d/dev%07d/t", i%1000, i%77, i)
}

// nameNumber is a Topic Name that filterNumber(i) matches.
func nameNumber(dst []byte, i int) []byte {
	return fmt.Appendf(dst, "site/%04d/line/%03d/dev%07d/t", i%1000, i%77, i)
}
