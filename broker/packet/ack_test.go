package packet

import (
	"bytes"
	"testing"
)

func ackRows() []row {
	users := AppendUserProperty(nil, []byte("a"), []byte("b"))
	return []row{
		{name: "PUBACK 3.1.1", version: V311, want: acknowledged{PUBACK, Ack{PacketID: 7}},
			wire: []part{b("PUBACK", 0x40), b("Remaining Length", 2), b("Packet Identifier", 0, 7)}},
		{name: "PUBREL 3.1", version: V31, want: acknowledged{PUBREL, Ack{PacketID: 7}},
			wire: []part{b("PUBREL", 0x62), b("Remaining Length", 2), b("Packet Identifier", 0, 7)}},
		{name: "PUBREL 3.1 DUP", version: V31, want: acknowledged{PUBREL, Ack{PacketID: 7}}, oneWay: true,
			wire: []part{b("PUBREL, DUP", 0x6A), b("Remaining Length", 2), b("Packet Identifier", 0, 7)}},
		{name: "PUBREC 5.0 short", version: V50, want: acknowledged{PUBREC, Ack{PacketID: 0x100}},
			wire: []part{b("PUBREC", 0x50), b("Remaining Length", 2), b("Packet Identifier", 1, 0)}},
		{name: "PUBCOMP 5.0 Reason Code", version: V50,
			want: acknowledged{PUBCOMP, Ack{PacketID: 3, Reason: PacketIdentifierNotFound}},
			wire: []part{b("PUBCOMP", 0x70), b("Remaining Length", 3), b("Packet Identifier", 0, 3), b("Reason Code", 0x92)}},
		{name: "PUBACK 5.0 empty Property Length", version: V50, oneWay: true,
			want: acknowledged{PUBACK, Ack{PacketID: 3, Reason: NoMatchingSubscribers}},
			wire: []part{b("PUBACK", 0x40), b("Remaining Length", 4), b("Packet Identifier", 0, 3), b("Reason Code", 0x10),
				b("Property Length", 0)}},
		{name: "PUBREC 5.0 all", version: V50, want: acknowledged{PUBREC, Ack{
			PacketID: 3, Reason: QuotaExceeded, ReasonString: []byte("full"), UserProperties: users}},
			wire: []part{b("PUBREC", 0x50), b("Remaining Length", 18), b("Packet Identifier", 0, 3), b("Reason Code", 0x97),
				b("Property Length", 14), b("Reason String", 0x1F, 0, 4, 'f', 'u', 'l', 'l'),
				b("User Property", 0x26, 0, 1, 'a', 0, 1, 'b')}},
	}
}

func TestAppendAck(t *testing.T) {
	for _, c := range []struct {
		kind   Kind
		reason Reason
		v      Version
		want   []byte
	}{
		{PUBACK, Success, V50, []byte{0x40, 2, 1, 2}},
		{PUBREC, NotAuthorized, V311, []byte{0x50, 2, 1, 2}},
		{PUBREL, PacketIdentifierNotFound, V50, []byte{0x62, 3, 1, 2, 0x92}},
		{PUBCOMP, Success, V31, []byte{0x70, 2, 1, 2}},
	} {
		if got := AppendAck(nil, c.kind, 0x0102, c.reason, c.v); !bytes.Equal(got, c.want) {
			t.Errorf("%v %v: %x, want %x", c.kind, c.v, got, c.want)
		}
	}
}

// TestLongProperties has sections and packets whose lengths take two and three bytes.
func TestLongProperties(t *testing.T) {
	for _, size := range []int{90, 119, 120, 121, 122, 123, 124, 125, 127, 128, 16377, 16384, 65535} {
		p := Ack{PacketID: 9, Reason: UnspecifiedError, ReasonString: bytes.Repeat([]byte("r"), size)}
		wire := AppendAckFull([]byte("before"), PUBACK, &p, V50)[len("before"):]
		h, reason := ParseHeader(wire)
		if reason != Success || h.Size+h.Remaining != len(wire) {
			t.Fatalf("%d: %+v, %v", size, h, reason)
		}
		var got Ack
		if reason := got.Decode(PUBACK, wire[h.Size:], V50); reason != Success || len(got.ReasonString) != size {
			t.Fatalf("%d: %v, Reason String of %d bytes", size, reason, len(got.ReasonString))
		}
	}
}
