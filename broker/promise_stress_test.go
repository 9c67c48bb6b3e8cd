package broker

import (
	"bytes"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// TestLargeStalledAfterItWasStored has a 3.1.1 client send a large QoS 2 message when there is memory to store it and
// none to note its Packet Identifier: the message waits, and its pages must still be its own.
func TestLargeStalledAfterItWasStored(t *testing.T) {
	b := newBench(t, 1, small)
	sub := b.open(0, persistent("sub"))
	sub.subscribeMany(0, 2, "news")
	sub.hear()
	in := transient("p")
	in.Version = packet.V311
	p := b.open(0, in)
	p.hear()
	s := p.s
	content := bytes.Repeat([]byte("content!"), 2000)
	whole := packet.AppendPublish(nil, &packet.PublishHead{Flags: packet.PublishFlags(false, 2, false), Topic: []byte("news"), PacketID: 1}, content, packet.V311)
	p.give(whole[:len(whole)-1])
	keep := s.pool.alloc(64)
	restore := b.exhaust(0, false)
	s.pool.free(keep) // the message's name fits, the table of Packet Identifiers does not
	p.give(whole[len(whole)-1:])
	p.hear()
	restore()
	survives(t, "the message when memory is back", func() {
		for i := range int64(20) {
			b.turn(0, i*100)
		}
		var pub packet.Publish
		n := 0
		for _, got := range sub.hear() {
			if got.kind != packet.PUBLISH {
				continue
			}
			n++
			if r := pub.Decode(got.flags, got.body, packet.V50); r != packet.Success || !bytes.Equal(pub.Payload, content) {
				t.Errorf("the subscriber got another content: %v", r)
			}
		}
		if n != 1 {
			t.Errorf("the subscriber got %d messages; want 1", n)
		}
		for _, h := range []*hand{sub, p} {
			h.give(packet.AppendDisconnect(nil, &packet.Disconnect{HasSessionExpiry: h.v == packet.V50}, h.v))
		}
		b.settleAll(5000)
		for _, err := range b.b.leftovers() {
			t.Error(err)
		}
	})
}

// TestPromisedPagesAreKept has small messages use memory up while a large packet arrives: what was promised to it at
// its fixed header is there for it.
func TestPromisedPagesAreKept(t *testing.T) {
	b := newBench(t, 1, small)
	p := b.open(0, transient("p"))
	p.hear()
	s := p.s
	size := min(s.limits.MaxPacketSize-10, int(s.arena.promiseMax()-1)*pageSize)
	whole := publishBytes("t", 1, 1, size-20, packet.V50)
	p.give(whole[:10])
	var taken []uint32
	for at := 10; at < len(whole) && p.live(); at += pageSize {
		for pg := s.pool.page(); pg != 0; pg = s.pool.page() { // messages take what they can get
			taken = append(taken, pg)
		}
		p.give(whole[at:min(at+pageSize, len(whole))])
	}
	if got := p.hear(); !p.live() || len(got) != 1 || got[0].kind != packet.PUBACK {
		t.Errorf("a packet of %d bytes, promised its pages, was answered by %v %v; %s", len(whole), kinds(got), got, s.counters.String())
	}
	for _, pg := range taken {
		s.pool.freePage(pg)
	}
}

// TestReceivedIdentifiersCostLittle has a client go through all Packet Identifiers of QoS 2, one at a time.
func TestReceivedIdentifiersCostLittle(t *testing.T) {
	b := newBench(t, 1, small)
	p := b.open(0, transient("p"))
	s, sess := p.s, b.session("p")
	for pid := 1; pid < 65536; pid += 500 {
		s.receivedAdd(sess, uint16(pid))
		s.receivedRemove(sess, uint16(pid))
	}
	maps := 0
	for i := range idMapsTotal {
		if le32(s.pool.a.block(sess.received, 4*idMapsTotal)[4*i:]) != 0 {
			maps++
		}
	}
	if maps > 1 {
		t.Errorf("%d maps of %d bytes are kept for no identifier; want 1", maps, blockSize(idMapBytes))
	}
}

// TestPromisesOfTwoShards has two shards take the pages that each was promised by turns, while messages take the rest.
func TestPromisesOfTwoShards(t *testing.T) {
	b := newBench(t, 2, func(l *Limits) { small(l); l.Memory = 32 << 20 })
	a := b.b.world.arena
	p, q := b.b.loops[0].shard.pool, b.b.loops[1].shard.pool
	for a.slots.available.Load() > a.promiseMax() {
		if p.page() == 0 {
			break
		}
	}
	n := int(min(a.slots.available.Load(), a.promiseMax()))
	few := 5
	if !a.commit(few) || !a.commit(n-few) {
		t.Fatalf("%d pages are not promised of %d", n, a.slots.available.Load())
	}
	for range few {
		if q.committedPage() == 0 {
			t.Fatal("a promise to shard 1 is not kept")
		}
	}
	for i := range n - few {
		for q.page() != 0 || p.page() != 0 {
		}
		if p.committedPage() == 0 {
			t.Fatalf("shard 0 was promised %d pages and got %d", n-few, i)
		}
	}
}
