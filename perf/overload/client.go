package overload

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/perf/epoll"
)

// smallReceiveBuffer is what a client that does not read lets the kernel keep for it, in bytes: the rest waits in the broker.
const smallReceiveBuffer = 4096

// connect opens a client and sends its CONNECT, if it has one.
func (c *crowd) connect(cl *client) error {
	fd, err := epoll.Connect(c.source(), c.cfg.Target, true)
	if err != nil {
		return fmt.Errorf("connect to %v after %d connections: %w", c.cfg.Target, c.outcome.Opened, err)
	}
	if cl.deaf {
		epoll.LimitReceiveBuffer(fd, smallReceiveBuffer)
	}
	cl.fd, cl.state, cl.since = fd, connecting, c.now
	cl.inPacket = false
	cl.full, cl.unacked, cl.partial, cl.out = false, 0, cl.partial[:0], append(cl.out[:0], cl.hello...)
	if err := c.poll.Add(fd, cl.token, epoll.Readable); err != nil {
		return fmt.Errorf("watch a connection: %w", err)
	}
	c.underWay++
	if len(cl.out) == 0 { // nothing to wait for
		c.underWay--
		return nil
	}
	c.mark(cl)
	return nil
}

// source is the next local address to connect from.
func (c *crowd) source() netip.Addr {
	if len(c.cfg.Sources) == 0 {
		return netip.Addr{}
	}
	c.sourceAt++
	return c.cfg.Sources[c.sourceAt%len(c.cfg.Sources)]
}

// release closes a client's socket, and says nothing.
func (c *crowd) release(cl *client) {
	if cl.state == closed {
		return
	}
	if cl.state == connecting && len(cl.hello) > 0 {
		c.underWay--
	}
	epoll.Close(cl.fd)
	cl.state, cl.fd, cl.out, cl.partial = closed, -1, cl.out[:0], cl.partial[:0]
}

// leave ends a client's connection from our side: with DISCONNECT, or as if its cable were cut.
func (c *crowd) leave(cl *client, politely bool) {
	switch {
	case cl.state == closed:
		return
	case politely:
		_, _ = epoll.Write(cl.fd, []byte{0xe0, 0})
	default:
		epoll.ResetOnClose(cl.fd)
	}
	c.release(cl)
}

// lose notes that the broker has ended a connection, or the network has.
func (c *crowd) lose(cl *client) {
	c.release(cl)
	c.outcome.Closed++
	c.tactic.ended(cl)
}

func (c *crowd) mark(cl *client) {
	if !cl.dirty {
		cl.dirty = true
		c.dirty = append(c.dirty, cl)
	}
}

// send appends bytes to what a client sends at the end of the turn.
func (c *crowd) send(cl *client, b []byte) {
	cl.out = append(cl.out, b...)
	c.mark(cl)
}

// mustHold says whether a client has so much to send, or so much that is not acknowledged, that more must wait; it is
// counted.
func (c *crowd) mustHold(cl *client) bool {
	if cl.full && len(cl.out) > outMaxBytes || cl.unacked >= unackedMax {
		c.outcome.HeldBack++
		return true
	}
	return false
}

func (c *crowd) flushAll() {
	list := c.dirty
	c.dirty = nil
	for _, cl := range list {
		cl.dirty = false
		if cl.state != closed && !cl.full {
			c.flush(cl)
		}
	}
	if c.dirty == nil {
		c.dirty = list[:0]
	}
}

func (c *crowd) flush(cl *client) {
	if len(cl.out) == 0 {
		return
	}
	n, err := epoll.Write(cl.fd, cl.out)
	if err != nil && !errors.Is(err, epoll.ErrAgain) {
		cl.out = cl.out[:0] // what the broker has still said is read first
		c.read(cl, len(c.in))
		return
	}
	cl.out = append(cl.out[:0], cl.out[max(n, 0):]...)
	if len(cl.out) > 0 {
		cl.full = true
		c.watch(cl)
	}
}

// watch tells the kernel what to wait for.
func (c *crowd) watch(cl *client) {
	interest := epoll.Readable
	if cl.deaf && cl.state == live {
		interest = nothing
	}
	if cl.full {
		interest |= epoll.Writable
	}
	_ = c.poll.Change(cl.fd, cl.token, interest) // fails only for a socket that is not watched
}

func (c *crowd) writable(cl *client) {
	cl.full = false
	c.watch(cl)
	c.mark(cl)
}

// sip reads at most n bytes for a deaf client and says how many came.
func (c *crowd) sip(cl *client, n int) int {
	if cl.state != live {
		return 0
	}
	return c.read(cl, min(n, len(c.in)))
}

// read reads once, at most most bytes, and hands the whole packets on.
func (c *crowd) read(cl *client, most int) int {
	have := copy(c.in, cl.partial)
	if have+readBytes/2 > len(c.in) {
		c.in = append(c.in, make([]byte, len(c.in))...)
	}
	n, err := epoll.Read(cl.fd, c.in[have:min(have+most, len(c.in))])
	switch {
	case errors.Is(err, epoll.ErrAgain):
		return 0
	case err != nil || n == 0:
		c.lose(cl)
		return 0
	}
	c.outcome.BytesReceived += int64(n)
	cl.partial = cl.partial[:0]
	b := c.in[:have+n]
	for cl.state != closed {
		h, r := packet.ParseHeader(b)
		if r != packet.Success {
			c.outcome.Answers["malformed packet"]++
			c.leave(cl, false)
			return n
		}
		size := h.Size + h.Remaining
		if h.Size == 0 || len(b) < size {
			cl.partial = append(cl.partial[:0], b...)
			break
		}
		c.take(cl, h, b[0], b[h.Size:size])
		b = b[size:]
	}
	return n
}

// take handles what every tactic needs and hands on what is left.
func (c *crowd) take(cl *client, h packet.Header, first byte, body []byte) {
	if cl.state == connecting && h.Kind == packet.CONNACK && len(body) >= 2 {
		c.outcome.answer("CONNACK", packet.Reason(body[1]))
		if body[1] != 0 {
			return // the broker closes
		}
		if len(cl.hello) > 0 {
			c.underWay--
		}
		cl.state = live
		c.outcome.Opened++
		if cl.deaf {
			c.watch(cl)
		}
		c.tactic.lives(cl)
		return
	}
	switch h.Kind {
	case packet.DISCONNECT:
		r := packet.Reason(0)
		if len(body) > 0 {
			r = packet.Reason(body[0])
		}
		c.outcome.answer("DISCONNECT", r)
		return
	case packet.PUBACK, packet.PUBREC:
		if len(body) > 2 && body[2] >= 0x80 {
			c.outcome.answer(h.Kind.String(), packet.Reason(body[2]))
		}
	case packet.SUBACK:
		c.suback(cl, body)
	}
	c.exchange(cl, h, body)
	c.tactic.hears(cl, first, body)
}

// suback counts the Reason Codes of failure.
func (c *crowd) suback(cl *client, body []byte) {
	var in packet.Suback
	if in.Decode(body, cl.version) != packet.Success {
		c.outcome.Answers["malformed packet"]++
		return
	}
	for _, r := range in.Codes {
		if packet.Reason(r).Failed() {
			c.outcome.answer("SUBACK", packet.Reason(r))
		}
	}
}
