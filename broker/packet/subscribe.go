package packet

import "encoding/binary"

// Options are the Subscription Options of one Topic Filter (5.0, section 3.8.3.1). 3.x has but the QoS.
type Options struct {
	QoS               uint8 // Maximum QoS, 0 to 2
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    uint8 // 0 to 2
}

// The bits of the Subscription Options byte.
const (
	optionQoS                 = 0b00000011
	optionNoLocal             = 0b00000100
	optionRetainAsPublished   = 0b00001000
	optionRetainHandlingShift = 4
	optionReserved            = 0b11000000
)

// parseOptions reads the Subscription Options byte, in 3.x the Requested QoS byte.
func parseOptions(b byte, v Version) (Options, Reason) {
	if v != V50 {
		if b > 2 {
			return Options{}, MalformedPacket // [MQTT-3.8.3-4] of 3.1.1
		}
		return Options{QoS: b}, Success
	}
	if b&optionReserved != 0 {
		return Options{}, MalformedPacket // [MQTT-3.8.3-5]
	}
	o := Options{
		QoS:               b & optionQoS,
		NoLocal:           b&optionNoLocal != 0,
		RetainAsPublished: b&optionRetainAsPublished != 0,
		RetainHandling:    b >> optionRetainHandlingShift,
	}
	if o.QoS == 3 || o.RetainHandling == 3 {
		return Options{}, ProtocolError // Section 3.8.3.1.
	}
	return o, Success
}

// byte is the wire form.
func (o Options) byte(v Version) byte {
	b := o.QoS
	if v != V50 {
		return b
	}
	if o.NoLocal {
		b |= optionNoLocal
	}
	if o.RetainAsPublished {
		b |= optionRetainAsPublished
	}
	return b | o.RetainHandling<<optionRetainHandlingShift
}

// Subscribe is a decoded SUBSCRIBE. Its slices alias the body that was decoded.
type Subscribe struct {
	PacketID       uint16
	SubscriptionID uint32 // Subscription Identifier, 0 for none
	Count          int    // how many Topic Filters Next will give
	UserProperties UserProperties

	rest    []byte // the Topic Filters that Next has not given
	version Version
}

// Decode reads a SUBSCRIBE and judges all of it, but for the syntax of the Topic Filters, which package topic knows.
func (p *Subscribe) Decode(body []byte, v Version) Reason {
	*p = Subscribe{version: v}
	f := fields{rest: body}
	p.PacketID = f.packetID()
	if v == V50 {
		section := f.section()
		if f.reason != Success {
			return f.reason
		}
		if reason := p.readProperties(section); reason != Success {
			return reason
		}
	}
	p.rest = f.rest
	for len(f.rest) > 0 {
		f.string() // [MQTT-3.8.3-1]
		b := f.byte()
		if f.reason != Success {
			return f.reason
		}
		if _, reason := parseOptions(b, v); reason != Success {
			return reason
		}
		p.Count++
	}
	if f.reason == Success && p.Count == 0 {
		return ProtocolError // [MQTT-3.8.3-2]
	}
	return f.reason
}

func (p *Subscribe) readProperties(section []byte) Reason {
	r := properties{rest: section, allowed: 1<<idSubscriptionID | 1<<idUserProperty}
	for r.next() {
		if r.id == idSubscriptionID {
			p.SubscriptionID = r.number
		}
	}
	p.UserProperties = usersOf(&r, section)
	return r.reason
}

// Next gives the Topic Filters one after another; ok is false behind the last. The slice aliases the body.
func (p *Subscribe) Next() (filter []byte, options Options, ok bool) {
	filter, rest, ok := nextFilter(p.rest)
	if !ok || len(rest) == 0 {
		return nil, Options{}, false
	}
	options, _ = parseOptions(rest[0], p.version)
	p.rest = rest[1:]
	return filter, options, true
}

// nextFilter cuts a string off that Decode has judged.
func nextFilter(b []byte) (filter, rest []byte, ok bool) {
	size := stringSize(b)
	if size > len(b) {
		return nil, nil, false
	}
	return b[2:size:size], b[size:], true
}

// Subscription is one Topic Filter with its options, for AppendSubscribe.
type Subscription struct {
	Filter  []byte
	Options Options
}

// AppendSubscribe writes a SUBSCRIBE with the identifiers and User Properties of p.
func AppendSubscribe(dst []byte, p *Subscribe, subscriptions []Subscription, v Version) []byte {
	dst, whole := openLength(append(dst, SUBSCRIBE.first()))
	dst = binary.BigEndian.AppendUint16(dst, p.PacketID)
	if v == V50 {
		var section int
		dst, section = openLength(dst)
		if p.SubscriptionID != 0 {
			dst = AppendVarint(append(dst, idSubscriptionID), int(p.SubscriptionID))
		}
		dst = closeLength(appendUserProperties(dst, p.UserProperties), section)
	}
	for i := range subscriptions {
		dst = appendString(dst, subscriptions[i].Filter)
		dst = append(dst, subscriptions[i].Options.byte(v))
	}
	return closeLength(dst, whole)
}
