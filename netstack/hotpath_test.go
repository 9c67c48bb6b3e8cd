package netstack

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/netstack/cable"
)

func ask() []byte { return []byte("a message of some length") }

func answer() [][]byte {
	return [][]byte{[]byte("head"), nil, []byte("payload of a message"), []byte("tail")}
}

// TestExchangeDoesNotAllocate counts everything: ours, the stack's, and the wire's. AllocsPerRun rounds down, so that a
// pool that the collector has emptied does not count.
func TestExchangeDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has sync.Pool drop things")
	}
	w := newWireV4(t, testConfig())
	conn := w.connect()
	question, reply := ask(), answer()
	for range 100 {
		w.exchange(conn, question, reply)
	}
	if n := testing.AllocsPerRun(500, func() { w.exchange(conn, question, reply) }); n != 0 {
		t.Errorf("%v allocations per exchange", n)
	}
}

// TestExchangeIsOneFrame: the data that answers carries the acknowledgement: no ACK that was held leaves by itself. The race
// detector slows the stack's processor so that it may run only after the turn; such ACKs are not held. One that is held just as the
// turn ends waits for the next answer, however late that is.
func TestExchangeIsOneFrame(t *testing.T) {
	const rounds = 200
	w := newWireV4(t, testConfig())
	w.plane.link.ackDelay = time.Hour
	conn := w.connect()
	question, reply := ask(), answer()
	before := w.plane.Counters()
	for range rounds {
		w.exchange(conn, question, reply)
	}
	after := w.plane.Counters()
	frames, superseded := after.FramesOut-before.FramesOut, after.SupersededACKs-before.SupersededACKs
	t.Logf("%d exchanges: %d frames sent, %d ACKs superseded", rounds, frames, superseded)
	if held := after.HeldACKs - before.HeldACKs; held != superseded || frames != 2*rounds-superseded {
		t.Errorf("%d frames for %d exchanges, %d ACKs held, %d superseded", frames, rounds, held, superseded)
	}
	if frames > rounds*11/10 && !raceEnabled {
		t.Errorf("%d frames for %d exchanges", frames, rounds)
	}
}

// fan is a publisher's wire and those of its subscribers.
func fan(t testing.TB, subscribers int) (*wire, []broker.Conn) {
	return fanWith(t, testConfig(), subscribers)
}

func fanWith(t testing.TB, config Config, subscribers int) (*wire, []broker.Conn) {
	c := cable.New(cable.Config{Frames: 4096})
	p := mustOpen(t, config, c).Planes()[0]
	var conns []broker.Conn
	w := newWire(t, c, p, netip.AddrPort{}, dialled(0))
	for i := range subscribers {
		w.local, w.seq, w.ack = netip.AddrPortFrom(netip.MustParseAddr("198.18.0.9"), uint16(5000+i)), 7, 0
		conns = append(conns, w.connect())
	}
	return w, conns
}

// fanOut writes to all, and has each subscriber acknowledge.
func fanOut(w *wire, conns []broker.Conn, payload [][]byte, acknowledge func([]byte)) {
	for _, c := range conns {
		if n, err := c.Write(payload); n == 0 || err != nil {
			w.t.Fatalf("Write = %d, %v", n, err)
		}
	}
	w.plane.Flush()
	for w.end.Receive(receiveBatch, acknowledge) > 0 {
	}
	for range 1 + len(conns)/receiveBatch {
		if _, err := w.plane.Wait(0); err != nil {
			w.t.Fatal(err)
		}
	}
	w.plane.Flush()
}

// acknowledger answers every segment with a pure ACK.
func acknowledger(w *wire) func([]byte) {
	return func(frame []byte) {
		var r received
		if r.parse(frame, w.mac) != keep {
			return
		}
		t := frame[r.transport:r.end]
		w.local = netip.AddrPortFrom(w.local.Addr(), r.key.localPort)
		w.seq, w.ack = r.ack, r.seq+uint32(len(t)-int(t[12]>>4)*4)
		w.put(w.frame(tcpAck, nil))
	}
}

func TestFanOutDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has sync.Pool drop things")
	}
	const subscribers = 100
	w, conns := fan(t, subscribers)
	payload, acknowledge := answer(), acknowledger(w)
	for range 50 {
		fanOut(w, conns, payload, acknowledge)
	}
	n := testing.AllocsPerRun(100, func() { fanOut(w, conns, payload, acknowledge) })
	t.Logf("%v allocations per fan-out to %d", n, subscribers)
	if n > subscribers/50 {
		t.Errorf("%v allocations per fan-out to %d", n, subscribers)
	}
}

func BenchmarkExchange(b *testing.B) {
	for _, bytes := range []int{24, 1000} {
		b.Run(fmt.Sprintf("%d bytes", bytes), func(b *testing.B) {
			w := newWireV4(b, testConfig())
			conn := w.connect()
			question, reply := make([]byte, bytes), [][]byte{make([]byte, bytes)}
			before := w.plane.Counters()
			b.ReportAllocs()
			for b.Loop() {
				w.exchange(conn, question, reply)
			}
			after := w.plane.Counters()
			b.ReportMetric(float64(after.FramesOut-before.FramesOut)/float64(b.N), "frames/op")
		})
	}
}

func BenchmarkFanOut(b *testing.B) {
	const subscribers = 100
	w, conns := fan(b, subscribers)
	payload, acknowledge := answer(), acknowledger(w)
	b.ReportAllocs()
	for b.Loop() {
		fanOut(w, conns, payload, acknowledge)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*subscribers), "ns/message")
}
