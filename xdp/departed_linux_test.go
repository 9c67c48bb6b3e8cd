package xdp

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// TestDeparted: an address is kept for a while after it is lost, unless it is back or elsewhere, and the oldest have no room first.
func TestDeparted(t *testing.T) {
	prefix := func(s string) netip.Prefix { return netip.MustParsePrefix(s) }
	a, b, c := prefix("198.18.0.1/24"), prefix("198.18.0.2/24"), prefix("2001:2::1/64")
	start := time.Unix(1000, 0)
	d := departed{}
	d.note([]netip.Prefix{a, b, c}, []netip.Prefix{b, c}, start)
	d.note([]netip.Prefix{b, c}, []netip.Prefix{b}, start.Add(time.Second))
	if got, want := d.fill([]netip.Addr{b.Addr()}, 3), []netip.Addr{b.Addr(), c.Addr(), a.Addr()}; !slices.Equal(got, want) {
		t.Errorf("%v; want %v", got, want)
	}
	if got, want := d.fill([]netip.Addr{b.Addr()}, 2), []netip.Addr{b.Addr(), c.Addr()}; !slices.Equal(got, want) {
		t.Errorf("%v in a table of two; want %v", got, want)
	}
	if d.expire(nil, start.Add(departGrace)) {
		t.Error("an address is given up too early")
	}
	if !d.expire(nil, start.Add(departGrace+time.Millisecond)) || len(d) != 1 {
		t.Errorf("%v; want only the one that was lost later", d)
	}
	if !d.expire([]netip.Addr{c.Addr()}, start) || len(d) != 0 {
		t.Errorf("%v; want none: the host has the address elsewhere", d)
	}
	d.note([]netip.Prefix{a}, nil, start)
	d.note(nil, []netip.Prefix{a}, start)
	if len(d) != 0 {
		t.Errorf("%v; want none: the address is back", d)
	}
}
