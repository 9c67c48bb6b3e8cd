package broker

import (
	"bytes"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// TestAliasOfAnyLength publishes by alias to Topic Names around a page's length and of the greatest: every alias within
// the maximum must be accepted [MQTT-3.3.2-11].
func TestAliasOfAnyLength(t *testing.T) {
	b := newBench(t, 1, nil)
	p, c := b.connect(0, "p", packet.V50), b.connect(0, "s", packet.V50)
	c.subscribe("#", 1)
	for i, n := range []int{1, 63, 64, pageSize - 1, pageSize, pageSize + 1, 65535} {
		name := []byte(strings.Repeat("x", n))
		for k, topic := range [][]byte{name, nil} {
			h := &packet.PublishHead{Flags: packet.PublishFlags(false, 1, false), Topic: topic, PacketID: 1, Alias: uint16(i + 1)}
			p.say(packet.AppendPublish(nil, h, []byte("payload"), packet.V50))
			got, reason := packet.ParseHeader(c.net.last)
			var in packet.Publish
			if reason == packet.Success {
				reason = in.DecodeFromServer(got.Flags, c.net.last[got.Size:], packet.V50)
			}
			if reason != packet.Success || !bytes.Equal(in.Topic, name) || string(in.Payload) != "payload" {
				t.Fatalf("a Topic Name of %d bytes, step %d: %v, %d bytes of topic, payload %q", n, k, reason, len(in.Topic), in.Payload)
			}
			c.say(packet.AppendAck(nil, packet.PUBACK, in.PacketID, packet.Success, packet.V50))
		}
	}
}
