package packet

import "encoding/binary"

// The bits of the Connect Flags (5.0, section 3.1.2.3).
const (
	connectReserved     = 0b00000001
	connectCleanStart   = 0b00000010
	connectWill         = 0b00000100
	connectWillQoS      = 0b00011000
	connectWillQoSShift = 3
	connectWillRetain   = 0b00100000
	connectPassword     = 0b01000000
	connectUserName     = 0b10000000
)

// connectAllowed are the properties of a CONNECT's Variable Header.
const connectAllowed identifiers = 1<<idSessionExpiry | 1<<idReceiveMaximum | 1<<idMaximumPacketSize |
	1<<idTopicAliasMaximum | 1<<idRequestResponseInfo | 1<<idRequestProblemInfo | 1<<idUserProperty |
	1<<idAuthMethod | 1<<idAuthData

// maxReceiveMaximum is the Receive Maximum of whoever names none.
const maxReceiveMaximum = 65535

// Connect is a decoded CONNECT. Its slices alias the body that was decoded.
type Connect struct {
	Version    Version
	CleanStart bool   // Clean Start in 5.0, Clean Session in 3.x
	KeepAlive  uint16 // in seconds, 0 for none
	ClientID   []byte

	HasUser     bool
	User        []byte // User Name
	HasPassword bool
	Password    []byte

	HasWill bool
	Will    Will

	// The properties, in 3.x at the values that stand for absence.
	SessionExpiry       uint32 // Session Expiry Interval in seconds
	ReceiveMaximum      uint16 // 65,535 when absent; AppendConnect takes 0 for absent
	MaximumPacketSize   uint32 // in bytes; 0 when absent, which sets no limit
	TopicAliasMaximum   uint16
	RequestResponseInfo bool
	RequestProblemInfo  bool   // true when absent: a Client that builds a Connect must set it, or asks for no Reason Strings
	AuthMethod          []byte // Authentication Method
	HasAuthData         bool
	AuthData            []byte // Authentication Data
	UserProperties      UserProperties
}

// Decode reads a CONNECT and finds its version. When it refuses one, Version says in which version to answer; 0 says
// that this is not known. What is UnsupportedProtocolVersion wants the answer of 3.1.1 [MQTT-3.1.2-2], or none.
func (p *Connect) Decode(body []byte) Reason {
	*p = Connect{ReceiveMaximum: maxReceiveMaximum, RequestProblemInfo: true}
	f := fields{rest: body}
	name, level := f.string(), f.byte()
	if f.reason != Success {
		return f.reason
	}
	if p.Version = protocol(name, level); p.Version == 0 {
		return UnsupportedProtocolVersion // [MQTT-3.1.2-1] [MQTT-3.1.2-2]
	}
	flags := f.byte()
	p.KeepAlive = f.uint16()
	if f.reason != Success {
		return f.reason
	}
	if reason := p.readFlags(flags); reason != Success {
		return reason
	}
	if p.Version == V50 {
		section := f.section()
		if f.reason != Success {
			return f.reason
		}
		if reason := p.readProperties(section); reason != Success {
			return reason
		}
	}
	return p.readPayload(&f)
}

// protocol is the version that a Protocol Name and Protocol Level stand for, 0 when none.
func protocol(name []byte, level uint8) Version {
	v := Version(level)
	switch string(name) {
	case "MQTT":
		if v == V311 || v == V50 {
			return v
		}
	case "MQIsdp":
		if v == V31 {
			return v
		}
	}
	return 0
}

// readFlags takes the Connect Flags. 3.1 has no reserved value for bit 0 and disregards the Will's bits when there
// is no Will.
func (p *Connect) readFlags(flags uint8) Reason {
	p.CleanStart = flags&connectCleanStart != 0
	p.HasUser = flags&connectUserName != 0
	p.HasPassword = flags&connectPassword != 0
	p.HasWill = flags&connectWill != 0
	if flags&connectReserved != 0 && p.Version != V31 {
		return MalformedPacket // [MQTT-3.1.2-3]
	}
	if p.HasWill {
		p.Will.QoS = flags & connectWillQoS >> connectWillQoSShift
		p.Will.Retain = flags&connectWillRetain != 0
		if p.Will.QoS == 3 {
			return MalformedPacket // [MQTT-3.1.2-12]
		}
	} else if flags&(connectWillQoS|connectWillRetain) != 0 && p.Version != V31 {
		return ProtocolError // [MQTT-3.1.2-11] [MQTT-3.1.2-13]
	}
	if p.HasPassword && !p.HasUser && p.Version != V50 {
		return ProtocolError // [MQTT-3.1.2-22] of 3.1.1; 5.0 allows it.
	}
	return Success
}

