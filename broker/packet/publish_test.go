package packet

import (
	"bytes"
	"strings"
	"testing"
)

func publishRows() []row {
	forwarded := AppendPayloadFormat(nil)
	forwarded = AppendContentType(forwarded, []byte("text"))
	forwarded = AppendResponseTopic(forwarded, []byte("r/1"))
	forwarded = AppendCorrelationData(forwarded, []byte{0})
	forwarded = AppendUserProperty(forwarded, []byte("k"), []byte("1"))
	forwarded = AppendUserProperty(forwarded, []byte("k"), []byte(""))
	long := strings.Repeat("x", 120)
	return []row{
		{name: "PUBLISH 3.1.1 QoS 0 retain", version: V311,
			want: published{Publish: Publish{Topic: []byte("a/b"), Payload: []byte("hi"), Retain: true, Forwardable: true}},
			wire: []part{b("PUBLISH, RETAIN", 0x31), b("Remaining Length", 7), s("Topic Name", "a/b"), b("Payload", 'h', 'i')}},
		{name: "PUBLISH 3.1 QoS 1 DUP, no payload", version: V31,
			want: published{Publish: Publish{Topic: []byte("t"), Payload: []byte{}, QoS: 1, Dup: true, PacketID: 0x0102,
				Forwardable: true}},
			wire: []part{b("PUBLISH, DUP, QoS 1", 0x3A), b("Remaining Length", 5), s("Topic Name", "t"),
				b("Packet Identifier", 1, 2)}},
		{name: "PUBLISH 5.0 QoS 2 no properties", version: V50,
			want: published{Publish: Publish{Topic: []byte("t"), Payload: []byte{9}, QoS: 2, PacketID: 0xFFFF,
				Forwardable: true}},
			wire: []part{b("PUBLISH, QoS 2", 0x34), b("Remaining Length", 7), s("Topic Name", "t"),
				b("Packet Identifier", 0xFF, 0xFF), b("Property Length", 0), b("Payload", 9)}},
		{name: "PUBLISH 5.0 alias for the topic", version: V50,
			want: published{Publish: Publish{Topic: []byte{}, Payload: []byte{9}, Alias: 0x0A0B}},
			wire: []part{b("PUBLISH", 0x30), b("Remaining Length", 7), s("Topic Name", ""), b("Property Length", 3),
				b("Topic Alias", 0x23, 0x0A, 0x0B), b("Payload", 9)}},
		{name: "PUBLISH 5.0 Remaining Length of two bytes", version: V50,
			want: published{Publish: Publish{Topic: []byte("t"), Payload: []byte(long), HasExpiry: true, Forwardable: false}},
			wire: []part{b("PUBLISH", 0x30), b("Remaining Length", 0x81, 1), s("Topic Name", "t"), b("Property Length", 5),
				b("Message Expiry Interval", 2, 0, 0, 0, 0), b("Payload", []byte(long)...)}},
		{name: "PUBLISH 5.0 all, from a Server", version: V50, server: true,
			want: published{IDs: []uint32{1, 268435455, 1}, Publish: Publish{
				Topic: []byte("t"), Payload: []byte("é"), QoS: 1, PacketID: 5, HasExpiry: true, Expiry: 0x01020304,
				Alias: 2, SubscriptionID: 1, PayloadFormat: 1, ContentType: []byte("text"), ResponseTopic: []byte("r/1"),
				CorrelationData: []byte{0}, Properties: forwarded}},
			wire: []part{b("PUBLISH, QoS 1", 0x32), b("Remaining Length", 57), s("Topic Name", "t"),
				b("Packet Identifier", 0, 5), b("Property Length", 49),
				b("Message Expiry Interval", 2, 1, 2, 3, 4), b("Topic Alias", 0x23, 0, 2),
				b("Subscription Identifier", 0x0B, 1), b("Subscription Identifier", 0x0B, 0xFF, 0xFF, 0xFF, 0x7F),
				b("Subscription Identifier", 0x0B, 1), b("Payload Format Indicator", 1, 1),
				b("Content Type", 3, 0, 4, 't', 'e', 'x', 't'), b("Response Topic", 8, 0, 3, 'r', '/', '1'),
				b("Correlation Data", 9, 0, 1, 0), b("User Property", 0x26, 0, 1, 'k', 0, 1, '1'),
				b("User Property", 0x26, 0, 1, 'k', 0, 0), b("Payload", []byte("é")...)}},
		{name: "PUBLISH 5.0 properties in another order", version: V50, oneWay: true,
			want: published{Publish: Publish{Topic: []byte("t"), Payload: []byte{}, Alias: 1, HasExpiry: true, Expiry: 9,
				Properties: bytes.Join([][]byte{AppendUserProperty(nil, []byte("a"), []byte("b")), {1, 0},
					AppendUserProperty(nil, []byte("c"), []byte("d"))}, nil)}},
			wire: []part{b("PUBLISH", 0x30), b("Remaining Length", 28), s("Topic Name", "t"), b("Property Length", 24),
				b("User Property", 0x26, 0, 1, 'a', 0, 1, 'b'), b("Topic Alias", 0x23, 0, 1),
				b("Payload Format Indicator", 1, 0), b("Message Expiry Interval", 2, 0, 0, 0, 9),
				b("User Property", 0x26, 0, 1, 'c', 0, 1, 'd')}},
	}
}

