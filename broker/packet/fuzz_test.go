package packet

import (
	"bytes"
	"slices"
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

// FuzzSection gives the iterators bytes that no decoder has judged: they must end, and never panic. Of whole properties they must find what a naive
// reader finds.
func FuzzSection(f *testing.F) {
	for _, r := range publishRows() {
		f.Add(r.bytes())
	}
	for _, r := range rows() {
		var c codec
		if h, _ := ParseHeader(r.bytes()); h.Kind == PUBLISH && c.decode(PUBLISH, h.Flags, r.bytes()[h.Size:], r.version, true) == Success {
			f.Add(c.publish.Properties)
		}
	}
	f.Fuzz(func(t *testing.T, section []byte) {
		users, ids := iterated(section)
		forwarded := AppendForwarded(nil, section)
		if len(forwarded) > len(section) {
			t.Fatalf("%x grew to %x", section, forwarded)
		}
		wantUsers, wantIDs, wantForwarded, whole := naiveSection(section)
		if whole && !(bytes.Equal(users, wantUsers) && bytes.Equal(ids, wantIDs) && bytes.Equal(forwarded, wantForwarded)) {
			t.Fatalf("%x: User Properties %x, Subscription Identifiers %x, forwarded %x; want %x, %x, %x", section, users, ids, forwarded, wantUsers, wantIDs, wantForwarded)
		}
	})
}

// iterated are what the iterators find, as sections.
func iterated(section []byte) (users, ids []byte) {
	for u := UserProperties(section); ; {
		name, value, ok := u.Next()
		if !ok {
			break
		}
		users = AppendUserProperty(users, name, value)
	}
	for s := SubscriptionIDs(section); ; {
		id, ok := s.Next()
		if !ok {
			return users, ids
		}
		ids = AppendVarint(append(ids, 0x0B), int(id))
	}
}

// naiveSection is what is in a section of whole properties.
func naiveSection(section []byte) (users, ids, forwarded []byte, whole bool) {
	for rest := section; len(rest) > 0; {
		n := naivePropertySize(rest)
		if n == 0 {
			return nil, nil, nil, false
		}
		property := rest[:n]
		rest = rest[n:]
		switch property[0] {
		case 0x26:
			users = append(users, property...)
		case 0x0B:
			ids = append(ids, property...)
		}
		if !slices.Contains([]byte{0x02, 0x0B, 0x18, 0x23}, property[0]) {
			forwarded = append(forwarded, property...)
		}
	}
	return users, ids, forwarded, true
}

// naivePropertySize is how many bytes the first property takes, by table 2-4 of 5.0; 0 for one that is none, is cut short, or has a number longer than
// need be.
func naivePropertySize(b []byte) int {
	size := map[byte]int{0x01: 2, 0x17: 2, 0x19: 2, 0x24: 2, 0x25: 2, 0x28: 2, 0x29: 2, 0x2A: 2, 0x13: 3, 0x21: 3, 0x22: 3, 0x23: 3, 0x02: 5, 0x11: 5, 0x18: 5, 0x27: 5}[b[0]]
	strings := map[byte]int{0x03: 1, 0x08: 1, 0x09: 1, 0x12: 1, 0x15: 1, 0x16: 1, 0x1A: 1, 0x1C: 1, 0x1F: 1, 0x26: 2}[b[0]]
	if strings > 0 {
		size = 1
	}
	for ; strings > 0 && len(b) >= size+2; strings-- {
		size += 2 + int(b[size])<<8 + int(b[size+1])
	}
	if b[0] == 0x0B {
		for size = 2; size <= len(b) && b[size-1] >= 0x80; size++ {
		}
		if size > 5 || size > 2 && size <= len(b) && b[size-1] == 0 {
			return 0
		}
	}
	if strings > 0 || size > len(b) {
		return 0
	}
	return size
}
