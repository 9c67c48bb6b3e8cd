package xdp

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// patience bounds every wait for something that must happen. It is never reached when all is well.
const patience = 20 * time.Second

const (
	testFrames    = 128
	testFrameSize = 2048
	nearTheEnd    = 0xfffffff0 // Sixteen steps before the indices wrap.
)

// fakeKernel is the other side of the four rings, in plain memory: what net/xdp does, at random.
type fakeKernel struct {
	random *rand.Rand
	umem   []byte

	fill       consuming[uint64]
	completion producing[uint64]
	rx         producing[descriptor]
	tx         consuming[descriptor]

	empty   []uint64     // Taken from the fill ring.
	sending []descriptor // Taken from the TX ring.

	received uint64 // Packets put on the RX ring; each carries its number.
	sent     []byte // The first byte of each frame taken from the TX ring.
}

// newRings makes both sides, with all indices at start.
func newRings(seed uint64, start uint32) (*receiver, *transmitter, *fakeKernel) {
	umem := make([]byte, 2*testFrames*testFrameSize)
	o := offsets{producer: 0, consumer: 64, flags: 128, entries: 192}
	ring := func(entrySize uintptr) []byte {
		words := make([]uint64, (192+testFrames*entrySize)/8) // Aligned to 8.
		memory := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(words)*8)
		w := ringWords(memory, o)
		*w.producer, *w.consumer = start, start
		return memory
	}
	addresses, descriptors := unsafe.Sizeof(uint64(0)), unsafe.Sizeof(descriptor{})
	fill, completion, rx, tx := ring(addresses), ring(addresses), ring(descriptors), ring(descriptors)
	k := &fakeKernel{
		random:     rand.New(rand.NewPCG(seed, uint64(start))),
		umem:       umem,
		fill:       newConsuming[uint64](fill, o, testFrames),
		completion: newProducing[uint64](completion, o, testFrames),
		rx:         newProducing[descriptor](rx, o, testFrames),
		tx:         newConsuming[descriptor](tx, o, testFrames),
	}
	r := &receiver{
		region:   region{umem: umem, count: testFrames, size: testFrameSize},
		fill:     newProducing[uint64](fill, o, testFrames),
		rx:       newConsuming[descriptor](rx, o, testFrames),
		counters: &receiveCounters{},
	}
	t := &transmitter{
		region:     region{umem: umem, address: testFrames * testFrameSize, count: testFrames, size: testFrameSize},
		tx:         newProducing[descriptor](tx, o, testFrames),
		completion: newConsuming[uint64](completion, o, testFrames),
		counters:   &transmitCounters{},
		pending:    &atomic.Bool{},
		send:       k.send,
	}
	atomic.StoreUint32(t.tx.flags, ringNeedWakeup)
	r.prime()
	t.prime()
	return r, t, k
}

// receive takes empty frames and fills some.
func (k *fakeKernel) receive() {
	for n := min(k.fill.available(), uint32(k.random.IntN(20))); n > 0; n-- {
		k.empty = append(k.empty, k.fill.take())
	}
	k.fill.release()
	for n := k.random.IntN(1 + min(20, len(k.empty))); n > 0; n-- {
		address := k.empty[0] + frameHeadroomBytes
		k.empty = k.empty[1:]
		k.received++
		k.umem[address], k.umem[address+1] = byte(k.received), byte(k.received>>8)
		k.rx.put(descriptor{address: address, length: 2})
	}
	k.rx.publish()
}

// send is sendto in copy mode: at most 32 frames a call, sometimes less, sometimes with an error.
func (k *fakeKernel) send() syscall.Errno {
	for n := range k.tx.available() {
		if n == 32 {
			k.tx.release()
			return syscall.EAGAIN
		}
		if k.random.IntN(100) == 0 {
			k.tx.release()
			return [...]syscall.Errno{syscall.ENOBUFS, syscall.EAGAIN, syscall.EBUSY, syscall.ENETDOWN, syscall.EINTR}[k.random.IntN(5)]
		}
		d := k.tx.take()
		k.sent = append(k.sent, k.umem[d.address])
		k.sending = append(k.sending, d)
	}
	k.tx.release()
	return 0
}

