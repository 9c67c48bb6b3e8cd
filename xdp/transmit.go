package xdp

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

// owner says who has a transmit frame.
type owner uint8

const (
	ownerNobody owner = iota // On the free list.
	ownerCaller              // Reserved.
	ownerKernel              // On the TX ring, with the driver or on the completion ring.
)

// reapBelow is the number of free frames under which a reservation looks at the completion ring first: two batches of 64
// segments, so that the look is paid for once per batch and the list does not run dry while completions wait.
const reapBelow = 128

// kicksPerFrames bounds a Kick: the kernel takes 32 frames per call in copy mode (TX_BATCH_SIZE of net/xdp/xsk.c), and twice
// as many calls cover those that it drops one by one (EBUSY).
const kicksPerFrames = 32 / 2

// transmitter is the transmit half of a socket. The life of a transmit frame: free; reserved by the caller; committed onto
// the TX ring; taken by the driver (held); on the completion ring; reaped, and free again.
type transmitter struct {
	region
	tx         producing[descriptor]
	completion consuming[uint64]
	free       []uint32 // A stack: the frame freed last is the one in the cache.
	owners     []owner  // By frame.
	reserved   uint32
	given      uint32 // Frames that the kernel has.
	lost       uint32
	batch      struct{ frames, bytes uint64 } // Committed since the last kick.
	counters   *transmitCounters

	// send is sendto(2) on the socket: it makes the kernel look at the TX ring. Zero is success.
	send func() syscall.Errno

	// pending tells the receive half and the watcher that the TX ring was not empty after a kick.
	pending *atomic.Bool
}

// prime makes all frames free.
func (t *transmitter) prime() {
	t.owners = make([]owner, t.count)
	t.free = make([]uint32, 0, t.count)
	for frame := range t.count {
		t.free = append(t.free, t.count-1-frame)
	}
}

func (t *transmitter) reserve() []byte {
	if len(t.free) < reapBelow {
		t.reap()
	}
	if len(t.free) == 0 {
		return nil
	}
	frame := t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	t.owners[frame] = ownerCaller
	t.reserved++
	address := t.at(frame)
	return t.umem[address : address+t.size : address+t.size]
}

// owns tells whether memory begins in this region: false is memory of an earlier socket.
func (t *transmitter) owns(memory []byte) bool {
	_, ok := t.frame(t.addressOf(memory))
	return ok
}

// addressOf gives a very large number for memory below the umem.
func (t *transmitter) addressOf(memory []byte) uint64 {
	return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(memory))) - uintptr(unsafe.Pointer(unsafe.SliceData(t.umem))))
}

// takeBack ends a reservation. It panics for memory that is not reserved: the caller has used it twice.
func (t *transmitter) takeBack(memory []byte) uint32 {
	frame, ok := t.frame(t.addressOf(memory))
	if !ok || t.owners[frame] != ownerCaller {
		panic("xdp: Commit or Discard of a frame that is not reserved")
	}
	t.reserved--
	return frame
}

func (t *transmitter) discard(memory []byte) {
	frame := t.takeBack(memory)
	t.owners[frame] = ownerNobody
	t.free = append(t.free, frame)
}

// commit puts the frame on the TX ring, which has room for all frames. kick publishes it.
func (t *transmitter) commit(memory []byte, n int) {
	if n <= 0 || uint64(n) > t.size {
		panic("xdp: Commit of more bytes than a frame has, or none")
	}
	frame := t.takeBack(memory)
	t.owners[frame] = ownerKernel
	t.given++
	t.tx.put(descriptor{address: t.at(frame), length: uint32(n), options: 0})
	t.batch.frames++
	t.batch.bytes += uint64(n)
}

// reap takes everything off the completion ring.
func (t *transmitter) reap() {
	n := t.completion.available()
	if n == 0 {
		return
	}
	for range n {
		frame, ok := t.frame(t.completion.take())
		if !ok || t.owners[frame] != ownerKernel {
			t.lost++ // Some frame has not come back, whichever it is.
			t.given--
			t.counters.bad.Add(1)
			continue
		}
		t.owners[frame] = ownerNobody
		t.free = append(t.free, frame)
		t.given--
	}
	t.completion.release()
}

