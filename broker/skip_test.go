package broker

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// TestLargePublishWithoutMemory gives a client's large PUBLISH to a broker whose memory is used up, whole and in pieces: the bytes are
// read, the client is told where its version can, and what stands behind it is handled.
func TestLargePublishWithoutMemory(t *testing.T) {
	const size = 50 << 10
	for _, piece := range []int{7, 3000, 1 << 20} {
		for _, one := range []struct {
			v    packet.Version
			qos  uint8
			want string
		}{{packet.V50, 0, "[PINGRESP]"}, {packet.V50, 1, "[PUBACK PINGRESP]"}, {packet.V50, 2, "[PUBREC PINGRESP]"}, {packet.V311, 0, "[PINGRESP]"}} {
			t.Run(fmt.Sprintf("%v, QoS %d, by %d bytes", one.v, one.qos, piece), func(t *testing.T) {
				b := newBench(t, 1, small)
				in := transient("p")
				in.Version = one.v
				p := b.open(0, in)
				p.subscribeMany(0, 2, "big")
				p.hear()
				restore := b.exhaust(0, false)
				all := packet.AppendPingreq(publishBytes("big", one.qos, 1, size, one.v))
				for len(all) > 0 {
					n := min(len(all), piece)
					p.pieces(all[:n])
					all = all[n:]
				}
				got := p.hear()
				if fmt.Sprint(kinds(got)) != one.want || !p.live() {
					t.Fatalf("it got %v, want %s; connected: %v; %s", kinds(got), one.want, p.live(), p.s.counters.String())
				}
				if one.qos > 0 && (len(got[0].body) < 3 || packet.Reason(got[0].body[2]) != packet.QuotaExceeded) {
					t.Errorf("it is answered with % x; want Reason Code 0x97", got[0].body)
				}
				restore()
				if p.give(publishBytes("big", 1, 2, size, one.v)); len(p.hear()) != 2 {
					t.Errorf("when memory is back the connection does not go on; %s", p.s.counters.String())
				}
			})
		}
	}
}

// pieces gives bytes behind what the connection has left over, as Loop.read does.
func (h *hand) pieces(b []byte) {
	buf := make([]byte, min(64<<10, 40<<10+len(b)))
	for len(b) > 0 {
		n := h.s.Carry(h.id, buf)
		m := copy(buf[n:], b)
		h.s.Receive(h.id, buf[:n+m], m)
		b = b[m:]
	}
}

// TestThrownAwayPublishIsKnown throws PUBLISH packets away that mean something beside their payload: a Topic Alias is learnt, a
// message of QoS 2 that was received is acknowledged as such, and one that its client may not publish is refused for that.
func TestThrownAwayPublishIsKnown(t *testing.T) {
	b := newBench(t, 1, small)
	p := b.open(0, transient("p"))
	sub := b.open(0, transient("sub"))
	sub.subscribeMany(0, 0, "#")
	p.hear()
	p.give(publishBytes("t", 2, 7, 20<<10, packet.V50))
	p.hear()
	room := p.s.pool.alloc(64) // in which the alias is noted
	room2 := p.s.pool.alloc(64)
	restore := b.exhaust(0, false)
	p.s.pool.free(room)
	p.s.pool.free(room2)
	head := &packet.PublishHead{Flags: packet.PublishFlags(false, 1, false), Topic: []byte("named"), PacketID: 1}
	head.Alias = 3
	p.pieces(packet.AppendPublish(nil, head, make([]byte, 20<<10), packet.V50))
	p.pieces(publishBytes("t", 2, 7, 20<<10, packet.V50))
	p.pieces(publishBytes("$SYS/x", 1, 2, 20<<10, packet.V50))
	got := p.hear()
	restore()
	want := []packet.Reason{packet.QuotaExceeded, packet.Success, packet.NotAuthorized}
	if len(got) != len(want) {
		t.Fatalf("three PUBLISH packets were answered by %v", kinds(got))
	}
	for i, r := range want {
		var in packet.Ack
		if in.Decode(got[i].kind, got[i].body, packet.V50); in.Reason != r {
			t.Errorf("PUBLISH %d was answered with %v; want %v", i+1, in.Reason, r)
		}
	}
	sub.hear()
	head = &packet.PublishHead{Flags: packet.PublishFlags(false, 0, false)}
	head.Alias = 3
	p.give(packet.AppendPublish(nil, head, []byte("x"), packet.V50))
	if list := sub.hear(); len(list) != 1 {
		t.Errorf("the Topic Alias of a PUBLISH that was thrown away is not known: %v, connected: %v", kinds(list), p.live())
	}
}

