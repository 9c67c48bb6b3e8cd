//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package kernel

import (
	"fmt"
	"os"
	"testing"
)

// openDescriptors returns what the process's descriptors are, by number. Go's own poller is among them from the first
// connection on, so it is made sure to be there.
func openDescriptors(t testing.TB) map[string]string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = r.Close(), w.Close()
	open := map[string]string{}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil // Not this system's way; the count is checked on Linux.
	}
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			open[e.Name()] = target
		}
	}
	return open
}

// sameDescriptors tells which descriptors are open that were not before.
func sameDescriptors(before, after map[string]string) error {
	for number, target := range after {
		if before[number] != target {
			return fmt.Errorf("descriptor %s is left open: %s", number, target)
		}
	}
	return nil
}
