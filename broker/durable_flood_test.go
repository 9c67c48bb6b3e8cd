package broker

import (
	"runtime"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// TestFloodBeforeStoreThatStandsStill has one client say the same again and again while the store does nothing: whatever it says, what waits for
// the store is bounded, as it is for PUBLISH and SUBSCRIBE, and so is the memory that it takes.
func TestFloodBeforeStoreThatStandsStill(t *testing.T) {
	unsubscribe := packet.AppendUnsubscribe(nil, &packet.Unsubscribe{PacketID: 1}, [][]byte{[]byte("a")}, packet.V50)
	for name, raw := range map[string][]byte{
		"PUBLISH":                publishBytes("one", 1, 1, 10, packet.V50),
		"SUBSCRIBE":              packet.AppendSubscribe(nil, &packet.Subscribe{PacketID: 1}, []packet.Subscription{{Filter: []byte("two")}}, packet.V50),
		"UNSUBSCRIBE":            unsubscribe,
		"PUBREL of nothing":      packet.AppendAck(nil, packet.PUBREL, 7, packet.Success, packet.V50),
		"PUBREC of nothing":      packet.AppendAck(nil, packet.PUBREC, 7, packet.Success, packet.V50),
		"UNSUBSCRIBE and PUBREL": append(packet.AppendAck(nil, packet.PUBREL, 7, packet.Success, packet.V50), unsubscribe...),
	} {
		t.Run(name, func(t *testing.T) {
			store := &lateStore{}
			b, x := floodScene(t, store)
			s := x.s
			before := heapBytes()
			const n = 200_000
			for range n {
				x.give(raw)
				if s.Persist(); s.conns[x.id].is(connPaused) || !x.live() {
					break
				}
			}
			boundedStream(t, s, before)
			runtime.KeepAlive(b)
		})
	}
}

// TestReconnectsBeforeStoreThatStandsStill has one client connect to its kept Session, which expires, and go, again and again.
func TestReconnectsBeforeStoreThatStandsStill(t *testing.T) {
	store := &lateStore{}
	b, x := floodScene(t, store)
	s := x.s
	in := persistent("x")
	in.SessionExpiry = 3600
	s.Closed(x.id, "reset")
	b.b.Refuse(RefuseMessages) // as the store says when it cannot be written
	before := heapBytes()
	const n = 20_000
	for i := range n {
		x = b.open(0, in)
		b.turn(0, int64(i))
		s.Closed(x.id, "given up")
		b.turn(0, int64(i))
	}
	boundedStream(t, s, before)
}

// boundedStream finds that no more waits for the store than a shard may gather, and takes a Go heap that was so large before.
func boundedStream(t *testing.T, s *Shard, before uint64) {
	t.Helper()
	waits, bytes := len(s.stream.actions)+len(s.stream.tickets), len(s.stream.ops)
	if waits > 2*ticketsMax || bytes > 3*s.limits.streamBytes() { // as it is planned: see Limits.plan
		t.Errorf("%d answers and %d bytes of records wait for the store; %d and %d is what a shard gathers", waits, bytes, ticketsMax, s.limits.streamBytes())
	}
	// Each answer that waits has some 100 bytes of its own.
	if grown, most := int64(heapBytes())-int64(before), int64(2*s.limits.streamBytes()+ticketsMax*200); grown > most {
		t.Errorf("the heap has grown by %d KiB while the store stood still; %d would do", grown>>10, most>>10)
	}
}

// floodScene is a client with a kept Session whose last batch is under way for ever.
func floodScene(t *testing.T, store *lateStore) (*bench, *hand) {
	t.Helper()
	b := newStoreBench(t, store)
	x := b.open(0, persistent("x"))
	store.all(x.s)
	x.subscribeMany(0, 1, "one")
	store.all(x.s)
	x.hear()
	x.subscribeMany(0, 1, "two")
	x.s.Persist()
	if len(store.batches) != 1 {
		t.Fatal("no batch is under way: the scene is another one")
	}
	return b, x
}

func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
