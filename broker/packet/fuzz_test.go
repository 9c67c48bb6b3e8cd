package packet

import (
	"bytes"
	"testing"
)

// fuzz seeds a target from the rows of these kinds, and checks that what decodes is encoded and decoded to the same.
func fuzz(f *testing.F, kinds ...Kind) {
	for _, r := range rows() {
		wire := r.bytes()
		if h, _ := ParseHeader(wire); bytes.IndexByte(kindBytes(kinds), byte(h.Kind)) >= 0 {
			f.Add(wire[0], wire[h.Size:], byte(r.version), r.server)
		}
	}
	f.Fuzz(func(t *testing.T, first byte, body []byte, version byte, server bool) {
		kind := kinds[int(first>>4)%len(kinds)]
		if bytes.IndexByte(kindBytes(kinds), first>>4) >= 0 {
			kind = Kind(first >> 4)
		}
		v := V31 + Version(version)%3
		if kind == AUTH {
			v = V50
		}
		var c codec
		if c.decode(kind, first&0xF, body, v, server) != Success {
			return
		}
		if kind == CONNECT {
			c.version = c.connect.Version
		}
		c.roundTrip(t, c.append(nil))
	})
}

func kindBytes(kinds []Kind) []byte {
	out := make([]byte, len(kinds))
	for i, k := range kinds {
		out[i] = byte(k)
	}
	return out
}

func FuzzConnect(f *testing.F)     { fuzz(f, CONNECT) }
func FuzzConnack(f *testing.F)     { fuzz(f, CONNACK) }
func FuzzPublish(f *testing.F)     { fuzz(f, PUBLISH) }
func FuzzAck(f *testing.F)         { fuzz(f, PUBACK, PUBREC, PUBREL, PUBCOMP) }
func FuzzSubscribe(f *testing.F)   { fuzz(f, SUBSCRIBE) }
func FuzzSuback(f *testing.F)      { fuzz(f, SUBACK) }
func FuzzUnsubscribe(f *testing.F) { fuzz(f, UNSUBSCRIBE) }
func FuzzUnsuback(f *testing.F)    { fuzz(f, UNSUBACK) }
func FuzzDisconnect(f *testing.F)  { fuzz(f, DISCONNECT) }
func FuzzAuth(f *testing.F)        { fuzz(f, AUTH) }

// FuzzHeader wants that what parses is written the same.
func FuzzHeader(f *testing.F) {
	for _, r := range rows() {
		f.Add(r.bytes())
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		h, reason := ParseHeader(wire)
		if reason != Success || h.Size == 0 {
			return
		}
		again := AppendVarint([]byte{byte(h.Kind)<<4 | h.Flags}, h.Remaining)
		if !bytes.Equal(again, wire[:h.Size]) {
			t.Fatalf("%x: %+v, written %x", wire, h, again)
		}
	})
}

// FuzzSection gives the iterators bytes that no decoder has judged: they must end, and never panic.
func FuzzSection(f *testing.F) {
	for _, r := range publishRows() {
		f.Add(r.bytes())
	}
	f.Fuzz(func(t *testing.T, section []byte) {
		for users := UserProperties(section); ; {
			if _, _, ok := users.Next(); !ok {
				break
			}
		}
		for ids := SubscriptionIDs(section); ; {
			if _, ok := ids.Next(); !ok {
				break
			}
		}
		if forwarded := AppendForwarded(nil, section); len(forwarded) > len(section) {
			t.Fatalf("%x grew to %x", section, forwarded)
		}
	})
}
