package broker

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/record"
)

// TestFloodBeforeStoreThatStandsStill has one client say the same again and again while the store does nothing: whatever it says, what waits for
// the store is bounded, as it is for PUBLISH and SUBSCRIBE, and so is the memory that it takes.
func TestFloodBeforeStoreThatStandsStill(t *testing.T) {
	unsubscribe := packet.AppendUnsubscribe(nil, &packet.Unsubscribe{PacketID: 1}, [][]byte{[]byte("a")}, packet.V50)
	for name, raw := range map[string][]byte{
		"PUBLISH":                publishBytes("one", 1, 1, 10, packet.V50),
		"SUBSCRIBE":              packet.AppendSubscribe(nil, &packet.Subscribe{PacketID: 1}, []packet.Subscription{{Filter: []byte("two")}}, packet.V50),
		"UNSUBSCRIBE":            unsubscribe,
		"PUBREL of nothing":      packet.AppendAck(nil, packet.PUBREL, 7, packet.Success, packet.V50),
		"PUBREC of nothing":      packet.AppendAck(nil, packet.PUBREC, 7, packet.Success, packet.V50),
		"UNSUBSCRIBE and PUBREL": append(packet.AppendAck(nil, packet.PUBREL, 7, packet.Success, packet.V50), unsubscribe...),
	} {
		t.Run(name, func(t *testing.T) {
			store := &lateStore{}
			b, x := floodScene(t, store)
			s := x.s
			before := heapBytes()
			const n = 200_000
			for range n {
				x.give(raw)
				if s.Persist(); s.conns[x.id].is(connPaused) || !x.live() {
					break
				}
			}
			boundedStream(t, s, before)
			runtime.KeepAlive(b)
		})
	}
}

// TestAllIdentifiersAreForgotten has a client release all Packet Identifiers of QoS 2 that there are, and do so again before the store has forgotten one: what is
// looked for in vain bounds the turn, and when PUBCOMP has come nothing is left of the list.
func TestAllIdentifiersAreForgotten(t *testing.T) {
	store := &lateStore{}
	_, x := floodScene(t, store)
	s := x.s
	sess := s.refs[x.id].session
	var raw []byte
	for pid := uint16(1); pid != 0; pid++ {
		if !s.receivedAdd(sess, pid) {
			t.Fatal("no memory for the scene")
		}
		raw = packet.AppendAck(raw, packet.PUBREL, pid, packet.Success, packet.V50)
	}
	x.give(raw)
	n := len(sess.kept.forgetting)
	if n != record.PacketIDs {
		t.Fatalf("%d are being forgotten: the scene is another one", n)
	}
	before := s.counters[CounterMessagesReceived]
	x.give(raw)
	if handled, most := int(s.counters[CounterMessagesReceived]-before), s.limits.InputWork*forgettingPerDelivery/n+1; handled > most {
		t.Errorf("%d are looked for in one turn, each among %d; want %d", handled, n, most)
	}
	store.all(s)
	if got := len(x.hear()); got < n || cap(sess.kept.forgetting) > 0 {
		t.Errorf("%d of %d are answered, and the list keeps room for %d", got, n, cap(sess.kept.forgetting))
	}
}

// TestReconnectsBeforeStoreThatStandsStill has one client connect to its kept Session, which expires, and go, again and again.
func TestReconnectsBeforeStoreThatStandsStill(t *testing.T) {
	store := &lateStore{}
	b, x := floodScene(t, store)
	s := x.s
	in := persistent("x")
	in.SessionExpiry = 3600
	s.Closed(x.id, "reset")
	b.b.Refuse(RefuseMessages) // as the store says when it cannot be written
	before := heapBytes()
	const n = 20_000
	for i := range n {
		x = b.open(0, in)
		b.turn(0, int64(i))
		s.Closed(x.id, "given up")
		b.turn(0, int64(i))
	}
	boundedStream(t, s, before)
}

