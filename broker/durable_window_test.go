package broker

import (
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// TestSlowKeptReaderCostsOnlyItself has a kept Session whose client takes nothing get several times as many bytes in large messages as there is memory
// for. Nobody's PUBLISH is refused, another reader gets its own, and in the end the client gets all, in order.
func TestSlowKeptReaderCostsOnlyItself(t *testing.T) {
	const messages, size = 700, 200_000
	store := &lateStore{}
	b := newBenchOf(t, Limits{Memory: 128 << 20, Shards: 1, MaxConnections: 100, MaxSubscriptions: 100, MaxRetained: 100, StoreBytes: 16 << 20},
		store)
	s := b.b.loops[0].shard
	slow, other := b.open(0, persistent("slow")), b.open(0, transient("other"))
	p, q := b.open(0, transient("p")), b.open(0, transient("q"))
	store.all(s)
	slow.subscribeMany(0, 1, "news")
	other.subscribeMany(0, 1, "other")
	store.all(s)
	slow.hear()
	refused := func(h *hand) (n int) {
		for _, a := range h.hear() {
			if a.kind == packet.PUBACK && len(a.body) > 2 && a.body[2] >= 0x80 {
				n++
			}
		}
		return n
	}
	slow.net.window = 0 // it takes nothing
	most := int64(0)
	for i := range messages {
		p.give(publishBytes("news", 1, uint16(i+1), size+i, p.v))
		store.all(s)
		if n := refused(p); n > 0 {
			t.Fatalf("PUBLISH %d is refused", i)
		}
		most = max(most, b.session("slow").waitBytes)
	}
	if bound := s.limits.keptBytes() + 2*size; most > bound {
		t.Errorf("%d bytes wait in memory, more than %d", most, bound)
	}
	for i := range 20 {
		q.give(publishBytes("other", 1, uint16(i+1), size, q.v))
		store.all(s)
		other.acknowledge("")
	}
	if n := refused(q); n > 0 {
		t.Errorf("%d PUBLISH of another client to another reader are refused", n)
	}
	slow.net.window = -1
	slow.loop.handle(&Event{Kind: Writable, Token: token(slow.id, s.conns[slow.id].generation)})
	got := 0
	var pub packet.Publish
	var unacked [][]byte
	for i := range 20 * messages {
		for _, in := range slow.hear() {
			if in.kind != packet.PUBLISH || pub.Decode(in.flags, in.body, slow.v) != packet.Success {
				continue
			}
			if len(pub.Payload) != size+got {
				t.Fatalf("message %d comes as number %d", len(pub.Payload)-size, got)
			}
			got++
			unacked = append(unacked, packet.AppendAck(nil, packet.PUBACK, pub.PacketID, packet.Success, slow.v))
		}
		for ; i > 2*messages && len(unacked) > 0; unacked = unacked[1:] { // first what it has in flight is all it gets
			slow.give(unacked[0])
		}
		store.all(s)
		store.answer(s)
		if most = max(most, b.session("slow").waitBytes); got == messages {
			break
		}
		b.turn(0, int64(i))
	}
	if bound := s.limits.keptBytes() + 2*size + fetchBytes; got != messages || most > bound {
		t.Errorf("%d of %d came; %d bytes waited in memory, the bound is %d", got, messages, most, bound)
	}
}
