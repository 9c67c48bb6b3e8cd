package broker

import (
	"fmt"
	"io"
	"net/netip"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// sink is a connection that takes every byte and gives none: what a shard sends is counted and forgotten.
type sink struct {
	last   []byte
	bytes  int
	closed bool
}

func (c *sink) SetToken(uint64)          {}
func (c *sink) Read([]byte) (int, error) { return 0, io.EOF }
func (c *sink) Pause()                   {}
func (c *sink) Resume()                  {}
func (c *sink) Close()                   { c.closed = true }
func (c *sink) LocalAddr() netip.AddrPort {
	return netip.AddrPort{}
}
func (c *sink) RemoteAddr() netip.AddrPort { return netip.AddrPort{} }
func (c *sink) Write(v [][]byte) (int, error) {
	n := 0
	c.last = c.last[:0]
	for _, b := range v {
		n += len(b)
		c.last = append(c.last, b...)
	}
	c.bytes += n
	return n, nil
}

// quiet is a Host that lets everybody in and says nothing.
type quiet struct{}

func (quiet) Authenticate(AuthRequest) bool { return false }
func (quiet) Log(LogEvent) bool             { return true }

// bench is a broker whose loops never wait: tests hand bytes to a shard and flush it.
type bench struct {
	tb  testing.TB
	b   *Broker
	lag int64 // of the planes that there are not, in milliseconds
}

func newBench(tb testing.TB, shards int, change func(*Limits)) *bench {
	tb.Helper()
	l := Limits{Memory: 256 << 20, Shards: shards, MaxConnections: 4000, MaxSubscriptions: 4000, MaxRetained: 4000}
	if change != nil {
		change(&l)
	}
	return newBenchOf(tb, l, nil)
}

// newStoreBench is a bench of one shard with a store, whose disk is the only quota that kept Sessions have.
func newStoreBench(tb testing.TB, store Store) *bench {
	tb.Helper()
	return newBenchOf(tb, Limits{Memory: 256 << 20, Shards: 1, MaxConnections: 100, MaxSubscriptions: 100, MaxRetained: 100, StoreBytes: 4 << 20}, store)
}

func newBenchOf(tb testing.TB, l Limits, store Store) *bench {
	tb.Helper()
	l, err := l.Resolve()
	if err != nil {
		tb.Fatal(err)
	}
	o := Options{Limits: l, Host: quiet{}, Config: Config{Listeners: []ListenerConfig{{AllowAnonymous: true}}, Seed: 1}, Store: store}
	b, err := New(o, make([]Plane, l.Shards))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(b.Release)
	return &bench{tb: tb, b: b}
}

// client is one connection of a bench.
type client struct {
	*bench
	loop *Loop
	id   uint32
	net  *sink
}

func (t *bench) connect(shard int, clientID string, v packet.Version) *client {
	l := t.b.loops[shard]
	c := &client{bench: t, loop: l, net: &sink{}}
	c.id = uint32(l.shard.Accept(c.net, 0))
	c.say(packet.AppendConnect(nil, &packet.Connect{Version: v, CleanStart: true, ClientID: []byte(clientID), RequestProblemInfo: true}))
	return c
}

// say hands bytes to the shard and flushes everything.
func (c *client) say(b []byte) {
	c.loop.shard.Receive(c.id, b, len(b))
	c.loop.flush()
}

func (c *client) subscribe(filter string, qos uint8) {
	c.say(packet.AppendSubscribe(nil, &packet.Subscribe{PacketID: 1}, []packet.Subscription{
		{Filter: []byte(filter), Options: packet.Options{QoS: qos}}}, c.loop.shard.conns[c.id].version))
}

func publishBytes(topic string, qos uint8, id uint16, payload int, v packet.Version) []byte {
	h := &packet.PublishHead{Flags: packet.PublishFlags(false, qos, false), Topic: []byte(topic), PacketID: id}
	return packet.AppendPublish(nil, h, make([]byte, payload), v)
}

// delivery makes a publisher and a subscriber and returns what carries one message all the way: PUBLISH in, PUBLISH
// out, and every acknowledgement either side owes.
func delivery(tb testing.TB, v packet.Version, qos uint8) func() {
	t := newBench(tb, 1, nil)
	p, c := t.connect(0, "p", v), t.connect(0, "s", v)
	c.subscribe("sensors/17/temperature", qos)
	in := publishBytes("sensors/17/temperature", qos, 1, 64, v)
	pubrel := packet.AppendAck(nil, packet.PUBREL, 1, packet.Success, v)
	ack := make([]byte, 0, 8)
	at := len("sensors/17/temperature") + 4
	return func() {
		p.say(in)
		if qos == 0 {
			return
		}
		pid := uint16(c.net.last[at])<<8 | uint16(c.net.last[at+1])
		if qos == 1 {
			c.say(packet.AppendAck(ack, packet.PUBACK, pid, packet.Success, v))
			return
		}
		c.say(packet.AppendAck(ack, packet.PUBREC, pid, packet.Success, v))
		c.say(packet.AppendAck(ack, packet.PUBCOMP, pid, packet.Success, v))
		p.say(pubrel)
	}
}

func TestDeliveryDoesNotAllocate(t *testing.T) {
	for _, v := range []packet.Version{packet.V311, packet.V50} {
		for qos := range uint8(3) {
			once := delivery(t, v, qos)
			for range 100 {
				once()
			}
			if n := testing.AllocsPerRun(2000, once); n != 0 {
				t.Errorf("MQTT %s, QoS %d: %v allocations per message", v, qos, n)
			}
		}
	}
}

func BenchmarkDelivery(b *testing.B) {
	for _, v := range []packet.Version{packet.V311, packet.V50} {
		for qos := range uint8(3) {
			b.Run(fmt.Sprintf("%s/qos%d", v, qos), func(b *testing.B) {
				once := delivery(b, v, qos)
				b.ReportAllocs()
				for b.Loop() {
					once()
				}
			})
		}
	}
}

// BenchmarkRoute is a publisher whose 16 messages arrive in one read, to one receiver, whose acknowledgements come in one
// read too: the engine without the plane.
func BenchmarkRoute(b *testing.B) {
	for qos := range uint8(2) {
		b.Run(fmt.Sprint("qos", qos), func(b *testing.B) { benchmarkRoute(b, qos) })
	}
}

func benchmarkRoute(b *testing.B, qos uint8) {
	t := newBench(b, 1, nil)
	p, c := t.connect(0, "p", packet.V311), t.connect(0, "s", packet.V311)
	c.subscribe("lg12345678/t/42", qos)
	var in []byte
	for i := range 16 {
		in = append(in, publishBytes("lg12345678/t/42", qos, uint16(i+1), 64, packet.V311)...)
	}
	size := len(in) / 16
	acks := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		p.say(in)
		if qos == 0 {
			continue
		}
		acks = acks[:0]
		for at := 19; at < len(c.net.last); at += size {
			acks = packet.AppendAck(acks, packet.PUBACK, uint16(c.net.last[at])<<8|uint16(c.net.last[at+1]), packet.Success, packet.V311)
		}
		c.say(acks)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/16, "ns/message")
}

