package record

import (
	"encoding/binary"
	"errors"
	"math"
)

// ErrDamaged is what decoding returns for a value that no version of the format could have written.
var ErrDamaged = errors.New("record is damaged")

// layout is the first byte of each value: which form the rest has.
const layout = 1

// maxSubscriptionID is the largest Subscription Identifier (section 3.8.2.1.2).
const maxSubscriptionID = 268_435_455

// Message is an Application Message. Its slices alias what was decoded.
type Message struct {
	Flags   uint8  // of the PUBLISH: QoS and RETAIN
	From    uint64 // hash of the publisher's Client Identifier
	Expires int64  // unix milliseconds; 0 never; below 0: a Will that expires -1-Expires seconds after it is published
	Topic   []byte
	Props   []byte
	Payload []byte
}

// AppendMessage appends a message whose payload comes in parts, size bytes in all.
func AppendMessage(dst []byte, m *Message, size int, parts ...[]byte) []byte {
	dst = append(dst, layout, m.Flags)
	dst = binary.BigEndian.AppendUint64(dst, m.From)
	dst = binary.AppendVarint(dst, m.Expires)
	dst = appendBytes(appendBytes(dst, m.Topic), m.Props)
	dst = binary.AppendUvarint(dst, uint64(size))
	for _, p := range parts {
		dst = append(dst, p...)
	}
	return dst
}

// messageFlags are the bits of Message.Flags.
const messageFlags = 0x07

// MessageOverhead is what a message takes beside its Topic Name, properties and payload, at most.
const MessageOverhead = 40

// Decode reads what AppendMessage wrote.
func (m *Message) Decode(b []byte) error {
	r := reader{rest: b}
	m.read(&r)
	return r.end()
}

func (m *Message) read(r *reader) {
	r.bad = r.byte() != layout || r.bad
	if m.Flags = r.byte(); m.Flags > messageFlags || m.Flags>>1 == 3 { // [MQTT-3.3.1-4]
		r.bad = true
	}
	if len(r.rest) < 8 {
		r.bad, r.rest = true, nil
		return
	}
	m.From = binary.BigEndian.Uint64(r.rest)
	r.rest = r.rest[8:]
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.bad, r.rest = true, nil
		return
	}
	m.Expires, r.rest = v, r.rest[n:]
	m.Topic, m.Props, m.Payload = r.bytes(), r.bytes(), r.bytes()
}

func (r *reader) end() error {
	if r.bad || len(r.rest) > 0 {
		return ErrDamaged
	}
	return nil
}

// Session is what a Session is beside its subscriptions and messages.
type Session struct {
	ClientID  string
	User      string
	Expiry    uint32 // Session Expiry Interval in seconds
	Offline   int64  // unix milliseconds at which its connection ended; 0 while it has one
	WillDelay uint32 // seconds
	Will      []byte // a Message that waits for the connection to end, or for its delay; empty for none
	// Doubt is the last loss of records, counted by the store, that makes no difference to it any more.
	Doubt uint32
}

// Append appends the Session's value.
func (s *Session) Append(dst []byte) []byte {
	dst = appendBytes(appendBytes(append(dst, layout), []byte(s.ClientID)), []byte(s.User))
	dst = binary.AppendUvarint(dst, uint64(s.Expiry))
	dst = binary.AppendUvarint(dst, uint64(s.Offline))
	dst = binary.AppendUvarint(dst, uint64(s.WillDelay))
	dst = appendBytes(dst, s.Will)
	if s.Doubt == 0 {
		return dst
	}
	return binary.AppendUvarint(dst, uint64(s.Doubt))
}

// Decode reads what Append wrote; Will aliases b.
func (s *Session) Decode(b []byte) error {
	r := reader{rest: b}
	r.bad = r.byte() != layout
	s.ClientID, s.User = string(r.bytes()), string(r.bytes())
	s.Expiry, s.Offline, s.WillDelay = uint32(r.atMost(math.MaxUint32)), int64(r.number()), uint32(r.atMost(math.MaxUint32))
	s.Will = r.bytes()
	s.Doubt = 0
	if len(r.rest) > 0 {
		s.Doubt = uint32(r.atMost(math.MaxUint32))
		r.bad = r.bad || s.Doubt == 0
	}
	return r.end()
}

// Subscription is one Topic Filter of a Session; ShareName and filter stand in the key.
type Subscription struct {
	ID      uint32
	QoS     uint8
	NoLocal bool
	AsIs    bool // Retain As Published
	// Retained says that Retained Messages are still to be delivered to it.
	Retained bool
}

