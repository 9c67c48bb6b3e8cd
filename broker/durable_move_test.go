package broker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/record"
)

// newStoreBenchOf is a bench of several shards with a store, and with a window of so many messages.
func newStoreBenchOf(tb testing.TB, store Store, shards, window int) *bench {
	tb.Helper()
	return newBenchOf(tb, Limits{Memory: 64 << 20, Shards: shards, MaxConnections: 100, MaxSubscriptions: 100, MaxRetained: 100, MaxInflight: window,
		StoreBytes: 4 << 20}, store)
}

// settleStored gives every shard turns, and makes what they have for the store durable, until nothing moves any more.
func (t *bench) settleStored(store *lateStore, now int64) {
	for range 10 {
		for i, l := range t.b.loops {
			t.turn(i, now)
			store.all(l.shard)
			store.answer(l.shard)
		}
	}
}

// acknowledge answers each PUBLISH of QoS 1 but those to a topic, and says to what topics they were.
func (h *hand) acknowledge(but string) (topics []string) {
	var pub packet.Publish
	for _, p := range h.hear() {
		if p.kind != packet.PUBLISH || pub.Decode(p.flags, p.body, h.v) != packet.Success {
			continue
		}
		topics = append(topics, string(pub.Topic))
		if pub.QoS > 0 && string(pub.Topic) != but {
			h.give(packet.AppendAck(nil, packet.PUBACK, pub.PacketID, packet.Success, h.v))
		}
	}
	return topics
}

// TestAcknowledgedWhileItsSessionLeaves has a message acknowledged before its publisher's shard has it durable, and that become so when
// the Session is about to leave for another shard: nothing else has to be written then, and yet the message must be deleted.
func TestAcknowledgedWhileItsSessionLeaves(t *testing.T) {
	store := &lateStore{}
	b := newStoreBenchOf(t, store, 2, 20)
	x := b.open(0, persistent("x"))
	store.all(x.s)
	x.subscribeMany(0, 1, "news")
	store.all(x.s)
	p := b.open(1, transient("p"))
	p.give(publishBytes("news", 1, 1, 10, packet.V50))
	b.turn(0, 0)
	if got := x.acknowledge(""); fmt.Sprint(got) != "[news]" {
		t.Fatalf("got %v", got)
	}
	store.all(x.s)
	again := b.open(1, persistent("x"))
	b.turn(0, 0) // The claim is there.
	b.turn(1, 0) // What shard 0 has contributed is there: this hands over.
	if len(store.batches) != 1 || store.batches[0].shard != 1 {
		t.Fatalf("%d batches are under way: the scene is another one", len(store.batches))
	}
	store.commit(p.s)
	b.turn(0, 0) // The Session leaves.
	if sess := b.session("x"); sess.home.Load() != 1 {
		t.Fatal("the Session has not left: the scene is another one")
	}
	b.settleStored(store, 0)
	if n := store.of(record.KindEntry); n != 0 || !again.live() {
		t.Errorf("%d messages are left on disk that were acknowledged: they come again after a restart; connected: %v", n, again.live())
	}
}

// TestSessionThatLeavesWaitsAsleep has a Session wait for the store before it leaves: its shard does not go round and round meanwhile.
func TestSessionThatLeavesWaitsAsleep(t *testing.T) {
	store := &lateStore{}
	b := newStoreBenchOf(t, store, 2, 20)
	x := b.open(0, persistent("x"))
	store.all(x.s)
	x.subscribeMany(0, 1, "news")
	again := b.open(1, persistent("x"))
	for now := range int64(5) {
		b.turn(0, now)
	}
	if sess := b.session("x"); sess.home.Load() != 0 || len(x.s.partings) != 1 {
		t.Fatal("the Session does not wait for the store: the scene is another one")
	}
	if at := x.s.Deadline(); at <= x.s.now || x.s.IsParting() {
		t.Errorf("its shard has nothing to do, and is to have its next turn at %d ms; it is %d now", at, x.s.now)
	}
	store.commit(x.s)
	if at := x.s.Deadline(); at != x.s.now {
		t.Errorf("the store has answered: the next turn is to be now, at %d, not at %d", x.s.now, at)
	}
	b.settleStored(store, 5)
	if !again.live() {
		t.Error("the connection on the other shard did not get the Session")
	}
}

