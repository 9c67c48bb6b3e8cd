package capture

import (
	"sync/atomic"
	"time"
)

// ring holds copies of the frames of one device and direction until they are written. Its memory is of fixed size. One
// goroutine at a time puts (a device's receiver, or who holds its sending lock), one takes; neither waits for the other.
type ring struct {
	entries []entry
	bytes   []byte // snap for each entry
	snap    int

	tail   atomic.Uint64 // frames put so far; written by the data path, after the entry
	head   atomic.Uint64 // frames taken so far; written by the capture, after it has copied them
	missed atomic.Uint64 // frames left out; written by the data path
}

// entry is one frame. Its bytes lie in the ring at the entry's place.
type entry struct {
	at     time.Time
	length int // of the frame on the wire
	kept   int // of its copy
}

func newRing(frames, snapBytes int) *ring {
	return &ring{entries: make([]entry, frames), bytes: make([]byte, frames*snapBytes), snap: snapBytes}
}

// put copies a frame, unless that would mean to forget another.
func (r *ring) put(frame []byte) {
	tail := r.tail.Load()
	if tail-r.head.Load() == uint64(len(r.entries)) {
		r.missed.Add(1)
		return
	}
	place := int(tail % uint64(len(r.entries)))
	r.entries[place] = entry{at: time.Now(), length: len(frame), kept: copy(r.bytes[place*r.snap:(place+1)*r.snap], frame)}
	r.tail.Store(tail + 1)
}

// take appends copies of the frames that came no later than until.
func (r *ring) take(bytes []byte, entries []entry, until time.Time) ([]byte, []entry) {
	head, tail := r.head.Load(), r.tail.Load()
	for ; head < tail; head++ {
		place := int(head % uint64(len(r.entries)))
		e := r.entries[place]
		if e.at.After(until) {
			break
		}
		bytes = append(bytes, r.bytes[place*r.snap:place*r.snap+e.kept]...)
		entries = append(entries, e)
	}
	r.head.Store(head)
	return bytes, entries
}
