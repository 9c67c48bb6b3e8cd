package broker

import (
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/record"
)

// written counts the records of a kind that a shard hands over with what it has now, and with what becomes of that. batches are all that
// there were.
func (l *lateStore) written(s *Shard, kind record.Kind) (n, batches int) {
	for range 5 {
		s.Persist()
		for _, b := range l.batches {
			batches++
			if err := record.Each(b.ops, func(op record.Op, key, _ []byte) error {
				if op == record.Set && record.Kind(key[0]) == kind {
					n++
				}
				return nil
			}); err != nil {
				panic(err)
			}
		}
		for len(l.batches) > 0 {
			l.commit(s)
		}
	}
	return n, batches
}

// TestAcknowledgedAheadNeedsNoWrite: a message of QoS 1 whose receivers have all acknowledged it before it is committed is not written at all,
// and its publisher is answered all the same. One receiver that has not is enough for it to be written, once.
func TestAcknowledgedAheadNeedsNoWrite(t *testing.T) {
	for acknowledged, want := range []int{2, 1, 0} { // of two receivers
		store := &lateStore{}
		b := newStoreBench(t, store)
		s := b.b.loops[0].shard
		var subs []*hand
		for _, name := range []string{"one", "two"} {
			sub := b.open(0, persistent(name))
			store.all(s)
			sub.subscribeMany(0, 1, "news")
			store.all(s)
			sub.hear()
			subs = append(subs, sub)
		}
		p := b.open(0, transient("p"))
		p.hear()
		p.give(publishBytes("news", 1, 1, 10, p.v))
		for _, sub := range subs[:acknowledged] {
			if got := sub.acknowledge(""); len(got) != 1 {
				t.Fatalf("%d messages came ahead of the store", len(got))
			}
		}
		if got := p.hear(); want > 0 && len(got) > 0 {
			t.Errorf("the publisher is answered before anything is durable: %v", kinds(got))
		}
		if n, _ := store.written(s, record.KindEntry); n != want {
			t.Errorf("%d of 2 have acknowledged: %d entries were written, want %d", acknowledged, n, want)
		}
		if got := kinds(p.hear()); want > 0 && (len(got) != 1 || got[0] != packet.PUBACK) {
			t.Errorf("%d of 2 have acknowledged: the publisher hears %v", acknowledged, got)
		}
	}
}

// TestOthersCauseNoCommit: QoS 0, and Sessions that end with their connections at every QoS, hand nothing over to the store, although kept
// Sessions are there; nor does the passing of time. They do not wait for a batch that is under way either.
func TestOthersCauseNoCommit(t *testing.T) {
	store := &lateStore{}
	b := newStoreBench(t, store)
	s := b.b.loops[0].shard
	kept := b.open(0, persistent("kept"))
	store.all(s)
	kept.subscribeMany(0, 2, "kept", "news/#")
	store.all(s)
	if store.of(record.KindSubscription) != 2 {
		t.Fatal("nothing is kept: the scene is another one")
	}
	p, sub := b.open(0, transient("p")), b.open(0, transient("sub"))
	in := transient("dies")
	in.HasWill, in.Will = true, packet.Will{QoS: 1, Topic: []byte("passing/will"), Payload: []byte("gone")}
	dies := b.open(0, in)
	sub.subscribeMany(0, 2, "passing/#")
	sub.hear()
	before := store.handed
	kept.subscribeMany(0, 1, "more")
	s.Persist()
	if len(store.batches) != 1 {
		t.Fatal("no batch is under way: the scene is another one")
	}
	for i := range uint16(50) {
		p.give(publishBytes("news/x", 0, 0, 1000, p.v)) // to the kept Session, too
		p.give(publishBytes("passing/1", 1, 2*i+1, 1000, p.v))
		p.give(publishBytes("passing/2", 2, 2*i+2, 1000, p.v))
		p.give(packet.AppendAck(nil, packet.PUBREL, 2*i+2, packet.Success, p.v))
		sub.acknowledge("passing/2")
		b.turn(0, int64(i)*1000)
	}
	s.Closed(dies.id, "it ends")
	sub.give(packet.AppendUnsubscribe(nil, &packet.Unsubscribe{PacketID: 1}, [][]byte{[]byte("passing/#")}, sub.v))
	sub.give(packet.AppendDisconnect(nil, &packet.Disconnect{}, sub.v))
	b.settleAll(100_000)
	if got := kinds(p.hear()); len(got) != 1+3*50 {
		t.Errorf("the publisher has %d answers", len(got))
	}
	if store.all(s); len(store.batches) > 0 || len(store.loads) > 0 || store.handed != before+1 {
		t.Errorf("%d batches were handed over, and %d loads: nobody has anything to keep", store.handed-before-1, len(store.loads))
	}
	if got := kept.sizes(); len(got) != 50 {
		t.Errorf("the kept Session got %d messages of QoS 0", len(got))
	}
}
