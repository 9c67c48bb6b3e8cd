package broker

import (
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// TestIdentifiersComeRoundBehindPubrel has Packet Identifiers come round while PUBREL stands before an older message, because it did not wait
// for the Receive Maximum: that one's is passed over too [MQTT-2.2.1-4].
func TestIdentifiersComeRoundBehindPubrel(t *testing.T) {
	b := newBench(t, 1, nil)
	first := b.open(0, persistent("x"))
	first.subscribeMany(0, 2, "news")
	p := b.open(0, transient("p"))
	for i, qos := range []uint8{1, 1, 1, 2} {
		p.give(publishBytes("news", qos, uint16(i+1), 1, packet.V50))
	}
	first.give(packet.AppendAck(nil, packet.PUBREC, 4, packet.Success, packet.V50))
	first.s.Closed(first.id, closedByClient)
	in := persistent("x")
	in.ReceiveMaximum = 3
	h := b.open(0, in)
	for _, id := range []uint16{2, 3} {
		h.give(packet.AppendAck(nil, packet.PUBACK, id, packet.Success, packet.V50))
	}
	sess := b.session("x")
	if sess.sent.n != 2 || h.s.entries[sess.sent.head].pid != 4 {
		t.Fatalf("%d are in flight, the first with %d; want 4 and 1: the scene is another one", sess.sent.n, h.s.entries[sess.sent.head].pid)
	}
	h.loop.flush()
	h.hear()
	sess.lastPID = 65535
	p.give(publishBytes("news", 1, 5, 1, packet.V50))
	h.loop.flush()
	var pub packet.Publish
	for _, got := range h.hear() {
		pub.Decode(got.flags, got.body, packet.V50)
	}
	if pub.PacketID != 2 {
		t.Errorf("the next message has Packet Identifier %d; want 2: 1 is in use", pub.PacketID)
	}
}
