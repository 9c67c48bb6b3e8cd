//go:build amd64 || arm64

package bpf

import (
	"net/netip"
	"slices"
	"testing"
)

// A row is one frame and its verdict while everything is open: the queue has a socket, the lists and limits are empty.
type row struct {
	name  string
	frame []byte
	want  Verdict
}

// frames is the table. Chains of extension headers are written innermost last.
func frames() []row {
	udp := slices.Concat(word(clientPort), word(port), word(8), word(0))
	return slices.Concat(ipv4Frames(udp), ipv6Frames(udp), icmpFrames(), []row{
		{"ARP", ethernet(etherARP, make([]byte, 28)), PassedNotIP},
		{"LLDP", ethernet(0x88cc, make([]byte, 46)), PassedNotIP},
		{"IEEE 802.3 length", ethernet(46, make([]byte, 46)), PassedNotIP},
		{"Ethernet header only, type IPv4", ethernet(etherIPv4, nil), PassedMalformed},
		{"Ethernet header only, type IPv6", ethernet(etherIPv6, nil), PassedMalformed},
		{"IPv6 behind the type of IPv4", ethernet(etherIPv4, syn().over6().packet()), PassedMalformed},
		{"IPv4 behind the type of IPv6", ethernet(etherIPv6, syn().over4().packet()), PassedMalformed},
		{"multicast of Ethernet, IPv4", toGroup(syn().over4().frame()), PassedOtherAddress},
		{"multicast of Ethernet, IPv6", toGroup(syn().over6().frame()), PassedOtherAddress},
		{"1 tag, IPv4", tagged(syn().over4().frame(), tag8021Q), Redirected},
		{"1 tag, IPv6", tagged(syn().over6().frame(), tag8021Q), Redirected},
		{"2 tags, IPv4", tagged(data().over4().frame(), tag8021AD, tag8021Q), Redirected},
		{"2 tags, IPv6", tagged(data().over6().frame(), tag8021Q, tag8021Q), Redirected},
		{"3 tags", tagged(data().over4().frame(), tag8021AD, tag8021Q, tag8021Q), PassedNotIP},
		{"1 tag, ARP", tagged(ethernet(etherARP, make([]byte, 28)), tag8021Q), PassedNotIP},
		{"2 tags, ICMP", tagged(tooBig4(sent4()).frame(), tag8021AD, tag8021Q), RedirectedICMP},
	})
}

