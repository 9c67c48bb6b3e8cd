package packet

import "testing"

// TestAllocations decodes and encodes every row, and refuses every refusal, without allocating.
func TestAllocations(t *testing.T) {
	dst := make([]byte, 0, 1024)
	for _, r := range rows() {
		wire := r.bytes()
		var c codec
		n := testing.AllocsPerRun(20, func() {
			h, _ := ParseHeader(wire)
			if CheckFlags(h.Kind, h.Flags, r.version) != Success ||
				c.decode(h.Kind, h.Flags, wire[h.Size:], r.version, r.server) != Success {
				t.Fatalf("%s: refused", r.name)
			}
			c.append(dst)
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", r.name, n)
		}
	}
	for _, r := range refusals() {
		body := (&row{wire: r.body}).bytes()
		var c codec
		if n := testing.AllocsPerRun(20, func() { c.decode(r.kind, r.flags, body, r.version, r.server) }); n != 0 {
			t.Errorf("%v %v, %s: %v allocations", r.kind, r.version, r.name, n)
		}
	}
	codes := []Reason{GrantedQoS0, NotAuthorized}
	n := testing.AllocsPerRun(20, func() {
		AppendAck(dst, PUBACK, 1, NotAuthorized, V50)
		AppendSuback(dst, 1, codes, V50)
		AppendUnsuback(dst, 1, codes, V50)
	})
	if n != 0 {
		t.Errorf("acknowledgements: %v allocations", n)
	}
}

// TestAllocationsOfLongNames has a peer send strings that do not fit the stack buffer of a conversion.
func TestAllocationsOfLongNames(t *testing.T) {
	body := append(appendString(nil, make([]byte, 4096)), 4, 0, 0, 0)
	for i := range body[2 : 2+4096] {
		body[2+i] = 'M'
	}
	n := testing.AllocsPerRun(20, func() {
		var p Connect
		if reason := p.Decode(body); reason != UnsupportedProtocolVersion {
			t.Fatal(reason)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
