package netstack

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const (
	ethernetBytes = header.EthernetMinimumSize
	vlanTagBytes  = 4
	vlanTagsMax   = 2 // as many as the steering program passes

	// linkHeaderMax is the room that a transmit frame has in front of the IP packet.
	linkHeaderMax = ethernetBytes + vlanTagsMax*vlanTagBytes

	etherTypeIPv4 = 0x0800
	etherTypeIPv6 = 0x86dd
	etherTypeVLAN = 0x8100 // IEEE 802.1Q
	etherTypeQinQ = 0x88a8 // IEEE 802.1ad

	protocolICMP   = 1
	protocolTCP    = 6
	protocolICMPv6 = 58

	extensionsMax = 8 // IPv6 extension headers in a row; nobody sends more than three

	icmpUnreachable        = 3
	icmpFragmentationNeed  = 4
	icmpv6PacketTooBig     = 2
	icmpHeaderBytes        = 8
	quotedTransportBytes   = 8 // what an ICMP error quotes at least: ports and sequence number
	ipv4HeaderBytes        = header.IPv4MinimumSize
	ipv6HeaderBytes        = header.IPv6MinimumSize
	tcpHeaderBytes         = header.TCPMinimumSize
	timestampOptionBytes   = 12 // padded, as every TCP sends it
	tcpFin, tcpSyn, tcpRst = uint8(header.TCPFlagFin), uint8(header.TCPFlagSyn), uint8(header.TCPFlagRst)
	tcpAck                 = uint8(header.TCPFlagAck)
)

// flowKey names a connection. IPv4 addresses are in their mapped form; IPv6 packets with such addresses are dropped.
type flowKey struct {
	local, remote         [16]byte
	localPort, remotePort uint16
}

func (k *flowKey) localAddr() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(k.local).Unmap(), k.localPort)
}

func (k *flowKey) remoteAddr() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(k.remote).Unmap(), k.remotePort)
}

// mapped returns an IPv4 address as a flowKey has it.
func mapped(v4 []byte) (a [16]byte) {
	a[10], a[11] = 0xff, 0xff
	copy(a[12:], v4)
	return a
}

// linkAddr is how to reach a remote on the link: a MAC address behind none to two VLAN tags.
type linkAddr struct {
	mac  [6]byte
	tags [vlanTagsMax]uint32 // TPID << 16 | TCI, outermost first; zero: none
}

// received is what the plane knows of a received frame.
type received struct {
	key       flowKey // of the connection; with an ICMP error, of the one that it quotes
	link      linkAddr
	seq, ack  uint32 // with an ICMP error, seq is the quoted one
	network   int    // offset of the IP header
	transport int    // offset of the TCP or ICMP header
	end       int    // of the IP packet; the rest is padding
	payload   int    // of the TCP segment, in bytes
	mtu       int    // with an ICMP error: the largest packet that passes
	flags     uint8  // of TCP
	isV6      bool
	isICMP    bool
}

// dropReason says why a received frame goes no further; zero: it does.
type dropReason uint8

const (
	keep dropReason = iota
	malformed
	notOurs
)

// isAttempt tells whether it is the SYN of a connection that is to begin.
func (r *received) isAttempt() bool {
	return !r.isICMP && r.flags&(tcpSyn|tcpAck|tcpRst|tcpFin) == tcpSyn
}

// parse looks at a frame that came for the interface with this MAC address. It checks lengths and nothing else.
func (r *received) parse(frame []byte, mac [6]byte) dropReason {
	*r = received{}
	etherType, ok := r.parseEthernet(frame)
	if !ok {
		return malformed
	}
	if [6]byte(frame[:6]) != mac {
		return notOurs // As tcp_v4_rcv in Linux: TCP is for frames to this host only.
	}
	switch etherType {
	case etherTypeIPv4:
		return r.parseIPv4(frame)
	case etherTypeIPv6:
		return r.parseIPv6(frame)
	}
	return notOurs
}

