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

// TestQoS0DoesNotFillTheDisk: a message of QoS 2 that a client subscribed to with QoS 0 waits until it is durable. Does the client leave
// meanwhile, it has no place on disk, and counts for nothing there.
func TestQoS0DoesNotFillTheDisk(t *testing.T) {
	store := &lateStore{}
	b := newStoreBenchOf(t, store, 2, 10)
	kept, p := b.open(1, persistent("kept")), b.open(0, persistent("p"))
	b.settleStored(store, 1)
	kept.subscribeMany(0, 0, "t")
	kept.subscribeMany(0, 1, "u")
	b.settleStored(store, 2)
	p.give(publishBytes("t", 2, 1, 10, p.v))
	p.give(publishBytes("u", 2, 2, 10, p.v))
	b.settleAll(3)
	sess := b.session("kept")
	waits := sess.wait.n
	kept.s.Closed(kept.id, "reset")
	b.settleStored(store, 4)
	if d := sess.kept.disk; waits != 2 || d.waiting != 1 {
		t.Errorf("%d waited, and the disk has %+v", waits, d)
	}
}
