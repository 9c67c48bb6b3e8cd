package crashtest

import (
	"fmt"

	"github.com/ringmq/ringmq/broker/packet"
)

// requestID is the Packet Identifier of SUBSCRIBE and UNSUBSCRIBE, of which one at a time is under way.
const requestID = 65535

// Change has a Client that is Fickle unsubscribe, or subscribe again, and returns what to send.
func (c *Client) Change() []byte {
	if !c.Live || c.sub == subscribing || c.sub == unsubscribing {
		return nil
	}
	c.content = !c.content
	return c.request(nil)
}

// request asks for what the Client wants and does not know that it has: after a crash, again for what was not answered.
func (c *Client) request(out []byte) []byte {
	switch {
	case c.Filter == "" || c.content && c.sub == unsubscribed || !c.content && c.sub == subscribed:
		return out
	case c.content:
		c.ledger.gives(c)
		c.sub = unsubscribing
		return packet.AppendUnsubscribe(out, &packet.Unsubscribe{PacketID: requestID}, [][]byte{[]byte(c.Filter)}, c.Version)
	}
	c.ledger.asks(c)
	c.sub = subscribing
	return c.appendSubscribe(out, 2)
}

func (c *Client) appendSubscribe(out []byte, qos byte) []byte {
	s := []packet.Subscription{{Filter: []byte(c.Filter), Options: packet.Options{QoS: qos}}}
	return packet.AppendSubscribe(out, &packet.Subscribe{PacketID: requestID}, s, c.Version)
}

func (c *Client) onSuback(out, body []byte) ([]byte, error) {
	var p packet.Suback
	if r := p.Decode(body, c.Version); r != packet.Success {
		return out, fmt.Errorf("%s: SUBACK: %v", c.ID, r)
	}
	switch {
	case c.visit != nil:
	case p.Code(0).Failed():
		out = c.appendSubscribe(out, 2) // the disk is full, for now
	default:
		c.sub, c.ready = subscribed, true
	}
	return out, nil
}
