package netstack

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/ringmq/ringmq/broker/planetest"
	"github.com/ringmq/ringmq/netstack/cable"
)

// listenOn are the listeners of most tests: one for each family.
func listenOn() []netip.AddrPort {
	return []netip.AddrPort{netip.AddrPortFrom(hostV4().Addr(), 1883), netip.MustParseAddrPort("[::]:1883")}
}

// dialled are the addresses that reach them.
func dialled(listener int) netip.AddrPort {
	if listener == 0 {
		return netip.AddrPortFrom(hostV4().Addr(), 1883)
	}
	return netip.AddrPortFrom(hostV6().Addr(), 1883)
}

func testConfig() Config {
	// Acknowledgements leave with their turn: tests count frames.
	return Config{Addresses: listenOn(), HostAddresses: []netip.Prefix{hostV4(), hostV6()}, TCP: TCPConfig{AckDelay: -1}}
}

func mustOpen(t testing.TB, config Config, c *cable.Cable) *Group {
	t.Helper()
	var devices []Device
	for _, end := range c.Near() {
		devices = append(devices, end)
	}
	g, err := Open(config, devices)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return g
}

// byRemotePort spreads connections over n queues.
func byRemotePort(n int) func([]byte) int {
	return func(frame []byte) int {
		var r received
		if r.parse(frame, [6]byte(frame[:6])) != keep {
			return 0
		}
		return int(r.key.remotePort) % n
	}
}

func TestContract(t *testing.T) {
	for _, planes := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d planes", planes), func(t *testing.T) {
			planetest.Run(t, func(t *testing.T) planetest.Harness { return harness(t, planes) })
		})
	}
}

func harness(t *testing.T, planes int) planetest.Harness {
	c := cable.New(cable.Config{Queues: planes, Steer: byRemotePort(planes)})
	g := mustOpen(t, testConfig(), c)
	k := newClient(t, c)
	h := planetest.Harness{
		Listeners: len(g.Addresses()),
		Dial:      func(listener int) (planetest.Peer, error) { return k.dial(dialled(listener)) },
		Close: func() error {
			k.stop()
			return checkLeftovers(g, c)
		},
	}
	for _, p := range g.Planes() {
		h.Planes = append(h.Planes, p)
	}
	return h
}

// checkLeftovers tells what closed planes have not given back.
func checkLeftovers(g *Group, c *cable.Cable) error {
	sum := g.Counters()
	if sum.Connections != 0 || sum.Flows != sum.HalfOpen {
		return fmt.Errorf("%d connections and %d flows are left", sum.Connections, sum.Flows)
	}
	if !c.Conserved() {
		return fmt.Errorf("frames of the cable are lost")
	}
	return nil
}
