package netstack

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/netstack/cable"
)

// unreadConfig leaves little to what the broker does not read.
func unreadConfig(bytes int64) Config {
	config := testConfig()
	config.ReceiveMemoryBytes = bytes
	return config
}

// speaker is one of a wire's connections as its peer sees it.
type speaker struct {
	conn broker.Conn
	seq  uint32
}

// say sends so many segments of a connection, with a gap in front of the first if there is to be one.
func (s *speaker) say(w *wire, segments, bytes int, hasGap bool) {
	f := s.conn.(*conn).flow
	w.local, w.seq, w.ack = s.conn.RemoteAddr(), s.seq, f.sent
	if hasGap {
		w.seq++
	}
	payload := make([]byte, bytes)
	for i := range segments {
		w.send(tcpAck, payload)
		if i%receiveBatch == receiveBatch-1 {
			w.turn()
			w.plane.Flush()
			w.listen()
		}
	}
	s.seq = w.seq
	w.turn()
	w.plane.Flush()
	w.listen()
}

// await turns the plane until the stack has taken all that was said: the count knows it before.
func (s *speaker) await(w *wire) {
	w.t.Helper()
	f := s.conn.(*conn).flow
	for deadline := time.Now().Add(patience); ; w.turn() {
		if ack, _ := w.plane.lastAck(f); ack == s.seq {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatal("the stack does not acknowledge what was said")
		}
	}
}

// readAll reads what was said, with nothing said again.
func (s *speaker) readAll(w *wire, bytes int) {
	w.t.Helper()
	got := 0
	for deadline := time.Now().Add(patience); got < bytes; w.turn() {
		n, err := s.conn.Read(w.plane.Buffer())
		if got += n; err != nil && !errors.Is(err, broker.ErrWouldBlock) || time.Now().After(deadline) {
			w.t.Fatalf("a connection that is read gets %d of %d bytes, %v", got, bytes, err)
		}
	}
}

// TestUnreadBounds: however many connections are paused, and whatever their peers send, what they hold stays within the budget. The
// count is no less than what the heap really takes, and a connection that is read gets all its bytes at once.
func TestUnreadBounds(t *testing.T) {
	const connections, budgetBytes = 600, 8 << 20
	for _, row := range []struct {
		segments, bytes int
		hasGap          bool
	}{{128, 20, false}, {46, 985, false}, {46, 1400, false}, {46, 1400, true}, {128, 20, true}} {
		t.Run(fmt.Sprintf("%d segments of %d bytes, gap %v", row.segments, row.bytes, row.hasGap), func(t *testing.T) {
			w, conns := fanWith(t, unreadConfig(budgetBytes), connections)
			reader := speaker{conns[connections-1], 8}
			before, _ := memory(t)
			for i, c := range conns[:connections-1] {
				c.Pause()
				s := speaker{c, 8}
				s.say(w, row.segments, row.bytes, row.hasGap)
				if i%100 == 0 {
					reader.say(w, 3, 1400, false)
					reader.readAll(w, 3*1400)
				}
			}
			after, _ := memory(t)
			sum := w.plane.Counters()
			t.Logf("%d bytes are counted, %d more of the heap are taken; %d segments were dropped", sum.UnreadBytes, after-before, sum.ReceiveLimited)
			if sum.UnreadBytes > budgetBytes || sum.ReceiveLimited == 0 {
				t.Errorf("%d bytes are counted, %d segments were dropped; want at most %d, and some", sum.UnreadBytes, sum.ReceiveLimited, budgetBytes)
			}
			if after-before > int(sum.UnreadBytes)+connections*64 && !raceEnabled {
				t.Errorf("the heap has grown by %d bytes; want at most the %d that are counted", after-before, sum.UnreadBytes)
			}
		})
	}
}

// TestUnreadRoomIsTaken: connections that are not paused, and that fill the room with what nobody can read, keep nobody else from
// being heard.
func TestUnreadRoomIsTaken(t *testing.T) {
	const connections, segments, bytes = 40, 46, 1400
	for name, fill := range map[string]func(w *wire, s *speaker){
		"behind a gap": func(w *wire, s *speaker) { s.say(w, segments, bytes, true) },
		"damaged": func(w *wire, s *speaker) {
			for range segments {
				w.local, w.seq, w.ack = s.conn.RemoteAddr(), s.seq, s.conn.(*conn).flow.sent
				frame := w.frame(tcpAck, make([]byte, bytes))
				frame[len(frame)-1]++
				w.put(frame)
			}
			w.turn()
			w.plane.Flush()
			w.listen()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, conns := fanWith(t, unreadConfig(ReceiveMemoryMinBytes), connections)
			for _, c := range conns[1:] {
				fill(w, &speaker{c, 8})
			}
			if b := &w.plane.unread; b.hasRoom(0, 2*heapOfSegment(bytes), false) || b.bytes > b.maxBytes {
				t.Fatalf("%d of %d bytes are counted", b.bytes, b.maxBytes)
			}
			reader := speaker{conns[0], 8}
			for range 5 {
				reader.say(w, 1, bytes, false)
				reader.readAll(w, bytes)
			}
		})
	}
}

