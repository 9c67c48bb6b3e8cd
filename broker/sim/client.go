package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/ringmq/ringmq/broker/memnet"
	"github.com/ringmq/ringmq/broker/packet"
)

// client is one Client Identifier with the client's half of its Session.
type client struct {
	w       *world
	index   int
	id      string
	link    *link // nil: none
	session *session

	flight   []*outgoing
	nextPID  uint16
	seq      map[string]int
	pending  []*will // that may come, or not
	dials    []*link // all its connections
	rivals   []*link // earlier connections whose CONNECT may be handled after a later one's
	smallest int     // the least Maximum Packet Size it ever gave; 0: none

	slow int // turns in which it does not read
	hold bool
	deny bool

	kept map[string]*message // Retained Messages that it got, by topic; the reader's
}

// outgoing is a message of QoS 1 or 2 that is not acknowledged yet.
type outgoing struct {
	m        *message
	pid      uint16
	released int // PUBREL packets
}

func (w *world) client(i int) *client {
	for len(w.clients) <= i {
		c := &client{w: w, index: len(w.clients), id: fmt.Sprint("c", len(w.clients)), seq: map[string]int{}}
		c.session = newSession(c)
		w.clients = append(w.clients, c)
	}
	return w.clients[i]
}

// turn writes and reads, as much as x says.
func (c *client) turn(x uint64) {
	if l := c.link; l != nil {
		switch {
		case c.w.calm:
			l.push(1 << 30)
		case x&3 != 0:
			l.push(amount(x >> 8))
		}
	}
	l := c.link
	if l == nil {
		return
	}
	switch {
	case c.w.calm:
		l.hear(1 << 30)
	case c.slow > 0:
		c.slow--
	case x>>4&3 != 0:
		l.hear(amount(x >> 40))
	}
}

// amount is everything, or now and then a few bytes.
func amount(x uint64) int {
	if x&3 != 0 {
		return 1 << 30
	}
	return 1 + int(x>>2&0xff)
}

// dial opens a Network Connection. The one before is left behind, where it is: this one takes its Session over.
func (c *client) dial(in *packet.Connect, w *will) {
	peer := c.w.open()
	if peer == nil {
		return
	}
	if old := c.link; old != nil {
		old.ghost = true
		c.endLink(old, false)
		c.w.ghosts = append(c.w.ghosts, old)
	}
	in.CleanStart = in.CleanStart || c.session.doubt // It has sent that before, and has no Session State any more.
	l := &link{w: c.w, c: c, serial: c.w.stats.Connections, peer: peer, version: in.Version, doomed: -1, clean: in.CleanStart, keep: int64(in.KeepAlive), recv: int(in.ReceiveMaximum),
		aliasMax: int(in.TopicAliasMaximum), packetMax: int(in.MaximumPacketSize), will: w, serverRecv: 65535,
		aliases: map[uint16]string{}, ours: map[uint16]string{}, unacked: map[uint16]bool{}, subs: map[uint16][]*interest{}, unsubs: map[uint16][]unsubscribing{}}
	l.dialled, l.pushed, l.drained, l.said, l.turns = c.w.moment(), c.w.moment(), c.w.moment(), c.w.moment().ms, slices.Min(c.w.turns)
	if l.recv == 0 || l.version != packet.V50 {
		l.recv = 65535
	}
	l.expiry = c.w.granted(in)
	l.exchange = exchanging{method: in.AuthMethod != nil, user: userOf(c.index)}
	if l.packetMax > 0 && (c.smallest == 0 || l.packetMax < c.smallest) {
		c.smallest = l.packetMax
	}
	if w != nil {
		w.link = l
	}
	c.link = l
	c.dials = append(c.dials, l)
	l.priorMin, l.priorMax, l.before = c.session.expiryMin, c.session.expiryMax, c.session.promise()
	c.w.rates.note(l)
	c.session.expect(l)
	c.findRivals(l)
	for _, w := range c.pending {
		w.touched++
	}
	in.ClientID = []byte(c.id)
	l.out = packet.AppendConnect(l.out, in)
	c.slow, c.hold, c.deny = 0, false, false
}

// open opens a Network Connection.
func (w *world) open() *memnet.Peer {
	peer, err := w.network.Dial(0)
	if err != nil {
		w.violate("dial", "%v", err)
		return nil
	}
	if w.resting {
		peer.SetSendWindow(restWindow)
	}
	if w.options.Threaded {
		_ = peer.SetDeadline(time.Unix(1, 0))
	}
	w.stats.Connections++
	w.noteCrowd()
	return peer
}

// forever is the Session Expiry Interval of a Session that never ends, in milliseconds.
const forever = int64(1) << 50

// granted is the Session Expiry Interval in milliseconds that a CONNECT gets.
func (w *world) granted(in *packet.Connect) int64 {
	ms := int64(in.SessionExpiry) * 1000
	if in.Version != packet.V50 {
		if ms = forever; in.CleanStart {
			ms = 0
		}
	}
	if most := w.limits.MaxSessionExpiry.Milliseconds(); most > 0 {
		ms = min(ms, most)
	}
	return ms
}

// cut ends the connection from this side.
func (c *client) cut(reset bool) {
	l := c.link
	if reset {
		_ = l.peer.Reset()
		c.w.watch(l, resetTurns)
	} else {
		_ = l.peer.Close()
	}
	c.endLink(l, reset)
}

