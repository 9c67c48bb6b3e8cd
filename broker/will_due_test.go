package broker

import (
	"slices"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// dying is a connection with a Will that ends when memory comes free, one page: it takes that for the message that it is sent again, which
// there was no memory for, and there is none left for the PUBREL behind. A watcher of the Will has room in its buffer.
func (t *bench) dying() (x, watcher *hand, feed, restore func()) {
	t.tb.Helper()
	name := strings.Repeat("n", pageSize-10) // more than CONNACK leaves of its page
	x = t.open(0, persistent("x"))
	x.subscribeMany(0, 2, name)
	x.hear()
	p := t.open(0, transient("p"))
	p.give(publishBytes(name, 1, 1, refThreshold, packet.V50)) // whose payload is sent by reference: what follows needs a page
	p.give(publishBytes(name, 2, 2, 10, packet.V50))
	x.releaseAll()
	x.s.Closed(x.id, "it ends")
	watcher = t.open(0, transient("watcher"))
	watcher.subscribeMany(0, 0, "will")
	watcher.hear()
	watcher.net.window = 0
	watcher.give(packet.AppendPingreq(nil))
	x.loop.flush()
	in := persistent("x")
	in.HasWill, in.Will = true, packet.Will{Topic: []byte("will"), Payload: []byte("gone")}
	will, first, second := x.s.pool.alloc(64), x.s.pool.page(), x.s.pool.page()
	restore = t.exhaust(0, true)
	x.s.pool.free(will)
	x.s.pool.cache.put(first)
	x = t.open(0, in)
	x.net.window = 0
	if sess := t.session("x"); !x.live() || !sess.hungry || sess.inflight != 0 {
		t.tb.Fatalf("connected: %v, hungry: %v, %d in flight: the scene is another one", x.live(), sess.hungry, sess.inflight)
	}
	return x, watcher, func() { x.s.pool.cache.put(second) }, restore
}

// releaseAll answers the PUBLISH packets of QoS 2 that came with PUBREC.
func (h *hand) releaseAll() {
	var pub packet.Publish
	for _, got := range h.hear() {
		if got.kind != packet.PUBLISH {
			continue
		}
		if pub.Decode(got.flags, got.body, packet.V50); pub.QoS == 2 {
			h.give(packet.AppendAck(nil, packet.PUBREC, pub.PacketID, packet.Success, packet.V50))
		}
	}
	if got := kinds(h.hear()); !slices.Equal(got, []packet.Kind{packet.PUBREL}) {
		h.tb.Fatalf("PUBREC is answered by %v: the scene is another one", got)
	}
}

// TestWillIsPublishedInTheTurn has a connection with a Will end where nothing has come in that is handled to its end, and the
// Will be published in the same turn: when its Session is fed, and when its buffer has room again.
func TestWillIsPublishedInTheTurn(t *testing.T) {
	for name, end := range map[string]func(b *bench, x *hand){
		"its Session is fed, for a publisher that has gone": func(b *bench, x *hand) {
			x.s.roomAgain = true
			b.turn(0, x.s.now)
		},
		"its buffer has room again": func(_ *bench, x *hand) { x.loop.flush() },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, 1, small)
			in := transient("p311")
			in.Version = packet.V311
			p := b.open(0, in)
			b.open(0, transient("sub")).subscribeMany(0, 1, "q")
			p.hear()
			x, watcher, feed, restore := b.dying()
			p.give(publishBytes("q", 1, 1, 5000, packet.V311)) // waits for memory
			p.s.Closed(p.id, "it ends")
			if len(p.s.stalledConns) != 1 {
				t.Fatal("no publisher waits: the scene is another one")
			}
			restoreMore := b.exhaust(0, true) // what the publisher had
			feed()
			end(b, x)
			if x.live() {
				t.Fatalf("the connection is still there: the scene is another one; %s", x.s.counters.String())
			}
			watcher.net.window = -1
			watcher.loop.handle(&Event{Kind: Writable, Token: token(watcher.id, watcher.s.conns[watcher.id].generation)})
			if got := kinds(watcher.hear()); !slices.Equal(got, []packet.Kind{packet.PINGRESP, packet.PUBLISH}) {
				t.Errorf("the watcher of the Will got %v; want PINGRESP and PUBLISH", got)
			}
			restoreMore()
			restore()
		})
	}
}
