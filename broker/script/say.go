package script

import (
	"strconv"
	"strings"

	"github.com/ringmq/ringmq/broker/packet"
)

// Users are the User Properties that an option gives, each as name:value.
func (c *Command) Users(name string) (u packet.UserProperties) {
	c.used[name] = true
	for _, v := range c.options[name] {
		key, value, _ := strings.Cut(v, ":")
		u = packet.AppendUserProperty(u, []byte(key), []byte(value))
	}
	return u
}

// forwarded builds the properties that a PUBLISH and a Will share, in the order in which they stand here.
func (c *Command) forwarded(prefix string) (section []byte) {
	if c.Yes(prefix + "format") {
		section = packet.AppendPayloadFormat(section)
	}
	if c.Has(prefix + "type") {
		section = packet.AppendContentType(section, c.Bytes(prefix+"type"))
	}
	if c.Has(prefix + "response") {
		section = packet.AppendResponseTopic(section, c.Bytes(prefix+"response"))
	}
	if c.Has(prefix + "corr") {
		section = packet.AppendCorrelationData(section, c.Bytes(prefix+"corr"))
	}
	return append(section, c.Users(prefix+"prop")...)
}

// Version is the protocol version that one of the words names, or the other.
func (c *Command) Version(otherwise packet.Version) packet.Version {
	for i, w := range c.Words {
		for name, v := range map[string]packet.Version{"v31": packet.V31, "v311": packet.V311, "v5": packet.V50} {
			if w == name && i > 0 {
				return v
			}
		}
	}
	return otherwise
}

// Packet is what a client says with a command: the packet of its verb, or the bytes of "raw". The first word is the client's
// name. i counts the packets of a command with count=. It panics with a string when there is no such verb.
func (c *Command) Packet(i int, v packet.Version) []byte {
	switch c.Verb {
	case "connect":
		return c.connect(v)
	case "publish":
		return c.publish(i, v)
	case "puback":
		return c.ack(packet.PUBACK, v)
	case "pubrec":
		return c.ack(packet.PUBREC, v)
	case "pubrel":
		return c.ack(packet.PUBREL, v)
	case "pubcomp":
		return c.ack(packet.PUBCOMP, v)
	case "subscribe":
		return c.subscribe(v)
	case "unsubscribe":
		return c.unsubscribe(v)
	case "pingreq":
		return packet.AppendPingreq(nil)
	case "disconnect":
		return c.disconnect(v)
	case "auth":
		return c.auth()
	case "raw":
		b, err := Bytes(strings.Join(c.Words[1:], " "))
		if err != nil {
			panic(err.Error())
		}
		return b
	}
	panic("unknown command " + c.Verb)
}

func (c *Command) connect(v packet.Version) []byte {
	p := &packet.Connect{
		Version: v, CleanStart: c.Number("clean", 1) != 0, KeepAlive: uint16(c.Number("keepalive", 0)),
		ClientID: []byte(c.Text("id", c.Word(0))), HasUser: c.Has("user"), User: c.Bytes("user"),
		HasPassword: c.Has("pass"), Password: c.Bytes("pass"),
		SessionExpiry: uint32(c.Number("expiry", 0)), ReceiveMaximum: uint16(c.Number("recvmax", 0)),
		MaximumPacketSize: uint32(c.Number("maxpacket", 0)), TopicAliasMaximum: uint16(c.Number("aliasmax", 0)),
		RequestResponseInfo: c.Yes("respinfo"), RequestProblemInfo: c.Yes("probleminfo"),
		AuthMethod: c.Bytes("method"), HasAuthData: c.Has("data"), AuthData: c.Bytes("data"), UserProperties: c.Users("prop"),
	}
	if c.Has("will") {
		p.HasWill = true
		p.Will = packet.Will{
			Topic: c.Bytes("will"), Payload: []byte(c.Text("willpayload", "")), QoS: uint8(c.Number("willqos", 0)),
			Retain: c.Yes("willretain"), DelayInterval: uint32(c.Number("willdelay", 0)), HasExpiry: c.Has("willexpiry"),
			Expiry: uint32(c.Number("willexpiry", 0)), Properties: c.forwarded("will"),
		}
		if n := c.Number("willsize", 0); n > 0 {
			p.Will.Payload = Filler(int(n))
		}
	}
	return packet.AppendConnect(nil, p)
}

