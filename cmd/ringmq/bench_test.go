//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/perf/load"
	"github.com/ringmq/ringmq/perf/relay"
)

func portOf(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// TestBenchScenarios runs every scenario against the real broker, and reads what a person and what a program gets.
func TestBenchScenarios(t *testing.T) {
	broker := startProgram(t, buildProgram(t), "serve", "-p", unusedPort(t))
	port, pid := portOf(t, broker.address), strconv.Itoa(broker.cmd.Process.Pid)
	for _, c := range []struct {
		arguments string
		report    []string // on standard output, for people
	}{
		{"-s pairs -n 10 -w 4 -q 2 -t 200ms", []string{"10 pairs", "QoS 2", "0 lost, 0 doubled, 0 out of order, 0 corrupt", "p99.9", "acknowledged"}},
		{"-s fanout -n 20 -V 5 --payload 100 -t 200ms --drain 9s", []string{"fan-out 1 to 20", "100 B"}},
		{"-s fanin -n 20 -q 1 --count 1000 --cpu 0", []string{"fan-in 20 to 1"}},
		{"-s pairs -n 5 -r 500 -t 400ms --warm-up 0s --pid " + pid, []string{"open loop at 500/s", "broker CPU"}},
		{"-s storm -n 8 -t 200ms --source 127.0.0.2 --source 127.0.0.3", []string{"8 at a time", "connects"}},
		{"-s idle -n 50 -t 200ms --parallel 5 --pid " + pid, []string{"50 open in", "bytes per connection"}},
		{"-s retained --messages 100 -t 200ms", []string{"of 100 messages each", "0 lost"}},
	} {
		arguments := append([]string{"bench", "-h", "localhost", "-p", port}, strings.Fields(c.arguments)...)
		stdout, stderr, code := ringmq(t, append(arguments, "--quiet")...)
		if code != 0 || stderr != "" {
			t.Errorf("%s: exit code %d, %q", c.arguments, code, stderr)
		}
		for _, w := range c.report {
			if !strings.Contains(stdout, w) {
				t.Errorf("%s: no %q in\n%s", c.arguments, w, stdout)
			}
		}
		stdout, _, code = ringmq(t, append(arguments, "--json")...)
		var r load.Result
		if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != 0 {
			t.Fatalf("%s --json: exit code %d, %v: %s", c.arguments, code, err, stdout)
		}
		if r.Config.Scenario != load.Idle && (r.Delivered == 0 || r.Latency.Count == 0 || r.PerSecond == 0) {
			t.Errorf("%s: nothing measured: %+v", c.arguments, r)
		}
	}
}

// TestBenchShowsProgress: a line a second where standard error is no terminal.
func TestBenchShowsProgress(t *testing.T) {
	broker := startProgram(t, buildProgram(t), "serve", "-p", unusedPort(t))
	_, stderr, code := ringmq(t, "bench", "-p", portOf(t, broker.address), "-n", "2", "-t", "2500ms")
	if code != 0 || strings.Count(stderr, "\n") < 2 || !strings.Contains(stderr, "measuring") || !strings.Contains(stderr, "p99") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}

// TestBenchCatchesFaults: a relay that drops, doubles or swaps every thousandth message is found out, and the exit
// status says so.
func TestBenchCatchesFaults(t *testing.T) {
	for fault, word := range map[relay.Fault]string{relay.Drop: "lost", relay.Double: "doubled", relay.Swap: "out of order"} {
		r, err := relay.New(relay.Config{Listen: netip.MustParseAddrPort("127.0.0.1:0"), Fault: fault, FaultEvery: 1000})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		stdout, stderr, code := ringmq(t, "bench", "-p", fmt.Sprint(r.Addr().Port()), "-n", "4", "--warm-up", "0s", "--count", "20000", "--quiet")
		made := r.Faults()
		cancel()
		<-ended
		if code != benchUnclean || made < 10 || !strings.Contains(stdout, fmt.Sprintf(" %d %s", made, word)) {
			t.Errorf("%s: %d faults made, exit code %d, %s%s", fault, made, code, stdout, stderr)
		}
	}
}

// TestBenchRefused: a broker that is not there, refuses, or goes away gets one line.
func TestBenchRefused(t *testing.T) {
	users := inFile(t, "")
	if _, stderr, code := ringmq(t, "passwd", "-b", users, "alice", "secret"); code != 0 {
		t.Fatal(stderr)
	}
	broker := startProgram(t, buildProgram(t), "serve", "--listen", "127.0.0.1:"+unusedPort(t), "--passwords", users)
	port := portOf(t, broker.address)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	go func() {
		for {
			c, err := silent.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	for _, r := range []refusal{
		{"nobody there", []string{"-p", unusedPort(t)}, []string{"refused"}},
		{"unknown host", []string{"-h", "no.such.host.invalid"}, []string{"no.such.host.invalid"}},
		{"anonymous", []string{"-p", port}, []string{"not authorized", "User Name"}},
		{"wrong password", []string{"-p", port, "-u", "alice", "-P", "wrong", "-V", "5", "-n", "1"}, []string{"0x86"}},
		{"closes", []string{"-p", portOf(t, silent.Addr().String())}, []string{"closed"}},
		{"descriptors", []string{"-p", port, "-u", "alice", "-P", "secret", "-s", "idle", "-n", "1000000"}, []string{"descriptors", "ulimit"}},
		{"no such process", []string{"-p", port, "-u", "alice", "-P", "secret", "-n", "1", "--pid", "4194305", "-t", "100ms"}, []string{"4194305"}},
	} {
		stdout, stderr, code := ringmq(t, append([]string{"bench", "--quiet"}, r.arguments...)...)
		t.Run(r.name, func(t *testing.T) { checkRefusal(t, r.words, stdout, stderr, code) })
	}
	if stdout, stderr, code := ringmq(t, "bench", "--quiet", "-p", port, "-u", "alice", "-P", "secret", "-n", "2", "-t", "100ms"); code != 0 {
		t.Errorf("the right password: exit code %d, %s%s", code, stdout, stderr)
	}
}

// TestBenchBrokerDies: the broker ends in the middle of a run.
func TestBenchBrokerDies(t *testing.T) {
	broker := startProgram(t, buildProgram(t), "serve", "-p", unusedPort(t))
	bench := startTool(t, nil, nil, "bench", "-p", portOf(t, broker.address), "-n", "10", "-t", "30s")
	bench.waitLine(t, "measuring")
	_ = broker.cmd.Process.Kill()
	stdout, stderr, code := bench.wait(t)
	lines := strings.SplitAfter(strings.TrimSpace(stderr), "\n")
	stderr = lines[len(lines)-1] + "\n" // behind those of the progress
	checkRefusal(t, []string{"bench:"}, stdout, stderr, code)
	if !strings.Contains(stderr, "closed") && !strings.Contains(stderr, "reset") {
		t.Errorf("does not say that the broker closed: %q", stderr)
	}
}

// TestBenchInterrupted: Ctrl-C ends a run, and what it stored is cleared all the same.
func TestBenchInterrupted(t *testing.T) {
	broker := startProgram(t, buildProgram(t), "serve", "-p", unusedPort(t))
	port := portOf(t, broker.address)
	bench := startTool(t, nil, nil, "bench", "-p", port, "-s", "retained", "--messages", "500", "-t", "30s")
	bench.waitLine(t, "measuring")
	if err := bench.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := bench.wait(t); code != 1 || !strings.Contains(stderr, "interrupted") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	if stdout, _, _ := ringmq(t, "sub", "-p", port, "-t", "+/r/#", "-F", "%t", "-C", "1", "-W", "1"); stdout != "" {
		t.Errorf("a Retained Message is left: %s", stdout)
	}
}
