package broker

import (
	"slices"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

func persistent(clientID string) packet.Connect {
	return packet.Connect{ClientID: []byte(clientID), SessionExpiry: neverExpires, RequestProblemInfo: true}
}

func transient(clientID string) packet.Connect {
	return packet.Connect{ClientID: []byte(clientID), CleanStart: true, RequestProblemInfo: true}
}

func (t *bench) session(clientID string) *Session {
	return t.b.world.registry.part(clientID).sessions[clientID]
}

// TestMatchWhileASessionMoves looks a topic up between the moment when an index change has bumped the topic's counter
// and the moment when its epoch is published. What is cached then must not count as fresh afterwards.
func TestMatchWhileASessionMoves(t *testing.T) {
	b := newBench(t, 3, nil)
	h := b.open(0, persistent("mover"))
	h.subscribeMany(0, 1, "first", "second")
	sess, reader := b.session("mover"), b.b.loops[2].shard
	var moved uint64
	// What give does, with a look from another shard in the middle: its bumps are done one by one.
	filters := func(yield func(string) bool) {
		if !yield("first") {
			return
		}
		e := reader.lookup([]byte("first"))
		if !slices.Equal(e.remote, []remoteShard{{shard: 0}}) {
			t.Errorf("in the middle of the move to 1: receivers on %v; want the old home", e.remote)
		}
		yield("second")
	}
	b.b.world.index.Update(filters, func(next uint64) {
		moved, sess.prev = next, 0
		sess.movedAt.Store(next)
		sess.home.Store(1)
	})
	e := reader.lookup([]byte("first"))
	if e.epoch >= moved && !slices.Equal(e.remote, []remoteShard{{shard: 1}}) {
		t.Errorf("after the move at epoch %d: an entry of epoch %d says shard %v; want 1: the old home forwards nothing from that epoch on, and the entry stays", moved, e.epoch, e.remote)
	}
	sess.home.Store(0)
	sess.movedAt.Store(0)
}

// TestClaimedBackBeforeGiven has a clean Session's client connect on shard 1 and then on shard 0 again, before shard 0
// has read what shard 1 asks.
func TestClaimedBackBeforeGiven(t *testing.T) {
	b := newBench(t, 2, nil)
	b.open(0, transient("x"))
	sess := b.session("x")
	b.open(1, transient("x"))
	last := b.open(0, transient("x"))
	b.settleAll(0)
	if !last.live() {
		t.Errorf("the last connection did not come up: state %d, got %v", last.s.conns[last.id].state, kinds(last.hear()))
	}
	if got := b.session("x"); got == nil || got.ended.Load() {
		t.Errorf("the registry has %p (first was %p), ended %v, while a client is connected", got, sess, got == nil || got.ended.Load())
	}
	if s := last.s.refs[last.id].session; s != nil && s.ended.Load() {
		t.Error("the connection is attached to a Session that has ended, whose slot is another's")
	}
	if n := b.b.world.sessionCount.Load(); n != 1 {
		t.Errorf("%d Sessions; want 1", n)
	}
}

// TestPromisedSessionComesBack has a client connect on shard 1, and twice on shard 0 again, before shard 0 has read what shard 1 asks: the Session
// is there, and promised away. The last connection has it when it has come back: who had it at once would lose it to an older one.
func TestPromisedSessionComesBack(t *testing.T) {
	b := newBench(t, 2, nil)
	b.open(0, persistent("x"))
	second, third, last := b.open(1, persistent("x")), b.open(0, persistent("x")), b.open(0, persistent("x"))
	if sess := b.session("x"); !b.b.loops[0].shard.present(sess) || sess.claim == sess.tenure {
		t.Fatal("the Session is not promised away: the scene is another one")
	}
	b.settleAll(0)
	if got := kinds(last.hear()); !slices.Equal(got, []packet.Kind{packet.CONNACK}) || !last.live() {
		t.Errorf("the last connection got %v; want a CONNACK, and no end", got)
	}
	if got := kinds(second.hear()); !slices.Equal(got, []packet.Kind{packet.CONNACK, packet.DISCONNECT}) {
		t.Errorf("the one on shard 1 got %v; want CONNACK, and DISCONNECT", got)
	}
	if third.live() {
		t.Error("the one that the last has superseded is there")
	}
	if sess := b.session("x"); sess.home.Load() != 0 || sess.claim != sess.tenure {
		t.Errorf("the Session is at shard %d with claim %d of %d", sess.home.Load(), sess.tenure, sess.claim)
	}
}

// TestTakesOutOfOrder has a client connect on shards 1, 3, 1 and 2 while its Session is on its way from 0 to 1, so
// that two takes wait at shard 1 and come in the wrong order, as those of different queues may.
func TestTakesOutOfOrder(t *testing.T) {
	b := newBench(t, 4, nil)
	b.open(0, persistent("x")).hear()
	b.open(1, persistent("x")) // claim 1, from 0
	b.open(3, persistent("x")) // claim 2, from 1
	b.open(1, persistent("x")) // claim 3, from 3
	last := b.open(2, persistent("x"))
	b.settleAll(0) // shard 1 reads queue 2 before queue 3
	if !last.live() {
		t.Errorf("the last connection, on shard 2, did not come up: state %d", last.s.conns[last.id].state)
	}
	again := b.open(3, persistent("x"))
	b.settleAll(0)
	if !again.live() {
		t.Errorf("a later connection, on shard 3, did not stay: state %d, %v", again.s.conns[again.id].state, kinds(again.hear()))
	}
	for i := range 3 {
		h := b.open(i, persistent("x"))
		b.settleAll(0)
		if !h.live() {
			t.Errorf("and one on shard %d did not come up: state %d, the Session is at %d, the registry says %d", i, h.s.conns[h.id].state,
				b.session("x").home.Load(), b.session("x").owner)
		}
	}
	for i, l := range b.b.loops {
		if n := len(l.shard.takes) + len(l.shard.claimants) + len(l.shard.departures); n != 0 {
			t.Errorf("shard %d is left with %d takes, %d claimants, %d departures", i, len(l.shard.takes), len(l.shard.claimants), len(l.shard.departures))
		}
	}
}

// TestPublishBeforeTheHandOverIsRead has a QoS 0 message for a Session published on its new home after the old home
// gave it away and before the new home has read that: its queue is long.
func TestPublishBeforeTheHandOverIsRead(t *testing.T) {
	b := newBench(t, 2, nil)
	h := b.open(0, persistent("x"))
	h.subscribeMany(0, 1, "news")
	other := b.open(1, transient("other"))
	other.subscribeMany(0, 0, "flood")
	p0, p1 := b.open(0, transient("p0")), b.open(1, transient("p1"))
	b.settleAll(0)
	next := b.open(1, persistent("x"))
	for range turnMessagesMax + 10 { // stand before the hand-over in the queue from 0 to 1
		p0.give(publishBytes("flood", 0, 0, 10, packet.V50))
	}
	b.turn(0, 0) // gives
	b.turn(1, 0) // reads the flood, not yet the hand-over
	p1.give(publishBytes("news", 0, 0, 10, packet.V50))
	b.settleAll(0)
	if !next.live() {
		t.Fatalf("no connection: %v", kinds(next.hear()))
	}
	var pub packet.Publish
	for _, p := range next.hear() {
		if p.kind != packet.PUBLISH {
			continue
		}
		if r := pub.Decode(p.flags, p.body, packet.V50); r != packet.Success || string(pub.Topic) != "news" {
			t.Errorf("the client got a PUBLISH that is %v: % x", r, p.body)
		}
	}
}

// TestCleanStartSupersedes has a Clean Start connection take the place of one that waits for the same Session.
func TestCleanStartSupersedes(t *testing.T) {
	b := newBench(t, 2, nil)
	b.open(0, persistent("x")).subscribeMany(0, 1, "old")
	b.open(1, persistent("x"))
	in := persistent("x")
	in.CleanStart = true
	h := b.open(1, in)
	b.settleAll(0)
	got := h.hear()
	if len(got) == 0 || got[0].kind != packet.CONNACK {
		t.Fatalf("got %v; want CONNACK", kinds(got))
	}
	if got[0].body[0] != 0 {
		t.Error("Clean Start 1 was answered with Session Present 1 [MQTT-3.2.2-2]")
	}
	b.open(0, transient("p")).give(publishBytes("old", 1, 1, 10, packet.V50))
	b.settleAll(0)
	if got := h.hear(); len(got) != 0 {
		t.Errorf("a subscription from before Clean Start delivers: %v", kinds(got))
	}
}

// TestResubscribeLosesNothing replaces a subscription again and again while another shard publishes [MQTT-3.8.4-4].
func TestResubscribeLosesNothing(t *testing.T) {
	b := newBench(t, 2, nil)
	h, p := b.open(1, persistent("x")), b.open(0, transient("p"))
	h.subscribeMany(0, 1, "news")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				h.subscribeMany(0, 1, "news")
				h.loop.flush()
				h.net.got = h.net.got[:0]
			}
		}
	}()
	unmatched := 0
	for i := range 20000 {
		p.give(publishBytes("news", 1, uint16(i+1), 1, packet.V50))
		p.loop.flush()
		for _, a := range p.net.packets(t) {
			if a.kind == packet.PUBACK && len(a.body) > 2 && packet.Reason(a.body[2]) == packet.NoMatchingSubscribers {
				unmatched++
			}
		}
		if i%500 == 499 { // the queue between the shards must not fill up
			close(stop)
			<-done
			b.turn(1, 0)
			stop, done = make(chan struct{}), make(chan struct{})
			go func(stop, done chan struct{}) {
				defer close(done)
				for {
					select {
					case <-stop:
						return
					default:
						h.subscribeMany(0, 1, "news")
						h.loop.flush()
						h.net.got = h.net.got[:0]
					}
				}
			}(stop, done)
		}
	}
	close(stop)
	<-done
	if unmatched > 0 {
		t.Errorf("%d of 20000 messages found no subscriber while the subscription was being replaced", unmatched)
	}
}

