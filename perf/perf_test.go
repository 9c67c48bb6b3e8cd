package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/perf/load"
)

func TestMedian(t *testing.T) {
	for _, row := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(row.values); got != row.want {
			t.Errorf("median of %v: %v", row.values, got)
		}
	}
}

func TestEveryComparisonHasAName(t *testing.T) {
	all, err := chosen("all")
	if err != nil || len(all) != len(comparisons()) {
		t.Fatal(err)
	}
	some, err := chosen("idle,pairs")
	if err != nil || len(some) != 2 || some[0].name != "idle" {
		t.Error(some, err)
	}
	if _, err := chosen("pairs,sideways"); err == nil || !strings.Contains(err.Error(), "sideways") {
		t.Error(err)
	}
}

// TestCompareRelay builds this program and lets it compare its own relay, processes and all.
func TestCompareRelay(t *testing.T) {
	dir := t.TempDir()
	binary, report := filepath.Join(dir, "perf"), filepath.Join(dir, "report.json")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	goBuild(t, binary, ".")
	output, err := exec.CommandContext(ctx, binary, "compare", "--scenario", "pairs,pairs-q2,fanout-100,storm",
		"--targets", "relay", "--rounds", "1", "--seconds", "0.2", "--broker-cpu", "-1", "--load-cpu", "-1", "--json", report).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	b, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var measurements []struct {
		Scenario, Target, Failure string
		Result                    *load.Result
	}
	if err := json.Unmarshal(b, &measurements); err != nil {
		t.Fatal(err)
	}
	if len(measurements) != 4 {
		t.Errorf("%d measurements: %s", len(measurements), output)
	}
	for _, m := range measurements {
		if m.Result == nil || m.Result.Delivered == 0 || m.Result.Lost != 0 || m.Result.PerTargetCPUSecond == 0 {
			t.Errorf("%s: %s %+v", m.Scenario, m.Failure, m.Result)
		}
	}
}

func TestBadCommands(t *testing.T) {
	for _, row := range []struct{ command, says string }{
		{"", "no command"},
		{"walk", "walk"},
		{"relay 0", "relay"},
		{"relay --fault burn 0 pairs", "burn"},
		{"compare --scenario nothing", "nothing"},
		{"overload --scenario nothing", "nothing"},
		{"overload --mode sideways", "sideways"},
		{"overload --rounds 0", "rounds"},
		{"soak --minutes 0", "minutes"},
		{"compare --targets nobody", "nobody"},
		{"compare --targets relay --relay /does/not/exist", "/does/not/exist"},
	} {
		err := dispatch(t.Context(), strings.Fields(row.command))
		if err == nil || !strings.Contains(err.Error(), row.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("perf %s: want one line about %q, got %v", row.command, row.says, err)
		}
	}
}
