package packet

// MaxRemaining is the largest Remaining Length, and the largest Variable Byte Integer: 256 MiB less one byte.
const MaxRemaining = 1<<28 - 1

// maxVarintSize is how many bytes a Variable Byte Integer may take.
const maxVarintSize = 4

// Header is a packet's Fixed Header.
type Header struct {
	Kind      Kind
	Flags     uint8 // the low four bits of the first byte; CheckFlags judges them
	Remaining int   // Remaining Length in bytes: what follows the Fixed Header
	Size      int   // bytes of the Fixed Header itself, 2 to 5; 0 when more bytes are needed to tell
}

// ParseHeader reads the Fixed Header at the start of b. A Size of 0 with Success asks for more bytes. It refuses what
// is wrong in every version: the reserved kind 0, a Remaining Length that is too long or longer than need be, and a
// PINGREQ or PINGRESP that is not empty.
func ParseHeader(b []byte) (Header, Reason) {
	if len(b) > 0 && b[0]>>4 == 0 {
		return Header{}, MalformedPacket // Section 2.1.2: reserved.
	}
	if len(b) < 2 {
		return Header{}, Success
	}
	h := Header{Kind: Kind(b[0] >> 4), Flags: b[0] & 0xF, Remaining: int(b[1]), Size: 2}
	if h.Remaining >= 0x80 {
		value, size := varint(b[1:])
		if size < 0 {
			return Header{}, MalformedPacket // [MQTT-1.5.5-1]; section 2.1.4: four bytes at most.
		}
		if size == 0 {
			return Header{}, Success
		}
		h.Remaining, h.Size = value, size+1
	}
	if (h.Kind == PINGREQ || h.Kind == PINGRESP) && h.Remaining != 0 {
		return Header{}, MalformedPacket // Section 3.12: no Variable Header and no Payload.
	}
	return h, Success
}

// CheckFlags judges the flags of a Fixed Header. Those of a PUBLISH are judged by Publish.Decode. 3.1 gave PUBREL,
// SUBSCRIBE and UNSUBSCRIBE a DUP flag, and the flags of a CONNECT no meaning and no value: so check those of a CONNECT
// when Connect.Decode has found the version. AUTH is a reserved kind before 5.0.
func CheckFlags(kind Kind, flags uint8, v Version) Reason {
	const dup = 0b1000
	switch {
	case kind == PUBLISH:
		return Success
	case kind == AUTH && v != V50:
		return MalformedPacket // Section 2.2.1 of 3.1.1: a reserved kind.
	case flags == kind.flags():
		return Success
	case v == V31 && (kind == CONNECT || kind.flags() != 0 && flags == kind.flags()|dup):
		return Success
	}
	return MalformedPacket // [MQTT-2.1.3-1]
}

// varint reads a Variable Byte Integer. A size of 0 asks for more bytes, -1 says that the encoding is malformed.
func varint(b []byte) (value, size int) {
	for i, c := range b {
		if i == maxVarintSize {
			break
		}
		value |= int(c&0x7F) << (7 * i)
		if c < 0x80 {
			if c == 0 && i > 0 {
				return 0, -1 // [MQTT-1.5.5-1]
			}
			return value, i + 1
		}
	}
	if len(b) >= maxVarintSize {
		return 0, -1
	}
	return 0, 0
}

// VarintSize is how many bytes n takes as a Variable Byte Integer.
func VarintSize(n int) int {
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<14:
		return 2
	case n < 1<<21:
		return 3
	}
	return 4
}

// AppendVarint writes n, 0 to MaxRemaining, as a Variable Byte Integer of the fewest bytes.
func AppendVarint(dst []byte, n int) []byte {
	if uint(n) < 0x80 {
		return append(dst, byte(n))
	}
	return appendLongVarint(dst, n)
}

func appendLongVarint(dst []byte, n int) []byte {
	if n < 0 || n > MaxRemaining {
		panic("packet: a Variable Byte Integer above 268,435,455")
	}
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n)) // [MQTT-1.5.5-1]
}

// openLength leaves one byte for a length that is not known yet: where it lies goes to closeLength.
func openLength(dst []byte) (out []byte, at int) { return append(dst, 0), len(dst) }

// closeLength writes the length of all that stands behind the byte at, which openLength left. A length of more than
// one byte moves what follows; that costs a copy for long packets, and spares every encoder a second pass.
func closeLength(dst []byte, at int) []byte {
	n := len(dst) - at - 1
	if n < 0x80 {
		dst[at] = byte(n)
		return dst
	}
	var room [maxVarintSize - 1]byte
	more := VarintSize(n) - 1
	dst = append(dst, room[:more]...)
	copy(dst[at+1+more:], dst[at+1:])
	appendLongVarint(dst[:at], n)
	return dst
}

// AppendPingreq writes a PINGREQ, which is the same in every version.
func AppendPingreq(dst []byte) []byte { return append(dst, PINGREQ.first(), 0) }

// AppendPingresp writes a PINGRESP, which is the same in every version.
func AppendPingresp(dst []byte) []byte { return append(dst, PINGRESP.first(), 0) }