// TestOverflowIsNotLeftBehind puts more into a queue than fits and has the reader empty it before the writer looks
// again: the writer must not sleep then.
func TestOverflowIsNotLeftBehind(t *testing.T) {
	b := newBench(t, 2, nil)
	s, r := b.b.loops[0].shard, b.b.loops[1].shard
	for range ringSlots + 5 {
		s.push(1, shardMessage{kind: markRequest, leaving: &departure{}})
	}
	for r.Exchange() {
	}
	// What the reader sent back is not what the writer should wake up for.
	s.in[1].head.Store(s.in[1].tail.Load())
	if len(s.out[1].overflow) > 0 && !s.Pending() {
		t.Errorf("%d messages wait behind an empty queue and nothing says so: they wait for the next tick", len(s.out[1].overflow))
	}
}

// TestForwardAfterCleanStart is a message on its way through the old home for a subscription that has ended meanwhile.
func TestForwardAfterCleanStart(t *testing.T) {
	b := newBench(t, 3, nil)
	b.open(0, persistent("x")).subscribeMany(0, 1, "news")
	p := b.open(2, transient("p"))
	b.settleAll(0)
	b.open(1, persistent("x"))
	p.give(publishBytes("news", 1, 1, 10, packet.V50)) // to shard 0, matched before the move
	// Shard 0 gives first and reads shard 2's message after: queue 1 is read before queue 2. Shard 1 has not yet read
	// what shard 0 forwards when the client connects once more.
	b.turn(0, 0)
	in := persistent("x")
	in.CleanStart = true
	h := b.open(1, in)
	b.settleAll(0)
	got := h.hear()
	if i := slices.Index(kinds(got), packet.PUBLISH); i >= 0 {
		t.Errorf("after Clean Start the client got %v: what was under way to the Session it discarded", kinds(got))
	}
}

