package broker

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/record"
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

// TestFloodsBehindAStoreThatStandsStill has one client of a kept Session send what the store would have to note, again and again, while the store takes
// nothing: what waits stays within the stream's bound, and when the store goes on the client does, too.
func TestFloodsBehindAStoreThatStandsStill(t *testing.T) {
	const floods = 2 * ticketsMax
	ack := func(kind packet.Kind) []byte { return packet.AppendAck(nil, kind, 7, packet.Success, packet.V50) }
	unsubscribe := func(filters ...[]byte) []byte {
		return packet.AppendUnsubscribe(nil, &packet.Unsubscribe{PacketID: 1}, filters, packet.V50)
	}
	subscribe := func(filter []byte) []byte {
		list := []packet.Subscription{{Filter: filter, Options: packet.Options{RetainHandling: 2}}}
		return packet.AppendSubscribe(nil, &packet.Subscribe{PacketID: 1}, list, packet.V50)
	}
	large := []byte("a/" + strings.Repeat("x", 2*pageSize))
	for _, c := range []struct {
		name  string
		first []byte // before the store stands still
		flood []byte
		calm  bool // it is answered at once
	}{
		{name: "PUBREL of nothing", flood: ack(packet.PUBREL), calm: true},
		{name: "PUBREL of what is being forgotten", first: publishBytes("nobody", 2, 7, 10, packet.V50), flood: ack(packet.PUBREL), calm: true},
		{name: "PUBREC again", first: publishBytes("one", 2, 7, 10, packet.V50), flood: ack(packet.PUBREC), calm: true},
		{name: "PUBLISH again", first: publishBytes("nobody", 2, 7, 10, packet.V50), flood: publishBytes("nobody", 2, 7, 10, packet.V50)},
		{name: "UNSUBSCRIBE of nothing", flood: unsubscribe([]byte("a"))},
		{name: "UNSUBSCRIBE of more than a page", flood: unsubscribe(large)},
		{name: "SUBSCRIBE", flood: subscribe([]byte("one"))},
		{name: "SUBSCRIBE of more than a page", flood: subscribe(large)},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := &lateStore{}
			b, s := streamBench(t, store)
			x := b.open(0, persistent("x"))
			store.all(s)
			x.subscribeMany(0, 2, "one")
			store.all(s)
			x.give(c.first)
			store.all(s)
			flood := c.flood
			for _, p := range x.hear() {
				var pub packet.Publish
				if p.kind == packet.PUBLISH && pub.Decode(p.flags, p.body, x.v) == packet.Success {
					flood = packet.AppendAck(nil, packet.PUBREC, pub.PacketID, packet.Success, x.v)
				}
			}
			x.subscribeMany(0, 2, "two")
			s.Persist() // it is under way
			for range floods {
				if x.give(flood); s.conns[x.id].is(connStalled) {
					break
				}
			}
			if n := s.stream.size(); n > s.limits.streamBytes()+2*len(flood)+100 {
				t.Errorf("%d bytes wait for the store, whose bound is %d", n, s.limits.streamBytes())
			}
			if is := s.conns[x.id].is(connStalled); is == c.calm {
				t.Errorf("the client waits: %v", is)
			}
			for i := range 100 {
				store.all(s)
				b.turn(0, int64(100*i))
			}
			if x.hear(); !x.live() || s.conns[x.id].is(connStalled) || s.stream.size() != 0 {
				t.Errorf("afterwards: live %v, waits %v, %d bytes wait for the store", x.live(), s.conns[x.id].is(connStalled), s.stream.size())
			}
		})
	}
}

