package broker

import (
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// TestSubscribeWhileRetaining subscribes on one shard while another one is between matching and storing a retained
// message: the subscriber gets it as a live message or as a retained one, not neither.
func TestSubscribeWhileRetaining(t *testing.T) {
	for _, before := range []string{"", "another retained topic"} {
		b := newBench(t, 2, nil)
		sub := b.open(1, transient("sub"))
		pub := b.open(0, transient("pub"))
		if before != "" {
			h := &packet.PublishHead{Flags: packet.PublishFlags(false, 0, true), Topic: []byte(before)}
			pub.give(packet.AppendPublish(nil, h, []byte("x"), packet.V50))
		}
		b.settleAll(0)
		sub.hear()
		s := pub.s
		// What acceptPublish does, with the other shard's turns in the middle.
		p := &s.pub
		p.raw = nil
		p.begin([]byte("news"), nil, 1, true)
		p.payload, p.size = []byte("content"), 7
		e := s.lookup(p.topic)
		if !s.reserve(e) || !s.prepare(p, e) {
			t.Fatal("no room")
		}
		sub.subscribeMany(0, 1, "news")
		for range 5 {
			b.turn(1, 0)
		}
		s.route(p, s.retainFirst(p, e))
		s.finish(p)
		b.settleAll(0)
		n := 0
		for _, got := range sub.hear() {
			if got.kind == packet.PUBLISH {
				n++
			}
		}
		if n == 0 {
			t.Errorf("retained before: %q: the message was neither delivered nor found in the store", before)
		}
	}
}
