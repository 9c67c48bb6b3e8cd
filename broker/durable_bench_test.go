package broker

import (
	"fmt"
	"slices"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/record"
)

// instantStore is a store that has everything durable as soon as it is told to.
type instantStore struct{ batches []lateBatch }

func (*instantStore) Boot() uint32                                          { return 1 }
func (*instantStore) LastCommit() int64                                     { return 0 }
func (*instantStore) Accepted() uint32                                      { return 0 }
func (*instantStore) Doubt() uint32                                         { return 0 }
func (*instantStore) Each(record.Kind, func(key, value []byte) error) error { return nil }
func (*instantStore) Load(Load)                                             {}
func (l *instantStore) Commit(shard int, ops []byte) {
	l.batches = append(l.batches, lateBatch{shard, ops})
}

func (l *instantStore) commit(s *Shard) {
	for _, b := range l.batches {
		s.peers[b.shard].Committed(b.ops)
	}
	clear(l.batches)
	l.batches = l.batches[:0]
}

// BenchmarkKept is a burst of QoS 1 messages for a kept Session whose client is away, until they are acknowledged: what the engine does
// beside the store. The Session is on the publisher's shard, or on another one.
func BenchmarkKept(b *testing.B) {
	for shard := range 2 {
		for _, size := range []int{64, 1 << 10, 16 << 10, 64 << 10, 300_000, 1 << 20} {
			b.Run(fmt.Sprintf("shard=%d/bytes=%d", shard, size), func(b *testing.B) { benchmarkKept(b, []int{shard}, size) })
		}
	}
}

// BenchmarkKeptFanOut is the same for several Sessions: on the publisher's shard, on another one, and on three.
func BenchmarkKeptFanOut(b *testing.B) {
	for _, homes := range fanOuts {
		for _, size := range []int{64, 1 << 10, 16 << 10} {
			b.Run(fmt.Sprintf("shards=%d%d%d/bytes=%d", homes[0], homes[1], homes[2], size), func(b *testing.B) { benchmarkKept(b, homes, size) })
		}
	}
}

var fanOuts = [][]int{{0, 0, 0, 0, 0, 0}, {1, 1, 1, 1, 1, 1}, {0, 1, 2, 0, 1, 2}}

func benchmarkKept(b *testing.B, homes []int, size int) {
	burst := min(8, 3<<20/size) // what a shard gathers at most
	once := keptBurst(b, homes, size, burst)
	once()
	b.SetBytes(int64(size * burst))
	b.ReportAllocs()
	for b.Loop() {
		once()
	}
}

func TestKeptDoesNotAllocate(t *testing.T) {
	for _, homes := range append(fanOuts, []int{0}, []int{1}) {
		for _, size := range []int{64, 16 << 10, 300_000} {
			once := keptBurst(t, homes, size, 8)
			for range 20 {
				once()
			}
			if n := testing.AllocsPerRun(100, once); n != 0 {
				t.Errorf("Sessions on %v, %d bytes: %v allocations for 8 messages", homes, size, n)
			}
		}
	}
}

// TestContributionsShareTheirMessage has several kept Sessions of one shard, whose clients are connected, receive what a client of another one
// publishes: the message is written once.
func TestContributionsShareTheirMessage(t *testing.T) {
	store := &lateStore{}
	b := newBenchOf(t, Limits{Memory: 256 << 20, Shards: 2, MaxConnections: 100, MaxSubscriptions: 100, MaxRetained: 100, StoreBytes: 4 << 20}, store)
	work := func() {
		for range 5 {
			for _, l := range b.b.loops {
				l.shard.Exchange()
				l.shard.Persist()
				l.flush()
				store.commit(l.shard)
			}
		}
	}
	const receivers = 5
	var subs []*hand
	for i := range receivers {
		sub := b.open(1, persistent(fmt.Sprint("sub", i)))
		work()
		sub.subscribeMany(0, 1, "news")
		work()
		sub.hear()
		subs = append(subs, sub)
	}
	p := b.open(0, transient("p"))
	work()
	p.give(publishBytes("news", 1, 1, sharedBodyMin, p.v))
	work()
	if n, refs := store.of(record.KindMessage), store.of(record.KindReference); n != 1 || refs != receivers || store.of(record.KindEntry) != receivers {
		t.Errorf("%d messages and %d references were written, and %d entries", n, refs, store.of(record.KindEntry))
	}
	for i, sub := range subs {
		got := sub.hear()
		if len(got) != 1 {
			t.Fatalf("receiver %d: %d packets", i, len(got))
		}
		var in packet.Publish
		if in.Decode(got[0].flags, got[0].body, sub.v) != packet.Success {
			t.Fatal("no PUBLISH")
		}
		sub.give(packet.AppendAck(nil, packet.PUBACK, in.PacketID, packet.Success, sub.v))
	}
	work()
	if refs, n := store.of(record.KindReference), store.of(record.KindEntry); refs+n != 0 {
		t.Errorf("%d references and %d entries are left", refs, n)
	}
}

// keptBurst makes a publisher on shard 0 and kept Sessions whose clients are away, and returns what publishes a burst and has it made durable.
func keptBurst(tb testing.TB, homes []int, size, burst int) func() {
	store := &instantStore{}
	t := newBenchOf(tb, Limits{Memory: 256 << 20, Shards: slices.Max(homes) + 1, MaxConnections: 100, MaxSubscriptions: 100, MaxRetained: 100, StoreBytes: 104 << 20}, store)
	work := func() {
		for range 4 {
			for _, l := range t.b.loops {
				l.shard.Exchange()
				l.shard.Persist()
				l.flush()
			}
			store.commit(t.b.loops[0].shard)
		}
	}
	for i, home := range homes {
		sub := t.open(home, persistent(fmt.Sprint("sub", i)))
		work()
		sub.subscribeMany(0, 1, "news")
		work()
		sub.give(packet.AppendDisconnect(nil, &packet.Disconnect{}, sub.v))
		work()
	}
	p := t.connect(0, "p", packet.V50)
	work()
	var in [][]byte
	for i := range burst {
		in = append(in, publishBytes("news", 1, uint16(i+1), size, packet.V50))
	}
	acknowledged := 0
	return func() {
		before := p.net.bytes
		for _, raw := range in {
			p.say(raw)
		}
		work()
		if acknowledged++; p.net.bytes-before < burst*4 {
			tb.Fatalf("burst %d: only %d bytes came back", acknowledged, p.net.bytes-before)
		}
	}
}
