package broker_test

import (
	"fmt"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/topic"
)

// heard is what one client of a rig has got: the packets of which the version that it said in its CONNECT must understand each.
type heard struct {
	version   packet.Version // 0: it has not said so, or bytes at random were its first ones
	most      int            // its Maximum Packet Size; 0: none
	aliases   uint16         // its Topic Alias Maximum
	names     map[uint16]bool
	rest      []byte
	connected bool // CONNACK has come
	over      bool // DISCONNECT, or a CONNACK that refuses
}

// take finds what is wrong with the packets that have come; a packet that is cut short waits for the rest of it.
func (h *heard) take(b []byte) error {
	if h.version == 0 {
		return nil
	}
	h.rest = append(h.rest, b...)
	for {
		header, reason := packet.ParseHeader(h.rest)
		n := header.Size + header.Remaining
		switch {
		case reason != packet.Success:
			return fmt.Errorf("no packet begins with % x", h.rest[:min(len(h.rest), 20)])
		case header.Size == 0 || len(h.rest) < n:
			return nil
		case h.most > 0 && n > h.most:
			return fmt.Errorf("%v of %d bytes for a client that takes %d", header.Kind, n, h.most) // [MQTT-3.1.2-24]
		case h.over:
			return fmt.Errorf("%v behind the last packet", header.Kind) // [MQTT-3.14.4-1]
		case h.connected && header.Kind == packet.CONNACK, !h.connected && header.Kind != packet.CONNACK && header.Kind != packet.AUTH:
			return fmt.Errorf("%v, connected %v", header.Kind, h.connected) // [MQTT-3.2.0-1] [MQTT-3.2.0-2]
		}
		if reason := h.packet(header, h.rest[header.Size:n:n]); reason != packet.Success {
			return fmt.Errorf("%v does not decode: %v: % x", header.Kind, reason, h.rest[:min(n, 60)])
		}
		h.rest = h.rest[n:]
	}
}

// packet decodes a packet as a client does.
func (h *heard) packet(header packet.Header, body []byte) packet.Reason {
	if reason := packet.CheckFlags(header.Kind, header.Flags, h.version); reason != packet.Success {
		return reason
	}
	five := h.version == packet.V50
	switch header.Kind {
	case packet.CONNACK:
		var in packet.Connack
		reason := in.Decode(body, h.version)
		h.connected, h.over = true, in.Reason != packet.Success
		return reason
	case packet.PUBLISH:
		return h.publish(header.Flags, body)
	case packet.PUBACK, packet.PUBREC, packet.PUBREL, packet.PUBCOMP:
		return new(packet.Ack).Decode(header.Kind, body, h.version)
	case packet.SUBACK:
		return new(packet.Suback).Decode(body, h.version)
	case packet.UNSUBACK:
		return new(packet.Unsuback).Decode(body, h.version)
	case packet.PINGRESP:
		return packet.Success
	case packet.DISCONNECT:
		if h.over = true; five {
			return new(packet.Disconnect).DecodeFromServer(body, h.version)
		}
	case packet.AUTH:
		if five {
			return new(packet.Auth).DecodeFromServer(body)
		}
	}
	return packet.ProtocolError
}

// publish finds a Topic Name that is none [MQTT-3.3.2-2], and a Topic Alias that the client does not take [MQTT-3.1.2-26], or that stands for nothing.
func (h *heard) publish(flags uint8, body []byte) packet.Reason {
	var in packet.Publish
	if reason := in.DecodeFromServer(flags, body, h.version); reason != packet.Success {
		return reason
	}
	switch {
	case in.Alias > h.aliases, len(in.Topic) == 0 && !h.names[in.Alias]:
		return packet.TopicAliasInvalid
	case len(in.Topic) > 0 && !topic.ValidName(in.Topic):
		return packet.TopicNameInvalid
	case in.Alias > 0:
		h.names[in.Alias] = true
	}
	return packet.Success
}

// listen has client i take what has come.
func (r *rig) listen(i int) {
	if r.peers[i] == nil {
		return
	}
	if err := r.heard[i].take(r.hear(r.peers[i])); err != nil {
		r.tb.Fatalf("client %d of version %v got %v", i, r.versions[i], err)
	}
}