// TestThrownAwayPublishIsAnswered throws PUBLISH packets away while the store has so much to do that nothing more is taken: a PUBLISH
// that waits comes again, one that was thrown away does not, so it is answered all the same, and in its turn.
func TestThrownAwayPublishIsAnswered(t *testing.T) {
	for _, one := range []struct {
		v     packet.Version
		qos   uint8
		topic string
		want  packet.Reason
	}{
		{packet.V50, 1, "big", packet.QuotaExceeded}, {packet.V50, 2, "big", packet.QuotaExceeded},
		{packet.V50, 1, "$SYS/x", packet.NotAuthorized}, {packet.V311, 1, "$SYS/x", packet.Success}, {packet.V311, 2, "$SYS/x", packet.Success},
	} {
		t.Run(fmt.Sprintf("%v, QoS %d, %s", one.v, one.qos, one.topic), func(t *testing.T) {
			store := &lateStore{}
			l := Limits{Shards: 1}
			small(&l)
			b := newBenchOf(t, l, store)
			sub := b.open(0, persistent("sub"))
			s := sub.s
			store.all(s)
			sub.subscribeMany(0, 1, "small")
			store.all(s)
			in := transient("p")
			in.Version = one.v
			p := b.open(0, in)
			p.hear()
			published := 0
			for ; s.streamRoom(); published++ {
				p.give(publishBytes("small", 1, uint16(100+published), 3000, one.v))
			}
			restore := b.exhaust(0, false)
			for piece := range slices.Chunk(publishBytes(one.topic, one.qos, 1, 50<<10, one.v), 3000) {
				p.pieces(piece)
			}
			if got := p.hear(); len(got) != 0 {
				t.Errorf("%v before anything is durable", kinds(got))
			}
			restore()
			store.all(s)
			got := p.hear()
			if len(got) != published+1 || !p.live() {
				t.Fatalf("%d answers to %d messages and one that was thrown away; connected: %v", len(got), published, p.live())
			}
			var ack packet.Ack
			last := got[published]
			if ack.Decode(last.kind, last.body, one.v); ack.PacketID != 1 || ack.Reason != one.want || last.kind != [...]packet.Kind{1: packet.PUBACK, 2: packet.PUBREC}[one.qos] {
				t.Errorf("it is answered with %v % x", last.kind, last.body)
			}
		})
	}
}

// TestBacklogOfLargePublisher is a client whose Session holds the memory, and that publishes something large as soon as it is connected: it
// must get what waits for it, or nobody ever has memory again.
func TestBacklogOfLargePublisher(t *testing.T) {
	for _, v := range []packet.Version{packet.V50, packet.V311} {
		t.Run(fmt.Sprint(v), func(t *testing.T) { backlog(t, v) })
	}
}

func backlog(t *testing.T, v packet.Version) {
	b := newBench(t, 1, func(l *Limits) {
		small(l)
		l.MaxQueuedMessages, l.MaxQueuedBytes, l.MaxInflight = 1<<20, 1<<30, 5
	})
	in := persistent("both")
	in.Version = v
	h := b.open(0, in)
	h.subscribeMany(0, 1, "news")
	h.hear()
	h.give(packet.AppendDisconnect(nil, &packet.Disconnect{}, v))
	b.settleAll(0)
	p := b.open(0, transient("p"))
	queued := 0
	for full := false; !full; queued++ {
		p.give(publishBytes("news", 1, 1, 30<<10, packet.V50))
		for _, got := range p.hear() {
			full = full || len(got.body) > 2 && packet.Reason(got.body[2]) == packet.QuotaExceeded
		}
	}
	queued--
	p.give(packet.AppendDisconnect(nil, &packet.Disconnect{}, packet.V50))
	got, acknowledged, connections := 0, false, 0
	for now := int64(0); now < 60_000 && !(got >= queued && acknowledged); connections++ {
		now += 1000
		got, acknowledged, now = b.comeBack(in, now, got, acknowledged)
	}
	if got < queued || !acknowledged {
		t.Errorf("after %d connections it got %d of %d messages, and its PUBLISH is acknowledged: %v", connections, got, queued, acknowledged)
	}
	t.Logf("%d connections for %d messages", connections, queued)
}

