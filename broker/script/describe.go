package script

import (
	"fmt"
	"strings"

	"github.com/ringmq/ringmq/broker/packet"
)

// Usual is what a broker says in every CONNACK of 5.0, which is not worth a word in each script.
type Usual struct {
	ReceiveMaximum, TopicAliasMaximum uint16
	MaximumPacketSize                 uint32
	AssignedPrefix                    string // what the Client Identifiers begin with that it makes up
}

// Describe is one line for a packet that a broker sent: everything in it that is not at its default.
func Describe(h packet.Header, body []byte, v packet.Version, u Usual) (string, packet.Reason) {
	switch h.Kind {
	case packet.CONNACK:
		return describeConnack(body, v, u)
	case packet.PUBLISH:
		var p packet.Publish
		r := p.DecodeFromServer(h.Flags, body, v)
		return describePublish(&p), r
	case packet.PUBACK, packet.PUBREC, packet.PUBREL, packet.PUBCOMP:
		var p packet.Ack
		r := p.Decode(h.Kind, body, v)
		l := Line{h.Kind.String(), fmt.Sprint(p.PacketID)}
		l.Reason(p.Reason)
		l.Text("rs", p.ReasonString)
		l.Users(p.UserProperties)
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
		l := Line{"DISCONNECT", code(p.Reason)}
		l.Text("rs", p.ReasonString)
		l.Text("reference", p.ServerReference)
		l.Users(p.UserProperties)
		return l.String(), r
	case packet.AUTH:
		var p packet.Auth
		r := p.DecodeFromServer(body)
		l := Line{"AUTH", code(p.Reason)}
		l.Text("method", p.AuthMethod)
		if p.HasAuthData {
			l = append(l, fmt.Sprintf("data=%q", p.AuthData))
		}
		return l.String(), r
	}
	return h.Kind.String(), packet.Success
}

func describeConnack(body []byte, v packet.Version, u Usual) (string, packet.Reason) {
	var p packet.Connack
	r := p.Decode(body, v)
	l := Line{"CONNACK", code(p.Reason)}
	if v != packet.V50 && len(body) == 2 && body[1] != 0 {
		l[1] = fmt.Sprintf("return code %d", body[1])
	}
	l.Flag("present", p.SessionPresent)
	if p.HasSessionExpiry {
		l = append(l, fmt.Sprintf("expiry=%d", p.SessionExpiry))
	}
	if p.HasKeepAlive {
		l = append(l, fmt.Sprintf("keepalive=%d", p.ServerKeepAlive))
	}
	if v == packet.V50 && p.Reason == packet.Success {
		l.Number("recvmax", uint32(p.ReceiveMaximum), uint32(u.ReceiveMaximum))
		l.Number("maxpacket", p.MaximumPacketSize, u.MaximumPacketSize)
		l.Number("aliasmax", uint32(p.TopicAliasMaximum), uint32(u.TopicAliasMaximum))
	}
	if p.HasMaximumQoS || p.RetainUnavailable || p.WildcardUnavailable || p.SubscriptionIDsUnavailable || p.SharedUnavailable {
		l = append(l, "something unavailable")
	}
	if u.AssignedPrefix != "" && strings.HasPrefix(string(p.AssignedClientID), u.AssignedPrefix) {
		l = append(l, "assigned="+u.AssignedPrefix+"…") // chosen by chance
	} else {
		l.Text("assigned", p.AssignedClientID)
	}
	l.Text("method", p.AuthMethod)
	if p.HasAuthData {
		l = append(l, fmt.Sprintf("data=%q", p.AuthData))
	}
	l.Text("respinfo", p.ResponseInformation)
	l.Text("reference", p.ServerReference)
	l.Text("rs", p.ReasonString)
	l.Users(p.UserProperties)
	return l.String(), r
}

func describePublish(p *packet.Publish) string {
	l := Line{"PUBLISH", string(p.Topic), describePayload(p.Payload)}
	if len(p.Topic) == 0 {
		l[1] = `""`
	}
	if p.QoS > 0 {
		l = append(l, fmt.Sprintf("qos=%d id=%d", p.QoS, p.PacketID))
	}
	l.Flag("dup", p.Dup)
	l.Flag("retain", p.Retain)
	if p.HasExpiry {
		l = append(l, fmt.Sprintf("expiry=%d", p.Expiry))
	}
	l.Number("alias", uint32(p.Alias), 0)
	ids := p.SubscriptionIDs()
	for id, ok := ids.Next(); ok; id, ok = ids.Next() {
		l.Number("subid", id, 0)
	}
	l.Number("format", uint32(p.PayloadFormat), 0)
	l.Text("type", p.ContentType)
	l.Text("response", p.ResponseTopic)
	l.Text("corr", p.CorrelationData)
	l.Users(p.UserProperties())
	return l.String()
}

// describePayload abbreviates what Filler made.
func describePayload(b []byte) string {
	if len(b) > 40 && string(b) == string(Filler(len(b))) {
		return fmt.Sprintf("<%d bytes>", len(b))
	}
	return fmt.Sprintf("%q", b)
}

// Filler is a payload of n bytes in which a piece that is lost, doubled or moved shows.
func Filler(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte((i+i/26+i/4096)%26)
	}
	return b
}

func describeCodes(kind string, id uint16, codes []byte) string {
	l := Line{kind, fmt.Sprint(id)}
	for _, c := range codes {
		l = append(l, fmt.Sprintf("0x%02x", c))
	}
	return l.String()
}

// Line is the words of a line.
type Line []string

// String is the line.
func (l Line) String() string { return strings.Join(l, " ") }

func code(r packet.Reason) string { return fmt.Sprintf("0x%02x %s", uint8(r), r) }

// Reason adds a Reason Code that is not 0x00.
func (l *Line) Reason(r packet.Reason) {
	if r != packet.Success {
		*l = append(*l, code(r))
	}
}

// Flag adds a word, if it is set.
func (l *Line) Flag(name string, set bool) {
	if set {
		*l = append(*l, name)
	}
}

// Number adds name=n, unless n is the usual.
func (l *Line) Number(name string, n, usual uint32) {
	if n != usual {
		*l = append(*l, fmt.Sprintf("%s=%d", name, n))
	}
}

// Text adds name="text" unless b is nil.
func (l *Line) Text(name string, b []byte) {
	if b != nil {
		*l = append(*l, fmt.Sprintf("%s=%q", name, b))
	}
}

// Users adds User Properties.
func (l *Line) Users(u packet.UserProperties) {
	for name, value, ok := u.Next(); ok; name, value, ok = u.Next() {
		*l = append(*l, fmt.Sprintf("prop=%s:%s", name, value))
	}
}
