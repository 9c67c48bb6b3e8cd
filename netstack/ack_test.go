package netstack

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
)

// readAll reads what a connection has.
func (w *wire) readAll(conn broker.Conn, n int) {
	w.t.Helper()
	for n > 0 {
		w.until(func(e broker.Event) bool { return e.Kind&broker.Readable != 0 })
		got, err := conn.Read(w.plane.Buffer())
		if err != nil {
			w.t.Fatal(err)
		}
		n -= got
	}
}

// TestACKLeavesWithTheTurn: the broker reads and says nothing.
func TestACKLeavesWithTheTurn(t *testing.T) {
	w := newWireV4(t, testConfig())
	conn := w.connect()
	w.listen()
	w.send(tcpAck, ask())
	w.until(func(e broker.Event) bool { return e.Kind == broker.Readable })
	if got := w.listen(); len(got) != 0 {
		t.Fatalf("before the end of the turn the plane sent %+v", got)
	}
	if _, err := conn.Read(w.plane.Buffer()); err != nil {
		t.Fatal(err)
	}
	w.plane.Flush()
	got := w.listen()
	if len(got) != 1 || got[0].flags != tcpAck || got[0].ack != w.seq || got[0].payload != 0 {
		t.Errorf("at the end of the turn the plane sent %+v; want one ACK of %d", got, w.seq)
	}
}

// TestACKSpansTurns: within AckDelay small segments are acknowledged together, two full segments at once, and data carries
// what is held.
func TestACKSpansTurns(t *testing.T) {
	w := newWireV4(t, testConfig())
	w.plane.link.ackDelay = time.Hour
	conn := w.connect()
	w.exchange(conn, ask(), answer())
	w.put(w.frame(tcpAck, nil))
	w.quiet()
	w.listen()
	for turn := range 10 {
		w.send(tcpAck, ask())
		w.readAll(conn, len(ask()))
		w.plane.Flush()
		if got := w.listen(); len(got) != 0 {
			t.Fatalf("turn %d: the plane sent %+v", turn, got)
		}
	}
	w.exchange(conn, ask(), answer())
	w.quiet()
	if got := w.listen(); len(got) > 1 || len(got) == 1 && got[0].payload == 0 {
		t.Errorf("beside the answer the plane sent %+v", got)
	}
	w.put(w.frame(tcpAck, nil))
	w.quiet()
	w.listen()
	full := make([]byte, 1460)
	for range 2 {
		w.send(tcpAck, full)
		w.readAll(conn, len(full))
		w.plane.Flush()
	}
	if got := w.listen(); len(got) != 1 || got[0].flags != tcpAck || got[0].ack != w.seq {
		t.Errorf("after two full segments the plane sent %+v; want one ACK of %d", got, w.seq)
	}
}

