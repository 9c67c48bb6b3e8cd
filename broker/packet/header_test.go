package packet

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestParseHeader(t *testing.T) {
	for _, c := range []struct {
		wire string
		want Header
		err  Reason
	}{
		{"", Header{}, Success},
		{"30", Header{}, Success},
		{"3080", Header{}, Success},
		{"30ffffff", Header{}, Success},
		{"3000", Header{PUBLISH, 0, 0, 2}, Success},
		{"3d7f", Header{PUBLISH, 0xD, 127, 2}, Success},
		{"308001", Header{PUBLISH, 0, 128, 3}, Success},
		{"30ff7f", Header{PUBLISH, 0, 16383, 3}, Success},
		{"30808001", Header{PUBLISH, 0, 16384, 4}, Success},
		{"30ffff7f", Header{PUBLISH, 0, 2097151, 4}, Success},
		{"3080808001", Header{PUBLISH, 0, 2097152, 5}, Success},
		{"30ffffff7f00", Header{PUBLISH, 0, MaxRemaining, 5}, Success},
		{"c000", Header{PINGREQ, 0, 0, 2}, Success},
		{"f0820100", Header{AUTH, 0, 130, 3}, Success},
		{"00", Header{}, MalformedPacket},
		{"0000", Header{}, MalformedPacket},
		{"0ac0", Header{}, MalformedPacket},
		{"c001", Header{}, MalformedPacket},
		{"d001", Header{}, MalformedPacket},
		{"308000", Header{}, MalformedPacket},       // [MQTT-1.5.5-1]
		{"30ffff00", Header{}, MalformedPacket},     // [MQTT-1.5.5-1]
		{"30ffffff00", Header{}, MalformedPacket},   // [MQTT-1.5.5-1]
		{"30ffffff80", Header{}, MalformedPacket},   // A fourth byte that asks for a fifth.
		{"30ffffffff01", Header{}, MalformedPacket}, // Five bytes.
	} {
		wire, _ := hex.DecodeString(c.wire)
		if got, err := ParseHeader(wire); got != c.want || err != c.err {
			t.Errorf("%s: %+v %v, want %+v %v", c.wire, got, err, c.want, c.err)
		}
	}
}

func TestVarint(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, 16383, 16384, 2097151, 2097152, MaxRemaining} {
		wire := AppendVarint(nil, n)
		if len(wire) != VarintSize(n) {
			t.Errorf("%d: %d bytes, VarintSize says %d", n, len(wire), VarintSize(n))
		}
		if value, size := varint(append(wire, 0xFF)); value != n || size != len(wire) {
			t.Errorf("%d: read as %d in %d bytes", n, value, size)
		}
		behind := bytes.Repeat([]byte{7}, min(n, 1<<15))
		dst, at := openLength([]byte("x"))
		if closed := closeLength(append(dst, behind...), at); n == len(behind) &&
			!bytes.Equal(closed, append(AppendVarint([]byte("x"), n), behind...)) {
			t.Errorf("%d: closeLength wrote %x", n, closed[:min(9, len(closed))])
		}
	}
}

// TestCheckFlags goes through every first byte in every version. [MQTT-2.1.3-1]
func TestCheckFlags(t *testing.T) {
	for _, v := range []Version{V31, V311, V50} {
		for first := 0x10; first <= 0xFF; first++ {
			kind, flags := Kind(first>>4), uint8(first&0xF)
			good := flags == 0
			switch kind {
			case PUBLISH:
				good = true
			case PUBREL, SUBSCRIBE, UNSUBSCRIBE:
				good = flags == 2 || v == V31 && flags == 0xA
			case CONNECT:
				good = flags == 0 || v == V31
			case AUTH:
				good = flags == 0 && v == V50
			}
			if got := CheckFlags(kind, flags, v); (got == Success) != good || !good && got != MalformedPacket {
				t.Errorf("%v %#x in %v: %v", kind, flags, v, got)
			}
		}
	}
}

func TestReasonNames(t *testing.T) {
	named := 0
	for r := range 256 {
		if name := Reason(r).Error(); name != "Reserved" {
			named++
			if code := Reason(r).ConnackV3(); (code == 0) != (r == 0) || code > 5 {
				t.Errorf("%s: return code %d", name, code)
			}
		}
	}
	if want := 8 + 35; named != want { // Table 2-6 has 45 rows, three of them for 0x00.
		t.Errorf("%d Reason Codes have names, want %d", named, want)
	}
	for code := range uint8(6) {
		if got := reasonFromV3(code).ConnackV3(); got != code {
			t.Errorf("return code %d comes back as %d", code, got)
		}
	}
}

// TestConformance runs the malformed packets that other projects test with, where they are at hand.
func TestConformance(t *testing.T) {
	const folder = "../../../shared/conformance"
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		t.Skipf("the cases are not part of the repository: %v", err)
	}
	data, err := os.ReadFile(filepath.Join(folder, "mqtt-packet.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name string
		Hex  string
		Opts struct{ ProtocolVersion *Version }
	}
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	// These the standard allows.
	differs := map[string]string{
		"102000064d514973647003f6001e0005746f70696300077061796c6f616400020000": "MQTT 3.1, section 3.1: the User Name and " +
			"Password flags may be set with both strings missing; the Remaining Length takes precedence",
	}
	for _, c := range cases {
		wire, err := hex.DecodeString(c.Hex)
		if err != nil {
			t.Fatal(err)
		}
		v := V311
		if c.Opts.ProtocolVersion != nil {
			v = *c.Opts.ProtocolVersion
		}
		refused := refuses(wire, v)
		if why := differs[c.Hex]; refused == (why != "") {
			t.Errorf("%s (%s, %v): refused is %v %s", c.Name, c.Hex, v, refused, why)
		}
	}
}

// refuses tells whether a packet that is all there, or all that there will be, is refused.
func refuses(wire []byte, v Version) bool {
	h, reason := ParseHeader(wire)
	if reason != Success || h.Size == 0 || CheckFlags(h.Kind, h.Flags, v) != Success {
		return true
	}
	body := wire[h.Size:]
	body = body[:min(len(body), h.Remaining)]
	server := h.Kind == CONNACK || h.Kind == SUBACK || h.Kind == UNSUBACK || h.Kind == PINGRESP
	var c codec
	return c.decode(h.Kind, h.Flags, body, v, server) != Success
}
