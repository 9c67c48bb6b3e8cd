//go:build linux

package lab

import (
	"fmt"
	"testing"
)

// TestLittleMemory: with the defaults but for --memory, a broker in XDP mode starts and serves where the least of it fits; where it
// does not, one line says what to change.
func TestLittleMemory(t *testing.T) {
	for _, row := range []struct {
		memory string
		queues int
	}{{"128MiB", 1}, {"256MiB", 1}, {"256MiB", 4}, {"512MiB", 4}} {
		t.Run(fmt.Sprintf("%s,%d", row.memory, row.queues), func(t *testing.T) {
			s := newScene(t, row.queues)
			b := s.serve("--memory", row.memory)
			s.connect(s.Broker4, "client").alive()
			if n := b.lane().verdict("redirected"); n == 0 {
				t.Error("no frame went through the rings")
			}
		})
	}
	t.Run("128MiB,4", func(t *testing.T) {
		s := newScene(t, 4)
		s.refused(s.InBroker(s.serveLine("--memory", "128MiB")...), "memory", "--memory", "--queues", "receive_frames", "send_memory")
		checkBare(t, s)
	})
}
