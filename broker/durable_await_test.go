package broker

import (
	"fmt"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// TestQueueThatIsNeverQuiteDurable has messages come for a Session, whose client is away or there, so that at each commit some are left
// that it did not hold. What the Session waits for must not grow with them.
func TestQueueThatIsNeverQuiteDurable(t *testing.T) {
	for _, qos := range []uint8{1, 2} {
		for _, away := range []bool{true, false} {
			store := &lateStore{}
			b := newStoreBench(t, store)
			s := b.b.loops[0].shard
			sub := b.open(0, persistent("sub"))
			s.Persist()
			store.commit(s)
			sub.subscribeMany(0, qos, "news")
			s.Persist()
			store.commit(s)
			sub.hear()
			if away {
				sub.give(packet.AppendDisconnect(nil, &packet.Disconnect{}, sub.v))
				sub.hear()
			}
			p := b.open(0, transient("p"))
			p.hear()
			const messages = 500
			for i := range messages {
				p.give(publishBytes("news", qos, uint16(i+1), 10, p.v)) // while the batch before it is under way
				store.commit(s)
				s.Persist()
				if n := len(s.stream.awaiting[0]); n > 1 {
					t.Fatalf("QoS %d, away %v: the one Session waits %d times after %d messages", qos, away, n, i+1)
				}
			}
			for range 3 {
				store.commit(s)
				s.Persist()
			}
			if n := len(p.hear()); n != messages {
				t.Errorf("QoS %d, away %v: %d of %d messages were acknowledged", qos, away, n, messages)
			}
			sess := b.session("sub")
			if k := sess.kept; away && (k.tail.n != 0 || k.disk.waiting != messages) {
				t.Errorf("QoS %d: %d messages are in memory and %d on disk only; want all %d there", qos, k.tail.n, k.disk.waiting, messages)
			}
			if got := len(sub.hear()); !away && (got == 0 || got < int(min(sess.window, messages))) {
				t.Errorf("QoS %d: the subscriber got %d messages; its window is %d", qos, got, sess.window)
			}
			if len(s.stream.awaiting[0]) != 0 || sess.awaits != 0 {
				t.Errorf("QoS %d, away %v: the Session waits for a ticket although all are durable", qos, away)
			}
		}
	}
}

// TestPromiseThatEndsItsSession has a client resume a kept Session for no longer than its connection, and subscribe to so much that
// SUBACK is larger than what it takes: when that is durable, the connection ends in the middle of the answer, and the Session with it.
func TestPromiseThatEndsItsSession(t *testing.T) {
	store := &lateStore{}
	b := newStoreBench(t, store)
	s := b.b.loops[0].shard
	first := b.open(0, persistent("sub"))
	store.all(s)
	first.hear()
	in := persistent("sub")
	in.SessionExpiry, in.MaximumPacketSize = 0, 60
	sub := b.open(0, in)
	store.all(s)
	if got := kinds(sub.hear()); len(got) != 1 || got[0] != packet.CONNACK {
		t.Fatalf("got %v, want CONNACK", got)
	}
	var filters []string
	for i := range 80 {
		filters = append(filters, fmt.Sprint("filter/", i))
	}
	sub.subscribeMany(0, 1, filters...)
	if k := b.session("sub").kept; k == nil || k.promised == 0 {
		t.Fatal("SUBACK does not wait for the store")
	}
	store.all(s)
	if got := kinds(sub.hear()); len(got) != 1 || got[0] != packet.DISCONNECT {
		t.Errorf("got %v for a SUBACK that is too large", got)
	}
	store.all(s)
	b.settleAll(5000)
	if sess := b.session("sub"); sess != nil {
		t.Error("the Session outlives its connection")
	}
}

// TestHeirIsGoneBeforeItsSessionIsDurable has a client connect twice on a plane whose connections lag: its first connection ends by itself,
// and the second one, which asks for a Session that is kept, before that is durable. Nobody was told of a Session, and none is left.
func TestHeirIsGoneBeforeItsSessionIsDurable(t *testing.T) {
	store := &lateStore{}
	b := newStoreBench(t, store)
	s := b.b.loops[0].shard
	s.isLate = true
	first := b.open(0, transient("x"))
	first.hear()
	second := b.open(0, persistent("x"))
	if sess := b.session("x"); sess == nil || !sess.succeeded {
		t.Fatal("the first connection is not waited for")
	}
	s.Closed(first.id, "it ends")
	b.turn(0, 50)
	s.Closed(second.id, "it ends")
	for i := range int64(5) {
		s.Persist()
		store.commit(s)
		b.turn(0, 100+50*i)
	}
	if sess := b.session("x"); sess != nil || b.b.world.sessionCount.Load() != 0 {
		t.Errorf("%d Sessions are left", b.b.world.sessionCount.Load())
	}
}

// TestEndThatIsNotDurable has kept Sessions end in several ways: they are in the registry until that is durable, and not longer.
func TestEndThatIsNotDurable(t *testing.T) {
	disconnected := func(b *bench, h *hand) {
		h.give(packet.AppendDisconnect(nil, &packet.Disconnect{HasSessionExpiry: true}, h.v))
	}
	for name, end := range map[string]func(b *bench, h *hand){
		"DISCONNECT with Session Expiry Interval 0": disconnected,
		"a CONNECT with Clean Start that goes": func(b *bench, h *hand) {
			h.s.Closed(h.id, "it ends")
			h.s.Closed(b.open(0, transient("x")).id, "it ends")
		},
		"a CONNECT for a new Session that goes": func(b *bench, h *hand) {
			disconnected(b, h)
			h.s.Closed(b.open(0, persistent("x")).id, "it ends")
		},
	} {
		store := &lateStore{}
		b := newStoreBench(t, store)
		s := b.b.loops[0].shard
		first := b.open(0, persistent("x"))
		store.all(s)
		first.hear()
		end(b, first)
		s.Persist()
		if sess := b.session("x"); sess == nil || sess.lingers == 0 {
			t.Errorf("%s: the Session has left before its end is durable", name)
		}
		store.all(s)
		if b.session("x") != nil || b.b.world.sessionCount.Load() != 0 {
			t.Errorf("%s: the Session has not left although its end is durable", name)
		}
	}
}

// TestEndsTwiceBeforeItIsDurable has a kept Session end, be taken up by a connection that goes at once, and so end again: it leaves
// the registry with the second end, not with the first.
func TestEndsTwiceBeforeItIsDurable(t *testing.T) {
	store := &lateStore{}
	b := newStoreBench(t, store)
	first := b.open(0, persistent("x"))
	s := first.s
	store.all(s)
	first.give(packet.AppendDisconnect(nil, &packet.Disconnect{HasSessionExpiry: true}, first.v))
	s.handOver() // with the news that it may leave when that is durable
	s.Closed(b.open(0, persistent("x")).id, "it ends")
	for len(store.batches) > 1 {
		store.commit(s)
		if b.session("x") == nil {
			t.Fatalf("the Session has left; %d batches are not durable", len(store.batches))
		}
	}
	store.all(s)
	if b.session("x") != nil || b.b.world.sessionCount.Load() != 0 {
		t.Error("the Session has not left although its end is durable")
	}
}

// TestFailedPublishIsTakenAnew has a message of QoS 2 reach a kept Session for which there is no memory: it is not acknowledged. Its client, of
// 3.1.1, is closed, or has gone already; the message that it sends again on its next connection is taken for a new one.
func TestFailedPublishIsTakenAnew(t *testing.T) {
	for _, gone := range []bool{false, true} {
		store := &lateStore{}
		b := newStoreBench(t, store)
		sub := b.open(0, persistent("sub"))
		s := sub.s
		store.all(s)
		sub.subscribeMany(1, 2, "news")
		sub.subscribeMany(2, 2, "#") // A delivery notes both identifiers, in memory of its own.
		in := packet.Connect{ClientID: []byte("p"), Version: packet.V311}
		p := b.open(0, in)
		store.all(s)
		sub.hear()
		p.hear()
		message := s.pool.alloc(64)
		s.receivedAdd(b.session("p"), 2) // the table is there
		restore := b.exhaust(0, false)
		s.pool.free(message)
		p.give(publishBytes("news", 2, 1, 10, p.v))
		if !s.stream.at(s.stream.next() - 1).failed {
			t.Fatal("there was memory for the delivery: the scene is another one")
		}
		if restore(); gone {
			s.Closed(p.id, "it ends")
		}
		store.all(s)
		if got := kinds(p.hear()); len(got) != 0 || p.live() {
			t.Errorf("gone %v: %v, connected: %v; want nothing", gone, got, p.live())
		}
		again := b.open(0, in)
		store.all(s)
		again.hear()
		again.give(publishBytes("news", 2, 1, 10, p.v))
		again.give(publishBytes("other", 2, 2, 10, p.v)) // was received, as it were
		store.all(s)
		if got, acks := kinds(sub.hear()), kinds(again.hear()); len(got) != 1 || len(acks) != 2 {
			t.Errorf("gone %v: sent again, it is acknowledged by %v, and the subscriber gets %v", gone, acks, got)
		}
	}
}

// TestNobodyIsThereBeforeTheEndIsDurable has a message come that a kept Session would have got, alone or as a member of a Shared Subscription,
// after it has ended and before that is durable: it is acknowledged when it is, for until then a crash would bring the Session back
// without the message.
func TestNobodyIsThereBeforeTheEndIsDurable(t *testing.T) {
	for filter, waits := range map[string]bool{"news": true, "#": true, "$share/g/news": true, "other": false} {
		for _, qos := range []uint8{1, 2} {
			store := &lateStore{}
			b := newStoreBench(t, store)
			x := b.open(0, persistent("x"))
			s := x.s
			store.all(s)
			x.subscribeMany(0, 1, filter)
			store.all(s)
			p := b.open(0, transient("p"))
			p.give(publishBytes("news", 0, 0, 10, p.v)) // so that the match is cached
			p.hear()
			x.give(packet.AppendDisconnect(nil, &packet.Disconnect{HasSessionExpiry: true}, x.v))
			p.give(publishBytes("news", qos, 1, 10, p.v))
			if n := len(p.hear()); n != 0 && waits || n != 1 && !waits {
				t.Errorf("%s, QoS %d: %d acknowledgements before the Session's end is durable", filter, qos, n)
			}
			store.all(s)
			if n := len(p.hear()); n != 1 && waits || n != 0 && !waits {
				t.Errorf("%s, QoS %d: %d acknowledgements when the Session's end is durable", filter, qos, n)
			}
			b.settleAll(0)
			if p.give(publishBytes("news", qos, 2, 10, p.v)); len(p.hear()) != 1 || s.subscribed.Load() != 0 {
				t.Errorf("%s, QoS %d: no acknowledgement when nobody is there, or %d subscriptions are", filter, qos, s.subscribed.Load())
			}
		}
	}
}
