package load

import (
	"encoding/binary"
	"fmt"
)

// take handles the packets that publishers and subscribers are sent. It is the hot path, and inlines the short
// form of packetAt.
func (t *traffic) take(c *conn, b []byte) (int, error) {
	at := 0
	for len(b)-at >= 2 {
		header, size := 2, 2+int(b[at+1])
		if b[at+1] >= 0x80 {
			var err error
			if header, size, err = packetAt(b[at:]); err != nil {
				return at, err
			}
			if size == 0 {
				break
			}
		}
		if size > len(b)-at {
			break
		}
		packet := b[at : at+size]
		at += size
		if packet[0]>>4 == kindPublish {
			t.received(c, packet[0], packet[header:])
		} else if err := t.control(c, packet[0], packet[header:]); err != nil {
			return at, err
		}
	}
	return at, nil
}

// received takes one PUBLISH.
func (t *traffic) received(c *conn, first byte, body []byte) {
	p, ok := parsePublish(first, body, t.cfg.Version)
	if p.qos != 0 && ok {
		reply := byte(kindPuback << 4)
		if p.qos == 2 {
			reply = kindPubrec << 4
		}
		c.out = append(c.out, reply, 2, p.packetID[0], p.packetID[1])
		t.mark(c)
	}
	if !ok || len(p.payload) != t.cfg.PayloadBytes || c.role != roleSubscriber {
		t.result.Corrupt++
		return
	}
	s := parseStamp(p.payload)
	number := c.number
	if t.fan == 1 {
		number = int(s.publisher)
	}
	if !t.known(c, s) {
		t.result.Corrupt++
		return
	}
	t.arrived(&t.flows[number], &t.publishers[s.publisher], s)
}

// known says whether c may be sent a message with that stamp.
func (t *traffic) known(c *conn, s stamp) bool {
	return int(s.publisher) < len(t.publishers) && s.sequence < t.publishers[s.publisher].sent &&
		(t.cfg.Scenario != Pairs || int(s.publisher) == c.number)
}

// arrived counts a message and opens its publisher's window.
func (t *traffic) arrived(f *flow, p *publisher, s stamp) {
	t.delivered++
	before := f.next
	if s.sequence == before {
		f.next = before + 1
	} else {
		f.outOfOrder(s.sequence)
	}
	t.meter.arrived(s.time, t.now)
	if t.cfg.Rate > 0 {
		return
	}
	if t.fan == 1 {
		p.arrivedUpTo(f.next)
	} else {
		p.arrivedAtOne(before, f.next, t.fan)
	}
	t.mark(p.conn)
}

// control takes every packet but PUBLISH.
func (t *traffic) control(c *conn, first byte, body []byte) error {
	kind := first >> 4
	if kind == kindPingresp {
		return nil
	}
	if kind == kindDisconnect && len(body) > 0 {
		return t.lost(c, fmt.Errorf("broker disconnected %s with Reason Code 0x%02x", t.clientID(c), body[0]))
	}
	if len(body) < 2 || kind < kindPuback || kind > kindPubcomp {
		return fmt.Errorf("broker sent %s a packet of type %d with %d bytes, out of place", t.clientID(c), kind, len(body))
	}
	failed := len(body) > 2 && body[2] >= reasonFailure
	switch {
	case c.role == roleSubscriber && kind == kindPubrel:
		c.out = append(c.out, kindPubcomp<<4, 2, body[0], body[1])
	case c.role == rolePublisher && kind == kindPubrec && !failed:
		c.out = append(c.out, kindPubrel<<4|2, 2, body[0], body[1])
	case c.role == rolePublisher:
		t.ended(&t.publishers[c.number], binary.BigEndian.Uint16(body), failed)
	default:
		return fmt.Errorf("broker sent %s, a subscriber, a packet of type %d", t.clientID(c), kind)
	}
	t.mark(c)
	return nil
}

// ended notes the end of a PUBLISH's exchange. Acknowledgements come in the order of the messages, so one for
// another message than the oldest is one that the broker made up.
func (t *traffic) ended(p *publisher, packetID uint16, failed bool) {
	if p.acknowledged == p.sent || packetID != packetIDOf(p.acknowledged) {
		t.result.AcksOutOfOrder++
	}
	if p.acknowledged < p.sent {
		p.acknowledged++
		t.acknowledged++
	}
	if failed {
		t.result.Refused++
	}
}

// fill publishes what the publisher may send, up to writeBytes a turn.
func (t *traffic) fill(c *conn, dst []byte) ([]byte, bool) {
	if c.role != rolePublisher || !t.publishing {
		return dst, false
	}
	p := &t.publishers[c.number]
	allowed := uint64(0)
	if t.cfg.Rate > 0 {
		allowed = t.pacer.allowance(p, c.number, len(t.publishers), t.cfg.QoS)
	} else {
		allowed = p.allowance(t.cfg.Window, t.cfg.QoS)
	}
	n := min(allowed, uint64(max(1, writeBytes/len(p.template.packet))))
	if t.cfg.Rate > 0 {
		for s := p.sent; s < p.sent+n; s++ {
			dst = p.template.append(dst, s, t.pacer.at(int64(s)*int64(len(t.publishers))+int64(c.number)))
		}
	} else {
		for s := p.sent; s < p.sent+n; s++ {
			dst = p.template.append(dst, s, t.sendTime)
		}
	}
	p.sent += n
	t.published += int64(n)
	return dst, n < allowed
}
