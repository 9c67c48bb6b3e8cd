package broker

import (
	"fmt"
	"slices"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// TestManySubscriptionsEndByAndBy has a Session with more subscriptions than a turn may end be over: none of them matches anything from then
// on, neither for its client, which may be there again, nor in a Shared Subscription with others, and they go in parts of a turn's work.
func TestManySubscriptionsEndByAndBy(t *testing.T) {
	const many, work = 600, 512
	const perTurn = work/endingShare/filterWork + 1
	for _, way := range []struct {
		name  string
		shard int // of the client's next connection
		again bool
	}{{"the connection ends", 0, false}, {"Clean Start", 0, true}, {"Clean Start on another shard", 1, true}} {
		b := newBench(t, 2, func(l *Limits) { l.InputWork = work })
		old := b.open(0, persistent("x"))
		if !way.again {
			old = b.open(0, transient("x"))
		}
		for i := 0; i < many; i += 50 {
			var filters []string
			for n := i; n < i+50; n += 2 {
				filters = append(filters, fmt.Sprintf("t/%d", n), fmt.Sprintf("$share/g/s/%d", n))
			}
			old.subscribeMany(0, 1, filters...)
		}
		other, p := b.open(1, transient("other")), b.open(0, transient("p"))
		names := []string{"t/0", "s/0", fmt.Sprint("t/", many-2), fmt.Sprint("s/", many-2)} // what is on the list last and first
		other.subscribeMany(0, 1, "t/0", "$share/g/s/0", names[2], "$share/g/"+names[3])
		b.settleAll(0)
		publish := func(qos uint8) {
			for i, name := range names {
				p.give(publishBytes(name, qos, uint16(1+i), 10, packet.V50))
			}
		}
		publish(0) // and all of it is cached
		b.settleAll(0)
		other.hear()
		before := old.s.subscribed.Load()

		next := old
		if way.again {
			in := persistent("x")
			in.CleanStart = true
			next = b.open(way.shard, in)
			for range 4 {
				if next.live() {
					break
				}
				b.turn(0, 0)
				b.turn(1, 0)
			}
		} else {
			b.b.loops[0].lose(old.id, "test")
		}
		if left := old.s.subscribed.Load(); left < before-6*perTurn {
			t.Fatalf("%s: %d of %d subscriptions are left already", way.name, left, before)
		}
		publish(1)
		publish(1)
		for left := old.s.subscribed.Load(); left > 4; {
			b.turn(0, 0)
			b.turn(1, 0)
			now := old.s.subscribed.Load()
			if now >= left || left-now > perTurn {
				t.Fatalf("%s: %d subscriptions in a turn, and then %d", way.name, left, now)
			}
			left = now
		}
		b.settleAll(0)
		if way.again {
			if got := next.sizes(); got != nil {
				t.Errorf("%s: payloads of %v bytes came by subscriptions that had ended", way.name, got)
			}
			next.subscribeMany(0, 1, "t/0")
		}
		if got := other.sizes(); len(got) != 2*len(names) {
			t.Errorf("%s: the other client got %d messages; want %d, all of the Shared Subscriptions among them", way.name, len(got), 2*len(names))
		}
		publish(1)
		b.settleAll(0)
		if got := next.sizes(); way.again && !slices.Equal(got, []int{10}) {
			t.Errorf("%s: payloads of %v bytes came by a new subscription; want 10", way.name, got)
		}
		if n := b.b.world.endings.Load(); n != 0 {
			t.Errorf("%s: %d lists are still to be ended", way.name, n)
		}
	}
}

// TestMoveOfManySubscriptions moves a Session with more subscriptions than are invalidated one by one: other shards, which have their matches
// cached, must find its new home.
func TestMoveOfManySubscriptions(t *testing.T) {
	for _, many := range []int{8, 40} {
		b := newBench(t, 3, func(l *Limits) { l.InputWork = 64 })
		h := b.open(0, persistent("x"))
		var names []string
		for i := range many {
			names = append(names, fmt.Sprint("t/", i))
		}
		h.subscribeMany(0, 0, names...)
		p := b.open(2, transient("p"))
		for _, to := range []int{1, 0, 2} {
			for _, name := range names {
				p.give(publishBytes(name, 0, 0, 10, packet.V50))
			}
			b.settleAll(0)
			if got := h.sizes(); len(got) != many {
				t.Fatalf("%d of %d messages came before the move to %d", len(got), many, to)
			}
			h = b.open(to, persistent("x"))
			b.settleAll(0)
			for _, name := range names {
				e := p.s.lookup([]byte(name))
				if here := to == p.s.id; here && len(e.local) != 1 || !here && !slices.Equal(e.remote, []remoteShard{{shard: uint8(to)}}) {
					t.Fatalf("%d subscriptions: %s goes to %v and %d here after the move to %d", many, name, e.remote, len(e.local), to)
				}
			}
		}
	}
}

// TestForwardsWhatWasThere has a message wait for a shard that a Session leaves, while its client, which is on another shard by now, changes
// its subscriptions: it gets the message by those that it has had since before the move, once.
func TestForwardsWhatWasThere(t *testing.T) {
	const name = "news/today"
	for what, scene := range map[string]struct {
		before []string
		change func(*hand)
		want   int
	}{
		"nothing":               {[]string{name}, func(*hand) {}, 1},
		"two that match":        {[]string{name, "news/#"}, func(*hand) {}, 2},
		"the same once more":    {[]string{name}, func(h *hand) { h.subscribeMany(0, 1, name) }, 1},
		"and once more":         {[]string{"news/+"}, func(h *hand) { h.subscribeMany(0, 1, "news/+", "news/+") }, 1},
		"a new one":             {[]string{"other"}, func(h *hand) { h.subscribeMany(0, 1, name) }, 0},
		"a new one twice":       {[]string{"other"}, func(h *hand) { h.subscribeMany(0, 1, name, name, "other") }, 0},
		"a new one beside it":   {[]string{name}, func(h *hand) { h.subscribeMany(0, 1, "news/#") }, 1},
		"ended":                 {[]string{name}, func(h *hand) { h.give(unsubscribe(name)) }, 0},
		"ended and made anew":   {[]string{name}, func(h *hand) { h.give(unsubscribe(name)); h.subscribeMany(0, 1, name) }, 0},
		"both in the index yet": {[]string{name}, func(h *hand) { twice(h, name) }, 1},
	} {
		for _, later := range []bool{false, true} { // The change is one of the new home, before or after what was forwarded.
			b := newBench(t, 3, nil)
			b.open(0, persistent("x")).subscribeMany(0, 1, scene.before...)
			b.open(0, transient("stays")).subscribeMany(0, 0, name)
			p := b.open(2, transient("p"))
			b.settleAll(0)
			h := b.open(1, persistent("x"))
			b.turn(0, 0)                                     // asked, for the next turn
			p.give(publishBytes(name, 1, 1, 10, packet.V50)) // to shard 0, which reads it when it has given the Session away
			old := b.b.loops[0].shard
			if old.Part(b.lag, false); len(old.departures) != 1 {
				t.Fatalf("%s: %d Sessions have left shard 0", what, len(old.departures))
			}
			want := scene.want
			if later {
				b.settleAll(0)
				want = len(scene.before)
				if scene.before[0] == "other" {
					want = 0
				}
			}
			s := b.b.loops[1].shard
			for !h.live() { // reads the hand-over, but nothing that is behind it
				r := s.in[0]
				if r.head.Load() == r.tail.Load() {
					t.Fatalf("%s: the Session has not come", what)
				}
				m := r.slots[r.head.Load()%uint64(len(r.slots))]
				r.head.Add(1)
				s.onMessage(0, &m)
			}
			scene.change(h)
			b.settleAll(0)
			if got := h.sizes(); len(got) != want {
				t.Errorf("%s, later %v: %d messages came; want %d", what, later, len(got), want)
			}
			// What the subscription has been from the move on counts no more when the Session has arrived, and leaves again.
			h.subscribeMany(0, 1, "last")
			b.settleAll(0)
			if n := b.session("x").young; n != 0 {
				t.Errorf("%s: %d subscriptions are young", what, n)
			}
		}
	}
}

func unsubscribe(filter string) []byte {
	return packet.AppendUnsubscribe(nil, &packet.Unsubscribe{PacketID: 2}, [][]byte{[]byte(filter)}, packet.V50)
}

// twice is the moment in which a subscription is in the index and so is what it replaces.
func twice(h *hand, filter string) {
	sess := h.session("x")
	old := h.s.findSubscription(sess, "", filter)
	h.s.index.Add(filter, &subscription{session: sess, filter: filter, era: old.era, options: old.options})
}
