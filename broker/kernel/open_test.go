//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package kernel

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
	"golang.org/x/sys/unix"
)

func TestOpenRefuses(t *testing.T) {
	any4 := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	tests := []struct {
		name   string
		config Config
		want   string
	}{
		{"no address", Config{}, "no address to listen on"},
		{"an invalid address", Config{Addresses: []netip.AddrPort{{}}}, "not an address"},
		{"too many addresses", Config{Addresses: make([]netip.AddrPort, 256)}, "at most 255"},
		{"negative planes", Config{Addresses: any4, Planes: -1}, "at least 1"},
		{"a small buffer", Config{Addresses: any4, BufferBytes: 1000}, "at least 65536"},
		{"a foreign address", Config{Addresses: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:0")}},
			"listen 192.0.2.1:0: can't assign requested address (no interface of this host has that address)"},
		{"an unknown zone", Config{Addresses: []netip.AddrPort{netip.MustParseAddrPort("[fe80::1%nosuch]:0")}}, `zone "nosuch"`},
	}
	for _, test := range tests {
		before := openDescriptors(t)
		g, err := Open(test.config)
		if err == nil {
			_ = g.Close()
			t.Errorf("%s: no error", test.name)
			continue
		}
		// Linux and the BSDs have different words for one error.
		text := strings.Replace(err.Error(), "cannot assign", "can't assign", 1)
		if !strings.Contains(text, test.want) {
			t.Errorf("%s: error %q; want %q in it", test.name, text, test.want)
		}
		if err := sameDescriptors(before, openDescriptors(t)); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestOpenAddressInUse(t *testing.T) {
	taken := mustOpen(t, Config{Addresses: loopback()[:1]}).Addresses()[0]
	before := openDescriptors(t)
	_, err := Open(Config{Addresses: append(loopback(), taken), Planes: 2})
	if !errors.Is(err, unix.EADDRINUSE) {
		t.Fatalf("Open of an address in use: %v", err)
	}
	want := "listen " + taken.String() + ": address already in use (another broker? choose another port)"
	if err.Error() != want {
		t.Errorf("error %q; want %q", err, want)
	}
	if err := sameDescriptors(before, openDescriptors(t)); err != nil {
		t.Error(err)
	}
}

// TestBothFamilies: an IPv6 listener leaves the same port of IPv4 alone.
func TestBothFamilies(t *testing.T) {
	if !loopback()[1].Addr().Is6() {
		t.Skip("this host has no IPv6")
	}
	v6 := mustOpen(t, Config{Addresses: []netip.AddrPort{netip.MustParseAddrPort("[::]:0")}}).Addresses()[0]
	v4 := netip.AddrPortFrom(netip.IPv4Unspecified(), v6.Port())
	if got := mustOpen(t, Config{Addresses: []netip.AddrPort{v4}}).Addresses()[0]; got != v4 {
		t.Errorf("listening on %v; want %v", got, v4)
	}
}

func TestMaxDescriptors(t *testing.T) {
	n, err := MaxDescriptors()
	if err != nil || n < 16 {
		t.Errorf("MaxDescriptors = %d, %v", n, err)
	}
}

// TestListenLater: an address that is only bound refuses clients, and is this group's all the same; from Listen on they get in.
func TestListenLater(t *testing.T) {
	group := mustOpen(t, Config{Addresses: loopback()[:1], Later: true})
	address := group.Addresses()[0]
	if conn, err := net.Dial("tcp", address.String()); err == nil {
		conn.Close()
		t.Error("a client gets in before Listen")
	}
	if events, err := group.Planes()[0].Wait(0); err != nil || len(events) != 0 {
		t.Errorf("before Listen the plane has %d events (%v)", len(events), err)
	}
	if err := group.Listen(); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	events, err := group.Planes()[0].Wait(10 * time.Second)
	if err != nil || len(events) != 1 || events[0].Kind != broker.Accepted {
		t.Fatalf("%d events (%v), want one connection", len(events), err)
	}
	events[0].Conn.Close()
}

// TestListenLaterIsClosed: a group that never listened leaves nothing open.
func TestListenLaterIsClosed(t *testing.T) {
	before := openDescriptors(t)
	group, err := Open(Config{Addresses: loopback(), Planes: 2, Later: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := group.Close(); err != nil {
		t.Error(err)
	}
	if err := sameDescriptors(before, openDescriptors(t)); err != nil {
		t.Error(err)
	}
}

// TestListenLaterTwice: addresses that cannot both listen are found when they are bound, before anybody has done more.
func TestListenLaterTwice(t *testing.T) {
	before := openDescriptors(t)
	group, err := Open(Config{Addresses: loopback()[:1], Later: true})
	if err != nil {
		t.Fatal(err)
	}
	address := group.Addresses()[0]
	if err := group.Close(); err != nil {
		t.Error(err)
	}
	anywhere := netip.AddrPortFrom(netip.IPv4Unspecified(), address.Port())
	for _, addresses := range [][]netip.AddrPort{{address, address}, {address, anywhere}, {anywhere, address}} {
		if _, err := Open(Config{Addresses: addresses, Later: true}); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("%v: %v", addresses, err)
		}
	}
	if err := sameDescriptors(before, openDescriptors(t)); err != nil {
		t.Error(err)
	}
}
