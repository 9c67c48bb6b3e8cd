package broker

import (
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// TestMoreIdentifiersThanAnEntryHolds has a message match more Subscriptions of a Session than one entry has room for Subscription
// Identifiers: all of them come, in more than one copy if need be [MQTT-3.3.4-4] [MQTT-3.3.4-5].
func TestMoreIdentifiersThanAnEntryHolds(t *testing.T) {
	const levels = 11
	for qos := range uint8(2) {
		b := newBench(t, 1, func(l *Limits) { l.MaxSubscriptions = 2 << levels })
		h := b.open(0, persistent("x"))
		for n := range 1 << levels {
			filter := []byte("many")
			for level := range levels {
				filter = append(filter, [2]string{"/x", "/+"}[n>>level&1]...)
			}
			h.give(packet.AppendSubscribe(nil, &packet.Subscribe{PacketID: 1, SubscriptionID: uint32(n + 1)},
				[]packet.Subscription{{Filter: filter, Options: packet.Options{QoS: qos}}}, packet.V50))
		}
		b.settleAll(0)
		h.hear()
		b.open(0, transient("p")).give(publishBytes("many/x/x/x/x/x/x/x/x/x/x/x", qos, 1, 10, packet.V50))
		b.settleAll(0)
		seen := map[uint32]int{}
		for _, p := range h.hear() {
			var pub packet.Publish
			if r := pub.DecodeFromServer(p.flags, p.body, packet.V50); p.kind != packet.PUBLISH || r != packet.Success || pub.QoS != qos {
				t.Fatalf("QoS %d: got a %v of QoS %d: %v", qos, p.kind, pub.QoS, r)
			}
			ids := pub.SubscriptionIDs()
			for id, ok := ids.Next(); ok; id, ok = ids.Next() {
				seen[id]++
			}
		}
		for id := range uint32(1 << levels) {
			if seen[id+1] != 1 {
				t.Fatalf("QoS %d: Subscription Identifier %d came %d times; %d of %d came", qos, id+1, seen[id+1], len(seen), 1<<levels)
			}
		}
	}
}
