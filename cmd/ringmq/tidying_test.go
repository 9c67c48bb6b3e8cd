package main

import (
	"runtime/debug"
	"testing"
	"time"
)

// TestTidying: what a busy store leaves is given back once, and little is left alone.
func TestTidying(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // as tuneRuntime does
	debug.FreeOSMemory()                             // What other tests have left would take the garbage in.
	tidy := new(tidying)
	tidy.after = heapTaken()
	makeGarbage(4 * tidyLeast)
	before := heapTaken()
	tidy.collect()
	if after := heapTaken(); after > before-3*tidyLeast {
		t.Errorf("the heap took %d MiB before and takes %d MiB after", before>>20, after>>20)
	}
	makeGarbage(tidyLeast / 4)
	tidy.last = tidy.last.Add(-tidyEvery)
	before = heapTaken()
	if tidy.collect(); heapTaken() < before-tidyLeast/8 {
		t.Error("a collection for a little garbage")
	}
	makeGarbage(4 * tidyLeast)
	tidy.last = time.Now()
	before = heapTaken()
	if tidy.collect(); heapTaken() < before-tidyLeast {
		t.Error("a second collection within a minute")
	}
}

// makeGarbage allocates so many bytes and keeps none.
func makeGarbage(bytes int) {
	for ; bytes > 0; bytes -= len(garbage) {
		garbage = make([]byte, 1<<20)
		garbage[len(garbage)-1] = 1
	}
}

// garbage has what was allocated last: it must not live on a stack.
var garbage = make([]byte, 1<<20)
