package topic

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

const million = 1_000_000

// subscription stands for the caller's value: what the index holds is a pointer to it.
type subscription struct{ _ [16]byte }

// BenchmarkMillion fills an Index with a million filters, one in ten with wildcards, reports what one costs, and
// measures on it. Names are drawn from the whole set, so that a match finds nothing in the processor's caches.
func BenchmarkMillion(b *testing.B) {
	target := new(subscription)
	before := heapBytes()
	x := NewIndex[*subscription]()
	stringBytes := 0
	for i := range million {
		filter := filterNumber(i)
		stringBytes += roundUp(len(filter))
		x.Add(filter, target)
	}
	each := float64(heapBytes()-before) / million
	stats := x.Stats()
	report := func(b *testing.B) {
		b.ReportMetric(each, "bytes/subscription")
		b.ReportMetric(float64(stats.Bytes)/million, "estimated-bytes/subscription")
		b.ReportMetric(float64(stringBytes)/million, "of-that-string-bytes")
	}
	names := make([][]byte, 1<<18)
	for i := range names {
		names[i] = nameNumber(nil, rand.IntN(million))
	}
	dst := make([]*subscription, 0, 64)
	b.Run("MatchCold", func(b *testing.B) {
		b.ReportAllocs()
		found := 0
		for i := 0; b.Loop(); i++ {
			dst = x.Match(names[i&(len(names)-1)], dst[:0])
			found += len(dst)
		}
		if found < b.N {
			b.Fatalf("%d found in %d", found, b.N)
		}
		report(b)
	})
	b.Run("MatchHot", func(b *testing.B) {
		for b.Loop() {
			dst = x.Match(names[0], dst[:0])
		}
	})
	b.Run("Churn", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			filter := filterNumber(million + i&0xffff)
			x.Add(filter, target)
			x.Remove(filter, target)
		}
	})
	runtime.KeepAlive(x)
}

// BenchmarkMillionWildcards is the worst mix for memory: each filter has a wildcard and a node or two of its own.
func BenchmarkMillionWildcards(b *testing.B) {
	target := new(subscription)
	before := heapBytes()
	x := NewIndex[*subscription]()
	for i := range million {
		x.Add(filterNumber(i*10+9), target)
	}
	each := float64(heapBytes()-before) / million
	names := make([][]byte, 1<<16)
	for i := range names {
		names[i] = nameNumber(nil, rand.IntN(million)*10+9)
	}
	dst := make([]*subscription, 0, 64)
	for i := 0; b.Loop(); i++ {
		dst = x.Match(names[i&(len(names)-1)], dst[:0])
	}
	b.ReportMetric(each, "bytes/subscription")
	b.ReportMetric(float64(x.Stats().Bytes)/million, "estimated-bytes/subscription")
	runtime.KeepAlive(x)
}

// BenchmarkCrowd is a hundred thousand receivers of one filter.
func BenchmarkCrowd(b *testing.B) {
	const receivers = 100_000
	targets := make([]subscription, 2*receivers)
	before := heapBytes()
	x := NewIndex[*subscription]()
	for i := range receivers {
		x.Add("crowd", &targets[i])
	}
	each := float64(heapBytes()-before) / receivers
	b.Run("AddRemove", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			x.Add("crowd", &targets[receivers+i%receivers])
			x.Remove("crowd", &targets[receivers+i%receivers])
		}
		b.ReportMetric(each, "bytes/subscription")
	})
	b.Run("Match", func(b *testing.B) {
		dst := make([]*subscription, 0, receivers)
		for b.Loop() {
			dst = x.Match([]byte("crowd"), dst[:0])
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/receivers, "ns/receiver")
	})
	runtime.KeepAlive(x)
}

// BenchmarkHostile is the worst set for the matcher: each of ten levels is the name's or '+', in every combination.
func BenchmarkHostile(b *testing.B) {
	const levels = 10
	x := NewIndex[int]()
	for set := range 1 << levels {
		filter := make([]string, levels)
		for i := range filter {
			filter[i] = "level"
			if set>>i&1 != 0 {
				filter[i] = "+"
			}
		}
		x.Add(strings.Join(filter, "/")+"/nobody-publishes-this", set)
	}
	name := []byte(strings.Repeat("level/", levels) + "other")
	var dst []int
	for b.Loop() {
		dst = x.Match(name, dst[:0])
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(x.Stats().Nodes), "ns/node")
}

func BenchmarkStamp(b *testing.B) {
	x := loadedIndex(10)
	names := make([][]byte, 256)
	for i := range names {
		names[i] = fmt.Appendf(nil, "site/%04d/line/dev%05d/temp", rand.IntN(1000), rand.IntN(100000))
	}
	for i := 0; b.Loop(); i++ {
		x.Stamp(names[i&255])
	}
}

func BenchmarkEpoch(b *testing.B) {
	x := loadedIndex(10)
	for b.Loop() {
		x.Epoch()
	}
}

func BenchmarkHash(b *testing.B) {
	x := loadedIndex(10)
	for _, size := range []int{8, 20, 64} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			name := []byte(strings.Repeat("a", size))
			for b.Loop() {
				x.Hash(name)
			}
		})
	}
}

func BenchmarkValidName(b *testing.B) {
	name := nameNumber(nil, 4711)
	for b.Loop() {
		ValidName(name)
	}
}
