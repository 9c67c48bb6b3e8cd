package packet

import (
	"bytes"
	"testing"
)

func subscribeRows() []row {
	users := AppendUserProperty(nil, []byte("a"), []byte("b"))
	return []row{
		{name: "SUBSCRIBE 3.1.1", version: V311,
			want: subscribed{Subscribe{PacketID: 10, Count: 2}, []Subscription{
				{[]byte("a/b"), Options{QoS: 1}}, {[]byte("c/+"), Options{QoS: 2}}}},
			wire: []part{b("SUBSCRIBE", 0x82), b("Remaining Length", 14), b("Packet Identifier", 0, 10),
				s("Topic Filter", "a/b"), b("Requested QoS", 1), s("Topic Filter", "c/+"), b("Requested QoS", 2)}},
		{name: "SUBSCRIBE 3.1 DUP", version: V31, oneWay: true,
			want: subscribed{Subscribe{PacketID: 10, Count: 1}, []Subscription{{[]byte("#"), Options{}}}},
			wire: []part{b("SUBSCRIBE, DUP", 0x8A), b("Remaining Length", 6), b("Packet Identifier", 0, 10),
				s("Topic Filter", "#"), b("Requested QoS", 0)}},
		{name: "SUBSCRIBE 5.0 all", version: V50,
			want: subscribed{Subscribe{PacketID: 10, SubscriptionID: 128, Count: 3, UserProperties: users}, []Subscription{
				{[]byte("a"), Options{QoS: 2, NoLocal: true, RetainAsPublished: true, RetainHandling: 2}},
				{[]byte(""), Options{RetainHandling: 1}}, {[]byte("$share/g/a"), Options{QoS: 1}}}},
			wire: []part{b("SUBSCRIBE", 0x82), b("Remaining Length", 33), b("Packet Identifier", 0, 10),
				b("Property Length", 10), b("Subscription Identifier", 0x0B, 0x80, 1),
				b("User Property", 0x26, 0, 1, 'a', 0, 1, 'b'), s("Topic Filter", "a"), b("Options", 0b00101110),
				s("Topic Filter", ""), b("Options", 0b00010000), s("Topic Filter", "$share/g/a"), b("Options", 1)}},
		{name: "SUBACK 3.1.1", version: V311, server: true, want: Suback{PacketID: 10, Codes: []byte{0, 2, 0x80}},
			wire: []part{b("SUBACK", 0x90), b("Remaining Length", 5), b("Packet Identifier", 0, 10),
				b("return codes", 0, 2, 0x80)}},
		{name: "SUBACK 5.0 all", version: V50, server: true,
			want: Suback{PacketID: 10, Codes: []byte{1, 0xA2}, ReasonString: []byte("r"), UserProperties: users},
			wire: []part{b("SUBACK", 0x90), b("Remaining Length", 16), b("Packet Identifier", 0, 10),
				b("Property Length", 11), b("Reason String", 0x1F, 0, 1, 'r'),
				b("User Property", 0x26, 0, 1, 'a', 0, 1, 'b'), b("Reason Codes", 1, 0xA2)}},
	}
}

func unsubscribeRows() []row {
	users := AppendUserProperty(nil, []byte("a"), []byte("b"))
	return []row{
		{name: "UNSUBSCRIBE 3.1.1", version: V311,
			want: unsubscribed{Unsubscribe{PacketID: 10, Count: 2}, [][]byte{[]byte("a/b"), []byte("c")}},
			wire: []part{b("UNSUBSCRIBE", 0xA2), b("Remaining Length", 10), b("Packet Identifier", 0, 10),
				s("Topic Filter", "a/b"), s("Topic Filter", "c")}},
		{name: "UNSUBSCRIBE 5.0", version: V50,
			want: unsubscribed{Unsubscribe{PacketID: 10, Count: 2, UserProperties: users}, [][]byte{[]byte("a"), {}}},
			wire: []part{b("UNSUBSCRIBE", 0xA2), b("Remaining Length", 15), b("Packet Identifier", 0, 10),
				b("Property Length", 7), b("User Property", 0x26, 0, 1, 'a', 0, 1, 'b'), s("Topic Filter", "a"),
				s("Topic Filter", "")}},
		{name: "UNSUBACK 3.1.1", version: V311, server: true, want: Unsuback{PacketID: 10},
			wire: []part{b("UNSUBACK", 0xB0), b("Remaining Length", 2), b("Packet Identifier", 0, 10)}},
		{name: "UNSUBACK 5.0 all", version: V50, server: true,
			want: Unsuback{PacketID: 10, Codes: []byte{0, 0x11}, ReasonString: []byte("r"), UserProperties: users},
			wire: []part{b("UNSUBACK", 0xB0), b("Remaining Length", 16), b("Packet Identifier", 0, 10),
				b("Property Length", 11), b("Reason String", 0x1F, 0, 1, 'r'),
				b("User Property", 0x26, 0, 1, 'a', 0, 1, 'b'), b("Reason Codes", 0, 0x11)}},
	}
}

