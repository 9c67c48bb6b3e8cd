// Package topic holds Topic Names, Topic Filters and the subscription index that every shard reads.
//
// It is not the broker's routing: it knows no Session, no QoS and no Shared Subscription group beyond the syntax of
// "$share/…". What a filter leads to is a comparable value V of the caller's.
//
// Vocabulary, as in MQTT 5.0 section 4.7: a Topic Name is what a PUBLISH carries, a Topic Filter what a SUBSCRIBE
// carries; both are divided into levels by '/'; an exact filter has no wildcard. Normative ids are those of MQTT 5.0.
//
// The package starts no goroutine. An Index has many readers, which take no lock, and writers that exclude each other
// with a mutex inside the Index.
package topic

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

const (
	// MaxLevels is the greatest number of levels that the broker takes in a Topic Name or a Topic Filter. Nothing
	// here refuses more; the engine compares it with Levels (a name of at most MaxLevels bytes needs no count). It
	// bounds the depth of the matcher's recursion, and what one filter with wildcards costs: a node of 64 bytes and
	// about two slots of 16 for each level, so some 12 KiB instead of the 3 MiB that "+/+/+/…" could ask for.
	MaxLevels = 128
	// lengthMaxBytes is what the two-byte length before a UTF-8 Encoded String can say.
	lengthMaxBytes = 65535
)

// Masks for looking at eight bytes as one word.
const (
	wordBytes = 8
	lowBits   = 0x0101010101010101
	highBits  = 0x8080808080808080
	slashes   = lowBits * '/'
	pluses    = lowBits * '+'
	// plusOrHash is the one bit in which '#' (0x23) and '+' (0x2b) differ: with it set, both read '+'.
	plusOrHash = lowBits * ('+' ^ '#')
)

// ValidName says whether b may be the Topic Name of a PUBLISH: 1 to 65,535 bytes of MQTT UTF-8 without wildcards. The
// empty name that a Topic Alias allows is the caller's case.
func ValidName(b []byte) bool {
	if len(b) == 0 || len(b) > lengthMaxBytes { // [MQTT-4.7.3-1] [MQTT-4.7.3-3]
		return false
	}
	rest := b
	for ; len(rest) >= wordBytes; rest = rest[wordBytes:] {
		w := binary.LittleEndian.Uint64(rest)
		if w&highBits != 0 {
			return validUnicodeName(rest)
		}
		if zeroByte(w)|zeroByte((w|plusOrHash)^pluses) != 0 { // [MQTT-4.7.0-1] [MQTT-4.7.3-2]
			return false
		}
	}
	for i, c := range rest {
		if c >= utf8.RuneSelf {
			return validUnicodeName(rest[i:])
		}
		if c == 0 || c == '+' || c == '#' {
			return false
		}
	}
	return true
}

// validUnicodeName is ValidName for what is left of a name from its first word with a byte outside ASCII. utf8.Valid
// refuses surrogates and overlong forms.
func validUnicodeName(b []byte) bool {
	return utf8.Valid(b) && // [MQTT-1.5.4-1]
		bytes.IndexByte(b, 0) < 0 && // [MQTT-1.5.4-2]
		bytes.IndexByte(b, '+') < 0 && bytes.IndexByte(b, '#') < 0 // [MQTT-4.7.0-1]
}

// Levels counts the levels of a Topic Name or Topic Filter: one more than its separators.
func Levels[T string | []byte](s T) int {
	n := 1
	for i := range len(s) {
		if s[i] == '/' {
			n++
		}
	}
	return n
}

// zeroByte is not 0 if and only if a byte of w is 0; its lowest set bit is the high bit of the first such byte. Bits
// above that may be wrong.
func zeroByte(w uint64) uint64 {
	return (w - lowBits) &^ w & highBits
}

// separators has the high bit of each byte of w that is a separator, and no other bit.
func separators(w uint64) uint64 {
	w ^= slashes
	return ^(w&^highBits + ^uint64(highBits) | w) & highBits
}

// wordAt returns the eight bytes of b from i on. Where b ends sooner, a separator follows and then zeros, so that a
// level ends within the word in any case. i is at most len(b).
func wordAt(b []byte, i int) uint64 {
	if i+wordBytes <= len(b) {
		return binary.LittleEndian.Uint64(b[i:])
	}
	return lastWord(b, len(b)-i)
}

// lastWord is wordAt for the last size bytes of b, fewer than eight. Apart, so that wordAt can be inlined.
//
//go:noinline
func lastWord(b []byte, size int) uint64 {
	if len(b) >= wordBytes {
		w := binary.LittleEndian.Uint64(b[len(b)-wordBytes:])
		return w>>(8*(wordBytes-size)) | '/'<<(8*size)
	}
	w := uint64('/')
	for i := len(b) - 1; i >= len(b)-size; i-- {
		w = w<<8 | uint64(b[i])
	}
	return w
}

// levelEnd returns where the level that begins at i ends: the index of the next separator, or len(b).
func levelEnd(b []byte, i int) int {
	for {
		if m := zeroByte(wordAt(b, i) ^ slashes); m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
		i += wordBytes
	}
}
