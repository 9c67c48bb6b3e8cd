package packet

import (
	"reflect"
	"slices"
	"testing"
)

// codec decodes and encodes packets of any kind, without allocating once its slices have grown.
type codec struct {
	kind    Kind
	version Version
	server  bool

	connect     Connect
	connack     Connack
	publish     Publish
	ack         Ack
	subscribe   Subscribe
	suback      Suback
	unsubscribe Unsubscribe
	unsuback    Unsuback
	disconnect  Disconnect
	auth        Auth

	subscriptions []Subscription
	filters       [][]byte
	ids           []uint32
	forwarded     []byte
}

func (c *codec) decode(kind Kind, flags uint8, body []byte, v Version, server bool) Reason {
	c.kind, c.version, c.server = kind, v, server
	switch kind {
	case CONNECT:
		return c.connect.Decode(body)
	case CONNACK:
		return c.connack.Decode(body, v)
	case PUBLISH:
		if server {
			return c.publish.DecodeFromServer(flags, body, v)
		}
		return c.publish.Decode(flags, body, v)
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		return c.ack.Decode(kind, body, v)
	case SUBSCRIBE:
		return c.subscribe.Decode(body, v)
	case SUBACK:
		return c.suback.Decode(body, v)
	case UNSUBSCRIBE:
		return c.unsubscribe.Decode(body, v)
	case UNSUBACK:
		return c.unsuback.Decode(body, v)
	case PINGREQ, PINGRESP:
		return Success
	case DISCONNECT:
		if server {
			return c.disconnect.DecodeFromServer(body, v)
		}
		return c.disconnect.Decode(body, v)
	case AUTH:
		if server {
			return c.auth.DecodeFromServer(body)
		}
		return c.auth.Decode(body)
	}
	return MalformedPacket
}

// gather copies what the iterators of a decoded packet give into the slices that the encoders take.
func (c *codec) gather() {
	c.subscriptions, c.filters, c.ids = c.subscriptions[:0], c.filters[:0], c.ids[:0]
	switch c.kind {
	case SUBSCRIBE:
		for p := c.subscribe; ; {
			filter, options, ok := p.Next()
			if !ok {
				return
			}
			c.subscriptions = append(c.subscriptions, Subscription{filter, options})
		}
	case UNSUBSCRIBE:
		for p := c.unsubscribe; ; {
			filter, ok := p.Next()
			if !ok {
				return
			}
			c.filters = append(c.filters, filter)
		}
	case PUBLISH:
		c.forwarded = AppendForwarded(c.forwarded[:0], c.publish.Properties)
		for ids := c.publish.SubscriptionIDs(); ; {
			id, ok := ids.Next()
			if !ok {
				return
			}
			c.ids = append(c.ids, id)
		}
	}
}

// head is the PublishHead of the decoded PUBLISH.
func (c *codec) head() PublishHead {
	p := &c.publish
	return PublishHead{
		Flags: PublishFlags(p.Dup, p.QoS, p.Retain), Topic: p.Topic, PacketID: p.PacketID, Alias: p.Alias,
		HasExpiry: p.HasExpiry, Expiry: p.Expiry, SubscriptionIDs: c.ids, Forwarded: c.forwarded,
	}
}

// append encodes what was decoded.
func (c *codec) append(dst []byte) []byte {
	c.gather()
	switch c.kind {
	case CONNECT:
		return AppendConnect(dst, &c.connect)
	case CONNACK:
		return AppendConnack(dst, &c.connack, c.version)
	case PUBLISH:
		head := c.head()
		return AppendPublish(dst, &head, c.publish.Payload, c.version)
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		return AppendAckFull(dst, c.kind, &c.ack, c.version)
	case SUBSCRIBE:
		return AppendSubscribe(dst, &c.subscribe, c.subscriptions, c.version)
	case SUBACK:
		return AppendSubackFull(dst, &c.suback, c.version)
	case UNSUBSCRIBE:
		return AppendUnsubscribe(dst, &c.unsubscribe, c.filters, c.version)
	case UNSUBACK:
		return AppendUnsubackFull(dst, &c.unsuback, c.version)
	case PINGREQ:
		return AppendPingreq(dst)
	case PINGRESP:
		return AppendPingresp(dst)
	case DISCONNECT:
		return AppendDisconnect(dst, &c.disconnect, c.version)
	}
	return AppendAuth(dst, &c.auth)
}

