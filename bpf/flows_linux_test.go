//go:build amd64 || arm64

package bpf

import (
	"errors"
	"net/netip"
	"testing"
	"time"
)

// The connections of frame_test.go's segments.
var (
	flow4 = Flow{netip.AddrPortFrom(server4, port), netip.AddrPortFrom(client4, clientPort)}
	flow6 = Flow{netip.AddrPortFrom(server6, port), netip.AddrPortFrom(client6, clientPort)}
)

func TestNoSocket(t *testing.T) {
	p := served(t, false)
	expect(t, p, data().over4().frame(), PassedNoSocket)
	expect(t, p, tooBig6(sent6()).frame(), PassedNoSocket)
	if remembers(t, p, flow4) {
		t.Fatal("a segment without SYN was taken for a connection attempt")
	}
	for _, segment := range [][]byte{syn().over4().frame(), syn().over6().frame()} {
		expect(t, p, segment, PassedNoSocket)
	}
	// The sockets come, and the connections stay where they are.
	must(t, p.SetSocket(0, newSocket(t)))
	for _, segment := range [][]byte{
		data().over4().frame(), data().over6().frame(), tooBig4(sent4()).frame(), tooBig6(sent6()).frame(), syn().over4().frame(),
	} {
		expect(t, p, segment, PassedKernelFlow)
	}
	other := tcp{clientPort + 1, port, flagSYN, nil, nil}
	expect(t, p, other.over4().frame(), Redirected)
	must(t, p.ClearSocket(0))
	must(t, p.ClearSocket(0)) // Nothing is there: no error.
	other.flags = flagACK
	expect(t, p, other.over4().frame(), PassedNoSocket)
}

func TestDrain(t *testing.T) {
	p := served(t, true)
	expect(t, p, syn().over4().frame(), Redirected)
	must(t, p.SetDrain(AllQueues, true))
	expect(t, p, data().over4().frame(), Redirected)
	expect(t, p, syn().over6().frame(), PassedDrain)
	expect(t, p, data().over6().frame(), PassedKernelFlow)
	must(t, p.SetDrain(0, false))
	expect(t, p, data().over6().frame(), PassedKernelFlow)
	expect(t, p, tcp{clientPort + 1, port, flagSYN, nil, nil}.over6().frame(), Redirected)
}

func TestHold(t *testing.T) {
	p := served(t, false)
	must(t, p.SetHold(0, true))
	expect(t, p, data().over4().frame(), DroppedHeld)
	expect(t, p, syn().over4().frame(), PassedNoSocket)
	expect(t, p, data().over4().frame(), PassedKernelFlow)
	must(t, p.SetSocket(0, newSocket(t)))
	expect(t, p, data().over6().frame(), Redirected)
	must(t, p.SetDrain(0, true)) // The two do not touch each other.
	must(t, p.ClearSocket(0))
	expect(t, p, data().over6().frame(), DroppedHeld)
	must(t, p.SetHold(AllQueues, false))
	expect(t, p, data().over6().frame(), PassedNoSocket)
	expect(t, p, syn().over6().frame(), PassedDrain)
}

// setSeen makes the program believe that the last SYN of a remembered attempt came this long ago.
func setSeen(t *testing.T, p *Program, flow Flow, ago time.Duration) {
	t.Helper()
	key, err := flowKey(flow)
	must(t, err)
	now, err := monotonic()
	must(t, err)
	must(t, p.objects.KernelSyns.Put(key, uint64(now-ago)))
}

// lastSYN is how long ago the program saw the last SYN of a remembered attempt.
func lastSYN(t *testing.T, p *Program, flow Flow) time.Duration {
	t.Helper()
	key, err := flowKey(flow)
	must(t, err)
	var seen uint64
	must(t, p.objects.KernelSyns.Lookup(key, &seen))
	now, err := monotonic()
	must(t, err)
	return now - time.Duration(seen)
}

