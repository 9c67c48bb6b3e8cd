//go:build linux

package lab

import (
	"fmt"
	"strings"
	"testing"
)

// TestChannels: the number of the interface's RX queues is changed (ethtool -L) under clients that connect again when they break.
// The kernel does not take a queue away that has a socket of ours. When there are more queues than at start the log names those
// without a socket; nothing else happens as long as nothing arrives there. Once RSS delivers there (the peer sends on four queues),
// connections that stay on our queues go on, those that move break and come back, on the rings or on the kernel's path as their
// new queue has it, and the program knows who is on that. When the queues are as before nobody breaks: whoever the kernel has
// stays with it. Newcomers are on the rings.
func TestChannels(t *testing.T) {
	const members = 40
	s := newScene(t, 4)
	s.client("ethtool -L %s tx 2", s.ClientIf)
	s.broker("ethtool -L %s rx 2", s.BrokerIf)
	b := s.serve()
	crowd := s.newCrowd(members, s.Broker4)
	for _, words := range []string{"rx 1", "tx 1"} {
		line := fmt.Sprintf("ethtool -L %s %s", s.BrokerIf, words)
		if out, err := s.InBroker(strings.Fields(line)...).CombinedOutput(); err == nil {
			t.Errorf("%s: the kernel takes a queue away under its socket: %s", line, out)
		}
	}
	s.broker("ethtool -L %s rx 4", s.BrokerIf)
	b.await("level=WARN", "now has 4 RX queues", "no socket on [2 3]", "ethtool -L")
	crowd.served()
	if n := b.connects(); n != members || b.lane().established() != members {
		t.Errorf("%d clients have connected and %d are on the rings before any moves, want %d", n, b.lane().established(), members)
	}

	s.client("ethtool -L %s tx 4", s.ClientIf)
	eventually(t, "connections come back over the kernel's path", func() bool { return s.kernelConnections() > 0 })
	s.settle(b, crowd)
	moved, onKernel := b.connects()-members, s.kernelConnections()
	t.Logf("of %d clients %d have moved, and %d are on the kernel's path", members, moved, onKernel)
	if moved < onKernel || onKernel == members {
		t.Errorf("%d clients have connected again, %d of %d are on the kernel's path", moved, onKernel, members)
	}
	eventually(t, "the program knows the kernel's connections", func() bool { return b.lane().KernelFlows == onKernel })

	before := b.connects()
	s.client("ethtool -L %s tx 2", s.ClientIf)
	s.broker("ethtool -L %s rx 2", s.BrokerIf)
	b.await("level=INFO", "now has 2 RX queues, on each of which we have a socket")
	s.settle(b, crowd)
	if n := b.connects() - before; n > 0 || s.kernelConnections() != onKernel {
		t.Errorf("%d clients have connected again when the queues were as before; %d are on the kernel's path, before %d", n, s.kernelConnections(), onKernel)
	}
	for i := range 10 {
		if c := s.connect(s.Broker4, fmt.Sprint("newcomer", i)); s.onKernel(c) {
			t.Error("a newcomer is on the kernel's path")
		}
	}
	checkConservation(t, b.lane())
}

// settle waits until each of a crowd is served by one plane or the other. A connection that its client has given up counts until
// the client's next one has taken its Session.
func (s *scene) settle(b *process, crowd *crowd) {
	s.t.Helper()
	crowd.served()
	eventually(s.t, "each client has one connection", func() bool {
		return int(b.lane().established())+s.kernelConnections() == len(crowd.members)
	})
}

// connects is how many connections the broker has logged.
func (b *process) connects() int { return strings.Count(b.log(), `msg="client connected"`) }

// kernelConnections is how many of the broker's clients the kernel's TCP has.
func (s *scene) kernelConnections() int {
	s.t.Helper()
	return strings.Count(s.broker("ss -Htn state established sport = :1883"), "\n")
}
