package bpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// The numbers that steer.c's struct address has for the families.
const (
	family4 = 4
	family6 = 6
)

// words are an address as the program reads it from a packet: IPv4 in the first word, the bytes in network order.
func words(address netip.Addr) (family uint32, word [4]uint32) {
	if address.Is4() {
		bytes := address.As4()
		return family4, [4]uint32{binary.NativeEndian.Uint32(bytes[:])}
	}
	bytes := address.As16()
	for i := range word {
		word[i] = binary.NativeEndian.Uint32(bytes[4*i:])
	}
	return family6, word
}

// networkPort is a port as the program reads it from a packet.
func networkPort(port uint16) uint16 {
	var bytes [2]byte
	binary.BigEndian.PutUint16(bytes[:], port)
	return binary.NativeEndian.Uint16(bytes[:])
}

// unicast gives the address without its 4-in-6 prefix and zone, if a TCP connection can have it.
func unicast(address netip.Addr) (netip.Addr, error) {
	address = address.Unmap().WithZone("")
	if !address.IsValid() || address.IsUnspecified() || address.IsMulticast() {
		return address, fmt.Errorf("%s is not the address of one machine", address)
	}
	return address, nil
}

// check gives the flow with plain addresses.
func (f Flow) check() (Flow, error) {
	local, err := unicast(f.Local.Addr())
	if err != nil {
		return f, err
	}
	remote, err := unicast(f.Remote.Addr())
	if err != nil {
		return f, err
	}
	if local.Is4() != remote.Is4() || f.Local.Port() == 0 || f.Remote.Port() == 0 {
		return f, fmt.Errorf("%s to %s is no TCP connection", f.Remote, f.Local)
	}
	return Flow{netip.AddrPortFrom(local, f.Local.Port()), netip.AddrPortFrom(remote, f.Remote.Port())}, nil
}
