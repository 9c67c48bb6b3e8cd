package capture

import (
	"encoding/binary"
	"net/netip"
)

// Filter says which frames are wanted. Zero fields want all.
type Filter struct {
	Port   uint16         // TCP port of either side
	Remote netip.AddrPort // the client's address and port
}

// The parts of a frame that a Filter looks at. IEEE 802.1Q, RFC 791, RFC 8200.
const (
	ethernetBytes = 14
	tagBytes      = 4
	typeVLAN      = 0x8100
	typeQinQ      = 0x88a8
	typeIPv4      = 0x0800
	typeIPv6      = 0x86dd
	ipv6Bytes     = 40
	protocolTCP   = 6
)

// wants judges a frame. Frames that are no plain TCP segments are wanted only by a Filter that wants everything.
func (f *Filter) wants(frame []byte) bool {
	if f.Port == 0 && !f.Remote.IsValid() {
		return true
	}
	source, destination, ok := endpoints(frame)
	if !ok {
		return false
	}
	if f.Port != 0 && source.Port() != f.Port && destination.Port() != f.Port {
		return false
	}
	return !f.Remote.IsValid() || source == f.Remote || destination == f.Remote
}

// endpoints are the addresses and ports of a TCP segment.
func endpoints(frame []byte) (source, destination netip.AddrPort, ok bool) {
	kind, packet, ok := payload(frame)
	if !ok {
		return source, destination, false
	}
	var from, to netip.Addr
	var segment []byte
	switch {
	case kind == typeIPv4 && len(packet) >= 20 && packet[9] == protocolTCP:
		from, to = netip.AddrFrom4([4]byte(packet[12:])), netip.AddrFrom4([4]byte(packet[16:]))
		segment = packet[min(len(packet), int(packet[0]&15)*4):]
	case kind == typeIPv6 && len(packet) >= ipv6Bytes && packet[6] == protocolTCP:
		from, to = netip.AddrFrom16([16]byte(packet[8:])), netip.AddrFrom16([16]byte(packet[24:]))
		segment = packet[ipv6Bytes:]
	}
	if len(segment) < 4 {
		return source, destination, false
	}
	return netip.AddrPortFrom(from, binary.BigEndian.Uint16(segment)), netip.AddrPortFrom(to, binary.BigEndian.Uint16(segment[2:])), true
}

// payload skips the Ethernet header with up to two tags.
func payload(frame []byte) (kind uint16, packet []byte, ok bool) {
	at := ethernetBytes
	for tags := 0; len(frame) >= at; tags++ {
		kind = binary.BigEndian.Uint16(frame[at-2:])
		if kind != typeVLAN && kind != typeQinQ || tags == 2 {
			return kind, frame[at:], true
		}
		at += tagBytes
	}
	return 0, nil, false
}
