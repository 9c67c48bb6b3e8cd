package overload

import (
	"encoding/binary"

	"github.com/ringmq/ringmq/broker/packet"
)

// unackedMax is how many PUBLISH of QoS 1 and 2 a client leaves without an acknowledgement: less than the Receive Maximum
// of the broker, which would end the connection.
const unackedMax = 1000

// packetID is the client's next Packet Identifier.
func (cl *client) packetID() uint16 {
	if cl.nextID++; cl.nextID == 0 {
		cl.nextID = 1
	}
	return cl.nextID
}

// publish sends a message. It must not be called when mustHold says so.
func (c *crowd) publish(cl *client, topic []byte, qos byte, retain bool, payload []byte) {
	h := packet.PublishHead{Flags: packet.PublishFlags(false, qos, retain), Topic: topic, PayloadSize: len(payload)}
	if qos > 0 {
		h.PacketID = cl.packetID()
		cl.unacked++
	}
	cl.out = packet.AppendPublish(cl.out, &h, payload, cl.version)
	c.mark(cl)
	c.outcome.Sent++
}

// subscribe sends one SUBSCRIBE.
func (c *crowd) subscribe(cl *client, qos byte, filters ...string) {
	list := make([]packet.Subscription, 0, len(filters))
	for _, f := range filters {
		list = append(list, packet.Subscription{Filter: []byte(f), Options: packet.Options{QoS: qos}})
	}
	cl.out = packet.AppendSubscribe(cl.out, &packet.Subscribe{PacketID: cl.packetID()}, list, cl.version)
	c.mark(cl)
}

func (c *crowd) unsubscribe(cl *client, filters ...string) {
	list := make([][]byte, 0, len(filters))
	for _, f := range filters {
		list = append(list, []byte(f))
	}
	cl.out = packet.AppendUnsubscribe(cl.out, &packet.Unsubscribe{PacketID: cl.packetID()}, list, cl.version)
	c.mark(cl)
}

// exchange answers what the protocol wants an answer to, at once: slow clients are slow because they read slowly.
func (c *crowd) exchange(cl *client, h packet.Header, body []byte) {
	switch h.Kind {
	case packet.PUBLISH:
		c.outcome.Received++
		c.acceptMessage(cl, h.Flags, body)
	case packet.PUBACK, packet.PUBCOMP:
		cl.unacked--
	case packet.PUBREC:
		if len(body) > 2 && packet.Reason(body[2]).Failed() {
			cl.unacked--
			return
		}
		c.acknowledge(cl, packet.PUBREL, body)
	case packet.PUBREL:
		c.acknowledge(cl, packet.PUBCOMP, body)
	}
}

// acceptMessage acknowledges a message of QoS 1 or 2.
func (c *crowd) acceptMessage(cl *client, flags uint8, body []byte) {
	switch qos := flags >> 1 & 3; {
	case qos == 0 || len(body) < 2:
	default:
		at := 2 + int(binary.BigEndian.Uint16(body))
		if at+2 > len(body) {
			c.outcome.Answers["malformed packet"]++
			return
		}
		kind := packet.PUBACK
		if qos == 2 {
			kind = packet.PUBREC
		}
		c.acknowledge(cl, kind, body[at:])
	}
}

func (c *crowd) acknowledge(cl *client, kind packet.Kind, id []byte) {
	cl.out = packet.AppendAck(cl.out, kind, binary.BigEndian.Uint16(id), packet.Success, cl.version)
	c.mark(cl)
}

// topicOf is the Topic Name of a PUBLISH, valid as long as body is.
func topicOf(body []byte) []byte {
	if len(body) < 2 {
		return nil
	}
	return body[2:min(2+int(binary.BigEndian.Uint16(body)), len(body))]
}
