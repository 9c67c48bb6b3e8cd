package netstack

import (
	"errors"
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

// readHeld reads n bytes within one turn, and has the stack hold their ACK before the turn ends: a stack that acknowledges after
// the turn, which its goroutine may, is not held back.
func (w *wire) readHeld(conn broker.Conn, n int) {
	w.t.Helper()
	before := w.plane.Counters().HeldACKs
	for start := time.Now(); n > 0 || w.plane.Counters().HeldACKs == before; {
		if w.plane.turn(); time.Since(start) > patience { // The first half of Wait: nothing is flushed.
			w.t.Fatalf("%d bytes are still to come, and no ACK is held", n)
		}
		got, err := conn.Read(w.plane.Buffer())
		if err != nil && !errors.Is(err, broker.ErrWouldBlock) {
			w.t.Fatal(err)
		}
		n -= got
	}
	w.plane.Flush()
}

// TestACKLeavesWithTheTurn: the broker reads and says nothing.
func TestACKLeavesWithTheTurn(t *testing.T) {
	w := newWireV4(t, testConfig())
	conn := w.connect()
	w.listen()
	w.send(tcpAck, ask())
	for start := time.Now(); w.plane.Counters().HeldACKs == 0; {
		if w.plane.turn(); time.Since(start) > patience { // The first half of Wait: nothing is flushed.
			t.Fatal("no ACK is held")
		}
	}
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

// TestACKSpansTurns: within AckDelay a few small segments are acknowledged together, two full segments at once, and data carries
// what is held.
func TestACKSpansTurns(t *testing.T) {
	w := newWireV4(t, testConfig())
	w.plane.link.ackDelay = time.Hour
	conn := w.connect()
	w.exchange(conn, ask(), answer())
	w.put(w.frame(tcpAck, nil))
	w.quiet()
	w.listen()
	for turn := range heldMessages - 1 {
		w.send(tcpAck, ask())
		w.readHeld(conn, len(ask()))
		if got := w.listen(); len(got) != 0 {
			t.Fatalf("turn %d: the plane sent %+v", turn, got)
		}
	}
	w.exchange(conn, ask(), answer())
	if got := w.quiet(); len(got) > 1 || len(got) == 1 && got[0].payload == 0 {
		t.Errorf("beside the answer the plane sent %+v", got)
	}
	w.put(w.frame(tcpAck, nil))
	w.quiet()
	w.listen()
	for what, sizes := range map[string][]int{"two full segments": {1460, 1460}, "a few segments": {1, 1, 1, 1}} {
		last := len(sizes) - 1
		for _, bytes := range sizes[:last] {
			w.send(tcpAck, make([]byte, bytes))
			w.readHeld(conn, bytes)
		}
		w.send(tcpAck, make([]byte, sizes[last]))
		w.readAll(conn, sizes[last])
		w.plane.Flush()
		if got := w.quiet(); len(got) != 1 || got[0].flags != tcpAck || got[0].ack != w.seq {
			t.Errorf("after %s the plane sent %+v; want one ACK of %d", what, got, w.seq)
		}
	}
}

// TestPatience: the ACKs of a flow wait for long only while the plane is busy, and only if its remote was seen not to wait for them.
// A remote that was taken for one that does not wait, and does, costs one long wait, and twice as much proof the next time.
func TestPatience(t *testing.T) {
	f := &flow{handshake: time.Millisecond}
	now := time.Second
	released := func(until time.Duration) {
		f.releasedAt = now
		now += until
		f.judge(now)
		f.judge(now) // The second segment after an ACK tells nothing.
	}
	for needed := uint32(calmMin); needed <= 4*calmMin; needed *= 2 {
		for i := range needed {
			if f.isPatient() {
				t.Fatalf("patient after %d of %d releases", i, needed)
			}
			released(promptTime + 1)
		}
		if !f.isPatient() {
			t.Fatalf("impatient after %d releases", needed)
		}
		released(promptTime)
		if f.isPatient() {
			t.Fatal("patient with a remote that waits")
		}
	}
	for range 64 {
		f.calm = calmMin << relapsesMax
		released(0)
	}
	if f.relapses != relapsesMax {
		t.Errorf("%d relapses", f.relapses)
	}
	f = &flow{handshake: time.Second}
	for range 100 {
		released(100 * time.Millisecond)
	}
	if f.isPatient() {
		t.Error("patient with a remote that may be far")
	}
}

func flowOf(c broker.Conn) *flow { return c.(*conn).flow }

// TestBusyPlaneHoldsLonger: the ACK of a patient flow outlasts AckDelay while the plane is busy, and no other does.
func TestBusyPlaneHoldsLonger(t *testing.T) {
	for _, row := range []struct{ isBusy, isPatient bool }{{false, false}, {false, true}, {true, false}, {true, true}} {
		w := newWireV4(t, testConfig())
		conn := w.connect()
		l := w.plane.link
		l.mu.Lock()
		l.watchedFrom = time.Hour // The plane does not look again whether it is busy.
		l.isBusy = row.isBusy
		if row.isPatient {
			flowOf(conn).calm = calmMin
		}
		l.mu.Unlock()
		w.send(tcpAck, ask())
		for start := time.Now(); ; {
			w.plane.turn() // The clock stands still from here on; the stack may have worked in the turn before.
			l.mu.Lock()
			f := flowOf(conn)
			held, left := f.held != nil, f.due-l.clock.elapsed()
			l.mu.Unlock()
			if want := map[bool]time.Duration{true: patientDelay, false: max(0, l.ackDelay)}[row.isBusy && row.isPatient]; held && (left > want || want > 0 && left < want/2) {
				t.Errorf("%+v: the ACK is held for %v, want %v", row, left, want)
			}
			if held {
				break
			}
			if time.Since(start) > patience {
				t.Fatal("no ACK is held")
			}
		}
		w.plane.Flush()
		w.untilHeard(func(h heard) bool { return h.ack == w.seq })
	}
}

// TestBusy: a plane that rests for most of the time is not busy.
func TestBusy(t *testing.T) {
	w := newWireV4(t, testConfig())
	l := w.plane.link
	for _, row := range []struct {
		rest time.Duration
		busy bool
	}{{0, true}, {busyWindow/busyShare + time.Millisecond, false}, {busyWindow/busyShare - time.Millisecond, true}} {
		l.clock.base = l.clock.base.Add(-busyWindow)
		l.beginTurn() // The window as it was before.
		l.mu.Lock()
		l.watchedFrom, l.restTime = l.clock.elapsed()-busyWindow, row.rest
		l.mu.Unlock()
		l.beginTurn()
		if l.isBusy != row.busy {
			t.Errorf("after a rest of %v of %v: busy %v", row.rest, busyWindow, l.isBusy)
		}
		l.endTurn()
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
