package packet

import "encoding/binary"

// The Property Identifiers (5.0, table 2-4). All of them take one byte.
const (
	idPayloadFormat          = 0x01
	idMessageExpiry          = 0x02
	idContentType            = 0x03
	idResponseTopic          = 0x08
	idCorrelationData        = 0x09
	idSubscriptionID         = 0x0B
	idSessionExpiry          = 0x11
	idAssignedClientID       = 0x12
	idServerKeepAlive        = 0x13
	idAuthMethod             = 0x15
	idAuthData               = 0x16
	idRequestProblemInfo     = 0x17
	idWillDelay              = 0x18
	idRequestResponseInfo    = 0x19
	idResponseInformation    = 0x1A
	idServerReference        = 0x1C
	idReasonString           = 0x1F
	idReceiveMaximum         = 0x21
	idTopicAliasMaximum      = 0x22
	idTopicAlias             = 0x23
	idMaximumQoS             = 0x24
	idRetainAvailable        = 0x25
	idUserProperty           = 0x26
	idMaximumPacketSize      = 0x27
	idWildcardAvailable      = 0x28
	idSubscriptionIDsAllowed = 0x29
	idSharedAvailable        = 0x2A
)

// identifiers is a set of Property Identifiers: bit n stands for the identifier n.
type identifiers uint64

// The identifiers by the data type of their value.
const (
	byteValued identifiers = 1<<idPayloadFormat | 1<<idRequestProblemInfo | 1<<idRequestResponseInfo |
		1<<idMaximumQoS | 1<<idRetainAvailable | 1<<idWildcardAvailable | 1<<idSubscriptionIDsAllowed |
		1<<idSharedAvailable
	uint16Valued identifiers = 1<<idServerKeepAlive | 1<<idReceiveMaximum | 1<<idTopicAliasMaximum | 1<<idTopicAlias
	uint32Valued identifiers = 1<<idMessageExpiry | 1<<idSessionExpiry | 1<<idWillDelay | 1<<idMaximumPacketSize
	varintValued identifiers = 1 << idSubscriptionID
	stringValued identifiers = 1<<idContentType | 1<<idResponseTopic | 1<<idAssignedClientID | 1<<idAuthMethod |
		1<<idResponseInformation | 1<<idServerReference | 1<<idReasonString
	binaryValued identifiers = 1<<idCorrelationData | 1<<idAuthData
	pairValued   identifiers = 1 << idUserProperty
)

// The identifiers by what their value must not be, and by how often they may come.
const (
	neverZero  identifiers = 1<<idReceiveMaximum | 1<<idMaximumPacketSize | 1<<idSubscriptionID
	repeatable identifiers = 1 << idUserProperty
)

// propertySize is the number of bytes of the property that b begins with, its identifier included. 0 says that the
// identifier is unknown or the value is cut short.
func propertySize(b []byte) int {
	if len(b) < 2 || b[0] >= 64 {
		return 0
	}
	size := 0
	switch id := identifiers(1) << b[0]; {
	case id&byteValued != 0:
		size = 2
	case id&uint16Valued != 0:
		size = 3
	case id&uint32Valued != 0:
		size = 5
	case id&(stringValued|binaryValued) != 0:
		size = 1 + stringSize(b[1:])
	case id&pairValued != 0:
		size = 1 + stringSize(b[1:])
		if size <= len(b) {
			size += stringSize(b[size:])
		}
	case id&varintValued != 0:
		if _, n := varint(b[1:]); n > 0 {
			size = 1 + n
		}
	}
	if size > len(b) {
		return 0
	}
	return size
}

// stringSize is the number of bytes of the string that b begins with, its length field included; more than len(b)
// when it is cut short.
func stringSize(b []byte) int {
	if len(b) < 2 {
		return len(b) + 1
	}
	return 2 + int(binary.BigEndian.Uint16(b))
}

// properties reads a section one property after another:
//
//	for r := (properties{rest: section, allowed: ...}); r.next(); { switch r.id ... }
//
// and then asks reason. It judges whatever can be judged by looking at a single property, and repetition.
type properties struct {
	rest    []byte
	allowed identifiers // those that the packet may carry
	often   identifiers // those that may come more than once, beside the User Property
	seen    identifiers
	reason  Reason

	// The property that next read last. Slices alias the section.
	id     uint8
	number uint32 // the value of an integer
	data   []byte // the value of a string or of binary data, nil for an integer; of a User Property both, with lengths
}

// next reads one property; false at the end of the section and at the first violation.
func (r *properties) next() bool {
	if len(r.rest) == 0 {
		return false
	}
	size := propertySize(r.rest)
	if size == 0 || r.allowed&(1<<r.rest[0]) == 0 {
		return r.fail(MalformedPacket) // section 2.2.2.2: an identifier not valid for the packet is malformed too.
	}
	r.id = r.rest[0]
	bit := identifiers(1) << r.id
	if r.seen&bit&^(repeatable|r.often) != 0 {
		return r.fail(ProtocolError) // Section 2.2.2.2, and of each property: not more than once.
	}
	r.seen |= bit
	value := r.rest[1:size:size]
	r.rest = r.rest[size:]
	if bit&(stringValued|binaryValued|pairValued) != 0 {
		return r.text(bit, value)
	}
	return r.integer(bit, value)
}

// text takes the value of a property made of strings or binary data.
func (r *properties) text(bit identifiers, value []byte) bool {
	r.data = value
	if bit&pairValued != 0 {
		name := stringSize(value)
		if !ValidUTF8(value[2:name]) || !ValidUTF8(value[name+2:]) {
			return r.fail(MalformedPacket) // [MQTT-1.5.7-1]
		}
		return true
	}
	r.data = value[2:]
	if bit&stringValued != 0 && !ValidUTF8(r.data) {
		return r.fail(MalformedPacket) // [MQTT-1.5.4-1] [MQTT-1.5.4-2]
	}
	if r.id == idResponseTopic && !publishable(r.data) {
		return r.fail(ProtocolError) // [MQTT-3.3.2-14]
	}
	return true
}

// integer takes the value of a property that is a number.
func (r *properties) integer(bit identifiers, value []byte) bool {
	r.data = nil
	switch {
	case bit&byteValued != 0:
		r.number = uint32(value[0])
		if r.number > 1 {
			return r.fail(ProtocolError) // Section 3.3.2.3.2 and others: each of one byte is a choice of 0 or 1.
		}
	case bit&uint16Valued != 0:
		r.number = uint32(binary.BigEndian.Uint16(value))
	case bit&uint32Valued != 0:
		r.number = binary.BigEndian.Uint32(value)
	default:
		n, _ := varint(value)
		r.number = uint32(n)
	}
	if r.number != 0 {
		return true
	}
	if bit&neverZero != 0 {
		return r.fail(ProtocolError) // Sections 3.1.2.11.3, 3.1.2.11.4 and 3.8.2.1.2.
	}
	if r.id == idTopicAlias {
		return r.fail(TopicAliasInvalid) // [MQTT-3.3.2-8]
	}
	return true
}

func (r *properties) fail(reason Reason) bool {
	r.reason = reason
	return false
}

// publishable tells whether a Response Topic could be a Topic Name: not empty and without wildcard characters.
func publishable(topic []byte) bool {
	for _, c := range topic {
		if c == '+' || c == '#' {
			return false // [MQTT-3.3.2-14]
		}
	}
	return len(topic) > 0 // [MQTT-4.7.3-1]
}
