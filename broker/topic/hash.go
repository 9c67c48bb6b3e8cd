package topic

import (
	"encoding/binary"
	"math/bits"
)

// hasher is a multiply-and-fold hash in the manner of wyhash. Both words are secret: with a published constant in the
// place of key a peer could choose eight bytes that make the product 0 whatever the seed, and flood a table. It never
// changes once made.
type hasher struct {
	seed, key uint64
}

// hashTailBytes is how much the last step of a hash takes in.
const hashTailBytes = 16

// newHasher makes the words odd: as factors they lose nothing of what they multiply.
func newHasher(seed, key uint64) hasher {
	return hasher{seed: seed | 1, key: key | 1}
}

// hash covers all of b.
func (h hasher) hash(b []byte) uint64 {
	seed, n := h.seed, len(b)
	var first, last uint64
	switch {
	case n > hashTailBytes:
		for rest := b; len(rest) > hashTailBytes; rest = rest[hashTailBytes:] {
			seed = fold(binary.LittleEndian.Uint64(rest)^h.key, binary.LittleEndian.Uint64(rest[8:])^seed)
		}
		first, last = binary.LittleEndian.Uint64(b[n-16:]), binary.LittleEndian.Uint64(b[n-8:])
	case n >= 8:
		first, last = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[n-8:])
	case n >= 4:
		first, last = uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[n-4:]))
	case n > 0: // The first, the middle and the last byte are all there are.
		first, last = uint64(b[0])<<8|uint64(b[n/2]), uint64(b[n-1])
	}
	hi, lo := bits.Mul64(first^h.key, last^seed)
	return fold(hi^h.seed^uint64(n), lo^h.key)
}

// step extends the hash of a path by the level of b that begins at i, and returns where the level ends. It finds the
// separator in the words it hashes. The paths of no level and of one empty level differ.
func (h hasher) step(path uint64, b []byte, i int) (next uint64, end int) {
	for {
		w := wordAt(b, i)
		if m := zeroByte(w ^ slashes); m != 0 {
			size := bits.TrailingZeros64(m) &^ 7 // In bits.
			return fold(path^w&(1<<size-1), h.key), i + size/8
		}
		path = fold(path^w, h.seed) // Another factor than at the end, or eight bytes would be a level more.
		i += wordBytes
	}
}

// fold multiplies to 128 bits and adds the halves without carry.
func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}
