package broker

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
)

// exhaust takes all pages of the arena except what a shard keeps for emergencies, and returns how to give them back.
func (t *bench) exhaust(shard int, emergency bool) (restore func()) {
	s := t.b.loops[shard].shard
	var pages []uint32
	s.pool.collect()
	for pg := s.pool.page(); pg != 0; pg = s.pool.page() {
		pages = append(pages, pg)
	}
	for class := range blockClasses { // and the room in pages that are cut already
		for s.pool.partial[forMessages][class] != 0 {
			pages = append(pages, ^s.pool.alloc(int(blockClasses[class])))
		}
	}
	if emergency {
		for pg := s.pool.urgentPage(forControl); pg != 0; pg = s.pool.urgentPage(forControl) {
			pages = append(pages, pg)
		}
	}
	return func() {
		for _, pg := range pages {
			if pg > 1<<31 {
				s.pool.free(^pg)
			} else {
				s.pool.freePage(pg)
			}
		}
	}
}

func small(l *Limits) {
	*l = Limits{Memory: 24 << 20, Shards: l.Shards, MaxConnections: 500, MaxSubscriptions: 5000, MaxRetained: 500}
}

// TestManySubscriptionIdentifiers is one SUBSCRIBE with 1024 overlapping filters and an identifier, and a PUBLISH.
func TestManySubscriptionIdentifiers(t *testing.T) {
	b := newBench(t, 1, nil)
	h := b.open(0, transient("x"))
	var filters []string
	for i := range 1 << 10 {
		levels := strings.Split("a/a/a/a/a/a/a/a/a/a", "/")
		for bit := range levels {
			if i>>bit&1 == 1 {
				levels[bit] = "+"
			}
		}
		filters = append(filters, strings.Join(levels, "/"))
	}
	h.subscribeMany(7, 1, filters...)
	h.hear()
	survives(t, "a PUBLISH that matches 1024 filters of one client", func() {
		b.open(0, transient("p")).give(publishBytes("a/a/a/a/a/a/a/a/a/a", 1, 1, 10, packet.V50))
		if got := h.hear(); len(got) == 0 || got[0].kind != packet.PUBLISH {
			t.Errorf("the client got %v; want PUBLISH", kinds(got))
		}
	})
}

// TestManyGroups has one client make more Shared Subscriptions for a topic than a queue between shards is long.
func TestManyGroups(t *testing.T) {
	b := newBench(t, 2, nil)
	h := b.open(0, transient("x"))
	for from := 0; from < ringSlots+100; from += 100 {
		var filters []string
		for i := range 100 {
			filters = append(filters, fmt.Sprintf("$share/g%d/#", from+i))
		}
		h.subscribeMany(0, 0, filters...)
		h.hear()
	}
	p := b.open(0, transient("p"))
	p.hear()
	p.give(publishBytes("t", 1, 1, 10, packet.V50))
	for i := range 20 {
		b.settleAll(int64(i) * 1000)
	}
	if got := p.hear(); len(got) != 1 {
		t.Errorf("20 s after a PUBLISH that matches %d Shared Subscriptions of one client, with empty queues, its publisher got %v; want PUBACK (stalled %d times)", ringSlots+100, kinds(got), p.s.counters[CounterStalledQueue])
	}
}

// TestQueuedIdentifiersCount has small messages wait for a Session that gets each with a thousand Subscription Identifiers: what those pin
// counts against its limit.
func TestQueuedIdentifiersCount(t *testing.T) {
	const most = 1 << 20
	b := newBench(t, 1, func(l *Limits) { l.MaxQueuedBytes, l.MaxQueuedMessages = most, 100000 })
	h := b.open(0, persistent("x"))
	var filters []string
	for n := range 1000 {
		filters = append(filters, strings.NewReplacer("0", "a/", "1", "+/").Replace(fmt.Sprintf("%010b", n))+"t")
	}
	h.subscribeMany(1, 1, filters...)
	h.hear()
	h.s.Closed(h.id, "test")
	h.loop.flush()
	before := h.s.pool.cache.taken
	p := b.open(0, transient("p"))
	for i := range uint16(1000) {
		p.give(publishBytes("a/a/a/a/a/a/a/a/a/a/t", 1, i+1, 10, packet.V50))
		p.hear()
	}
	if n := (h.s.pool.cache.taken - before) * pageSize; n > most*5/4 || n < most/2 {
		t.Errorf("1000 messages for a Session that may have %d bytes queued took %d of the arena; %s", most, n, h.s.counters.String())
	}
}

