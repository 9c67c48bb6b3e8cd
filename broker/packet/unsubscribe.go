package packet

import "encoding/binary"

// Unsubscribe is a decoded UNSUBSCRIBE. Its slices alias the body that was decoded.
type Unsubscribe struct {
	PacketID       uint16
	Count          int // how many Topic Filters Next will give
	UserProperties UserProperties

	rest []byte // the Topic Filters that Next has not given
}

// Decode reads an UNSUBSCRIBE and judges all of it, but for the syntax of the Topic Filters.
func (p *Unsubscribe) Decode(body []byte, v Version) Reason {
	*p = Unsubscribe{}
	f := fields{rest: body}
	p.PacketID = f.packetID()
	if v == V50 {
		section := f.section()
		r := properties{rest: section, allowed: 1 << idUserProperty}
		for r.next() {
			// The User Properties stay where they are; to judge them is all there is to do.
		}
		if r.reason != Success {
			return r.reason
		}
		p.UserProperties = usersOf(&r, section)
	}
	p.rest = f.rest
	for len(f.rest) > 0 {
		f.string() // [MQTT-3.10.3-1]
		p.Count++
	}
	if f.reason == Success && p.Count == 0 {
		return ProtocolError // [MQTT-3.10.3-2]
	}
	return f.reason
}

// Next gives the Topic Filters one after another; ok is false behind the last. The slice aliases the body.
func (p *Unsubscribe) Next() (filter []byte, ok bool) {
	filter, rest, ok := nextFilter(p.rest)
	p.rest = rest
	return filter, ok
}

// AppendUnsubscribe writes an UNSUBSCRIBE with the identifier and User Properties of p.
func AppendUnsubscribe(dst []byte, p *Unsubscribe, filters [][]byte, v Version) []byte {
	dst, whole := openLength(append(dst, UNSUBSCRIBE.first()))
	dst = binary.BigEndian.AppendUint16(dst, p.PacketID)
	if v == V50 {
		var section int
		dst, section = openLength(dst)
		dst = closeLength(appendUserProperties(dst, p.UserProperties), section)
	}
	for _, filter := range filters {
		dst = appendString(dst, filter)
	}
	return closeLength(dst, whole)
}

// Unsuback is a decoded UNSUBACK. Its slices alias the body that was decoded.
type Unsuback struct {
	PacketID       uint16
	Codes          []byte // one Reason Code for each Topic Filter; nil in 3.x
	ReasonString   []byte
	UserProperties UserProperties
}

// Code is the Reason Code of Topic Filter i.
func (p *Unsuback) Code(i int) Reason { return Reason(p.Codes[i]) }

// Decode reads an UNSUBACK.
func (p *Unsuback) Decode(body []byte, v Version) Reason {
	*p = Unsuback{}
	f := fields{rest: body}
	p.PacketID = f.packetID()
	if v != V50 {
		return f.end()
	}
	section := f.section()
	if f.reason != Success {
		return f.reason
	}
	if reason := readAckProperties(section, &p.ReasonString, &p.UserProperties); reason != Success {
		return reason
	}
	if p.Codes = f.rest; len(p.Codes) == 0 {
		return ProtocolError // Section 3.11.3: no UNSUBSCRIBE is without a Topic Filter.
	}
	for _, code := range p.Codes {
		if !unsubackReason(Reason(code)) {
			return ProtocolError // [MQTT-3.11.3-2]
		}
	}
	return Success
}

// unsubackReason tells whether an UNSUBACK may carry that code.
func unsubackReason(r Reason) bool {
	switch r {
	case Success, NoSubscriptionExisted, UnspecifiedError, ImplementationSpecificError, NotAuthorized,
		TopicFilterInvalid, PacketIdentifierInUse:
		return true
	}
	return false
}

// AppendUnsuback writes an UNSUBACK without properties; 3.x has no codes either. What an UNSUBACK may not carry leaves as
// Unspecified error [MQTT-3.11.3-2].
func AppendUnsuback(dst []byte, id uint16, codes []Reason, v Version) []byte {
	dst, whole := openLength(append(dst, UNSUBACK.first()))
	dst = binary.BigEndian.AppendUint16(dst, id)
	if v == V50 {
		dst = append(dst, 0)
		for _, code := range codes {
			dst = append(dst, byte(code.or(unsubackReason(code))))
		}
	}
	return closeLength(dst, whole)
}

// AppendUnsubackFull writes an UNSUBACK with everything in p.
func AppendUnsubackFull(dst []byte, p *Unsuback, v Version) []byte {
	dst, whole := openLength(append(dst, UNSUBACK.first()))
	dst = binary.BigEndian.AppendUint16(dst, p.PacketID)
	if v == V50 {
		dst = append(appendAckProperties(dst, p.ReasonString, p.UserProperties), p.Codes...)
	}
	return closeLength(dst, whole)
}
