package netstack

import "encoding/binary"

// overflow is a queue of frames that found no transmit frame, in a fixed ring of bytes. The zero value takes none; its
// memory is made at the first frame.
type overflow struct {
	max      int    // bytes
	ring     []byte // each frame is a length of 4 bytes and its bytes, never wrapped
	head     int
	tail     int
	wrap     int // where the ring ends for now, when tail is in front of head
	highTide *counter
}

const frameLengthBytes = 4

func (q *overflow) isEmpty() bool { return q.head == q.tail && q.wrap == 0 }

// used is how many bytes of the ring wait.
func (q *overflow) used() int {
	if q.wrap != 0 {
		return q.wrap - q.head + q.tail
	}
	return q.tail - q.head
}

// reserve gives room for a frame of at most n bytes, or nil when the queue is full.
func (q *overflow) reserve(n int) []byte {
	n += frameLengthBytes
	if q.ring == nil && n <= q.max {
		q.ring = make([]byte, q.max)
	}
	if q.isEmpty() {
		q.head, q.tail = 0, 0
	}
	switch {
	case q.wrap != 0 && q.head-q.tail > n, q.wrap == 0 && len(q.ring)-q.tail >= n:
	case q.wrap == 0 && q.head > n:
		q.wrap, q.tail = q.tail, 0
	default:
		return nil
	}
	return q.ring[q.tail+frameLengthBytes : q.tail+n]
}

// commit queues the first n bytes of what reserve gave.
func (q *overflow) commit(n int) {
	binary.BigEndian.PutUint32(q.ring[q.tail:], uint32(n))
	q.tail += frameLengthBytes + n
	if used := uint64(q.used()); used > q.highTide.Load() {
		q.highTide.Store(used)
	}
}

// first is the frame that waits longest, valid until drop.
func (q *overflow) first() []byte {
	n := int(binary.BigEndian.Uint32(q.ring[q.head:]))
	return q.ring[q.head+frameLengthBytes : q.head+frameLengthBytes+n]
}

func (q *overflow) drop() {
	q.head += frameLengthBytes + len(q.first())
	if q.wrap != 0 && q.head == q.wrap {
		q.head, q.wrap = 0, 0
	}
}
