package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// interruptFiles stand for /proc/irq, with the affinity that each interrupt has.
func interruptFiles(t *testing.T, affinities map[int]string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	for irq, list := range affinities {
		path := filepath.Join(folder, strconv.Itoa(irq))
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, "smp_affinity_list"), []byte(list+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func checkAffinities(t *testing.T, folder string, want map[int]string) {
	t.Helper()
	for irq, list := range want {
		got, err := os.ReadFile(filepath.Join(folder, strconv.Itoa(irq), "smp_affinity_list"))
		if err != nil || strings.TrimSpace(string(got)) != list {
			t.Errorf("interrupt %d is on %q (%v), want %q", irq, got, err, list)
		}
	}
}

// TestInterruptsArePinned: the queues' interrupts go to the processors in turn, a queue without one takes its turn, other
// interrupts stay where they are, and restore puts all back.
func TestInterruptsArePinned(t *testing.T) {
	before := map[int]string{40: "0-3", 41: "0-3", 43: "2", 50: "0-3"}
	folder := interruptFiles(t, before)
	restore, err := setAffinities(folder, []int{0, 1, 2, 3}, map[int]int{0: 40, 1: 41, 3: 43}, []int{5, 6})
	if err != nil {
		t.Fatal(err)
	}
	checkAffinities(t, folder, map[int]string{40: "5", 41: "6", 43: "6", 50: "0-3"})
	restore()
	checkAffinities(t, folder, before)
}

// TestInterruptsAreHalfPinned: one interrupt cannot be set. The error names its queue, and restore puts back what was set before.
func TestInterruptsAreHalfPinned(t *testing.T) {
	before := map[int]string{40: "0-3"}
	folder := interruptFiles(t, before)
	restore, err := setAffinities(folder, []int{0, 1}, map[int]int{0: 40, 1: 41}, []int{5})
	if err == nil || !strings.Contains(err.Error(), "queue 1") {
		t.Errorf("an interrupt that is not there: %v", err)
	}
	checkAffinities(t, folder, map[int]string{40: "5"})
	restore()
	checkAffinities(t, folder, before)
}
