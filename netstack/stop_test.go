package netstack

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/netstack/cable"
)

// farewell is a broker's loop on a plane, with the wire of all its clients, both driven by the test.
type farewell struct {
	*wire
	broker *broker.Broker
	loop   *broker.Loop

	disconnects, fins, resets int
}

func newFarewell(t *testing.T, connections int) *farewell {
	c := cable.New(cable.Config{Frames: 4096})
	config := testConfig()
	config.MaxConnections = 2 * connections
	p := mustOpen(t, config, c).Planes()[0]
	limits, err := broker.Limits{Shards: 1, Memory: 1 << 30, MaxConnections: connections}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	listeners := []broker.ListenerConfig{{AllowAnonymous: true}, {AllowAnonymous: true}}
	b, err := broker.New(broker.Options{Limits: limits, Config: broker.Config{Listeners: listeners}, Host: host{t}}, []broker.Plane{p})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Release)
	return &farewell{wire: newWire(t, c, p, netip.AddrPort{}, dialled(0)), broker: b, loop: b.Loops()[0]}
}

func (f *farewell) turn() {
	f.t.Helper()
	if err := f.loop.Turn(0); err != nil {
		f.t.Fatal(err)
	}
}

// connect shakes hands and says hello.
func (f *farewell) connect(i int) {
	f.t.Helper()
	address := netip.AddrFrom4([4]byte{198, 18, 1 + byte(i/50_000), 1})
	f.local, f.seq, f.ack = netip.AddrPortFrom(address, uint16(2000+i%50_000)), uint32(i), 0
	f.send(tcpSyn, nil)
	for f.turn(); len(f.listen()) == 0; f.turn() {
	}
	f.send(tcpAck, hello(i))
	for got := 0; got == 0; {
		f.turn()
		for _, h := range f.listen() {
			got += h.payload
		}
	}
	f.send(tcpAck, nil)
}

// hello is a CONNECT of MQTT 5.0 with Clean Start.
func hello(client int) []byte {
	body := append([]byte{0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 0, 0}, 0, 6)
	body = fmt.Appendf(body, "%06d", client)
	return append([]byte{0x10, byte(len(body))}, body...)
}

// answer is a client that takes DISCONNECT and closes.
func (f *farewell) answer(frame []byte) {
	var r received
	if r.parse(frame, f.mac) != keep {
		return
	}
	if r.flags&tcpRst != 0 {
		f.resets++
		return
	}
	f.local = netip.AddrPortFrom(netip.AddrFrom16(r.key.local).Unmap(), r.key.localPort)
	f.seq, f.ack = r.ack, r.seq+uint32(r.payload)
	if r.payload > 0 {
		f.disconnects++
	}
	flags := tcpAck
	if r.flags&tcpFin != 0 {
		f.fins++
		f.ack++
		flags |= tcpFin
	} else if r.payload == 0 {
		return
	}
	f.put(f.frame(flags, nil))
}

// TestStop: a broker that stops says goodbye to all of its clients, at the pace at which they answer: what it has sent is hardly ever
// sent again. Its plane is gone soon after, without another FIN. Set RINGMQ_IDLE_CONNECTIONS for more of them.
func TestStop(t *testing.T) {
	connections := 5000
	if s := os.Getenv("RINGMQ_IDLE_CONNECTIONS"); s != "" {
		connections, _ = strconv.Atoi(s)
	} else if testing.Short() || raceEnabled {
		connections = 1000
	}
	f := newFarewell(t, connections)
	for i := range connections {
		f.connect(i)
	}
	f.turn()
	before, began := f.plane.Counters(), time.Now()
	f.stop(patience)
	drained, fins := time.Since(began), f.fins
	began = time.Now()
	if err := f.plane.Close(); err != nil {
		t.Fatal(err)
	}
	closed := time.Since(began)
	for f.end.Receive(receiveBatch, f.answer) > 0 {
	}
	again := f.plane.Counters().Retransmits - before.Retransmits
	t.Logf("%d connections drained in %v, closed in %v: %d DISCONNECT, %d FIN, %d RST, %d segments sent again", connections, drained, closed,
		f.disconnects, fins, f.resets, again)
	if f.disconnects < connections || fins < connections {
		t.Errorf("%d clients have got DISCONNECT, %d FIN; want %d", f.disconnects, fins, connections)
	}
	if f.fins != fins && !raceEnabled || f.fins > connections+int(again) { // On a busy machine some are sent again.
		t.Errorf("the plane has sent %d FINs while it was closed, %d in all, and %d segments again", f.fins-fins, f.fins, again)
	}
	if again > uint64(connections/5) && !raceEnabled {
		t.Errorf("%d segments were sent again for %d connections", again, connections)
	}
}

// stop runs the broker as one that is told to stop, while the clients answer.
func (f *farewell) stop(grace time.Duration) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	done := make(chan error, 1)
	go func() { done <- f.broker.Run(ctx, grace) }()
	for {
		select {
		case err := <-done:
			if err != nil {
				f.t.Fatal(err)
			}
			for f.end.Receive(receiveBatch, f.answer) > 0 { // What was sent by then.
			}
			return
		default:
			if f.end.Receive(receiveBatch, f.answer) == 0 {
				time.Sleep(100 * time.Microsecond)
			}
		}
	}
}