// TestWillsBeforeStoreThatStandsStill has one client that keeps nothing connect with a Will and go, again and again, while nothing is written: where its
// Will would have to be, CONNECT is refused, at once if the store refuses everything, else when too much waits; any other Will is published each time.
func TestWillsBeforeStoreThatStandsStill(t *testing.T) {
	for _, c := range []struct {
		name    string
		refusal Refusal
		topic   string
		qos     uint8
		retain  bool
		refused bool
	}{
		{"retained, QoS 1", RefuseAll, "will", 1, true, true},
		{"retained, QoS 2", RefuseMessages, "will", 2, true, true},
		{"retained, QoS 0", RefuseAll, "will", 0, true, false},
		{"for a kept Session, QoS 1", RefuseAll, "one", 1, false, true},
		{"for a kept Session, QoS 2", RefuseMessages, "one", 2, false, true},
		{"for a kept Session, QoS 0", RefuseAll, "one", 0, false, false},
		{"for nobody", RefuseAll, "will", 1, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, x := floodScene(t, &lateStore{})
			s := x.s
			b.b.Refuse(c.refusal)
			in := withWill("flap", c.topic, c.qos, c.retain)
			before := heapBytes()
			const n = 300
			published, refused := 0, 0
			for i := range n {
				h := b.open(0, in)
				if !h.live() {
					refused++
					if got := h.hear(); len(got) != 1 || got[0].body[1] != byte(packet.ServerBusy) {
						t.Fatalf("CONNECT is answered by %v", got)
					}
				} else {
					published++
				}
				s.Closed(h.id, "reset")
				b.turn(0, int64(10*i))
				x.hear()
			}
			boundedStream(t, s, before)
			if size := int(s.retainedLog.size.Load()); size > 3*s.limits.streamBytes() {
				t.Errorf("%d bytes of Retained Messages wait; %d is the bound", size, s.limits.streamBytes())
			}
			want := 0
			if c.refused && c.refusal != RefuseAll {
				want = 2 * s.limits.streamBytes() / len(in.Will.Payload)
			}
			if c.refused && (published < want || published > want+1) || !c.refused && refused > 0 {
				t.Errorf("%d are taken, %d refused", published, refused)
			}
			if got := s.counters[CounterStoreRefusedSessions]; got != uint64(refused) {
				t.Errorf("%d count as refused, of %d", got, refused)
			}
		})
	}
}

// TestWillsOfManyBeforeStoreThatStandsStill has all clients go that were connected before the store stood still: who is connected gets each of
// their Wills, what waits is bounded, and those that the store does not get for that are counted. What they retain it has in the end.
func TestWillsOfManyBeforeStoreThatStandsStill(t *testing.T) {
	const clients = 90
	store := &lateStore{}
	b, x := floodScene(t, store)
	s := x.s
	watcher := b.open(0, transient("watcher"))
	watcher.subscribeMany(0, 1, "one", "will/+")
	watcher.hear()
	var all []*hand
	for i := range clients {
		in := withWill(fmt.Sprint("c", i), "one", 1, false)
		if i%2 == 0 {
			in.Will.Topic, in.Will.Retain = fmt.Append(nil, "will/", i), true
		}
		all = append(all, b.open(0, in))
	}
	b.b.Refuse(RefuseAll)
	before := heapBytes()
	got := 0
	for i, h := range all {
		if !h.live() {
			t.Fatal("refused before the store stood still")
		}
		s.Closed(h.id, "reset")
		b.turn(0, int64(10*i))
		got += len(watcher.acknowledge(""))
	}
	boundedStream(t, s, before)
	if got != clients || s.retainedLog.size.Load() > 3*int64(s.limits.streamBytes()) {
		t.Errorf("%d Wills are delivered; %d bytes of Retained Messages wait", got, s.retainedLog.size.Load())
	}
	missed := s.counters[CounterStoreRefused]
	b.b.Refuse(RefuseNothing)
	for range 50 {
		store.all(s)
	}
	retained, queued := store.of(record.KindRetained), store.of(record.KindEntry)
	if retained != clients/2 || queued == 0 || queued >= clients/2 || missed == 0 || uint64(clients-queued) < missed {
		t.Errorf("the store has %d Retained Messages and %d that wait; %d are counted", retained, queued, missed)
	}
}

