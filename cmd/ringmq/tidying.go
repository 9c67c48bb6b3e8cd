package main

import (
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// tidyLeast is how many bytes the Go heap must have grown by before an idle store has it collected: a collection that returns less
// is not worth the work.
const tidyLeast = 32 << 20

// tidyEvery is how often that happens at most: in XDP mode the garbage of the TCP in the process is the collector's own business.
const tidyEvery = time.Minute

// tidying gives back what the store's work has left in the Go heap. The collector runs only when the memory limit is reached
// (see tuneRuntime), which suits a data path that makes no garbage; a store makes some with every commit and every load, and a
// broker would keep as much as its limit allows for as long as it runs.
type tidying struct {
	after uint64    // what the Go heap took when it was last collected
	last  time.Time // when that was
}

// collect is called by the store's reaper while the store is idle, once a second.
func (t *tidying) collect() {
	if time.Since(t.last) < tidyEvery || heapTaken() < t.after+tidyLeast {
		return
	}
	debug.FreeOSMemory()
	t.after, t.last = heapTaken(), time.Now()
}

// heapTaken is what the Go heap takes of the machine's memory, in bytes.
func heapTaken() (n uint64) {
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(samples)
	for _, s := range samples {
		n += s.Value.Uint64()
	}
	return n
}
