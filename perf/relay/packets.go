package relay

import (
	"encoding/binary"

	"github.com/ringmq/ringmq/perf/epoll"
)

// Fault is what a relay does wrong on purpose.
type Fault string

// The faults.
const (
	Drop   Fault = "drop"
	Double Fault = "double"
	// Swap sends a message after its successor. It waits for one that has its successor in the same read, so
	// that nothing is ever held back.
	Swap Fault = "swap"
)

// read reads once and handles the whole packets.
func (r *Relay) read(c *conn) {
	have := copy(r.in, c.partial)
	if have+readBytes/2 > len(r.in) {
		r.in = append(r.in, make([]byte, len(r.in))...)
	}
	n, err := epoll.Read(c.fd, r.in[have:])
	if err == epoll.ErrAgain {
		return
	}
	if err != nil || n == 0 {
		r.drop(c)
		return
	}
	b := r.in[:have+n]
	used, ok := r.packets(c, b)
	if !ok {
		r.drop(c)
		return
	}
	c.partial = append(c.partial[:0], b[used:]...)
}

// packets handles whole packets and says how many bytes they were, and whether the connection goes on. PUBLISH packets in a
// row go on in one piece.
func (r *Relay) packets(c *conn, b []byte) (used int, ok bool) {
	run, at := 0, 0 // the run of PUBLISH packets that are not passed on yet begins at run
	for {
		header, size := frame(b[at:])
		if size <= 0 {
			break
		}
		first, body := b[at], b[at+header:at+size]
		if first>>4 == 3 && len(body) >= 2 {
			r.acknowledge(c, first, body)
			at += size
			continue
		}
		r.pass(c, b[run:at])
		at += size
		run = at
		if !r.answer(c, first, body) {
			return at, false
		}
	}
	r.pass(c, b[run:at])
	return at, true
}

// frame gives the sizes of the first packet's header and of all of it; zero when it is not complete.
func frame(b []byte) (headerBytes, packetBytes int) {
	length, shift := 0, 0
	for i := 1; i < len(b) && i <= 4; i++ {
		length |= int(b[i]&0x7f) << shift
		if b[i] < 0x80 {
			if 1+i+length > len(b) {
				return 0, 0
			}
			return 1 + i, 1 + i + length
		}
		shift += 7
	}
	return 0, 0
}

// acknowledge answers a publisher's PUBLISH at once.
func (r *Relay) acknowledge(c *conn, first byte, body []byte) {
	qos := first >> 1 & 3
	topicEnd := 2 + int(binary.BigEndian.Uint16(body))
	if qos == 0 || topicEnd+2 > len(body) {
		return
	}
	r.put(c, []byte{0, 0x40, 0x50, 0x50}[qos], 2, body[topicEnd], body[topicEnd+1])
}

// answer takes all other packets; false ends the connection.
func (r *Relay) answer(c *conn, first byte, body []byte) bool {
	switch first >> 4 {
	case 1:
		return r.connect(c, body)
	case 5: // a subscriber's PUBREC
		return len(body) >= 2 && r.reply(c, 0x62, body)
	case 6: // a publisher's PUBREL
		return len(body) >= 2 && r.reply(c, 0x70, body)
	case 8, 10:
		if len(body) < 3 {
			return false
		}
		r.subscribe(c, first, body)
	case 12:
		r.put(c, 0xd0, 0)
	case 14:
		return false
	}
	return true
}

func (r *Relay) reply(c *conn, first byte, body []byte) bool {
	r.put(c, first, 2, body[0], body[1])
	return true
}

// connect grants every CONNECT. The Client Identifier is the first field of the payload.
func (r *Relay) connect(c *conn, body []byte) bool {
	if len(body) < 12 {
		return false
	}
	at := 2 + int(binary.BigEndian.Uint16(body)) + 4 // protocol name, version, flags, Keep Alive
	if at >= len(body) {
		return false
	}
	c.version = body[at-4]
	if c.version == 5 {
		length, size := binary.Uvarint(body[at:])
		if size <= 0 || length > uint64(len(body)) {
			return false
		}
		at += size + int(length)
	}
	if at+2 > len(body) || at+2+int(binary.BigEndian.Uint16(body[at:])) > len(body) {
		return false
	}
	r.enrol(c, string(body[at+2:at+2+int(binary.BigEndian.Uint16(body[at:]))]))
	if c.version == 5 {
		r.put(c, 0x20, 3, 0, 0, 0)
	} else {
		r.put(c, 0x20, 2, 0, 0)
	}
	return true
}

// subscribe grants what is asked for, and to one filter only. Its options are the last byte.
func (r *Relay) subscribe(c *conn, first byte, body []byte) {
	answer := []byte{0x90, 3, body[0], body[1], body[len(body)-1] & 3}
	if c.version == 5 {
		answer = []byte{0x90, 4, body[0], body[1], 0, body[len(body)-1] & 3}
	}
	if first>>4 == 10 {
		answer = []byte{0xb0, 2, body[0], body[1]}
	}
	r.put(c, answer...)
}

// pass hands a publisher's packets on, through the fault if there is one.
func (r *Relay) pass(c *conn, b []byte) {
	if r.cfg.Fault == "" {
		r.give(c, b)
		return
	}
	for len(b) > 0 {
		_, size := frame(b)
		message, rest := b[:size], b[size:]
		_, next := frame(rest)
		if r.published++; r.published < r.cfg.FaultEvery || r.cfg.Fault == Swap && next == 0 {
			r.give(c, message)
			b = rest
			continue
		}
		r.published = 0
		r.faults.Add(1)
		switch r.cfg.Fault {
		case Double:
			r.give(c, message)
			r.give(c, message)
		case Swap:
			r.give(c, rest[:next])
			r.give(c, message)
			rest = rest[next:]
		}
		b = rest
	}
}

// give queues packets for whom they are for.
func (r *Relay) give(c *conn, b []byte) {
	if len(b) == 0 {
		return
	}
	if !r.cfg.All {
		if c.number < len(r.subscribers) && r.subscribers[c.number] != nil {
			r.put(r.subscribers[c.number], b...)
		}
		return
	}
	for _, s := range r.subscribers {
		if s != nil {
			r.put(s, b...)
		}
	}
}
