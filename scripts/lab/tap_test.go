//go:build linux

package lab

import (
	"os"
	"os/exec"
	"slices"
	"testing"
)

// TestCaptureCost measures in the long run what a capture costs: pairs with 16 messages in flight, as fast as they go, with no
// capture, with one of a client that is silent, with one of the heads of all frames, and with one of all of every frame, in turn.
// Nothing is lost or comes twice in any of them; the rates are logged, for they depend on how many processors there are for the one who
// writes the file.
func TestCaptureCost(t *testing.T) {
	if !long() {
		t.Skip("RINGMQ_LONG=1")
	}
	const rounds = 5
	s := newScene(t, 1)
	b := s.serve()
	s.connect(s.Broker4, "silent")
	captures := []struct {
		name      string
		arguments []string
	}{
		{"no capture", nil},
		{"a silent client", []string{"--client", "silent"}},
		{"96 bytes of all", []string{"--snaplen", "96"}},
		{"all of all", []string{"--snaplen", "2048"}},
	}
	rates, costs := make([][]float64, len(captures)), make([][]float64, len(captures))
	for range rounds {
		for i, c := range captures {
			end := func() {}
			if c.arguments != nil {
				end = b.capture(c.arguments...)
			}
			r := s.startBench(s.Broker4, "-n", "50", "-q", "0", "--window", "16", "--time", "2s").clean()
			end()
			rates[i] = append(rates[i], r.PerSecond)
			costs[i] = append(costs[i], float64(r.MachineCPU.Microseconds())/float64(r.Delivered))
		}
	}
	for i, c := range captures {
		t.Logf("%-16s %9.0f messages/s, %.2f of no capture, %.2f µs of the machine a message", c.name,
			median(rates[i]), median(rates[i])/median(rates[0]), median(costs[i]))
	}
	checkConservation(t, b.lane())
}

// capture starts a capture to nowhere and returns what ends it.
func (b *process) capture(arguments ...string) (end func()) {
	b.t.Helper()
	cmd := exec.Command(program, append([]string{"capture", "--admin", b.admin, "-w", os.DevNull}, arguments...)...)
	dieWithTest(cmd)
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	return func() {
		_ = cmd.Process.Signal(os.Interrupt) // It may have ended, which Wait tells.
		if err := cmd.Wait(); err != nil {
			b.t.Errorf("ringmq capture %q: %v", arguments, err)
		}
	}
}

func median(all []float64) float64 {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}
