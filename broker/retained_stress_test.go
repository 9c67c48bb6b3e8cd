package broker

import (
	"fmt"
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

// TestCursorsShareATurn has many Sessions look for the few names that match among many that do not: a turn looks at no more names
// than it may, whoever asks, and all of them come in the end.
func TestCursorsShareATurn(t *testing.T) {
	const names, each, sessions = 10 * cursorScanMax, 1000, 3
	b := newBench(t, 1, func(l *Limits) { l.MaxRetained = names })
	p := b.open(0, transient("p"))
	for i := range names {
		last := "no"
		if i%each == 0 {
			last = "yes"
		}
		h := &packet.PublishHead{Flags: packet.PublishFlags(false, 0, true), Topic: fmt.Appendf(nil, "t/%06d/%s", i, last)}
		p.give(packet.AppendPublish(nil, h, []byte("x"), packet.V50))
	}
	var readers []*hand
	for i := range sessions {
		h := b.open(0, transient(fmt.Sprint("x", i)))
		h.subscribeMany(0, 0, "t/+/yes")
		h.hear()
		readers = append(readers, h)
	}
	heard := 0
	for turn := range int64(sessions * names / cursorScanMax * 2) {
		b.turn(0, turn)
		now := 0
		for _, h := range readers {
			now += len(h.hear())
		}
		if most := 4 * cursorScanMax / each; now > most {
			t.Fatalf("in turn %d %d messages came, which lie some %d names apart; want %d at most", turn, now, each, most)
		}
		heard += now
	}
	if want := sessions * ((names + each - 1) / each); heard != want {
		t.Errorf("%d messages came, want %d", heard, want)
	}
}
