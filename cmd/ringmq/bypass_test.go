package main

import (
	"log/slog"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/ringmq/ringmq/bpf"
	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/netstack"
	"github.com/ringmq/ringmq/netstack/cable"
	"github.com/ringmq/ringmq/xdp"
)

// TestAddressesWhileOpening: an address that the interface gets while the stacks are built is one that they answer.
func TestAddressesWhileOpening(t *testing.T) {
	before, late := netip.MustParsePrefix("198.18.0.1/16"), netip.MustParsePrefix("198.18.0.3/16")
	b, l, c := &bypass{log: slog.New(slog.DiscardHandler)}, &lane{}, cable.New(cable.Config{})
	told := make(chan struct{})
	config := netstack.Config{Addresses: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:1883")}}
	if err := l.openStacks(config, []netstack.Device{c.Near()[0]}, func() []netip.Prefix {
		began := make(chan struct{})
		go func() {
			close(began)
			b.onEvent(l, xdp.Event{Kind: xdp.AddressesChanged, Addresses: []netip.Prefix{before, late}})
			close(told)
		}()
		<-began
		return []netip.Prefix{before}
	}); err != nil {
		t.Fatal(err)
	}
	defer l.stacks.Close()
	<-told
	frame := synTo(t, late.Addr(), c)
	room := c.Far().Reserve()
	c.Far().Commit(room, copy(room, frame))
	c.Far().Kick()
	if _, err := l.stacks.Planes()[0].Wait(0); err != nil {
		t.Fatal(err)
	}
	if n := l.stacks.Counters(); n.FramesIn != 1 || n.AddressGone != 0 || n.HalfOpen != 1 {
		t.Errorf("of %d SYNs %d were for no address of the host's, and %d handshakes are under way", n.FramesIn, n.AddressGone, n.HalfOpen)
	}
}

// TestProgramKnowsAllConnections: however many clients the broker may have, the program can pass all of them to the kernel.
func TestProgramKnowsAllConnections(t *testing.T) {
	few, many := broker.Limits{MaxConnections: 10}, broker.Limits{MaxConnections: 200_000}
	if n := programOptions(&few).KernelFlows; n != bpf.DefaultKernelFlows {
		t.Errorf("room for %d flows beside 10 clients; want the usual %d", n, bpf.DefaultKernelFlows)
	}
	if n := programOptions(&many).KernelFlows; n < many.MaxConnections {
		t.Errorf("room for %d flows beside %d clients", n, many.MaxConnections)
	}
}

func TestDelivers(t *testing.T) {
	has := []netip.Prefix{netip.MustParsePrefix("198.18.0.1/16"), netip.MustParsePrefix("2001:2::1/64")}
	for listener, want := range map[string]bool{"198.18.0.1:1883": true, "[2001:2::1]:1883": true, "0.0.0.0:1883": true, "[::]:1883": true,
		"198.18.0.2:1883": false, "[2001:2::2]:1883": false} {
		if got := delivers(has, []netip.AddrPort{netip.MustParseAddrPort(listener)}); got != want {
			t.Errorf("%s: %v", listener, got)
		}
	}
	if delivers(has[1:], []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:1883")}) {
		t.Error("an interface of IPv6 only delivers to a listener of IPv4")
	}
}

// synTo is a SYN to an address behind the near end of a cable.
func synTo(t *testing.T, to netip.Addr, c *cable.Cable) []byte {
	t.Helper()
	near, far := c.Near()[0].HardwareAddr(), c.Far().HardwareAddr()
	ip := &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: []byte{198, 18, 0, 2}, DstIP: to.AsSlice()}
	segment := &layers.TCP{SrcPort: 4000, DstPort: 1883, SYN: true, Window: 65535}
	if err := segment.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	frame := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(frame, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: far[:], DstMAC: near[:], EthernetType: layers.EthernetTypeIPv4}, ip, segment); err != nil {
		t.Fatal(err)
	}
	return frame.Bytes()
}
