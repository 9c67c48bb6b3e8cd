package crashtest

import (
	"fmt"
	"strings"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
)

// Client is one MQTT client with a Session that outlives its connections. It publishes and subscribes.
type Client struct {
	ID       string
	Version  packet.Version
	Filter   string   // what it subscribes to, at QoS 2; empty: it only publishes
	Topic    string   // what it publishes to
	Padding  int      // bytes added to each payload
	Retain   bool     // what it publishes is retained
	Expiries []uint32 // Message Expiry Intervals of what it publishes in seconds, one after the other
	Will     *Will    // nil: none
	Fickle   bool     // it unsubscribes and subscribes again, see Change
	Polite   bool     // it says DISCONNECT now and then, see Leave
	Rare     bool     // it publishes next to nothing
	Clears   bool     // every second message, of those it publishes retained, has no payload
	Expiry   uint32   // Session Expiry Interval in seconds, for 5.0; 0: it never expires
	Live     bool     // CONNACK came on this connection

	ledger   *Ledger
	reader   int  // its place among the readers, when it has a Filter
	qos      byte // of all that it publishes retained
	in       []byte
	dialled  time.Time // when it began its connection
	left     time.Time // when the one before ended
	parted   time.Time // when the last one that the broker had answered ended
	leaving  bool      // it has said DISCONNECT
	doubt    bool      // nobody knows whether the broker has taken what it said last
	known    bool      // the broker has acknowledged its Session at some time
	sub      subState
	content  bool // it wants no subscription now
	ready    bool // its subscription was acknowledged, now or earlier
	next     int
	lastPID  uint16
	pending  []outgoing
	received map[uint16]bool     // QoS 2 identifiers
	given    map[*message]uint16 // the identifiers with which messages of QoS 1 came
	wills    willing
	visit    *visit // nil: it is no visitor
}

// subState is what a Client knows of its subscription.
type subState uint8

const (
	unsubscribed  subState = iota // never asked for, or UNSUBACK came
	subscribing                   // SUBSCRIBE was sent, on this connection or an earlier one
	subscribed                    // SUBACK came
	unsubscribing                 // UNSUBSCRIBE was sent
)

// outgoing is a publication that is not done with.
type outgoing struct {
	pid      uint16
	qos      byte
	number   int
	released bool // PUBREC came
}

// NewClient makes a client whose messages go into the ledger. All are made before the first one connects.
func NewClient(l *Ledger, id string, v packet.Version, filter, topic string) *Client {
	c := &Client{ID: id, Version: v, Filter: filter, Topic: topic, ledger: l, received: make(map[uint16]bool), given: make(map[*message]uint16)}
	l.add(c)
	return c
}

// Subscribed says that its subscription was acknowledged at some time.
func (c *Client) Subscribed() bool { return c.ready }

// Pending is how many publications are not done with.
func (c *Client) Pending() int { return len(c.pending) }

// Connect begins a connection and returns what to send.
func (c *Client) Connect() []byte {
	c.in, c.Live, c.leaving, c.doubt, c.dialled = nil, false, false, false, c.ledger.now()
	p := packet.Connect{Version: c.Version, ClientID: []byte(c.ID), CleanStart: c.visit != nil}
	if c.Version == packet.V50 && c.visit == nil {
		if p.SessionExpiry = ^uint32(0); c.Expiry > 0 {
			p.SessionExpiry = c.Expiry
		}
	}
	if c.Will != nil {
		c.appendWill(&p)
	}
	return packet.AppendConnect(nil, &p)
}

// Lost is called when a connection has ended.
func (c *Client) Lost() {
	switch {
	case c.Will == nil:
	case c.Live:
		c.ledger.due(c.wills.current)
	case c.wills.withdrawn != nil && c.leaving:
		c.sayFarewell()
	}
	if c.left = c.ledger.now(); c.Live || c.leaving {
		c.parted = c.left
	}
	c.Live = false
}

// Doubt is called when the broker may know nothing of what it was told and has not answered: another one runs, or the connection was cut.
func (c *Client) Doubt() { c.doubt, c.wills.withdrawn, c.wills.farewell = true, nil, nil }