// TestLoadForAConnectionThatEnds has a connection end when its queue is about to be loaded from disk: before that what there is for the store
// is handed over, there is nothing to write, and there is no memory for the PUBACK that is due with that. The oldest message in flight is
// not durable yet, and goes to disk later. The next connection gets it, and everything else.
func TestLoadForAConnectionThatEnds(t *testing.T) {
	const messages = 700
	store := &lateStore{}
	b := newStoreBenchOf(t, store, 2, 20)
	y := b.open(0, persistent("y"))
	store.all(y.s)
	y.subscribeMany(0, 1, "y")
	store.all(y.s)
	x, got := b.withBacklog(store, messages)
	b.endBeforeLoad(store, x, y)
	b.turn(0, 0)
	b.turn(1, 0)
	for len(store.batches) > 0 {
		store.commit(x.s)
	}
	b.turn(0, 0)
	if sess := b.session("x"); sess.sent.n != 0 {
		t.Fatal("what was in flight is not on disk: the scene is another one")
	}
	again := b.open(0, persistent("x"))
	for range 60 {
		b.settleStored(store, 0)
		got = append(got, again.acknowledge("")...)
	}
	slices.Sort(got)
	if n := len(slices.Compact(got)); n != messages {
		t.Errorf("%d of %d messages came", n, messages)
	}
	if n := store.of(record.KindEntry); n != 0 {
		t.Errorf("%d messages are left on disk", n)
	}
}

// withBacklog is a client of shard 0 with more messages than are kept in memory. The first is from shard 1, which stands still from then
// on, and is not acknowledged. The client takes the others until more is to be loaded, which waits for a SUBACK. got is what came.
func (t *bench) withBacklog(store *lateStore, messages int) (x *hand, got []string) {
	t.tb.Helper()
	x = t.open(0, persistent("x"))
	s := x.s
	store.all(s)
	x.subscribeMany(0, 1, "news/#")
	store.all(s)
	t.open(1, transient("far")).give(publishBytes("news/0", 1, 1, 10, packet.V50))
	t.turn(0, 0)
	near := t.open(0, transient("near"))
	for i := 1; i < messages; i++ {
		near.give(publishBytes(fmt.Sprint("news/", i), 1, uint16(i), 10, packet.V50))
		if i%50 == 49 {
			store.all(s)
		}
	}
	store.all(s)
	sess := t.session("x")
	if !sess.kept.disk.any {
		t.tb.Fatal("nothing is on disk only: the scene is another one")
	}
	x.subscribeMany(0, 1, "other")
	for sess.wait.n > fetchEntries/2 {
		got = append(got, x.acknowledge("news/0")...)
	}
	got = append(got, x.acknowledge("news/0")...)
	return x, slices.DeleteFunc(got, func(topic string) bool { return topic == "news/0" })
}

// endBeforeLoad has a client publish what need not be written any more when it can be, as its receiver, y, has acknowledged it, and ends
// the client's connection with the PUBACK for that: there is no memory for it behind SUBACK.
func (t *bench) endBeforeLoad(store *lateStore, x, y *hand) {
	t.tb.Helper()
	s := x.s
	s.Persist()
	x.give(publishBytes("y", 1, 1, 10, packet.V50))
	y.acknowledge("")
	x.hear()
	for range (pageSize - 6) / 2 { // SUBACK takes 6 bytes: there is no room in the page for PUBACK.
		x.give(packet.AppendPingreq(nil))
	}
	if len(store.loads) != 0 || s.conns[x.id].unacked != 1 || s.stream.ready != s.stream.next() {
		t.tb.Fatalf("%d loads, %d to be acknowledged: the scene is another one", len(store.loads), s.conns[x.id].unacked)
	}
	restore := t.exhaust(0, true)
	store.commit(s)
	restore()
	if x.live() {
		t.tb.Fatalf("the connection is still there: the scene is another one; %s", s.counters.String())
	}
}

