package broker

import (
	"fmt"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
)

// TestTimersComeInParts: a thousand connections that have not said CONNECT are past their timeout in the same tick. No turn ends
// more of them than its share, the next share is due a millisecond later, and a client in their midst is answered between them.
func TestTimersComeInParts(t *testing.T) {
	const silent = 1000
	b := newBench(t, 1, func(l *Limits) { l.ConnectTimeout = time.Second })
	s := b.b.loops[0].shard
	h := b.open(0, packet.Connect{CleanStart: true, ClientID: []byte("lively"), KeepAlive: 60})
	h.hear()
	for range silent {
		b.dial(0)
	}
	now, turns, share := int64(1000+2*tickMS), 0, uint64(timersAtOnce*timerTurns)
	for before := uint64(0); s.counters[CounterConnectTimeouts] < silent; turns++ {
		if turns > 0 && s.Deadline() != now {
			t.Fatalf("%d of %d connections are closed, and the next turn comes at %d, not at %d", before, silent, s.Deadline(), now)
		}
		h.give([]byte{byte(packet.PINGREQ) << 4, 0})
		b.turn(0, now)
		if heard := h.net.packets(t); len(heard) != 1 {
			t.Fatalf("a turn that closes others answers PINGREQ with %d packets", len(heard))
		}
		closed := s.counters[CounterConnectTimeouts]
		if n := closed - before; n == 0 || n > share {
			t.Fatalf("a turn closes %d connections; want 1 to %d", n, share)
		}
		before, share = closed, timersAtOnce
		if b.turn(0, now); s.counters[CounterConnectTimeouts] != closed {
			t.Fatal("another turn in the same millisecond closes more")
		}
		now++
	}
	if least := silent/timersAtOnce - timerTurns; turns < least {
		t.Errorf("%d turns for %d connections; want %d at least", turns, silent, least)
	}
	if s.Deadline() <= now {
		t.Errorf("nothing is left to close, and the next turn comes at %d, before %d", s.Deadline(), now)
	}
}

// TestKeepAliveChecksAreCheap: a turn looks at many connections whose Keep Alive was moved on by what they said.
func TestKeepAliveChecksAreCheap(t *testing.T) {
	const clients = timerWork / 2
	b := newBench(t, 1, nil)
	s := b.b.loops[0].shard
	var all []*hand
	for i := range clients {
		h := b.open(0, packet.Connect{CleanStart: true, ClientID: fmt.Appendf(nil, "k%d", i), KeepAlive: 2})
		h.hear()
		all = append(all, h)
	}
	s.BeginTurn(2000)
	for _, h := range all {
		h.give([]byte{byte(packet.PINGREQ) << 4, 0})
	}
	b.turn(0, 3000+2*tickMS)
	for _, h := range all {
		if !h.live() {
			t.Fatal("a client that has said PINGREQ is closed")
		}
	}
	if s.wheel.isFiring() {
		t.Error("one turn has not looked at all of them")
	}
}

// TestConnectTimeoutsAreSpread: connections that came together and say nothing are not closed together, nor too early or late.
func TestConnectTimeoutsAreSpread(t *testing.T) {
	const silent = 1000
	b := newBench(t, 1, func(l *Limits) { l.ConnectTimeout = time.Second })
	s := b.b.loops[0].shard
	for range silent {
		b.dial(0)
	}
	most, before := uint64(0), uint64(0)
	for now := int64(1); now <= 1000+4*tickMS; now++ {
		if b.turn(0, now); now%tickMS != 0 {
			continue
		}
		n := s.counters[CounterConnectTimeouts]
		if n > 0 && now < 750 {
			t.Fatalf("%d connections are closed after %d ms", n, now)
		}
		most, before = max(most, n-before), n
	}
	if before != silent {
		t.Errorf("%d of %d connections are closed", before, silent)
	}
	if most > silent/3 {
		t.Errorf("%d of %d connections are closed in one tick of %d ms", most, silent, tickMS)
	}
}
