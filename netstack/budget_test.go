package netstack

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
)

// budgetConfig leaves little to slow readers.
func budgetConfig(bytes int64) Config {
	config := testConfig()
	config.SendMemoryBytes = bytes
	return config
}

// stuff writes messages to a connection until it takes no more, and returns how many bytes it took.
func stuff(t *testing.T, c broker.Conn, bytes int) (total int) {
	t.Helper()
	message := [][]byte{make([]byte, bytes)}
	for n := bytes; n == bytes; total += n {
		c.(*conn).plane.ration.written = 0 // as if each Write had a turn
		var err error
		if n, err = c.Write(message); err != nil {
			t.Fatal(err)
		}
	}
	return total
}

// TestBudgetBounds: however many peers acknowledge nothing, what they pin stays within the budget and each one's minimum.
// The count is no less than what the heap really takes, and every connection gets something.
func TestBudgetBounds(t *testing.T) {
	const connections, budgetBytes = 1000, 8 << 20
	const most = budgetBytes + connections*(writeMin+segmentBytes)
	for _, bytes := range []int{20, 1000, 20_000} {
		t.Run(fmt.Sprintf("%d bytes", bytes), func(t *testing.T) {
			w, conns := fanWith(t, budgetConfig(budgetBytes), connections)
			before, _ := memory(t)
			least := 1 << 30
			for i, c := range conns {
				least = min(least, stuff(t, c, bytes))
				if i%50 == 0 { // What is sent leaves the cable.
					w.plane.Flush()
					w.listen()
				}
			}
			w.plane.Flush()
			w.listen()
			after, _ := memory(t)
			sum := w.plane.Counters()
			t.Logf("%d bytes are counted, %d more of the heap are taken; the least of a connection is %d", sum.PinnedBytes, after-before, least)
			if sum.PinnedBytes > most {
				t.Errorf("%d bytes are pinned; want at most %d", sum.PinnedBytes, most)
			}
			if after-before > most && !raceEnabled {
				t.Errorf("the heap has grown by %d bytes; want at most %d", after-before, most)
			}
			if least < min(bytes, writeMin) || sum.SendLimited == 0 {
				t.Errorf("a connection took %d bytes; %d Writes were limited", least, sum.SendLimited)
			}
		})
	}
}

// TestBudgetIsFreed: what is acknowledged leaves the budget, in parts and in whole, and so do connections that end.
func TestBudgetIsFreed(t *testing.T) {
	w := newWireV4(t, testConfig())
	conn := w.connect()
	b := &w.plane.budget
	for range 100 {
		if n, err := conn.Write([][]byte{make([]byte, 700)}); n != 700 || err != nil {
			break
		}
	}
	full := b.pinnedBytes
	w.plane.Flush()
	half := w.listen()[0]
	w.ack = half.seq + uint32(half.payload)
	w.send(tcpAck, nil)
	w.turn()
	if part := b.pinnedBytes; part >= full || part < full*9/10 {
		t.Errorf("%d bytes were pinned, and %d when one of many segments is acknowledged", full, part)
	}
	for deadline := time.Now().Add(patience); b.pinnedBytes > 0; w.turn() {
		if w.acknowledge(); time.Now().After(deadline) {
			t.Fatalf("%d bytes are pinned although all is acknowledged", b.pinnedBytes)
		}
	}
	stuff(t, conn, 1000)
	conn.Close()
	w.plane.Flush()
	w.send(tcpRst, nil)
	for deadline := time.Now().Add(patience); b.pinnedBytes > 0; w.turn() {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are pinned by a connection that was reset", b.pinnedBytes)
		}
	}
}

// acknowledgeAll has the peer of a connection acknowledge everything, and returns what happens meanwhile.
func (w *wire) acknowledgeAll(c broker.Conn) (events []broker.Event) {
	w.t.Helper()
	f, written := c.(*conn).flow, c.(*conn).written
	for deadline := time.Now().Add(patience); f.unacknowledged > 0; {
		w.plane.Flush()
		w.listen()
		w.plane.link.mu.Lock()
		w.seq, w.ack = f.acked, f.sent
		w.plane.link.mu.Unlock()
		w.send(tcpAck, nil)
		events = append(events, w.turn()...)
		if time.Now().After(deadline) {
			w.t.Fatalf("%d of %d bytes are not acknowledged", f.unacknowledged, written)
		}
	}
	return append(events, w.turn()...)
}

// TestStuckAreReset: while room is scarce, connections whose peers acknowledge nothing are reset, those that pin most first,
// until there is room again. One that acknowledges lives on, and is Writable again.
func TestStuckAreReset(t *testing.T) {
	const connections = 200
	w, conns := fanWith(t, budgetConfig(4<<20), connections)
	for _, c := range conns {
		stuff(t, c, 1000)
	}
	w.plane.Flush()
	w.listen()
	p, alive := w.plane, conns[connections-1]
	w.local = alive.RemoteAddr()
	reset := map[broker.Conn]bool{}
	note := func(events []broker.Event) (writable bool) {
		for _, e := range events {
			if e.Kind&broker.Hangup != 0 {
				if reset[e.Conn] = true; !errors.Is(e.Err, errStuck) {
					t.Errorf("a stuck connection ends with %v", e.Err)
				}
				e.Conn.Close()
			}
			writable = writable || e.Conn == alive && e.Kind&broker.Writable != 0
		}
		return writable
	}
	writable := 0
	for range stuckSweepsMax + 2 {
		// The last of the connections acknowledges all that it has got, and gets more.
		if note(w.acknowledgeAll(alive)) {
			if writable++; stuff(t, alive, 100) == 0 {
				t.Error("a Write when Writable takes nothing")
			}
		}
		p.sweep(p.budget.sweepAt)
	}
	note(w.turn())
	sum := p.Counters()
	t.Logf("%d of %d connections were reset, %d Writes limited, %d bytes pinned", sum.StuckReset, connections, sum.SendLimited, p.budget.pinnedBytes)
	if len(reset) == 0 || len(reset) >= connections/2 || uint64(len(reset)) != sum.StuckReset {
		t.Errorf("%d connections were reset, the counter says %d; want some and fewer than half", len(reset), sum.StuckReset)
	}
	if reset[alive] || writable == 0 {
		t.Errorf("the connection that acknowledges was reset: %v; it was Writable %d times", reset[alive], writable)
	}
	w.acknowledgeAll(alive)
	if took := stuff(t, alive, 1000); p.budget.isScarce || took < 30_000 { // Most of a send buffer.
		t.Errorf("there is no room again: %d bytes are taken, %d of %d are pinned", took, p.budget.pinnedBytes, p.budget.maxBytes)
	}
}
