package packet

import (
	"slices"
	"strings"
	"testing"
)

// refusal is a body that must be refused with that Reason Code.
type refusal struct {
	name    string
	kind    Kind
	flags   uint8
	version Version
	server  bool
	body    []part
	want    Reason
}

// refusals are all the tables.
func refusals() []refusal {
	return slices.Concat(connectRefusals(), connackRefusals(), publishRefusals(), ackRefusals(), listRefusals(),
		endRefusals())
}

// TestRefusals decodes what the tables above have, among it an AUTH with a reserved code [MQTT-3.15.2-1], and lengths that take more
// bytes than they need [MQTT-1.5.5-1].
func TestRefusals(t *testing.T) {
	for _, r := range refusals() {
		body := (&row{wire: r.body}).bytes()
		var c codec
		if got := c.decode(r.kind, r.flags, body, r.version, r.server); got != r.want {
			t.Errorf("%v %v, %s: %v, want %v", r.kind, r.version, r.name, got, r.want)
		}
	}
}

// connectWith is the body of a CONNECT with these flags, section and payload.
func connectWith(level, flags byte, section []byte, payload ...part) []part {
	name := "MQTT"
	if level == 3 {
		name = "MQIsdp"
	}
	head := []part{s("Protocol Name", name), b("Protocol Level", level), b("Connect Flags", flags), b("Keep Alive", 0, 0)}
	if level == 5 {
		head = append(head, b("Property Length", byte(len(section))), b("Properties", section...))
	}
	return append(head, payload...)
}

