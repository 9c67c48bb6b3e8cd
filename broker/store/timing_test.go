package store

import (
	"testing"
	"time"
)

// TestStopwatch: what is older than two windows is gone, what is younger than one is there.
func TestStopwatch(t *testing.T) {
	var w stopwatch
	at := time.Unix(1000, 0)
	if got := w.read(at); got != (Timing{}) {
		t.Fatalf("before anything was timed: %+v", got)
	}
	for range 99 {
		w.note(at.Add(-time.Millisecond), at)
	}
	w.note(at.Add(-time.Hour), at)
	got := w.read(at)
	if got.Count != 100 || got.P50 < 990 || got.P50 > 1010 || got.P99 > 1010 || got.Max < timingMax.Microseconds()*98/100 {
		t.Fatalf("99 of a millisecond and one that is too long: %+v", got)
	}
	if at = at.Add(timingWindow); w.read(at).Count != 100 {
		t.Fatal("the window before is not counted")
	}
	w.note(at, at) // less than a microsecond counts as one
	if got := w.read(at); got.Count != 101 {
		t.Fatalf("two windows: %+v", got)
	}
	if at = at.Add(timingWindow); w.read(at) != (Timing{Count: 1, P50: 1, P99: 1, Max: 1}) {
		t.Fatalf("the older window is still counted: %+v", w.read(at))
	}
	if got := w.read(at.Add(2 * timingWindow)); got.Count != 0 {
		t.Fatalf("long after: %+v", got)
	}
}