// TestMessagesOfAnotherShardYield has many messages come from another shard for many receivers: a turn does so much for them.
func TestMessagesOfAnotherShardYield(t *testing.T) {
	const receivers, messages = 500, turnMessagesMax
	b := newBench(t, 2, nil)
	for i := range receivers {
		b.open(1, transient(fmt.Sprint("x", i))).subscribeMany(0, 0, "t")
	}
	p := b.open(0, transient("p"))
	for range messages {
		p.give(publishBytes("t", 0, 0, 0, packet.V50))
	}
	s := b.b.loops[1].shard
	b.turn(1, 0)
	if n := s.counters[CounterPublishSent]; n == 0 || n > uint64(s.limits.InputWork+2*receivers) {
		t.Errorf("%d of %d were delivered in one turn", n, receivers*messages)
	}
	for range messages {
		b.turn(1, 0)
	}
	if n := s.counters[CounterPublishSent]; n != receivers*messages {
		t.Errorf("%d of %d were delivered", n, receivers*messages)
	}
}

// TestWillsToManyGroups has many clients with Wills lose their connections at once, each Will for all Shared Subscriptions of a client of
// another shard: what waits between the shards stays bounded, and all arrives.
func TestWillsToManyGroups(t *testing.T) {
	const groups, wills = 2000, 20
	b := newBench(t, 2, func(l *Limits) { l.MaxOutboundBytes = 16 << 20 })
	h := b.open(1, transient("x"))
	for from := 0; from < groups; from += 100 {
		var filters []string
		for i := range 100 {
			filters = append(filters, fmt.Sprintf("$share/g%d/w", from+i))
		}
		h.subscribeMany(0, 0, filters...)
	}
	h.hear()
	var lost []*hand
	for i := range wills {
		in := transient(fmt.Sprint("w", i))
		in.HasWill, in.Will = true, packet.Will{Topic: []byte("w"), Payload: []byte("gone")}
		lost = append(lost, b.open(0, in))
	}
	for _, c := range lost {
		c.s.Closed(c.id, "test")
		c.s.settle()
	}
	if n := len(lost[0].s.out[1].overflow); n > groups+ringSlots {
		t.Errorf("%d messages for another shard wait beside its queue; want %d at most", n, groups+ringSlots)
	}
	got := 0
	for now := range int64(wills * groups / turnMessagesMax * 2) {
		b.turn(0, now*10)
		b.turn(1, now*10)
		got += len(h.hear())
	}
	if got != wills*groups {
		t.Errorf("%d of %d messages came", got, wills*groups)
	}
}

// TestQueueGoesOnWhenMemoryIsBack has a QoS 1 message find no memory in a connection with nothing in flight.
func TestQueueGoesOnWhenMemoryIsBack(t *testing.T) {
	b := newBench(t, 1, small)
	h := b.open(0, transient("x"))
	h.subscribeMany(0, 1, "news")
	h.hear()
	p := b.open(0, transient("p"))
	p.hear()
	s := h.s
	keep := s.pool.alloc(64) // room for one small message's block, and no page
	keep2 := s.pool.alloc(64)
	restore := b.exhaust(0, false)
	var taken []uint32 // what a delivery may take of the emergency store; the acknowledgement still finds its part
	for pg := s.pool.urgentPage(forDelivery); pg != 0; pg = s.pool.urgentPage(forDelivery) {
		taken = append(taken, pg)
	}
	s.pool.free(keep)
	s.pool.free(keep2)
	p.give(publishBytes("news", 1, 1, 10, packet.V50))
	if sess := b.session("x"); sess.wait.n != 1 {
		t.Fatalf("%d messages wait for memory, want 1; %s", sess.wait.n, s.counters.String())
	}
	p.hear()
	for _, pg := range taken {
		s.pool.freePage(pg)
	}
	restore()
	for i := range int64(100) {
		b.turn(0, i*100)
	}
	if got := h.hear(); len(got) != 1 {
		t.Errorf("10 s after memory came back the client has %v of 1 message, %d wait", kinds(got), b.session("x").wait.n)
	}
}