func ipv4Frames(udp []byte) []row {
	fragment := func(bits int) []byte {
		p := data().over4()
		p.fragment = bits
		return p.frame()
	}
	to := func(local netip.Addr) []byte {
		p := syn().over4()
		p.to = local
		return p.frame()
	}
	withOptions := data().over4()
	withOptions.options = []byte{1, 1, 1, 0} // three NOPs, end
	return []row{
		{"SYN", syn().over4().frame(), Redirected},
		{"data", data().over4().frame(), Redirected},
		{"padded to the least size of Ethernet", append(tcp{clientPort, port, flagACK, nil, nil}.over4().frame(), make([]byte, 6)...), Redirected},
		{"FIN", tcp{clientPort, port, flagFIN | flagACK, nil, nil}.over4().frame(), Redirected},
		{"RST", tcp{clientPort, port, flagRST, nil, nil}.over4().frame(), Redirected},
		{"SYN+FIN", tcp{clientPort, port, flagSYN | flagFIN, nil, nil}.over4().frame(), Redirected},
		{"SYN+ACK", tcp{clientPort, port, flagSYN | flagACK, nil, nil}.over4().frame(), PassedSYNACK},
		{"no flags", tcp{clientPort, port, 0, nil, nil}.over4().frame(), Redirected},
		{"most options", tcp{clientPort, port, flagACK, slices.Repeat([]byte{1}, 40), []byte{0xd0, 0}}.over4().frame(), Redirected},
		{"data offset 4", patched(data().over4().frame(), 14+20+12, 4<<4), PassedMalformed},
		{"data offset beyond the packet", patched(syn().over4().frame(), 14+20+12, 7<<4), PassedMalformed},
		{"data offset beyond the packet, padding there", append(patched(syn().over4().frame(), 14+20+12, 7<<4), make([]byte, 20)...), PassedMalformed},
		{"DF", fragment(0x4000), Redirected},
		{"reserved flag", fragment(0x8000), Redirected},
		{"first fragment", fragment(0x2000), PassedFragment},
		{"later fragment", fragment(0x2001), PassedFragment},
		{"last fragment", fragment(185), PassedFragment},
		{"options", withOptions.frame(), PassedIPOptions},
		{"version 5", patched(data().over4().frame(), 14, 0x55), PassedMalformed},
		{"header of 4 words", patched(data().over4().frame(), 14, 0x44), PassedMalformed},
		{"total length 19", patched(data().over4().frame(), 14+2, 0, 19), PassedMalformed},
		{"total length 20", patched(data().over4().frame(), 14+2, 0, 20), PassedMalformed},
		{"total length 65535", patched(data().over4().frame(), 14+2, 0xff, 0xff), PassedMalformed},
		{"UDP", ipv4{from: client4, to: server4, protocol: protocolUDP, payload: udp}.frame(), PassedOtherProtocol},
		{"ICMPv6 in IPv4", ipv4{from: client4, to: server4, protocol: protocolICMPv6, payload: icmp(2, 0, sent4())}.frame(), PassedOtherProtocol},
		{"to another address", to(other4), PassedOtherAddress},
		{"to the broadcast address", to(netip.MustParseAddr("255.255.255.255")), PassedOtherAddress},
		{"to another port", tcp{clientPort, otherPort, flagSYN, nil, nil}.over4().frame(), PassedOtherPort},
		{"to port 0", tcp{clientPort, 0, flagSYN, nil, nil}.over4().frame(), PassedOtherPort},
		{"to port 65535", tcp{clientPort, 65535, flagSYN, nil, nil}.over4().frame(), PassedOtherPort},
		{"from our port to another", tcp{port, clientPort, flagSYN | flagACK, nil, nil}.over4().frame(), PassedOtherPort},
	}
}

