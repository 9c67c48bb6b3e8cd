package netstack

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringmq/ringmq/netstack/cable"
)

// TestHandover has every segment of living connections arrive on any queue.
func TestHandover(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	const planes = 3
	var shift atomic.Uint32
	steer := byRemotePort(planes)
	c := cable.New(cable.Config{Queues: planes, Steer: func(frame []byte) int { return steer(frame) + int(shift.Load()) }})
	g := mustOpen(t, testConfig(), c)
	stop := serve(t, g.Planes())
	k := newClient(t, c)
	random := rand.New(rand.NewPCG(seed, seed))
	c.Tap(func(toNear bool, _ []byte) { // Under the cable's mutex.
		if toNear && random.IntN(4) == 0 {
			shift.Store(uint32(random.IntN(planes)))
		}
	})
	runTalks(t, k, seed)
	c.Tap(nil)
	stop()
	k.stop()
	sum := g.Counters()
	t.Logf("%+v", sum)
	if sum.HandedOver == 0 || sum.TakenOver > sum.HandedOver {
		t.Errorf("%d frames handed over, %d taken over", sum.HandedOver, sum.TakenOver)
	}
}

// TestInboxIsBounded: a plane that does not turn gets so many frames and no more.
func TestInboxIsBounded(t *testing.T) {
	var queue atomic.Uint32
	c := cable.New(cable.Config{Queues: 2, Steer: func([]byte) int { return int(queue.Load()) }})
	g := mustOpen(t, testConfig(), c)
	w := newWire(t, c, g.Planes()[0], clientAddrPort(), dialled(0))
	conn := w.connect()
	queue.Store(1)
	const more = 10
	for range inboxMax + more {
		w.put(w.frame(tcpAck, nil))
		if _, err := g.Planes()[1].Wait(0); err != nil {
			t.Fatal(err)
		}
	}
	sum := g.Counters()
	if sum.HandedOver != inboxMax || sum.HandoverDropped != more {
		t.Errorf("%d frames handed over, %d dropped; want %d, %d", sum.HandedOver, sum.HandoverDropped, inboxMax, more)
	}
	w.turn()
	if got := w.plane.Counters().TakenOver; got != inboxMax {
		t.Errorf("%d frames taken over; want %d", got, inboxMax)
	}
	queue.Store(0)
	// The ACKs count against the receive buffer until the stack's processor has seen them: as a client, send again.
	for start := time.Now(); ; w.plane.Flush() {
		w.put(w.frame(tcpAck, ask()))
		w.turn()
		if n, err := conn.Read(w.plane.Buffer()); n == len(ask()) && err == nil {
			return
		}
		if time.Since(start) > patience {
			t.Fatal("the connection is dead")
		}
	}
}

// TestHandoverOfICMP: errors quote a connection, but a NIC spreads them by the router's address.
func TestHandoverOfICMP(t *testing.T) {
	var queue atomic.Uint32
	c := cable.New(cable.Config{Queues: 2, Steer: func([]byte) int { return int(queue.Load()) }})
	g := mustOpen(t, testConfig(), c)
	w := newWire(t, c, g.Planes()[0], clientAddrPort(), dialled(0))
	conn := w.connect()
	if _, err := conn.Write([][]byte{make([]byte, 1400)}); err != nil {
		t.Fatal(err)
	}
	w.plane.Flush()
	first := w.untilHeard(func(h heard) bool { return h.payload > 1200 })
	queue.Store(1)
	w.put(w.tooBig(700, first.seq))
	if _, err := g.Planes()[1].Wait(0); err != nil {
		t.Fatal(err)
	}
	again := w.untilHeard(func(h heard) bool { return h.seq == first.seq && h.payload > 0 })
	if sum := g.Counters(); again.bytes > 700 || sum.TakenOver != 1 {
		t.Errorf("the segment is sent again with %d bytes; %d frames taken over", again.bytes, sum.TakenOver)
	}
}

// TestHandoverWakes: the owner sleeps when its frame arrives elsewhere.
func TestHandoverWakes(t *testing.T) {
	var queue atomic.Uint32
	c := cable.New(cable.Config{Queues: 2, Steer: func([]byte) int { return int(queue.Load()) }})
	g := mustOpen(t, testConfig(), c)
	w := newWire(t, c, g.Planes()[0], clientAddrPort(), dialled(0))
	conn := w.connect()
	queue.Store(1)
	var group sync.WaitGroup
	halt := make(chan struct{})
	group.Go(func() {
		for {
			select {
			case <-halt:
				return
			default:
			}
			if _, err := g.Planes()[1].Wait(time.Second); err != nil {
				t.Error(err)
			}
			g.Planes()[1].Flush()
		}
	})
	for range 100 {
		w.exchange(conn, ask(), answer()) // Its Wait has patience, but not that much.
	}
	close(halt)
	g.Planes()[1].Wake()
	group.Wait()
	if got := g.Planes()[0].Counters().TakenOver; got < 100 {
		t.Errorf("%d frames taken over; want 100", got)
	}
}
