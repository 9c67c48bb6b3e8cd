//go:build linux

package lab

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// onKernel tells whether ss shows a client's connection in the broker's namespace.
func (s *scene) onKernel(c *client) bool {
	s.t.Helper()
	return slices.Contains(strings.Fields(s.broker("ss -Htn state established sport = :1883")), c.local())
}

// TestDrain: under drain new connections are the kernel's, which ss shows, and old ones stay on the rings; after it new ones
// are on the rings again, and those of the kernel stay where they are. Messages pass between all of them.
func TestDrain(t *testing.T) {
	s := newScene(t, 2)
	b := s.serve()
	for _, host := range []string{s.Broker4, s.Broker6} {
		old := s.connect(host, "old")
		if out := b.must("xdp", "drain"); !strings.Contains(out, "1 that XDP carries are still there") {
			t.Errorf("ringmq xdp drain says %q", out)
		}
		during := s.connect(host, "during")
		b.must("xdp", "drain", "--off")
		after := s.connect(host, "after")
		clients := []*client{old, during, after}
		for i, c := range clients {
			if on := s.onKernel(c); on != (i == 1) {
				t.Errorf("client %d (before, during and after the drain) is on the kernel's path: %v", i, on)
			}
			c.subscribe("drained", 0)
		}
		for i, from := range clients {
			from.publish("drained", 0, []byte(fmt.Sprint(i)))
			for _, c := range clients {
				if got := string(c.receive().Payload); got != fmt.Sprint(i) {
					t.Errorf("%q instead of message %d", got, i)
				}
			}
		}
		for _, c := range clients {
			c.conn.Close()
		}
	}
	if lane := b.lane(); lane.verdict("passed_drain") < 2 || lane.verdict("passed_kernel_flow") == 0 || lane.resetsSent() > 0 {
		t.Errorf("status: %+v", lane)
	}
}

// TestDetach: detach refuses while connections are on the rings and says how many; --force resets them, takes the program off
// until the next start, and leaves clients to the kernel. Without connections it needs no force.
func TestDetach(t *testing.T) {
	s := newScene(t, 2)
	b := s.serve()
	c := s.connect(s.Broker4, "c")
	if _, err := b.run("xdp", "detach"); err == nil || !strings.Contains(err.Error(), "1 connections") || !strings.Contains(err.Error(), "--force") {
		t.Errorf("detach with a connection: %v", err)
	}
	c.alive()
	b.must("xdp", "detach", "--force")
	if lane := b.lane(); lane.Attached || s.programOn(s.BrokerIf) != 0 {
		t.Errorf("status: %+v", lane)
	}
	if err := c.ping(); err == nil {
		t.Error("a connection of the rings outlives the program")
	}
	kernel := s.connect(s.Broker4, "kernel")
	if !s.onKernel(kernel) {
		t.Error("a client after detach is not on the kernel's path")
	}
	b.stop()
	if b.logged("attached again") {
		t.Error("the program was attached again")
	}
	again := s.serve()
	again.must("xdp", "drain")
	again.must("xdp", "detach")
	if id := s.programOn(s.BrokerIf); id != 0 {
		t.Errorf("program %d is on the interface", id)
	}
}
