package broker

import (
	"slices"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// On a plane that may show bytes late, a connection waits for its Session until the older connection has been read: it is that one's
// heir. Meanwhile there may be others, on this shard and elsewhere.

// arriving has a Session whose last PUBREL was not answered move from shard 1 to shard 0, whose plane is late: it has a connection there, and
// is arriving for as long as shard 2 has nothing to say.
func (t *bench) arriving() *hand {
	t.tb.Helper()
	old := t.open(1, persistent("x"))
	old.subscribeMany(0, 2, "news")
	old.hear()
	t.open(1, transient("p")).give(publishBytes("news", 2, 1, 10, packet.V50))
	var pub packet.Publish
	for _, p := range old.hear() {
		if p.kind == packet.PUBLISH {
			pub.Decode(p.flags, p.body, packet.V50)
			old.give(packet.AppendAck(nil, packet.PUBREC, pub.PacketID, packet.Success, packet.V50))
		}
	}
	if got := kinds(old.hear()); !slices.Equal(got, []packet.Kind{packet.PUBREL}) {
		t.tb.Fatalf("PUBREC is answered by %v", got)
	}
	old.s.Closed(old.id, "it ends")
	t.b.loops[0].shard.isLate = true
	h := t.open(0, persistent("x"))
	for _, shard := range []int{1, 0, 1} {
		t.turn(shard, 0)
	}
	if got := kinds(h.hear()); !slices.Equal(got, []packet.Kind{packet.CONNACK}) || !t.session("x").arriving {
		t.tb.Fatalf("got %v; arriving: %v", got, t.session("x").arriving)
	}
	return h
}

// arrive lets the Session of arriving arrive, where there is no memory for the PUBREL that is to be sent then: that ends its connection, at
// a moment at which another shard's claim is looked at next.
func (t *bench) arrive(now int64) {
	t.turn(0, now) // the claim
	t.turn(2, now) // the mark
	t.turn(1, now) // the news that it has arrived
	restore := t.exhaust(0, true)
	t.turn(0, now)
	restore()
}

// TestHeirComesBeforeAnotherShard has the connection that an heir waits for end when another shard's claim is about to be looked
// at: the heir, which was first, has the Session first, and is told that it has been taken over.
func TestHeirComesBeforeAnotherShard(t *testing.T) {
	b := newBench(t, 3, func(l *Limits) { small(l); l.Memory = 40 << 20 })
	first := b.arriving()
	heir := b.open(0, persistent("x"))
	b.lag = 20
	last := b.open(2, persistent("x"))
	b.arrive(0)
	if first.live() {
		t.Fatal("the first connection is still there: the scene is another one")
	}
	b.lag = 0
	b.settleAll(0)
	if got := kinds(heir.hear()); len(got) == 0 || got[0] != packet.CONNACK || got[len(got)-1] != packet.DISCONNECT || heir.live() {
		t.Errorf("the heir got %v; want CONNACK, and DISCONNECT", got)
	}
	if got := kinds(last.hear()); len(got) == 0 || got[0] != packet.CONNACK || !last.live() {
		t.Errorf("the last connection got %v", got)
	}
	for i, l := range b.b.loops {
		if n := len(l.shard.claimants) + len(l.shard.partings) + len(l.shard.takes); n != 0 {
			t.Errorf("shard %d is left with %d claimants, %d partings, %d takes", i, len(l.shard.claimants), len(l.shard.partings), len(l.shard.takes))
		}
	}
}

// TestHeirOfASessionThatLeft has another connection take the place of one and of its heir, and the Session leave for another shard
// before the heir's turn: whatever becomes of the Session there is no business of the shard that it left.
func TestHeirOfASessionThatLeft(t *testing.T) {
	b := newBench(t, 3, func(l *Limits) { small(l); l.Memory = 40 << 20 })
	first := b.arriving()
	b.lag = 20
	b.open(0, persistent("x")) // the heir
	first.s.Closed(first.id, "it ends")
	second := b.open(0, persistent("x"))
	b.b.loops[2].shard.isLate = true
	third := b.open(2, persistent("x"))
	b.arrive(0)
	b.turn(2, 0)
	if got := kinds(third.hear()); second.live() || len(got) == 0 || !third.live() {
		t.Fatalf("the Session has not moved: the scene is another one; %v", got)
	}
	b.open(2, persistent("x")) // heir of the third one
	if sess := b.session("x"); !sess.succeeded || len(b.b.loops[0].shard.partings) == 0 {
		t.Fatal("no heirs: the scene is another one")
	}
	if ids := b.b.loops[0].shard.Parting(nil); len(ids) != 0 {
		t.Errorf("shard 0 is to read connections %v, which are another shard's", ids)
	}
	for now := int64(100); now < 1000; now += 100 {
		b.turn(0, now)
	}
	if sess := b.session("x"); !sess.succeeded || !third.live() {
		t.Errorf("shard 0 has ended what is shard 2's: connected: %v; its heir is waited for: %v", third.live(), sess.succeeded)
	}
	if at := b.b.loops[0].shard.Deadline(); at <= b.b.loops[0].shard.now {
		t.Errorf("shard 0 never sleeps again")
	}
}

// TestHeirIsGoneWhileItsSessionArrives has the client of a Session that ends with its connection go, with the heir, while the Session's old
// home still has something for others of what the client had published: it ends when that has been read, or what the client publishes on
// its next connection could overtake that [MQTT-4.6.0-5].
func TestHeirIsGoneWhileItsSessionArrives(t *testing.T) {
	b := newBench(t, 4, nil)
	reader := b.open(2, transient("reader"))
	reader.subscribeMany(0, 0, "news")
	b.settleAll(0)
	reader.hear()
	first := b.open(3, transient("x"))
	first.give(publishBytes("news", 0, 0, 10, packet.V50))
	second := b.open(1, transient("x"))
	for _, shard := range []int{3, 3, 1, 0, 3} {
		b.turn(shard, 0)
	}
	if sess := b.session("x"); !second.live() || !sess.arriving {
		t.Fatal("the Session is not on its way: the scene is another one")
	}
	second.s.isLate = true
	heir := b.open(1, transient("x"))
	second.s.Closed(second.id, "it ends")
	heir.s.Closed(heir.id, "it ends")
	b.turn(1, 0)
	last := b.open(0, transient("x"))
	last.give(publishBytes("news", 0, 0, 20, packet.V50))
	b.settleAll(0)
	if sizes := reader.sizes(); !slices.Equal(sizes, []int{10, 20}) {
		t.Errorf("payloads of %v bytes came; want 10, and then 20", sizes)
	}
	last.give([]byte{byte(packet.DISCONNECT) << 4, 0})
	b.settleAll(0)
	if n := b.b.world.sessionCount.Load(); n != 1 {
		t.Errorf("%d Sessions; want the reader's", n)
	}
}

// TestSessionWithAnHeirLeaves has a Session go to another shard and back while the connection that waits for it to come back has taken an
// heir's place, and everybody go: it ends.
func TestSessionWithAnHeirLeaves(t *testing.T) {
	b := newBench(t, 2, nil)
	b.b.loops[0].shard.isLate = true
	hands := []*hand{b.open(0, transient("x")), b.open(0, transient("x")), b.open(1, transient("x")), b.open(0, transient("x"))}
	b.turn(0, 0)
	b.turn(0, 0)
	if sess := b.session("x"); sess.home.Load() != 1 {
		t.Fatal("the Session has not left: the scene is another one")
	}
	for _, h := range hands {
		h.s.Closed(h.id, "it ends")
	}
	b.settleAll(5000)
	if n := b.b.world.sessionCount.Load(); n != 0 || b.session("x") != nil {
		t.Errorf("%d Sessions are left", n)
	}
}