func ipv6Frames(udp []byte) []row {
	base := data().over6()
	six, seven := base, base.extended(protocolHopByHop, options(1))
	for range 6 {
		six = six.extended(protocolDestination, options(2))
		seven = seven.extended(protocolDestination, options(1))
	}
	fragment := base.extended(protocolFragment, fragmentHeader(1))
	other := base
	other.to = other6
	mapped := base
	mapped.to = netip.AddrFrom16(server4.As16())
	otherProtocol := func(number int, payload []byte) []byte {
		return ipv6{from: client6, to: server6, protocol: number, payload: payload}.frame()
	}
	return []row{
		{"SYN over IPv6", syn().over6().frame(), Redirected},
		{"data over IPv6", base.frame(), Redirected},
		{"data over IPv6, bytes behind it", append(base.frame(), 1, 2, 3), Redirected},
		{"SYN+ACK over IPv6", tcp{clientPort, port, flagSYN | flagACK, nil, nil}.over6().frame(), PassedSYNACK},
		{"Hop-by-Hop", base.extended(protocolHopByHop, options(1)).frame(), Redirected},
		{"Destination Options of 2048 bytes", base.extended(protocolDestination, append([]byte{0, 255}, make([]byte, 2046)...)).frame(), Redirected},
		{"all three kinds", base.extended(protocolHopByHop, options(1)).extended(protocolDestination, options(3)).extended(protocolRouting, routing(0)).frame(), Redirected},
		{"Routing, Segments Left", base.extended(protocolRouting, routing(1)).frame(), PassedExtensionHeaders},
		{"Hop-by-Hop not first", base.extended(protocolDestination, options(1)).extended(protocolHopByHop, options(1)).frame(), PassedExtensionHeaders},
		{"six extension headers", six.frame(), Redirected},
		{"seven extension headers", seven.frame(), PassedExtensionHeaders},
		{"fragment header", fragment.frame(), PassedFragment},
		{"fragment header of a whole packet", base.extended(protocolFragment, fragmentHeader(0)).frame(), PassedFragment},
		{"fragment header behind another", base.extended(protocolDestination, options(1)).extended(protocolFragment, fragmentHeader(8)).frame(), PassedFragment},
		{"extension header longer than the packet", patched(base.extended(protocolHopByHop, options(1)).frame(), 14+40+1, 200), PassedMalformed},
		{"TCP cut behind an extension header, padding there", append(patched(base.extended(protocolDestination, options(1)).frame(), 14+4, 0, 8+20), make([]byte, 20)...), PassedMalformed},
		{"quote cut behind an extension header, padding there", append(patched(tooBig6(sent6()).extended(protocolHopByHop, options(1)).frame(), 14+4, 0, 8+8+40), make([]byte, 20)...), PassedICMP},
		{"payload length 0", patched(base.frame(), 14+4, 0, 0), PassedMalformed},
		{"payload length 19", patched(base.frame(), 14+4, 0, 19), PassedMalformed},
		{"payload length 65535", patched(base.frame(), 14+4, 0xff, 0xff), PassedMalformed},
		{"version 4 behind the type of IPv6", patched(base.frame(), 14, 0x40), PassedMalformed},
		{"UDP over IPv6", otherProtocol(protocolUDP, udp), PassedOtherProtocol},
		{"ESP", otherProtocol(protocolESP, udp), PassedOtherProtocol},
		{"no next header", otherProtocol(protocolNoNext, nil), PassedOtherProtocol},
		{"ICMP in IPv6", otherProtocol(protocolICMP, icmp(3, 4, sent6())), PassedOtherProtocol},
		{"to another address of IPv6", other.frame(), PassedOtherAddress},
		{"to our IPv4 address as 4-in-6", mapped.frame(), PassedOtherAddress},
		{"to another port over IPv6", tcp{clientPort, otherPort, flagSYN, nil, nil}.over6().frame(), PassedOtherPort},
	}
}

