package packet

import "encoding/binary"

// ackAllowed are the properties of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
const ackAllowed identifiers = 1<<idReasonString | 1<<idUserProperty

// Ack is a decoded PUBACK, PUBREC, PUBREL or PUBCOMP. Its slices alias the body that was decoded.
type Ack struct {
	PacketID       uint16
	Reason         Reason // Success in 3.x, which has no Reason Codes
	ReasonString   []byte
	UserProperties UserProperties
}

// Decode reads the body of a packet of that kind.
func (p *Ack) Decode(kind Kind, body []byte, v Version) Reason {
	*p = Ack{}
	if len(body) < 2 || len(body) > 2 && v != V50 {
		return MalformedPacket // Section 3.4.2: cut short; only 5.0 has more than the identifier.
	}
	if p.PacketID = binary.BigEndian.Uint16(body); p.PacketID == 0 {
		return ProtocolError // [MQTT-2.2.1-5]: no PUBLISH had that identifier.
	}
	if len(body) == 2 {
		return Success
	}
	if p.Reason = Reason(body[2]); !ackReason(kind, p.Reason) {
		return ProtocolError // [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]
	}
	if len(body) == 3 {
		return Success // Below a Remaining Length of 4 there is no Property Length.
	}
	f := fields{rest: body[3:]}
	section := f.section()
	if reason := f.end(); reason != Success {
		return reason
	}
	return readAckProperties(section, &p.ReasonString, &p.UserProperties)
}

// ackReason tells whether a packet of that kind may carry that Reason Code.
func ackReason(kind Kind, r Reason) bool {
	if kind == PUBREL || kind == PUBCOMP {
		return r == Success || r == PacketIdentifierNotFound
	}
	switch r {
	case Success, NoMatchingSubscribers, UnspecifiedError, ImplementationSpecificError, NotAuthorized,
		TopicNameInvalid, PacketIdentifierInUse, QuotaExceeded, PayloadFormatInvalid:
		return true
	}
	return false
}

// readAckProperties reads a section that may hold a Reason String and User Properties.
func readAckProperties(section []byte, reasonString *[]byte, users *UserProperties) Reason {
	r := properties{rest: section, allowed: ackAllowed}
	for r.next() {
		if r.id == idReasonString {
			*reasonString = r.data
		}
	}
	*users = usersOf(&r, section)
	return r.reason
}

// usersOf is the section when it holds a User Property, else nil.
func usersOf(r *properties, section []byte) UserProperties {
	if r.seen&(1<<idUserProperty) == 0 {
		return nil
	}
	return section
}

// AppendAck writes a PUBACK, PUBREC, PUBREL or PUBCOMP without properties, in the shortest form: in 3.x, and in 5.0
// for Success, without a Reason Code. One that the packet may not carry leaves as Unspecified error, in PUBREL and PUBCOMP as Packet
// Identifier not found, which is all they have [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1].
func AppendAck(dst []byte, kind Kind, id uint16, r Reason, v Version) []byte {
	switch {
	case r == Success || ackReason(kind, r):
	case kind == PUBREL || kind == PUBCOMP:
		r = PacketIdentifierNotFound
	default:
		r = UnspecifiedError
	}
	return appendAck(dst, kind, id, r, v)
}

func appendAck(dst []byte, kind Kind, id uint16, r Reason, v Version) []byte {
	if v != V50 || r == Success {
		return append(dst, kind.first(), 2, byte(id>>8), byte(id))
	}
	return append(dst, kind.first(), 3, byte(id>>8), byte(id), byte(r))
}

// AppendAckFull is AppendAck with the Reason String and the User Properties of p, whose Reason Code stays as it is.
func AppendAckFull(dst []byte, kind Kind, p *Ack, v Version) []byte {
	if v != V50 || p.ReasonString == nil && len(p.UserProperties) == 0 {
		return appendAck(dst, kind, p.PacketID, p.Reason, v)
	}
	dst, whole := openLength(append(dst, kind.first()))
	dst = append(dst, byte(p.PacketID>>8), byte(p.PacketID), byte(p.Reason))
	return closeLength(appendAckProperties(dst, p.ReasonString, p.UserProperties), whole)
}

// appendAckProperties writes a section with a Reason String and User Properties, its Property Length included.
func appendAckProperties(dst, reasonString []byte, users UserProperties) []byte {
	dst, section := openLength(dst)
	dst = appendOptionalText(dst, idReasonString, reasonString)
	return closeLength(appendUserProperties(dst, users), section)
}