// TestReconnectsBehindAStoreThatStandsStill has a client try again and again while the store takes nothing, after what the store does not know
// of it yet: each try would have something written. It is told that the broker is busy when the stream is full, and comes back afterwards.
func TestReconnectsBehindAStoreThatStandsStill(t *testing.T) {
	for _, c := range []struct {
		name          string
		expiry, again uint32
		clean         bool
	}{
		{name: "with a finite interval", expiry: 3600, again: 3600}, {name: "for ever", expiry: neverExpires, again: neverExpires},
		{name: "for ever from now on", expiry: 3600, again: neverExpires}, {name: "to its end", expiry: 3600}, {name: "not kept any more", expiry: 3600, clean: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := &lateStore{}
			b, s := streamBench(t, store)
			in := persistent("device")
			in.SessionExpiry = c.expiry
			if c.expiry != neverExpires {
				x := b.open(0, in)
				store.all(s)
				s.Closed(x.id, "reset")
				store.all(s)
			}
			in.SessionExpiry, in.CleanStart = c.again, c.clean
			busy := 0
			for i := range 10_000 {
				x := b.open(0, in)
				b.turn(0, int64(i))
				for _, p := range x.hear() {
					if p.kind == packet.CONNACK && packet.Reason(p.body[1]) == packet.ServerBusy {
						busy++
					}
				}
				s.Closed(x.id, "given up")
			}
			if n := s.stream.size(); n > s.limits.streamBytes()+1000 || busy == 0 {
				t.Errorf("%d bytes wait for the store, whose bound is %d; busy %d times", n, s.limits.streamBytes(), busy)
			}
			for len(store.batches) > 0 {
				store.all(s)
			}
			x := b.open(0, in)
			if store.all(s); !x.live() {
				t.Error("afterwards the client cannot connect")
			}
		})
	}
}

// TestLoadsOfConnectionsThatAreGone has a client whose record stays as it is come and go, while the store answers nothing: each time its queue is
// asked for. The store gets so many questions, and the client its message when it answers.
func TestLoadsOfConnectionsThatAreGone(t *testing.T) {
	store := &lateStore{}
	b, s := streamBench(t, store)
	x := b.open(0, persistent("x"))
	store.all(s)
	x.subscribeMany(0, 1, "news")
	store.all(s)
	s.Closed(x.id, "reset")
	store.all(s)
	b.open(0, transient("p")).give(publishBytes("news", 1, 1, 10, packet.V50))
	store.all(s)
	for i := range 2 * loadsMax {
		x = b.open(0, persistent("x"))
		if b.turn(0, int64(i)); i < 2*loadsMax-1 {
			s.Closed(x.id, "reset")
		}
	}
	if n := s.stream.loading(); n != loadsMax || len(store.loads) != s.limits.loadsAtOnce() {
		t.Errorf("%d loads wait, %d of them are under way, want %d and %d", n, len(store.loads), loadsMax, s.limits.loadsAtOnce())
	}
	for len(store.loads) > 0 {
		store.answer(s)
	}
	b.turn(0, 3*loadsMax)
	store.answer(s)
	if got := x.sizes(); len(got) != 1 {
		t.Errorf("the client that stays got %v", got)
	}
}

// TestLoadsAtOnce has the clients of many queues come at once: the store is asked for so many at a time, and each client gets what waits for it.
func TestLoadsAtOnce(t *testing.T) {
	store := &lateStore{}
	b, s := streamBench(t, store)
	most := s.limits.loadsAtOnce()
	clients := make([]*hand, 4*most)
	open := func() {
		for i := range clients {
			clients[i] = b.open(0, persistent(fmt.Sprint("c", i)))
			store.all(s)
		}
	}
	open()
	for _, x := range clients {
		x.subscribeMany(0, 1, "news")
		store.all(s)
		s.Closed(x.id, "reset")
	}
	store.all(s)
	b.open(0, transient("p")).give(publishBytes("news", 1, 1, 10, packet.V50))
	store.all(s)
	open()
	for answered := range len(clients) {
		if n, want := len(store.loads), min(most, len(clients)-answered); n != want {
			t.Fatalf("after %d answers %d loads are under way, want %d", answered, n, want)
		}
		store.answer(s)
	}
	for i, x := range clients {
		if got := x.sizes(); len(got) != 1 {
			t.Errorf("client %d got %v", i, got)
		}
	}
}