// TestACKLeavesByItself: AckDelay is over while the plane sleeps.
func TestACKLeavesByItself(t *testing.T) {
	config := testConfig()
	config.TCP.AckDelay = 5 * time.Millisecond
	w := newWireV4(t, config)
	conn := w.connect()
	w.send(tcpAck, ask())
	w.readAll(conn, len(ask()))
	w.plane.Flush()
	began := time.Now()
	for time.Since(began) < patience {
		if _, err := w.plane.Wait(20 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
		for _, h := range w.listen() {
			if h.flags == tcpAck && h.ack == w.seq {
				return
			}
		}
	}
	t.Error("the ACK never came")
}

// TestACKLeavesWithoutTheBroker: nothing comes of the segment, so that Wait goes on sleeping.
func TestACKLeavesWithoutTheBroker(t *testing.T) {
	w := newWireV4(t, testConfig())
	conn := w.connect()
	conn.Pause()
	w.send(tcpAck, ask())
	var heardIt atomic.Bool
	var group sync.WaitGroup
	group.Go(func() {
		for !heardIt.Load() {
			_ = w.end.Wait(patience) // It fails at the next Receive, if at all.
			for _, h := range w.listen() {
				if h.flags == tcpAck && h.ack == w.seq {
					heardIt.Store(true)
				}
			}
		}
		w.plane.Wake()
	})
	if _, err := w.plane.Wait(patience); err != nil {
		t.Fatal(err)
	}
	if !heardIt.Load() {
		t.Error("the ACK has waited as long as Wait")
	}
	group.Wait()
}

// TestACKsThatAreNotHeld sends what must be answered at once, with the turn still open.
func TestACKsThatAreNotHeld(t *testing.T) {
	full := make([]byte, 1460)
	for name, send := range map[string]func(w *wire){
		"duplicate": func(w *wire) {
			w.seq += 100 // A hole.
			w.send(tcpAck, ask())
			w.seq -= 100 + uint32(len(ask()))
		},
		"old segment": func(w *wire) {
			w.seq -= 10
			w.put(w.frame(tcpAck, ask()[:10]))
			w.seq += 10
		},
		"two full segments": func(w *wire) {
			w.send(tcpAck, full)
			w.send(tcpAck, full)
		},
		"keep-alive": func(w *wire) {
			w.seq--
			w.put(w.frame(tcpAck, nil))
			w.seq++
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, start := newWireV4(t, testConfig()), time.Now()
			conn := w.connect()
			w.exchange(conn, ask(), answer())
			w.put(w.frame(tcpAck, nil))
			w.quiet()
			before := w.plane.Counters()
			send(w)
			for after := before; after.FramesOut == before.FramesOut; after = w.plane.Counters() {
				if w.plane.turn(); time.Since(start) > patience { // The first half of Wait: nothing is flushed.
					t.Fatal("the plane says nothing before the end of the turn")
				}
			}
			if after := w.plane.Counters(); name != "two full segments" && after.HeldACKs != before.HeldACKs {
				t.Errorf("%d ACKs were held", after.HeldACKs-before.HeldACKs)
			}
			w.plane.Flush()
		})
	}
}

// TestWindowUpdateIsNotHeld fills the window, reads, and looks before the end of the turn.
func TestWindowUpdateIsNotHeld(t *testing.T) {
	w := newWireV4(t, testConfig())
	conn := w.connect()
	chunk, sent := make([]byte, 1460), 0
	for isOpen := true; isOpen && sent < 200_000; sent += len(chunk) {
		w.send(tcpAck, chunk)
		for isHeard, start := false, time.Now(); !isHeard && time.Since(start) < patience; {
			w.turn()
			w.plane.Flush()
			for _, h := range w.listen() {
				isHeard, isOpen = isHeard || h.ack == w.seq, int(h.window) >= len(chunk)
			}
		}
	}
	w.quiet()
	if int(w.plane.Counters().FramesOut) == 0 || sent > 100_000 {
		t.Fatalf("the window is still open after %d bytes", sent)
	}
	w.until(func(e broker.Event) bool { return e.Kind&broker.Readable != 0 })
	before := w.plane.Counters().FramesOut
	if _, err := conn.Read(w.plane.Buffer()); err != nil {
		t.Fatal(err)
	}
	if got := w.plane.Counters().FramesOut; got != before+1 {
		t.Fatalf("having read, the plane has sent %d frames; want a window update", got-before)
	}
	w.plane.Flush()
	if got := w.listen(); len(got) != 1 || got[0].window < 1460 {
		t.Errorf("having read, the plane has sent %+v; want a window update", got)
	}
}

// TestHeldACKOfClosedConnection: the RST takes the place of the ACK.
func TestHeldACKOfClosedConnection(t *testing.T) {
	w := newWireV4(t, testConfig())
	conn := w.connect()
	w.send(tcpAck, ask())
	w.until(func(e broker.Event) bool { return e.Kind == broker.Readable })
	conn.Close() // With unread bytes, and nothing written: RST.
	w.plane.Flush()
	got := w.listen()
	if len(got) != 1 || got[0].flags&tcpRst == 0 {
		t.Errorf("the plane has sent %+v; want RST", got)
	}
	if sum := w.plane.Counters(); sum.SupersededACKs != 1 || sum.Connections != 0 {
		t.Errorf("%d ACKs superseded, %d connections; want 1, 0", sum.SupersededACKs, sum.Connections)
	}
}