// TestForwardsNothingFromBefore has a message read by the shard that a Session has come to, and has left again, where it lay for another
// Session since before the first of these moves: the Session got it where it was then.
func TestForwardsNothingFromBefore(t *testing.T) {
	for qos, want := range [][]int{nil, {10}, {10}} { // above QoS 0 it is sent again, for it was not acknowledged
		b := newBench(t, 3, nil)
		first := b.open(0, persistent("x"))
		first.subscribeMany(0, uint8(qos), "news")
		other, p := b.open(1, transient("other")), b.open(2, transient("p"))
		other.subscribeMany(0, 0, "flood", "news")
		b.settleAll(0)
		for range 3*turnMessagesMax + 10 { // stand before the message in the queue from 2 to 1
			p.give(publishBytes("flood", 0, 0, 1, packet.V50))
		}
		p.give(publishBytes("news", uint8(qos), 1, 10, packet.V50))
		b.turn(0, 0)
		if got := first.sizes(); !slices.Equal(got, []int{10}) {
			t.Fatalf("QoS %d: payloads of %v bytes came; want 10", qos, got)
		}
		b.open(1, persistent("x"))
		for _, shard := range []int{0, 0, 1, 2, 0} { // asked, gives; marks; all are there
			b.turn(shard, 0)
		}
		last := b.open(0, persistent("x"))
		b.turn(1, 0) // The Session has arrived, and is asked for.
		b.turn(1, 0) // gives
		if n := len(b.b.loops[1].shard.departures); n != 1 || slices.Contains(other.sizes(), 10) {
			t.Fatalf("QoS %d: %d Sessions have left shard 1; want 1, before it has read the message", qos, n)
		}
		b.settleAll(0)
		if got := last.sizes(); !slices.Equal(got, want) || !slices.Contains(other.sizes(), 10) {
			t.Errorf("QoS %d: payloads of %v bytes came after two moves; want %v, and the message for the other", qos, got, want)
		}
	}
}