// TestRememberedSYNs is about KERNEL_SYN_NS, 64 s.
func TestRememberedSYNs(t *testing.T) {
	p := served(t, false)
	expect(t, p, syn().over4().frame(), PassedNoSocket)
	must(t, p.SetSocket(0, newSocket(t)))

	setSeen(t, p, flow4, 60*time.Second)
	expect(t, p, syn().over4().frame(), PassedKernelFlow) // again, to the same kernel socket
	if ago := lastSYN(t, p, flow4); ago > 30*time.Second {
		t.Fatalf("the last SYN came %s ago, it is said", ago)
	}

	setSeen(t, p, flow4, 64*time.Second)
	expect(t, p, data().over4().frame(), PassedKernelFlow) // a connection that was made may be quiet for longer
	expect(t, p, syn().over4().frame(), Redirected)
	if remembers(t, p, flow4) {
		t.Fatal("the attempt was not forgotten")
	}
	expect(t, p, data().over4().frame(), Redirected)
}

func TestKernelFlows(t *testing.T) {
	p := served(t, true)
	mapped := Flow{ // the same as flow4, as a dual-stack socket names it
		netip.AddrPortFrom(netip.AddrFrom16(server4.As16()), port), netip.AddrPortFrom(netip.AddrFrom16(client4.As16()), clientPort),
	}
	must(t, p.AddKernelFlows(flow4, flow6, mapped))
	if n := p.KernelFlows(); n != 2 {
		t.Fatalf("%d kernel flows, want 2", n)
	}
	for _, segment := range [][]byte{
		data().over4().frame(), syn().over4().frame(), data().over6().frame(), tooBig4(sent4()).frame(), tooBig6(sent6()).frame(),
	} {
		expect(t, p, segment, PassedKernelFlow)
	}
	expect(t, p, tcp{clientPort + 1, port, flagACK, nil, nil}.over4().frame(), Redirected)
	expect(t, p, tcp{clientPort, port, flagACK, nil, nil}.over4().frame(), PassedKernelFlow)

	// A flow that is removed is the kernel's for its last segments, and for SYNs as long as the kernel may remember it.
	must(t, p.RemoveKernelFlows(mapped, mapped))
	if n := p.KernelFlows(); n != 1 {
		t.Fatalf("%d kernel flows, want 1", n)
	}
	expect(t, p, data().over4().frame(), PassedKernelFlow)
	expect(t, p, syn().over4().frame(), PassedKernelFlow)
	setSeen(t, p, flow4, time.Hour)
	expect(t, p, syn().over4().frame(), Redirected)
	must(t, p.RemoveKernelFlows(flow6))
	expect(t, p, data().over6().frame(), PassedKernelFlow)
	must(t, p.AddKernelFlows(flow6)) // The table may be used again.
	setSeen(t, p, flow6, time.Hour)
	expect(t, p, syn().over6().frame(), PassedKernelFlow)
}

func TestKernelFlowErrors(t *testing.T) {
	p := loaded(t, Options{KernelFlows: 2})
	from := func(port uint16) Flow { return Flow{flow4.Local, netip.AddrPortFrom(client4, port)} }
	must(t, p.AddKernelFlows(from(1), from(2), from(1)))
	if err := p.AddKernelFlows(from(2), from(3)); !errors.Is(err, ErrFull) {
		t.Fatalf("a third flow: %v, want ErrFull", err)
	}
	must(t, p.RemoveKernelFlows(from(1)))
	must(t, p.AddKernelFlows(from(3)))
	for _, wrong := range []Flow{
		{}, {flow4.Local, flow6.Remote}, {flow4.Local, netip.AddrPortFrom(client4, 0)},
		{flow4.Local, netip.AddrPortFrom(netip.MustParseAddr("224.0.0.1"), 5)}, {netip.AddrPortFrom(netip.IPv6Unspecified(), 5), flow6.Remote},
	} {
		if p.AddKernelFlows(wrong) == nil || p.RemoveKernelFlows(wrong) == nil {
			t.Errorf("%v was taken for a connection", wrong)
		}
	}
}

// TestFloodDoesNotForgetConnections fills the memory of attempts far beyond its bound.
func TestFloodDoesNotForgetConnections(t *testing.T) {
	p := loaded(t, Options{Queues: 1, KernelSYNs: 256})
	must(t, p.SetAddresses([]netip.Addr{server4}))
	must(t, p.SetPorts([]uint16{port}))
	must(t, p.AddKernelFlows(flow4))
	for from := range 2000 {
		expect(t, p, tcp{1 + from, port, flagSYN, nil, nil}.over4().frame(), PassedNoSocket)
	}
	must(t, p.SetSocket(0, newSocket(t)))
	expect(t, p, data().over4().frame(), PassedKernelFlow)
}