func (p *Connect) readProperties(section []byte) Reason {
	r := properties{rest: section, allowed: connectAllowed}
	for r.next() {
		switch r.id {
		case idSessionExpiry:
			p.SessionExpiry = r.number
		case idReceiveMaximum:
			p.ReceiveMaximum = uint16(r.number)
		case idMaximumPacketSize:
			p.MaximumPacketSize = r.number
		case idTopicAliasMaximum:
			p.TopicAliasMaximum = uint16(r.number)
		case idRequestResponseInfo:
			p.RequestResponseInfo = r.number == 1
		case idRequestProblemInfo:
			p.RequestProblemInfo = r.number == 1
		case idAuthMethod:
			p.AuthMethod = r.data
		case idAuthData:
			p.HasAuthData, p.AuthData = true, r.data
		}
	}
	p.UserProperties = usersOf(&r, section)
	if r.reason == Success && p.HasAuthData && p.AuthMethod == nil {
		return ProtocolError // Section 3.1.2.11.10.
	}
	return r.reason
}

// readPayload takes the fields in the order of [MQTT-3.1.3-1].
func (p *Connect) readPayload(f *fields) Reason {
	p.ClientID = f.string() // [MQTT-3.1.3-3] [MQTT-3.1.3-4]
	if p.HasWill {
		if reason := p.Will.read(f, p.Version); reason != Success {
			return reason
		}
	}
	if p.Version == V31 && f.reason == Success && len(f.rest) == 0 {
		// 3.1 lets the Remaining Length take precedence over these two flags, for clients older still.
		p.HasUser, p.HasPassword = false, false
	}
	if p.HasUser {
		p.User = f.string() // [MQTT-3.1.3-12]
	}
	if p.Version == V31 && f.reason == Success && len(f.rest) == 0 {
		p.HasPassword = false
	}
	if p.HasPassword {
		p.Password = f.binary()
	}
	return f.end()
}

// AppendConnect writes a CONNECT in p.Version.
func AppendConnect(dst []byte, p *Connect) []byte {
	name := "MQTT"
	if p.Version == V31 {
		name = "MQIsdp"
	}
	dst, whole := openLength(append(dst, CONNECT.first()))
	dst = append(append(dst, 0, byte(len(name))), name...)
	dst = append(dst, byte(p.Version), p.flags())
	dst = binary.BigEndian.AppendUint16(dst, p.KeepAlive)
	if p.Version == V50 {
		dst = p.appendProperties(dst)
	}
	dst = appendString(dst, p.ClientID)
	if p.HasWill {
		dst = p.Will.append(dst, p.Version)
	}
	if p.HasUser {
		dst = appendString(dst, p.User)
	}
	if p.HasPassword {
		dst = appendString(dst, p.Password)
	}
	return closeLength(dst, whole)
}

// flags are the Connect Flags.
func (p *Connect) flags() byte {
	var flags byte
	if p.CleanStart {
		flags |= connectCleanStart
	}
	if p.HasWill {
		flags |= connectWill | p.Will.QoS<<connectWillQoSShift
		if p.Will.Retain {
			flags |= connectWillRetain
		}
	}
	if p.HasPassword {
		flags |= connectPassword
	}
	if p.HasUser {
		flags |= connectUserName
	}
	return flags
}

// appendProperties writes the section, its Property Length included; values that equal absence are left out.
func (p *Connect) appendProperties(dst []byte) []byte {
	dst, section := openLength(dst)
	if p.SessionExpiry != 0 {
		dst = appendUint32Property(dst, idSessionExpiry, p.SessionExpiry)
	}
	dst = appendOptionalText(dst, idAuthMethod, p.AuthMethod)
	if p.HasAuthData {
		dst = appendText(dst, idAuthData, p.AuthData)
	}
	if !p.RequestProblemInfo {
		dst = append(dst, idRequestProblemInfo, 0)
	}
	if p.RequestResponseInfo {
		dst = append(dst, idRequestResponseInfo, 1)
	}
	if p.ReceiveMaximum != 0 && p.ReceiveMaximum != maxReceiveMaximum {
		dst = appendUint16Property(dst, idReceiveMaximum, p.ReceiveMaximum)
	}
	if p.TopicAliasMaximum != 0 {
		dst = appendUint16Property(dst, idTopicAliasMaximum, p.TopicAliasMaximum)
	}
	if p.MaximumPacketSize != 0 {
		dst = appendUint32Property(dst, idMaximumPacketSize, p.MaximumPacketSize)
	}
	return closeLength(appendUserProperties(dst, p.UserProperties), section)
}
