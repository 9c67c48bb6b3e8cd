package netstack

import (
	"testing"

	"github.com/ringmq/ringmq/broker"
)

// TestRation: more is to be written in one turn than it may take. Small writes pass; of large ones the turn takes its ration, and
// the rest is taken in the turns that follow, at once, and by all connections alike.
func TestRation(t *testing.T) {
	const connections, bytes = 200, 4 << 10
	w, conns := fanWith(t, testConfig(), connections)
	left, total := map[broker.Conn]int{}, 0
	write := func(c broker.Conn) {
		n, err := c.Write([][]byte{make([]byte, left[c])})
		if err != nil {
			t.Fatal(err)
		}
		left[c] -= n
		total += n
	}
	for _, c := range conns {
		left[c] = bytes
		write(c)
	}
	if total != turnBytes {
		t.Errorf("one turn takes %d bytes, want %d", total, turnBytes)
	}
	if n, err := conns[connections-1].Write([][]byte{make([]byte, smallWrite)}); n != smallWrite || err != nil {
		t.Errorf("of a small write %d bytes are taken, %v", n, err)
	}
	for turn := 1; total < connections*bytes; turn++ {
		w.plane.Flush()
		events, err := w.plane.Wait(0)
		if err != nil {
			t.Fatal(err)
		}
		w.listen()
		before := total
		for _, e := range events {
			if e.Kind&broker.Writable != 0 {
				write(e.Conn)
			}
		}
		if took := total - before; took == 0 || took > turnBytes {
			t.Fatalf("turn %d takes %d bytes; want at most %d, and some", turn, took, turnBytes)
		}
		for i, c := range conns[:connections-1] {
			if done := total / bytes; i < done-1 && left[c] > 0 {
				t.Fatalf("connection %d waits, although %d after it did not", i, done-i)
			}
		}
	}
	if len(w.plane.ration.waiting) != 0 {
		t.Errorf("%d connections still wait", len(w.plane.ration.waiting))
	}
}