func (r *received) parseEthernet(frame []byte) (etherType uint16, ok bool) {
	if len(frame) < ethernetBytes {
		return 0, false
	}
	r.link.mac = [6]byte(frame[6:12])
	r.network = ethernetBytes
	etherType = binary.BigEndian.Uint16(frame[12:])
	for i := 0; etherType == etherTypeVLAN || etherType == etherTypeQinQ; i++ {
		if i == vlanTagsMax || len(frame) < r.network+vlanTagBytes {
			return 0, false
		}
		const priorityMask = 0x0fff // The answer has no priority of its own.
		tci := binary.BigEndian.Uint16(frame[r.network:]) & priorityMask
		r.link.tags[i] = uint32(etherType)<<16 | uint32(tci)
		etherType = binary.BigEndian.Uint16(frame[r.network+2:])
		r.network += vlanTagBytes
	}
	return etherType, true
}

func (r *received) parseIPv4(frame []byte) dropReason {
	ip := frame[r.network:]
	if len(ip) < ipv4HeaderBytes || ip[0]>>4 != 4 {
		return malformed
	}
	headerBytes, total := int(ip[0]&0xf)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if headerBytes < ipv4HeaderBytes || total < headerBytes || total > len(ip) {
		return malformed
	}
	if binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 {
		return notOurs // A fragment: the kernel puts it together.
	}
	if !isUnicastIPv4(ip[12:16]) || !isUnicastIPv4(ip[16:20]) {
		return notOurs
	}
	r.key.local, r.key.remote = mapped(ip[16:20]), mapped(ip[12:16])
	r.transport, r.end = r.network+headerBytes, r.network+total
	switch ip[9] {
	case protocolTCP:
		return r.parseTCP(frame)
	case protocolICMP:
		return r.parseICMP(frame)
	}
	return notOurs
}

// isUnicastIPv4 leaves out what no host on a link has: this network, loopback, multicast, reserved, broadcast.
func isUnicastIPv4(a []byte) bool { return a[0] != 0 && a[0] != 127 && a[0] < 224 }

func (r *received) parseIPv6(frame []byte) dropReason {
	ip := frame[r.network:]
	if len(ip) < ipv6HeaderBytes || ip[0]>>4 != 6 {
		return malformed
	}
	total := ipv6HeaderBytes + int(binary.BigEndian.Uint16(ip[4:]))
	if total > len(ip) {
		return malformed
	}
	source, destination := [16]byte(ip[8:24]), [16]byte(ip[24:40])
	if !isUnicastIPv6(source) || !isUnicastIPv6(destination) {
		return notOurs
	}
	r.isV6 = true
	r.key.local, r.key.remote = destination, source
	r.end = r.network + total
	next, offset, why := skipExtensions(ip[:total])
	if why != keep {
		return why
	}
	r.transport = r.network + offset
	switch next {
	case protocolTCP:
		return r.parseTCP(frame)
	case protocolICMPv6:
		return r.parseICMPv6(frame)
	}
	return notOurs
}

func isUnicastIPv6(a [16]byte) bool {
	addr := netip.AddrFrom16(a)
	return !addr.IsUnspecified() && !addr.IsLoopback() && !addr.IsMulticast() && !addr.Is4In6()
}

// skipExtensions finds the transport header behind those extension headers that whole packets have.
func skipExtensions(ip []byte) (next byte, offset int, why dropReason) {
	const hopByHop, routing, destination = 0, 43, 60
	next, offset = ip[6], ipv6HeaderBytes
	for range extensionsMax {
		if next != hopByHop && next != routing && next != destination {
			return next, offset, keep
		}
		if len(ip) < offset+8 {
			return 0, 0, malformed
		}
		next, offset = ip[offset], offset+8+8*int(ip[offset+1])
		if offset > len(ip) {
			return 0, 0, malformed
		}
	}
	return 0, 0, notOurs
}