// TestGoodbyeBehindAFullStream has a client set its Session Expiry Interval by a DISCONNECT that stands behind a PUBLISH which waits for room, and the
// connection be reset: the DISCONNECT has been received.
func TestGoodbyeBehindAFullStream(t *testing.T) {
	for _, c := range []struct {
		name string
		bye  packet.Disconnect
		ends bool
	}{
		{"to its end", packet.Disconnect{HasSessionExpiry: true}, true},
		{"with the Will, to its end", packet.Disconnect{Reason: packet.DisconnectWithWillMessage, HasSessionExpiry: true}, true},
		{"for an hour", packet.Disconnect{HasSessionExpiry: true, SessionExpiry: 3600}, false},
		{"as it is", packet.Disconnect{}, false},
	} {
		store := &lateStore{}
		b, s := streamBench(t, store)
		x := b.open(0, persistent("x"))
		store.all(s)
		x.subscribeMany(0, 1, "news")
		s.Persist() // it is under way
		for i := 1; i < 1000 && !s.conns[x.id].is(connStalled); i++ {
			x.give(publishBytes("news", 1, uint16(i), 3000, packet.V50))
		}
		carried := make([]byte, 1<<16)
		carried = carried[:s.Carry(x.id, carried)]
		x.give(packet.AppendDisconnect(carried, &c.bye, packet.V50))
		if !s.conns[x.id].is(connStalled) {
			t.Fatal("the scene is another one")
		}
		s.Closed(x.id, "reset")
		for range 10 {
			store.all(s)
		}
		if sess := b.session("x"); (sess == nil) != c.ends || sess != nil && c.bye.HasSessionExpiry && sess.expiry != c.bye.SessionExpiry {
			t.Errorf("%s: the Session is %v", c.name, sess)
		}
	}
}

// TestRetainedLogIsBounded has Retained Messages of QoS 0 come and go behind a store that stands still, of ever new topics: neither the log nor the list of
// what it lacks grows beyond its bound, what finds no place is counted, and all that has one is written in the end.
func TestRetainedLogIsBounded(t *testing.T) {
	store := &lateStore{}
	b, s := streamBench(t, store)
	p := b.open(0, transient("p"))
	b.b.Refuse(RefuseAll)
	retain := func(topic string, size int) {
		h := &packet.PublishHead{Flags: packet.PublishFlags(false, 0, true), Topic: []byte(topic), PayloadSize: size}
		p.give(append(packet.AppendPublishHead(nil, h, packet.V50), make([]byte, size)...))
	}
	retain("first", 1)
	s.Persist() // it is under way
	log, bound := s.retainedLog, s.limits.streamBytes()
	for i := range 5000 {
		retain(fmt.Sprint("t", i), 3000)
		retain(fmt.Sprint("t", i), 0)
		s.Persist()
	}
	if n := int(log.size.Load()); s.conns[p.id].is(connStalled) || n > bound+4000 || log.lateBytes > bound || s.counters[CounterStoreRefused] == 0 {
		t.Errorf("the client waits: %v; the log has %d bytes and the list %d, whose bound is %d; %d are counted", s.conns[p.id].is(connStalled), n,
			log.lateBytes, bound, s.counters[CounterStoreRefused])
	}
	for range 20 {
		store.all(s)
	}
	if log.lateBytes != 0 || log.lates.Load() || s.hasWork() {
		t.Errorf("%d bytes of the list are left", log.lateBytes)
	}
	if n := store.of(record.KindRetained); n != 1 {
		t.Errorf("%d Retained Messages are in the store, want the first one", n)
	}
}

// TestClearBehindLateClear has a Retained Message cleared with QoS 0 while the log is full, so that its record stays on disk for now, and again with
// QoS 1 on another shard, when there is nothing to clear any more: once that is acknowledged the next run does not find the message.
func TestClearBehindLateClear(t *testing.T) {
	store := &lateStore{}
	b := newStoreBenchOf(t, store, 2, 10)
	a, c := b.open(0, transient("a")), b.open(1, transient("c"))
	a.give(retainBytes("t", 1, 1, 10))
	b.settleStored(store, 1)
	c.hear()
	lateClear(t, store, a, "t")
	c.give(retainBytes("t", 1, 7, 0))
	c.s.Persist()
	if !a.s.retainedLog.isLate["t"] {
		t.Fatal("it is not late any more: the scene is another one")
	}
	for answered := false; !answered; answered = len(c.hear()) > 0 {
		if len(store.batches) == 0 {
			t.Fatal("no answer")
		}
		store.commit(c.s)
	}
	if _, has := store.records[string(record.RetainedKey(nil, "t"))]; has {
		t.Error("it is acknowledged, and the next run has the message")
	}
}