// The forms in which plain gives packets whose Go value alone does not say all, or says how it came by it.
type (
	published struct {
		Publish // Properties is what AppendForwarded copies
		IDs     []uint32
	}
	acknowledged struct {
		Kind Kind
		Ack
	}
	subscribed struct {
		Subscribe
		Filters []Subscription
	}
	unsubscribed struct {
		Unsubscribe
		Filters [][]byte
	}
)

// plain is the decoded packet in a form that reflect.DeepEqual can compare: raw sections reduced to what cannot be
// seen elsewhere, iterators run to their end.
func (c *codec) plain() any {
	c.gather()
	switch c.kind {
	case CONNECT:
		p := c.connect
		p.UserProperties = appendUserProperties(nil, p.UserProperties)
		p.Will.Properties = AppendForwarded(nil, p.Will.Properties)
		return p
	case CONNACK:
		p := c.connack
		p.UserProperties = appendUserProperties(nil, p.UserProperties)
		return p
	case PUBLISH:
		p := c.publish
		p.Properties = AppendForwarded(nil, p.Properties)
		return published{p, append([]uint32(nil), c.ids...)}
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		p := c.ack
		p.UserProperties = appendUserProperties(nil, p.UserProperties)
		return acknowledged{c.kind, p}
	case SUBSCRIBE:
		p := c.subscribe
		p.UserProperties = appendUserProperties(nil, p.UserProperties)
		p.rest, p.version = nil, 0
		return subscribed{p, slices.Clone(c.subscriptions)}
	case SUBACK:
		p := c.suback
		p.UserProperties = appendUserProperties(nil, p.UserProperties)
		return p
	case UNSUBSCRIBE:
		p := c.unsubscribe
		p.UserProperties = appendUserProperties(nil, p.UserProperties)
		p.rest = nil
		return unsubscribed{p, slices.Clone(c.filters)}
	case UNSUBACK:
		p := c.unsuback
		p.UserProperties = appendUserProperties(nil, p.UserProperties)
		return p
	case DISCONNECT:
		p := c.disconnect
		p.UserProperties = appendUserProperties(nil, p.UserProperties)
		return p
	case AUTH:
		p := c.auth
		p.UserProperties = appendUserProperties(nil, p.UserProperties)
		return p
	}
	return c.kind
}

// roundTrip decodes what was encoded and wants the same packet again.
func (c *codec) roundTrip(t *testing.T, encoded []byte) {
	t.Helper()
	h, reason := ParseHeader(encoded)
	if reason != Success || h.Kind != c.kind || h.Size+h.Remaining != len(encoded) {
		t.Fatalf("encoded %x: header %+v, %v", encoded, h, reason)
	}
	if reason := CheckFlags(h.Kind, h.Flags, c.version); reason != Success {
		t.Fatalf("encoded %x: flags: %v", encoded, reason)
	}
	var again codec
	if reason := again.decode(h.Kind, h.Flags, encoded[h.Size:], c.version, c.server); reason != Success {
		t.Fatalf("encoded %x: %v", encoded, reason)
	}
	if got, want := again.plain(), c.plain(); !reflect.DeepEqual(got, want) {
		t.Fatalf("encoded %x: decoded\n%+v\nwant\n%+v", encoded, got, want)
	}
	if c.kind == PUBLISH {
		head := c.head()
		head.PayloadSize = len(c.publish.Payload)
		if size := PublishSize(&head, c.version); size != len(encoded) {
			t.Fatalf("PublishSize %d of %d bytes", size, len(encoded))
		}
		if c.publish.Forwardable != (len(c.forwarded) == len(c.publish.Properties)) {
			t.Fatalf("Forwardable is %v; of %x goes on %x", c.publish.Forwardable, c.publish.Properties, c.forwarded)
		}
	}
}
