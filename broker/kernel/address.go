//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package kernel

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// endpoint is a peer's address in 24 bytes without a pointer: there is one for every connection, and it must be known
// after a reset too, when the kernel has forgotten it.
type endpoint struct {
	address [16]byte // the first four bytes for IPv4
	zone    uint32
	port    uint16
	v4      bool
}

func (e endpoint) addrPort() netip.AddrPort {
	if e.v4 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(e.address[:4])), e.port)
	}
	address := netip.AddrFrom16(e.address)
	if e.zone != 0 {
		address = address.WithZone(strconv.FormatUint(uint64(e.zone), 10))
	}
	return netip.AddrPortFrom(address, e.port)
}

// endpointOf converts an address that package unix has parsed. Anything but IPv4 and IPv6 gives the zero endpoint.
func endpointOf(from unix.Sockaddr) endpoint {
	switch from := from.(type) {
	case *unix.SockaddrInet4:
		e := endpoint{port: uint16(from.Port), v4: true}
		copy(e.address[:], from.Addr[:])
		return e
	case *unix.SockaddrInet6:
		return endpoint{address: from.Addr, zone: from.ZoneId, port: uint16(from.Port)}
	}
	return endpoint{}
}

func localAddress(fd int) (netip.AddrPort, error) {
	from, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return endpointOf(from).addrPort(), nil
}

func sockaddrOf(address netip.AddrPort) (to unix.Sockaddr, family int, err error) {
	if !address.IsValid() {
		return nil, 0, fmt.Errorf("not an address")
	}
	port := int(address.Port())
	if address.Addr().Is4() {
		return &unix.SockaddrInet4{Port: port, Addr: address.Addr().As4()}, unix.AF_INET, nil
	}
	zone, err := zoneNumber(address.Addr().Zone())
	if err != nil {
		return nil, 0, err
	}
	return &unix.SockaddrInet6{Port: port, Addr: address.Addr().As16(), ZoneId: zone}, unix.AF_INET6, nil
}

// zoneNumber turns the zone of a link-local address, an interface's name or number, into the number.
func zoneNumber(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	ifc, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, fmt.Errorf("zone %q: %w", zone, err)
	}
	return uint32(ifc.Index), nil
}