// complete gives sent frames back, in any order.
func (k *fakeKernel) complete() {
	for n := k.random.IntN(1 + min(40, len(k.sending))); n > 0; n-- {
		i := k.random.IntN(len(k.sending))
		k.completion.put(k.sending[i].address)
		k.sending[i] = k.sending[len(k.sending)-1]
		k.sending = k.sending[:len(k.sending)-1]
	}
	k.completion.publish()
}

// seeds are printed, and run with indices that wrap and that do not.
func forSeeds(t *testing.T, f func(t *testing.T, seed uint64, start uint32)) {
	t.Helper()
	first := rand.Uint64()
	for seed := first; seed < first+8; seed++ {
		for _, start := range [...]uint32{0, nearTheEnd} {
			t.Logf("seed %d, indices from %#x", seed, start)
			f(t, seed, start)
		}
	}
}

// TestConservationStepByStep lets both sides act in turn, at random, and counts all frames after each step.
func TestConservationStepByStep(t *testing.T) {
	forSeeds(t, func(t *testing.T, seed uint64, start uint32) {
		r, tx, k := newRings(seed, start)
		delivered, committed := uint64(0), []byte{}
		var reserved [][]byte
		for step := range 4000 {
			switch k.random.IntN(7) {
			case 0:
				k.receive()
			case 1:
				k.complete()
			case 2:
				r.receive(k.random.IntN(64), func(frame []byte) {
					delivered++
					if got := uint64(frame[0]) | uint64(frame[1])<<8; got != delivered&0xffff {
						t.Fatalf("step %d: packet %d, want %d", step, got, delivered)
					}
				})
			case 3, 4:
				if frame := tx.reserve(); frame != nil {
					reserved = append(reserved, frame)
				}
			case 5:
				for len(reserved) > 0 {
					i := k.random.IntN(len(reserved))
					frame := reserved[i]
					reserved = append(reserved[:i], reserved[i+1:]...)
					if k.random.IntN(10) == 0 {
						tx.discard(frame)
						continue
					}
					frame[0] = byte(len(committed))
					committed = append(committed, frame[0])
					tx.commit(frame, 60)
				}
			case 6:
				tx.kick()
				if pending := tx.pending.Load(); pending != (tx.tx.untaken() > 0) {
					t.Fatalf("step %d: pending is %v, and %d are left", step, pending, tx.tx.untaken())
				}
			}
			checkStep(t, step, r, tx, k, len(reserved))
		}
		if delivered < 1000 || len(k.sent) < 500 {
			t.Errorf("only %d received and %d sent", delivered, len(k.sent))
		}
		if string(k.sent) != string(committed[:len(k.sent)]) {
			t.Error("frames were sent in another order, or twice")
		}
	})
}

func checkStep(t *testing.T, step int, r *receiver, tx *transmitter, k *fakeKernel, reserved int) {
	t.Helper()
	got := r.where()
	want := ReceiveFrames{Frames: testFrames, FillRing: int(k.fill.available()), RXRing: int(k.rx.untaken()), Held: len(k.empty)}
	if got != want || got.Sum() != testFrames {
		t.Fatalf("step %d: receive frames %+v, want %+v", step, got, want)
	}
	sent := tx.where()
	unpublished := int(tx.tx.next - atomic.LoadUint32(tx.tx.producer))
	wantSent := TransmitFrames{
		Frames: testFrames, Free: len(tx.free), Reserved: reserved, TXRing: int(k.tx.available()) + unpublished,
		Held: len(k.sending), CompletionRing: int(k.completion.untaken()),
	}
	if sent != wantSent || sent.Sum() != testFrames {
		t.Fatalf("step %d: transmit frames %+v, want %+v", step, sent, wantSent)
	}
}

func checkConservation(t testing.TB, c Conservation) {
	t.Helper()
	if c.Receive.Sum() != c.Receive.Frames || c.Receive.Held < 0 || c.Transmit.Sum() != c.Transmit.Frames || c.Transmit.Held < 0 {
		t.Errorf("frames are not conserved: %+v", c)
	}
}

