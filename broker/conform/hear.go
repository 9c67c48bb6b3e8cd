package conform

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/script"
)

// heard is a packet that a broker sent, taken apart.
type heard struct {
	kind  packet.Kind
	text  string              // for people
	words []string            // what stands without a name in an expectation, in its order
	flags []string            // what is there or not: dup, retain, present
	facts map[string][]string // what has a name

	id     string // Packet Identifier, if the kind has one
	reason packet.Reason
	qos    uint8

	missing []string // features that a CONNACK says the broker does not have
}

// hear decodes a packet. What does not decode is the broker's mistake, and so are flags, Reason Codes and properties that the
// packet must not have.
func hear(h packet.Header, body []byte, v packet.Version) (heard, error) {
	out := heard{kind: h.Kind, facts: map[string][]string{}}
	var r packet.Reason
	out.text, r = script.Describe(h, body, v, script.Usual{ReceiveMaximum: 65535})
	if other, isRefusal := otherVersion(h, body, v); r != packet.Success && isRefusal {
		return hear(h, body, other)
	}
	if flags := packet.CheckFlags(h.Kind, h.Flags, v); r == packet.Success && flags != packet.Success {
		return out, fmt.Errorf("flags of the fixed header of %s: %#x", h.Kind, h.Flags)
	}
	if r != packet.Success {
		return out, fmt.Errorf("%s does not decode (%s): % x", h.Kind, r, body[:min(len(body), shownBytes)])
	}
	switch h.Kind {
	case packet.CONNACK:
		out.connack(body, v)
	case packet.PUBLISH:
		return out, out.publish(h.Flags, body, v)
	case packet.PUBACK, packet.PUBREC, packet.PUBREL, packet.PUBCOMP:
		var p packet.Ack
		p.Decode(h.Kind, body, v)
		out.identify(p.PacketID)
		out.reason = p.Reason
		out.text1("rs", p.ReasonString)
		out.users(p.UserProperties)
	case packet.SUBACK:
		var p packet.Suback
		p.Decode(body, v)
		out.identify(p.PacketID)
		out.codes(p.Codes)
		out.text1("rs", p.ReasonString)
		out.users(p.UserProperties)
	case packet.UNSUBACK:
		var p packet.Unsuback
		p.Decode(body, v)
		out.identify(p.PacketID)
		out.codes(p.Codes)
		out.text1("rs", p.ReasonString)
		out.users(p.UserProperties)
	case packet.DISCONNECT:
		var p packet.Disconnect
		p.DecodeFromServer(body, v)
		out.reason = p.Reason
		out.text1("rs", p.ReasonString)
		out.users(p.UserProperties)
	case packet.AUTH:
		var p packet.Auth
		p.DecodeFromServer(body)
		out.reason = p.Reason
		out.text1("method", p.AuthMethod)
		out.text1("rs", p.ReasonString)
		out.users(p.UserProperties)
	}
	return out, nil
}

// otherVersion is the version in which a CONNACK is well-formed that refuses the version that was asked for: a broker that does
// not know that one can only answer in its own.
func otherVersion(h packet.Header, body []byte, v packet.Version) (packet.Version, bool) {
	for _, other := range versions() {
		var p packet.Connack
		if h.Kind == packet.CONNACK && other != v && p.Decode(body, other) == packet.Success && p.Reason.Failed() {
			return other, true
		}
	}
	return v, false
}

// shownBytes is how much of a packet that does not decode a person gets to see.
const shownBytes = 64

func (h *heard) identify(id uint16) {
	h.id = strconv.Itoa(int(id))
	h.words = append(h.words, h.id)
}

func (h *heard) codes(codes []byte) {
	for _, c := range codes {
		h.words = append(h.words, fmt.Sprintf("0x%02x", c))
	}
}

func (h *heard) number(name string, n uint32) {
	h.facts[name] = append(h.facts[name], strconv.FormatUint(uint64(n), 10))
}

func (h *heard) text1(name string, b []byte) {
	if b != nil {
		h.facts[name] = []string{string(b)}
	}
}

func (h *heard) users(u packet.UserProperties) {
	for name, value, ok := u.Next(); ok; name, value, ok = u.Next() {
		h.facts["prop"] = append(h.facts["prop"], string(name)+":"+string(value))
	}
}

func (h *heard) connack(body []byte, v packet.Version) {
	var p packet.Connack
	p.Decode(body, v)
	h.reason = p.Reason
	code := uint8(p.Reason)
	if v != packet.V50 {
		code = body[1]
	}
	h.words = []string{fmt.Sprintf("0x%02x", code)}
	if p.SessionPresent {
		h.flags = append(h.flags, "present")
	}
	for name, missing := range map[string]bool{
		"qos1": p.HasMaximumQoS && p.MaximumQoS == 0, "qos2": p.HasMaximumQoS, "retain": p.RetainUnavailable,
		"wildcard": p.WildcardUnavailable, "subid": p.SubscriptionIDsUnavailable, "shared": p.SharedUnavailable,
		"alias": v == packet.V50 && p.TopicAliasMaximum == 0,
	} {
		if missing {
			h.missing = append(h.missing, name)
		}
	}
	if p.HasSessionExpiry {
		h.number("expiry", p.SessionExpiry)
	}
	if p.HasKeepAlive {
		h.number("keepalive", uint32(p.ServerKeepAlive))
	}
	h.number("recvmax", uint32(p.ReceiveMaximum))
	h.number("aliasmax", uint32(p.TopicAliasMaximum))
	h.text1("assigned", p.AssignedClientID)
	h.text1("method", p.AuthMethod)
	h.text1("respinfo", p.ResponseInformation)
	h.text1("rs", p.ReasonString)
	h.users(p.UserProperties)
}

func (h *heard) publish(flags uint8, body []byte, v packet.Version) error {
	var p packet.Publish
	p.DecodeFromServer(flags, body, v)
	if !packet.ValidUTF8(p.Topic) || strings.ContainsAny(string(p.Topic), "+#") {
		return fmt.Errorf("the Topic Name of a PUBLISH is %q", p.Topic)
	}
	h.words, h.qos = []string{string(p.Topic), string(p.Payload)}, p.QoS
	if p.QoS > 0 {
		h.id = strconv.Itoa(int(p.PacketID))
		h.number("qos", uint32(p.QoS))
		h.number("id", uint32(p.PacketID))
	}
	for name, set := range map[string]bool{"dup": p.Dup, "retain": p.Retain} {
		if set {
			h.flags = append(h.flags, name)
		}
	}
	slices.Sort(h.flags)
	if p.HasExpiry {
		h.number("expiry", p.Expiry)
	}
	if p.Alias != 0 {
		h.number("alias", uint32(p.Alias))
	}
	ids := p.SubscriptionIDs()
	for id, ok := ids.Next(); ok; id, ok = ids.Next() {
		h.number("subid", id)
	}
	slices.Sort(h.facts["subid"]) // "their order is not significant"
	if p.PayloadFormat != 0 {
		h.number("format", uint32(p.PayloadFormat))
	}
	h.text1("type", p.ContentType)
	h.text1("response", p.ResponseTopic)
	h.text1("corr", p.CorrelationData)
	h.users(p.UserProperties())
	return nil
}
