package packet

import (
	"slices"
	"strings"
	"testing"
)

// known is a row of table 2-4: a property with a value, and the packets that may carry it.
type known struct {
	property string
	packets  string
	not      []string // values that are Protocol Errors by themselves
}

// table24 is table 2-4 of section 2.2.2.2.
func table24() []known {
	const publish = "PUBLISH Will"
	notBool := func(id string) []string { return []string{id + "\x02", id + "\xFF"} }
	return []known{
		{"\x01\x01", publish, notBool("\x01")},
		{"\x02\x00\x00\x00\x00", publish, nil},
		{"\x03\x00\x00", publish, nil},
		{"\x08\x00\x01r", publish, []string{"\x08\x00\x01+", "\x08\x00\x03a/#"}},
		{"\x09\x00\x00", publish, nil},
		{"\x0B\x01", "PUBLISH SUBSCRIBE", []string{"\x0B\x00"}},
		{"\x11\x00\x00\x00\x00", "CONNECT CONNACK DISCONNECT", nil},
		{"\x12\x00\x01c", "CONNACK", nil},
		{"\x13\x00\x00", "CONNACK", nil},
		{"\x15\x00\x01m", "CONNECT CONNACK AUTH", nil},
		{"\x16\x00\x00", "CONNECT CONNACK AUTH", nil},
		{"\x17\x00", "CONNECT", notBool("\x17")},
		{"\x18\x00\x00\x00\x00", "Will", nil},
		{"\x19\x00", "CONNECT", notBool("\x19")},
		{"\x1A\x00\x00", "CONNACK", nil},
		{"\x1C\x00\x00", "CONNACK DISCONNECT", nil},
		{"\x1F\x00\x00", "CONNACK PUBACK PUBREC PUBREL PUBCOMP SUBACK UNSUBACK DISCONNECT AUTH", nil},
		{"\x21\x00\x01", "CONNECT CONNACK", []string{"\x21\x00\x00"}},
		{"\x22\x00\x00", "CONNECT CONNACK", nil},
		{"\x23\x00\x01", "PUBLISH", nil}, // 0 has a Reason Code of its own
		{"\x24\x00", "CONNACK", notBool("\x24")},
		{"\x25\x00", "CONNACK", notBool("\x25")},
		{"\x26\x00\x00\x00\x00", "CONNECT CONNACK PUBLISH Will PUBACK PUBREC PUBREL PUBCOMP SUBSCRIBE SUBACK UNSUBSCRIBE UNSUBACK DISCONNECT AUTH", nil},
		{"\x27\x00\x00\x00\x01", "CONNECT CONNACK", []string{"\x27\x00\x00\x00\x00"}},
		{"\x28\x00", "CONNACK", notBool("\x28")},
		{"\x29\x00", "CONNACK", notBool("\x29")},
		{"\x2A\x00", "CONNACK", notBool("\x2A")},
	}
}

// carrier is a packet, or a Will, around a section of properties.
type carrier struct {
	name           string
	kind           Kind
	server         bool
	before, behind string
}

func carriers() []carrier {
	const connect = "\x00\x04MQTT\x05\x02\x00\x00"
	return []carrier{
		{"CONNECT", CONNECT, false, connect, "\x00\x01c"},
		{"Will", CONNECT, false, "\x00\x04MQTT\x05\x06\x00\x00\x00\x00\x01c", "\x00\x01w\x00\x00"},
		{"CONNACK", CONNACK, true, "\x00\x00", ""},
		{"PUBLISH", PUBLISH, false, "\x00\x01t", ""},
		{"PUBLISH", PUBLISH, true, "\x00\x01t", ""},
		{"PUBACK", PUBACK, false, "\x00\x01\x00", ""},
		{"PUBREC", PUBREC, false, "\x00\x01\x00", ""},
		{"PUBREL", PUBREL, false, "\x00\x01\x00", ""},
		{"PUBCOMP", PUBCOMP, false, "\x00\x01\x00", ""},
		{"SUBSCRIBE", SUBSCRIBE, false, "\x00\x01", "\x00\x01f\x00"},
		{"SUBACK", SUBACK, true, "\x00\x01", "\x00"},
		{"UNSUBSCRIBE", UNSUBSCRIBE, false, "\x00\x01", "\x00\x01f"},
		{"UNSUBACK", UNSUBACK, true, "\x00\x01", "\x00"},
		{"DISCONNECT", DISCONNECT, false, "\x00", ""},
		{"DISCONNECT", DISCONNECT, true, "\x00", ""},
		{"AUTH", AUTH, false, "\x18", ""},
		{"AUTH", AUTH, true, "\x18", ""},
	}
}

// with is what the codec says of the packet with these properties, and those that they cannot be without.
func (p *carrier) with(section string) Reason {
	switch id := section[0]; {
	case p.kind == AUTH && id != idAuthMethod, p.name == "CONNECT" && id == idAuthData:
		section = "\x15\x00\x01m" + section
	}
	var c codec
	return c.decode(p.kind, 0, []byte(p.before+string(byte(len(section)))+section+p.behind), V50, p.server)
}

// takes says whether one side may send what the table gives to the packet of both.
func (p *carrier) takes(id byte) bool {
	switch {
	case p.kind == PUBLISH && id == idSubscriptionID:
		return p.server // [MQTT-3.3.4-6]
	case p.kind == DISCONNECT && id == idSessionExpiry:
		return !p.server // [MQTT-3.14.2-2]
	case p.kind == DISCONNECT && id == idServerReference:
		return p.server // section 3.14.2.2.5
	}
	return true
}

// TestPropertiesOfThePackets puts every identifier into every packet: once, twice, and with the values that are a Protocol Error
// (section 2.2.2.2, and that of each property).
func TestPropertiesOfThePackets(t *testing.T) {
	for _, p := range carriers() {
		check := func(what, section string, want Reason) {
			t.Helper()
			if got := p.with(section); got != want {
				t.Errorf("%s, from a server %t: property %#x %s: %v, want %v", p.name, p.server, section[0], what, got, want)
			}
		}
		for id := range byte(0x80) {
			i := slices.IndexFunc(table24(), func(k known) bool { return k.property[0] == id })
			if i < 0 {
				check("of no packet", string([]byte{id, 0, 0, 0, 0}), MalformedPacket)
				continue
			}
			k := table24()[i]
			twice := ProtocolError
			if id == idUserProperty || id == idSubscriptionID && p.kind == PUBLISH && p.server {
				twice = Success
			}
			switch {
			case !slices.Contains(strings.Fields(k.packets), p.name):
				check("of another packet", k.property, MalformedPacket)
				continue
			case p.takes(id):
				check("once", k.property, Success)
			default:
				check("of the other side", k.property, ProtocolError)
			}
			check("twice", k.property+k.property, twice)
			for _, value := range k.not {
				check("with another value", value, ProtocolError)
			}
			check("cut short", k.property[:len(k.property)-1], MalformedPacket)
		}
	}
}