func connectRefusals() []refusal {
	id := s("Client Identifier", "c")
	refuse := func(name string, want Reason, body []part) refusal {
		return refusal{name: name, kind: CONNECT, version: V50, want: want, body: body}
	}
	section := func(name string, want Reason, section ...byte) refusal {
		return refuse(name, want, connectWith(5, 2, section, id))
	}
	return []refusal{
		refuse("another protocol", UnsupportedProtocolVersion, []part{s("name", "AAAAAA"), b("level", 3, 0, 0, 0)}),
		refuse("a later version [MQTT-3.1.2-2]", UnsupportedProtocolVersion, connectWith(6, 2, nil, id)),
		refuse("3.1.1 called MQIsdp", UnsupportedProtocolVersion, []part{s("name", "MQIsdp"), b("level", 4, 2, 0, 0), id}),
		refuse("a name that is no UTF-8", MalformedPacket, []part{s("name", "MQ\xFFT"), b("level", 4, 2, 0, 0), id}),
		refuse("reserved flag [MQTT-3.1.2-3]", MalformedPacket, connectWith(4, 3, nil, id)),
		refuse("Will QoS without Will [MQTT-3.1.2-11]", ProtocolError, connectWith(4, 0b01010, nil, id)),
		refuse("Will Retain without Will [MQTT-3.1.2-13]", ProtocolError, connectWith(5, 0b100010, nil, id)),
		refuse("Will QoS 3 [MQTT-3.1.2-12]", MalformedPacket,
			connectWith(4, 0b11110, nil, id, s("Will Topic", "w"), s("Will Payload", ""))),
		refuse("no Will Topic [MQTT-3.1.2-9]", MalformedPacket, connectWith(4, 0b110, nil, id)),
		refuse("Password without User Name, 3.1.1 [MQTT-3.1.2-22]", ProtocolError,
			connectWith(4, 0b01000010, nil, id, s("Password", "p"))),
		refuse("Password without User Name, 3.1", ProtocolError,
			connectWith(3, 0b01000010, nil, id, s("Password", "p"))),
		refuse("no Client Identifier [MQTT-3.1.3-3]", MalformedPacket, connectWith(4, 2, nil)),
		refuse("no User Name [MQTT-3.1.2-17]", MalformedPacket, connectWith(4, 0b10000010, nil, id)),
		refuse("no Password [MQTT-3.1.2-19]", MalformedPacket, connectWith(5, 0b01000010, nil, id)),
		refuse("bytes behind the payload", MalformedPacket, connectWith(4, 2, nil, id, b("more", 0))),
		refuse("bytes behind the payload, 3.1", MalformedPacket, connectWith(3, 2, nil, id, b("more", 0))),
		refuse("Client Identifier with a surrogate [MQTT-1.5.4-1]", MalformedPacket,
			connectWith(4, 2, nil, s("Client Identifier", "\xED\xA0\x80"))),
		refuse("Will Topic with U+0000 [MQTT-1.5.4-2]", MalformedPacket,
			connectWith(4, 0b110, nil, id, s("Will Topic", "\x00"), s("Will Payload", ""))),
		refuse("User Name that is no UTF-8 [MQTT-3.1.3-12]", MalformedPacket,
			connectWith(4, 0b10000010, nil, id, s("User Name", "\xC0\x80"))),
		refuse("Will Delay Interval twice", ProtocolError, connectWith(5, 0b110, nil, id,
			b("Will Properties", 10, 0x18, 0, 0, 0, 1, 0x18, 0, 0, 0, 1), s("Will Topic", "w"), s("Will Payload", ""))),
		refuse("Topic Alias in a Will", MalformedPacket, connectWith(5, 0b110, nil, id,
			b("Will Properties", 3, 0x23, 0, 1), s("Will Topic", "w"), s("Will Payload", ""))),
		refuse("Response Topic of a Will with a wildcard", ProtocolError, connectWith(5, 0b110, nil, id,
			b("Will Properties", 4, 8, 0, 1, '#'), s("Will Topic", "w"), s("Will Payload", ""))),
		section("Session Expiry Interval twice", ProtocolError, 0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1),
		section("Receive Maximum 0", ProtocolError, 0x21, 0, 0),
		section("Maximum Packet Size 0", ProtocolError, 0x27, 0, 0, 0, 0),
		section("Request Problem Information 2", ProtocolError, 0x17, 2),
		section("Request Response Information 2", ProtocolError, 0x19, 2),
		section("Authentication Data alone", ProtocolError, 0x16, 0, 0),
		section("Authentication Method twice", ProtocolError, 0x15, 0, 0, 0x15, 0, 0),
		section("unknown identifier", MalformedPacket, 0x10, 0),
		section("identifier of two bytes", MalformedPacket, 0x91, 0, 0),
		section("a PUBLISH's property", MalformedPacket, 1, 0),
		section("a Will's property", MalformedPacket, 0x18, 0, 0, 0, 0),
		section("User Property cut short", MalformedPacket, 0x26, 0, 1, 'a'),
		section("User Property that is no UTF-8 [MQTT-1.5.7-1]", MalformedPacket, 0x26, 0, 1, 'a', 0, 1, 0xFF),
		section("name with U+0000 [MQTT-1.5.7-1]", MalformedPacket, 0x26, 0, 1, 0, 0, 0),
		refuse("Property Length longer than need be [MQTT-1.5.5-1]", MalformedPacket,
			append(connectWith(5, 2, nil)[:4], b("Property Length", 0x80, 0), id)),
		refuse("Property Length beyond the packet", MalformedPacket,
			append(connectWith(5, 2, nil)[:4], b("Property Length", 9), id)),
	}
}

func connackRefusals() []refusal {
	refuse := func(name string, v Version, want Reason, body ...byte) refusal {
		return refusal{name: name, kind: CONNACK, version: v, server: true, want: want, body: []part{b("body", body...)}}
	}
	return []refusal{
		refuse("reserved flag [MQTT-3.2.2-1]", V311, MalformedPacket, 2, 0),
		refuse("reserved return code", V311, ProtocolError, 0, 6),
		refuse("reserved Reason Code [MQTT-3.2.2-8]", V50, ProtocolError, 0, 1, 0),
		refuse("Session Present and refused [MQTT-3.2.2-6]", V311, ProtocolError, 1, 3),
		refuse("no Property Length", V50, MalformedPacket, 0, 0),
		refuse("3.1.1 with properties", V311, MalformedPacket, 0, 0, 0),
		refuse("Maximum QoS 2", V50, ProtocolError, 0, 0, 2, 0x24, 2),
		refuse("Receive Maximum 0", V50, ProtocolError, 0, 0, 3, 0x21, 0, 0),
		refuse("Reason String twice", V50, ProtocolError, 0, 0, 6, 0x1F, 0, 0, 0x1F, 0, 0),
		refuse("a CONNECT's property", V50, MalformedPacket, 0, 0, 2, 0x17, 1),
	}
}

