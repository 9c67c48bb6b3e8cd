package bpf

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// The parts of frames, each byte labelled. Checksums are zero: the program leaves them to the stack that gets the segment.

// Numbers from the registries, as they stand on the wire.
const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherIPv6 = 0x86dd
	tag8021Q  = 0x8100
	tag8021AD = 0x88a8

	protocolHopByHop    = 0
	protocolICMP        = 1
	protocolTCP         = 6
	protocolUDP         = 17
	protocolRouting     = 43
	protocolFragment    = 44
	protocolESP         = 50
	protocolICMPv6      = 58
	protocolNoNext      = 59
	protocolDestination = 60

	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
	flagPSH = 0x08
	flagACK = 0x10
)

// The machines of all tests.
var (
	server4  = netip.MustParseAddr("198.18.0.1")
	client4  = netip.MustParseAddr("198.18.0.2")
	other4   = netip.MustParseAddr("198.18.0.3") // on our network, not ours
	router4  = netip.MustParseAddr("198.19.0.254")
	server6  = netip.MustParseAddr("2001:2::1")
	client6  = netip.MustParseAddr("2001:2::2")
	other6   = netip.MustParseAddr("2001:2::3")
	router6  = netip.MustParseAddr("2001:2:0:1::fe")
	hardware = []byte{0x02, 0, 0, 0, 0, 0x01}
)

const (
	port       = 1883 // served
	otherPort  = 1884
	clientPort = 40000
)

func word(value int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(value)) }

func ethernet(kind int, payload []byte) []byte {
	return slices.Concat(
		hardware,                    // destination
		[]byte{0x02, 0, 0, 0, 0, 2}, // source
		word(kind),
		payload,
	)
}

// tagged puts VLAN tags of these kinds, outermost first, between an Ethernet header and its payload.
func tagged(frame []byte, kinds ...int) []byte {
	for _, kind := range slices.Backward(kinds) {
		frame = slices.Concat(
			frame[:12], // addresses
			word(kind),
			word(10),   // priority 0, VLAN 10
			frame[12:], // the type that was there
		)
	}
	return frame
}

// toGroup makes the frame a multicast of Ethernet.
func toGroup(frame []byte) []byte {
	frame = slices.Clone(frame)
	frame[0] |= 1
	return frame
}

type ipv4 struct {
	from, to netip.Addr
	protocol int
	fragment int // flags and offset
	options  []byte
	payload  []byte
}

func (p ipv4) packet() []byte {
	header := 20 + len(p.options)
	return slices.Concat(
		[]byte{0x40 | byte(header/4)}, // version 4, header length in words
		[]byte{0},                     // type of service
		word(header+len(p.payload)),   // total length
		word(0x1234),                  // identification
		word(p.fragment),              // reserved, DF, MF, offset in units of 8
		[]byte{64, byte(p.protocol)},  // time to live, protocol
		word(0),                       // checksum
		p.from.AsSlice(),
		p.to.AsSlice(),
		p.options,
		p.payload,
	)
}

func (p ipv4) frame() []byte { return ethernet(etherIPv4, p.packet()) }

type ipv6 struct {
	from, to   netip.Addr
	protocol   int      // of the payload
	extensions [][]byte // their first bytes are set to what follows
	first      []int    // their protocol numbers
	payload    []byte
}

func (p ipv6) packet() []byte {
	numbers := append(slices.Clone(p.first), p.protocol)
	var rest []byte
	for i, extension := range p.extensions {
		rest = slices.Concat(rest, []byte{byte(numbers[i+1])}, extension[1:])
	}
	rest = append(rest, p.payload...)
	return slices.Concat(
		[]byte{0x60, 0, 0, 0},        // version 6, traffic class, flow label
		word(len(rest)),              // payload length
		[]byte{byte(numbers[0]), 64}, // next header, hop limit
		p.from.AsSlice(),
		p.to.AsSlice(),
		rest,
	)
}

func (p ipv6) frame() []byte { return ethernet(etherIPv6, p.packet()) }

// extended gives p one more extension header, the innermost so far.
func (p ipv6) extended(number int, header []byte) ipv6 {
	p.first = append(slices.Clone(p.first), number)
	p.extensions = append(slices.Clone(p.extensions), header)
	return p
}

// options is a Hop-by-Hop or Destination Options header of 8 * units bytes, all padding.
func options(units int) []byte {
	return slices.Concat(
		[]byte{0, byte(units - 1)},   // next header, length
		[]byte{1, byte(8*units - 4)}, // PadN, its length
		make([]byte, 8*units-4),
	)
}

func routing(segmentsLeft byte) []byte {
	return []byte{
		0, 0, // next header, length
		4, segmentsLeft, // type: segment routing
		0, 0, 0, 0,
	}
}

func fragmentHeader(offset int) []byte {
	return slices.Concat(
		[]byte{0, 0}, // next header, reserved
		word(offset), // offset, reserved, more fragments
		[]byte{0, 0, 0, 1},
	)
}

type tcp struct {
	from, to int
	flags    byte
	options  []byte
	data     []byte
}

func (s tcp) segment() []byte {
	return slices.Concat(
		word(s.from), word(s.to),
		[]byte{0, 0, 0, 1}, // sequence number
		[]byte{0, 0, 0, 2}, // acknowledgement number
		[]byte{byte(20+len(s.options)) / 4 << 4, s.flags},
		word(65535), // window
		word(0),     // checksum
		word(0),     // urgent pointer
		s.options,
		s.data,
	)
}

// The segments of a connection to us.
func syn() tcp { return tcp{clientPort, port, flagSYN, []byte{2, 4, 5, 0xb4}, nil} } // MSS 1460
func data() tcp {
	return tcp{clientPort, port, flagPSH | flagACK, []byte{
		1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1, // two NOPs, timestamps
	}, []byte{0xc0, 0}} // PINGREQ
}

func (s tcp) over4() ipv4 {
	return ipv4{from: client4, to: server4, protocol: protocolTCP, payload: s.segment()}
}

func (s tcp) over6() ipv6 {
	return ipv6{from: client6, to: server6, protocol: protocolTCP, payload: s.segment()}
}

// icmp is a message that quotes a packet; of a quoted TCP segment, 8 bytes are enough.
func icmp(kind, code byte, quote []byte) []byte {
	return slices.Concat(
		[]byte{kind, code},
		word(0),            // checksum
		[]byte{0, 0, 5, 0}, // the MTU: 1280
		quote,
	)
}

// sent4 and sent6 are the beginnings of packets that we have sent to the client, as a router quotes them.
func sent4() []byte {
	return ipv4{from: server4, to: client4, protocol: protocolTCP, fragment: 0x4000, payload: tcp{from: port, to: clientPort}.segment()}.packet()[:28]
}

func sent6() []byte {
	return ipv6{from: server6, to: client6, protocol: protocolTCP, payload: tcp{from: port, to: clientPort}.segment()}.packet()[:48]
}

func tooBig4(quote []byte) ipv4 {
	return ipv4{from: router4, to: server4, protocol: protocolICMP, payload: icmp(3, 4, quote)}
}

func tooBig6(quote []byte) ipv6 {
	return ipv6{from: router6, to: server6, protocol: protocolICMPv6, payload: icmp(2, 0, quote)}
}

// patched is a copy of a frame with some of its bytes replaced.
func patched(frame []byte, at int, bytes ...byte) []byte {
	frame = slices.Clone(frame)
	copy(frame[at:], bytes)
	return frame
}
