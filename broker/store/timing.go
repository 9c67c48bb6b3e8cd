package store

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	timingWindow = 10 * time.Second // what Timing tells is of this window and the one before
	timingMax    = time.Minute      // what takes longer counts as that
	timingDigits = 2                // significant digits of a time
)

// Timing is how long something has taken in the last ten to twenty seconds, in microseconds.
type Timing struct {
	Count int64 `json:"count"`
	P50   int64 `json:"p50_us"`
	P99   int64 `json:"p99_us"`
	Max   int64 `json:"max_us"`
}

// stopwatch collects a Timing. Old times go, because whoever asks wants to know how the disk is, not how it was.
type stopwatch struct {
	mu      sync.Mutex // guards what follows
	since   time.Time
	current *hdrhistogram.Histogram // nil until something has been timed
	before  *hdrhistogram.Histogram
}

// note takes a time that ends now.
func (w *stopwatch) note(from, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turn(now)
	took := min(max(now.Sub(from), time.Microsecond), timingMax)
	_ = w.current.RecordValue(took.Microseconds()) // it is between the least and the greatest
}

// turn begins a new window when the last one is over.
func (w *stopwatch) turn(now time.Time) {
	if w.current == nil {
		w.current, w.before = newTimes(), newTimes()
		w.since = now
	}
	age := now.Sub(w.since)
	if age < timingWindow {
		return
	}
	w.current, w.before = w.before, w.current
	w.current.Reset()
	if age >= 2*timingWindow {
		w.before.Reset()
	}
	w.since = now
}

func newTimes() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, timingMax.Microseconds(), timingDigits)
}

// read sums up.
func (w *stopwatch) read(now time.Time) Timing {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turn(now)
	h := newTimes()
	h.Merge(w.before)
	h.Merge(w.current)
	return Timing{Count: h.TotalCount(), P50: h.ValueAtQuantile(50), P99: h.ValueAtQuantile(99), Max: h.Max()}
}
