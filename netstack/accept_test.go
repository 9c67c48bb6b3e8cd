package netstack

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/netstack/cable"
)

// TestAcceptFailed: the event names the listener whose port it is.
func TestAcceptFailed(t *testing.T) {
	p := mustOpen(t, testConfig(), cable.New(cable.Config{})).Planes()[0]
	broken := p.listeners[1]
	broken.endpoint.Close() // Which nothing but StopAccepting does: the stack says now that it does not listen.
	failures := 0
	for range 3 {
		broken.NotifyEvent(connMask)
		events, err := p.Wait(0)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if failures++; e.Kind != broker.AcceptFailed || e.Listener != 1 || e.Err == nil {
				t.Errorf("event %+v; want AcceptFailed of listener 1", e)
			}
		}
		p.Flush()
	}
	if failures == 0 {
		t.Error("nobody tells that a listener has failed")
	}
}

// TestAcceptStorm: one Wait accepts no more than its share, and the next one the rest, without being told again.
func TestAcceptStorm(t *testing.T) {
	c := cable.New(cable.Config{})
	p := mustOpen(t, testConfig(), c).Planes()[0]
	k := newClient(t, c)
	const storm = 5 * acceptBatch
	var dialling sync.WaitGroup
	for range storm {
		dialling.Go(func() {
			if _, err := k.dial(dialled(0)); err != nil {
				t.Error(err)
			}
		})
	}
	accepted := 0
	for deadline := time.Now().Add(patience); accepted < storm && time.Now().Before(deadline); {
		events, err := p.Wait(patience / 10)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for i := range events {
			if events[i].Kind&broker.Accepted != 0 {
				n++
			}
		}
		if n > acceptBatch {
			t.Errorf("one Wait accepts %d connections; want %d at most", n, acceptBatch)
		}
		accepted += n
		p.Flush()
	}
	if accepted != storm {
		t.Errorf("%d of %d connections are accepted", accepted, storm)
	}
	dialling.Wait()
}

// TestAttemptsStandBack: a segment of a connection that came behind a burst of SYNs is not kept waiting by them, and each of them is
// answered all the same, also those for which there was no room to wait.
func TestAttemptsStandBack(t *testing.T) {
	for _, room := range []int{attemptsMax, 2 * attemptsPerTurn} {
		t.Run(fmt.Sprint(room), func(t *testing.T) { checkStandBack(t, room) })
	}
}

func checkStandBack(t *testing.T, room int) {
	w := newWireV4(t, testConfig())
	p, own := w.plane, w.local
	conn := w.connect()
	p.attempts = newAttempts(room)
	seq, ack := w.seq, w.ack
	const burst = receiveBatch - 1
	for i := range burst {
		w.local, w.seq, w.ack = netip.AddrPortFrom(own.Addr(), own.Port()+1+uint16(i)), 7, 0
		w.sendSyn()
	}
	w.local, w.seq, w.ack = own, seq, ack
	w.send(tcpAck, ask())
	if _, err := p.Wait(0); err != nil { // one turn, which takes all frames
		t.Fatal(err)
	}
	if left, most := p.attempts.count, min(burst, room); left < most-attemptsPerTurn || left >= most {
		t.Errorf("%d of %d SYNs wait when the segment behind them was taken", left, most)
	}
	w.readAll(conn, len(ask()))
	for deadline := time.Now().Add(patience); p.Counters().HalfOpen < burst && time.Now().Before(deadline); {
		if _, err := p.Wait(0); err != nil {
			t.Fatal(err)
		}
	}
	if n := p.Counters(); n.HalfOpen != burst || p.attempts.count != 0 {
		t.Errorf("%d of %d handshakes are under way, %d SYNs wait", n.HalfOpen, burst, p.attempts.count)
	}
}

// TestAttempts: a ring of frames that keeps their order, and refuses what does not fit.
func TestAttempts(t *testing.T) {
	a := newAttempts(attemptsMax)
	if a.put(make([]byte, attemptBytes+1)) {
		t.Error("a frame that is too long is taken")
	}
	next, oldest := 0, 0
	for range 3 {
		for a.put(binary.BigEndian.AppendUint32(nil, uint32(next))) {
			next++
		}
		if next-oldest != attemptsMax {
			t.Fatalf("%d frames wait; want %d", next-oldest, attemptsMax)
		}
		for range attemptsMax - 3 {
			if got := binary.BigEndian.Uint32(a.take()); got != uint32(oldest) {
				t.Fatalf("frame %d comes instead of %d", got, oldest)
			}
			oldest++
		}
	}
}
