package broker_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/memnet"
	"github.com/ringmq/ringmq/broker/packet"
)

// tape is a fuzzer's input, read from the front; behind its end there are zeros.
type tape struct{ b []byte }

func (t *tape) byte() (v byte) {
	if len(t.b) > 0 {
		v, t.b = t.b[0], t.b[1:]
	}
	return v
}

func (t *tape) bytes(n int) []byte {
	n = min(n, len(t.b))
	b := t.b[:n]
	t.b = t.b[n:]
	return b
}

// FuzzBroker gives a broker of two shards what the input says: connections that begin properly or not, packets well
// formed and then not, bytes at random, ends of all kinds, time. Nothing may panic, nothing may be left over, and what clients get they must
// understand. A quarter of the inputs, by their length, has a store, which is behind, and loses what it has not committed when the input says that the broker dies.
func FuzzBroker(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d"))
	f.Add([]byte{0, 0, 1, 16, 0, 2, 33, 1, 3, 9, 2, 2, 1, 3, 3, 5, 1, 6, 20, 4, 1, 0, 3, 0, 1, 0, 6, 255})
	f.Add([]byte{0, 1, 0, 17, 0, 33, 2, 0, 3, 3, 1, 2, 200, 3, 2, 2, 200, 5, 0, 9, 1, 8, 3, 0x82, 9, 0, 1, 0, 0, 3, 't', '/', '#', 1})
	f.Add([]byte{0, 32, 0, 33, 8, 200, 0x30, 0xff, 0x7f, 0, 1, 't', 6, 200, 0, 34, 4, 0, 5, 1})
	for _, then := range []string{"\x3f", keptAgain + "\x07\x00\x00\x07\x01\x01\x40\x03", "\x01\x43\x40\x03\x00\xff\x43\x41\x03\x00\x05\x47\x02\x02\x40\x03" + keptAgain} {
		tape := keptSessions + then
		f.Add([]byte(tape + strings.Repeat("\x00", (7-len(tape)%4)%4)))
	}
	f.Fuzz(func(t *testing.T, input []byte) { newRig(t, len(input)%4 == 3).run(&tape{input}) })
}

// keptSessions is the beginning of a tape: "a" subscribes to t/# and t/1, "b" publishes to t/1 at QoS 1 and 2, both have Sessions
// that outlive their connections.
const keptSessions = "\x00\x02\x00\x32\x00\x00\x00\x00\x03" + "\x05\x00\x05\x02\x03\x01\x00\x03" +
	"\x40\x02\x01\x32\x00\x00\x00\x40\x03" + "\x43\x01\x03\x00\x05\x43\x02\x03\x00\xc9\x47\x02\x00\x40\x03\x00\x03\x0a"

// keptAgain has the broker die and "a" come back to what the store has.
const keptAgain = "\x3f" + "\x00\x02\x00\x32\x00\x00\x00\x00\x03\x00\x03\x00\x03\x0a"

// TestRandomTapes is the same with inputs from a seed: what a fuzzer without a memory does, many times as fast.
func TestRandomTapes(t *testing.T) {
	first, n := seeds(100)
	for seed := first; seed < first+n && !t.Failed(); seed++ {
		r := rand.New(rand.NewPCG(seed, 11))
		b := make([]byte, 20+r.IntN(1500))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		if len(b)%4 == 3 {
			copy(b[copy(b, keptSessions):], keptAgain[:len(keptAgain)*int(seed%2)])
		}
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { newRig(t, len(b)%4 == 3).run(&tape{b}) })
	}
}

// seeds are what the tests play: RINGMQ_SEEDS plays more, RINGMQ_SEED plays one.
func seeds(normal int) (first, n uint64) {
	if v, err := strconv.ParseUint(os.Getenv("RINGMQ_SEED"), 10, 64); err == nil {
		return v, 1
	}
	if v, err := strconv.ParseUint(os.Getenv("RINGMQ_SEEDS"), 10, 64); err == nil {
		return 1000, v
	}
	return 0, uint64(normal)
}

