package broker

import (
	"fmt"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/record"
)

// stored says what a store has of messages: records of them, references, entries, and entries with their message in them.
func (l *lateStore) stored() string {
	inline := 0
	for k, v := range l.records {
		var e record.Entry
		if k[0] == byte(record.KindEntry) && e.Decode([]byte(v)) == nil && e.Mid == 0 {
			inline++
		}
	}
	return fmt.Sprint(l.of(record.KindMessage), l.of(record.KindReference), l.of(record.KindEntry), inline)
}

// absent makes kept Sessions, the i-th on shard homes[i] with filters[i], or news where there are no more filters, whose clients are away.
func (t *bench) absent(store *lateStore, homes []int, filters [][]string) {
	for i, home := range homes {
		x := t.open(home, persistent(fmt.Sprint("x", i)))
		t.settleStored(store, 1)
		list := []string{"news"}
		if i < len(filters) {
			list = filters[i]
		}
		x.subscribeMany(0, 1, list...)
		t.settleStored(store, 1)
		x.s.Closed(x.id, "reset")
		t.settleStored(store, 1)
	}
}

// comeBack has the clients of absent come to their shards again and take what waits: so many messages of so many bytes each.
func (t *bench) comeBackFor(store *lateStore, homes []int, messages, bytes int) {
	t.tb.Helper()
	for i, home := range homes {
		x := t.open(home, persistent(fmt.Sprint("x", i)))
		t.settleStored(store, 2)
		var pub packet.Publish
		got := 0
		for _, p := range x.hear() {
			if p.kind != packet.PUBLISH || pub.Decode(p.flags, p.body, x.v) != packet.Success {
				continue
			}
			if got++; len(pub.Payload) != bytes {
				t.tb.Errorf("x%d got %d bytes, want %d", i, len(pub.Payload), bytes)
			}
			x.give(packet.AppendAck(nil, packet.PUBACK, pub.PacketID, packet.Success, x.v))
		}
		if got != messages {
			t.tb.Errorf("x%d got %d messages, want %d", i, got, messages)
		}
	}
	t.settleStored(store, 2)
}

// TestStoredOnce: a message is stored once, however many Sessions wait for it and wherever they are; where one alone waits it has the message in its
// entry, and so has each of a small one. When all have it nothing is left that needs it.
func TestStoredOnce(t *testing.T) {
	for _, c := range []struct {
		name    string
		homes   []int // the publisher is on shard 0
		filters [][]string
		bytes   int
		want    string
	}{
		{"on three shards", []int{0, 0, 1, 1, 2}, nil, 0, "1 5 5 0"},
		{"on three shards, without the publisher's", []int{1, 2, 2}, nil, 0, "1 3 3 0"},
		{"one on each of two", []int{0, 1}, nil, 0, "1 2 2 0"},
		{"two of the publisher's shard", []int{0, 0}, nil, 0, "1 2 2 0"},
		{"two of another shard", []int{1, 1}, nil, 0, "1 2 2 0"},
		{"one of the publisher's shard", []int{0}, nil, 0, "0 0 1 1"},
		{"one of another shard", []int{1}, nil, 0, "0 0 1 1"},
		{"one of another shard by two filters", []int{1}, [][]string{{"news", "#"}}, 0, "0 0 1 1"},
		{"one of another shard by a Shared Subscription", []int{1}, [][]string{{"$share/g/news"}}, 0, "0 0 1 1"},
		{"one, and a member of a Shared Subscription", []int{0, 2}, [][]string{{"news"}, {"$share/g/news"}}, 0, "1 2 2 0"},
		{"members of two Shared Subscriptions", []int{1, 2}, [][]string{{"$share/g/news"}, {"$share/h/news"}}, 0, "1 2 2 0"},
		{"small", []int{0, 0, 1, 1, 2}, nil, sharedBodyMin - 1, "0 0 5 5"},
	} {
		for _, qos := range []uint8{1, 2} {
			store := &lateStore{}
			b := newStoreBenchOf(t, store, 3, 20)
			b.absent(store, c.homes, c.filters)
			p := b.open(0, transient("p"))
			bytes := max(c.bytes, sharedBodyMin)
			if c.bytes > 0 {
				bytes = c.bytes
			}
			p.give(publishBytes("news", qos, 1, bytes, p.v))
			b.settleStored(store, 1)
			if n := len(p.hear()); n != 2 || store.stored() != c.want {
				t.Errorf("%s, QoS %d: messages, references, entries, inline: %s; want %s; the publisher heard %d packets", c.name, qos, store.stored(), c.want, n)
			}
			b.comeBackFor(store, c.homes, 1, bytes)
			if n := store.of(record.KindReference) + store.of(record.KindEntry); n != 0 {
				t.Errorf("%s, QoS %d: %d references and entries are left", c.name, qos, n)
			}
		}
	}
}

