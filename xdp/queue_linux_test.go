package xdp

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// device is netstack.Device, which this package may not import.
type device interface {
	Receive(max int, deliver func(frame []byte)) int
	Reserve() []byte
	Commit(frame []byte, n int)
	Discard(frame []byte)
	Kick()
	Wait(timeout time.Duration) error
	Wake()
	Buffer() []byte
	MTU() int
	HardwareAddr() [6]byte
}

var _ device = (*Queue)(nil)

// bareQueue is a Queue on rings in plain memory, which nobody fills: only Wake and timeouts end its Wait.
func bareQueue(t *testing.T) *Queue {
	t.Helper()
	q := must(newQueue(Config{}, 0, nil))(t)
	t.Cleanup(func() { q.poll.Close() })
	r, tx, _ := newRings(1, 0)
	s := &socket{receiver: *r, transmitter: *tx}
	q.rx, q.tx, q.newest = s, s, s
	return q
}

// TestNoWakeIsLost has a lost wake hang: each Wake must end a Wait that would otherwise last for ever, before the next comes.
func TestNoWakeIsLost(t *testing.T) {
	q := bareQueue(t)
	const rounds = 5000
	var asked, answered atomic.Uint64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for answered.Load() < rounds {
			timeout := time.Duration(-1)
			if rand.IntN(8) == 0 {
				timeout = time.Duration(rand.IntN(20)) * time.Microsecond
			}
			if err := q.Wait(timeout); err != nil {
				t.Error(err)
				return
			}
			answered.Store(asked.Load())
		}
	}()
	for round := uint64(1); round <= rounds; round++ {
		asked.Store(round)
		q.Wake()
		for lost := time.Now().Add(patience); answered.Load() < round; runtime.Gosched() {
			if time.Now().After(lost) {
				t.Fatalf("round %d: the wake is lost", round)
			}
		}
	}
	<-done
}

// TestManyWake has several goroutines wake at a time.
func TestManyWake(t *testing.T) {
	q := bareQueue(t)
	var work atomic.Int64
	var wakers sync.WaitGroup
	const each, goroutines = 5000, 4
	for range goroutines {
		wakers.Go(func() {
			for range each {
				work.Add(1)
				q.Wake()
			}
		})
	}
	seen := int64(0)
	for seen < each*goroutines {
		ok(t, q.Wait(-1))
		seen = work.Load()
	}
	wakers.Wait()
}

func TestWaitTimesOutAndCloses(t *testing.T) {
	q := bareQueue(t)
	ok(t, q.Wait(0))
	ok(t, q.Wait(time.Microsecond))
	q.Wake()
	ok(t, q.Wait(-1))
	ended := make(chan error)
	go func() { ended <- q.Wait(-1) }()
	q.closed.Store(true)
	q.Wake()
	if err := <-ended; err != nil && !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := q.Wait(-1); !errors.Is(err, ErrClosed) {
		t.Errorf("%v, want %v", err, ErrClosed)
	}
}

func TestWaitDoesNotAllocate(t *testing.T) {
	q := bareQueue(t)
	got := testing.AllocsPerRun(1000, func() {
		q.Wake()
		_ = q.Wait(-1)
		_ = q.Wait(time.Nanosecond)
	})
	if got != 0 {
		t.Errorf("%v allocations", got)
	}
}

// TestWaitSendsWhatIsPending: the kernel takes more only when it is asked.
func TestWaitSendsWhatIsPending(t *testing.T) {
	l := newLab(t, 1)
	i := l.open(l.config())
	q := i.Queues()[0]
	frame := q.Reserve()
	q.tx.commit(frame, copy(frame, nearFrame("pending")))
	q.tx.tx.publish() // As a Kick that the kernel has answered with EAGAIN.
	q.pending.Store(true)
	ok(t, q.Wait(-1))
	l.peer.receive()
	q.Kick()
	if q.pending.Load() {
		t.Error("still pending")
	}
}

