package netstack

import (
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/netstack/cable"
)

// TestCookieOnAnotherQueue: handshakes under way fill one queue's stack, so that it answers a client with a SYN cookie and
// forgets it. What completes the handshake arrives on another queue, whose stack takes the cookie for its own.
func TestCookieOnAnotherQueue(t *testing.T) {
	for family, local := range []netip.AddrPort{clientAddrPort(), clientAddrPortV6()} {
		var queue atomic.Uint32
		c := cable.New(cable.Config{Queues: 2, Steer: func([]byte) int { return int(queue.Load()) }})
		config := testConfig()
		config.Backlog = 4
		g := mustOpen(t, config, c)
		w := newWire(t, c, g.Planes()[0], local, dialled(family))
		crowd(w, 1000, config.Backlog)
		w.local = local
		w.sendSyn()
		w.untilHeard(func(h heard) bool { return h.flags == tcpSyn|tcpAck })
		seq, ack := w.seq, w.ack
		crowd(w, 2000, config.Backlog) // Nobody knows any more whose the client is.
		if sum := g.Counters(); sum.CookiesSent == 0 {
			t.Fatalf("no SYN cookie was sent: %+v", sum)
		}
		queue.Store(1)
		w.plane, w.local, w.seq, w.ack = g.Planes()[1], local, seq, ack
		w.send(tcpAck, ask())
		e := w.until(func(e broker.Event) bool { return e.Kind == broker.Accepted })
		w.readAll(e.Conn, len(ask()))
		w.exchange(e.Conn, ask(), answer())
		if sum := g.Counters(); sum.ResetsSent != 0 || sum.CookiesReturned != 1 {
			t.Errorf("%d resets were sent, %d cookies came back; want 0, 1", sum.ResetsSent, sum.CookiesReturned)
		}
	}
}

// TestCookieLikeTheStack: the SYN-ACK that is made before the stack is the stack's, and its cookie too.
func TestCookieLikeTheStack(t *testing.T) {
	for family, local := range []netip.AddrPort{clientAddrPort(), clientAddrPortV6()} {
		c := cable.New(cable.Config{})
		config := testConfig()
		config.Backlog = 4
		p := mustOpen(t, config, c).Planes()[0]
		w := newWire(t, c, p, local, dialled(family))
		crowd(w, 1000, config.Backlog)
		answer := func(isOurs bool, port uint16) (answer heard) {
			for _, l := range p.listeners {
				if l.cookies.isOurs == isOurs {
					t.Fatalf("the secrets of port %d are known: %v", l.port, isOurs)
				}
				l.cookies.isOurs = isOurs
			}
			w.local, w.seq, w.ack = netip.AddrPortFrom(local.Addr(), port), 77, 0
			before := p.counters.cookies.Load()
			w.sendSyn()
			w.untilHeard(func(h heard) bool { answer = h; return h.flags == tcpSyn|tcpAck })
			if made := p.counters.cookies.Load() - before; made != 0 != isOurs {
				t.Fatalf("%d cookies were made before the stack, ours: %v", made, isOurs)
			}
			return answer
		}
		for _, port := range []uint16{3000, 3001} {
			if theirs, ours := answer(false, port), answer(true, port); theirs != ours {
				t.Errorf("the stack answers %+v, we %+v", theirs, ours)
			}
		}
	}
}

// crowd begins so many handshakes and more, from ports of their own, and ends none.
func crowd(w *wire, port uint16, n int) {
	for i := range 2 * n {
		w.local = netip.AddrPortFrom(w.local.Addr(), port+uint16(i))
		w.seq, w.ack = 7, 0
		w.sendSyn()
		w.untilHeard(func(h heard) bool { return h.flags == tcpSyn|tcpAck })
	}
}

// TestHandshakeSurvivesFlood: a handshake that one queue's stack keeps is found from another queue, however many SYNs have
// come since it began.
func TestHandshakeSurvivesFlood(t *testing.T) {
	var queue atomic.Uint32
	c := cable.New(cable.Config{Queues: 2, Steer: func([]byte) int { return int(queue.Load()) }})
	config := testConfig()
	config.Backlog = 4
	g := mustOpen(t, config, c)
	w := newWire(t, c, g.Planes()[0], clientAddrPort(), dialled(0))
	w.sendSyn()
	w.untilHeard(func(h heard) bool { return h.flags == tcpSyn|tcpAck })
	seq, ack := w.seq, w.ack
	crowd(w, 2000, 2*config.Backlog)
	w.local, w.seq, w.ack = clientAddrPort(), seq, ack
	queue.Store(1)
	w.send(tcpAck, ask())
	if _, err := g.Planes()[1].Wait(0); err != nil {
		t.Fatal(err)
	}
	e := w.until(func(e broker.Event) bool { return e.Kind == broker.Accepted })
	w.readAll(e.Conn, len(ask()))
	if sum := g.Counters(); sum.ResetsSent != 0 || sum.HandedOver != 1 || sum.CookiesSent == 0 {
		t.Errorf("%d resets sent, %d frames handed over, %d cookies sent; want 0, 1 and some", sum.ResetsSent, sum.HandedOver, sum.CookiesSent)
	}
}