// TestLoadIsAskedForOnce has a client come back to a queue on disk when a later message has become durable elsewhere, which its shard finds out
// when it hands over what comes before the load: its Session goes on then, and loads.
func TestLoadIsAskedForOnce(t *testing.T) {
	store := &lateStore{}
	b := newStoreBenchOf(t, store, 2, 20)
	x := b.open(0, persistent("x"))
	store.all(x.s)
	x.subscribeMany(0, 1, "news")
	store.all(x.s)
	x.s.Closed(x.id, "it ends")
	b.open(0, transient("near")).give(publishBytes("news", 1, 1, 10, packet.V50))
	store.all(x.s)
	b.open(1, transient("far")).give(publishBytes("news", 1, 1, 10, packet.V50))
	b.turn(0, 0)
	store.all(x.s)
	b.turn(1, 0)
	store.commit(x.s)
	if sess := b.session("x"); !sess.kept.disk.any || sess.awaits == 0 {
		t.Fatal("the Session does not wait for the other shard's ticket: the scene is another one")
	}
	again := b.open(0, persistent("x"))
	if len(store.loads) != 1 {
		t.Errorf("%d loads are under way; want 1", len(store.loads))
	}
	b.settleStored(store, 0)
	if got := again.acknowledge(""); len(got) != 2 {
		t.Errorf("%d messages came; want 2", len(got))
	}
}

// TestLossWhileMoving has the store lose a Session and its subscription at each moment of its way to another shard, with turns and commits in many orders:
// when all shards have written anew what they have, which is what acknowledgements wait for, it is there.
func TestLossWhileMoving(t *testing.T) {
	moved := 0
	for seed := range uint64(100) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { moved += loseWhileMoving(t, seed) })
	}
	if moved == 0 {
		t.Error("it was never on its way: the scene is another one")
	}
}

// loseWhileMoving says whether the Session was on its way when the store lost it.
func loseWhileMoving(t *testing.T, seed uint64) (moved int) {
	random := rand.New(rand.NewPCG(seed, 0))
	store := &lateStore{}
	b := newStoreBenchOf(t, store, 2, 20)
	x := b.open(0, persistent("x"))
	store.all(x.s)
	x.subscribeMany(0, 1, "news")
	store.all(x.s)
	if seed%2 == 0 {
		x.s.Closed(x.id, "it ends")
		store.all(x.s)
	}
	b.open(1, persistent("x"))
	at := random.IntN(12)
	for step := range 40 {
		if step == at {
			store.lose()
		}
		switch what := random.IntN(4); what {
		case 0:
			store.commit(x.s)
		case 1: // One is slow.
			b.turn(int(seed/2%2), 0)
		default:
			b.turn(what-2, 0)
		}
		if n := store.of(record.KindSession) + store.of(record.KindSubscription); n != 2 && x.s.isWhole() {
			t.Fatalf("lost at step %d: at step %d there are %d of 2 records of a Session with a subscription", at, step, n)
		}
		if step == at && b.session("x").arriving {
			moved++
		}
	}
	b.settleStored(store, 0)
	if n := store.of(record.KindSession) + store.of(record.KindSubscription); n != 2 || !x.s.isWhole() {
		t.Fatalf("lost at step %d: at the end there are %d of 2 records of a Session with a subscription", at, n)
	}
	return moved
}

// TestLossBeforeMoving has a Session leave a shard that has not come to it yet, writing anew what the store has lost, for one that has done so: it is written
// all the same before both are thought to have.
func TestLossBeforeMoving(t *testing.T) {
	store := &lateStore{}
	b := newStoreBenchOf(t, store, 2, 20)
	keep := func(in packet.Connect) *hand {
		h := b.open(0, in)
		store.all(h.s)
		h.s.Closed(h.id, "it ends")
		store.all(h.s)
		return h
	}
	const others = 20
	last := &b.b.world.registry.parts[registryParts-1]
	for n, kept := 0, 0; kept < others; n++ {
		other := persistent(fmt.Sprint("other", n))
		if b.b.world.registry.part(string(other.ClientID)) == last {
			continue
		}
		other.HasWill, other.Will = true, packet.Will{Topic: []byte("w"), Payload: make([]byte, 60_000), DelayInterval: 1000}
		keep(other)
		kept++
	}
	name := "x"
	for b.b.world.registry.part(name) != last { // which is written last
		name += "x"
	}
	x := keep(persistent(name))
	store.lose()
	b.turn(1, 0)
	b.open(1, persistent(name))
	b.turn(0, 0)
	b.turn(0, 0)
	if sess := b.session(name); sess.home.Load() != 1 || x.s.isWhole() {
		t.Fatal("the Session has not left, or all is written: the scene is another one")
	}
	for range others {
		store.commit(x.s)
		b.turn(0, 0)
	}
	if n := store.of(record.KindSession); n != others+1 || !x.s.isWhole() {
		t.Errorf("%d of %d Sessions are written", n, others+1)
	}
}