func (r *received) parseTCP(frame []byte) dropReason {
	t := frame[r.transport:r.end]
	if len(t) < tcpHeaderBytes {
		return malformed
	}
	offset := int(t[12]>>4) * 4
	if offset < tcpHeaderBytes || offset > len(t) {
		return malformed
	}
	r.payload = len(t) - offset
	r.key.remotePort, r.key.localPort = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
	r.seq, r.ack = binary.BigEndian.Uint32(t[4:]), binary.BigEndian.Uint32(t[8:])
	r.flags = t[13]
	return keep
}

// parseICMP takes "fragmentation needed and DF set" (RFC 792, RFC 1191) about a TCP segment that this host has sent.
func (r *received) parseICMP(frame []byte) dropReason {
	m := frame[r.transport:r.end]
	if len(m) < icmpHeaderBytes+ipv4HeaderBytes || m[0] != icmpUnreachable || m[1] != icmpFragmentationNeed {
		return notOurs
	}
	r.isICMP, r.mtu = true, int(binary.BigEndian.Uint16(m[6:]))
	quoted := m[icmpHeaderBytes:]
	headerBytes := int(quoted[0]&0xf) * 4
	if quoted[0]>>4 != 4 || headerBytes < ipv4HeaderBytes || len(quoted) < headerBytes+quotedTransportBytes {
		return malformed
	}
	if quoted[9] != protocolTCP || [4]byte(quoted[12:16]) != [4]byte(frame[r.network+16:r.network+20]) {
		return notOurs
	}
	r.key.remote = mapped(quoted[16:20])
	r.parseQuoted(quoted[headerBytes:])
	return keep
}

// parseICMPv6 takes "packet too big" (RFC 4443, section 3.2) about a TCP segment that this host has sent.
func (r *received) parseICMPv6(frame []byte) dropReason {
	m := frame[r.transport:r.end]
	if len(m) < icmpHeaderBytes+ipv6HeaderBytes+quotedTransportBytes || m[0] != icmpv6PacketTooBig {
		return notOurs
	}
	r.isICMP, r.mtu = true, int(min(binary.BigEndian.Uint32(m[4:]), 1<<16))
	quoted := m[icmpHeaderBytes:]
	if quoted[6] != protocolTCP || [16]byte(quoted[8:24]) != r.key.local {
		return notOurs
	}
	r.key.remote = [16]byte(quoted[24:40])
	r.parseQuoted(quoted[ipv6HeaderBytes:])
	return keep
}

func (r *received) parseQuoted(t []byte) {
	r.key.localPort, r.key.remotePort = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
	r.seq = binary.BigEndian.Uint32(t[4:])
}

// isIntact verifies the checksums of a TCP segment, which the stack does, too, but after a link address was learned.
func (r *received) isIntact(frame []byte) bool {
	ip := frame[r.network:r.transport]
	if !r.isV6 && checksum.Checksum(ip, 0) != 0xffff {
		return false
	}
	segment := frame[r.transport:r.end]
	sum := uint32(protocolTCP) + uint32(len(segment))
	if r.isV6 {
		sum += uint32(checksum.Checksum(r.key.local[:], 0)) + uint32(checksum.Checksum(r.key.remote[:], 0))
	} else {
		sum += uint32(checksum.Checksum(ip[12:20], 0))
	}
	return checksum.Checksum(segment, fold(sum)) == 0xffff
}

func fold(sum uint32) uint16 {
	sum = sum>>16 + sum&0xffff
	return uint16(sum>>16 + sum)
}

// putLinkHeader writes the Ethernet header of an answer and returns its length. The destination of the frame is to.
func putLinkHeader(frame []byte, to linkAddr, from [6]byte, etherType uint16) int {
	copy(frame, to.mac[:])
	copy(frame[6:], from[:])
	n := 12
	for _, tag := range to.tags {
		if tag != 0 {
			binary.BigEndian.PutUint32(frame[n:], tag)
			n += vlanTagBytes
		}
	}
	binary.BigEndian.PutUint16(frame[n:], etherType)
	return n + 2
}
