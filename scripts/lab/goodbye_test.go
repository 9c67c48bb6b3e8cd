//go:build linux

package lab

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stopMax is how long a broker may take to stop on a machine that does nothing else: the grace for its clients, and two seconds.
const stopMax = 5 * time.Second

// TestStopCrowd: a broker with 4,000 idle clients, 60,000 in the long run, is told to stop. It says goodbye and ends soon, although
// its clients all leave at once when the first is told to.
func TestStopCrowd(t *testing.T) {
	connections := 4000
	if long() {
		connections = 60_000
	}
	processes := (connections + idlePerProcess - 1) / idlePerProcess
	s := newScene(t, 2)
	b := s.serve("--memory", "3GiB", "--max-connections", fmt.Sprint(connections+1000))
	began := time.Now()
	for i, open := 0, 0; i < processes; i++ {
		n := min(connections-open, (connections+processes-1)/processes)
		open += n
		source := fmt.Sprintf("%s%d", strings.TrimSuffix(s.Client4, "2"), 10+i)
		s.client("ip address add %s/24 dev %s", source, s.ClientIf)
		run := s.startBench(s.Broker4, "--scenario", "idle", "-n", fmt.Sprint(n), "--source", source,
			"--time", (2 * idlePatience).String(), "--parallel", "32")
		for b.lane().established() < uint64(open) && time.Since(began) < idlePatience {
			checkRunning(t, []*bench{run})
			time.Sleep(idleLook)
		}
	}
	t.Logf("%d connections after %v", connections, time.Since(began).Round(time.Second))
	began = time.Now()
	b.signal(syscall.SIGTERM)
	for !b.isEnded() && time.Since(began) < idlePatience {
		time.Sleep(pollEvery)
	}
	t.Logf("%d connections are ended after %v", connections, time.Since(began))
	if took := time.Since(began); long() && took > stopMax {
		t.Errorf("that took %v; want at most %v", took, stopMax)
	}
}