// TestConnackWithoutMemory connects when even the emergency store is empty.
func TestConnackWithoutMemory(t *testing.T) {
	b := newBench(t, 1, small)
	h := b.dial(0)
	restore := b.exhaust(0, true)
	in := transient("x")
	in.Version, in.KeepAlive = packet.V50, 60
	survives(t, "CONNECT without memory", func() {
		h.give(packet.AppendConnect(nil, &in))
		h.loop.flush()
	})
	restore()
	if at := h.s.timers[h.id].slot; h.s.conns[h.id].state == connFree && at != 0 {
		t.Errorf("the connection's slot is free and its timer runs (wheel slot %d): the next shard to use it unlinks it from its own wheel", at)
	}
}

// TestRefusePublishWithoutMemory has a 3.1.1 client publish to $SYS when there is no memory for the acknowledgement.
func TestRefusePublishWithoutMemory(t *testing.T) {
	b := newBench(t, 1, small)
	in := transient("x")
	in.Version = packet.V311
	h := b.open(0, in)
	h.hear()
	restore := b.exhaust(0, true)
	survives(t, "refused PUBLISH without memory", func() { h.give(publishBytes("$SYS/x", 2, 1, 10, packet.V311)) })
	restore()
}

// TestAcknowledgementsSurviveStalledPublishers has 100 clients of 3.1.1 publish into a full broker: their
// acknowledgement is withheld, and everybody else still gets theirs.
func TestAcknowledgementsSurviveStalledPublishers(t *testing.T) {
	for _, one := range []struct {
		name       string
		publishers int
		payload    int
	}{{"a hundred small", 100, 10}, {"three large", 3, 50 << 10}} {
		t.Run(one.name, func(t *testing.T) {
			b := newBench(t, 1, small)
			sub := b.open(0, persistent("sub"))
			sub.subscribeMany(0, 1, "news")
			sub.hear()
			var all []*hand
			for i := range one.publishers {
				in := transient(fmt.Sprint("p", i))
				in.Version = packet.V311
				h := b.open(0, in)
				h.hear()
				all = append(all, h)
			}
			ping := b.open(0, transient("ping"))
			ping.hear()
			restore := b.exhaust(0, false)
			for _, h := range all {
				in := publishBytes("news", 1, 1, one.payload, packet.V311)
				h.give(in[:min(len(in), 48<<10)])
				h.loop.flush()
			}
			ping.give(packet.AppendPingreq(nil))
			if got := ping.hear(); len(got) != 1 {
				t.Errorf("a PINGREQ beside %d publishers that wait for memory was answered by %v", len(all), kinds(got))
			}
			closed := 0
			for _, h := range all {
				if !h.live() {
					closed++
				}
			}
			if closed > 0 {
				t.Errorf("%d of %d publishers were closed instead of waiting; %s", closed, len(all), b.b.loops[0].shard.counters.String())
			}
			restore()
		})
	}
}