func icmpFrames() []row {
	kind4 := func(kind, code byte) []byte {
		p := tooBig4(nil)
		p.payload = icmp(kind, code, sent4())
		return p.frame()
	}
	kind6 := func(kind, code byte) []byte {
		p := tooBig6(nil)
		p.payload = icmp(kind, code, sent6())
		return p.frame()
	}
	elsewhere4, elsewhere6 := tooBig4(sent4()), tooBig6(sent6())
	elsewhere4.to, elsewhere6.to = other4, other6
	fragment := tooBig4(sent4())
	fragment.fragment = 0x2000
	return []row{
		{"fragmentation needed", tooBig4(sent4()).frame(), RedirectedICMP},
		{"fragmentation needed, more quoted", tooBig4(append(sent4(), make([]byte, 100)...)).frame(), RedirectedICMP},
		{"too big", tooBig6(sent6()).frame(), RedirectedICMP},
		{"too big behind extension headers", tooBig6(sent6()).extended(protocolHopByHop, options(1)).frame(), RedirectedICMP},
		{"echo request", kind4(8, 0), PassedICMP},
		{"host unreachable", kind4(3, 1), PassedICMP},
		{"type 2 of IPv4", kind4(2, 0), PassedICMP},
		{"parameter problem with code 4", kind4(12, 4), PassedICMP},
		{"neighbour solicitation", kind6(135, 0), PassedICMP},
		{"unreachable over IPv6", kind6(1, 4), PassedICMP},
		{"too big with a code, which says nothing", kind6(2, 7), RedirectedICMP},
		{"fragmentation needed to another address", elsewhere4.frame(), PassedICMP},
		{"too big to another address", elsewhere6.frame(), PassedICMP},
		{"fragmentation needed in fragments", fragment.frame(), PassedFragment},
		{"fragmentation needed to a group", toGroup(tooBig4(sent4()).frame()), PassedICMP},
		{"quote too short", tooBig4(sent4()[:27]).frame(), PassedICMP},
		{"quote too short over IPv6", tooBig6(sent6()[:47]).frame(), PassedICMP},
		{"quote from another address", tooBig4(patched(sent4(), 12, other4.AsSlice()...)).frame(), PassedICMP},
		{"quote from another address of IPv6", tooBig6(patched(sent6(), 8, other6.AsSlice()...)).frame(), PassedICMP},
		{"quote from another port", tooBig4(patched(sent4(), 20, word(otherPort)...)).frame(), PassedICMP},
		{"quote from another port over IPv6", tooBig6(patched(sent6(), 40, word(otherPort)...)).frame(), PassedICMP},
		{"quote of UDP", tooBig4(patched(sent4(), 9, protocolUDP)).frame(), PassedICMP},
		{"quote of UDP over IPv6", tooBig6(patched(sent6(), 6, protocolUDP)).frame(), PassedICMP},
		{"quote with options", tooBig4(patched(sent4(), 0, 0x46)).frame(), PassedICMP},
		{"quote of version 6", tooBig4(patched(sent4(), 0, 0x65)).frame(), PassedICMP},
		{"quote of version 4 over IPv6", tooBig6(patched(sent6(), 0, 0x40)).frame(), PassedICMP},
		{"quote of a later fragment", tooBig4(patched(sent4(), 6, 0, 1)).frame(), PassedICMP},
		{"quote of what came to us", tooBig4(syn().over4().packet()).frame(), PassedICMP},
	}
}

// open is the reference for the table's state.
func open() *reference {
	return &reference{addresses: []netip.Addr{server4, server6}, ports: []uint16{port}, remembered: map[Flow]bool{}}
}

func TestFrames(t *testing.T) {
	p := served(t, true)
	for _, row := range frames() {
		t.Run(row.name, func(t *testing.T) {
			if said := open().judge(row.frame); said != row.want {
				t.Errorf("the reference gives %s, want %s", said, row.want)
			}
			expect(t, p, row.frame, row.want)
		})
	}
}

// TestTruncatedFrames cuts every row everywhere. XDP never sees less than an Ethernet header. A row is redirected only
// while its IP packet is whole; bytes behind that are padding.
func TestTruncatedFrames(t *testing.T) {
	p := served(t, true)
	for _, row := range frames() {
		for length := 14; length < len(row.frame); length++ {
			got, want := run(t, p, row.frame[:length]), open().judge(row.frame[:length])
			if got != want {
				t.Fatalf("%s, cut to %d of %d bytes: got %s, want %s", row.name, length, len(row.frame), got, want)
			}
			if got <= RedirectedICMP && length < 14+packetSize(row.frame[14:]) {
				t.Fatalf("%s, cut to %d of %d bytes: %s", row.name, length, len(row.frame), got)
			}
		}
	}
}

// packetSize is what the IP header says, at least, if there is one without tags before it.
func packetSize(packet []byte) int {
	if packet[0]>>4 == 4 {
		return u16(packet[2:])
	}
	return 40
}

func TestEveryVerdictIsInATable(t *testing.T) {
	seen := map[Verdict]bool{ // those of other tests
		PassedKernelFlow: true, PassedDrain: true, PassedNoSocket: true,
		DroppedDenied: true, DroppedSYNSource: true, DroppedSYNGate: true, DroppedHeld: true,
	}
	for _, row := range frames() {
		seen[row.want] = true
	}
	for v := range Verdict(Verdicts) {
		if !seen[v] {
			t.Errorf("no row is %s", v)
		}
	}
}
