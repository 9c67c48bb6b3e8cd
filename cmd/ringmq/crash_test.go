//go:build linux

package main

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker/crashtest"
)

// TestKillAndRecover kills the broker (SIGKILL) again and again under a load of QoS 1 and 2 and starts it anew on its directory: nothing that
// it acknowledged is lost, nothing of QoS 2 comes twice; package crashtest says what else is promised. RINGMQ_LONG makes it 200 times.
func TestKillAndRecover(t *testing.T) {
	cycles := 10
	if os.Getenv("RINGMQ_LONG") != "" {
		cycles = 200
	}
	program := buildRaced(t)
	for _, durability := range []string{"fsync", "os"} {
		t.Run(durability, func(t *testing.T) { killAndRecover(t, program, cycles, durability) })
	}
}

func killAndRecover(t *testing.T, program string, cycles int, durability string) {
	dir, port, address := t.TempDir(), unusedPort(t), ""
	f := crashtest.NewFleet(func() (net.Conn, error) { return net.Dial("tcp", address) })
	defer f.HangUp()
	var slowest time.Duration
	run := func() *running {
		start := time.Now()
		p := startProgram(t, program, "serve", "-p", port, "--shards", "2", "--memory", "256MiB", "--data", dir, "--durability", durability, "--admin", "none")
		slowest = max(slowest, time.Since(start))
		address = p.address
		return p
	}
	for i := range cycles {
		p := run()
		if err := f.Run(time.Duration(100+i*37%300) * time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for line := range p.lines { // to the end of what it had to say
			if strings.Contains(line, "DATA RACE") || strings.Contains(line, "panic") {
				t.Error("the broker says: ", line)
			}
		}
		_ = p.cmd.Wait()
	}
	time.Sleep(2 * crashtest.BriefInterval) // what may run out does, with nobody there to see it
	run()
	if err := f.Settle(30 * time.Second); err != nil {
		t.Error(err)
	}
	if problems := f.Problems(); len(problems) > 0 {
		t.Errorf("%d problems: %s", len(problems), strings.Join(problems[:min(len(problems), 10)], "; "))
	}
	if err := crashtest.Whole(dir); err != nil {
		t.Error(err)
	}
	tally := f.Tally()
	t.Logf("%d kills, slowest start %v: %+v", cycles, slowest.Round(time.Millisecond), tally)
	if tally.Acknowledged < cycles {
		t.Error("too few were acknowledged to mean anything")
	}
}