func publishRefusals() []refusal {
	topic := s("Topic Name", "t")
	refuse := func(name string, flags uint8, v Version, want Reason, body ...part) refusal {
		return refusal{name: name, kind: PUBLISH, flags: flags, version: v, want: want, body: body}
	}
	section := func(name string, want Reason, section ...byte) refusal {
		return refuse(name, 0, V50, want, topic, b("Property Length", byte(len(section))), b("Properties", section...))
	}
	return []refusal{
		refuse("QoS 3 [MQTT-3.3.1-4]", 0b0110, V311, MalformedPacket, topic, b("Packet Identifier", 0, 1)),
		refuse("DUP at QoS 0 [MQTT-3.3.1-2]", 0b1000, V50, MalformedPacket, topic, b("Property Length", 0)),
		refuse("Packet Identifier 0 [MQTT-2.2.1-3]", 0b0010, V311, ProtocolError, topic, b("Packet Identifier", 0, 0)),
		refuse("no Topic Name [MQTT-3.3.2-1]", 0, V311, MalformedPacket),
		refuse("empty Topic Name, 3.1.1 [MQTT-4.7.3-1]", 0, V311, ProtocolError, s("Topic Name", "")),
		refuse("empty Topic Name and no alias", 0, V50, ProtocolError, s("Topic Name", ""), b("Property Length", 0)),
		refuse("empty Topic Name, properties but no alias", 0, V50, ProtocolError, s("Topic Name", ""),
			b("Properties", 2, 1, 0)),
		refuse("no Property Length", 0, V50, MalformedPacket, topic),
		refuse("Property Length beyond the packet", 0, V50, MalformedPacket, topic, b("Property Length", 4, 1, 1)),
		refuse("Property Length too long [MQTT-1.5.5-1]", 0, V50, MalformedPacket, topic, b("Property Length", 0x80, 0)),
		section("Topic Alias 0 [MQTT-3.3.2-8]", TopicAliasInvalid, 0x23, 0, 0),
		section("Topic Alias twice", ProtocolError, 0x23, 0, 1, 0x23, 0, 1),
		section("Subscription Identifier from a Client [MQTT-3.3.4-6]", ProtocolError, 0x0B, 1),
		section("Payload Format Indicator 2", ProtocolError, 1, 2),
		section("Payload Format Indicator twice", ProtocolError, 1, 1, 1, 1),
		section("Response Topic with a wildcard [MQTT-3.3.2-14]", ProtocolError, 8, 0, 3, 'a', '/', '+'),
		section("empty Response Topic [MQTT-4.7.3-1]", ProtocolError, 8, 0, 0),
		section("Response Topic that is no UTF-8 [MQTT-3.3.2-13]", MalformedPacket, 8, 0, 1, 0x80),
		section("Content Type with U+0000 [MQTT-3.3.2-19]", MalformedPacket, 3, 0, 1, 0),
		section("Correlation Data twice", ProtocolError, 9, 0, 0, 9, 0, 0),
		section("a CONNACK's property", MalformedPacket, 0x24, 1),
		section("Message Expiry Interval cut short", MalformedPacket, 2, 0, 0, 0),
		{name: "Subscription Identifier 0", kind: PUBLISH, version: V50, server: true, want: ProtocolError,
			body: []part{topic, b("Properties", 2, 0x0B, 0)}},
		{name: "Subscription Identifier of five bytes", kind: PUBLISH, version: V50, server: true, want: MalformedPacket,
			body: []part{topic, b("Properties", 6, 0x0B, 0xFF, 0xFF, 0xFF, 0xFF, 1)}},
	}
}

