package broker

import (
	"fmt"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// streamBench is a broker of one shard with as little room for the store as there is.
func streamBench(t *testing.T, store Store) (*bench, *Shard) {
	b := newBenchOf(t, Limits{Memory: 64 << 20, Shards: 1, MaxConnections: 100, MaxSubscriptions: 100, MaxRetained: 1000, QueueOnDisk: true,
		StoreBytes: 4 << 20}, store)
	return b, b.b.loops[0].shard
}

// TestRetainedLogCountsUntilCommitted has so many Retained Messages wait for one commit that the stream is full of them, and of nothing else: when they
// are durable there is room again, though nothing is handed over any more.
func TestRetainedLogCountsUntilCommitted(t *testing.T) {
	store := &lateStore{}
	b, s := streamBench(t, store)
	p := b.open(0, transient("p"))
	retain := func(i int) {
		h := &packet.PublishHead{Flags: packet.PublishFlags(false, 1, true), Topic: []byte(fmt.Sprint("t", i)), PacketID: uint16(i), PayloadSize: 3000}
		p.give(append(packet.AppendPublishHead(nil, h, packet.V50), make([]byte, 3000)...))
	}
	retain(1)
	s.Persist() // it is under way
	last := 2
	for ; last < 1000 && !s.conns[p.id].is(connStalled); last++ {
		retain(last)
	}
	if !s.conns[p.id].is(connStalled) || int(s.retainedLog.size.Load()) < s.limits.streamBytes() {
		t.Fatal("the scene is another one")
	}
	for round := range 5 {
		store.commit(s)
		b.turn(0, int64(1000*(round+1)))
	}
	if n := len(p.hear()); n != last || s.stream.size() != 0 {
		t.Errorf("%d of %d are acknowledged, %d bytes wait for the store", n, last, s.stream.size())
	}
}
