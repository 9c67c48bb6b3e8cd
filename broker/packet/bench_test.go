package packet

import (
	"strings"
	"testing"
)

// benchPublish is a PUBLISH with a 64-byte payload, without its Fixed Header.
func benchPublish(v Version, qos uint8, forwarded []byte) []byte {
	h := PublishHead{Flags: PublishFlags(false, qos, false), Topic: []byte("plant/7/line/3/temp"), PacketID: 9,
		Forwarded: forwarded}
	wire := AppendPublish(nil, &h, []byte(strings.Repeat("x", 64)), v)
	header, _ := ParseHeader(wire)
	return wire[header.Size:]
}

func BenchmarkPublishDecode(b *testing.B) {
	for _, c := range []struct {
		name string
		v    Version
		qos  uint8
		user []byte
	}{
		{"3.1.1/QoS0", V311, 0, nil},
		{"3.1.1/QoS1", V311, 1, nil},
		{"5.0/QoS0", V50, 0, nil},
		{"5.0/QoS1", V50, 1, nil},
		{"5.0/QoS1/UserProperty", V50, 1, AppendUserProperty(nil, []byte("trace"), []byte("0123456789abcdef"))},
	} {
		body, flags := benchPublish(c.v, c.qos, c.user), PublishFlags(false, c.qos, false)
		b.Run(c.name, func(b *testing.B) {
			var p Publish
			for b.Loop() {
				if p.Decode(flags, body, c.v) != Success {
					b.Fatal("refused")
				}
			}
		})
	}
}

func BenchmarkParseHeader(b *testing.B) {
	for _, c := range []struct {
		name string
		wire []byte
	}{{"1byte", []byte{0x30, 70}}, {"3bytes", []byte{0x30, 0xFF, 0xFF, 0x7F}}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if h, reason := ParseHeader(c.wire); reason != Success || h.Size == 0 {
					b.Fatal(h)
				}
			}
		})
	}
}

func BenchmarkAppendPublishHead(b *testing.B) {
	dst := make([]byte, 0, 256)
	for _, c := range []struct {
		name string
		v    Version
		h    PublishHead
	}{
		{"3.1.1/QoS0", V311, PublishHead{}},
		{"5.0/QoS1", V50, PublishHead{Flags: 0b0010}},
		{"5.0/QoS1/properties", V50, PublishHead{Flags: 0b0010, HasExpiry: true, SubscriptionIDs: []uint32{7},
			Forwarded: AppendUserProperty(nil, []byte("k"), []byte("v"))}},
	} {
		c.h.Topic, c.h.PayloadSize, c.h.PacketID = []byte("plant/7/line/3/temp"), 64, 9
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if len(AppendPublishHead(dst, &c.h, c.v)) == 0 {
					b.Fatal("empty")
				}
			}
		})
	}
}

func BenchmarkAck(b *testing.B) {
	dst := make([]byte, 0, 16)
	body := []byte{0, 7}
	b.Run("Decode", func(b *testing.B) {
		var p Ack
		for b.Loop() {
			if p.Decode(PUBACK, body, V50) != Success {
				b.Fatal("refused")
			}
		}
	})
	b.Run("Append", func(b *testing.B) {
		for b.Loop() {
			if len(AppendAck(dst, PUBACK, 7, Success, V50)) != 4 {
				b.Fatal("size")
			}
		}
	})
}

// BenchmarkPackets decodes and encodes one packet of every kind.
func BenchmarkPackets(b *testing.B) {
	for _, r := range rows() {
		if !strings.HasSuffix(r.name, " all") {
			continue
		}
		wire := r.bytes()
		h, _ := ParseHeader(wire)
		var c codec
		dst := make([]byte, 0, 1024)
		b.Run("Decode/"+h.Kind.String(), func(b *testing.B) {
			for b.Loop() {
				if c.decode(h.Kind, h.Flags, wire[h.Size:], r.version, r.server) != Success {
					b.Fatal("refused")
				}
			}
		})
		b.Run("Append/"+h.Kind.String(), func(b *testing.B) {
			for b.Loop() {
				if len(c.append(dst)) != len(wire) {
					b.Fatal("size")
				}
			}
		})
	}
}