// TestUnreadIsFreed: what is read leaves the budget, in parts and in whole, and so do connections that end.
func TestUnreadIsFreed(t *testing.T) {
	w, conns := fan(t, 3)
	b := &w.plane.unread
	first, gap, last := speaker{conns[0], 8}, speaker{conns[1], 8}, speaker{conns[2], 8}
	read := func(c broker.Conn, n int) {
		t.Helper()
		if got, err := c.Read(w.plane.Buffer()[:n]); got != n || err != nil {
			t.Fatalf("Read = %d, %v; want %d", got, err, n)
		}
	}
	first.say(w, 1, 100, false)
	first.await(w)
	read(conns[0], 100)
	_, _ = conns[0].Read(w.plane.Buffer()) // Nothing is left: now it is known how far it was read.
	if b.bytes != 0 {
		t.Fatalf("%d bytes are counted when all is read", b.bytes)
	}
	first.say(w, 10, 1000, false)
	first.await(w)
	one := b.bytes
	read(conns[0], 5000)
	first.say(w, 10, 1000, false)
	first.await(w)
	if b.bytes != 2*one {
		t.Errorf("%d bytes are counted for 20 segments, %d for 10", b.bytes, one)
	}
	read(conns[0], 7000)
	if b.bytes != one {
		t.Errorf("%d bytes are counted when the first of two generations of %d is read", b.bytes, one)
	}
	read(conns[0], 8000)
	if b.bytes != 0 {
		t.Errorf("%d bytes are counted when all is read", b.bytes)
	}
	gap.say(w, 5, 1000, true)
	if n, err := conns[1].Read(w.plane.Buffer()); n != 0 || !errors.Is(err, broker.ErrWouldBlock) || b.bytes == 0 {
		t.Errorf("Read = %d, %v behind a gap, and %d bytes are counted", n, err, b.bytes)
	}
	last.say(w, 5, 1000, false)
	for _, c := range conns[1:] {
		if c.Close(); b.bytes > 0 && c == conns[2] {
			t.Errorf("%d bytes are counted of connections that are closed", b.bytes)
		}
	}
}

// TestUnreadSurvives: with hardly any room and most of the connections paused, no byte is lost, over a link that loses and
// reorders: what was dropped comes again.
func TestUnreadSurvives(t *testing.T) {
	const connections, bytes = 32, 96 << 10
	c := cable.New(cable.Config{})
	config := unreadConfig(ReceiveMemoryMinBytes)
	config.TCP.MinRTO = 5 * time.Millisecond
	p := mustOpen(t, config, c).Planes()[0]
	k := newClient(t, c)
	c.SetFaults(cable.Faults{Seed: 3, Loss: 0.01, Reorder: 0.01})
	failed := make(chan error, connections)
	for i := range connections {
		go func() { failed <- pour(k, uint64(i), bytes) }()
	}
	s := sink{plane: p, sums: map[broker.Conn]*poured{}}
	ended, limited := 0, false
	for deadline := time.Now().Add(talkPatience); ended < connections; {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d connections have sent all", ended, connections)
		}
		s.turn(t)
		sum := p.Counters()
		if sum.UnreadBytes > ReceiveMemoryMinBytes {
			t.Fatalf("%d bytes are counted", sum.UnreadBytes)
		}
		if !limited && sum.ReceiveLimited > 0 {
			limited = true
			s.resume()
		}
		select {
		case err := <-failed:
			if ended++; err != nil {
				t.Error(err)
			}
		default:
		}
	}
	for len(s.ended) < connections {
		s.turn(t)
	}
	t.Logf("%d segments were dropped", p.Counters().ReceiveLimited)
	if p.Counters().ReceiveLimited == 0 {
		t.Error("nothing was dropped")
	}
	for _, sum := range s.ended {
		if sum.got != bytes || sum.isWrong {
			t.Errorf("%d bytes came, wrong: %v; want %d", sum.got, sum.isWrong, bytes)
		}
	}
}

// pour sends random bytes, the first of which is the seed of the others.
func pour(k *client, seed uint64, bytes int) error {
	c, err := k.dial(dialled(0))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(talkPatience)); err != nil {
		return err
	}
	b, random := make([]byte, bytes), rand.NewPCG(seed, 0)
	b[0] = byte(seed)
	for i := range b[1:] {
		b[1+i] = byte(random.Uint64())
	}
	_, err = c.Write(b)
	return err
}

// poured is what has come of a pour.
type poured struct {
	random  *rand.PCG
	got     int
	isWrong bool
}

// sink pauses connections when they have said who they are, until resume is called; then it reads everything.
type sink struct {
	plane     *Plane
	sums      map[broker.Conn]*poured
	isResumed bool
	ended     []*poured
}

func (s *sink) turn(t *testing.T) {
	events, err := s.plane.Wait(time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Kind&broker.Readable != 0 {
			s.read(t, e.Conn)
		}
		if e.Kind&broker.Hangup != 0 {
			t.Fatal(e.Err)
		}
	}
	s.plane.Flush()
}

func (s *sink) read(t *testing.T, c broker.Conn) {
	n, err := c.Read(s.plane.Buffer())
	if errors.Is(err, io.EOF) {
		c.Close()
		s.ended = append(s.ended, s.sums[c])
		delete(s.sums, c) // The slot may be another connection's soon.
		return
	}
	if err != nil && !errors.Is(err, broker.ErrWouldBlock) {
		t.Fatal(err)
	}
	b, sum := s.plane.Buffer()[:n], s.sums[c]
	if sum == nil && n > 0 {
		sum = &poured{random: rand.NewPCG(uint64(b[0]), 0), got: 1}
		s.sums[c], b = sum, b[1:]
		if !s.isResumed {
			c.Pause()
		}
	}
	for _, x := range b {
		sum.isWrong = sum.isWrong || x != byte(sum.random.Uint64())
		sum.got++
	}
}

func (s *sink) resume() {
	s.isResumed = true
	for c := range s.sums {
		c.Resume()
	}
}
