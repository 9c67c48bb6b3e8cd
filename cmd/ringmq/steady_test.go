//go:build linux

package main

import (
	"net/netip"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/ringmq/ringmq/perf/load"
)

// steadyMessages is how many messages pass through the broker between two looks at its collector.
const steadyMessages = 10_000_000

// TestSteadyStateCollectsNothing passes ten million messages through a running broker and finds that its Go runtime has
// not collected garbage once, because there is none.
func TestSteadyStateCollectsNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("ten million messages: left out by -short")
	}
	p := startProgram(t, buildProgram(t), "serve", "-p", unusedPort(t), "--shards", "2")
	p.run(t, 0, steadyMessages/100)
	before, heapBefore := p.collections(t)
	for qos, count := range []int64{steadyMessages * 8 / 10, steadyMessages / 10, steadyMessages / 10} {
		p.run(t, byte(qos), count)
	}
	after, heapAfter := p.collections(t)
	t.Logf("%d messages: %d collections, heap %d to %d bytes", steadyMessages, after-before, heapBefore, heapAfter)
	if after != before {
		t.Errorf("%d collections in %d messages, want none", after-before, steadyMessages)
	}
}

// run passes count messages through the broker and checks that all of them arrive once and in order.
func (p *running) run(t *testing.T, qos byte, count int64) {
	t.Helper()
	target := netip.MustParseAddrPort(p.address)
	r, err := load.Run(t.Context(), load.Config{Target: target, QoS: qos, Count: count, Connections: 50,
		Duration: 5 * time.Minute}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Lost+r.Duplicated+r.Reordered+r.Corrupt+r.Unacknowledged+r.Refused != 0 || r.Delivered < count {
		t.Fatalf("QoS %d: %d of %d delivered; lost %d, duplicated %d, reordered %d, corrupt %d, unacknowledged %d, refused %d",
			qos, r.Delivered, count, r.Lost, r.Duplicated, r.Reordered, r.Corrupt, r.Unacknowledged, r.Refused)
	}
}

var stateLine = regexp.MustCompile(`collections=(\d+) heap_bytes=(\d+)`)

// collections asks the broker for its state (SIGUSR2) and reads the collector's count from the answer.
func (p *running) collections(t *testing.T) (count, heapBytes int64) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	m := stateLine.FindStringSubmatch(p.waitLine(t, "msg=state"))
	count, _ = strconv.ParseInt(m[1], 10, 64)
	heapBytes, _ = strconv.ParseInt(m[2], 10, 64)
	return count, heapBytes
}
