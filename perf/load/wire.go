package load

import (
	"encoding/binary"
	"fmt"
)

// Control Packet types, as the high four bits of the fixed header say them.
const (
	kindConnack    = 2
	kindPublish    = 3
	kindPuback     = 4
	kindPubrec     = 5
	kindPubrel     = 6
	kindPubcomp    = 7
	kindSuback     = 9
	kindPingresp   = 13
	kindDisconnect = 14
)

// stampBytes is what the front of every payload carries: publisher, sequence number, time.
const stampBytes = 4 + 8 + 8

const reasonFailure = 0x80 // Reason Codes from here on are failures

// longFrame reads a fixed header whose Remaining Length has two to four bytes. It returns the header's size and
// the packet's; a size of zero means that bytes are missing, a negative one that the length is malformed.
func longFrame(b []byte) (headerBytes, packetBytes int) {
	length, shift := 0, 0
	for i := 1; i < len(b) && i <= 4; i++ {
		length |= int(b[i]&0x7f) << shift
		if b[i] < 0x80 {
			return 1 + i, 1 + i + length
		}
		shift += 7
	}
	if len(b) > 4 {
		return 0, -1
	}
	return 0, 0
}

// packetAt finds the first packet of b: the size of its header and of all of it, zero when it is incomplete.
func packetAt(b []byte) (headerBytes, packetBytes int, err error) {
	if len(b) < 2 {
		return 0, 0, nil
	}
	headerBytes, packetBytes = 2, 2+int(b[1])
	if b[1] >= 0x80 {
		if headerBytes, packetBytes = longFrame(b); packetBytes < 0 {
			return 0, 0, fmt.Errorf("malformed Remaining Length % x from the broker", b[:5])
		}
	}
	if packetBytes > len(b) {
		packetBytes = 0
	}
	return headerBytes, packetBytes, nil
}

func appendString(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}

// appendPacket puts the fixed header before body.
func appendPacket(dst []byte, first byte, body []byte) []byte {
	dst = append(dst, first)
	length := len(body)
	for length >= 0x80 {
		dst = append(dst, byte(length)|0x80)
		length >>= 7
	}
	return append(append(dst, byte(length)), body...)
}

// appendConnect writes a CONNECT with Clean Session and no Keep Alive.
func appendConnect(dst []byte, cfg *Config, clientID string) []byte {
	flags := byte(0x02)
	if cfg.Username != "" {
		flags |= 0xc0
	}
	body := appendString(nil, "MQTT")
	body = append(body, cfg.Version, flags, 0, 0)
	if cfg.Version == Version5 {
		body = append(body, 0) // no properties
	}
	body = appendString(body, clientID)
	if cfg.Username != "" {
		body = appendString(appendString(body, cfg.Username), cfg.Password)
	}
	return appendPacket(dst, 0x10, body)
}

// appendSubscribe writes a SUBSCRIBE to one Topic Filter, with Packet Identifier 1.
func appendSubscribe(dst []byte, cfg *Config, filter string) []byte {
	body := []byte{0, 1}
	if cfg.Version == Version5 {
		body = append(body, 0)
	}
	return appendPacket(dst, 0x82, append(appendString(body, filter), cfg.QoS))
}

// appendUnsubscribe writes an UNSUBSCRIBE from one Topic Filter, with Packet Identifier 1.
func appendUnsubscribe(dst []byte, cfg *Config, filter string) []byte {
	body := []byte{0, 1}
	if cfg.Version == Version5 {
		body = append(body, 0)
	}
	return appendPacket(dst, 0xa2, appendString(body, filter))
}

// appendClear writes the PUBLISH at QoS 1 that removes a Retained Message: RETAIN set and no payload.
func appendClear(dst []byte, cfg *Config, topic string, packetID uint16) []byte {
	body := binary.BigEndian.AppendUint16(appendString(nil, topic), packetID)
	if cfg.Version == Version5 {
		body = append(body, 0)
	}
	return appendPacket(dst, kindPublish<<4|1<<1|1, body)
}

// template is a PUBLISH to be copied and stamped: a number is where in it a field begins.
type template struct {
	packet       []byte
	packetIDAt   int // zero at QoS 0
	sequenceAt   int
	timeAt       int
	payloadBytes int
}

