package netstack

import (
	"net/netip"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/netstack/cable"
)

// FuzzLinkEndpoint gives a plane arbitrary frames, and valid ones with arbitrary changes, while a connection is alive.
// Neither may hurt: the plane must serve that connection, and new ones, as before, and every frame must come back. Whatever makes a
// stack's processor goroutine panic ends the test's process.
func FuzzLinkEndpoint(f *testing.F) {
	v4, v6 := newFuzzed(f, 0), newFuzzed(f, 1)
	for _, z := range []*fuzzed{v4, v6} {
		w := z.wire
		f.Add(w.frame(tcpSyn, nil), uint8(0), uint64(0))
		f.Add(w.frame(tcpAck, ask()), uint8(1), uint64(1)<<32|3)
		f.Add(w.frame(tcpFin|tcpAck, ask()), uint8(2), uint64(5))
		f.Add(w.frame(tcpRst, nil), uint8(3), uint64(9))
		f.Add(w.tooBig(1300, w.ack), uint8(4), uint64(17))
		w.extensions = []byte{protocolTCP, 0, 1, 4, 0, 0, 0, 0}
		f.Add(w.frame(tcpAck, nil), uint8(1), uint64(33))
		w.extensions = nil
		w.options = []byte{1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 9} // A SACK block.
		f.Add(w.frame(tcpAck, nil), uint8(1), uint64(33))
		w.options = nil
	}
	f.Fuzz(func(t *testing.T, frame []byte, kind uint8, change uint64) {
		for _, z := range []*fuzzed{v4, v6} {
			z.wire.t, z.living.t = t, t
			z.disturb(frame, kind, change)
			z.mustServe()
			z.mustConserve()
		}
	})
}

// fuzzed is a plane that lives as long as the whole fuzzing, a connection that does, too, and a wire for the rest.
type fuzzed struct {
	*wire
	cable  *cable.Cable
	living *wire
	conn   broker.Conn
	rounds int
}

// nextAddr is an address and port that no change of one byte makes of those before.
func (z *fuzzed) nextAddr() netip.AddrPort {
	z.rounds++
	n := z.rounds
	x, y, port := byte(1+n%199), byte(1+n/199%250), uint16(1024+n*31%60_000)
	if z.wire.local.Addr().Is6() {
		a := netip.MustParseAddr("2001:2::").As16()
		a[8], a[12] = x, y
		return netip.AddrPortFrom(netip.AddrFrom16(a), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 19, x, y}), port)
}

func newFuzzed(f *testing.F, listener int) *fuzzed {
	c := cable.New(cable.Config{})
	p := mustOpen(f, testConfig(), c).Planes()[0]
	local, living := clientAddrPort(), netip.MustParseAddrPort("198.18.200.200:7")
	if listener == 1 {
		local, living = clientAddrPortV6(), netip.MustParseAddrPort("[2001:2::c8]:7")
	}
	z := &fuzzed{wire: newWire(f, c, p, local, dialled(listener)), cable: c, living: newWire(f, c, p, living, dialled(listener))}
	z.conn = z.living.connect()
	return z
}

// disturb sends the frame as it is, and changed versions of segments of a connection of its own.
func (z *fuzzed) disturb(frame []byte, kind uint8, change uint64) {
	w := z.wire
	if len(frame) > 1500 {
		frame = frame[:1500]
	}
	w.put(frame)
	if len(frame) >= ethernetBytes { // The same, addressed so that it gets further.
		w.put(append(append(append([]byte(nil), w.link.mac[:]...), w.mac[:]...), frame[12:]...))
	}
	flags := []uint8{tcpSyn, tcpAck, tcpAck | tcpFin, tcpRst, tcpAck | tcpRst, tcpSyn | tcpAck, 0, 0xff}[kind%8]
	payload := frame[min(len(frame), 40):]
	valid := w.frame(flags, payload[:min(len(payload), 600)])
	w.put(valid)
	// A byte of it changed, then with the checksums made right again so that it gets into TCP.
	valid[12+int(change>>8%uint64(len(valid)-12))] ^= byte(change)
	w.put(valid)
	w.mend(valid)
	w.put(valid)
	w.turn()
}

// mustServe has the plane exchange messages on the living connection, and on the one that was disturbed if it is whole,
// and then begins a new one to disturb.
func (z *fuzzed) mustServe() {
	z.living.t.Helper()
	z.exchangeWith(z.living, z.conn)
	z.living.listen()
	w := z.wire
	w.listen()
	w.seq = w.acked // The only number that RST is believed with.
	w.send(tcpAck|tcpRst, nil)
	w.local = z.nextAddr()
	w.seq, w.ack = 1000, 0
	conn := w.connectPastEvents()
	z.exchangeWith(w, conn)
	w.listen()
	if c := w.plane.Counters(); c.Panics != 0 {
		w.t.Fatalf("%d panics", c.Panics)
	}
}

// mustConserve has every frame where it belongs, as soon as no timer of the stack is sending one.
func (z *fuzzed) mustConserve() {
	z.wire.t.Helper()
	for deadline := time.Now().Add(patience / 10); !z.cable.Conserved(); z.turn() {
		if time.Now().After(deadline) {
			z.wire.t.Fatal("a frame has not come back")
		}
	}
}

// exchangeWith exchanges one message; connections that were made by chance are closed.
func (z *fuzzed) exchangeWith(w *wire, conn broker.Conn) {
	w.t.Helper()
	w.send(tcpAck, ask())
	for read := 0; read < len(ask()); {
		e := w.until(func(e broker.Event) bool { return e.Kind&(broker.Readable|broker.Hangup|broker.Accepted) != 0 })
		if e.Conn != conn {
			e.Conn.Close()
			continue
		}
		n, err := conn.Read(w.plane.Buffer())
		if err != nil {
			w.t.Fatalf("Read: %v", err)
		}
		read += n
	}
	if n, err := conn.Write(answer()); n == 0 || err != nil {
		w.t.Fatalf("Write = %d, %v", n, err)
	}
	w.plane.Flush()
	for _, h := range w.listen() {
		if h.payload > 0 && h.ack == w.seq {
			return
		}
	}
	w.untilHeard(func(h heard) bool { return h.payload > 0 && h.ack == w.seq }) // After a pause, it may be sent again.
}
