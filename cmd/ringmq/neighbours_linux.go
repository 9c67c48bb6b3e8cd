package main

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// neighbours asks the kernel's neighbour table of an interface for link addresses. A netlink socket is opened per question:
// questions are rare, for addresses that no frame has told.
func neighbours(name string) func(netip.Addr) (mac [6]byte, ok bool) {
	return func(a netip.Addr) (mac [6]byte, ok bool) {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return mac, false
		}
		family := netlink.FAMILY_V4
		if a.Is6() {
			family = netlink.FAMILY_V6
		}
		table, err := netlink.NeighList(link.Attrs().Index, family)
		if err != nil {
			return mac, false
		}
		for _, n := range table {
			usable := n.State&(netlink.NUD_REACHABLE|netlink.NUD_STALE|netlink.NUD_DELAY|netlink.NUD_PROBE|netlink.NUD_PERMANENT) != 0
			if usable && n.IP.Equal(net.IP(a.AsSlice())) && len(n.HardwareAddr) == len(mac) {
				return [6]byte(n.HardwareAddr), true
			}
		}
		return mac, false
	}
}