// TestOrderOverConnections has a client without a Session publish, disconnect, and publish again on a connection to another
// shard, before the subscriber's shard has read anything: that reads the queue of the second connection first. The order holds
// for the Client [MQTT-4.6.0-5], and nothing of its Session is left behind.
func TestOrderOverConnections(t *testing.T) {
	for qos := range uint8(3) {
		b := newBench(t, 3, nil)
		h := b.open(2, transient("reader"))
		h.subscribeMany(0, qos, "news")
		b.settleAll(0)
		h.hear()
		first := b.open(1, transient("x"))
		first.give(publishBytes("news", qos, 1, 10, packet.V50))
		first.give([]byte{byte(packet.DISCONNECT) << 4, 0})
		b.turn(1, 0)
		second := b.open(0, transient("x"))
		second.give(publishBytes("news", qos, 2, 20, packet.V50))
		b.turn(0, 0)
		b.settleAll(0)
		if sizes := h.sizes(); !slices.Equal(sizes, []int{10, 20}) {
			t.Errorf("QoS %d: payloads of %v bytes came; want 10, and then 20", qos, sizes)
		}
		second.give([]byte{byte(packet.DISCONNECT) << 4, 0})
		b.settleAll(0)
		if sess := b.session("x"); sess != nil || b.b.world.sessionCount.Load() != 1 {
			t.Errorf("QoS %d: the Session is still there", qos)
		}
	}
}

