package packet

import (
	"bytes"
	"reflect"
	"slices"
	"testing"
)

// part is a labelled run of bytes; the label is what a failing test names.
type part struct {
	label string
	bytes []byte
}

// b labels bytes, s labels a string with its two bytes of length.
func b(label string, bytes ...byte) part { return part{label, bytes} }
func s(label, text string) part          { return part{label, appendString(nil, []byte(text))} }

// row is one whole packet on the wire and what it means.
type row struct {
	name    string
	version Version
	server  bool // a Server sent it
	wire    []part
	want    any  // what codec.plain gives
	oneWay  bool // encoding what was decoded gives other, equivalent bytes
}

func (r *row) bytes() []byte {
	var out []byte
	for _, p := range r.wire {
		out = append(out, p.bytes...)
	}
	return out
}

// label names the byte at an offset.
func (r *row) label(at int) string {
	for _, p := range r.wire {
		if at -= len(p.bytes); at < 0 {
			return p.label
		}
	}
	return "behind the packet"
}

// rows are all the tables.
func rows() []row {
	return slices.Concat(connectRows(), connackRows(), publishRows(), ackRows(), subscribeRows(), unsubscribeRows(),
		endRows())
}

func TestRows(t *testing.T) {
	for _, r := range rows() {
		t.Run(r.name, func(t *testing.T) {
			wire := r.bytes()
			h, reason := ParseHeader(wire)
			if reason != Success || h.Size == 0 {
				t.Fatalf("ParseHeader: %+v, %v", h, reason)
			}
			if h.Size+h.Remaining != len(wire) {
				t.Fatalf("the header says %d + %d bytes of %d", h.Size, h.Remaining, len(wire))
			}
			if reason := CheckFlags(h.Kind, h.Flags, r.version); reason != Success {
				t.Fatalf("CheckFlags: %v", reason)
			}
			var c codec
			if reason := c.decode(h.Kind, h.Flags, wire[h.Size:], r.version, r.server); reason != Success {
				t.Fatalf("Decode: %v", reason)
			}
			got := c.plain()
			if !reflect.DeepEqual(got, r.want) {
				t.Fatalf("decoded\n%+v\nwant\n%+v", got, r.want)
			}
			encoded := c.append(nil)
			if r.oneWay {
				c.roundTrip(t, encoded)
				return
			}
			if at := firstDifference(encoded, wire); at >= 0 {
				t.Fatalf("encoded\n%x\nwant\n%x\nbyte %d (%s)", encoded, wire, at, r.label(at))
			}
		})
	}
}

func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// TestTruncation cuts every row behind every byte. What is cut must fail, unless what is left is a packet too.
func TestTruncation(t *testing.T) {
	for _, r := range rows() {
		wire := r.bytes()
		h, _ := ParseHeader(wire)
		for n := range h.Size {
			if cut, reason := ParseHeader(wire[:n]); reason != Success || cut.Size != 0 {
				t.Errorf("%s: header cut at %d: %+v, %v", r.name, n, cut, reason)
			}
		}
		body := wire[h.Size:]
		for n := range len(body) {
			var c codec
			reason := c.decode(h.Kind, h.Flags, slices.Clip(slices.Clone(body[:n])), r.version, r.server)
			if reason == Success && !mayEnd(&r, h.Kind, body, n) {
				t.Errorf("%s: cut at byte %d (%s) it decodes as %+v", r.name, n, r.label(h.Size+n), c.plain())
			}
			if reason == Success {
				c.roundTrip(t, c.append(nil))
			}
		}
	}
}

// mayEnd tells whether the first n bytes of a row's body are a packet of their own.
func mayEnd(r *row, kind Kind, body []byte, n int) bool {
	switch want := r.want.(type) {
	case published:
		return n >= len(body)-len(want.Payload)
	case acknowledged:
		return r.version == V50 && (n == 2 || n == 3)
	case Disconnect:
		return n <= 1
	case Auth:
		return r.server && n == 0
	case Suback:
		return n > len(body)-len(want.Codes)
	case Unsuback:
		return n > len(body)-len(want.Codes)
	case subscribed:
		end := len(body)
		for i := len(want.Filters) - 1; i > 0; i-- {
			end -= 3 + len(want.Filters[i].Filter)
			if n == end {
				return true
			}
		}
	case unsubscribed:
		end := len(body)
		for i := len(want.Filters) - 1; i > 0; i-- {
			end -= 2 + len(want.Filters[i])
			if n == end {
				return true
			}
		}
	case Connect:
		end := len(body)
		if want.HasPassword {
			end -= 2 + len(want.Password)
		}
		return r.version == V31 && want.HasUser && (n == end || n == end-2-len(want.User))
	}
	return false
}