func ackRefusals() []refusal {
	refuse := func(name string, kind Kind, v Version, want Reason, body ...byte) refusal {
		return refusal{name: name, kind: kind, version: v, want: want, body: []part{b("body", body...)}}
	}
	return []refusal{
		refuse("Packet Identifier 0", PUBACK, V311, ProtocolError, 0, 0),
		refuse("3.1.1 with a Reason Code", PUBACK, V311, MalformedPacket, 0, 1, 0),
		refuse("Reason Code of UNSUBACK [MQTT-3.4.2-1]", PUBACK, V50, ProtocolError, 0, 1, 0x11),
		refuse("Reason Code of PUBREL [MQTT-3.5.2-1]", PUBREC, V50, ProtocolError, 0, 1, 0x92),
		refuse("Reason Code of PUBREC [MQTT-3.6.2-1]", PUBREL, V50, ProtocolError, 0, 1, 0x10, 0),
		refuse("Reason Code of PUBREC [MQTT-3.7.2-1]", PUBCOMP, V50, ProtocolError, 0, 1, 0x80),
		refuse("Reason String twice", PUBACK, V50, ProtocolError, 0, 1, 0, 6, 0x1F, 0, 0, 0x1F, 0, 0),
		refuse("bytes behind the properties", PUBACK, V50, MalformedPacket, 0, 1, 0, 0, 0),
		refuse("Server Reference", PUBREC, V50, MalformedPacket, 0, 1, 0, 3, 0x1C, 0, 0),
	}
}

func listRefusals() []refusal {
	refuse := func(name string, kind Kind, v Version, want Reason, body ...byte) refusal {
		return refusal{name: name, kind: kind, version: v, want: want, body: []part{b("body", body...)}}
	}
	return []refusal{
		refuse("Packet Identifier 0 [MQTT-2.2.1-3]", SUBSCRIBE, V311, ProtocolError, 0, 0, 0, 1, 'a', 0),
		refuse("no Topic Filter [MQTT-3.8.3-2]", SUBSCRIBE, V311, ProtocolError, 0, 1),
		refuse("no Topic Filter [MQTT-3.8.3-2]", SUBSCRIBE, V50, ProtocolError, 0, 1, 0),
		refuse("no options", SUBSCRIBE, V311, MalformedPacket, 0, 1, 0, 1, 'a'),
		refuse("QoS 3", SUBSCRIBE, V311, MalformedPacket, 0, 1, 0, 1, 'a', 3),
		refuse("reserved bits", SUBSCRIBE, V311, MalformedPacket, 0, 1, 0, 1, 'a', 4),
		refuse("QoS 3", SUBSCRIBE, V50, ProtocolError, 0, 1, 0, 0, 1, 'a', 3),
		refuse("Retain Handling 3", SUBSCRIBE, V50, ProtocolError, 0, 1, 0, 0, 1, 'a', 0x30),
		refuse("reserved bits [MQTT-3.8.3-5]", SUBSCRIBE, V50, MalformedPacket, 0, 1, 0, 0, 1, 'a', 0x40),
		refuse("second filter no UTF-8 [MQTT-3.8.3-1]", SUBSCRIBE, V311, MalformedPacket,
			0, 1, 0, 1, 'a', 0, 0, 1, 0xFF, 0),
		refuse("Subscription Identifier 0", SUBSCRIBE, V50, ProtocolError, 0, 1, 2, 0x0B, 0, 0, 1, 'a', 0),
		refuse("Subscription Identifier twice", SUBSCRIBE, V50, ProtocolError, 0, 1, 4, 0x0B, 1, 0x0B, 1, 0, 1, 'a', 0),
		refuse("Reason String", SUBSCRIBE, V50, MalformedPacket, 0, 1, 3, 0x1F, 0, 0, 0, 1, 'a', 0),
		refuse("Packet Identifier 0", SUBACK, V311, ProtocolError, 0, 0, 0),
		refuse("no return code", SUBACK, V311, ProtocolError, 0, 1),
		refuse("no Reason Code", SUBACK, V50, ProtocolError, 0, 1, 0),
		refuse("a 5.0 code", SUBACK, V311, ProtocolError, 0, 1, 0x87),
		refuse("reserved code [MQTT-3.9.3-2]", SUBACK, V50, ProtocolError, 0, 1, 0, 3),
		refuse("Packet Identifier 0", UNSUBSCRIBE, V50, ProtocolError, 0, 0, 0, 0, 1, 'a'),
		refuse("no Topic Filter [MQTT-3.10.3-2]", UNSUBSCRIBE, V50, ProtocolError, 0, 1, 0),
		refuse("Topic Filter cut short", UNSUBSCRIBE, V311, MalformedPacket, 0, 1, 0, 2, 'a'),
		refuse("Topic Filter no UTF-8 [MQTT-3.10.3-1]", UNSUBSCRIBE, V311, MalformedPacket, 0, 1, 0, 1, 0xFF),
		refuse("Subscription Identifier", UNSUBSCRIBE, V50, MalformedPacket, 0, 1, 2, 0x0B, 1, 0, 1, 'a'),
		refuse("codes in 3.1.1", UNSUBACK, V311, MalformedPacket, 0, 1, 0),
		refuse("no Reason Code", UNSUBACK, V50, ProtocolError, 0, 1, 0),
		refuse("Reason Code of SUBACK [MQTT-3.11.3-2]", UNSUBACK, V50, ProtocolError, 0, 1, 0, 1),
	}
}

