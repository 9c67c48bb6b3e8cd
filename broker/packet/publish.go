package packet

import "encoding/binary"

// The bits of a PUBLISH's Fixed Header flags.
const (
	flagRetain   = 0b0001
	flagQoSShift = 1
	flagQoS      = 0b0110
	flagDup      = 0b1000
)

// publishAllowed are the properties of a PUBLISH.
const publishAllowed identifiers = 1<<idPayloadFormat | 1<<idMessageExpiry | 1<<idContentType | 1<<idResponseTopic |
	1<<idCorrelationData | 1<<idSubscriptionID | 1<<idTopicAlias | 1<<idUserProperty

// hopByHop are the properties that belong to one Network Connection, or that change on the way: a Server writes
// them anew for each receiver. A Will's delay is for the Server alone.
const hopByHop identifiers = 1<<idMessageExpiry | 1<<idSubscriptionID | 1<<idTopicAlias | 1<<idWillDelay

// Publish is a decoded PUBLISH. Its slices alias the body that was decoded.
type Publish struct {
	Topic   []byte // the Topic Name, which may be empty when there is an Alias; neither its UTF-8 nor its syntax is judged
	Payload []byte

	Properties      []byte // the raw section; empty in 3.x
	ResponseTopic   []byte
	CorrelationData []byte
	ContentType     []byte

	Expiry         uint32 // Message Expiry Interval in seconds; means something when HasExpiry
	SubscriptionID uint32 // the first Subscription Identifier, 0 for none
	PacketID       uint16 // 0 at QoS 0
	Alias          uint16 // Topic Alias, 0 for none
	QoS            uint8
	PayloadFormat  uint8 // 1 says that the Payload is UTF-8, which is the caller's to check
	Dup            bool
	Retain         bool
	HasExpiry      bool
	Forwardable    bool // Properties can go to receivers as they are: AppendForwarded would copy all of them
}

// Decode reads a PUBLISH that a Client sent: flags are those of its Fixed Header.
//
// It judges everything but the characters of the Topic Name. A broker meets the same few Topic Names again and
// again and remembers them, so that it is cheaper to judge a name once, when it is remembered, than here every time:
// the caller must see to [MQTT-3.3.2-1] and [MQTT-3.3.2-2].
func (p *Publish) Decode(flags uint8, body []byte, v Version) Reason {
	return p.decode(flags, body, v, fromClient)
}

// DecodeFromServer is Decode for a PUBLISH that a Server sent, which may carry Subscription Identifiers.
func (p *Publish) DecodeFromServer(flags uint8, body []byte, v Version) Reason {
	return p.decode(flags, body, v, fromServer)
}

// decode is written straight down, without fields, because it is the hottest function of the broker.
func (p *Publish) decode(flags uint8, body []byte, v Version, from sender) Reason {
	*p = Publish{}
	p.QoS = flags & flagQoS >> flagQoSShift
	p.Dup, p.Retain, p.Forwardable = flags&flagDup != 0, flags&flagRetain != 0, true
	if len(body) < 2 {
		return MalformedPacket // Section 3.3.2: cut short in its Topic Name, here and at the end.
	}
	end := 2 + int(binary.BigEndian.Uint16(body))
	at := end
	if p.QoS == 0 {
		if p.Dup {
			return MalformedPacket // [MQTT-3.3.1-2]
		}
	} else {
		if p.QoS == 3 || at+2 > len(body) {
			return MalformedPacket // [MQTT-3.3.1-4]; section 3.3.2.2: cut short.
		}
		if p.PacketID = binary.BigEndian.Uint16(body[at:]); p.PacketID == 0 {
			return ProtocolError // [MQTT-2.2.1-3]
		}
		at += 2
	}
	if v == V50 {
		if at >= len(body) {
			return MalformedPacket // [MQTT-2.2.2-1]
		}
		if body[at] != 0 {
			return p.decodeProperties(body, end, at, from)
		}
		at++
	}
	if at > len(body) {
		return MalformedPacket // Section 3.3.2.
	}
	if end == 2 {
		return ProtocolError // [MQTT-4.7.3-1]; section 3.3.2.1: a zero length needs a Topic Alias.
	}
	p.Topic, p.Payload = body[2:end:end], body[at:]
	return Success
}

// decodeProperties goes on where decode found a Property Length that is not zero: end is where the Topic Name ends,
// at is where the Property Length begins.
func (p *Publish) decodeProperties(body []byte, end, at int, from sender) Reason {
	f := fields{rest: body[at:]}
	section := f.section()
	if f.reason != Success {
		return f.reason
	}
	if reason := p.readProperties(section); reason != Success {
		return reason
	}
	if p.SubscriptionID != 0 && from == fromClient {
		return ProtocolError // [MQTT-3.3.4-6]
	}
	if end == 2 && p.Alias == 0 {
		return ProtocolError // Section 3.3.2.1.
	}
	p.Topic, p.Payload, p.Properties = body[2:end:end], f.rest, section
	return Success
}

func (p *Publish) readProperties(section []byte) Reason {
	r := properties{rest: section, allowed: publishAllowed, often: 1 << idSubscriptionID}
	for r.next() {
		switch r.id {
		case idPayloadFormat:
			p.PayloadFormat = uint8(r.number)
		case idMessageExpiry:
			p.HasExpiry, p.Expiry = true, r.number
		case idContentType:
			p.ContentType = r.data
		case idResponseTopic:
			p.ResponseTopic = r.data
		case idCorrelationData:
			p.CorrelationData = r.data
		case idSubscriptionID:
			if p.SubscriptionID == 0 {
				p.SubscriptionID = r.number
			}
		case idTopicAlias:
			p.Alias = uint16(r.number)
		}
	}
	p.Forwardable = r.seen&hopByHop == 0
	return r.reason
}

// UserProperties iterates over the User Properties; the slices alias the body.
func (p *Publish) UserProperties() UserProperties { return UserProperties(p.Properties) }

// SubscriptionIDs iterates over all Subscription Identifiers.
func (p *Publish) SubscriptionIDs() SubscriptionIDs { return SubscriptionIDs(p.Properties) }