// TestStartBeyondLimits ends the broker when the disk has more than the limits say, as what was to go first was not written yet: a Retained Message
// that was cleared late, and a subscription that another shard had given up, each with a new one behind it. The next run starts with all of
// them, says so, and takes no new ones.
func TestStartBeyondLimits(t *testing.T) {
	const most = 100 // of both, see newStoreBenchOf
	store := &lateStore{}
	b := newStoreBenchOf(t, store, 3, 10)
	a, c, x, y := b.open(0, transient("a")), b.open(1, transient("c")), b.open(2, persistent("x")), b.open(1, persistent("y"))
	b.settleStored(store, 1)
	for i := range most {
		a.give(retainBytes(fmt.Sprint("r", i), 1, uint16(i+1), 10))
		x.subscribeMany(0, 1, fmt.Sprint("s", i))
		b.settleStored(store, int64(i))
	}
	for _, h := range []*hand{a, c, x, y} {
		h.hear()
	}
	lateClear(t, store, a, fmt.Sprint("r", most-1))
	x.give(packet.AppendUnsubscribe(nil, &packet.Unsubscribe{PacketID: 9}, [][]byte{[]byte("s0")}, packet.V50)) // not handed over
	c.give(retainBytes("new", 1, 7, 10))
	y.subscribeMany(0, 1, "new")
	c.s.Persist()
	for range 3 {
		store.commit(c.s)
		c.s.Persist()
	}
	if n, s := store.of(record.KindRetained), store.of(record.KindSubscription); n <= most || s <= most {
		t.Fatalf("the disk has %d Retained Messages and %d subscriptions: the scene is another one", n, s)
	}

	l := Limits{Memory: 64 << 20, Shards: 3, MaxConnections: 100, MaxSubscriptions: most, MaxRetained: most, StoreBytes: 4 << 20}
	l, err := l.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	host := &hearing{}
	next, err := New(Options{Limits: l, Host: host, Config: Config{Listeners: []ListenerConfig{{AllowAnonymous: true}}, Seed: 1}, Store: &nextStore{lateStore: store}},
		make([]Plane, 3))
	if err != nil {
		t.Fatal(err)
	}
	w, s := next.world, next.loops[0].shard
	if w.retained.count.Load() != most+1 || w.subscribed.Load() != most+1 || len(host.events) != 2 {
		t.Errorf("%d Retained Messages, %d subscriptions, %v", w.retained.count.Load(), w.subscribed.Load(), host.events)
	}
	if s.admitRetained(1) || s.admitSubscription(1) {
		t.Error("there is room for new ones")
	}
}

// nextStore is a store in the next run of the broker.
type nextStore struct{ *lateStore }

func (*nextStore) Boot() uint32 { return 2 }

func (n *nextStore) Each(kind record.Kind, f func(key, value []byte) error) error {
	for _, k := range slices.Sorted(maps.Keys(n.records)) {
		if k[0] == byte(kind) {
			if err := f([]byte(k), []byte(n.records[k])); err != nil {
				return err
			}
		}
	}
	return nil
}

// hearing is a Host that notes what it is told.
type hearing struct {
	quiet
	events []LogEvent
}

func (h *hearing) Log(e LogEvent) bool {
	h.events = append(h.events, e)
	return true
}

// lateClear has a client clear a topic with QoS 0 while the log of Retained Messages is full, behind so much else that is late that the log becomes
// free for others more than once before this is logged.
func lateClear(t *testing.T, store *lateStore, a *hand, topic string) {
	t.Helper()
	a.give(retainBytes("r0", 0, 0, 10))
	a.s.Persist() // it is under way
	for i := range 40 {
		a.give(retainBytes(fmt.Sprint("r", i), 0, 0, 30000))
	}
	a.give(retainBytes(topic, 0, 0, 0))
	store.commit(a.s)
	a.s.Persist()
	if log := a.s.retainedLog; !log.isLate[topic] || log.size.Load() > 0 {
		t.Fatalf("what is late: %v; %d bytes wait: the scene is another one", log.late, log.size.Load())
	}
}

// retainBytes is a PUBLISH with RETAIN.
func retainBytes(topic string, qos uint8, id uint16, payload int) []byte {
	h := &packet.PublishHead{Flags: packet.PublishFlags(false, qos, true), Topic: []byte(topic), PacketID: id}
	return packet.AppendPublish(nil, h, make([]byte, payload), packet.V50)
}
