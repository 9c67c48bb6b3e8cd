package crashtest

import (
	"fmt"
	"strings"

	"github.com/ringmq/ringmq/broker/packet"
)

// Client is one MQTT client with a Session that outlives its connections. It publishes and subscribes.
type Client struct {
	ID       string
	Version  packet.Version
	Filter   string // what it subscribes to, at QoS 2; empty: it only publishes
	Topic    string // what it publishes to
	Padding  int    // bytes added to each payload
	Retain   bool   // what it publishes is retained
	qos      byte   // of all that is
	ledger   *Ledger
	in       []byte
	Live     bool // CONNACK came on this connection
	ready    bool // its subscription is acknowledged, now or earlier
	known    bool // the broker has acknowledged its Session at some time
	last     string
	next     int
	lastPID  uint16
	pending  []outgoing
	received map[uint16]bool // QoS 2 identifiers
}

// outgoing is a publication that is not done with.
type outgoing struct {
	pid      uint16
	qos      byte
	number   int
	released bool // PUBREC came
}

// NewClient makes a client whose messages go into the ledger.
func NewClient(l *Ledger, id string, v packet.Version, filter, topic string) *Client {
	return &Client{ID: id, Version: v, Filter: filter, Topic: topic, ledger: l, received: make(map[uint16]bool)}
}

// Ready says that the client is connected and its subscription in place.
func (c *Client) Ready() bool { return c.Live && c.ready }

// Subscribed says that its subscription was acknowledged at some time.
func (c *Client) Subscribed() bool { return c.ready }

// Pending is how many publications are not done with.
func (c *Client) Pending() int { return len(c.pending) }

// Connect begins a connection and returns what to send.
func (c *Client) Connect() []byte {
	c.in, c.Live = nil, false
	p := packet.Connect{Version: c.Version, ClientID: []byte(c.ID)}
	if c.Version == packet.V50 {
		p.SessionExpiry = ^uint32(0)
	}
	return packet.AppendConnect(nil, &p)
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
	c.ledger.published(c.ID, c.next, qos)
	o := outgoing{pid: c.lastPID, qos: qos, number: c.next}
	c.pending = append(c.pending, o)
	return c.publish(nil, &o, false)
}

func (c *Client) publish(to []byte, o *outgoing, dup bool) []byte {
	payload := payloadOf(c.ID, o.number) + "|" + strings.Repeat("x", c.Padding)
	h := packet.PublishHead{Flags: packet.PublishFlags(dup, o.qos, c.Retain), Topic: []byte(c.Topic), PacketID: o.pid, PayloadSize: len(payload)}
	return packet.AppendPublish(to, &h, []byte(payload), c.Version)
}

// Feed takes what came and returns what to send; an error when the broker broke the protocol.
func (c *Client) Feed(b []byte) (out []byte, err error) {
	c.in = append(c.in, b...)
	for {
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
}

func (c *Client) take(out []byte, h packet.Header, body []byte) ([]byte, error) {
	switch h.Kind {
	case packet.CONNACK:
		return c.onConnack(out, body)
	case packet.SUBACK:
		c.ready = true
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
	if c.known && !p.SessionPresent {
		c.forget()
	}
	c.known = true
	for i := range c.pending {
		if o := &c.pending[i]; o.released {
			out = packet.AppendAck(out, packet.PUBREL, o.pid, packet.Success, c.Version)
		} else {
			out = c.publish(out, o, true)
		}
	}
	if c.Filter != "" && !c.ready {
		s := []packet.Subscription{{Filter: []byte(c.Filter), Options: packet.Options{QoS: 2}}}
		out = packet.AppendSubscribe(out, &packet.Subscribe{PacketID: 65535}, s, c.Version)
	}
	return out, nil
}

// forget is for a Session that the broker no longer has: the client discards its own [MQTT-3.2.2-5].
func (c *Client) forget() {
	if !c.ledger.mayLose {
		c.ledger.problem("%s: its Session, which was acknowledged, is gone", c.ID)
	}
	c.ready, c.pending = false, nil
	clear(c.received)
}

func (c *Client) onPublish(out []byte, flags uint8, body []byte) ([]byte, error) {
	var p packet.Publish
	if r := p.DecodeFromServer(flags, body, c.Version); r != packet.Success {
		return out, fmt.Errorf("%s: PUBLISH: %v", c.ID, r)
	}
	c.last = string(p.Payload)
	switch p.QoS {
	case 1:
		c.ledger.arrivedAt(c.ID, string(p.Payload))
		return packet.AppendAck(out, packet.PUBACK, p.PacketID, packet.Success, c.Version), nil
	case 2:
		if !c.received[p.PacketID] {
			c.received[p.PacketID] = true
			c.ledger.arrivedAt(c.ID, string(p.Payload))
		} else if !p.Dup && !c.ledger.mayLose {
			c.ledger.problem("%s: Packet Identifier %d is used again before it is released", c.ID, p.PacketID)
		}
		return packet.AppendAck(out, packet.PUBREC, p.PacketID, packet.Success, c.Version), nil
	}
	return out, nil
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