// endLink makes ready for another connection; reset says that what was under way is lost.
func (c *client) endLink(l *link, reset bool) {
	c.link = nil
	l.endWill(reset)
	// A CONNECT that the broker has read takes the Session over when its client is known, though its connection was reset meanwhile: the answer may
	// come to a shard that stood still before the reset does.
	if !l.accepted && (!reset || c.w.auth != everybodyIn) && l.pushed.step > l.dialled.step {
		c.rivals = append(c.rivals, l)
		if !reset {
			c.w.watch(l, c.w.rivalTurns())
		}
	}
}

const (
	resetTurns = 3    // turns of every shard after which a reset is known to all
	closingMax = 3000 // ms that the broker may take to close when it has decided to: it gives the client two seconds to take the rest
	workMany   = 1000 // deliveries that no client's input causes in a turn
	yieldTurns = 200  // turns in which the broker comes to the end of what a client has sent, however little of it each turn handles
	pathTurns  = 60   // turns after which a CONNECT was read, however little each read moved, and its Session has come from another shard
)

// rivalTurns are the turns after which a CONNECT was handled.
func (w *world) rivalTurns() int {
	n := pathTurns
	if w.auth != everybodyIn {
		n += 2 * answerTurnsMax
	}
	if w.limits.InputWork < workMany {
		n += yieldTurns
	}
	return n
}

// findRivals drops the connections whose CONNECT was surely handled and says what the others may do to the Session.
func (c *client) findRivals(l *link) {
	c.rivals = slices.DeleteFunc(c.rivals, func(r *link) bool { return r.gone.step != 0 })
	l.rivalled = l.rivalled || len(c.rivals) > 0
	for _, r := range c.rivals {
		c.session.expect(r)
	}
}

// publish sends a new message if the client may.
func (c *client) publish(o *Op) {
	l := c.link
	if !l.open() || len(c.flight) >= min(20, l.serverRecv) || len(l.out) > 40_000 {
		return
	}
	c.seq[o.Name]++
	m := &message{from: c, topic: o.Name, seq: c.seq[o.Name], qos: uint8(o.get("qos", 0) % 3), retain: o.is("retain"), clears: o.get("retain", 0) == 2,
		size: o.get("size", 0), expiry: o.get("expiry", 0), sent: c.w.moment()}
	c.w.add(m)
	if m.props = propertiesOf(m, o.get("props", 0)); l.version != packet.V50 {
		m.expiry, m.props = 0, nil
	}
	c.w.stats.Published++
	if m.retain {
		c.w.streams[m.topic] = append(c.w.streams[m.topic], m)
	}
	out := &outgoing{m: m}
	if m.qos > 0 {
		out.pid = c.freePID()
		c.flight = append(c.flight, out)
	} else {
		l.quick = append(l.quick, m)
	}
	l.send(out, uint16(o.get("alias", 0)))
}

func (c *client) freePID() uint16 {
	for {
		c.nextPID++
		if c.nextPID != 0 && !slices.ContainsFunc(c.flight, func(f *outgoing) bool { return f.pid == c.nextPID }) {
			return c.nextPID
		}
	}
}

func (w *world) add(m *message) {
	w.messages = append(w.messages, m)
	m.serial = len(w.messages)
}

// send appends the PUBLISH of a message, with a Topic Alias if the broker takes it.
func (l *link) send(o *outgoing, alias uint16) {
	m := o.m
	h := &packet.PublishHead{Flags: packet.PublishFlags(m.tries > 0, m.qos, m.retain), Topic: []byte(m.topic), PacketID: o.pid}
	if h.Forwarded = m.props; m.expiry > 0 && l.version == packet.V50 {
		h.HasExpiry, h.Expiry = true, uint32(m.expiry)
	}
	if l.version == packet.V50 && int(alias) <= l.aliasOut && alias > 0 {
		if h.Alias = alias; l.ours[alias] == m.topic {
			h.Topic = nil
		}
		l.ours[alias] = m.topic
	}
	m.bare, m.plain = m.bare || m.expiry > 0 && !h.HasExpiry, m.plain || l.version != packet.V50
	m.tries++
	switch m.qos {
	case 1:
		l.pubacks = append(l.pubacks, o.pid)
	case 2:
		l.pubrecs = append(l.pubrecs, o.pid)
	}
	before := len(l.out)
	l.out = packet.AppendPublish(l.out, h, m.payload(), l.version)
	if len(l.out)-before > 4000 && l.large == 0 { // otherwise an earlier one may be under way
		l.large = l.w.step
	}
}

// payload is the message's name and a pattern that depends on it; empty for a message that clears.
func (m *message) payload() []byte {
	if m.clears {
		return nil
	}
	b := fmt.Appendf(nil, "m%d %s %d\n", m.serial, m.topic, m.size)
	for i := range m.size {
		b = append(b, byte(m.serial+i*7+i>>8))
	}
	return b
}

// reply sends an acknowledgement, or holds it back.
func (c *client) reply(a ack) {
	l := c.link
	if l.leaving || l.bad || l.halved {
		return
	}
	if c.hold {
		l.held = append(l.held, a)
		return
	}
	l.out = append(l.out, a.b...)
	if a.ends {
		delete(l.unacked, a.pid)
	}
	if a.of != nil {
		l.given = append(l.given, a.of)
	}
}

// release sends what was held back.
func (c *client) release() {
	c.hold = false
	if l := c.link; l.open() {
		for _, h := range l.held {
			c.reply(h)
		}
		l.held = nil
	}
}
