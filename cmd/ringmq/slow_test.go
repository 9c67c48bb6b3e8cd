//go:build linux

package main

import (
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
)

// TestSlowReaderCostsOnlyItself has subscribers of everything that never read, at QoS 0 and at QoS 1, beside clients
// that exchange half a million messages: those lose none, and the slow ones cost no more than their limits.
func TestSlowReaderCostsOnlyItself(t *testing.T) {
	if testing.Short() {
		t.Skip("half a million messages: left out by -short")
	}
	p := startProgram(t, buildProgram(t), "serve", "-p", unusedPort(t), "--shards", "2", "--memory", "256MiB")
	p.run(t, 0, 10_000)
	before := residentBytes(t, p.cmd.Process.Pid)
	const slow = 4
	for i := range slow {
		p.neverRead(t, byte(i%2))
	}
	p.run(t, 0, 400_000)
	p.run(t, 1, 100_000)
	if err := p.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	t.Log(p.waitLine(t, "msg=state"))
	// Each may have an outbound buffer of 1 MiB and a queue of a thousand messages of a page's fraction each.
	const limit = slow * (2 << 20)
	if grown := residentBytes(t, p.cmd.Process.Pid) - before; grown > limit {
		t.Errorf("the broker grew by %d bytes behind %d clients that do not read, want at most %d", grown, slow, limit)
	}
}

// neverRead connects a subscriber of everything that reads nothing after SUBACK.
func (p *running) neverRead(t *testing.T, qos byte) {
	t.Helper()
	c, err := net.Dial("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.(*net.TCPConn).SetReadBuffer(4096)
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	b := packet.AppendConnect(nil, &packet.Connect{Version: packet.V311, CleanStart: true})
	b = packet.AppendSubscribe(b, &packet.Subscribe{PacketID: 1},
		[]packet.Subscription{{Filter: []byte("#"), Options: packet.Options{QoS: qos}}}, packet.V311)
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 9) // CONNACK and SUBACK
	for n := 0; n < len(got); {
		k, err := c.Read(got[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += k
	}
	if got[8] != qos {
		t.Fatalf("CONNACK and SUBACK: % x", got)
	}
}
