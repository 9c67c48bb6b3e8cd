// Package record is the layout of what RingMQ keeps on disk: keys, values and the batches of changes that shards hand to a
// store. It does no I/O and knows no database: the engine writes records, broker/store reads and keeps them.
//
// # Keys
//
// The first byte is the kind of record; numbers are big-endian, so that keys sort by them.
//
//	B             the store itself: boot number and format
//	E sid         a Session that ended and whose records are still to be removed
//	F sid name    a subscription: name is the ShareName, a zero byte, the Topic Filter
//	I sid pid     a QoS 2 Packet Identifier that was received and is not released
//	N sid         up to which position deliveries were sent
//	M mid         an Application Message that several queue entries share
//	Q sid pos     a queue entry: one delivery, with its message or the mid of a shared one
//	R topic       a Retained Message
//	S sid         a Session
//	T             the time of the last commit, how many there were, how often it was damaged, and how often when a broker last began to serve
//	X mid sid pos says that queue entry (sid, pos) needs message mid
//
// # Numbers
//
// sid, mid and pos are made of a boot number and a count within that run of the broker, so that none is ever used twice: a
// record that is written late can never be taken for a newer thing's, and the first position of a new run is known without
// reading any queue. The Packet Identifier of a delivery follows from its position (PacketID): whoever has written
// the entry has written the binding of Packet Identifier and message.
package record

import "encoding/binary"

// Kind is the first byte of a key.
type Kind byte

// The kinds of records.
const (
	KindBoot         Kind = 'B'
	KindEnded        Kind = 'E'
	KindSubscription Kind = 'F'
	KindReceived     Kind = 'I'
	KindMessage      Kind = 'M'
	KindEntry        Kind = 'Q'
	KindRetained     Kind = 'R'
	KindSent         Kind = 'N'
	KindSession      Kind = 'S'
	KindTime         Kind = 'T'
	KindReference    Kind = 'X'
)

// positionsPerBoot is how far apart the first positions of two runs are: a multiple of the number of Packet Identifiers,
// so that each run begins with identifier 1, and more than one run can use.
const positionsPerBoot = PacketIDs << 24

// PacketIDs is how many Packet Identifiers there are [MQTT-2.2.1-3].
const PacketIDs = 65535

// FirstOf is the first number of a run of the broker, for sid, mid and pos.
func FirstOf(boot uint32) uint64 { return uint64(boot) * positionsPerBoot }

// BootOf is the last run of the broker that a key has a number of; 0 for none.
func BootOf(k []byte) (boot uint32) {
	numbers := 0
	if len(k) > 0 {
		switch Kind(k[0]) {
		case KindEnded, KindSubscription, KindReceived, KindSent, KindMessage, KindSession:
			numbers = 1
		case KindEntry:
			numbers = 2
		case KindReference:
			numbers = 3
		}
	}
	for i := 0; i < numbers && len(k) >= 9+8*i; i++ {
		boot = max(boot, uint32(Number(k, i)/positionsPerBoot))
	}
	return boot
}

// PacketID is the Packet Identifier of the delivery at a position.
func PacketID(pos uint64) uint16 { return uint16(pos%PacketIDs) + 1 }

func key(dst []byte, k Kind, numbers ...uint64) []byte {
	dst = append(dst, byte(k))
	for _, n := range numbers {
		dst = binary.BigEndian.AppendUint64(dst, n)
	}
	return dst
}

// SessionKey, EndedKey, EntryKey, MessageKey, ReferenceKey, ReceivedKey, SubscriptionKey and RetainedKey append a key.
func SessionKey(dst []byte, sid uint64) []byte { return key(dst, KindSession, sid) }

// EndedKey is described at SessionKey.
func EndedKey(dst []byte, sid uint64) []byte { return key(dst, KindEnded, sid) }

// EntryKey is described at SessionKey.
func EntryKey(dst []byte, sid, pos uint64) []byte { return key(dst, KindEntry, sid, pos) }

// MessageKey is described at SessionKey.
func MessageKey(dst []byte, mid uint64) []byte { return key(dst, KindMessage, mid) }

// ReferenceKey is described at SessionKey.
func ReferenceKey(dst []byte, mid, sid, pos uint64) []byte {
	return key(dst, KindReference, mid, sid, pos)
}

// SentKey is described at SessionKey.
func SentKey(dst []byte, sid uint64) []byte { return key(dst, KindSent, sid) }

// AppendNumber appends a value that is a number; see ReadNumber.
func AppendNumber(dst []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(dst, n) }

// ReadNumber reads what AppendNumber wrote; 0 when it is something else.
func ReadNumber(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// ReceivedKey is described at SessionKey.
func ReceivedKey(dst []byte, sid uint64, pid uint16) []byte {
	return binary.BigEndian.AppendUint16(key(dst, KindReceived, sid), pid)
}

// SubscriptionKey is described at SessionKey.
func SubscriptionKey(dst []byte, sid uint64, share, filter string) []byte {
	dst = append(key(dst, KindSubscription, sid), share...)
	return append(append(dst, 0), filter...)
}

// RetainedKey is described at SessionKey.
func RetainedKey[T string | []byte](dst []byte, topic T) []byte {
	return append(key(dst, KindRetained), topic...)
}

// Bounds are the first key of a kind (of one owner, when given) and the first key behind all of them.
func Bounds(k Kind, owner ...uint64) (from, to []byte) {
	from = key(nil, k, owner...)
	return from, after(from)
}

// after is the smallest key behind all that begin with prefix.
func after(prefix []byte) []byte {
	to := append([]byte(nil), prefix...)
	for i := len(to) - 1; i >= 0; i-- {
		if to[i]++; to[i] != 0 {
			return to[:i+1]
		}
	}
	return nil
}

// Number reads the i-th number of a key; 0 when the key is shorter.
func Number(key []byte, i int) uint64 {
	if at := 1 + 8*i; at+8 <= len(key) {
		return binary.BigEndian.Uint64(key[at:])
	}
	return 0
}

// Rest is what follows n numbers in a key.
func Rest(key []byte, n int) []byte { return key[min(len(key), 1+8*n):] }