// BenchmarkCacheHit is what a shard does for a Topic Name that it has met before: nothing allocated, no index walked.
func BenchmarkCacheHit(b *testing.B) {
	t := newBench(b, 1, nil)
	t.connect(0, "s", packet.V311).subscribe("site/+/device/#", 0)
	s, name := t.b.loops[0].shard, []byte("site/000017/device/0042/state")
	b.ReportAllocs()
	for b.Loop() {
		if len(s.lookup(name).local) != 1 {
			b.Fatal("no receiver")
		}
	}
}

// BenchmarkFanOut is one message to a thousand receivers.
func BenchmarkFanOut(b *testing.B) {
	t := newBench(b, 1, nil)
	p := t.connect(0, "p", packet.V311)
	for i := range 1000 {
		t.connect(0, fmt.Sprint("s", i), packet.V311).subscribe("news", 0)
	}
	in := publishBytes("news", 0, 0, 64, packet.V311)
	b.ReportAllocs()
	for b.Loop() {
		p.say(in)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/message")
}

// BenchmarkManyFilters matches a topic that was not seen before with 1024 filters of each of 20 clients: every combination of names and
// wildcards on ten levels. Other work has taken the caches meanwhile, as it does on a broker where this is rare.
func BenchmarkManyFilters(b *testing.B) {
	const clients, levels = 20, 10
	t := newBench(b, 1, func(l *Limits) { l.MaxSubscriptions = 2 * clients << levels })
	for i := range clients {
		c := t.connect(0, fmt.Sprint("s", i), packet.V311)
		for n := range 1 << levels {
			filter := "bomb"
			for level := range levels {
				filter += [2]string{"/x", "/+"}[n>>level&1]
			}
			c.subscribe(filter+"/#", 0)
		}
	}
	s, at, others, sum := t.b.loops[0].shard, 0, make([]byte, 64<<20), 0
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		for i := 0; i < len(others); i += 64 {
			others[i]++
			sum += int(others[i])
		}
		b.StartTimer()
		at++
		if n := len(s.lookup(fmt.Append(nil, "bomb/x/x/x/x/x/x/x/x/x/x/", at)).local); n != clients {
			b.Fatal(n, "receivers")
		}
	}
}
