//go:build linux

package lab

import (
	"errors"
	"strings"
	"syscall"
	"testing"
)

// TestAddresses: an address is added to the interface while the broker runs, and clients connect to it over the rings. It is
// removed: new clients do not get in by it, those of other addresses live on, and so do its own ones as long as they find it.
func TestAddresses(t *testing.T) {
	for _, family := range []string{"4", "6"} {
		t.Run("IPv"+family, func(t *testing.T) {
			s := newScene(t, 2)
			b := s.serve()
			old := s.connect(s.Broker4, "old")
			address, length := strings.TrimSuffix(s.Broker4, ".1")+".99", "/24"
			if family == "6" {
				address, length = strings.TrimSuffix(s.Broker6, "::1")+"::99", "/64 nodad"
			}
			s.broker("ip address add %s%s dev %s", address, length, s.BrokerIf)
			b.await("addresses are now", address)
			c := s.connect(address, "c")
			if s.onKernel(c) {
				t.Error("a client of the new address is on the kernel's path")
			}
			s.broker("ip address del %s dev %s", strings.Fields(address + length)[0], s.BrokerIf)
			eventually(t, "the address is gone", func() bool {
				for _, a := range b.lane().Addresses {
					if strings.HasPrefix(a, address+"/") {
						return false
					}
				}
				return true
			})
			s.checkUnreachable(address)
			old.alive()
			c.alive()
			s.connect(s.Broker4, "new").alive()
			s.broker("ip address add %s%s dev %s", address, length, s.BrokerIf)
			eventually(t, "the address is steered again", func() bool { return strings.Count(b.log(), "addresses are now") == 3 })
			c.alive()
			if n := b.lane().resetsSent(); n > 0 {
				t.Errorf("%d resets were sent", n)
			}
		})
	}
}

// TestAddressFlaps: an address goes and comes back again and again while clients of it are talking: no connection breaks, no message
// is lost. Then the address moves to another interface of the host, where the kernel serves new clients of it.
func TestAddressFlaps(t *testing.T) {
	s := newScene(t, 1)
	b := s.serve()
	address := strings.TrimSuffix(s.Broker4, ".1") + ".99"
	s.broker("ip address add %s/24 dev %s", address, s.BrokerIf)
	b.await("addresses are now", address)
	run := s.startBench(address, "-n", "50", "-q", "1", "--rate", "5000", "--time", "5s")
	eventually(t, "load", func() bool { return b.lane().verdict("redirected") > 2000 })
	for range 30 {
		s.broker("ip address del %s/24 dev %s", address, s.BrokerIf)
		s.broker("ip address add %s/24 dev %s", address, s.BrokerIf)
	}
	run.clean()
	if n := b.lane().resetsSent(); n > 0 {
		t.Errorf("%d resets were sent", n)
	}
	s.broker("ip address del %s/24 dev %s", address, s.BrokerIf)
	s.broker("ip address add %s/32 dev lo", address)
	eventually(t, "the kernel serves the address", func() bool { return s.reaches(s.Client4, address) })
	if d := s.connect(address, "d"); !s.onKernel(d) {
		t.Error("a client of an address of another interface is not on the kernel's path")
	}
}

// checkUnreachable wants no connection to an address that nobody has.
func (s *scene) checkUnreachable(address string) {
	s.t.Helper()
	source := s.Client4
	if strings.Contains(address, ":") {
		source = s.Client6
	}
	if s.reaches(source, address) {
		s.t.Errorf("a client gets in by %s, which is removed", address)
	}
}

// TestDeclaredAddress: a listener on one of the interface's addresses leaves the other to whoever listens there.
func TestDeclaredAddress(t *testing.T) {
	s := newScene(t, 1)
	b := s.serveAt(s.Broker4 + ":1883")
	s.connect(s.Broker4, "c").alive()
	if _, err := dial(s.Client, s.Broker6); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a connection to an address without listener: %v", err)
	}
	lane := b.lane()
	if lane.verdict("passed_other_address") == 0 || lane.established() != 1 {
		t.Errorf("status: %+v", lane)
	}
}