// rig is a broker under a fuzzer.
type rig struct {
	*stage
	peers    [4]*memnet.Peer
	versions [4]packet.Version
	heard    [4]heard
	store    *memStore // nil: none
}

func newRig(t *testing.T, durable bool) *rig {
	r := &rig{stage: &stage{tb: t, now: time.Unix(1_700_000_000, 0)}}
	if durable {
		r.store = newMemStore()
	}
	r.start()
	return r
}

// start begins a run of the broker.
func (r *rig) start() {
	r.network, r.host = memnet.New(memnet.Config{Planes: 2, SendWindowBytes: 1 << 14}), &slow{}
	limits := broker.Limits{Memory: 24 << 20, Shards: 2, MaxConnections: 64, MaxSubscriptions: 256, MaxRetained: 64, MaxPacketSize: 64 << 10,
		MaxQueuedMessages: 50, MaxInflight: 4, MaxOutboundBytes: 64 << 10, ReceiveMaximum: 20,
		MaxSessionExpiry: time.Minute}
	config := broker.Config{Listeners: []broker.ListenerConfig{{AllowAnonymous: true}}, Passwords: true, Methods: []string{"M"}, Seed: 1}
	o := broker.Options{Config: config, Host: r.host, Clock: func() time.Time { return r.now }}
	if r.store != nil {
		limits.StoreBytes, limits.Memory, o.Store = 1<<20, limits.Memory+5<<20, r.store
	}
	var err error
	if o.Limits, err = limits.Resolve(); err != nil {
		r.tb.Fatal(err)
	}
	var planes []broker.Plane
	for _, p := range r.network.Planes() {
		planes = append(planes, p)
	}
	if r.broker, err = broker.New(o, planes); err != nil {
		r.tb.Fatal(err)
	}
	r.tb.Cleanup(r.broker.Release)
}

// turns has the store do what waits, if there is one.
func (r *rig) turns(n int) {
	for range n {
		r.stage.turns(1)
		for r.store != nil && r.store.work(r.broker) {
		}
	}
}

func (r *rig) pass(d time.Duration) {
	for until := r.now.Add(d); r.now.Before(until); r.now = r.now.Add(time.Second) {
		r.turns(1)
	}
}

// late turns the loops n times; the store does one request behind each turn but the first.
func (r *rig) late(n int) {
	for i := range n {
		r.stage.turns(1)
		if i > 0 {
			r.store.work(r.broker)
		}
	}
}

// die has another broker begin with what the store has committed.
func (r *rig) die() {
	for i := range r.peers {
		r.listen(i)
	}
	r.peers = [4]*memnet.Peer{}
	r.store = r.store.crashed(r.now.UnixMilli())
	r.start()
}

func (r *rig) run(in *tape) {
	for steps, deaths := 0, 0; len(in.b) > 0 && steps < 300; steps++ {
		if r.store != nil && in.b[0]%64 == 63 && deaths < 3 {
			deaths++
			in.byte()
			r.die()
			continue
		}
		r.act(in)
	}
	for i, p := range r.peers {
		if p != nil {
			p.SetSendWindow(1 << 20)
			r.turns(3)
			r.listen(i)
			_ = p.Close()
			r.peers[i] = nil
		}
	}
	r.pass(20 * time.Second) // connections without CONNECT, and packets that do not go on
	r.cleanUp()
	r.pass(3 * time.Second)
	if n := r.network.Open(); n != 0 {
		r.tb.Errorf("%d connections are open", n)
	}
	for _, err := range r.broker.Leftovers() {
		r.tb.Errorf("left over: %v", err)
	}
}

// names are the Client Identifiers, topics and filters that the input chooses from, so that they meet.
var names = [...]string{"a", "b", "c", "t/1", "t/2", "t/#", "+/1", "#", "$share/g/t/#", "$share/g/#", "t/1/2", "$SYS/x", "", "a+", "$share//x", "t/+"}