// kick publishes what was committed and calls the kernel until it has taken all of it, says that it cannot now, or stands
// still. What is left stays on the TX ring, in order, and pending says so.
func (t *transmitter) kick() {
	t.flushBatch()
	t.tx.publish()
	// The flag is read after the index is published: the kernel sets the flag first and looks at the index then, so that
	// one of us two sees the other.
	if t.tx.untaken() != 0 && t.tx.needWakeup() {
		t.push()
		t.reap() // In copy mode, frames are back as soon as they are sent: used again at once, they are still in the cache.
	}
	if pending := t.tx.untaken() != 0; pending != t.pending.Load() {
		t.pending.Store(pending)
	}
}

// flushBatch moves the batch's figures into the counters.
func (t *transmitter) flushBatch() {
	if t.batch.frames == 0 {
		return
	}
	t.counters.frames.Add(t.batch.frames)
	t.counters.bytes.Add(t.batch.bytes)
	t.batch.frames, t.batch.bytes = 0, 0
}

// push makes system calls while they help.
func (t *transmitter) push() {
	untaken := t.tx.untaken()
	for range 1 + t.count/kicksPerFrames {
		errno := t.send()
		t.counters.answer(errno)
		left := t.tx.untaken()
		if left == 0 || !worthwhile(errno, left < untaken) {
			return
		}
		untaken = left
	}
}

// worthwhile tells whether another send call now may get further, from what the last one answered and whether the kernel's
// index moved. The functions are in net/xdp/xsk.c of Linux 6.18.
func worthwhile(errno syscall.Errno, progress bool) bool {
	switch errno {
	case 0:
		// Zero-copy: the driver was woken and takes the frames in its own time. Copy mode: all taken, or the NIC has
		// fewer TX queues than this one's number now, and takes none (__xsk_generic_xmit).
		return false
	case syscall.EAGAIN:
		// The call took its 32 frames (max_tx_budget); then progress shows, and the next takes more. Without
		// progress: SO_SNDBUF is full of frames that the receiver has not consumed, the completion ring is full (ours cannot
		// be), or the driver's queue is (NETDEV_TX_BUSY). The frames stay on the ring for a later kick.
		return progress
	case syscall.EBUSY:
		// The driver dropped one frame (NET_XMIT_DROP): it comes back on the completion ring, TCP sends it again. The
		// kernel does not show that progress before the next call, so go on; the number of calls is bounded.
		return true
	case syscall.EINTR:
		return true // A signal: nothing was wrong.
	case syscall.ENOBUFS, syscall.ENOMEM:
		// No memory for an sk_buff (sock_alloc_send_skb). More calls make it worse; a later kick tries again.
		return false
	case syscall.ENETDOWN:
		// The interface is not IFF_UP (xsk_check_common). Its frames stay on the ring; the watcher will say that the link
		// is down, and from then on Commit drops.
		return false
	case syscall.ENXIO:
		// The socket is bound to no device (xsk_check_common): the interface is gone (xsk_notifier) or the watcher has
		// retired the socket. It will replace it.
		return false
	}
	// Nothing else is in xsk_sendmsg for our flags: EOPNOTSUPP is for blocking calls, EINVAL for metadata, EOVERFLOW
	// for frames of several descriptors. What remains is policy (EPERM and EACCES by seccomp or an LSM) and ENOTSOCK of a
	// retired socket. Nothing here can help; the counter tells.
	return false
}

// where says where the frames are. Between calls only the kernel moves them.
func (t *transmitter) where() TransmitFrames {
	tx, completed := t.tx.untaken(), t.completion.available()
	return TransmitFrames{
		Frames:         int(t.count),
		Free:           len(t.free),
		Reserved:       int(t.reserved),
		TXRing:         int(tx),
		Held:           int(t.given) - int(tx) - int(completed),
		CompletionRing: int(completed),
		Lost:           int(t.lost),
	}
}
