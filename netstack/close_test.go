package netstack

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/netstack/cable"
)

// TestCloseTimeout: a peer that acknowledges nothing after Close is cut off.
func TestCloseTimeout(t *testing.T) {
	config := testConfig()
	config.TCP.CloseTimeout = 10 * time.Millisecond
	w := newWireV4(t, config)
	conn := w.connect()
	w.send(tcpAck|tcpFin, nil) // So that Close does not linger.
	w.until(func(e broker.Event) bool { return e.Kind == broker.Readable })
	if _, err := conn.Read(w.plane.Buffer()); err == nil {
		t.Fatal("there is no end of input")
	}
	if _, err := conn.Write(answer()); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if sum := w.plane.Counters(); sum.Connections != 1 {
		t.Fatalf("%d connections; want the one that is closing", sum.Connections)
	}
	h := w.untilHeard(func(h heard) bool { return h.flags&tcpRst != 0 })
	if sum := w.plane.Counters(); sum.Connections != 0 || sum.Flows != 0 {
		t.Errorf("%d connections, %d flows after %+v", sum.Connections, sum.Flows, h)
	}
}

// TestTimeWaitIsBounded: closed connections make room for new ones.
func TestTimeWaitIsBounded(t *testing.T) {
	config := testConfig()
	config.MaxConnections = 4
	w := newWireV4(t, config)
	for i := range uint16(40) {
		w.local = netip.AddrPortFrom(w.local.Addr(), 5000+i)
		w.seq, w.ack = 1000, 0
		conn := w.connect()
		w.exchange(conn, ask(), answer())
		conn.Close()
		w.plane.Flush()
		w.untilHeard(func(h heard) bool { return h.flags&tcpFin != 0 })
		w.send(tcpAck|tcpFin, nil) // TIME-WAIT begins.
		w.untilHeard(func(h heard) bool { return h.ack == w.seq })
	}
	sum := w.plane.Counters()
	if sum.Accepted != 40 || sum.AcceptRefused != 0 || sum.Connections > 4 || sum.Flows > 4 {
		t.Errorf("%d accepted, %d refused, %d connections, %d flows", sum.Accepted, sum.AcceptRefused, sum.Connections, sum.Flows)
	}
}

// TestPortReuse: the peer uses its port again while the old connection is in TIME-WAIT.
func TestPortReuse(t *testing.T) {
	w := newWireV4(t, testConfig())
	for range 5 {
		conn := w.connect()
		w.exchange(conn, ask(), answer())
		conn.Close()
		w.plane.Flush()
		w.untilHeard(func(h heard) bool { return h.flags&tcpFin != 0 })
		w.send(tcpAck|tcpFin, nil)
		w.untilHeard(func(h heard) bool { return h.ack == w.seq })
		if sum := w.plane.Counters(); sum.Connections != 1 || sum.Flows != 1 {
			t.Fatalf("%d connections, %d flows in TIME-WAIT; want 1, 1", sum.Connections, sum.Flows)
		}
		w.seq += 1_000_000 // RFC 6191: beyond what the old connection had.
		w.ack = 0
	}
	conn := w.connect()
	if conn.RemoteAddr() != w.local {
		t.Errorf("remote address %v; want %v", conn.RemoteAddr(), w.local)
	}
	w.exchange(conn, ask(), answer())
	w.mac[5]++
	w.exchange(conn, ask(), answer())
	if sum := w.plane.Counters(); sum.Connections != 1 || sum.Flows != 1 || sum.LinkChanged != 1 {
		t.Errorf("%d connections, %d flows, %d changes of the link address; want 1, 1, 1", sum.Connections, sum.Flows, sum.LinkChanged)
	}
}

// TestClosedConn: nothing works on it, and nothing breaks.
func TestClosedConn(t *testing.T) {
	w := newWireV4(t, testConfig())
	conn := w.connect()
	conn.Close()
	conn.Close()
	conn.Pause()
	conn.Resume()
	if _, err := conn.Read(w.plane.Buffer()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read: %v", err)
	}
	if _, err := conn.Write(answer()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write: %v", err)
	}
	if a, b := conn.LocalAddr(), conn.RemoteAddr(); a.IsValid() || b.IsValid() {
		t.Errorf("addresses %v, %v", a, b)
	}
}

// TestDeviceGone: an error of the device is the plane's.
func TestDeviceGone(t *testing.T) {
	c := cable.New(cable.Config{})
	p := mustOpen(t, testConfig(), c).Planes()[0]
	c.Near()[0].Unplug()
	if _, err := p.Wait(patience); !errors.Is(err, cable.ErrUnplugged) {
		t.Errorf("Wait: %v", err)
	}
}

// panicking is a stack that panics over segments from one port.
type panicking struct {
	stack.NetworkDispatcher
	port uint16
}

func (d *panicking) DeliverNetworkPacket(protocol tcpip.NetworkProtocolNumber, packet *stack.PacketBuffer) {
	if b := packet.ToView().AsSlice(); uint16(b[20])<<8|uint16(b[21]) == d.port {
		panic("made up")
	}
	d.NetworkDispatcher.DeliverNetworkPacket(protocol, packet)
}

// panickingTCP is the same for segments of connections that are known.
type panickingTCP struct {
	segmentQueuer
	port uint16
}

func (q *panickingTCP) QueuePacket(to stack.TransportEndpoint, id stack.TransportEndpointID, segment *stack.PacketBuffer) {
	if id.RemotePort == q.port {
		panic("made up")
	}
	q.segmentQueuer.QueuePacket(to, id, segment)
}

// TestPanicCostsOneConnection: the others, and new ones, live on.
func TestPanicCostsOneConnection(t *testing.T) {
	c := cable.New(cable.Config{})
	g := mustOpen(t, testConfig(), c)
	w := newWire(t, c, g.Planes()[0], clientAddrPort(), dialled(0))
	victim := w.connect()
	link := w.plane.link
	link.dispatcher = &panicking{link.dispatcher, w.local.Port()}
	w.plane.tcp = &panickingTCP{w.plane.tcp, w.local.Port()}
	w.send(tcpAck, ask())
	w.send(tcpAck, ask())
	e := w.until(func(e broker.Event) bool { return e.Kind&broker.Hangup != 0 })
	if e.Conn != victim || !errors.Is(e.Err, errPanicked) {
		t.Fatalf("event %+v; want the hangup of the connection", e)
	}
	if _, err := victim.Read(w.plane.Buffer()); !errors.Is(err, errPanicked) {
		t.Errorf("Read: %v", err)
	}
	if _, err := victim.Write(answer()); !errors.Is(err, errPanicked) {
		t.Errorf("Write: %v", err)
	}
	victim.Close()
	w.local = netip.AddrPortFrom(w.local.Addr(), w.local.Port()+1)
	w.seq, w.ack = 1, 0
	w.exchange(w.connect(), ask(), answer())
	sum := w.plane.Counters()
	if sum.Panics != 1 || sum.Poisoned != 1 || sum.Connections != 1 {
		t.Errorf("%d panics, %d frames dropped, %d connections; want 1, 1, 1", sum.Panics, sum.Poisoned, sum.Connections)
	}
	if !c.Conserved() {
		t.Error("a frame is lost")
	}
	w.plane.counters.panics.Store(0) // It was made up: the stack can be closed, and must be.
}
