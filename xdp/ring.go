package xdp

import (
	"sync/atomic"
	"unsafe"
)

// ringNeedWakeup is XDP_RING_NEED_WAKEUP of linux/if_xdp.h: the kernel sleeps until a system call.
const ringNeedWakeup = 1

// descriptor is struct xdp_desc of linux/if_xdp.h.
type descriptor struct {
	address uint64 // Offset in the umem.
	length  uint32
	options uint32
}

// words are what two sides share of a ring besides its entries. One side writes producer, the other consumer: the kernel
// the producer of the RX and completion rings and the consumer of the fill and TX rings, we the other one. Entries
// below producer are published by its store, entries below consumer are released by its store. The kernel writes flags.
type words struct {
	producer *uint32
	consumer *uint32
	flags    *uint32
}

func (w words) needWakeup() bool { return atomic.LoadUint32(w.flags)&ringNeedWakeup != 0 }

// waiting is how many entries are published and not released. Both words may move meanwhile: consumer is read first, so
// that the answer is never below zero.
func (w words) waiting() uint32 {
	consumer := atomic.LoadUint32(w.consumer)
	return atomic.LoadUint32(w.producer) - consumer
}

// producing is our end of a ring that we fill: the fill ring (entries are addresses) or the TX ring (descriptors).
type producing[E uint64 | descriptor] struct {
	words
	entries []E    // A power of two of them. Indices run through all of uint32 and wrap.
	next    uint32 // Of the entry that we write next. The words have an older one until publish.
}

func (r *producing[E]) put(entry E) {
	r.entries[r.next&uint32(len(r.entries)-1)] = entry
	r.next++
}

func (r *producing[E]) publish() { atomic.StoreUint32(r.producer, r.next) }

// untaken is how many of the entries that we put the other side has not taken yet.
func (r *producing[E]) untaken() uint32 { return r.next - atomic.LoadUint32(r.consumer) }

// consuming is our end of a ring that the kernel fills: the RX ring (descriptors) or the completion ring (addresses).
type consuming[E uint64 | descriptor] struct {
	words
	entries []E
	next    uint32 // Of the entry that we take next. The words have an older one until release.
}

// available is how many entries may be taken. A count that the ring cannot hold is none: nobody is told what to do with it.
func (r *consuming[E]) available() uint32 {
	n := atomic.LoadUint32(r.producer) - r.next
	if n > uint32(len(r.entries)) {
		return 0
	}
	return n
}

func (r *consuming[E]) take() E {
	entry := r.entries[r.next&uint32(len(r.entries)-1)]
	r.next++
	return entry
}

func (r *consuming[E]) release() { atomic.StoreUint32(r.consumer, r.next) }

// offsets say where the parts of a ring are in its memory, in bytes: struct xdp_ring_offset of linux/if_xdp.h.
type offsets struct {
	producer, consumer, entries, flags uint64
}

func ringWords(memory []byte, o offsets) words {
	return words{
		producer: (*uint32)(unsafe.Pointer(&memory[o.producer])),
		consumer: (*uint32)(unsafe.Pointer(&memory[o.consumer])),
		flags:    (*uint32)(unsafe.Pointer(&memory[o.flags])),
	}
}

func ringEntries[E uint64 | descriptor](memory []byte, o offsets, size int) []E {
	var entry E
	_ = memory[o.entries+uint64(size)*uint64(unsafe.Sizeof(entry))-1] // Or panic here, not in the middle of traffic.
	return unsafe.Slice((*E)(unsafe.Pointer(&memory[o.entries])), size)
}

// newProducing and newConsuming begin where the words stand: at zero in a new socket.
func newProducing[E uint64 | descriptor](memory []byte, o offsets, size int) producing[E] {
	w := ringWords(memory, o)
	return producing[E]{words: w, entries: ringEntries[E](memory, o, size), next: atomic.LoadUint32(w.producer)}
}

func newConsuming[E uint64 | descriptor](memory []byte, o offsets, size int) consuming[E] {
	w := ringWords(memory, o)
	return consuming[E]{words: w, entries: ringEntries[E](memory, o, size), next: atomic.LoadUint32(w.consumer)}
}
