package broker

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
)

// TestUnsubscribedTakesNoMemory has clients, one after the other, subscribe to as much as there may be and unsubscribe from all but a few, for
// the next to have: what they have given up takes no memory, and what they have left is found.
func TestUnsubscribedTakesNoMemory(t *testing.T) {
	const clients, most, each, left = 20, 5000, 1000, 40
	b := newBench(t, 1, func(l *Limits) { l.MaxSubscriptions = most + clients*left })
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for c := range clients {
		h := b.open(0, transient(fmt.Sprint("x", c)))
		for i := 0; i < most; i += each {
			var filters []string
			for n := range each {
				filters = append(filters, fmt.Sprintf("%07d", i+n))
			}
			h.subscribeMany(0, 0, filters...)
		}
		for from, to := left, most; from < to; from += each {
			h.unsubscribeMany(from, min(from+each, to))
		}
		h.hear()
		h.unsubscribeMany(0, left/2)
		if got := h.hear(); h.s.subscribed.Load() != int64((c+1)*left/2) || len(got) != 1 {
			t.Fatalf("client %d unsubscribed from all but %d of %d filters: there are %d subscriptions now, want %d", c, left/2, most, h.s.subscribed.Load(), (c+1)*left/2)
		}
		h.net.got = nil
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > most*subscriptionBytes {
		t.Errorf("%d clients that have %d subscriptions each left of %d take %d KB of the heap", clients, left/2, most, grown>>10)
	}
	runtime.KeepAlive(b)
}

// unsubscribeMany ends the subscriptions to numbered filters.
func (h *hand) unsubscribeMany(from, to int) {
	var filters [][]byte
	for i := from; i < to; i++ {
		filters = append(filters, fmt.Appendf(nil, "%07d", i))
	}
	h.give(packet.AppendUnsubscribe(nil, &packet.Unsubscribe{PacketID: 2}, filters, packet.V50))
}

// TestGroupNumbersComeRound has so many Shared Subscriptions been made that their numbers come round.
func TestGroupNumbersComeRound(t *testing.T) {
	b := newBench(t, 1, nil)
	gs := b.b.world.groups
	publish := func(name string) {
		b.open(0, transient("pub")).give(publishBytes(name, 1, 1, 10, packet.V50))
	}
	gets := func(h *hand, want int, what string) {
		t.Helper()
		n := 0
		for _, p := range h.hear() {
			if p.kind == packet.PUBLISH {
				n++
			}
		}
		if n != want {
			t.Errorf("%s got %d messages; want %d", what, n, want)
		}
	}

	// A group that lives keeps its number.
	first, second := b.open(0, transient("first")), b.open(0, transient("second"))
	first.subscribeMany(0, 1, "$share/old/t")
	second.subscribeMany(0, 1, "$share/old/t")
	gs.last--
	b.open(0, transient("other")).subscribeMany(0, 1, "$share/young/other")
	publish("t")
	b.b.loops[0].lose(first.id, "test")
	gets(second, 1, "the member that stays")

	// A delivery that names a group that is gone names no other.
	gone := b.open(0, transient("gone"))
	gone.subscribeMany(0, 1, "$share/gone/secret")
	publish("secret")
	gone.give(packet.AppendUnsubscribe(nil, &packet.Unsubscribe{PacketID: 2}, [][]byte{[]byte("$share/gone/secret")}, packet.V50))
	gs.last--
	stranger := b.open(0, transient("stranger"))
	stranger.subscribeMany(0, 1, "$share/strangers/public")
	b.b.loops[0].lose(gone.id, "test")
	gets(stranger, 0, "a member of another Shared Subscription")

	// No group is number 0.
	gs.last = ^uint32(0)
	first, second = b.open(0, transient("first")), b.open(0, transient("third"))
	first.subscribeMany(0, 1, "$share/zero/z")
	second.subscribeMany(0, 1, "$share/zero/z")
	publish("z")
	b.b.loops[0].lose(first.id, "test")
	gets(second, 1, "the member that stays")
}

// TestClientIdentifiersFallToAllParts has as many clients as are connected choose Client Identifiers that one hash, which is the same in every
// broker, gives to one part of the registry.
func TestClientIdentifiersFallToAllParts(t *testing.T) {
	const clients, each = 6400, 6400 / registryParts
	r := newBench(t, 1, nil).b.world.registry
	count := make(map[*registryPart]int)
	for i, n := 0, 0; n < clients; i++ {
		if id := fmt.Sprint("c", i); fnv(id)%registryParts == 0 {
			count[r.part(id)]++
			n++
		}
	}
	for _, n := range count {
		if n > 3*each {
			t.Errorf("%d of %d fall to one part of %d", n, clients, registryParts)
		}
	}
}

// TestMadeUpIdentifiersAreSecret has two brokers make up Client Identifiers that have their other choices in common, and a run repeated.
func TestMadeUpIdentifiersAreSecret(t *testing.T) {
	first, second := newBench(t, 1, nil).b.loops[0].shard, newBench(t, 1, nil).b.loops[0].shard
	if a, b := first.newClientID(), second.newClientID(); a == b || first.draw() != second.draw() {
		t.Errorf("brokers with the same seed make up %q and %q", a, b)
	}
	o := Options{HashKey: [2]uint64{1, 2}}
	again := o
	if o.identifierKey(0) != again.identifierKey(0) || o.identifierKey(0) == o.identifierKey(1) {
		t.Error("with a known key, a shard's Client Identifiers are not its own and the same in each run")
	}
}

// TestWallClockIsSet has the wall's clock set when the broker runs already, or the machine wake up: what is written from then on, and read, has
// the time that the store goes by.
func TestWallClockIsSet(t *testing.T) {
	b := newStoreBench(t, &lateStore{})
	l, w := b.b.loops[0], b.b.world
	for name, off := range map[string]time.Duration{"behind": -8 * time.Hour, "ahead": time.Hour} {
		w.startWall.Store(time.Now().Add(off).UnixMilli())
		before := time.Now().UnixMilli()
		l.shard.BeginTurn(l.clock())
		expires := l.shard.now + 60_000
		wall := w.wall(expires)
		if wall < before+60_000-2*wallSlack || wall > time.Now().UnixMilli()+60_000+2*wallSlack {
			t.Errorf("%s: what expires in a minute is said to expire in %d ms", name, wall-before)
		}
		if w.clockOf(wall) != expires {
			t.Errorf("%s: what was to expire at %d is read as %d", name, expires, w.clockOf(wall))
		}
	}
	start := w.startWall.Load()
	if w.follow(start + wallSlack/2); w.startWall.Load() != start {
		t.Error("it follows every difference")
	}
}
