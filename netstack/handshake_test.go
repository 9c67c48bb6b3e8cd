package netstack

import (
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/ringmq/ringmq/broker"
)

// TestHandshakesExpire: handshakes that nobody ends are given up in time, with what the stack keeps of them, while a plane that has
// nothing else to do sleeps. A connection and a handshake that was begun later are not touched.
func TestHandshakesExpire(t *testing.T) {
	const handshakes, timeout = 10, 3 * time.Second
	config := testConfig()
	config.TCP.HandshakeTimeout = timeout
	w := newWireV4(t, config)
	conn := w.connect()
	first, firstSeq, firstAck := w.local, w.seq, w.ack
	begun := time.Now()
	for i := range handshakes {
		w.local, w.seq, w.ack = netip.AddrPortFrom(w.local.Addr(), 6000+uint16(i)), 7, 0
		w.sendSyn()
		w.untilHeard(func(h heard) bool { return h.flags == tcpSyn|tcpAck })
	}
	stale, staleAck := w.local, w.ack
	for time.Since(begun) < timeout*3/4 {
		w.rest()
	}
	w.local, w.seq, w.ack = netip.MustParseAddrPort("198.18.0.9:7000"), 7, 0
	w.sendSyn()
	w.untilHeard(func(h heard) bool { return h.flags == tcpSyn|tcpAck })
	sum := w.plane.Counters()
	if n := sum.HalfOpen + sum.HandshakesExpired; n != handshakes+1 || sum.HandshakesExpired > 0 && time.Since(begun) < timeout {
		t.Fatalf("%d half open and %d expired after %v; want %d in all", sum.HalfOpen, sum.HandshakesExpired, time.Since(begun), handshakes+1)
	}
	for w.plane.Counters().HalfOpen > 1 {
		if w.rest(); time.Since(begun) > patience {
			t.Fatalf("%d half open after %v", w.plane.Counters().HalfOpen, time.Since(begun))
		}
	}
	if passed := time.Since(begun); passed < timeout {
		t.Errorf("handshakes are given up after %v; want at least %v", passed, timeout)
	}
	if n := pending(w.plane.stack); n != 1 {
		t.Errorf("the stack keeps %d handshakes; want 1", n)
	}
	w.send(tcpAck, nil) // Late, but in time.
	w.until(func(e broker.Event) bool { return e.Kind == broker.Accepted })
	w.local, w.seq, w.ack = stale, 8, staleAck
	w.send(tcpAck, nil)
	w.untilHeard(func(h heard) bool { return h.flags&tcpRst != 0 })
	w.local, w.seq, w.ack = first, firstSeq, firstAck
	w.exchange(conn, ask(), answer())
	if sum = w.plane.Counters(); sum.HandshakesExpired != handshakes || sum.HalfOpen != 0 || sum.Connections != 2 {
		t.Errorf("%d handshakes expired, %d half open, %d connections; want %d, 0, 2", sum.HandshakesExpired, sum.HalfOpen, sum.Connections, handshakes)
	}
}

// rest lets the plane sleep as long as it wants to, and throws away what it sends.
func (w *wire) rest() {
	w.t.Helper()
	if _, err := w.plane.Wait(100 * time.Millisecond); err != nil {
		w.t.Fatal(err)
	}
	w.plane.Flush()
	w.listen()
}

// pending is how many handshakes a stack keeps.
func pending(s *stack.Stack) (n int) {
	for _, e := range s.RegisteredEndpoints() {
		if endpoint, ok := e.(*tcp.Endpoint); ok && tcp.EndpointState(endpoint.State()) == tcp.StateSynRecv {
			n++
		}
	}
	return n
}