// TestLingeringSessionGoesOn has the client of a Session that has ended, and is still in the registry, connect to the same shard: it
// gets a Session, which does not end when the other shards have read.
func TestLingeringSessionGoesOn(t *testing.T) {
	b := newBench(t, 2, nil)
	b.open(1, transient("reader")).subscribeMany(0, 0, "news")
	b.settleAll(0)
	first := b.open(0, transient("x"))
	first.give(publishBytes("news", 0, 0, 10, packet.V50))
	first.give([]byte{byte(packet.DISCONNECT) << 4, 0})
	if sess := b.session("x"); sess == nil || sess.lingers == 0 {
		t.Fatal("the Session is gone although what its client published has not been read")
	}
	again := b.open(0, persistent("x"))
	b.settleAll(0)
	if got := again.hear(); len(got) == 0 || got[0].kind != packet.CONNACK || got[0].body[0] != 0 {
		t.Errorf("the next connection got %v; want a CONNACK without Session Present", kinds(got))
	}
	if sess := b.session("x"); sess == nil || sess.ended.Load() || !again.live() || b.b.world.sessionCount.Load() != 2 {
		t.Error("the Session that a connection has is not there any more")
	}
}

// TestLingersTwice has a Session end, and a connection have it for a moment and end it again, when the other shards have read what
// its client had published on the first, and not on the second: it leaves when they have read that.
func TestLingersTwice(t *testing.T) {
	b := newBench(t, 3, nil)
	reader := b.open(2, transient("reader"))
	reader.subscribeMany(0, 0, "news")
	b.settleAll(0)
	reader.hear()
	publish := func(shard, size int) {
		h := b.open(shard, transient("x"))
		h.give(append(publishBytes("news", 0, 0, size, packet.V50), byte(packet.DISCONNECT)<<4, 0))
	}
	publish(1, 10)
	b.turn(1, 0)
	b.turn(2, 0)
	publish(1, 20)
	b.turn(1, 0)
	publish(0, 30) // Queue 0 is read first.
	b.settleAll(0)
	if sizes := reader.sizes(); !slices.Equal(sizes, []int{10, 20, 30}) {
		t.Errorf("payloads of %v bytes came; want 10, 20, and 30", sizes)
	}
}

// TestEndsWhileItArrives has the connection of a Session that is still arriving end, and with it the Session, for it has no Session Expiry
// Interval any more: who connects next to that shard finds none of it, and the delayed Will is published (section 3.1.4).
func TestEndsWhileItArrives(t *testing.T) {
	for name, end := range map[string]func(*hand){
		"by takeover":   func(*hand) {},
		"by the client": func(h *hand) { h.s.Closed(h.id, closedByClient) },
	} {
		b := newBench(t, 3, nil)
		b.open(0, persistent("x")).subscribeMany(0, 1, "news")
		watcher := b.open(1, transient("watcher"))
		watcher.subscribeMany(0, 0, "will")
		b.settleAll(0)
		watcher.hear()
		brief := packet.Connect{ClientID: []byte("x"), RequestProblemInfo: true, HasWill: true,
			Will: packet.Will{Topic: []byte("will"), Payload: []byte("gone"), DelayInterval: 60}}
		second := b.open(1, brief)
		for _, shard := range []int{0, 0, 1} {
			b.turn(shard, 0)
		}
		if !second.live() || !b.session("x").arriving {
			t.Fatal("the Session is not arriving: the scene is another one")
		}
		end(second)
		third := b.open(1, persistent("x"))
		b.settleAll(0)
		if got := third.hear(); len(got) != 1 || got[0].kind != packet.CONNACK || got[0].body[0] != 0 {
			t.Errorf("%s: the next connection got %v; want CONNACK without Session Present", name, got)
		}
		if sizes := watcher.sizes(); !slices.Equal(sizes, []int{4}) {
			t.Errorf("%s: payloads of %v bytes came; want the Will", name, sizes)
		}
		b.open(0, transient("p")).give(publishBytes("news", 1, 1, 10, packet.V50))
		b.settleAll(0)
		if got := third.hear(); len(got) != 0 {
			t.Errorf("%s: a subscription of the Session that ended delivers: %v", name, kinds(got))
		}
	}
}
