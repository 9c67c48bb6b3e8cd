package broker

import (
	"fmt"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/record"
)

// acknowledgedEarly has a client of shard 0 get a, b and c from shard 1 and acknowledge b before that is durable. Then all of them are, and shard 0 has
// not heard of it.
func (t *bench) acknowledgedEarly(store *lateStore, filter string) (x *hand) {
	x = t.open(0, persistent("x"))
	store.all(x.s)
	x.subscribeMany(0, 1, filter)
	t.settleStored(store, 0)
	p := t.open(1, transient("p"))
	for i, name := range []string{"a", "b", "c"} {
		p.give(publishBytes(name, 1, uint16(i+1), 10, packet.V50))
	}
	t.turn(0, 0)
	var pub packet.Publish
	for _, h := range x.hear() {
		if h.kind == packet.PUBLISH && pub.Decode(h.flags, h.body, x.v) == packet.Success && string(pub.Topic) == "b" {
			x.give(packet.AppendAck(nil, packet.PUBACK, pub.PacketID, packet.Success, x.v))
		}
	}
	t.turn(1, 0) // What shard 0 has contributed is there: this hands over.
	store.all(p.s)
	if n, left := store.of(record.KindEntry), t.session("x").kept.undeleted; n != 3 || left != 1 {
		t.tb.Fatalf("%d messages are durable, %d of them acknowledged: the scene is another one", n, left)
	}
	return x
}

// TestAcknowledgedIsNotLoaded has the connection end then, so that what is in flight goes to disk: the message that was acknowledged stands between
// the others there, and does not come back with them [MQTT-4.4.0-1].
func TestAcknowledgedIsNotLoaded(t *testing.T) {
	store := &lateStore{}
	b := newStoreBenchOf(t, store, 2, 20)
	x := b.acknowledgedEarly(store, "#")
	x.s.Closed(x.id, "reset")
	if d := b.session("x").kept.disk; !d.any || d.to-d.from != 2 {
		t.Fatalf("on disk is %+v: the scene is another one", d)
	}
	again := b.open(0, persistent("x"))
	store.answer(x.s) // before shard 0 has handed over that it deletes b
	var got []string
	for range 5 {
		b.settleStored(store, 0)
		got = append(got, again.acknowledge("")...)
	}
	if fmt.Sprint(got) != "[a c]" {
		t.Errorf("got %v again, not a and c", got)
	}
	if n := store.of(record.KindEntry); n != 0 {
		t.Errorf("%d messages are left on disk", n)
	}
}

// TestAcknowledgedIsNotPassedOn is the same for a Session that ends: another member of its Shared Subscription gets the others.
func TestAcknowledgedIsNotPassedOn(t *testing.T) {
	store := &lateStore{}
	b := newStoreBenchOf(t, store, 2, 20)
	x := b.acknowledgedEarly(store, "$share/g/#")
	z := b.open(0, transient("z"))
	z.subscribeMany(0, 1, "$share/g/#")
	in := persistent("x")
	in.CleanStart = true
	again := b.open(0, in)
	var got []string
	for range 5 {
		b.settleStored(store, 0)
		got = append(got, z.acknowledge("")...)
	}
	if fmt.Sprint(got) != "[a c]" || !again.live() || x.live() {
		t.Errorf("the other member got %v, not a and c; connected: %v", got, again.live())
	}
	if n := len(z.s.stream.passed); n != 0 {
		t.Errorf("what %d Sessions have passed on is not forgotten", n)
	}
}