// TestSlotFreedOnce lets go of connections whose number is still on the list to flush, as it is after every
// DISCONNECT, while another shard accepts.
func TestSlotIsNotFlushedAfterItIsFree(t *testing.T) {
	b := newBench(t, 2, nil)
	var all []*hand
	for i := range 4 * slotBatch {
		all = append(all, b.open(0, transient(fmt.Sprint("c", i))))
	}
	b.settleAll(0)
	for _, h := range all {
		h.give(packet.AppendDisconnect(nil, &packet.Disconnect{}, packet.V50))
	}
	// One pass of Loop.flush on shard 0.
	l := b.b.loops[0]
	for _, id := range l.shard.Dirty() {
		l.flushConn(id)
	}
	free := 0
	for _, id := range l.shard.dirty {
		if l.shard.conns[id].state == connFree {
			free++
		}
	}
	if free == 0 {
		return
	}
	t.Errorf("%d connections are free and on shard 0's list to flush", free)
	// Shard 1 takes one of the slots meanwhile.
	h := b.dial(1)
	h.give(packet.AppendConnect(nil, &packet.Connect{Version: packet.V50, ClientID: []byte("y")}))
	b.b.loops[0].flush()
	if len(h.net.got) > 0 || h.s.conns[h.id].outHead == 0 {
		t.Errorf("shard 0 flushed a connection of shard 1: slot %d", h.id)
	}
}

// TestGatherKeepsToItsRoom has a vector end between a page and the payload behind it.
func TestGatherKeepsToItsRoom(t *testing.T) {
	b := newBench(t, 1, nil)
	h := b.open(0, transient("x"))
	h.subscribeMany(0, 0, "t")
	h.hear()
	p := b.open(0, transient("p"))
	for range 100 {
		p.give(publishBytes("t", 0, 0, refThreshold, packet.V50))
	}
	vec := make([][]byte, 0, writeSlices)
	h.s.Sent(h.id, len(h.s.Gather(h.id, vec)[0])) // the first page's bytes only
	if n := len(h.s.Gather(h.id, vec)); n > writeSlices {
		t.Errorf("Gather gave %d slices into room for %d", n, writeSlices)
	}
}

// exchanger is an authenticator whose method takes two steps.
type exchanger struct {
	quiet
	asked []AuthRequest
}

func (e *exchanger) Authenticate(r AuthRequest) bool { e.asked = append(e.asked, r); return true }

// TestExchangeGoesOn plays an AUTH exchange of two steps.
func TestExchangeGoesOn(t *testing.T) {
	b := newBench(t, 1, nil)
	host := &exchanger{}
	s := b.b.loops[0].shard
	s.host = host
	b.b.world.config.Methods = []string{"M"}
	h := b.dial(0)
	in := transient("x")
	in.Version, in.AuthMethod, in.AuthData, in.HasAuthData = packet.V50, []byte("M"), []byte("1"), true
	h.give(packet.AppendConnect(nil, &in))
	s.Authenticated(AuthResult{Token: host.asked[0].Token, Reason: packet.ContinueAuthentication, Data: []byte("2")})
	h.hear()
	survives(t, "an acknowledgement in the middle of an exchange", func() {
		h.give(packet.AppendAuth(nil, &packet.Auth{Reason: packet.ContinueAuthentication, AuthMethod: []byte("M"), HasAuthData: true, AuthData: []byte("3")}))
	})
	if len(host.asked) != 2 {
		t.Fatalf("the authenticator was asked %d times; want 2: the client's AUTH was thrown away", len(host.asked))
	}
}

// TestReauthenticationWhileStalled answers re-authentications of a connection that waits for room: it must not stand
// on the list of stalled connections more than once, or it stays there when its slot is another's.
func TestReauthenticationWhileStalled(t *testing.T) {
	b := newBench(t, 1, nil)
	s := b.b.loops[0].shard
	h := b.open(0, transient("x"))
	c := &s.conns[h.id]
	s.refs[h.id].connect = &connecting{clientID: "x", method: "M"}
	s.stall(h.id, c, publishBytes("t", 1, 1, 10, packet.V50))
	for range 5 {
		c.set(connReauth)
		s.Authenticated(AuthResult{Token: token(h.id, c.generation), Reason: packet.Success})
	}
	if n := len(s.stalledConns); n != 1 {
		t.Errorf("one stalled connection is on the list %d times", n)
	}
	s.Closed(h.id, "test")
	h.loop.flush()
	s.roomAgain = true
	if n := len(s.Stalled()) + len(s.stalledConns); n != 0 {
		t.Errorf("%d numbers of free connections are on the list of stalled ones", n)
	}
}

