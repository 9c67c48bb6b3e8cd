//go:build linux

package lab

import (
	"fmt"
	"testing"
)

// TestQueues: with four queues, connections spread over all of them, and messages cross from any to any.
func TestQueues(t *testing.T) {
	s := newScene(t, 4)
	b := s.serve()
	run := s.startBench(s.Broker4, "-n", "100", "-q", "2", "--rate", "2000", "--time", "2s")
	eventually(t, "200 connections", func() bool { return b.lane().established() == 200 })
	for _, q := range b.lane().Queues {
		if q.TCP.Established < 10 {
			t.Errorf("%d of 200 connections are on queue %d", q.TCP.Established, q.Queue)
		}
	}
	run.clean()
	s.startBench(s.Broker6, "-s", "fanout", "-n", "40", "-q", "1", "--count", "20000").clean()
	checkConservation(t, b.lane())
}

// TestMovingFlows: the sender uses one TX queue instead of four, and four again, under traffic: three of four flows arrive
// on another queue than before. They are handed to the plane that has them: no reset, nothing lost.
func TestMovingFlows(t *testing.T) {
	s := newScene(t, 4)
	b := s.serve()
	run := s.startBench(s.Broker4, "-n", "40", "-q", "1", "--rate", "2000", "--time", "4s")
	eventually(t, "80 connections", func() bool { return b.lane().established() == 80 && b.lane().verdict("redirected") > 1000 })
	if n := b.lane().sum(func(q queueReport) uint64 { return q.TCP.HandedOver }); n > 0 {
		t.Errorf("%d frames were handed over before any flow moved", n)
	}
	s.client("ethtool -L %s tx 1", s.ClientIf)
	eventually(t, "frames are handed over", func() bool {
		return b.lane().sum(func(q queueReport) uint64 { return q.TCP.TakenOver }) > 1000
	})
	newcomer := s.connect(s.Broker4, "newcomer")
	s.client("ethtool -L %s tx 4", s.ClientIf)
	newcomer.alive()
	run.clean()
	if lane := b.lane(); lane.resetsSent() > 0 {
		t.Errorf("%d resets were sent", lane.resetsSent())
	}
	checkConservation(t, b.lane())
}

// TestUnboundQueues: with two queues of four bound and that allowed in words, connections that arrive on the others are the
// kernel's; all are served.
func TestUnboundQueues(t *testing.T) {
	s := newScene(t, 4)
	b := s.serve("--queues", "0,1", "--allow-unbound-queues")
	var clients []*client
	onKernel := 0
	for i := range 40 {
		c := s.connect(s.Broker4, fmt.Sprint(i))
		clients = append(clients, c)
		if s.onKernel(c) {
			onKernel++
		}
	}
	if n := int(b.lane().established()); n+onKernel != 40 || n == 0 || onKernel == 0 {
		t.Errorf("%d connections are on the rings, %d on the kernel's path, of 40", n, onKernel)
	}
	for _, c := range clients {
		c.alive()
	}
	if n := b.lane().verdict("passed_no_socket"); n == 0 {
		t.Error("no frame is passed_no_socket")
	}
}

// TestQueueDrain drains one of two queues: the other goes on taking connections.
func TestQueueDrain(t *testing.T) {
	s := newScene(t, 2)
	b := s.serve()
	b.must("xdp", "drain", "--queue", "1")
	for i := range 20 {
		s.connect(s.Broker4, fmt.Sprint(i)).alive()
	}
	for _, q := range b.lane().Queues {
		if n := q.TCP.Established; (n == 0) != (q.Queue == 1) {
			t.Errorf("queue %d has %d connections", q.Queue, n)
		}
	}
	if _, err := b.run("xdp", "drain", "--queue", "7"); err == nil {
		t.Error("a queue that is not there is drained")
	}
}