func TestAppendCodes(t *testing.T) {
	codes := []Reason{GrantedQoS2, QuotaExceeded, NotAuthorized} // UNSUBACK has no 0x97.
	for _, c := range []struct {
		name      string
		got, want []byte
	}{
		{"SUBACK 5.0", AppendSuback(nil, 1, codes, V50), []byte{0x90, 6, 0, 1, 0, 2, 0x97, 0x87}},
		{"SUBACK 3.1.1", AppendSuback(nil, 1, codes, V311), []byte{0x90, 5, 0, 1, 2, 0x80, 0x80}},
		{"UNSUBACK 5.0", AppendUnsuback(nil, 1, codes[1:], V50), []byte{0xB0, 5, 0, 1, 0, 0x80, 0x87}},
		{"UNSUBACK 3.1.1", AppendUnsuback(nil, 1, codes, V311), []byte{0xB0, 2, 0, 1}},
	} {
		if !bytes.Equal(c.got, c.want) {
			t.Errorf("%s: %x, want %x", c.name, c.got, c.want)
		}
	}
}

// endRows are the packets that end or keep a connection, and AUTH.
func endRows() []row {
	users := AppendUserProperty(nil, []byte("a"), []byte("b"))
	return []row{
		{name: "PINGREQ", version: V311, want: PINGREQ, wire: []part{b("PINGREQ", 0xC0), b("Remaining Length", 0)}},
		{name: "PINGRESP", version: V50, server: true, want: PINGRESP,
			wire: []part{b("PINGRESP", 0xD0), b("Remaining Length", 0)}},
		{name: "DISCONNECT 3.1.1", version: V311, want: Disconnect{},
			wire: []part{b("DISCONNECT", 0xE0), b("Remaining Length", 0)}},
		{name: "DISCONNECT 5.0 Reason Code", version: V50, want: Disconnect{Reason: DisconnectWithWillMessage},
			wire: []part{b("DISCONNECT", 0xE0), b("Remaining Length", 1), b("Reason Code", 4)}},
		{name: "DISCONNECT 5.0 from a Client", version: V50,
			want: Disconnect{HasSessionExpiry: true, SessionExpiry: 5, ReasonString: []byte("r"), UserProperties: users},
			wire: []part{b("DISCONNECT", 0xE0), b("Remaining Length", 18), b("Reason Code", 0), b("Property Length", 16),
				b("Session Expiry Interval", 0x11, 0, 0, 0, 5), b("Reason String", 0x1F, 0, 1, 'r'),
				b("User Property", 0x26, 0, 1, 'a', 0, 1, 'b')}},
		{name: "DISCONNECT 5.0 from a Server", version: V50, server: true,
			want: Disconnect{Reason: UseAnotherServer, ServerReference: []byte("h")},
			wire: []part{b("DISCONNECT", 0xE0), b("Remaining Length", 6), b("Reason Code", 0x9C), b("Property Length", 4),
				b("Server Reference", 0x1C, 0, 1, 'h')}},
		{name: "AUTH empty from a Server", version: V50, server: true, want: Auth{},
			wire: []part{b("AUTH", 0xF0), b("Remaining Length", 0)}},
		{name: "AUTH all", version: V50,
			want: Auth{Reason: ContinueAuthentication, AuthMethod: []byte("S"), HasAuthData: true, AuthData: []byte{},
				ReasonString: []byte("r"), UserProperties: users},
			wire: []part{b("AUTH", 0xF0), b("Remaining Length", 20), b("Reason Code", 0x18), b("Property Length", 18),
				b("Authentication Method", 0x15, 0, 1, 'S'), b("Authentication Data", 0x16, 0, 0),
				b("Reason String", 0x1F, 0, 1, 'r'), b("User Property", 0x26, 0, 1, 'a', 0, 1, 'b')}},
		{name: "AUTH re-authenticate", version: V50, want: Auth{Reason: ReAuthenticate, AuthMethod: []byte("S")},
			wire: []part{b("AUTH", 0xF0), b("Remaining Length", 6), b("Reason Code", 0x19), b("Property Length", 4),
				b("Authentication Method", 0x15, 0, 1, 'S')}},
	}
}