// TestStoredOnceForThoseThatAreLeft has a connected client of the publisher's shard acknowledge a message before it is written: it is written for who
// is away, on other shards, and only when somebody is.
func TestStoredOnceForThoseThatAreLeft(t *testing.T) {
	for _, c := range []struct {
		away []int
		want string
	}{{nil, "0 0 0 0"}, {[]int{1}, "1 1 1 0"}, {[]int{0, 1}, "1 2 2 0"}, {[]int{0}, "0 0 1 1"}, {[]int{1, 2}, "1 2 2 0"}} {
		store := &lateStore{}
		b := newStoreBenchOf(t, store, 3, 20)
		b.absent(store, c.away, nil)
		near, p := b.open(0, persistent("near")), b.open(0, transient("p"))
		b.settleStored(store, 1)
		near.subscribeMany(0, 1, "news")
		b.settleStored(store, 1)
		near.hear()
		p.give(publishBytes("news", 1, 1, sharedBodyMin, p.v))
		if got := near.acknowledge(""); len(got) != 1 {
			t.Fatalf("%d messages before the commit", len(got))
		}
		b.settleStored(store, 1)
		if store.stored() != c.want {
			t.Errorf("away on %v: messages, references, entries, inline: %s; want %s", c.away, store.stored(), c.want)
		}
		b.comeBackFor(store, c.away, 1, sharedBodyMin)
		if n := store.of(record.KindReference) + store.of(record.KindEntry); n != 0 {
			t.Errorf("away on %v: %d references and entries are left", c.away, n)
		}
	}
}

// TestNotStoredWhereQueuesAreFull has Sessions on two shards whose limit drops a message: nothing refers to it, and it is not written.
func TestNotStoredWhereQueuesAreFull(t *testing.T) {
	store := &lateStore{}
	b := newBenchOf(t, Limits{Memory: 64 << 20, Shards: 3, MaxConnections: 100, MaxSubscriptions: 100, MaxRetained: 100, MaxQueuedMessages: 1,
		StoreBytes: 4 << 20}, store)
	homes := []int{1, 2}
	b.absent(store, homes, nil)
	p := b.open(0, transient("p"))
	for i := range 3 {
		p.give(publishBytes("news", 1, uint16(i+1), sharedBodyMin, p.v))
		b.settleStored(store, 1)
	}
	if n := len(p.hear()); n != 4 || store.stored() != "1 2 2 0" {
		t.Errorf("messages, references, entries, inline: %s; want 1 2 2 0; the publisher heard %d packets", store.stored(), n)
	}
}

// TestStoredOnceOnTheMove has a message come to where a Session, or a member of a Shared Subscription, was until just now, and be forwarded: its entry
// refers to the message like that of the other Session.
func TestStoredOnceOnTheMove(t *testing.T) {
	for _, filter := range []string{"news", "$share/g/news"} {
		for other := range 3 {
			store := &lateStore{}
			b := newStoreBenchOf(t, store, 3, 20)
			homes := []int{other, 1}
			b.absent(store, homes, [][]string{{"news"}, {filter}})
			p := b.open(2, transient("p"))
			b.settleStored(store, 1)
			b.open(0, persistent("x1"))
			b.turn(1, 1) // The claim is there.
			p.give(publishBytes("news", 1, 1, sharedBodyMin, p.v))
			b.turn(1, 1) // The Session leaves, and then the message comes.
			if sess := b.session("x1"); sess.home.Load() != 0 || !sess.arriving {
				t.Fatal("the Session is not on its way: the scene is another one")
			}
			b.settleStored(store, 1)
			if store.stored() != "1 2 2 0" {
				t.Errorf("%s, other on %d: messages, references, entries, inline: %s; want 1 2 2 0", filter, other, store.stored())
			}
			homes[1] = 0
			b.comeBackFor(store, homes, 1, sharedBodyMin)
			if n := store.of(record.KindReference) + store.of(record.KindEntry); n != 0 {
				t.Errorf("%s, other on %d: %d references and entries are left", filter, other, n)
			}
		}
	}
}

// TestStoredForWhoComesLater has a Session subscribe after a message for another one of its shard was matched and before it is there: the publisher's shard
// knows of one that is alone, and each has the message in its entry.
func TestStoredForWhoComesLater(t *testing.T) {
	store := &lateStore{}
	b := newStoreBenchOf(t, store, 2, 20)
	homes := []int{1, 1}
	b.absent(store, homes, [][]string{{"news"}, {"other"}})
	p, late := b.open(0, transient("p")), b.open(1, persistent("x1"))
	b.settleStored(store, 1)
	p.give(publishBytes("news", 1, 1, sharedBodyMin, p.v))
	late.subscribeMany(0, 1, "news")
	late.s.Closed(late.id, "reset")
	b.settleStored(store, 1)
	if store.stored() != "0 0 2 2" {
		t.Errorf("messages, references, entries, inline: %s; want 0 0 2 2", store.stored())
	}
	b.comeBackFor(store, homes, 1, sharedBodyMin)
	if n := store.of(record.KindEntry); n != 0 {
		t.Errorf("%d entries are left", n)
	}
}

// TestNotStoredWhereAShardHasNoMemory: a message for Sessions of three shards for which one has no memory is written for none; sent again, it is stored once.
func TestNotStoredWhereAShardHasNoMemory(t *testing.T) {
	store := &lateStore{}
	b := newStoreBenchOf(t, store, 3, 20)
	homes := []int{0, 1, 2}
	b.absent(store, homes, nil)
	p := b.open(0, transient("p"))
	s := b.b.loops[2].shard
	taken := s.entrySlots
	s.entrySlots = slotCache{s: &slots{}}
	p.give(publishBytes("news", 1, 1, sharedBodyMin, p.v))
	b.settleStored(store, 1)
	s.entrySlots = taken
	if store.stored() != "0 0 0 0" {
		t.Errorf("refused: messages, references, entries, inline: %s; want none", store.stored())
	}
	p.give(publishBytes("news", 2, 1, sharedBodyMin, p.v))
	b.settleStored(store, 1)
	if store.stored() != "1 3 3 0" {
		t.Errorf("messages, references, entries, inline: %s; want 1 3 3 0", store.stored())
	}
}
