package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ringmq/ringmq/scripts/lab"
)

// overloadTimeout bounds the checks of one mode on a machine that has much else to do.
const overloadTimeout = 8 * time.Minute

// TestOverloadPolicies has every aggressor attack the real broker in both modes: each gets the answer that is promised, its
// counter moves, the victims lose nothing and the memory stays inside the plan. Nothing depends on time.
func TestOverloadPolicies(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute for each mode: left out by -short")
	}
	self, broker := buildBoth(t)
	for _, mode := range []string{modeStandard, modeXDP} {
		t.Run(mode, func(t *testing.T) {
			if why := lab.Missing(); mode == modeXDP && why != "" {
				t.Skip(why)
			}
			ctx, cancel := context.WithTimeout(t.Context(), overloadTimeout)
			defer cancel()
			output, err := exec.CommandContext(ctx, self, "overload", "--check", "--mode", mode, "--ringmq", broker,
				"--broker-cpu", "-1", "--load-cpu", "-1").CombinedOutput()
			if err != nil {
				t.Fatalf("%v:\n%s", err, output)
			}
			t.Logf("%s", output)
		})
	}
}

// buildBoth builds this program, which starts itself as others, and the broker.
func buildBoth(t *testing.T) (self, broker string) {
	t.Helper()
	dir := t.TempDir()
	self, broker = filepath.Join(dir, "perf"), filepath.Join(dir, "ringmq")
	goBuild(t, self, ".")
	goBuild(t, broker, "../cmd/ringmq")
	return self, broker
}

// goBuild builds a program. It skips where there is nothing to build with.
func goBuild(t *testing.T, program, from string) {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip(err)
	}
	if output, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, from).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
}
