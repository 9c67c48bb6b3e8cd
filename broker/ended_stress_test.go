package broker_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/memnet"
	"github.com/ringmq/ringmq/broker/packet"
)

// slow is a Host that answers no AuthRequest by itself.
type slow struct{ asked []broker.AuthRequest }

func (h *slow) Authenticate(r broker.AuthRequest) bool { h.asked = append(h.asked, r); return true }
func (h *slow) Log(broker.LogEvent) bool               { return true }

// stage is a broker over the in-memory plane whose loops are turned by hand.
type stage struct {
	tb      testing.TB
	network *memnet.Network
	broker  *broker.Broker
	host    *slow
	now     time.Time
	scratch []byte
}

func newStage(tb testing.TB, shards int, config broker.Config) *stage {
	tb.Helper()
	return newStageOn(tb, shards, config, func(p broker.Plane) broker.Plane { return p })
}

// newStageOn wraps the planes.
func newStageOn(tb testing.TB, shards int, config broker.Config, wrap func(broker.Plane) broker.Plane) *stage {
	tb.Helper()
	s := &stage{tb: tb, network: memnet.New(memnet.Config{Planes: shards}), host: &slow{}, now: time.Unix(1_700_000_000, 0)}
	l, err := broker.Limits{Memory: 64 << 20, Shards: shards, MaxConnections: 256, MaxSubscriptions: 4096, MaxRetained: 4096}.Resolve()
	if err != nil {
		tb.Fatal(err)
	}
	var planes []broker.Plane
	for _, p := range s.network.Planes() {
		planes = append(planes, wrap(p))
	}
	config.Listeners = []broker.ListenerConfig{{AllowAnonymous: !config.Passwords}}
	s.broker, err = broker.New(broker.Options{Limits: l, Config: config, Host: s.host, Clock: func() time.Time { return s.now }}, planes)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.broker.Release)
	return s
}

func (s *stage) turns(n int) {
	for range n {
		for _, l := range s.broker.Loops() {
			if err := l.Turn(0); err != nil {
				s.tb.Fatal(err)
			}
		}
	}
}

// pass lets time go by, a second at a time.
func (s *stage) pass(d time.Duration) {
	for until := s.now.Add(d); s.now.Before(until); s.now = s.now.Add(time.Second) {
		s.turns(1)
	}
}

func (s *stage) dial(b []byte) *memnet.Peer {
	p, err := s.network.Dial(0)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.say(p, b)
	return p
}

func (s *stage) say(p *memnet.Peer, b []byte) {
	if _, err := p.Write(b); err != nil {
		s.tb.Fatal(err)
	}
}

// hear reads what has come; it is valid until the next call.
func (s *stage) hear(p *memnet.Peer) []byte {
	if s.scratch == nil {
		s.scratch = make([]byte, 64<<10)
	}
	n := 0
	for {
		more, err := p.Read(s.scratch[n:])
		if n += more; n < len(s.scratch) || err != nil {
			return s.scratch[:n]
		}
		s.scratch = append(s.scratch, make([]byte, len(s.scratch))...)
	}
}

// TestCloseInsideAPacket has clients end their connection in the middle of a packet, as those do whose process is
// killed: the connection ends, and the Will is published.
func TestCloseInsideAPacket(t *testing.T) {
	for _, keepAlive := range []uint16{0, 10} {
		s := newStage(t, 1, broker.Config{})
		watcher := s.dial(packet.AppendConnect(nil, &packet.Connect{Version: packet.V50, ClientID: []byte("watcher"), CleanStart: true}))
		s.say(watcher, packet.AppendSubscribe(nil, &packet.Subscribe{PacketID: 1}, []packet.Subscription{{Filter: []byte("will")}}, packet.V50))
		s.turns(3)
		s.hear(watcher)
		in := packet.Connect{Version: packet.V50, ClientID: []byte("x"), CleanStart: true, KeepAlive: keepAlive, HasWill: true,
			Will: packet.Will{Topic: []byte("will"), Payload: []byte("gone")}}
		p := s.dial(packet.AppendConnect(nil, &in))
		s.say(p, []byte{0x30})
		s.turns(3)
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Hour)
		if n := s.network.Open(); n != 1 {
			t.Errorf("Keep Alive %d: an hour after a client closed its connection inside a packet, %d connections are open; want 1", keepAlive, n)
		}
		if !bytes.Contains(s.hear(watcher), []byte("gone")) {
			t.Errorf("Keep Alive %d: its Will was not published", keepAlive)
		}
	}
}

// TestPipelinedBehindConnect has a client send 200 KB right behind a CONNECT that the authenticator takes its time for.
func TestPipelinedBehindConnect(t *testing.T) {
	s := newStage(t, 1, broker.Config{Passwords: true})
	in := packet.Connect{Version: packet.V50, ClientID: []byte("x"), CleanStart: true, HasUser: true, User: []byte("u"), HasPassword: true, Password: []byte("p")}
	b := packet.AppendConnect(nil, &in)
	const messages = 200
	for i := range messages {
		h := &packet.PublishHead{Flags: packet.PublishFlags(false, 1, false), Topic: []byte("t"), PacketID: uint16(i + 1)}
		b = packet.AppendPublish(b, h, make([]byte, 1000), packet.V50)
	}
	p := s.dial(b)
	s.turns(10)
	if len(s.host.asked) != 1 {
		t.Fatalf("asked %d times", len(s.host.asked))
	}
	s.broker.Loops()[0].Authenticated(broker.AuthResult{Token: s.host.asked[0].Token, Reason: packet.Success})
	s.turns(20)
	got, acks := s.hear(p), 0
	for len(got) > 0 {
		h, r := packet.ParseHeader(got)
		if r != packet.Success || h.Size == 0 {
			t.Fatal("garbage", r)
		}
		if h.Kind == packet.PUBACK {
			acks++
		}
		got = got[h.Size+h.Remaining:]
	}
	if acks != messages || s.network.Open() != 1 {
		t.Errorf("%d of %d messages sent behind CONNECT were acknowledged; %d connections open, want 1", acks, messages, s.network.Open())
	}
}
