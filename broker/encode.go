package broker

import (
	"math"

	"github.com/ringmq/ringmq/broker/packet"
)

// wholePayload is the payload size in bytes up to which an encoded form includes the payload, so that a receiver costs
// one copy.
const wholePayload = 1024

// template is the encoded form of a PUBLISH for one kind of receiver: made once, copied for each; only the Packet
// Identifier differs.
type template struct {
	id       uint32 // Subscription Identifier
	flags    uint8
	version5 bool
	whole    bool // the payload is included
	from, to int  // in publication.heads
	pidAt    int
	size     int // of the whole packet
}

// template finds or makes the encoded form for a version, PUBLISH flags and set of Subscription Identifiers.
func (s *Shard) template(p *publication, version5 bool, flags uint8, id uint32, more []uint32) *template {
	if !version5 {
		id, more = 0, nil
	}
	for i := range p.made {
		if t := &p.templates[i]; t.version5 == version5 && t.flags == flags && t.id == id && more == nil {
			return t
		}
	}
	// With more kinds than places, or several identifiers, the last place serves each receiver in turn.
	i := p.made
	if i == len(p.templates) {
		i--
	} else if more == nil {
		p.made++
	}
	p.heads = p.heads[:0]
	if i > 0 {
		p.heads = p.heads[:p.templates[i-1].to]
	}
	t := &p.templates[i]
	*t = template{id: id, flags: flags, version5: version5}
	if more != nil {
		t.id = ^uint32(0)
	}
	s.encode(p, t, 0, more)
	return t
}

// encodeRaw makes the encoded form from the packet as it came: a copy with other flags.
func (p *publication) encodeRaw(t *template) {
	t.from = len(p.heads)
	p.heads = append(p.heads, p.raw...)
	p.heads[t.from] = byte(packet.PUBLISH)<<4 | t.flags
	t.to, t.size, t.whole = len(p.heads), len(p.raw), true
	if p.qos > 0 {
		t.pidAt = p.rawPID
	}
}

// secondsLeft is a Message Expiry Interval of ms milliseconds. Each shard reads its clock once a turn: one that is a moment behind the
// publisher's must not give more than was set [MQTT-3.3.2-6], as rounding up would, and what has not run out has a second at least. A clock that was
// set back between two runs of the broker makes it longer than any.
func secondsLeft(ms int64) uint32 {
	if ms <= 0 {
		return 0
	}
	return uint32(min(math.MaxUint32, max(1, (ms+500)/1000)))
}

// encode fills a template in.
func (s *Shard) encode(p *publication, t *template, alias uint16, more []uint32) {
	if p.raw != nil && t.flags&flagQoS == p.qos<<1 && t.version5 == p.rawV5 && t.id|uint32(alias) == 0 && more == nil {
		p.encodeRaw(t)
		return
	}
	h := &s.head
	*h = packet.PublishHead{Flags: t.flags, Topic: p.topic, PacketID: 1, Alias: alias, Forwarded: p.props, PayloadSize: p.size}
	version := packet.V311
	if t.version5 {
		version = packet.V50
		if p.expires != 0 {
			h.HasExpiry, h.Expiry = true, secondsLeft(p.expires-s.now)
		}
		if more != nil {
			h.SubscriptionIDs = more
		} else if t.id != 0 {
			s.oneID[0] = t.id
			h.SubscriptionIDs = s.oneID[:]
		}
	}
	t.from = len(p.heads)
	p.heads = packet.AppendPublishHead(p.heads, h, version)
	t.pidAt = h.PacketIDOffset(version)
	t.size = len(p.heads) - t.from + p.size
	if p.payload != nil && p.size <= wholePayload {
		p.heads = append(p.heads, p.payload...)
		t.whole = true
	}
	t.to = len(p.heads)
}
