//go:build linux

package lab

import (
	"testing"
	"time"
)

// TestLinkDown: the link goes down for a second and comes back, under traffic: at the broker's end (administratively), then
// at the peer's (the broker's loses its carrier). Both are logged. No connection breaks, and every message of QoS 1 arrives once.
func TestLinkDown(t *testing.T) {
	for _, end := range []string{"broker", "client"} {
		t.Run(end, func(t *testing.T) {
			s := newScene(t, 2)
			b := s.serve()
			set := func(state string) {
				if end == "broker" {
					s.broker("ip link set %s %s", s.BrokerIf, state)
				} else {
					s.client("ip link set %s %s", s.ClientIf, state)
				}
			}
			run := s.startBench(s.Broker4, "-n", "20", "-q", "1", "--rate", "2000", "--time", "6s")
			eventually(t, "load", func() bool { return b.lane().established() == 40 && b.lane().verdict("redirected") > 2000 })
			for range 2 {
				set("down")
				b.await("link down")
				time.Sleep(time.Second)
				set("up")
				b.await("link up")
			}
			if r := run.clean(); r.Duplicated > 0 {
				t.Errorf("%d messages came twice", r.Duplicated)
			}
			checkConservation(t, b.lane())
			if n := b.lane().resetsSent(); n > 0 {
				t.Errorf("%d resets were sent", n)
			}
		})
	}
}

// blinkMax is how long a message may take when the link was away for a tenth of a second: whoever lost segments sends them again
// after 0.2 s, 0.4 s and so on, and a second or two may pass until the queue is opened again.
const blinkMax = 5 * time.Second

// TestLinkBlinks: the link is down for a tenth of a second under load, at either end, with so few transmit frames that they are all
// under way at once. Every message of QoS 1 arrives once, the last within blinkMax; no frame stays away.
func TestLinkBlinks(t *testing.T) {
	for name, load := range map[string][]string{
		"pairs":  {"-n", "50", "-q", "1", "--rate", "2000"},
		"fanout": {"-s", "fanout", "-n", "100", "-q", "1", "--payload", "4000", "--window", "8"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, 1)
			b := s.serve("-c", s.config("transmit_frames = 64"))
			run := s.startBench(s.Broker4, append(load, "--time", "3s")...)
			eventually(t, "load", func() bool { return b.lane().verdict("redirected") > 2000 })
			for _, end := range []struct {
				set  func(string, ...any) string
				name string
			}{{s.broker, s.BrokerIf}, {s.client, s.ClientIf}} {
				end.set("ip link set %s down", end.name)
				time.Sleep(100 * time.Millisecond)
				end.set("ip link set %s up", end.name)
				time.Sleep(500 * time.Millisecond)
			}
			r := run.clean()
			t.Logf("the slowest of %d messages took %v", r.Delivered, r.Latency.Max)
			if r.Duplicated > 0 || r.Latency.Max > blinkMax {
				t.Errorf("%d messages came twice, the slowest took %v; want none, and at most %v", r.Duplicated, r.Latency.Max, blinkMax)
			}
			checkConservation(t, b.lane())
		})
	}
}

// TestInterfaceDeleted: the interface is deleted under traffic and made again under the same name. The broker lives, logs
// both, shows that it is detached, and serves loopback all the time; afterwards the clients that try again are on the rings.
func TestInterfaceDeleted(t *testing.T) {
	s := newScene(t, 2)
	b := s.serve()
	near := connectFrom(t, s.Broker, "127.0.0.1", "near")
	crowd := s.newCrowd(10, s.Broker4)
	for range 2 {
		if err := s.Remove(); err != nil {
			t.Fatal(err)
		}
		b.await("removed")
		near.alive()
		connectFrom(t, s.Broker, "::1", "newcomer").alive()
		if lane := b.lane(); lane.Attached || lane.ProgramID != 0 {
			t.Errorf("status of a deleted interface: attached %v, program %d", lane.Attached, lane.ProgramID)
		}
		if err := s.Restore(); err != nil {
			t.Fatal(err)
		}
		crowd.served()
		near.alive()
		if lane := b.lane(); !lane.Attached || s.programOn(s.BrokerIf) != lane.ProgramID || lane.verdict("redirected") == 0 {
			t.Errorf("status of the new interface: %+v", lane)
		}
	}
	b.await("msg=\"interface " + s.BrokerIf + ": reopened\"")
}

// TestMTU: the MTU becomes too large for our frames while clients exchange messages longer than a segment, and small again.
// The log says so; no connection breaks and nothing is lost.
func TestMTU(t *testing.T) {
	s := newScene(t, 1)
	b := s.serve()
	run := s.startBench(s.Broker4, "-n", "10", "-q", "1", "--payload", "5000", "--rate", "200", "--time", "4s")
	eventually(t, "load", func() bool { return b.lane().verdict("redirected") > 100 })
	s.client("ip link set %s mtu 2500", s.ClientIf)
	s.broker("ip link set %s mtu 2500", s.BrokerIf)
	b.await("MTU is now 2500, which our frames cannot carry")
	newcomer := s.connect(s.Broker4, "newcomer") // Its segments would be too long, were it not for our MSS.
	newcomer.subscribe("large", 0)
	newcomer.publish("large", 0, make([]byte, 20000))
	if n := len(newcomer.receive().Payload); n != 20000 {
		t.Errorf("%d bytes of 20000 arrive", n)
	}
	s.broker("ip link set %s mtu 1500", s.BrokerIf)
	s.client("ip link set %s mtu 1500", s.ClientIf)
	b.await("MTU is now 1500")
	run.clean()
	newcomer.alive()
	if n := b.lane().sum(func(q queueReport) uint64 { return q.Rings.Kernel.ReceiveDropped }); n > 0 {
		t.Errorf("%d frames were too long", n)
	}
}
