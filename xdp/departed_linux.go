package xdp

import (
	"net/netip"
	"slices"
	"time"
)

// departGrace is how long an address is steered after the interface has lost it. One that comes back (a lease that is renewed, a
// network that is configured anew) is the kernel's again at once, but the watcher's only milliseconds later: the kernel would reset
// every connection whose peer sends something meanwhile. And while it is away, peers that still find us are served. It is short,
// because segments for an address that went elsewhere through this host would be taken, too.
const departGrace = time.Minute

// departed are the addresses that the interface has lost lately, each until it is given up.
type departed map[netip.Addr]time.Time

// note compares what the interface has with what it had.
func (d departed) note(before, after []netip.Prefix, now time.Time) {
	for _, p := range before {
		d[p.Addr()] = now.Add(departGrace)
	}
	for _, p := range after {
		delete(d, p.Addr())
	}
}

// expire gives up the addresses whose time is over, and those that the host has elsewhere: there the kernel serves them.
func (d departed) expire(elsewhere []netip.Addr, now time.Time) (hasChanged bool) {
	for a, until := range d {
		if now.After(until) || slices.Contains(elsewhere, a) {
			delete(d, a)
			hasChanged = true
		}
	}
	return hasChanged
}

// fill adds the addresses to others, the last lost first, as far as there is room.
func (d departed) fill(addresses []netip.Addr, most int) []netip.Addr {
	var lost []netip.Addr
	for a := range d {
		lost = append(lost, a)
	}
	slices.SortFunc(lost, func(a, b netip.Addr) int { return d[b].Compare(d[a]) })
	return append(addresses, lost[:min(len(lost), max(0, most-len(addresses)))]...)
}