// Append appends the subscription's value.
func (s *Subscription) Append(dst []byte) []byte {
	flags := s.QoS
	for i, on := range [...]bool{s.NoLocal, s.AsIs, s.Retained} {
		if on {
			flags |= 4 << i
		}
	}
	return binary.AppendUvarint(append(dst, layout, flags), uint64(s.ID))
}

// Decode reads what Append wrote.
func (s *Subscription) Decode(b []byte) error {
	r := reader{rest: b}
	r.bad = r.byte() != layout
	flags := r.byte()
	if flags >= 32 || flags&3 == 3 { // [MQTT-3.8.3-4]
		r.bad = true
	}
	s.QoS, s.NoLocal, s.AsIs, s.Retained = flags&3, flags&4 != 0, flags&8 != 0, flags&16 != 0
	s.ID = uint32(r.atMost(maxSubscriptionID))
	return r.end()
}

// The bits of Entry.Flags; the lowest two are the QoS of the delivery.
const (
	EntryQoS      = 0x03
	EntryRetain   = 0x04 // RETAIN of the PUBLISH
	EntryReleased = 0x08 // PUBREC came: there is no message any more
	EntrySent     = 0x20 // it was sent when this was written
	entryShared   = 0x10 // the message stands under Mid
)

// Entry is one delivery in a Session's queue.
type Entry struct {
	Flags   uint8
	PID     uint16   // 0: PacketID(pos)
	IDs     []uint32 // Subscription Identifiers
	Mid     uint64   // of a shared message; 0: Message is the message, unless released
	Share   string   // of the Shared Subscription it came through, with its Filter; empty for none
	Filter  string
	Message Message
}

// AppendHead appends all of the entry but a message of its own, which the caller appends behind it.
func (e *Entry) AppendHead(dst []byte) []byte {
	flags := e.Flags
	if e.Mid != 0 {
		flags |= entryShared
	}
	dst = append(dst, layout, flags)
	dst = binary.AppendUvarint(dst, uint64(e.PID))
	dst = appendBytes(dst, []byte(e.Share))
	if e.Share != "" {
		dst = appendBytes(dst, []byte(e.Filter))
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.IDs)))
	for _, id := range e.IDs {
		dst = binary.AppendUvarint(dst, uint64(id))
	}
	if e.Mid != 0 {
		dst = binary.AppendUvarint(dst, e.Mid)
	}
	return dst
}

// Waits says of an entry's value that it is to be sent for the first time, as far as the entry knows.
func Waits(value []byte) bool {
	return len(value) > 1 && value[0] == layout && value[1]&(EntrySent|EntryReleased) == 0
}

// EntryExpires is Expires of the message in an entry's value, without decoding the rest; 0 where there is none in it.
func EntryExpires(value []byte) int64 {
	r := reader{rest: value}
	r.bad = r.byte() != layout
	flags := r.byte()
	if r.number(); len(r.bytes()) > 0 {
		r.bytes()
	}
	for n := r.number(); n > 0 && !r.bad; n-- {
		r.number()
	}
	if r.bad || flags&(entryShared|EntryReleased) != 0 {
		return 0
	}
	return MessageExpires(r.rest)
}

// MessageExpires is Expires of a message's value, without decoding the rest; 0 of one that is damaged.
func MessageExpires(value []byte) int64 {
	const at = 2 + 8 // layout, Flags and From
	if len(value) < at || value[0] != layout {
		return 0
	}
	expires, _ := binary.Varint(value[at:])
	return expires
}

// Decode reads an entry; its message aliases b.
func (e *Entry) Decode(b []byte) error {
	r := reader{rest: b}
	r.bad = r.byte() != layout
	flags := r.byte()
	if flags >= 2*EntrySent || flags&EntryQoS == 3 {
		r.bad = true
	}
	*e = Entry{Flags: flags &^ entryShared, PID: uint16(r.atMost(PacketIDs)), Share: string(r.bytes())}
	if e.Share != "" {
		e.Filter = string(r.bytes())
	}
	n := r.number()
	if n > uint64(len(r.rest)) {
		return ErrDamaged
	}
	for range n {
		e.IDs = append(e.IDs, uint32(r.atMost(maxSubscriptionID)))
	}
	switch {
	case flags&entryShared != 0:
		if e.Mid = r.number(); e.Mid == 0 {
			r.bad = true
		}
	case flags&EntryReleased == 0:
		e.Message.read(&r)
	}
	return r.end()
}
