package broker_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/packet"
)

// latePlane is a plane that may show bytes late.
type latePlane struct {
	broker.Plane
	isBehind *bool
}

func (p latePlane) Lag() time.Duration { return 20 * time.Millisecond }
func (p latePlane) CaughtUp() bool     { return !*p.isBehind }

// lateStage is a broker on late planes, with a client "x" that has a Will, and one that hears it.
type lateStage struct {
	*stage
	isBehind bool
}

func newLateStage(t *testing.T, shards int) (s *lateStage, connect func() (say func([]byte), hear func() []byte, end func()), will func() bool) {
	s = &lateStage{}
	s.stage = newStageOn(t, shards, broker.Config{}, func(p broker.Plane) broker.Plane { return latePlane{p, &s.isBehind} })
	watcher := s.dial(packet.AppendConnect(nil, &packet.Connect{Version: packet.V50, ClientID: []byte("watcher"), CleanStart: true}))
	s.say(watcher, packet.AppendSubscribe(nil, &packet.Subscribe{PacketID: 1}, []packet.Subscription{{Filter: []byte("will")}}, packet.V50))
	s.turns(3)
	s.hear(watcher)
	in := packet.Connect{Version: packet.V50, ClientID: []byte("x"), CleanStart: true, HasWill: true, Will: packet.Will{Topic: []byte("will"), Payload: []byte("gone")}}
	connect = func() (func([]byte), func() []byte, func()) {
		p := s.dial(packet.AppendConnect(nil, &in))
		s.turns(5)
		return func(b []byte) { s.say(p, b) }, func() []byte { return s.hear(p) }, func() { _ = p.Close() }
	}
	return s, connect, func() bool { s.turns(5); return bytes.Contains(s.hear(watcher), []byte("gone")) }
}

const connackKind, disconnectKind = 0x20, 0xe0

func isKind(b []byte, kind byte) bool { return len(b) > 0 && b[0] == kind }

// TestLateDisconnect: on a plane that may show bytes late, a CONNECT that takes over waits for what the old connection may
// still have to say, on the same shard and on another.
func TestLateDisconnect(t *testing.T) {
	for _, shards := range []int{1, 2, 3} {
		t.Run(fmt.Sprintf("shards=%d/late DISCONNECT", shards), func(t *testing.T) {
			_, connect, will := newLateStage(t, shards)
			say, first, _ := connect()
			if !isKind(first(), connackKind) {
				t.Fatal("no CONNACK for a client that takes nothing over")
			}
			_, second, _ := connect()
			if got := second(); len(got) > 0 {
				t.Fatalf("% x is said before the old connection had its time", got)
			}
			say([]byte{disconnectKind, 0})
			if will() {
				t.Error("the Will is published after DISCONNECT")
			}
			if !isKind(second(), connackKind) {
				t.Error("no CONNACK although the old connection has ended")
			}
		})
		t.Run(fmt.Sprintf("shards=%d/silence", shards), func(t *testing.T) {
			s, connect, will := newLateStage(t, shards)
			_, first, _ := connect()
			first()
			_, second, _ := connect()
			s.isBehind = true
			s.now = s.now.Add(25 * time.Millisecond)
			if will() || len(second()) > 0 {
				t.Error("the Session is taken over although the plane has more to say")
			}
			s.isBehind = false
			if !will() || !isKind(second(), connackKind) || !isKind(first(), disconnectKind) {
				t.Error("the Session is not taken over from a silent connection")
			}
			_, third, _ := connect()
			s.isBehind = true
			s.now = s.now.Add(300 * time.Millisecond)
			if !will() || !isKind(third(), connackKind) {
				t.Error("the Session is not taken over on a plane that never catches up")
			}
		})
		t.Run(fmt.Sprintf("shards=%d/the heir goes", shards), func(t *testing.T) {
			s, connect, will := newLateStage(t, shards)
			_, first, _ := connect()
			first()
			_, _, end := connect()
			end()
			s.turns(5)
			s.now = s.now.Add(25 * time.Millisecond)
			if will(); !isKind(first(), disconnectKind) {
				t.Error("the old connection lives after another has taken over and gone")
			}
			_, _, _ = connect()
			_, last, _ := connect()
			_, later, _ := connect()
			s.now = s.now.Add(25 * time.Millisecond)
			s.turns(10)
			s.now = s.now.Add(25 * time.Millisecond)
			s.turns(10)
			if got := later(); !isKind(got, connackKind) {
				t.Errorf("the last of three gets % x", got)
			}
			last()
			if n := s.network.Open(); n != 2 {
				t.Errorf("%d connections are open; want the watcher's and one", n)
			}
		})
	}
}
