package broker

import (
	"io"
	"net/netip"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// tap is a connection that keeps what a shard sends, as far as its window goes.
type tap struct {
	got    []byte
	window int // bytes it still takes; negative: no limit
	closed bool
	paused bool
}

func (c *tap) SetToken(uint64)           {}
func (c *tap) Read([]byte) (int, error)  { return 0, io.EOF }
func (c *tap) Pause()                    { c.paused = true }
func (c *tap) Resume()                   { c.paused = false }
func (c *tap) Close()                    { c.closed = true }
func (c *tap) LocalAddr() netip.AddrPort { return netip.AddrPort{} }
func (c *tap) RemoteAddr() netip.AddrPort {
	return netip.AddrPort{}
}

func (c *tap) Write(v [][]byte) (int, error) {
	n := 0
	for _, b := range v {
		if c.window >= 0 && len(b) > c.window {
			b = b[:c.window]
		}
		c.got = append(c.got, b...)
		n += len(b)
		if c.window >= 0 {
			if c.window -= len(b); c.window == 0 {
				break
			}
		}
	}
	return n, nil
}

// raw is one packet that a tap got.
type raw struct {
	kind  packet.Kind
	flags uint8
	body  []byte
}

// packets takes the whole packets off what a tap got.
func (c *tap) packets(tb testing.TB) (list []raw) {
	tb.Helper()
	for {
		h, r := packet.ParseHeader(c.got)
		if r != packet.Success {
			tb.Fatalf("the broker sent something that is no packet: %v: % x", r, c.got[:min(40, len(c.got))])
		}
		n := h.Size + h.Remaining
		if h.Size == 0 || n > len(c.got) {
			return list
		}
		list = append(list, raw{h.Kind, h.Flags, c.got[h.Size:n:n]})
		c.got = c.got[n:]
	}
}

// kinds is what the packets are, for comparing.
func kinds(list []raw) (k []packet.Kind) {
	for _, p := range list {
		k = append(k, p.kind)
	}
	return k
}

// hand is one connection of a bench that a test drives by hand: bytes in, packets out, nothing flushed by itself.
type hand struct {
	*bench
	loop *Loop
	s    *Shard
	id   uint32
	net  *tap
	v    packet.Version
}

// dial accepts a connection on a shard.
func (t *bench) dial(shard int) *hand {
	l := t.b.loops[shard]
	h := &hand{bench: t, loop: l, s: l.shard, net: &tap{window: -1}, v: packet.V50}
	h.id = uint32(l.shard.Accept(h.net, 0))
	if h.id == 0 {
		t.tb.Fatal("no connection slot")
	}
	return h
}

// open dials and says CONNECT.
func (t *bench) open(shard int, in packet.Connect) *hand {
	h := t.dial(shard)
	if in.Version == 0 {
		in.Version = packet.V50
	}
	h.v = in.Version
	h.give(packet.AppendConnect(nil, &in))
	return h
}

// give hands bytes to the shard without flushing.
func (h *hand) give(b []byte) { h.s.Receive(h.id, b, len(b)) }

func (h *hand) subscribeMany(id uint32, qos uint8, filters ...string) {
	var list []packet.Subscription
	for _, f := range filters {
		list = append(list, packet.Subscription{Filter: []byte(f), Options: packet.Options{QoS: qos}})
	}
	h.give(packet.AppendSubscribe(nil, &packet.Subscribe{PacketID: 1, SubscriptionID: id}, list, h.v))
}

// hear flushes and returns what arrived.
func (h *hand) hear() []raw {
	h.loop.flush()
	return h.net.packets(h.tb)
}

// sizes are those of the payloads of the PUBLISH packets that arrived.
func (h *hand) sizes() (sizes []int) {
	var pub packet.Publish
	for _, p := range h.hear() {
		if p.kind == packet.PUBLISH && pub.Decode(p.flags, p.body, h.v) == packet.Success {
			sizes = append(sizes, len(pub.Payload))
		}
	}
	return sizes
}

// live says whether the connection still is what it was.
func (h *hand) live() bool { return h.s.conns[h.id].state == connLive && !h.net.closed }

// turn is Loop.Turn without a plane: Sessions that leave, what the other shards sent, connections that have yielded or stalled, time,
// retained messages, what there is for the store, output.
func (t *bench) turn(shard int, now int64) {
	l := t.b.loops[shard]
	s := l.shard
	s.BeginTurn(now)
	s.Part(t.lag, false)
	s.Exchange()
	buf := make([]byte, 64<<10)
	for _, retry := range []func() []uint32{s.Behind, s.Stalled} {
		for _, id := range retry() {
			n := s.Carry(id, buf)
			s.Receive(id, buf[:n], 0)
		}
	}
	s.Tick(s.now)
	s.Pump()
	s.Persist()
	l.flush()
	s.Wakes(func(int) {})
}

// settleAll gives every shard turns until nothing moves any more.
func (t *bench) settleAll(now int64) {
	for range 40 {
		for i := range t.b.loops {
			t.turn(i, now)
		}
	}
}

// survives runs f and fails the test if it panics, so that one broken invariant does not hide the other tests.
func survives(tb testing.TB, what string, f func()) {
	tb.Helper()
	defer func() {
		tb.Helper()
		if r := recover(); r != nil {
			tb.Errorf("%s: panic: %v", what, r)
		}
	}()
	f()
}
