package netstack

import (
	"net/netip"
	"testing"

	"github.com/ringmq/ringmq/broker"
)

// answerGoesTo has the plane answer one message and tells which MAC address the answer has.
func (w *wire) answerGoesTo(conn broker.Conn) [6]byte {
	w.t.Helper()
	w.exchange(conn, ask(), answer())
	if len(w.heard) == 0 {
		w.t.Fatal("no answer")
	}
	return w.heard[len(w.heard)-1].to
}

// TestRouterChange: another router takes over, and the connection's next segment comes from it.
func TestRouterChange(t *testing.T) {
	w := newWireV4(t, testConfig())
	conn := w.connect()
	w.mac = [6]byte{2, 0, 0, 0, 0, 77}
	if got := w.answerGoesTo(conn); got != w.mac {
		t.Errorf("the answer goes to %x; want %x", got, w.mac)
	}
	w.mac = [6]byte{2, 0, 0, 0, 0, 78}
	w.seq -= uint32(len(ask())) // The old router lost the answer, so that the segment comes again.
	w.put(w.frame(tcpAck, ask()))
	w.seq += uint32(len(ask()))
	w.untilHeard(func(h heard) bool { return h.to == w.mac })
	if sum := w.plane.Counters(); sum.LinkChanged != 2 || sum.LinkRefused != 0 {
		t.Errorf("%d changes, %d refused; want 2, 0", sum.LinkChanged, sum.LinkRefused)
	}
}

// TestSpoofedLinkAddress: who does not know the connection's sequence numbers cannot have its answers.
func TestSpoofedLinkAddress(t *testing.T) {
	w := newWireV4(t, testConfig())
	conn := w.connect()
	w.exchange(conn, ask(), answer())
	mine := w.mac
	w.mac = [6]byte{2, 0, 0, 0, 0, 99}
	seq, ack := w.seq, w.ack
	for _, spoof := range []func(){
		func() { w.seq += 1 << 30; w.put(w.frame(tcpAck, ask())) },
		func() { w.ack += 1 << 30; w.put(w.frame(tcpAck, ask())) },
		func() { w.put(w.frame(tcpSyn, nil)) },
		func() { w.put(w.frame(tcpRst, nil)); w.seq++ },
		func() { f := w.frame(tcpAck, ask()); f[len(f)-1] ^= 1; w.put(f) },
	} {
		w.seq, w.ack = seq+1000, ack // RST exactly at the next number would be believed, and should be.
		spoof()
		w.quiet()
	}
	w.mac, w.seq, w.ack = mine, seq, ack
	if got := w.answerGoesTo(conn); got != mine {
		t.Errorf("the answer goes to %x; want %x", got, mine)
	}
	if sum := w.plane.Counters(); sum.LinkChanged != 0 || sum.LinkRefused != 5 {
		t.Errorf("%d changes, %d refused; want 0, 5", sum.LinkChanged, sum.LinkRefused)
	}
}

// TestNeighbour: the kernel's neighbour table is believed more than a frame.
func TestNeighbour(t *testing.T) {
	config := testConfig()
	config.Neighbour = func(a netip.Addr) ([6]byte, bool) {
		return [6]byte{2, 0, 0, 0, 0, 55}, a == netip.MustParseAddr("198.18.0.9")
	}
	w := newWireV4(t, config)
	conn := w.connect()
	if got := w.answerGoesTo(conn); got != [6]byte{2, 0, 0, 0, 0, 55} {
		t.Errorf("the answer goes to %x; want what the kernel says", got)
	}
	w.local = netip.MustParseAddrPort("198.18.5.5:5000") // Behind a router: the kernel does not know it.
	w.seq, w.ack = 9, 0
	other := w.connect()
	if got := w.answerGoesTo(other); got != w.mac {
		t.Errorf("the answer goes to %x; want %x", got, w.mac)
	}
}

// TestNeighbourMoves: a remote that only listens gets another link address, which the kernel's neighbour table says. What is sent
// again goes there, and so does what comes after.
func TestNeighbourMoves(t *testing.T) {
	config := testConfig()
	mac := [6]byte{2, 0, 0, 0, 0, 55}
	config.Neighbour = func(netip.Addr) ([6]byte, bool) { return mac, true }
	w := newWireV4(t, config)
	conn := w.connect()
	if got := w.answerGoesTo(conn); got != mac {
		t.Fatalf("the answer goes to %x; want %x", got, mac)
	}
	lost := w.ack - uint32(w.heard[len(w.heard)-1].payload)
	mac = [6]byte{2, 0, 0, 0, 0, 56}
	w.untilHeard(func(h heard) bool { return h.seq == lost && h.to == mac })
	if _, err := conn.Write(answer()); err != nil {
		t.Fatal(err)
	}
	w.send(tcpAck, nil)
	w.untilHeard(func(h heard) bool { return h.seq == w.ack-uint32(h.payload) && h.payload > 0 && h.to == mac })
	if sum := w.plane.Counters(); sum.LinkChanged != 1 {
		t.Errorf("%d changes; want 1", sum.LinkChanged)
	}
}

// TestNobodyKnowsTheWay: the stack speaks outside any flow, to a remote whose link address is forgotten.
func TestNobodyKnowsTheWay(t *testing.T) {
	w := newWireV4(t, testConfig())
	frame := w.frame(tcpAck, ask())
	var r received
	if why := r.parse(frame, w.link.mac); why != keep {
		t.Fatal("the frame is not ours")
	}
	w.plane.inject(&r, frame) // Past the place that would have learned; the stack answers with RST.
	if got := w.quiet(); len(got) != 0 {
		t.Errorf("the plane sends %+v", got)
	}
	if sum := w.plane.Counters(); sum.NoLinkAddress != 1 {
		t.Errorf("%d packets found no way; want 1", sum.NoLinkAddress)
	}
}