func newTemplate(cfg *Config, topic string, publisher int, qos, retain byte) template {
	body := appendString(nil, topic)
	if qos > 0 {
		body = append(body, 0, 0)
	}
	packetIDEnd := len(body)
	if cfg.Version == Version5 {
		body = append(body, 0)
	}
	payload := make([]byte, cfg.PayloadBytes)
	for i := range payload {
		payload[i] = byte('a' + i%26)
	}
	binary.BigEndian.PutUint32(payload, uint32(publisher))
	body = append(body, payload...)
	t := template{packet: appendPacket(nil, kindPublish<<4|qos<<1|retain, body), payloadBytes: len(payload)}
	bodyAt := len(t.packet) - len(body)
	if qos > 0 {
		t.packetIDAt = bodyAt + packetIDEnd - 2
	}
	t.sequenceAt = len(t.packet) - len(payload) + 4
	t.timeAt = t.sequenceAt + 8
	return t
}

// append adds one message to dst.
func (t *template) append(dst []byte, sequence uint64, time int64) []byte {
	at := len(dst)
	dst = append(dst, t.packet...)
	message := dst[at:]
	binary.BigEndian.PutUint64(message[t.sequenceAt:], sequence)
	binary.BigEndian.PutUint64(message[t.timeAt:], uint64(time))
	if t.packetIDAt != 0 {
		binary.BigEndian.PutUint16(message[t.packetIDAt:], packetIDOf(sequence))
	}
	return dst
}

// packetIDOf gives consecutive messages consecutive Packet Identifiers and never zero.
func packetIDOf(sequence uint64) uint16 { return uint16(sequence%windowMax) + 1 }

// publish is a received PUBLISH, in place: packetID and payload are valid as long as the read buffer is.
type publish struct {
	qos      byte
	packetID []byte
	payload  []byte
}

// parsePublish takes a PUBLISH apart; body is what follows the fixed header. It says false when it does not hold
// what its header says.
func parsePublish(first byte, body []byte, version byte) (p publish, ok bool) {
	if len(body) < 2 {
		return p, false
	}
	at := 2 + int(body[0])<<8 + int(body[1])
	if p.qos = first >> 1 & 3; p.qos != 0 {
		if at+2 > len(body) {
			return p, false
		}
		p.packetID = body[at : at+2]
		at += 2
	}
	if version == Version5 {
		length, size := binary.Uvarint(body[min(at, len(body)):])
		if size <= 0 || length > uint64(len(body)) {
			return p, false
		}
		at += size + int(length)
	}
	if at > len(body) {
		return p, false
	}
	p.payload = body[at:]
	return p, true
}

// stamp is what the front of a payload says.
type stamp struct {
	publisher uint32
	sequence  uint64
	time      int64
}

// parseStamp needs stampBytes of payload.
func parseStamp(payload []byte) stamp {
	payload = payload[:stampBytes]
	return stamp{
		publisher: binary.BigEndian.Uint32(payload),
		sequence:  binary.BigEndian.Uint64(payload[4:]),
		time:      int64(binary.BigEndian.Uint64(payload[12:])),
	}
}

// receiveMaximum is a 5.0 CONNACK's limit on unacknowledged PUBLISH packets, or the protocol's when it has none.
func receiveMaximum(properties []byte) int {
	const propertyReceiveMaximum = 0x21
	for len(properties) > 0 {
		id := properties[0]
		size := propertyBytes(id, properties[1:])
		if size < 0 || size > len(properties)-1 {
			return windowMax
		}
		if id == propertyReceiveMaximum {
			return int(binary.BigEndian.Uint16(properties[1:]))
		}
		properties = properties[1+size:]
	}
	return windowMax
}

// propertyBytes is the size of the value of a property that CONNACK may carry; negative for all others.
func propertyBytes(id byte, value []byte) int {
	text := func(at int) int {
		if at+2 > len(value) {
			return len(value) + 1
		}
		return at + 2 + int(binary.BigEndian.Uint16(value[at:]))
	}
	switch id {
	case 0x11, 0x27: // Session Expiry Interval, Maximum Packet Size
		return 4
	case 0x13, 0x21, 0x22: // Server Keep Alive, Receive Maximum, Topic Alias Maximum
		return 2
	case 0x24, 0x25, 0x28, 0x29, 0x2a: // Maximum QoS and the four "available" flags
		return 1
	case 0x12, 0x15, 0x16, 0x1a, 0x1c, 0x1f: // strings and binary data
		return text(0)
	case 0x26: // User Property
		return text(text(0))
	}
	return -1
}