// TestRingsWithAKernelThatRuns is for the race detector: the kernel is a goroutine that never waits for us.
func TestRingsWithAKernelThatRuns(t *testing.T) {
	forSeeds(t, func(t *testing.T, seed uint64, start uint32) {
		r, tx, k := newRings(seed, start)
		var lock sync.Mutex // Of the kernel's side, as xs->mutex: send is called by us, the rest by the goroutine.
		tx.send = func() syscall.Errno {
			lock.Lock()
			defer lock.Unlock()
			return k.send()
		}
		var stop atomic.Bool
		var running sync.WaitGroup
		running.Go(func() {
			for !stop.Load() {
				lock.Lock()
				k.receive()
				k.complete()
				lock.Unlock()
			}
		})
		delivered, committed := uint64(0), 0
		for deadline := time.Now().Add(patience); delivered < 3000 || committed < 3000; {
			if time.Now().After(deadline) {
				t.Fatalf("%d received, %d committed", delivered, committed)
			}
			r.receive(64, func(frame []byte) {
				delivered++
				if got := uint64(frame[0]) | uint64(frame[1])<<8; got != delivered&0xffff {
					t.Fatalf("packet %d, want %d", got, delivered)
				}
			})
			for range 16 {
				if frame := tx.reserve(); frame != nil {
					frame[0] = byte(committed)
					tx.commit(frame, 60)
					committed++
				}
			}
			tx.kick()
		}
		stop.Store(true)
		running.Wait()
		checkConservation(t, Conservation{Receive: r.where(), Transmit: tx.where()})
	})
}

// TestEveryErrno answers each error of the send call, with the number of calls that it is worth and nothing lost.
func TestEveryErrno(t *testing.T) {
	most := 1 + testFrames/kicksPerFrames
	for _, c := range [...]struct {
		name    string
		answers func(call int, k *fakeKernel) syscall.Errno
		calls   int
		count   func(KickErrors) uint64
	}{
		{"EAGAIN without progress", always(syscall.EAGAIN), 1, func(e KickErrors) uint64 { return e.Again }},
		{"EAGAIN after 32", takes(32, syscall.EAGAIN), 2, func(e KickErrors) uint64 { return e.Again }},
		{"EBUSY, one dropped", takes(1, syscall.EBUSY), most, func(e KickErrors) uint64 { return e.Busy }},
		{"EBUSY without end", always(syscall.EBUSY), most, func(e KickErrors) uint64 { return e.Busy }},
		{"EINTR without end", always(syscall.EINTR), most, func(e KickErrors) uint64 { return e.Interrupted }},
		{"ENOBUFS", always(syscall.ENOBUFS), 1, func(e KickErrors) uint64 { return e.NoBuffers }},
		{"ENOMEM", always(syscall.ENOMEM), 1, func(e KickErrors) uint64 { return e.NoBuffers }},
		{"ENETDOWN", always(syscall.ENETDOWN), 1, func(e KickErrors) uint64 { return e.Down }},
		{"ENXIO", always(syscall.ENXIO), 1, func(e KickErrors) uint64 { return e.Unbound }},
		{"EPERM", always(syscall.EPERM), 1, func(e KickErrors) uint64 { return e.Other }},
		{"ENOTSOCK", always(syscall.ENOTSOCK), 1, func(e KickErrors) uint64 { return e.Other }},
		{"zero, taking none", always(0), 1, func(KickErrors) uint64 { return 1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, tx, k := newRings(1, nearTheEnd)
			calls := 0
			tx.send = func() syscall.Errno {
				calls++
				return c.answers(calls, k)
			}
			for range 64 {
				tx.commit(tx.reserve(), 60)
			}
			tx.kick()
			counted := stats(r.counters, tx.counters)
			if calls != c.calls || counted.Kicks != uint64(calls) || c.count(counted.KickErrors) == 0 {
				t.Errorf("%d calls, want %d; %+v", calls, c.calls, counted)
			}
			if tx.pending.Load() != (tx.tx.untaken() > 0) {
				t.Error("pending is wrong")
			}
			checkConservation(t, Conservation{Receive: r.where(), Transmit: tx.where()})
		})
	}
}

func always(errno syscall.Errno) func(int, *fakeKernel) syscall.Errno {
	return func(int, *fakeKernel) syscall.Errno { return errno }
}

// takes is a kernel that takes n frames a call and says errno, until none is left.
func takes(n uint32, errno syscall.Errno) func(int, *fakeKernel) syscall.Errno {
	return func(_ int, k *fakeKernel) syscall.Errno {
		for range min(n, k.tx.available()) {
			k.sending = append(k.sending, k.tx.take())
		}
		k.tx.release()
		return errno
	}
}

