//go:build linux

package lab

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	// interopMax bounds one run of all scenes, which takes half a minute.
	interopMax = 5 * time.Minute

	// interopSmoke are scenes that touch all of a connection's life without waiting long.
	interopSmoke = "qos2,large,retained,shared,session,reconnect,will,takeover,close,send-quota,cross"

	inLong = "long" // for rows that only the long run has

	// interopConfig is what the scenes need of a broker: package interop gives its own the same.
	interopConfig = "receive_maximum = 20\ntopic_alias_maximum = 16\n"
)

// TestInterop plays the scenes of scripts/interop, with every client that is installed, against brokers in XDP mode: all of
// them over one queue and IPv4, a few over four queues and IPv6, and in generic mode; in the long run all of them everywhere.
// No cell fails. The runs go side by side: most of their time they wait.
func TestInterop(t *testing.T) {
	s := newScene(t, 1)
	runner := filepath.Join(t.TempDir(), "interop")
	if out, err := exec.Command("go", "build", "-o", runner, "../interop").CombinedOutput(); err != nil {
		t.Fatalf("build interop: %v\n%s", err, out)
	}
	// The clients' namespace has no way to a registry.
	if out, err := exec.Command(runner, "--install").CombinedOutput(); err != nil {
		t.Fatalf("interop --install: %v\n%s", err, out)
	}
	config := filepath.Join(t.TempDir(), "ringmq.toml")
	if err := os.WriteFile(config, []byte(interopConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("rows", func(t *testing.T) {
		for _, row := range []struct {
			mode   string
			queues int
			family string
			scenes string
		}{
			{"native", 1, "4", ""},
			{"native", 4, "6", interopSmoke},
			{"generic", 1, "4", interopSmoke},
			{"native", 4, "4", inLong},
			{"native", 1, "6", inLong},
			{"generic", 4, "6", inLong},
		} {
			switch {
			case long():
				row.scenes = ""
			case row.scenes == inLong:
				continue
			}
			t.Run(fmt.Sprintf("%s,queues=%d,IPv%s", row.mode, row.queues, row.family), func(t *testing.T) {
				t.Parallel()
				pair, err := s.NewPair(row.queues)
				if err != nil {
					t.Fatal(err)
				}
				here := &scene{Lab: s.Lab, Pair: pair, t: t}
				address := net.JoinHostPort(map[string]string{"4": pair.Broker4, "6": pair.Broker6}[row.family], "1883")
				b := here.serveAt(address, "-c", config, "--xdp-require", "any", "--xdp-limit", row.mode)
				if mode := b.lane().Mode; !strings.HasPrefix(mode, row.mode) {
					t.Fatalf("the mode is %q", mode)
				}
				checkInterop(t, here, runner, address, row.scenes)
				lane := b.lane()
				if n := lane.sum(func(q queueReport) uint64 { return q.TCP.Accepted }); n == 0 || lane.KernelFlows > 0 {
					t.Errorf("%d connections came through the rings, %d through the kernel", n, lane.KernelFlows)
				}
			})
		}
	})
}

// checkInterop runs the scenes (empty: all) in the clients' namespace.
func checkInterop(t *testing.T, s *scene, runner, address, scenes string) {
	t.Helper()
	arguments := []string{runner, "--address", address, "--json"}
	if scenes != "" {
		arguments = append(arguments, "--scene", scenes)
	}
	cmd := s.InClient(arguments...)
	dieWithTest(cmd)
	timer := time.AfterFunc(interopMax, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	var errors strings.Builder
	cmd.Stderr = &errors
	out, failure := cmd.Output()
	var report struct {
		Clients []struct{ Client, Version string }
		Missing []struct{ Client, Needs string }
		Cells   []struct{ Scene, Client, Protocol, State, Why string }
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("%v: %v: %v\n%s%s", cmd.Args, failure, err, out, &errors)
	}
	count := map[string]int{}
	for _, c := range report.Cells {
		if count[c.State]++; c.State == "fails" {
			t.Errorf("%s %s, %s: %s", c.Client, c.Protocol, c.Scene, c.Why)
		}
	}
	for _, m := range report.Missing {
		t.Logf("%s is missing: install %s", m.Client, m.Needs)
	}
	t.Logf("%d clients: %d cells pass, %d fail, %d cannot be", len(report.Clients), count["ok"], count["fails"], count["none"])
	if failure != nil || count["ok"] == 0 {
		t.Errorf("%v: %v\n%s", cmd.Args, failure, &errors)
	}
}