// publish is PUBLISH number i of a command with count=.
func (c *Command) publish(i int, v packet.Version) []byte {
	topic, payload := strings.ReplaceAll(c.Word(1), "%d", strconv.Itoa(i)), ""
	if len(c.Words) > 2 {
		payload = c.Words[2]
	}
	qos := uint8(c.Number("qos", 0))
	h := &packet.PublishHead{
		Flags: packet.PublishFlags(c.Yes("dup"), qos, c.Yes("retain")), Topic: []byte(topic),
		PacketID: uint16(c.Number("id", 1)) + uint16(i), Alias: uint16(c.Number("alias", 0)), HasExpiry: c.Has("expiry"),
		Expiry: uint32(c.Number("expiry", 0)), Forwarded: c.forwarded(""),
	}
	if c.Has("subid") {
		h.SubscriptionIDs = []uint32{uint32(c.Number("subid", 0))}
	}
	data := []byte(strings.ReplaceAll(payload, "%d", strconv.Itoa(i)))
	if n := c.Number("size", 0); n > 0 {
		data = Filler(int(n))
	}
	return packet.AppendPublish(nil, h, data, v)
}

func (c *Command) ack(kind packet.Kind, v packet.Version) []byte {
	p := &packet.Ack{PacketID: c.WordNumber(1), Reason: packet.Reason(c.Number("reason", 0)), ReasonString: c.Bytes("rs"), UserProperties: c.Users("prop")}
	c.Text("rs", "")
	return packet.AppendAckFull(nil, kind, p, v)
}

// subscribe takes filters; "filter@2" has a QoS of its own.
func (c *Command) subscribe(v packet.Version) []byte {
	p := &packet.Subscribe{PacketID: uint16(c.Number("id", 1)), SubscriptionID: uint32(c.Number("subid", 0)), UserProperties: c.Users("prop")}
	o := packet.Options{QoS: uint8(c.Number("qos", 0)), NoLocal: c.Yes("nolocal"), RetainAsPublished: c.Yes("rap"), RetainHandling: uint8(c.Number("rh", 0))}
	var list []packet.Subscription
	for _, w := range c.Words[1:] {
		filter, qos, own := strings.Cut(w, "@")
		s := packet.Subscription{Filter: []byte(filter), Options: o}
		if own {
			s.Options.QoS = qos[0] - '0'
		}
		list = append(list, s)
	}
	return packet.AppendSubscribe(nil, p, list, v)
}

func (c *Command) unsubscribe(v packet.Version) []byte {
	var list [][]byte
	for _, w := range c.Words[1:] {
		list = append(list, []byte(w))
	}
	p := &packet.Unsubscribe{PacketID: uint16(c.Number("id", 1)), UserProperties: c.Users("prop")}
	return packet.AppendUnsubscribe(nil, p, list, v)
}

func (c *Command) disconnect(v packet.Version) []byte {
	p := &packet.Disconnect{Reason: packet.Reason(c.Number("reason", 0)), HasSessionExpiry: c.Has("expiry"),
		SessionExpiry: uint32(c.Number("expiry", 0)), ReasonString: c.Bytes("rs"), UserProperties: c.Users("prop")}
	c.Text("rs", "")
	return packet.AppendDisconnect(nil, p, v)
}

func (c *Command) auth() []byte {
	p := &packet.Auth{Reason: packet.Reason(c.Number("reason", 0x18)), AuthMethod: c.Bytes("method"), HasAuthData: c.Has("data"),
		AuthData: c.Bytes("data"), UserProperties: c.Users("prop")}
	c.Text("method", "")
	c.Text("data", "")
	return packet.AppendAuth(nil, p)
}
