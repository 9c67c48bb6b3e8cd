package relay

import (
	"bytes"
	"testing"
)

// TestAnswerer: every packet that wants an answer gets one, however it is cut, and nothing is passed on.
func TestAnswerer(t *testing.T) {
	said := bytes.Join([][]byte{
		{0x10, 14, 0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 0, 0, 0, 1, 'a'}, // CONNECT
		{0x82, 7, 0, 9, 0, 0, 1, 'a', 1},                               // SUBSCRIBE
		{0x30, 4, 0, 1, 'a', 0},                                        // PUBLISH, QoS 0
		{0x32, 6, 0, 1, 'a', 0, 7, 0},                                  // QoS 1
		{0x34, 6, 0, 1, 'a', 0, 8, 0},                                  // QoS 2
		{0x62, 2, 0, 8},                                                // PUBREL
		{0xc0, 0},                                                      // PINGREQ
	}, nil)
	want := bytes.Join([][]byte{{0x20, 3, 0, 0, 0}, {0x90, 4, 0, 9, 0, 1}, {0x40, 2, 0, 7}, {0x50, 2, 0, 8}, {0x70, 2, 0, 8}, {0xd0, 0}}, nil)
	for size := 1; size <= len(said); size++ {
		var a Answerer
		var got []byte
		for rest := said; len(rest) > 0; {
			n := min(size, len(rest))
			answers, ok := a.Take(rest[:n])
			if !ok {
				t.Fatalf("in pieces of %d: the connection ends with %d bytes to come", size, len(rest)-n)
			}
			got, rest = append(got, answers...), rest[n:]
		}
		if !bytes.Equal(got, want) {
			t.Errorf("in pieces of %d: % x, want % x", size, got, want)
		}
		if answers, ok := a.Take([]byte{0xe0, 0}); ok || len(answers) > 0 {
			t.Errorf("DISCONNECT is answered with % x, and the connection goes on: %v", answers, ok)
		}
	}
}
