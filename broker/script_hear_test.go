package broker_test

import (
	"fmt"
	"strings"

	"github.com/ringmq/ringmq/broker/packet"
)

// describe is one line for a packet that a broker sent: everything in it that is not at its default.
func describe(h packet.Header, body []byte, v packet.Version) (string, packet.Reason) {
	switch h.Kind {
	case packet.CONNACK:
		return describeConnack(body, v)
	case packet.PUBLISH:
		var p packet.Publish
		r := p.DecodeFromServer(h.Flags, body, v)
		return describePublish(&p), r
	case packet.PUBACK, packet.PUBREC, packet.PUBREL, packet.PUBCOMP:
		var p packet.Ack
		r := p.Decode(h.Kind, body, v)
		l := line{h.Kind.String(), fmt.Sprint(p.PacketID)}
		l.reason(p.Reason)
		l.text("rs", p.ReasonString)
		l.users(p.UserProperties)
		return l.String(), r
	case packet.SUBACK:
		var p packet.Suback
		r := p.Decode(body, v)
		return describeCodes("SUBACK", p.PacketID, p.Codes), r
	case packet.UNSUBACK:
		var p packet.Unsuback
		r := p.Decode(body, v)
		return describeCodes("UNSUBACK", p.PacketID, p.Codes), r
	case packet.DISCONNECT:
		var p packet.Disconnect
		r := p.DecodeFromServer(body, v)
		l := line{"DISCONNECT", code(p.Reason)}
		l.text("rs", p.ReasonString)
		l.text("reference", p.ServerReference)
		l.users(p.UserProperties)
		return l.String(), r
	case packet.AUTH:
		var p packet.Auth
		r := p.DecodeFromServer(body)
		l := line{"AUTH", code(p.Reason)}
		l.text("method", p.AuthMethod)
		if p.HasAuthData {
			l = append(l, fmt.Sprintf("data=%q", p.AuthData))
		}
		return l.String(), r
	}
	return h.Kind.String(), packet.Success
}

func describeConnack(body []byte, v packet.Version) (string, packet.Reason) {
	var p packet.Connack
	r := p.Decode(body, v)
	l := line{"CONNACK", code(p.Reason)}
	if v != packet.V50 && len(body) == 2 && body[1] != 0 {
		l[1] = fmt.Sprintf("return code %d", body[1])
	}
	l.flag("present", p.SessionPresent)
	if p.HasSessionExpiry {
		l = append(l, fmt.Sprintf("expiry=%d", p.SessionExpiry))
	}
	if p.HasKeepAlive {
		l = append(l, fmt.Sprintf("keepalive=%d", p.ServerKeepAlive))
	}
	// Absent means 65,535, no limit and none; the broker says these three every time, so only what differs from its
	// usual limits is worth a word in each script.
	if v == packet.V50 && p.Reason == packet.Success {
		l.number("recvmax", uint32(p.ReceiveMaximum), 1024)
		l.number("maxpacket", p.MaximumPacketSize, 2<<20)
		l.number("aliasmax", uint32(p.TopicAliasMaximum), 16)
	}
	if p.HasMaximumQoS || p.RetainUnavailable || p.WildcardUnavailable || p.SubscriptionIDsUnavailable || p.SharedUnavailable {
		l = append(l, "something unavailable")
	}
	if len(p.AssignedClientID) == len("ringmq-")+32 {
		l = append(l, "assigned=ringmq-…") // chosen by chance
	} else {
		l.text("assigned", p.AssignedClientID)
	}
	l.text("method", p.AuthMethod)
	if p.HasAuthData {
		l = append(l, fmt.Sprintf("data=%q", p.AuthData))
	}
	l.text("respinfo", p.ResponseInformation)
	l.text("reference", p.ServerReference)
	l.text("rs", p.ReasonString)
	l.users(p.UserProperties)
	return l.String(), r
}

func describePublish(p *packet.Publish) string {
	l := line{"PUBLISH", string(p.Topic), describePayload(p.Payload)}
	if len(p.Topic) == 0 {
		l[1] = `""`
	}
	if p.QoS > 0 {
		l = append(l, fmt.Sprintf("qos=%d id=%d", p.QoS, p.PacketID))
	}
	l.flag("dup", p.Dup)
	l.flag("retain", p.Retain)
	if p.HasExpiry {
		l = append(l, fmt.Sprintf("expiry=%d", p.Expiry))
	}
	l.number("alias", uint32(p.Alias), 0)
	ids := p.SubscriptionIDs()
	for id, ok := ids.Next(); ok; id, ok = ids.Next() {
		l.number("subid", id, 0)
	}
	l.number("format", uint32(p.PayloadFormat), 0)
	l.text("type", p.ContentType)
	l.text("response", p.ResponseTopic)
	l.text("corr", p.CorrelationData)
	l.users(p.UserProperties())
	return l.String()
}

// describePayload abbreviates what filler made.
func describePayload(b []byte) string {
	if len(b) > 40 && string(b) == string(filler(len(b))) {
		return fmt.Sprintf("<%d bytes>", len(b))
	}
	return fmt.Sprintf("%q", b)
}

// filler is a payload of n bytes in which a piece that is lost, doubled or moved shows.
func filler(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte((i+i/26+i/4096)%26)
	}
	return b
}

func describeCodes(kind string, id uint16, codes []byte) string {
	l := line{kind, fmt.Sprint(id)}
	for _, c := range codes {
		l = append(l, fmt.Sprintf("0x%02x", c))
	}
	return l.String()
}

// line is the words of a line.
type line []string

func (l line) String() string { return strings.Join(l, " ") }

func code(r packet.Reason) string { return fmt.Sprintf("0x%02x %s", uint8(r), r) }

func (l *line) reason(r packet.Reason) {
	if r != packet.Success {
		*l = append(*l, code(r))
	}
}

func (l *line) flag(name string, set bool) {
	if set {
		*l = append(*l, name)
	}
}

func (l *line) number(name string, n, usual uint32) {
	if n != usual {
		*l = append(*l, fmt.Sprintf("%s=%d", name, n))
	}
}

func (l *line) text(name string, b []byte) {
	if b != nil {
		*l = append(*l, fmt.Sprintf("%s=%q", name, b))
	}
}

func (l *line) users(u packet.UserProperties) {
	for name, value, ok := u.Next(); ok; name, value, ok = u.Next() {
		*l = append(*l, fmt.Sprintf("prop=%s:%s", name, value))
	}
}