// TestWillsOfKeptSessionsBeforeStoreThatStandsStill is the same for clients with kept Sessions, whose Wills the store has already: what is due of them has
// no more room than others' Wills.
func TestWillsOfKeptSessionsBeforeStoreThatStandsStill(t *testing.T) {
	const clients = 90
	store := &lateStore{}
	b := newStoreBench(t, store)
	x := b.open(0, persistent("x"))
	s := x.s
	store.all(s)
	x.subscribeMany(0, 1, "one")
	store.all(s)
	watcher := b.open(0, transient("watcher"))
	watcher.subscribeMany(0, 1, "one")
	watcher.hear()
	var all []*hand
	for i := range clients {
		in := withWill(fmt.Sprint("c", i), "one", 1, false)
		in.CleanStart, in.SessionExpiry = false, neverExpires
		all = append(all, b.open(0, in))
		if store.all(s); !all[i].live() {
			t.Fatal("refused although the store works")
		}
	}
	x.hear()
	s.Closed(x.id, "reset")
	store.all(s)
	b.b.Refuse(RefuseAll)
	before := heapBytes()
	got := 0
	for i, h := range all {
		s.Closed(h.id, "reset")
		b.turn(0, int64(10*i))
		got += len(watcher.acknowledge(""))
	}
	boundedStream(t, s, before)
	missed := s.counters[CounterStoreRefused]
	b.b.Refuse(RefuseNothing)
	for range 50 {
		store.all(s)
	}
	queued := store.of(record.KindEntry)
	if got != clients || queued == 0 || uint64(clients-queued) != missed || store.of(record.KindSession) != clients+1 {
		t.Errorf("%d Wills are delivered, %d wait, %d are counted; the store has %d Sessions", got, queued, missed, store.of(record.KindSession))
	}
	for key, value := range store.records {
		var in record.Session
		if key[0] == byte(record.KindSession) && (in.Decode([]byte(value)) != nil || len(in.Will) > 0) {
			t.Errorf("a Will that was published is there for the next run, of %q", in.ClientID)
		}
	}
}

// withWill is the CONNECT of a client that keeps nothing.
func withWill(clientID, topic string, qos uint8, retain bool) packet.Connect {
	in := transient(clientID)
	in.HasWill, in.Will = true, packet.Will{QoS: qos, Retain: retain, Topic: []byte(topic), Payload: make([]byte, 60000)}
	return in
}

// boundedStream finds that no more waits for the store than a shard may gather, and takes a Go heap that was so large before.
func boundedStream(t *testing.T, s *Shard, before uint64) {
	t.Helper()
	waits, bytes := len(s.stream.actions)+len(s.stream.tickets), len(s.stream.ops)
	if waits > 2*ticketsMax || bytes > 3*s.limits.streamBytes() { // as it is planned: see Limits.plan
		t.Errorf("%d answers and %d bytes of records wait for the store; %d and %d is what a shard gathers", waits, bytes, ticketsMax, s.limits.streamBytes())
	}
	// Each answer that waits has some 100 bytes of its own.
	if grown, most := int64(heapBytes())-int64(before), int64(2*s.limits.streamBytes()+ticketsMax*200); grown > most {
		t.Errorf("the heap has grown by %d KiB while the store stood still; %d would do", grown>>10, most>>10)
	}
}

// floodScene is a client with a kept Session whose last batch is under way for ever.
func floodScene(t *testing.T, store *lateStore) (*bench, *hand) {
	t.Helper()
	b := newStoreBench(t, store)
	x := b.open(0, persistent("x"))
	store.all(x.s)
	x.subscribeMany(0, 1, "one")
	store.all(x.s)
	x.hear()
	x.subscribeMany(0, 1, "two")
	x.s.Persist()
	if len(store.batches) != 1 {
		t.Fatal("no batch is under way: the scene is another one")
	}
	return b, x
}

func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
