package packet

// Version is the Protocol Version (5.0) or Protocol Level (3.x) of a Network Connection.
type Version uint8

// The versions that this package speaks, by the number that CONNECT carries.
const (
	V31  Version = 3 // MQTT 3.1, whose Protocol Name is MQIsdp
	V311 Version = 4
	V50  Version = 5
)

// String names the version as users know it.
func (v Version) String() string {
	switch v {
	case V31:
		return "3.1"
	case V311:
		return "3.1.1"
	case V50:
		return "5.0"
	}
	return "unknown"
}

// Kind is the MQTT Control Packet type, the high four bits of a packet's first byte (5.0, section 2.1.2).
type Kind uint8

// The kinds of Control Packet. AUTH exists in 5.0 only; 0 is reserved in every version.
const (
	CONNECT Kind = 1 + iota
	CONNACK
	PUBLISH
	PUBACK
	PUBREC
	PUBREL
	PUBCOMP
	SUBSCRIBE
	SUBACK
	UNSUBSCRIBE
	UNSUBACK
	PINGREQ
	PINGRESP
	DISCONNECT
	AUTH
)

// String is the kind's name in the standard.
func (k Kind) String() string {
	switch k {
	case CONNECT:
		return "CONNECT"
	case CONNACK:
		return "CONNACK"
	case PUBLISH:
		return "PUBLISH"
	case PUBACK:
		return "PUBACK"
	case PUBREC:
		return "PUBREC"
	case PUBREL:
		return "PUBREL"
	case PUBCOMP:
		return "PUBCOMP"
	case SUBSCRIBE:
		return "SUBSCRIBE"
	case SUBACK:
		return "SUBACK"
	case UNSUBSCRIBE:
		return "UNSUBSCRIBE"
	case UNSUBACK:
		return "UNSUBACK"
	case PINGREQ:
		return "PINGREQ"
	case PINGRESP:
		return "PINGRESP"
	case DISCONNECT:
		return "DISCONNECT"
	case AUTH:
		return "AUTH"
	}
	return "Reserved"
}

// flags are the fixed header's low four bits, which only PUBLISH chooses.
func (k Kind) flags() uint8 {
	switch k {
	case PUBREL, SUBSCRIBE, UNSUBSCRIBE:
		return 0b0010 // [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1]
	}
	return 0
}

// first is the first byte of a packet of this kind that is not a PUBLISH.
func (k Kind) first() byte { return byte(k)<<4 | k.flags() }

// sender is the end of the Network Connection that a packet comes from.
type sender uint8

const (
	fromClient sender = iota
	fromServer
)
