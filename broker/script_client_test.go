package broker_test

import (
	"fmt"
	"strings"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/script"
)

// run is a row of packets of one kind, which a brief client tells in three lines.
type run struct {
	kind        packet.Kind
	n           int
	first, last string
}

// hear takes the whole packets off what was read, answers them if that is the client's way, and notes a line for each.
func (c *client) hear() {
	for {
		h, r := packet.ParseHeader(c.in)
		if r != packet.Success {
			c.world.tb.Errorf("%s received % x: %s", c.name, c.in, r)
			c.in = nil
		}
		if h.Size == 0 || len(c.in) < h.Size+h.Remaining {
			return
		}
		body := c.in[h.Size : h.Size+h.Remaining]
		c.in = c.in[h.Size+h.Remaining:]
		text, r := script.Describe(h, body, c.version, usual())
		c.learn(h, body)
		switch {
		case r != packet.Success && c.anyVersion:
			text = h.Kind.String() + " return code in the form of another version"
		case r != packet.Success:
			c.world.tb.Errorf("%s received an undecodable %s: %s: % x", c.name, h.Kind, r, body)
		}
		if c.auto {
			c.answer(h, body)
		}
		c.note(h.Kind, text)
	}
}

// learn notes a Client Identifier that the broker chose, whose Session is to be ended with the script, and the payloads
// that came on each topic.
func (c *client) learn(h packet.Header, body []byte) {
	if h.Kind == packet.PUBLISH {
		var p packet.Publish
		p.DecodeFromServer(h.Flags, body, c.version)
		if c.payloads == nil {
			c.payloads = map[string][]string{}
		}
		c.payloads[string(p.Topic)] = append(c.payloads[string(p.Topic)], string(p.Payload))
		return
	}
	var p packet.Connack
	if h.Kind == packet.CONNACK && p.Decode(body, c.version) == packet.Success && p.AssignedClientID != nil {
		c.world.known[string(p.AssignedClientID)] = true
	}
}

func (c *client) note(kind packet.Kind, text string) {
	if c.brief && c.auto && kind == packet.PUBREL {
		return
	}
	if !c.brief || kind != c.run.kind {
		c.endRun()
	}
	if c.run.kind = kind; !c.brief {
		c.heard = append(c.heard, text)
		return
	}
	if c.run.last = text; c.run.n == 0 {
		c.run.first = text
	}
	c.run.n++
}

func (c *client) endRun() {
	switch n := c.run.n; {
	case n > 2:
		c.heard = append(c.heard, c.run.first, fmt.Sprintf("… %d more …", n-2), c.run.last)
	case n == 2:
		c.heard = append(c.heard, c.run.first, c.run.last)
	case n == 1:
		c.heard = append(c.heard, c.run.first)
	}
	c.run = run{}
}

// answer acknowledges as a good client does.
func (c *client) answer(h packet.Header, body []byte) {
	switch h.Kind {
	case packet.PUBLISH:
		var p packet.Publish
		p.DecodeFromServer(h.Flags, body, c.version)
		if p.QoS > 0 {
			kind := [...]packet.Kind{1: packet.PUBACK, 2: packet.PUBREC}[p.QoS]
			c.write(packet.AppendAck(nil, kind, p.PacketID, packet.Success, c.version))
		}
	case packet.PUBREL:
		id := uint16(body[0])<<8 | uint16(body[1])
		c.write(packet.AppendAck(nil, packet.PUBCOMP, id, packet.Success, c.version))
	case packet.PUBREC:
		id := uint16(body[0])<<8 | uint16(body[1])
		if len(body) < 3 || body[2] < 0x80 {
			c.write(packet.AppendAck(nil, packet.PUBREL, id, packet.Success, c.version))
		}
	}
}

// tell reports what the client heard since it was last asked.
func (c *client) tell() {
	c.endRun()
	for _, text := range c.heard {
		if c.mute {
			break
		}
		c.world.say(fmt.Sprintf("%s < %s", c.name, text))
	}
	c.heard = nil
	if c.closed == "" || c.over {
		return
	}
	_ = c.peer.Close()
	if c.over = true; c.mute {
		return
	}
	if len(c.in) > 0 {
		c.world.say(fmt.Sprintf("%s < % x and no more", c.name, c.in))
	}
	c.world.say(fmt.Sprintf("%s < %s", c.name, c.closed))
}

// leave ends the connection from the client's side, which then hears nothing more.
func (c *client) leave(end func() error) {
	if !c.over {
		c.over = true
		_ = end()
	}
}

// remember notes which Session and Retained Message a command may leave behind, for the end of the script.
func (w *world) remember(c *script.Command) {
	switch c.Verb {
	case "connect":
		w.known[c.Text("id", c.Word(0))] = true
		if c.Yes("willretain") {
			w.topics[c.Text("will", "")] = true
		}
	case "publish":
		if c.Yes("retain") {
			for i := range int(c.Number("count", 1)) {
				w.topics[strings.ReplaceAll(c.Word(1), "%d", fmt.Sprint(i))] = true
			}
		}
	}
}