// TestForwardable proves what Publish.Forwardable promises, on every row.
func TestForwardable(t *testing.T) {
	for _, r := range publishRows() {
		wire := r.bytes()
		h, _ := ParseHeader(wire)
		var p Publish
		if reason := p.DecodeFromServer(h.Flags, wire[h.Size:], r.version); reason != Success {
			t.Fatalf("%s: %v", r.name, reason)
		}
		same := bytes.Equal(AppendForwarded(nil, p.Properties), p.Properties)
		if same != p.Forwardable {
			t.Errorf("%s: Forwardable is %v", r.name, p.Forwardable)
		}
	}
}

// TestPacketIDOffset patches the Packet Identifier of an encoded PUBLISH, as a Server does for each receiver.
func TestPacketIDOffset(t *testing.T) {
	for _, v := range []Version{V31, V311, V50} {
		for _, size := range []int{0, 1, 127, 128, 16383, 16384, 1 << 21} {
			h := PublishHead{Flags: PublishFlags(false, 1, false), Topic: []byte("a/b"), PacketID: 1,
				Forwarded: AppendUserProperty(nil, []byte("k"), bytes.Repeat([]byte("v"), 140)), PayloadSize: size}
			head := AppendPublishHead(nil, &h, v)
			at := h.PacketIDOffset(v)
			head[at], head[at+1] = 0x12, 0x34
			wire := append(head, make([]byte, size)...)
			if got := PublishSize(&h, v); got != len(wire) {
				t.Fatalf("%v, %d: PublishSize %d of %d bytes", v, size, got, len(wire))
			}
			header, _ := ParseHeader(wire)
			var p Publish
			if reason := p.Decode(header.Flags, wire[header.Size:], v); reason != Success || p.PacketID != 0x1234 {
				t.Fatalf("%v, %d: %v, Packet Identifier %#x", v, size, reason, p.PacketID)
			}
		}
	}
	if at := (&PublishHead{Topic: []byte("t")}).PacketIDOffset(V50); at != 0 {
		t.Fatalf("QoS 0 has a Packet Identifier at %d", at)
	}
}

func TestUserProperties(t *testing.T) {
	section := []byte{2, 0, 0, 0, 9}
	section = AppendUserProperty(section, []byte("a"), []byte("1"))
	section = AppendContentType(section, []byte("x"))
	section = AppendUserProperty(section, []byte("b"), nil)
	users := UserProperties(section)
	for _, want := range [][2]string{{"a", "1"}, {"b", ""}} {
		name, value, ok := users.Next()
		if !ok || string(name) != want[0] || string(value) != want[1] {
			t.Fatalf("%q=%q %v, want %q", name, value, ok, want)
		}
	}
	if _, _, ok := users.Next(); ok {
		t.Fatal("a third User Property")
	}
}