func TestManyQueues(t *testing.T) {
	l := newLab(t, 4)
	i := l.open(l.config())
	if len(i.Queues()) != 4 {
		t.Fatalf("%d queues, want 4", len(i.Queues()))
	}
	exchangeOnAny(t, l, i, 1)
	for n, q := range i.Queues() {
		if q.Number() != n {
			t.Errorf("queue %d is at %d", q.Number(), n)
		}
	}
}

func TestOneOfManyQueues(t *testing.T) {
	l := newLab(t, 4)
	c := l.config()
	c.Queues = []int{2}
	i := l.open(c)
	if len(i.Queues()) != 1 || i.Queues()[0].Number() != 2 {
		t.Fatalf("%v", i.Queues())
	}
	sendNear(t, i.Queues()[0], "from queue 2")
	l.peer.receive()
}

// BenchmarkEcho has both ends of a veth pair in this package: the far end keeps frames under way, the near end sends each back.
func BenchmarkEcho(b *testing.B) {
	for _, underWay := range [...]int{1, 16, 64, 256} {
		b.Run(map[int]string{1: "1", 16: "16", 64: "64", 256: "256"}[underWay], func(b *testing.B) { echo(b, underWay) })
	}
}

func echo(b *testing.B, underWay int) {
	l := newLab(b, 1)
	c := l.config()
	c.ReceiveFrames, c.TransmitFrames = 0, 0 // The defaults.
	near := l.open(c).Queues()[0]
	var far *Queue
	c.Interface = farName
	l.inFar(func() { far = l.open(c).Queues()[0] })
	var stop atomic.Bool
	var running sync.WaitGroup
	running.Go(func() {
		for !stop.Load() {
			n := near.Receive(64, func(frame []byte) {
				if out := near.Reserve(); out != nil {
					n := copy(out, frame)
					swap(out)
					near.Commit(out, n)
				}
			})
			if n > 0 {
				near.Kick()
			} else if near.Wait(-1) != nil {
				return
			}
		}
	})
	nearMAC, farMAC := near.HardwareAddr(), far.HardwareAddr()
	frame := segment(farMAC[:], nearMAC[:], farAddress, nearAddress, 1)
	binary.BigEndian.PutUint16(frame[34:], steeredPort) // The source port: the answer is steered, too.
	sent, received := 0, 0
	b.ResetTimer()
	for received < b.N {
		for sent < b.N && sent-received < underWay {
			out := far.Reserve()
			if out == nil {
				break
			}
			far.Commit(out, copy(out, frame))
			sent++
		}
		far.Kick()
		if n := far.Receive(64, func([]byte) {}); n > 0 {
			received += n
		} else if err := far.Wait(10 * time.Second); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	stop.Store(true)
	near.Wake()
	running.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "echoes/s")
	s := near.Stats()
	b.ReportMetric(float64(s.Kicks)/float64(b.N), "kicks/echo")
	b.ReportMetric(float64(s.Waits)/float64(b.N), "waits/echo")
}

// swap exchanges the Ethernet and IPv4 addresses; the ports are equal.
func swap(frame []byte) {
	var kept [6]byte
	copy(kept[:], frame[:6])
	copy(frame[:6], frame[6:12])
	copy(frame[6:12], kept[:])
	copy(kept[:4], frame[26:30])
	copy(frame[26:30], frame[30:34])
	copy(frame[30:34], kept[:4])
}

// TestWaitSleepsAfterWake: a deadline that stayed in the past would make a busy loop of every Wait that follows.
func TestWaitSleepsAfterWake(t *testing.T) {
	q := bareQueue(t)
	for range 3 {
		ok(t, q.Wait(time.Microsecond))
		q.Wake()
		ok(t, q.Wait(-1))
		var over atomic.Bool
		time.AfterFunc(10*time.Millisecond, func() {
			over.Store(true)
			q.Wake()
		})
		returns := 0
		for ; !over.Load(); returns++ {
			ok(t, q.Wait(-1))
		}
		if returns > 3 {
			t.Fatalf("Wait has returned %d times for one Wake", returns)
		}
	}
}
