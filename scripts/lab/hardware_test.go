//go:build linux

package lab

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"time"
)

// TestHardwareAddress: one end's MAC address is changed under load, as bonding and virtual machines that move do. When it is ours
// the log says so, and all frames come from the new address. As soon as the peer has learned it (here its neighbour table is
// flushed, as a gratuitous ARP or its own probes would do after some seconds) all goes on: no connection breaks, nothing is
// lost, newcomers are on the rings, and the kernel serves loopback and other ports. When it is the peer's, our answers follow.
func TestHardwareAddress(t *testing.T) {
	for _, row := range []struct{ end, family string }{{"broker", "4"}, {"broker", "6"}, {"client", "4"}, {"client", "6"}} {
		t.Run(row.end+"/IPv"+row.family, func(t *testing.T) {
			s := newScene(t, 2)
			b := s.serve()
			host := map[string]string{"4": s.Broker4, "6": s.Broker6}[row.family]
			near := connectFrom(t, s.Broker, "127.0.0.1", "near")
			run := s.startBench(host, "-n", "20", "-q", "1", "--rate", "1000", "--time", "4s")
			eventually(t, "load", func() bool { return b.lane().established() == 40 && b.lane().verdict("redirected") > 1000 })
			mac := net.HardwareAddr{2, 0x52, 0x4d, 0x51, 0, 1}
			if row.end == "broker" {
				s.broker("ip link set dev %s address %v", s.BrokerIf, mac)
				b.await("level=INFO", "MAC address is now "+mac.String())
				s.client("ip neighbour flush dev %s", s.ClientIf)
				s.checkLinkAddress(6, mac)
			} else {
				s.client("ip link set dev %s address %v", s.ClientIf, mac)
				s.checkLinkAddress(0, mac)
			}
			if r := run.clean(); r.Duplicated > 0 {
				t.Errorf("%d messages came twice", r.Duplicated)
			}
			near.alive()
			if newcomer := s.connect(host, "newcomer"); s.onKernel(newcomer) {
				t.Error("a newcomer is on the kernel's path")
			}
			checkEcho(t, s, "tcp", host)
			if lane := b.lane(); lane.resetsSent() > 0 || lane.verdict("passed_no_socket") > 0 {
				t.Errorf("%d resets were sent: %+v", lane.resetsSent(), lane)
			}
			checkConservation(t, b.lane())
		})
	}
}

// checkLinkAddress waits until the broker's segments have a MAC address at an offset, and for a while no other. Each queue's stack
// learns for itself.
func (s *scene) checkLinkAddress(offset int, want net.HardwareAddr) {
	s.t.Helper()
	const inARow = 500
	p := openPort(s.t, s.Client, s.ClientIf, true)
	defer p.close()
	n := 0
	for buffer, deadline := make([]byte, 1<<16), time.Now().Add(patience); n < inARow; {
		if time.Now().After(deadline) {
			s.t.Fatalf("no %d segments in a row with the MAC address %v have come", inARow, want)
		}
		frame := p.receive(buffer, patience)
		at := tcpAt(frame)
		if at == 0 || binary.BigEndian.Uint16(frame[at:]) != 1883 {
			continue
		}
		switch got := frame[offset : offset+6]; {
		case bytes.Equal(got, want):
			n++
		default:
			n = 0
		}
	}
}
