//go:build amd64 || arm64

package bpf

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
)

func TestSetAddresses(t *testing.T) {
	p := served(t, true)
	to4, to6 := data().over4().frame(), data().over6().frame()
	must(t, p.SetAddresses([]netip.Addr{netip.AddrFrom16(server4.As16()), other6})) // 4-in-6 is IPv4
	expect(t, p, to4, Redirected)
	expect(t, p, to6, PassedOtherAddress)
	must(t, p.SetAddresses([]netip.Addr{netip.MustParseAddr("fe80::1%eth0"), server6, server6}))
	expect(t, p, to4, PassedOtherAddress)
	expect(t, p, to6, Redirected)
	must(t, p.SetAddresses(nil))
	expect(t, p, to6, PassedOtherAddress)
	for _, wrong := range []netip.Addr{{}, netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("224.0.0.1"), netip.MustParseAddr("ff02::1")} {
		if p.SetAddresses([]netip.Addr{wrong}) == nil {
			t.Errorf("%s was taken for an address of ours", wrong)
		}
	}
}

// TestAddressesFitTwice replaces as many addresses as there may be by as many others.
func TestAddressesFitTwice(t *testing.T) {
	p := served(t, true)
	address := netip.MustParseAddr("198.18.16.0")
	for range 2 {
		var many []netip.Addr
		for range MaxAddresses {
			address = address.Next()
			many = append(many, address)
		}
		must(t, p.SetAddresses(many))
		if err := p.SetAddresses(append(many, server4)); !errors.Is(err, ErrFull) {
			t.Fatalf("one more address: %v, want ErrFull", err)
		}
	}
	frame := data().over4()
	frame.to = address
	expect(t, p, frame.frame(), Redirected)
	frame.to = netip.MustParseAddr("198.18.16.1")
	expect(t, p, frame.frame(), PassedOtherAddress)
}

func TestSetPorts(t *testing.T) {
	p := served(t, true)
	to := func(port int) []byte { return tcp{clientPort, port, flagACK, nil, nil}.over4().frame() }
	for _, set := range [][]uint16{{1, 63, 64, 65535}, {64, 8883}, {}} {
		must(t, p.SetPorts(set))
		chosen := map[int]bool{}
		for _, port := range set {
			chosen[int(port)] = true
		}
		for _, port := range []int{0, 1, 62, 63, 64, 65, 1883, 8883, 65534, 65535} {
			want := PassedOtherPort
			if chosen[port] {
				want = Redirected
			}
			if got := run(t, p, to(port)); got != want {
				t.Errorf("ports %d: %d is %s, want %s", set, port, got, want)
			}
		}
	}
	if p.SetPorts([]uint16{0}) == nil {
		t.Error("port 0 was taken")
	}
}

// TestReplacingServesThroughout runs traffic while the addresses and ports are exchanged for others that serve it as well.
func TestReplacingServesThroughout(t *testing.T) {
	p := served(t, true)
	done := make(chan error)
	go func() {
		_, err := p.objects.RingmqSteer.Run(&ebpf.RunOptions{Data: data().over4().frame(), Repeat: 2_000_000})
		done <- err
	}()
	addresses := [][]netip.Addr{{server4}, {other4, server4, server6}}
	ports := [][]uint16{{port}, {port - 1, port, port + 1}, {port, 9000}}
	for changed := 0; ; changed++ {
		must(t, p.SetAddresses(addresses[changed%len(addresses)]))
		must(t, p.SetPorts(ports[changed%len(ports)]))
		select {
		case err := <-done:
			must(t, err)
			for verdict, count := range total(t, p) {
				if Verdict(verdict) != Redirected && count.Packets > 0 {
					t.Errorf("%d frames were %s", count.Packets, Verdict(verdict))
				}
			}
			return
		default:
		}
	}
}
