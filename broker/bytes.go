package broker

import "encoding/binary"

// Integers inside blocks are little-endian; these names keep the arithmetic around them readable.

func le16(b []byte) uint16       { return binary.LittleEndian.Uint16(b) }
func le32(b []byte) uint32       { return binary.LittleEndian.Uint32(b) }
func putLE16(b []byte, v uint16) { binary.LittleEndian.PutUint16(b, v) }
func putLE32(b []byte, v uint32) { binary.LittleEndian.PutUint32(b, v) }

// fnv is the 64-bit FNV-1a hash: the same in every run, so that a simulation repeats itself.
func fnv[T string | []byte](b T) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(b) {
		h = (h ^ uint64(b[i])) * 1099511628211
	}
	return h
}

// draw is the next number of a shard's own sequence (Knuth, MMIX).
func (s *Shard) draw() uint64 {
	s.random = s.random*6364136223846793005 + 1442695040888963407
	return s.random >> 32
}
