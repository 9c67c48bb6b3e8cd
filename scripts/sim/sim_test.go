package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	root      = "../.."
	bugFolder = "../../broker/sim/testdata/bugs"

	sampledBugs = 2    // that the ordinary test plants
	huntSeeds   = 1000 // in which a bug must be found
)

// TestBugsApply makes sure that every bug still fits the engine.
func TestBugsApply(t *testing.T) {
	list, err := bugs(bugFolder)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 10 {
		t.Errorf("only %d bugs", len(list))
	}
	for _, b := range list {
		if files, err := b.apply(root); err != nil || len(files) == 0 || b.what == "" {
			t.Errorf("%s: %d files: %v", b.name, len(files), err)
		}
	}
}

// TestPlantedBugs plants bugs, one at a time: the simulation must find each, or the test that it names. All of them with RINGMQ_LONG=1, otherwise two.
func TestPlantedBugs(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: each bug is a build of its own")
	}
	list, err := bugs(bugFolder)
	if err != nil {
		t.Fatal(err)
	}
	long := os.Getenv("RINGMQ_LONG") != ""
	planted := 0
	for _, b := range list {
		if !long && b.name != "pubrel" && b.name != "hand-over-swapped" {
			continue
		}
		planted++
		rule, seeds, err := b.hunt(context.Background(), root, huntSeeds)
		if err != nil || rule == "" {
			t.Errorf("%s: not found in %d seeds, or by its test %q: %v", b.name, huntSeeds, b.test, err)
			continue
		}
		t.Logf("%s: found after %d seeds: %s", b.name, seeds, rule)
	}
	if !long && planted != sampledBugs {
		t.Errorf("%d bugs planted, want %d", planted, sampledBugs)
	}
}

// TestCommand plays a few seeds and a script as the command line asks for.
func TestCommand(t *testing.T) {
	var out, errs strings.Builder
	if status := run(context.Background(), []string{"-seeds", "3", "-jobs", "2"}, &out, &errs); status != 0 || !strings.Contains(out.String(), "3 seeds") {
		t.Errorf("status %d: %s%s", status, &out, &errs)
	}
	script := filepath.Join(t.TempDir(), "script.txt")
	for text, want := range map[string]int{"world\nconnect c0\nturn\n": 0, "world\nfly\n": statusUsage} {
		if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if status := run(context.Background(), []string{"-script", script}, &out, &errs); status != want {
			t.Errorf("%q: status %d, want %d: %s", text, status, want, &errs)
		}
	}
	if status := run(context.Background(), []string{"-fly"}, &out, &errs); status != statusUsage {
		t.Errorf("an unknown flag: status %d", status)
	}
}