// Leave says DISCONNECT and returns what to send; nothing more is sent on this connection, which the broker closes.
func (c *Client) Leave() []byte {
	if !c.Live {
		return nil
	}
	c.Live, c.leaving, c.wills.withdrawn = false, true, c.wills.current
	return packet.AppendDisconnect(nil, &packet.Disconnect{}, c.Version)
}

// Publish publishes the next message and returns what to send; nothing when it is not connected.
//
// What it publishes has one QoS where it is retained: after a crash a message of QoS 1 comes again and is retained again, but a
// later one of QoS 2, which was received, is not, so that an older one may well be retained in the end (section 4.6 orders messages of one QoS).
func (c *Client) Publish(qos byte) []byte {
	if c.Retain {
		if c.qos == 0 {
			c.qos = qos
		}
		qos = c.qos
	}
	if !c.Live || len(c.pending) > 100 {
		return nil
	}
	c.next++
	c.lastPID = c.lastPID%65535 + 1
	m := c.ledger.published(&message{publisher: c.ID, number: c.next, topic: c.Topic, qos: qos, interval: c.interval(c.next)})
	o := outgoing{pid: c.lastPID, qos: qos, number: m.number}
	c.pending = append(c.pending, o)
	return c.publish(nil, &o, false)
}

func (c *Client) publish(to []byte, o *outgoing, dup bool) []byte {
	payload := payloadOf(c.ID, o.number) + "|" + strings.Repeat("x", c.Padding)
	if c.clears(o.number) {
		payload = ""
	}
	if dup {
		c.ledger.messages[payloadOf(c.ID, o.number)].again = true
	}
	h := packet.PublishHead{Flags: packet.PublishFlags(dup, o.qos, c.Retain), Topic: []byte(c.Topic), PacketID: o.pid, PayloadSize: len(payload)}
	if interval := c.interval(o.number); interval > 0 {
		h.HasExpiry, h.Expiry = true, uint32(interval/time.Second)
	}
	return packet.AppendPublish(to, &h, []byte(payload), c.Version)
}

// clears says of a message that it clears the Retained Message of its topic.
func (c *Client) clears(number int) bool { return c.Clears && number%2 == 0 }

// interval is the Message Expiry Interval of a message.
func (c *Client) interval(number int) time.Duration {
	if len(c.Expiries) == 0 {
		return 0
	}
	return time.Duration(c.Expiries[number%len(c.Expiries)]) * time.Second
}

// Feed takes what came and returns what to send; an error when the broker broke the protocol.
func (c *Client) Feed(b []byte) (out []byte, err error) {
	c.in = append(c.in, b...)
	for !c.leaving {
		h, r := packet.ParseHeader(c.in)
		if r != packet.Success {
			return out, fmt.Errorf("%s: undecodable packet: %v", c.ID, r)
		}
		if h.Size == 0 || len(c.in) < h.Size+h.Remaining {
			return out, nil
		}
		body := c.in[h.Size : h.Size+h.Remaining]
		out, err = c.take(out, h, body)
		if err != nil {
			return out, err
		}
		c.in = c.in[h.Size+h.Remaining:]
	}
	return nil, nil
}

func (c *Client) take(out []byte, h packet.Header, body []byte) ([]byte, error) {
	switch h.Kind {
	case packet.CONNACK:
		return c.onConnack(out, body)
	case packet.SUBACK:
		return c.onSuback(out, body)
	case packet.UNSUBACK:
		c.sub = unsubscribed
	case packet.PUBLISH:
		return c.onPublish(out, h.Flags, body)
	case packet.PUBREL:
		var a packet.Ack
		if r := a.Decode(packet.PUBREL, body, c.Version); r != packet.Success {
			return out, fmt.Errorf("%s: PUBREL: %v", c.ID, r)
		}
		delete(c.received, a.PacketID)
		return packet.AppendAck(out, packet.PUBCOMP, a.PacketID, packet.Success, c.Version), nil
	case packet.PUBACK, packet.PUBREC, packet.PUBCOMP:
		return c.onAck(out, h.Kind, body)
	}
	return out, nil
}