func (in *tape) name() []byte { return []byte(names[in.byte()%byte(len(names))]) }

// act does one thing on one connection.
func (r *rig) act(in *tape) {
	op := in.byte()
	i := int(op>>6) % len(r.peers)
	p, v := r.peers[i], r.versions[i]
	if p == nil {
		var err error
		if p, err = r.network.Dial(0); err != nil {
			r.tb.Fatal(err)
		}
		r.peers[i], r.versions[i], r.heard[i] = p, []packet.Version{packet.V31, packet.V311, packet.V50}[in.byte()%3], heard{}
		if op&32 == 0 {
			c := r.connect(in, r.versions[i])
			r.heard[i] = heard{version: c.Version, most: int(c.MaximumPacketSize), aliases: c.TopicAliasMaximum, names: map[uint16]bool{}}
			r.give(i, packet.AppendConnect(nil, c))
		}
		return
	}
	switch op % 16 {
	case 0:
		if n := 1 + int(in.byte()%4); r.store == nil {
			r.turns(n)
		} else {
			r.late(n)
		}
	case 1:
		r.listen(i)
		_ = p.Close()
		r.peers[i] = nil
	case 2:
		r.listen(i)
		_ = p.Reset()
		r.peers[i] = nil
	case 3, 4:
		r.give(i, publishOf(in, v))
	case 5:
		r.give(i, packet.AppendSubscribe(nil, &packet.Subscribe{PacketID: 1, SubscriptionID: uint32(in.byte() % 3)},
			[]packet.Subscription{{Filter: in.name(), Options: options(in)}, {Filter: in.name(), Options: options(in)}}, v))
	case 6:
		r.give(i, packet.AppendUnsubscribe(nil, &packet.Unsubscribe{PacketID: 1}, [][]byte{in.name()}, v))
	case 7:
		kind := []packet.Kind{packet.PUBACK, packet.PUBREC, packet.PUBREL, packet.PUBCOMP}[in.byte()%4]
		r.give(i, packet.AppendAck(nil, kind, 1+uint16(in.byte()%8), packet.Success, v))
	case 8:
		r.give(i, in.bytes(int(in.byte())))
	case 9:
		r.now = r.now.Add(time.Duration(in.byte()) * 100 * time.Millisecond)
	case 10:
		r.listen(i)
	case 11:
		p.SetSendWindow(int(in.byte()) * 16)
	case 12:
		r.give(i, packet.AppendDisconnect(nil, &packet.Disconnect{Reason: packet.Reason(in.byte() % 8), HasSessionExpiry: v == packet.V50 && in.byte()%2 == 0, SessionExpiry: uint32(in.byte())}, v))
	case 13:
		r.answer(in)
	case 14: // one byte of a packet changed, or its end cut off
		b := publishOf(in, v)
		b[int(in.byte())%len(b)] ^= in.byte()
		r.give(i, b[:max(1, len(b)-int(in.byte()%3))])
	case 15:
		_ = p.CloseWrite()
	}
}

func (r *rig) give(i int, b []byte) {
	if _, err := r.peers[i].Write(b); err != nil {
		r.listen(i)
		_ = r.peers[i].Close()
		r.peers[i] = nil
	}
}

func options(in *tape) packet.Options {
	b := in.byte()
	return packet.Options{QoS: b % 3, NoLocal: b&4 != 0, RetainAsPublished: b&8 != 0, RetainHandling: b >> 4 % 3}
}

func publishOf(in *tape, v packet.Version) []byte {
	flags := in.byte()
	h := &packet.PublishHead{Flags: packet.PublishFlags(flags&8 != 0, flags%3, flags&16 != 0), Topic: in.name(), PacketID: 1 + uint16(flags>>5), Alias: uint16(in.byte() % 4)}
	size := int(in.byte())
	if size > 200 {
		size *= 200 // a large packet
	}
	if flags&32 != 0 {
		h.HasExpiry, h.Expiry = true, uint32(size)
	}
	return packet.AppendPublish(nil, h, make([]byte, size), v)
}

