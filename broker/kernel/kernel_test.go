//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package kernel

import (
	"net"
	"net/netip"
	"testing"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/planetest"
)

func TestContract(t *testing.T) {
	for name, config := range map[string]Config{
		"one plane":    {Planes: 1},
		"three planes": {Planes: 3},
		"parked":       {Planes: 1, Park: true},
	} {
		t.Run(name, func(t *testing.T) {
			planetest.Run(t, func(t *testing.T) planetest.Harness { return harness(t, config) })
		})
	}
}

// loopback returns two addresses to listen on, the second an IPv6 one if the host has any.
func loopback() []netip.AddrPort {
	v4, v6 := netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("[::1]:0")
	if l, err := net.Listen("tcp", v6.String()); err == nil {
		_ = l.Close()
		return []netip.AddrPort{v4, v6}
	}
	return []netip.AddrPort{v4, v4}
}

func mustOpen(t testing.TB, config Config) *Group {
	t.Helper()
	g, err := Open(config)
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

func harness(t *testing.T, config Config) planetest.Harness {
	before := openDescriptors(t)
	config.Addresses, config.SendBufferBytes, config.ReceiveBufferBytes = loopback(), 128<<10, 128<<10
	g := mustOpen(t, config)
	h := planetest.Harness{
		Listeners: len(g.Addresses()),
		Dial:      func(listener int) (planetest.Peer, error) { return dial(g, listener) },
		Close:     func() error { return sameDescriptors(before, openDescriptors(t)) },
	}
	for _, p := range g.Planes() {
		h.Planes = append(h.Planes, broker.Plane(p))
	}
	return h
}

func dial(g *Group, listener int) (planetest.Peer, error) {
	conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(g.Addresses()[listener]))
	if err != nil {
		return nil, err
	}
	return planetest.TCP(conn), nil
}
