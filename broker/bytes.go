package broker

import "encoding/binary"

// Integers inside blocks are little-endian; these names keep the arithmetic around them readable.

func le16(b []byte) uint16       { return binary.LittleEndian.Uint16(b) }
func le32(b []byte) uint32       { return binary.LittleEndian.Uint32(b) }
func putLE16(b []byte, v uint16) { binary.LittleEndian.PutUint16(b, v) }
func putLE32(b []byte, v uint32) { binary.LittleEndian.PutUint32(b, v) }
