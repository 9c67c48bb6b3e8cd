package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/ringmq/ringmq/perf/epoll"
)

// connState is how far a connection has come.
type connState byte

const (
	closed connState = iota
	connecting
	subscribing
	open
)

// Kinds of connections, as Client Identifiers write them.
const (
	rolePublisher  = 'p'
	roleSubscriber = 's'
	roleIdle       = 'i'
)

// outMaxBytes bounds what one connection has been unable to send: beyond it we stop reading from it, and so
// stop owing it acknowledgements.
const outMaxBytes = 1 << 20

// conn is one Network Connection.
type conn struct {
	fd     int
	token  int32
	role   byte
	number int
	filter string // to subscribe to when connected, or empty
	state  connState
	dirty  bool // stands in loop.dirty: has something to send at the end of the turn
	// full: the socket takes no more; deaf: nor do we read, because out has grown to its bound.
	full, deaf bool
	out        []byte // to be sent before anything else
	partial    []byte // the front of a packet whose rest has not arrived
	startedAt  int64
}

func (l *loop) clientID(c *conn) string { return fmt.Sprintf("%s-%c-%d", l.run, c.role, c.number) }

// mark puts c on the list of connections to write at the end of the turn.
func (l *loop) mark(c *conn) {
	if !c.dirty {
		c.dirty = true
		l.dirty = append(l.dirty, c)
	}
}

// connect opens c and sends its CONNECT.
func (l *loop) connect(c *conn) error {
	fd, err := epoll.Connect(l.source(), l.cfg.Target, l.scenario.pacesMessages())
	if err != nil {
		return l.explain(c, err)
	}
	c.fd, c.state, c.startedAt = fd, connecting, l.now
	c.full, c.deaf, c.partial = false, false, c.partial[:0]
	if err := l.poll.Add(fd, c.token, epoll.Readable); err != nil {
		return fmt.Errorf("watch a connection: %w", err)
	}
	c.out = appendConnect(c.out[:0], &l.cfg, l.clientID(c))
	l.mark(c)
	return nil
}

// close ends c from our side.
func (l *loop) close(c *conn) {
	if c.state == open {
		l.openCount--
	}
	epoll.Close(c.fd)
	c.state, c.fd, c.out = closed, -1, c.out[:0]
}

// readable reads once and hands all whole packets on.
func (l *loop) readable(c *conn) error {
	if c.full && len(c.out) > outMaxBytes {
		c.deaf = true
		return l.poll.Change(c.fd, c.token, epoll.Writable)
	}
	have := copy(l.in, c.partial)
	n, err := epoll.Read(c.fd, l.in[have:])
	if err == epoll.ErrAgain {
		return nil
	}
	if err != nil || n == 0 {
		return l.scenario.lost(c, l.lostReason(c, err))
	}
	b := l.in[:have+n]
	for len(b) > 0 && err == nil && c.state != closed {
		used := 0
		if c.state == open {
			used, err = l.scenario.take(c, b)
		} else {
			used, err = l.handshake(c, b)
		}
		if b = b[used:]; used == 0 {
			break
		}
	}
	if c.state != closed {
		c.partial = append(c.partial[:0], b...)
	}
	return err
}

// flush writes what c has to send: first what is left from earlier, then what the scenario adds.
func (l *loop) flush(c *conn) error {
	if c.full || c.state == closed {
		return nil
	}
	b, more := append(l.scratch[:0], c.out...), false
	if c.state == open {
		b, more = l.scenario.fill(c, b)
	}
	l.scratch = b[:0]
	n, err := 0, error(nil)
	if len(b) > 0 {
		n, err = epoll.Write(c.fd, b)
	}
	if err != nil && err != epoll.ErrAgain {
		return l.scenario.lost(c, l.lostReason(c, err))
	}
	c.out = append(c.out[:0], b[max(n, 0):]...)
	if len(c.out) > 0 {
		c.full = true
		return l.poll.Change(c.fd, c.token, epoll.Readable|epoll.Writable)
	}
	if more {
		l.mark(c)
	}
	return nil
}

