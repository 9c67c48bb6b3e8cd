//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package kernel

import (
	"io"
	"net"
	"runtime"
	"testing"

	"github.com/ringmq/ringmq/broker"
)

// exchange is one message from a client and its answer, in three slices.
type exchange struct {
	t      testing.TB
	plane  *Plane
	conn   *conn
	client *net.TCPConn
	answer [][]byte
	ask    []byte
	got    []byte
}

func newExchange(t testing.TB) *exchange {
	g := mustOpen(t, Config{Addresses: loopback()[:1]})
	c, client := accept(t, g)
	return &exchange{
		t: t, plane: g.Planes()[0], conn: c, client: client,
		answer: [][]byte{[]byte("head"), nil, []byte("payload of a message"), []byte("tail")},
		ask:    []byte("a message of some length"),
		got:    make([]byte, 28),
	}
}

func (x *exchange) run() {
	if _, err := x.client.Write(x.ask); err != nil {
		x.t.Fatal(err)
	}
	for read := 0; read < len(x.ask); {
		events, err := x.plane.Wait(-1)
		if err != nil {
			x.t.Fatal(err)
		}
		for _, e := range events {
			n, err := e.Conn.Read(x.plane.Buffer())
			if err != nil {
				x.t.Fatal(err)
			}
			read += n
		}
	}
	if n, err := x.conn.Write(x.answer); n != len(x.got) || err != nil {
		x.t.Fatalf("Write = %d, %v", n, err)
	}
	x.plane.Flush()
	if _, err := io.ReadFull(x.client, x.got); err != nil {
		x.t.Fatal(err)
	}
}

func TestExchangeDoesNotAllocate(t *testing.T) {
	x := newExchange(t)
	if n := testing.AllocsPerRun(200, x.run); n != 0 {
		t.Errorf("%v allocations per exchange", n)
	}
	x.answer = [][]byte{make([]byte, 28)}
	if n := testing.AllocsPerRun(200, x.run); n != 0 {
		t.Errorf("%v allocations per exchange with one slice", n)
	}
}

// TestFlowControlDoesNotAllocate: pausing, resuming, short writes and waking, each with its Waits.
func TestFlowControlDoesNotAllocate(t *testing.T) {
	x := newExchange(t)
	big := [][]byte{make([]byte, 64<<10)}
	drain := make([]byte, 1<<20)
	wait := func() {
		if _, err := x.plane.Wait(0); err != nil {
			t.Fatal(err)
		}
	}
	n := testing.AllocsPerRun(20, func() {
		x.conn.Pause()
		wait()
		x.conn.Resume()
		x.plane.Wake()
		wait()
		sent := 0
		for taken := 64 << 10; taken == 64<<10; sent += taken {
			var err error
			if taken, err = x.conn.Write(big); err != nil {
				t.Fatal(err)
			}
		}
		wait()
		for sent > 0 {
			n, err := x.client.Read(drain)
			if err != nil {
				t.Fatal(err)
			}
			sent -= n
		}
		wait()
	})
	if n != 0 {
		t.Errorf("%v allocations per round", n)
	}
}

// TestAcceptAllocations: a connection costs its slot, and of that its share of a block.
func TestAcceptAllocations(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("package unix allocates the peer's address")
	}
	const connections = 400
	g := mustOpen(t, Config{Addresses: loopback()[:1]})
	clients(t, g, connections)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	accepted := 0
	for accepted < connections {
		events, err := g.Planes()[0].Wait(patience)
		if err != nil {
			t.Fatal(err)
		}
		accepted += len(events)
	}
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > 20 {
		t.Errorf("accepting %d connections made %d allocations", connections, n)
	}
}

func BenchmarkExchange(b *testing.B) {
	x := newExchange(b)
	b.ReportAllocs()
	for b.Loop() {
		x.run()
	}
}

// BenchmarkWait is a turn that finds one connection readable, and reads it in part.
func BenchmarkWait(b *testing.B) {
	x := newExchange(b)
	if _, err := x.client.Write(make([]byte, 1)); err != nil {
		b.Fatal(err)
	}
	until(b, []*Plane{x.plane}, func(_ *Plane, e broker.Event) bool { return e.Kind == broker.Readable })
	b.ReportAllocs()
	for b.Loop() {
		if events, err := x.plane.Wait(-1); len(events) != 1 || err != nil {
			b.Fatal(events, err)
		}
	}
}

// BenchmarkWakeAwake is a wake-up of a plane that is in its turn: the usual case between busy shards.
func BenchmarkWakeAwake(b *testing.B) {
	p := mustOpen(b, Config{Addresses: loopback()[:1]}).Planes()[0]
	for b.Loop() {
		p.Wake()
	}
}
