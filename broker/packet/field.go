package packet

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// maxString is the largest length in bytes of a UTF-8 Encoded String and of Binary Data.
const maxString = 1<<16 - 1

// ValidUTF8 tells whether b may stand in a UTF-8 Encoded String: well-formed, no surrogates, no U+0000. Control
// characters and non-characters, which the standard lets a receiver refuse, pass.
func ValidUTF8(b []byte) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for len(b) >= 8 {
		// Taking 1 from each of eight ASCII bytes sets a high bit only where a byte is zero.
		word := binary.LittleEndian.Uint64(b)
		if (word|(word-ones))&highs != 0 {
			return validText(b)
		}
		b = b[8:]
	}
	for i, c := range b {
		if c-1 >= 0x7F {
			return validText(b[i:])
		}
	}
	return true
}

// validText is ValidUTF8 for what is not all ASCII, or has a U+0000.
func validText(b []byte) bool {
	return utf8.Valid(b) && // [MQTT-1.5.4-1]
		bytes.IndexByte(b, 0) < 0 // [MQTT-1.5.4-2]
}

// fields reads the fields of a Variable Header or a Payload one after another. The first one that cannot be read
// turns reason into MalformedPacket, and every later read gives zero: one test at the end is enough.
type fields struct {
	rest   []byte // what has not been read
	reason Reason
}

// take cuts n bytes off.
func (f *fields) take(n int) []byte {
	if n > len(f.rest) {
		f.rest, f.reason = nil, MalformedPacket // Section 1.2: cut short, it cannot be parsed.
		return nil
	}
	taken := f.rest[:n:n]
	f.rest = f.rest[n:]
	return taken
}

func (f *fields) byte() uint8 {
	b := f.take(1)
	if b == nil {
		return 0
	}
	return b[0]
}

func (f *fields) uint16() uint16 {
	b := f.take(2)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

// binary reads Binary Data; the slice aliases the packet.
func (f *fields) binary() []byte { return f.take(int(f.uint16())) }

// string reads a UTF-8 Encoded String; the slice aliases the packet.
func (f *fields) string() []byte {
	b := f.binary()
	if !ValidUTF8(b) {
		f.reason = MalformedPacket // [MQTT-1.5.4-1] [MQTT-1.5.4-2]
	}
	return b
}

// packetID reads a Packet Identifier, which is never zero.
func (f *fields) packetID() uint16 {
	id := f.uint16()
	if id == 0 && f.reason == Success {
		f.reason = ProtocolError // [MQTT-2.2.1-3] [MQTT-2.2.1-4]
	}
	return id
}

// section reads a Property Length and cuts off as many bytes; the slice aliases the packet.
func (f *fields) section() []byte {
	n, size := varint(f.rest)
	if size <= 0 {
		f.rest, f.reason = nil, MalformedPacket // [MQTT-2.2.2-1]
		return nil
	}
	f.take(size)
	return f.take(n)
}

// end says Success when everything has been read and nothing is left.
func (f *fields) end() Reason {
	if f.reason == Success && len(f.rest) > 0 {
		return MalformedPacket // Section 2.1.4: the Remaining Length says that there is more.
	}
	return f.reason
}

// appendString writes a UTF-8 Encoded String or Binary Data.
func appendString(dst, s []byte) []byte {
	if len(s) > maxString {
		panic("packet: a string above 65,535 bytes")
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(s)))
	return append(dst, s...)
}