// writable takes up again what flush had to leave.
func (l *loop) writable(c *conn) error {
	c.full, c.deaf = false, false
	l.mark(c)
	return l.poll.Change(c.fd, c.token, epoll.Readable)
}

// handshake takes what comes before a connection is open.
func (l *loop) handshake(c *conn, b []byte) (int, error) {
	header, size, err := packetAt(b)
	if err != nil || size == 0 {
		return 0, err
	}
	body := b[header:size]
	switch kind := b[0] >> 4; {
	case kind == kindConnack && c.state == connecting && len(body) >= 2:
		if body[1] != 0 {
			return size, l.scenario.lost(c, fmt.Errorf("broker refused %s: CONNACK with %s", l.clientID(c), refusal(body[1])))
		}
		if _, size := binary.Uvarint(body[2:]); l.cfg.Version == Version5 && size > 0 {
			l.receiveMaximum = min(l.receiveMaximum, receiveMaximum(body[2+size:]))
		}
		if c.filter != "" {
			c.out, c.state = appendSubscribe(c.out, &l.cfg, c.filter), subscribing
			l.mark(c)
			return size, nil
		}
	case kind == kindSuback && c.state == subscribing && len(body) >= 3:
		if granted := body[len(body)-1]; granted != l.cfg.QoS {
			return size, fmt.Errorf("broker answered SUBSCRIBE to %s at QoS %d with 0x%02x", c.filter, l.cfg.QoS, granted)
		}
	default:
		return size, fmt.Errorf("broker sent % x before %s was connected and subscribed", b[:min(size, 8)], l.clientID(c))
	}
	c.state = open
	l.openCount++
	return size, l.scenario.opened(c)
}

// lostReason says why a connection ended; no error is the broker's own end of it.
func (l *loop) lostReason(c *conn, err error) error {
	if err == nil {
		return fmt.Errorf("broker closed the connection of %s after %.1f s", l.clientID(c), float64(l.now-c.startedAt)/1e9)
	}
	return l.explain(c, err)
}

// explain adds to a system error what the user can do about it.
func (l *loop) explain(c *conn, err error) error {
	switch {
	case errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE):
		return fmt.Errorf("out of descriptors after %d connections: raise the limit (ulimit -n) or ask for fewer", l.openCount)
	case errors.Is(err, syscall.EADDRNOTAVAIL) && l.openCount == 0 && len(l.cfg.Sources) > 0:
		return fmt.Errorf("connect to %v from %v: one of these is no address of this machine", l.cfg.Target, l.cfg.Sources)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("out of local ports after %d connections to %v: give more local addresses to connect from (sources)", l.openCount, l.cfg.Target)
	case errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("broker closed the connection of %s: %w", l.clientID(c), err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("connect to %v: connection refused: is the broker listening there?", l.cfg.Target)
	}
	return fmt.Errorf("connection of %s to %v: %w", l.clientID(c), l.cfg.Target, err)
}

// refusal says what a CONNACK's code means: a return code of 3.1.1 (section 3.2.2.3) or a Reason Code of 5.0 (section
// 3.2.2.2).
func refusal(code byte) string {
	says := map[byte]string{
		1: "unsupported protocol version", 0x84: "unsupported protocol version",
		2: "Client Identifier refused", 0x85: "Client Identifier refused",
		3: "server unavailable: is it limited to fewer connections?", 0x88: "server unavailable",
		4: "bad User Name or Password", 0x86: "bad User Name or Password",
		5: "not authorized: does it need a User Name and Password?", 0x87: "not authorized: does it need a User Name and Password?",
		0x97: "quota exceeded: is it limited to fewer connections?", 0x9F: "connection rate exceeded: open fewer at a time",
	}[code]
	if says == "" {
		return fmt.Sprintf("code 0x%02x", code)
	}
	return fmt.Sprintf("code 0x%02x, %s", code, says)
}
