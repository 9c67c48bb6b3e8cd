//go:build linux

package main

import (
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker/crashtest"
	"github.com/ringmq/ringmq/broker/packet"
)

// wire is a Client's connection to a real broker.
type wire struct {
	client *crashtest.Client
	net    net.Conn
	came   chan []byte // nil chunk: the connection ended
}

// fleet drives Clients against a real broker, from one goroutine.
type fleet struct {
	t       *testing.T
	ledger  *crashtest.Ledger
	wires   []*wire
	address string
}

func newFleet(t *testing.T) *fleet {
	f := &fleet{t: t, ledger: crashtest.NewLedger()}
	for _, c := range []*crashtest.Client{
		crashtest.NewClient(f.ledger, "s1", packet.V50, "t/#", ""), crashtest.NewClient(f.ledger, "s2", packet.V311, "t/+", ""),
		crashtest.NewClient(f.ledger, "p1", packet.V50, "", "t/a"), crashtest.NewClient(f.ledger, "p2", packet.V311, "", "t/b"),
		crashtest.NewClient(f.ledger, "p3", packet.V50, "", "t/c"),
	} {
		f.wires = append(f.wires, &wire{client: c})
	}
	f.wires[3].client.Padding = 500
	return f
}

// dial connects who is not connected. A broker that has just been killed refuses: that is tried again.
func (f *fleet) dial() {
	for _, w := range f.wires {
		if w.net != nil {
			continue
		}
		c, err := net.Dial("tcp", f.address)
		if err != nil {
			continue
		}
		w.net, w.came = c, make(chan []byte, 64)
		go func(came chan []byte) {
			for {
				b := make([]byte, 32<<10)
				n, err := c.Read(b)
				if n > 0 {
					came <- b[:n]
				}
				if err != nil {
					close(came)
					return
				}
			}
		}(w.came)
		f.write(w, w.client.Connect())
	}
}

func (f *fleet) write(w *wire, b []byte) {
	if w.net != nil && len(b) > 0 {
		_, _ = w.net.Write(b) // a broken connection is found out by its reader
	}
}

// turn takes what came and publishes some more.
func (f *fleet) turn(publish bool, n int) {
	f.dial()
	subscribed := f.wires[0].client.Subscribed() && f.wires[1].client.Subscribed()
	for _, w := range f.wires {
		f.take(w)
		if publish && subscribed && w.client.Topic != "" {
			f.write(w, w.client.Publish(byte(1+n%2)))
		}
	}
	time.Sleep(200 * time.Microsecond)
}

func (f *fleet) take(w *wire) {
	for w.net != nil {
		select {
		case b, ok := <-w.came:
			if !ok {
				_ = w.net.Close()
				w.net, w.client.Live = nil, false
				return
			}
			out, err := w.client.Feed(b)
			if err != nil {
				f.t.Fatal(err)
			}
			f.write(w, out)
		default:
			return
		}
	}
}

// settle goes on until everything that was acknowledged has arrived.
func (f *fleet) settle(patience time.Duration) {
	for until := time.Now().Add(patience); time.Now().Before(until); {
		f.turn(false, 0)
		pending := 0
		for _, w := range f.wires {
			pending += w.client.Pending()
		}
		if pending == 0 && f.ledger.Missing([]string{"s1", "s2"}) == 0 {
			return
		}
	}
}

// TestKillAndRecover kills the broker (SIGKILL) again and again under a load of QoS 1 and 2 and starts it anew on its directory: nothing that
// it acknowledged is lost, nothing of QoS 2 comes twice. RINGMQ_LONG makes it 200 times.
func TestKillAndRecover(t *testing.T) {
	cycles := 10
	if os.Getenv("RINGMQ_LONG") != "" {
		cycles = 200
	}
	program := buildProgram(t)
	for _, durability := range []string{"fsync", "os"} {
		t.Run(durability, func(t *testing.T) { killAndRecover(t, program, cycles, durability) })
	}
}

func killAndRecover(t *testing.T, program string, cycles int, durability string) {
	dir, port := t.TempDir(), unusedPort(t)
	f := newFleet(t)
	var slowest atomic.Int64
	run := func() *running {
		start := time.Now()
		p := startProgram(t, program, "serve", "-p", port, "--shards", "2", "--memory", "256MiB", "--data", dir, "--durability", durability, "--admin", "none")
		slowest.Store(max(slowest.Load(), time.Since(start).Milliseconds()))
		f.address = p.address
		return p
	}
	for i := range cycles {
		p := run()
		until := time.Now().Add(time.Duration(100+i*37%300) * time.Millisecond)
		for n := 0; time.Now().Before(until); n++ {
			f.turn(true, n)
		}
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = p.cmd.Wait()
	}
	run()
	f.settle(30 * time.Second)
	if problems := f.ledger.Problems([]string{"s1", "s2"}); len(problems) > 0 {
		t.Errorf("%d problems: %s", len(problems), strings.Join(problems[:min(len(problems), 10)], "; "))
	}
	n := f.ledger.Acknowledged()
	t.Logf("%d kills, %d messages acknowledged, slowest start %d ms", cycles, n, slowest.Load())
	if n < cycles {
		t.Errorf("only %d messages were acknowledged", n)
	}
}
