package packet

import "encoding/binary"

// Suback is a decoded SUBACK. Its slices alias the body that was decoded.
type Suback struct {
	PacketID       uint16
	Codes          []byte // one Reason Code for each Topic Filter; in 3.x a return code, whose values mean the same
	ReasonString   []byte
	UserProperties UserProperties
}

// Code is the Reason Code of Topic Filter i.
func (p *Suback) Code(i int) Reason { return Reason(p.Codes[i]) }

// Decode reads a SUBACK.
func (p *Suback) Decode(body []byte, v Version) Reason {
	*p = Suback{}
	f := fields{rest: body}
	p.PacketID = f.packetID()
	if v == V50 {
		section := f.section()
		if f.reason != Success {
			return f.reason
		}
		if reason := readAckProperties(section, &p.ReasonString, &p.UserProperties); reason != Success {
			return reason
		}
	}
	if f.reason != Success {
		return f.reason
	}
	if p.Codes = f.rest; len(p.Codes) == 0 {
		return ProtocolError // [MQTT-3.8.3-2]: no SUBSCRIBE is without a Topic Filter.
	}
	for _, code := range p.Codes {
		if !subackReason(Reason(code), v) {
			return ProtocolError // [MQTT-3.9.3-2]
		}
	}
	return Success
}

// subackReason tells whether a SUBACK may carry that code.
func subackReason(r Reason, v Version) bool {
	switch r {
	case GrantedQoS0, GrantedQoS1, GrantedQoS2, UnspecifiedError:
		return true
	case ImplementationSpecificError, NotAuthorized, TopicFilterInvalid, PacketIdentifierInUse, QuotaExceeded,
		SharedSubscriptionsNotSupported, SubscriptionIdentifiersNotSupported, WildcardSubscriptionsNotSupported:
		return v == V50
	}
	return false
}

// AppendSuback writes a SUBACK without properties. In 3.x every failure is the one return code that there is, in 5.0 every one that
// a SUBACK may not carry [MQTT-3.9.3-2].
func AppendSuback(dst []byte, id uint16, codes []Reason, v Version) []byte {
	dst, whole := openLength(append(dst, SUBACK.first()))
	dst = binary.BigEndian.AppendUint16(dst, id)
	if v == V50 {
		dst = append(dst, 0)
	}
	for _, code := range codes {
		dst = append(dst, byte(code.or(subackReason(code, v))))
	}
	return closeLength(dst, whole)
}

// AppendSubackFull writes a SUBACK with everything in p, as it stands there.
func AppendSubackFull(dst []byte, p *Suback, v Version) []byte {
	dst, whole := openLength(append(dst, SUBACK.first()))
	dst = binary.BigEndian.AppendUint16(dst, p.PacketID)
	if v == V50 {
		dst = appendAckProperties(dst, p.ReasonString, p.UserProperties)
	}
	return closeLength(append(dst, p.Codes...), whole)
}