// comeBack connects, publishes what is not acknowledged, and takes and acknowledges what comes, until it is closed or has everything.
func (t *bench) comeBack(in packet.Connect, now int64, got int, acknowledged bool) (int, bool, int64) {
	h := t.open(0, in)
	if !acknowledged {
		h.pieces(publishBytes("other", 1, 9, 100<<10, h.v)[:60<<10])
	}
	rest := publishBytes("other", 1, 9, 100<<10, h.v)[60<<10:]
	for idle := 0; idle < 200 && h.live(); idle++ {
		now += 50
		t.turn(0, now)
		for _, p := range h.net.packets(t.tb) {
			idle = 0
			switch p.kind {
			case packet.PUBACK:
				acknowledged = acknowledged || len(p.body) < 3 || !packet.Reason(p.body[2]).Failed()
				if !acknowledged {
					rest = append(rest, publishBytes("other", 1, 9, 100<<10, h.v)...)
				}
			case packet.PUBLISH:
				var pub packet.Publish
				pub.Decode(p.flags, p.body, h.v)
				got++
				rest = packet.AppendAck(rest, packet.PUBACK, pub.PacketID, packet.Success, h.v)
			}
		}
		if c := &h.s.conns[h.id]; c.state == connLive && !h.s.wantsPause(c) {
			h.pieces(rest)
			rest = nil
		}
	}
	t.settleAll(now)
	return got, acknowledged, now
}

// TestLargeConnectWithoutMemory gives a CONNECT that takes pages, whole and in pieces, to a broker whose memory is used up: its client is told in its
// version. The connection of a SUBSCRIBE that is as large ends, and is counted as one that had to.
func TestLargeConnectWithoutMemory(t *testing.T) {
	for _, piece := range []int{1, 3000, 1 << 20} {
		for _, v := range []packet.Version{packet.V31, packet.V311, packet.V50} {
			b := newBench(t, 1, small)
			live := b.open(0, transient("live"))
			restore := b.exhaust(0, false)
			in := packet.Connect{Version: v, ClientID: []byte("c"), CleanStart: true, HasWill: true, Will: packet.Will{Topic: []byte("w"), Payload: make([]byte, 5000)}}
			h := b.dial(0)
			h.v = v
			for all := packet.AppendConnect(nil, &in); len(all) > 0 && !h.net.closed; {
				n := min(len(all), piece)
				h.pieces(all[:n])
				all = all[n:]
			}
			got := h.hear()
			var out packet.Connack
			if fmt.Sprint(kinds(got)) != "[CONNACK]" || out.Decode(got[0].body, v) != packet.Success {
				t.Errorf("%v by %d bytes: it got %v; %s", v, piece, kinds(got), h.s.counters.String())
			} else if want := map[bool]packet.Reason{true: packet.QuotaExceeded, false: packet.ServerUnavailable}[v == packet.V50]; out.Reason != want {
				t.Errorf("%v by %d bytes: it was told %v, want %v", v, piece, out.Reason, want)
			}
			if n := h.s.counters[CounterClosedNoMemory]; n != 0 {
				t.Errorf("%d connections were closed for want of memory, and not refused", n)
			}
			live.pieces(packet.AppendSubscribe(nil, &packet.Subscribe{PacketID: 1}, []packet.Subscription{{Filter: bytes.Repeat([]byte("a"), 5000)}}, live.v)[:100])
			if n := h.s.counters[CounterClosedNoMemory]; n != 1 {
				t.Errorf("%d connections were closed for want of memory; %s", n, h.s.counters.String())
			}
			restore()
		}
	}
}

// TestWindingUpAcknowledgesNothing has a connection of 3.1.1 throw a QoS 2 PUBLISH away, as memory is used up: one behind it that was received before is
// not acknowledged again ahead of it [MQTT-4.6.0-3].
func TestWindingUpAcknowledgesNothing(t *testing.T) {
	b := newBench(t, 1, small)
	in := persistent("c")
	in.Version = packet.V311
	h, p := b.open(0, in), b.open(0, transient("p"))
	h.subscribeMany(0, 1, "news")
	p.give(publishBytes("news", 1, 1, 10, p.v))
	h.give(publishBytes("other", 2, 5, 10, h.v))
	if got := kinds(h.hear()); fmt.Sprint(got) != "[CONNACK SUBACK PUBLISH PUBREC]" {
		t.Fatalf("heard %v: the scene is another one", got)
	}
	restore := b.exhaust(0, false)
	defer restore()
	h.give(publishBytes("news", 2, 6, 500, h.v))
	b.turn(0, 2*patienceMS)
	if c := &h.s.conns[h.id]; !c.is(connWindingUp) {
		t.Fatal("the connection is not winding up: the scene is another one")
	}
	h.give(publishBytes("other", 2, 5, 10, h.v))
	if got := h.hear(); len(got) != 0 || !h.live() {
		t.Errorf("it heard %v; connected: %v", kinds(got), h.live())
	}
}
