//go:build linux

package lab

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const (
	// idleBytesMax is what an idle connection may take of the broker's process, all in all.
	idleBytesMax = 8 << 10

	// idlePerProcess is what one client process opens at most: it may have 20,000 descriptors, and an address 28,000 ports.
	idlePerProcess = 10_000

	// idleLook is between two looks at how far it is: each starts a program.
	idleLook = 300 * time.Millisecond

	// idlePatience bounds the opening of all connections: one process after the other, for each has half a minute for its own.
	idlePatience = 5 * time.Minute
)

// TestIdleConnections: 6,000 clients, 100,000 in the long run, of several processes and source addresses, connect to one
// broker's process over a veth pair and stay. The process takes at most 8 KiB for each; each is alive at the end.
func TestIdleConnections(t *testing.T) {
	connections, processes := 6_000, 2
	if long() {
		connections = 100_000
		processes = (connections + idlePerProcess - 1) / idlePerProcess
	}
	s := newScene(t, 2)
	b := s.serve("--memory", "3GiB", "--max-connections", fmt.Sprint(connections+1000))
	s.connect(s.Broker4, "first").alive()
	time.Sleep(time.Second) // What the start has set free has gone.
	residentBefore, began := b.residentBytes(), time.Now()
	var runs []*bench
	for i, open := 0, 0; i < processes; i++ {
		n := min(connections-open, (connections+processes-1)/processes)
		open += n
		source := fmt.Sprintf("%s%d", strings.TrimSuffix(s.Client4, "2"), 10+i)
		s.client("ip address add %s/24 dev %s", source, s.ClientIf)
		runs = append(runs, s.startBench(s.Broker4, "--scenario", "idle", "-n", fmt.Sprint(n), "--source", source,
			"--time", (2*idlePatience).String(), "--parallel", "32"))
		for b.lane().established() < uint64(open+1) && time.Since(began) < idlePatience {
			checkRunning(t, runs)
			time.Sleep(idleLook)
		}
	}
	opened := time.Since(began)
	time.Sleep(2 * time.Second)
	lane, resident := b.lane(), b.residentBytes()
	each := (resident - residentBefore) / int64(connections)
	t.Logf("%d idle connections, opened in %v by %d processes: %d bytes of the process each; %d MiB resident", connections, opened.Round(time.Second),
		processes, each, resident>>20)
	for _, q := range lane.Queues {
		t.Logf("queue %d: %d established, %d retransmits, %d half open", q.Queue, q.TCP.Established, q.TCP.Retransmits, q.TCP.HalfOpen)
	}
	if each > idleBytesMax {
		t.Errorf("an idle connection takes %d bytes; want at most %d", each, idleBytesMax)
	}
	if n := lane.established(); n != uint64(connections+1) || lane.KernelFlows > 0 {
		t.Errorf("%d connections are established in XDP mode, %d by the kernel; want %d and 0", n, lane.KernelFlows, connections+1)
	}
	s.connect(s.Broker4, "last").alive()
	checkRunning(t, runs)
	checkConservation(t, b.lane())
}

// checkRunning fails when a client process has ended, as it does when one of its connections is lost or refused.
func checkRunning(t *testing.T, runs []*bench) {
	t.Helper()
	for _, run := range runs {
		if !run.isRunning() {
			t.Fatalf("%v has ended: %v: %s", run.cmd.Args, run.fault, &run.err)
		}
	}
}