// TestNoWakeupNoCall sends without a system call while the kernel polls the ring by itself.
func TestNoWakeupNoCall(t *testing.T) {
	_, tx, _ := newRings(1, 0)
	atomic.StoreUint32(tx.tx.flags, 0)
	tx.send = func() syscall.Errno { t.Error("called"); return 0 }
	tx.commit(tx.reserve(), 60)
	tx.kick()
	if !tx.pending.Load() {
		t.Error("the frame is on the ring, and pending says that none is")
	}
}

// TestBadDescriptors come from a broken kernel: counted, never delivered, never a panic.
func TestBadDescriptors(t *testing.T) {
	r, tx, k := newRings(1, 0)
	for _, d := range [...]descriptor{
		{address: testFrames * testFrameSize, length: 60},                   // A transmit frame.
		{address: 1 << 60, length: 60},                                      // Outside the umem.
		{address: testFrameSize - 1, length: 2},                             // Into the next frame.
		{address: ^uint64(0), length: 60}, {address: 0, length: ^uint32(0)}, // Overflow.
	} {
		k.fill.take()
		k.rx.put(d)
	}
	k.rx.publish()
	if n := r.receive(64, func([]byte) { t.Error("delivered") }); n != 5 {
		t.Errorf("%d received, want 5", n)
	}
	for _, address := range [...]uint64{0, 1 << 60, testFrames * testFrameSize} { // The last is free.
		k.completion.put(address)
	}
	k.completion.publish()
	tx.given = 3 // As if they had been.
	tx.reap()
	if got := stats(r.counters, tx.counters).BadDescriptors; got != 8 || r.lost != 5 || tx.lost != 3 {
		t.Errorf("%d bad, %d and %d lost", got, r.lost, tx.lost)
	}
	atomic.StoreUint32(r.rx.producer, r.rx.next+testFrames+1) // More than the ring has.
	if n := r.receive(64, func([]byte) { t.Error("delivered") }); n != 0 {
		t.Errorf("%d received, want 0", n)
	}
}

// TestDeliverPanics loses no frame and delivers none twice.
func TestDeliverPanics(t *testing.T) {
	r, _, k := newRings(1, nearTheEnd)
	for range 10 {
		k.rx.put(descriptor{address: k.fill.take(), length: 60})
	}
	k.fill.release()
	k.rx.publish()
	func() {
		defer func() { _ = recover() }()
		r.receive(64, func([]byte) { panic("a bug of the receiver's") })
	}()
	if n := r.receive(64, func([]byte) {}); n != 9 {
		t.Errorf("%d more, want 9", n)
	}
	if got := r.where(); got.Sum() != testFrames || got.FillRing != testFrames {
		t.Errorf("%+v", got)
	}
}

// TestMisuse panics: these are faults of the caller's, which would corrupt somebody else's frame.
func TestMisuse(t *testing.T) {
	_, tx, _ := newRings(1, 0)
	frame := tx.reserve()
	for name, f := range map[string]func(){
		"nothing":       func() { tx.commit(frame, 0) },
		"too much":      func() { tx.commit(frame, testFrameSize+1) },
		"not a frame":   func() { tx.discard(make([]byte, 10)) },
		"a free frame":  func() { tx.discard(tx.umem[tx.at(50):]) },
		"another's":     func() { tx.commit(tx.umem, 60) },
		"a second time": func() { tx.discard(frame); tx.discard(frame) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	r, tx, k := newRings(1, nearTheEnd)
	k.sending, k.sent = make([]descriptor, 0, 2*testFrames), make([]byte, 0, 1<<20)
	tx.send = func() syscall.Errno {
		for range tx.tx.untaken() {
			k.completion.put(k.tx.take().address)
		}
		k.tx.release()
		k.completion.publish()
		return 0
	}
	deliver := func([]byte) {
		frame := tx.reserve()
		tx.commit(frame, 60)
	}
	got := testing.AllocsPerRun(1000, func() {
		for range 32 {
			k.rx.put(descriptor{address: k.fill.take(), length: 60})
		}
		k.fill.release()
		k.rx.publish()
		r.receive(64, deliver)
		tx.kick()
	})
	if got != 0 {
		t.Errorf("%v allocations for 32 frames", got)
	}
}
