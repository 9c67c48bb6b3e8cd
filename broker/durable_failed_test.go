package broker

import (
	"slices"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// TestExactlyOnceWithoutMemory: a PUBLISH of QoS 2 for which one shard has no memory is not acknowledged, and nobody gets it, wherever the memory
// is missing; sent again, everybody gets it once [MQTT-4.3.3-1].
func TestExactlyOnceWithoutMemory(t *testing.T) {
	for publisher := range 2 {
		store := &lateStore{}
		b := newStoreBenchOf(t, store, 2, 10)
		kept, near, far := b.open(1, persistent("kept")), b.open(1, transient("near")), b.open(0, transient("far"))
		in := persistent("p")
		in.Version = packet.V311
		p := b.open(publisher, in)
		all := []*hand{kept, near, far}
		b.settleStored(store, 1)
		for _, c := range all {
			c.subscribeMany(0, 2, "t")
		}
		b.settleStored(store, 2)
		for _, c := range append(all, p) {
			c.hear()
		}
		taken := kept.s.entrySlots
		kept.s.entrySlots = slotCache{s: &slots{}}
		p.give(publishBytes("t", 2, 1, 10, p.v))
		b.settleStored(store, 3)
		kept.s.entrySlots = taken
		for _, c := range all {
			if heard := kinds(c.hear()); len(heard) > 0 {
				t.Errorf("publisher on %d: %v before it is acknowledged", publisher, heard)
			}
		}
		p = b.open(publisher, in)
		b.settleStored(store, 4)
		again := publishBytes("t", 2, 1, 10, p.v)
		again[0] |= 8
		p.give(again)
		b.settleStored(store, 5)
		for _, c := range all {
			if heard := kinds(c.hear()); !slices.Equal(heard, []packet.Kind{packet.PUBLISH}) {
				t.Errorf("publisher on %d: heard %v", publisher, heard)
			}
		}
	}
}