func (r *rig) connect(in *tape, v packet.Version) *packet.Connect {
	b := in.byte()
	c := &packet.Connect{Version: v, ClientID: []byte(names[b%3]), CleanStart: b&4 != 0, KeepAlive: uint16(b>>3) % 4, HasUser: b&64 != 0, User: []byte("u"), RequestProblemInfo: true}
	if v == packet.V50 {
		c.SessionExpiry, c.ReceiveMaximum, c.TopicAliasMaximum = uint32(in.byte())%60, uint16(in.byte()%5), uint16(in.byte()%3)
		c.MaximumPacketSize = uint32(in.byte()) * 2
		if b&128 != 0 {
			c.AuthMethod = []byte("M")
		}
	}
	if b&32 != 0 {
		w := in.byte()
		c.HasWill, c.Will = true, packet.Will{QoS: w % 3, Retain: w&4 != 0, Topic: in.name(), Payload: in.bytes(int(w)), DelayInterval: uint32(w >> 4)}
	}
	return c
}

// answer answers the oldest AuthRequest, or one again.
func (r *rig) answer(in *tape) {
	if len(r.host.asked) == 0 {
		return
	}
	q := r.host.asked[0]
	if in.byte()%4 != 0 {
		r.host.asked = r.host.asked[1:]
	}
	reason := []packet.Reason{packet.Success, packet.Success, packet.ContinueAuthentication, packet.NotAuthorized}[in.byte()%4]
	if q.Method == "" && reason == packet.ContinueAuthentication {
		reason = packet.Success // No authenticator has more to ask who has been given a password.
	}
	r.broker.Loops()[q.Shard].Authenticated(broker.AuthResult{Token: q.Token, Reason: reason, User: "u"})
}

// cleanUp ends the Sessions of the names and clears the retained messages.
func (r *rig) cleanUp() {
	for _, id := range names[:3] {
		p := r.dial(packet.AppendConnect(nil, &packet.Connect{Version: packet.V50, ClientID: []byte(id), CleanStart: true, RequestProblemInfo: true}))
		r.turns(8)
		r.say(p, packet.AppendDisconnect(nil, &packet.Disconnect{}, packet.V50))
		r.turns(8)
		_ = p.Close()
	}
	r.pass(2 * time.Minute) // Sessions and Wills of other names, from bytes at random, that expire
	p := r.dial(packet.AppendConnect(nil, &packet.Connect{Version: packet.V50, ClientID: []byte("last"), CleanStart: true, RequestProblemInfo: true}))
	all := []packet.Subscription{{Filter: []byte("#")}}
	r.say(p, packet.AppendSubscribe(nil, &packet.Subscribe{PacketID: 1}, all, packet.V50))
	var got []byte
	for range 100 {
		r.turns(2)
		got = append(got, r.hear(p)...)
	}
	for len(got) > 0 {
		h, reason := packet.ParseHeader(got)
		if n := h.Size + h.Remaining; reason != packet.Success || h.Size == 0 || n > len(got) {
			r.tb.Fatalf("the last client got garbage: %v", reason)
		}
		var in packet.Publish
		if h.Kind == packet.PUBLISH && in.DecodeFromServer(h.Flags, got[h.Size:h.Size+h.Remaining], packet.V50) == packet.Success {
			out := &packet.PublishHead{Flags: packet.PublishFlags(false, 0, true), Topic: in.Topic}
			r.say(p, packet.AppendPublish(nil, out, nil, packet.V50))
			r.turns(1)
		}
		got = got[h.Size+h.Remaining:]
	}
	r.say(p, packet.AppendDisconnect(nil, &packet.Disconnect{}, packet.V50))
	r.turns(8)
	_ = p.Close()
}
