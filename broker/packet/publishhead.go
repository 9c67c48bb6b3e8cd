package packet

import "encoding/binary"

// PublishHead is what stands before the Payload of a PUBLISH that is to be sent.
type PublishHead struct {
	Flags    uint8 // the Fixed Header's: DUP, QoS and RETAIN
	Topic    []byte
	PacketID uint16 // written when the QoS in Flags is not 0

	// What follows is written in 5.0 only.
	Alias           uint16 // Topic Alias, 0 for none
	HasExpiry       bool
	Expiry          uint32 // Message Expiry Interval in seconds
	SubscriptionIDs []uint32
	Forwarded       []byte // properties copied as they are: from AppendForwarded, or built with AppendUserProperty and the like

	PayloadSize int // bytes of the Payload, which Remaining Length counts
}

// PublishFlags are the Fixed Header's flags of a PUBLISH.
func PublishFlags(dup bool, qos uint8, retain bool) uint8 {
	flags := qos << flagQoSShift
	if dup {
		flags |= flagDup
	}
	if retain {
		flags |= flagRetain
	}
	return flags
}

// sectionSize is the number of bytes of the properties, without the Property Length.
func (h *PublishHead) sectionSize() int {
	size := len(h.Forwarded)
	if h.HasExpiry {
		size += 5
	}
	if h.Alias != 0 {
		size += 3
	}
	for _, id := range h.SubscriptionIDs {
		size += 1 + VarintSize(int(id))
	}
	return size
}

// remaining is the Remaining Length, for a section of that many bytes.
func (h *PublishHead) remaining(section int, v Version) int {
	size := 2 + len(h.Topic) + h.PayloadSize
	if h.Flags&flagQoS != 0 {
		size += 2
	}
	if v == V50 {
		size += VarintSize(section) + section
	}
	return size
}

// PublishSize is the size in bytes of the whole packet, Payload included: what Maximum Packet Size limits.
func PublishSize(h *PublishHead, v Version) int {
	remaining := h.remaining(h.sectionSize(), v)
	return 1 + VarintSize(remaining) + remaining
}

// PacketIDOffset is where the two bytes of the Packet Identifier lie, counted from the first byte that
// AppendPublishHead writes, so that one encoded form can serve many receivers; 0 at QoS 0, which has none.
func (h *PublishHead) PacketIDOffset(v Version) int {
	if h.Flags&flagQoS == 0 {
		return 0
	}
	return 1 + VarintSize(h.remaining(h.sectionSize(), v)) + 2 + len(h.Topic)
}

// AppendPublishHead writes everything of a PUBLISH up to the Payload, which must follow.
func AppendPublishHead(dst []byte, h *PublishHead, v Version) []byte {
	section := 0
	if v == V50 {
		section = h.sectionSize()
	}
	dst = append(dst, byte(PUBLISH)<<4|h.Flags)
	dst = AppendVarint(dst, h.remaining(section, v))
	dst = appendString(dst, h.Topic)
	if h.Flags&flagQoS != 0 {
		dst = binary.BigEndian.AppendUint16(dst, h.PacketID) // [MQTT-2.2.1-2]
	}
	if v != V50 {
		return dst
	}
	dst = AppendVarint(dst, section)
	if section == 0 {
		return dst
	}
	if h.HasExpiry {
		dst = appendUint32Property(dst, idMessageExpiry, h.Expiry)
	}
	if h.Alias != 0 {
		dst = appendUint16Property(dst, idTopicAlias, h.Alias)
	}
	for _, id := range h.SubscriptionIDs {
		dst = AppendVarint(append(dst, idSubscriptionID), int(id))
	}
	return append(dst, h.Forwarded...)
}

// AppendPublish writes a whole PUBLISH; h.PayloadSize is not looked at.
func AppendPublish(dst []byte, h *PublishHead, payload []byte, v Version) []byte {
	whole := *h
	whole.PayloadSize = len(payload)
	return append(AppendPublishHead(dst, &whole, v), payload...)
}

// AppendForwarded copies what a Server passes on of the properties of a PUBLISH or a Will: all in their order, less
// Message Expiry Interval, Topic Alias, Subscription Identifiers and Will Delay Interval. properties is a raw section
// that was decoded.
func AppendForwarded(dst, properties []byte) []byte {
	return appendProperties(dst, properties, ^hopByHop) // [MQTT-3.3.2-18]
}