// TestTopicCacheIsBounded fills the cache with what takes more room than the plan gives its entries. Beyond that it forgets, and
// is not gone through in vain each time.
func TestTopicCacheIsBounded(t *testing.T) {
	long := strings.Repeat("x", 60<<10)
	for _, scene := range []struct {
		name   string
		topics int
		topic  string // its number comes behind it
	}{
		{"long topics, never to be kept", 3000, long},
		{"topics of 200 bytes", 20000, long[:200]},
		{"a thousand Subscription Identifiers each", 3000, "a/a/a/a/a/a/a/a/a/a/"},
	} {
		b := newBench(t, 1, func(l *Limits) { *l = Limits{Memory: 64 << 20, Shards: 1, MaxConnections: 1000} })
		h := b.open(0, transient("x"))
		var filters []string
		for n := range 1000 {
			levels := strings.NewReplacer("0", "a/", "1", "+/").Replace(fmt.Sprintf("%010b", n))
			filters = append(filters, levels+"+")
		}
		h.subscribeMany(1, 0, filters...)
		s := h.s
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range scene.topics {
			s.lookup(fmt.Append(nil, scene.topic, i))
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		planned := int64(s.limits.cacheSets()) * cacheWays * cacheEntryBytes
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 2*planned || s.cache.bytes > s.cache.most {
			t.Errorf("%s: %d of them left %d KB on the heap; the plan gives the cache %d KB, of which %d bytes are for what it counts as %d",
				scene.name, scene.topics, grown>>10, planned>>10, s.cache.most, s.cache.bytes)
		}
	}
}

// TestFiltersTakeWhatThePlanHas has a client ask for as many subscriptions as there may be, with filters that take much more room than
// most, for their levels, their groups or the Retained Messages that they wait for: it gets as many as fit what the plan has for all, and
// others get some again when it is gone.
func TestFiltersTakeWhatThePlanHas(t *testing.T) {
	const most, each = 20000, 500
	for form, waits := range map[string]bool{"%07d/a/a/a/a/a/a/a/a/a/a/a/+": true, "$share/g%d/t": false, "%d/#": true, "%d/a": false} {
		b := newBench(t, 1, func(l *Limits) {
			*l = Limits{Memory: 64 << 20, Shards: 1, MaxConnections: 1000, MaxSubscriptions: most}
		})
		h := b.open(0, transient("x"))
		s := h.s
		retained := &packet.PublishHead{Flags: packet.PublishFlags(false, 0, true), Topic: []byte("has/one"), PayloadSize: 1}
		b.open(0, transient("r")).give(packet.AppendPublish(nil, retained, []byte{1}, packet.V50))
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := 0; i < most; i += each {
			var filters []string
			for n := range each {
				filters = append(filters, fmt.Sprintf(form, i+n))
			}
			h.subscribeMany(0, 0, filters...)
			h.hear()
		}
		h.net.got = nil
		runtime.GC()
		runtime.ReadMemStats(&after)
		granted, refused := s.subscribed.Load(), s.counters[CounterSubscribeRefused]
		planned := int64(most*subscriptionBytes) + s.limits.headroom()
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > planned {
			t.Errorf("%s: %d subscriptions took %d KB of the heap, where the plan has %d", form, granted, grown>>10, planned>>10)
		}
		if granted < most/10 || uint64(granted)+refused != most {
			t.Errorf("%s: %d of %d granted, %d refused", form, granted, most, refused)
		}
		if n := s.cursorCount.Load(); waits && n != granted || !waits && n != 0 {
			t.Errorf("%s: %d of %d wait for Retained Messages", form, n, granted)
		}
		s.Closed(h.id, "test")
		next := b.open(0, transient("y"))
		next.subscribeMany(0, 0, fmt.Sprintf(form, 0))
		b.settleAll(100) // It waits for those that end.
		if s.subscribed.Load() != 1 || s.counters[CounterSubscribeRefused] != refused {
			t.Errorf("%s: refused when nobody else has a subscription any more", form)
		}
		if n := s.cursorCount.Load(); n != 0 {
			t.Errorf("%s: %d wait for Retained Messages still", form, n)
		}
	}
}

// BenchmarkFullOfflineQueues is one PUBLISH to a hundred Sessions that are offline and full, as those of dead devices
// are.
func BenchmarkFullOfflineQueues(b *testing.B) {
	t := newBench(b, 1, nil)
	for i := range 100 {
		h := t.open(0, persistent(fmt.Sprint("dead", i)))
		h.subscribeMany(0, 1, "news")
		h.give(packet.AppendDisconnect(nil, &packet.Disconnect{}, packet.V50))
		h.loop.flush()
	}
	p := t.open(0, transient("p"))
	for i := range 1000 {
		p.give(publishBytes("news", 1, uint16(i+1), 10, packet.V50))
		p.loop.flush()
		p.net.got = p.net.got[:0]
	}
	in := publishBytes("news", 1, 1, 10, packet.V50)
	for b.Loop() {
		p.give(in)
		p.loop.flush()
		p.net.got = p.net.got[:0]
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/session")
}

// BenchmarkStalledRetry is one round of retries of publishers that wait for memory.
func BenchmarkStalledRetry(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			t := newBench(b, 1, func(l *Limits) { l.MaxConnections = 20000; l.Memory = 512 << 20 })
			s := t.b.loops[0].shard
			t.open(0, persistent("sub")).subscribeMany(0, 1, "news")
			in := transient("")
			in.Version = packet.V311
			var all []*hand
			for i := range n {
				in.ClientID = fmt.Append(nil, "p", i)
				all = append(all, t.open(0, in))
			}
			t.b.loops[0].flush()
			taken := s.entrySlots
			s.entrySlots = slotCache{s: &slots{}} // no entry left
			for _, h := range all {
				h.give(publishBytes("news", 1, 1, 10, packet.V311))
			}
			buf := make([]byte, 64<<10)
			now := int64(0)
			for b.Loop() {
				now += 20
				s.BeginTurn(now)
				for _, id := range s.Stalled() {
					k := s.Carry(id, buf)
					s.Receive(id, buf[:k], 0)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/round")
			s.entrySlots = taken
			_ = time.Now
		})
	}
}

// fed is a tap that has something to read, and feed a plane that brings all events at once.
type fed struct {
	tap
	in    []byte
	ended bool
}

func (c *fed) Read(p []byte) (int, error) {
	switch {
	case len(c.in) > 0:
	case c.ended:
		return 0, io.EOF
	default:
		return 0, ErrWouldBlock
	}
	n := copy(p, c.in)
	c.in = c.in[n:]
	return n, nil
}

type feed struct {
	Plane
	events []Event
	buf    []byte
}

// dial opens a connection that says CONNECT, and is readable from then on.
func (p *feed) dial(s *Shard, in packet.Connect) *fed {
	c := &fed{tap: tap{window: -1}, in: packet.AppendConnect(nil, &in)}
	p.events = append(p.events, Event{Conn: c, Kind: Readable, Token: s.Accept(c, 0)})
	return c
}

func (p *feed) Wait(time.Duration) ([]Event, error) { return p.events, nil }
func (p *feed) Buffer() []byte                      { return p.buf }
func (p *feed) Flush()                              {}

// TestUsedUpMemoryIsShared has memory used up and every client say something in each turn: a part of PINGREQ, or the rest, beside one
// that sends as much as it can. Each of them is answered, and none is closed for what another one has taken.
func TestUsedUpMemoryIsShared(t *testing.T) {
	const clients = 4 * emergencyPages
	for what, b := range map[string][]byte{"PINGREQ": []byte("\xc0\x00"), "PUBLISH, which waits for memory": publishBytes("news", 1, 1, 0, packet.V311)} {
		aggression := bytes.Repeat(b, 1<<20/len(b))
		b := newBench(t, 1, small)
		l := b.b.loops[0]
		s, plane := l.shard, &feed{buf: make([]byte, 256<<10)}
		l.plane, l.busy = plane, true
		var all []*fed
		for i := range clients {
			in := transient(fmt.Sprint("x", i))
			in.Version = packet.V311
			all = append(all, plane.dial(s, in))
		}
		reader := b.open(0, transient("reader"))
		reader.subscribeMany(0, 1, "news")
		reader.hear()
		reader.net.window = 0
		_ = l.Turn(0)
		b.exhaust(0, false)
		for turn := range 40 {
			for _, c := range all {
				c.in, c.got = []byte("\xc0\x00")[turn%2:turn%2+1], nil
			}
			all[0].in = aggression
			_ = l.Turn(0)
			for i, c := range all {
				if answered := len(c.got) > 0; c.closed || i > 0 && answered != (turn%2 == 1) {
					t.Fatalf("a client says %s without end: in turn %d client %d: closed %v, answered %v; %s", what, turn, i, c.closed, answered, s.counters.String())
				}
			}
		}
	}
}

// TestInputYields has one read of a client bring small messages to many receivers, or topics that many filters nearly match: a turn does so
// much for it, and comes to the next client. All of it is done in the end, also if the client has closed its side meanwhile.
func TestInputYields(t *testing.T) {
	const filters, levels, messages = 2000, 11, 500
	nearly := strings.Repeat("a/", levels)
	for _, scene := range []struct {
		topic  string
		filter func(n int) string
		each   int // deliveries of a message
	}{
		{"x", func(n int) string { return fmt.Sprintf("$share/g%d/x", n) }, filters},
		{nearly + "%d", func(n int) string {
			return strings.NewReplacer("0", "a/", "1", "+/").Replace(fmt.Sprintf("%0*b", levels, n)) + "end"
		}, 0},
	} {
		b := newBench(t, 1, func(l *Limits) { l.MaxOutboundBytes = 16 << 10 })
		l := b.b.loops[0]
		s, plane := l.shard, &feed{buf: make([]byte, 256<<10)}
		l.plane, l.busy = plane, true
		var all []*fed
		for i := range 2 {
			in := transient(fmt.Sprint("x", i))
			in.Version = packet.V311
			all = append(all, plane.dial(s, in))
		}
		bad, good := all[0], all[1]
		_ = l.Turn(0)
		var list []packet.Subscription
		for n := range filters {
			list = append(list, packet.Subscription{Filter: []byte(scene.filter(n))})
			if len(list) == 500 {
				bad.in = append(bad.in, packet.AppendSubscribe(nil, &packet.Subscribe{PacketID: 1}, list, packet.V311)...)
				list = nil
			}
		}
		for len(bad.in) > 0 || len(s.yielded) > 0 {
			_ = l.Turn(0)
		}
		for i := range messages {
			topic := strings.Replace(scene.topic, "%d", fmt.Sprint(i), 1)
			bad.in = append(bad.in, publishBytes(topic, 0, 0, 0, packet.V311)...)
		}
		if len(bad.in) > len(plane.buf) {
			t.Fatalf("%d bytes are more than one read", len(bad.in))
		}
		bad.ended, good.in, good.got = true, []byte("\xc0\x00"), nil
		before := s.counters[CounterPublishReceived]
		_ = l.Turn(0)
		if n := s.counters[CounterPublishReceived] - before; n == 0 || n > messages/2 {
			t.Errorf("%s: %d of %d messages were handled in the first turn", scene.topic, n, messages)
		}
		if len(good.got) == 0 {
			t.Errorf("%s: the client behind was not answered in the first turn", scene.topic)
		}
		for range messages {
			_ = l.Turn(0)
		}
		received := s.counters[CounterPublishReceived] - before
		delivered := s.counters[CounterPublishSent] + s.counters[CounterDroppedSlow]
		if received != messages || delivered != uint64(messages*scene.each) || !bad.closed || len(s.yielded) != 0 {
			t.Errorf("%s: in the end %d of %d messages were handled, %d of %d delivered or dropped, closed: %v", scene.topic, received, messages, delivered, messages*scene.each, bad.closed)
		}
	}
}

// TestStopWaitsForWhatYielded has a client say more than one turn has time for, which takes no more than that in each, and the broker stop
// before all is handled: all of it counts.
func TestStopWaitsForWhatYielded(t *testing.T) {
	const messages, work = 400, 16
	b := newBench(t, 1, func(l *Limits) { l.InputWork = work })
	l, plane := b.b.loops[0], &feed{buf: make([]byte, 256<<10)}
	l.plane, l.busy = plane, true
	s := l.shard
	b.open(0, persistent("watch")).subscribeMany(0, 0, "t") // whose Session is there when its connection is not
	in := transient("x")
	in.Version = packet.V50
	first := plane.dial(s, in)
	_ = l.Turn(0)
	before := s.counters[CounterPublishReceived]
	first.in = bytes.Repeat(publishBytes("t", 0, 0, 0, packet.V50), messages)
	turns := 0
	for ; l.HasLeft() && turns < messages; turns++ {
		if turns > 4 {
			s.Drain(10)
		}
		n := s.counters[CounterPublishReceived]
		if first.closed && n != before+messages {
			t.Fatalf("closed after %d of %d messages", n-before, messages)
		}
		if _ = l.Turn(0); s.counters[CounterPublishReceived] > n+work+1 {
			t.Fatalf("%d messages in a turn that has time for %d", s.counters[CounterPublishReceived]-n, work)
		}
	}
	if n := s.counters[CounterPublishReceived]; n != before+messages || !first.closed {
		t.Errorf("%d of %d messages after %d turns; closed: %v", n-before, messages, turns, first.closed)
	}
}

// TestWhatYieldedCounts has a client's connection end, or be taken over, while most of what it has said waits for another turn: all of it
// counts, its DISCONNECT too.
func TestWhatYieldedCounts(t *testing.T) {
	const messages, work = 400, 16
	for _, scene := range []struct {
		name  string
		shard int  // of the connection that takes over
		lost  bool // no other comes: this one breaks
	}{{"broken", 0, true}, {"taken over", 0, false}, {"taken over on another shard", 1, false}} {
		b := newBench(t, 2, func(l *Limits) { l.InputWork = work })
		var planes []*feed
		for _, l := range b.b.loops {
			planes = append(planes, &feed{buf: make([]byte, 256<<10)})
			l.plane, l.busy = planes[l.shard.id], true
		}
		turn := func() {
			for i, l := range b.b.loops {
				_ = l.Turn(0)
				for j := range planes[i].events {
					planes[i].events[j].Kind &^= Hangup
				}
			}
		}
		watch := b.open(0, transient("watch"))
		watch.subscribeMany(0, 0, "t", "will")
		dial := func(shard int) *fed {
			in := persistent("x")
			in.Version, in.HasWill, in.Will = packet.V50, true, packet.Will{Topic: []byte("will"), Payload: []byte("gone")}
			return planes[shard].dial(b.b.loops[shard].shard, in)
		}
		first := dial(0)
		turn()
		watch.hear()
		first.in = bytes.Repeat(publishBytes("t", 0, 0, 0, packet.V50), messages)
		s := b.b.loops[0].shard
		turn()
		if len(s.yielded) != 1 {
			t.Fatalf("%s: %d connections have yielded", scene.name, len(s.yielded))
		}
		next := first
		if scene.lost {
			first.in = append(first.in, packet.AppendDisconnect(nil, &packet.Disconnect{}, packet.V50)...)
			planes[0].events[0].Kind |= Hangup
		} else {
			next = dial(scene.shard)
		}
		for range messages {
			turn()
		}
		heard := watch.hear()
		wills := 0
		for _, r := range heard {
			if bytes.Contains(r.body, []byte("gone")) {
				wills++
			}
		}
		if len(heard)-wills != messages || wills > 0 && scene.lost {
			t.Errorf("%s: %d of %d messages came, and %d Wills", scene.name, len(heard)-wills, messages, wills)
		}
		if !first.closed || !scene.lost && (next.closed || len(next.got) == 0) {
			t.Errorf("%s: the first connection is closed: %v; the next one: %v, answered: %v", scene.name, first.closed, next.closed, len(next.got) > 0)
		}
	}
}