func endRefusals() []refusal {
	refuse := func(name string, kind Kind, v Version, server bool, want Reason, body ...byte) refusal {
		return refusal{name: name, kind: kind, version: v, server: server, want: want, body: []part{b("body", body...)}}
	}
	return []refusal{
		refuse("not empty", DISCONNECT, V311, false, MalformedPacket, 0),
		refuse("from a Server", DISCONNECT, V311, true, ProtocolError),
		refuse("reserved code [MQTT-3.14.2-1]", DISCONNECT, V50, false, ProtocolError, 5),
		refuse("a Server's code from a Client", DISCONNECT, V50, false, ProtocolError, 0x8E),
		refuse("a Client's code from a Server", DISCONNECT, V50, true, ProtocolError, 4),
		refuse("expiry from a Server [MQTT-3.14.2-2]", DISCONNECT, V50, true, ProtocolError, 0, 5, 0x11, 0, 0, 0, 1),
		refuse("Server Reference from a Client", DISCONNECT, V50, false, ProtocolError, 0, 3, 0x1C, 0, 0),
		refuse("bytes behind the properties", DISCONNECT, V50, false, MalformedPacket, 0, 0, 0),
		refuse("no method [MQTT-4.12.0-5]", AUTH, V50, false, ProtocolError, 0x18, 0),
		refuse("empty from a Client", AUTH, V50, false, ProtocolError),
		refuse("re-authenticate from a Server", AUTH, V50, true, ProtocolError, 0x19, 4, 0x15, 0, 1, 'S'),
		refuse("reserved code [MQTT-3.15.2-1]", AUTH, V50, false, ProtocolError, 0x17, 4, 0x15, 0, 1, 'S'),
		refuse("no Property Length", AUTH, V50, false, MalformedPacket, 0x18),
		refuse("method twice", AUTH, V50, false, ProtocolError, 0x18, 6, 0x15, 0, 0, 0x15, 0, 0),
	}
}

func TestValidUTF8(t *testing.T) {
	for text, want := range map[string]bool{
		"": true, "a/b": true, "\uFEFFa": true, "A\U0002A6D4": true, "\u0001\u0085\uFFFF": true,
		"a\x00": false, "\xC0\x80": false, "\xED\xA0\x80": false, "\xED\xBF\xBF": false, "\xF4\x90\x80\x80": false,
		"\xE2\x82": false, strings.Repeat("a", 33) + "\x00": false,
	} {
		if ValidUTF8([]byte(text)) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}

// TestValidUTF8Everywhere puts every byte at every place of a short and of a longer text.
func TestValidUTF8Everywhere(t *testing.T) {
	for size := 1; size <= 17; size++ {
		for at := range size {
			for c := range 256 {
				text := []byte(strings.Repeat("a", size))
				text[at] = byte(c)
				if got, want := ValidUTF8(text), c > 0 && c < 0x80; got != want {
					t.Fatalf("%q: %v", text, got)
				}
			}
			if at+2 <= size {
				text := []byte(strings.Repeat("a", size))
				copy(text[at:], "é")
				if !ValidUTF8(text) {
					t.Fatalf("%q is refused", text)
				}
			}
		}
	}
}