func (c *Client) onConnack(out, body []byte) ([]byte, error) {
	var p packet.Connack
	if r := p.Decode(body, c.Version); r != packet.Success || p.Reason != packet.Success {
		return out, fmt.Errorf("%s: CONNACK: %v %v", c.ID, r, p.Reason)
	}
	c.Live = true
	if c.known {
		over := c.ended(p.SessionPresent)
		if !p.SessionPresent {
			c.forget(over)
		}
	}
	c.known = true
	for i := range c.pending {
		if o := &c.pending[i]; o.released {
			out = packet.AppendAck(out, packet.PUBREL, o.pid, packet.Success, c.Version)
		} else {
			out = c.publish(out, o, true)
		}
	}
	c.wills.onConnected(c.ledger)
	if c.visit != nil {
		return c.subscribeAsVisitor(out), nil
	}
	return c.request(out), nil
}

// ended judges whether a Session that expires is there, and says whether its time may be over: it is when the interval has passed since its
// client's last connection ended, whether a broker ran or not.
func (c *Client) ended(present bool) bool {
	if c.Expiry == 0 {
		return false
	}
	interval := time.Duration(c.Expiry) * time.Second
	if away := c.dialled.Sub(c.left); away > interval+tolerance {
		c.ledger.tally.Ended++
		if present {
			c.ledger.problem("%s: its Session is there %v after its connection has ended, and was to expire after %v", c.ID, away, interval)
		}
	}
	return c.dialled.Sub(c.parted) > interval-2*tolerance
}

// forget is for a Session that the broker no longer has, because its time may be over or not: the client discards its own [MQTT-3.2.2-5].
func (c *Client) forget(over bool) {
	if !over && !c.ledger.mayLose {
		c.ledger.problem("%s: its Session, which was acknowledged, is gone", c.ID)
	}
	c.sub, c.ready, c.pending = unsubscribed, false, nil
	clear(c.received)
}

func (c *Client) onPublish(out []byte, flags uint8, body []byte) ([]byte, error) {
	var p packet.Publish
	if r := p.DecodeFromServer(flags, body, c.Version); r != packet.Success {
		return out, fmt.Errorf("%s: PUBLISH: %v", c.ID, r)
	}
	if c.visit != nil {
		c.onRetained(&p)
		return out, nil
	}
	switch p.QoS {
	case 1:
		c.judgeIdentifier(&p)
		c.ledger.arrivedAt(c, &p)
		return packet.AppendAck(out, packet.PUBACK, p.PacketID, packet.Success, c.Version), nil
	case 2:
		if !c.received[p.PacketID] {
			c.received[p.PacketID] = true
			c.ledger.arrivedAt(c, &p)
		} else if !p.Dup && !c.ledger.mayLose {
			c.ledger.problem("%s: Packet Identifier %d is used again before it is released", c.ID, p.PacketID)
		}
		return packet.AppendAck(out, packet.PUBREC, p.PacketID, packet.Success, c.Version), nil
	}
	return out, nil
}

// judgeIdentifier finds that a message of QoS 1 that comes again does so with its Packet Identifier [MQTT-4.4.0-1]. One that was published
// again is another message for its receivers.
func (c *Client) judgeIdentifier(p *packet.Publish) {
	m := c.ledger.messageOf(c, p.Payload)
	if m == nil || p.Retain || m.again || m.will || c.ledger.readers[c.reader].shared {
		return
	}
	first, ok := c.given[m]
	if c.given[m] = p.PacketID; !ok {
		return
	}
	if c.ledger.tally.Again++; first != p.PacketID && !c.ledger.mayLose {
		c.ledger.problem("%s got %s:%d again with Packet Identifier %d; first it had %d", c.ID, m.publisher, m.number, p.PacketID, first)
	}
}

func (c *Client) onAck(out []byte, kind packet.Kind, body []byte) ([]byte, error) {
	var a packet.Ack
	if r := a.Decode(kind, body, c.Version); r != packet.Success {
		return out, fmt.Errorf("%s: %v: %v", c.ID, kind, r)
	}
	for i := range c.pending {
		o := &c.pending[i]
		if o.pid != a.PacketID {
			continue
		}
		failed := a.Reason.Failed() && a.Reason != packet.PacketIdentifierNotFound
		if !failed {
			c.ledger.acknowledged(c.ID, o.number)
		}
		if kind == packet.PUBREC && !failed {
			o.released = true
			return packet.AppendAck(out, packet.PUBREL, o.pid, packet.Success, c.Version), nil
		}
		c.pending = append(c.pending[:i], c.pending[i+1:]...)
		return out, nil
	}
	return out, nil
}
