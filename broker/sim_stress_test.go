package broker_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/memnet"
)

// A simulation is a whole broker over the in-memory plane with clients that do whatever a seed says: they publish with
// sequence numbers, reset inside packets, take their own Sessions over, read slowly, and subscribe and unsubscribe. The
// clients keep to the protocol, as one that stores its Session does, so that what must arrive is known.
type simulation struct {
	*rand.Rand
	tb      testing.TB
	seed    uint64
	shards  int
	thread  bool
	network *memnet.Network
	broker  *broker.Broker
	now     atomic.Int64 // nanoseconds
	actors  []*actor
	ghosts  []*memnet.Peer      // connections that their client has forgotten
	acked   []*sent             // of QoS 1 and 2
	last    map[string]*sent    // the last retained message that was acknowledged, by topic
	wills   map[string]*willLog // by payload
	calm    bool                // no more mischief
	heard   int                 // bytes
	serial  int
	failed  bool
}

// willLog is a Will that a client gave. It is due when the client was accepted and never said DISCONNECT.
type willLog struct {
	due bool
	qos uint8
}

func (s *simulation) fail(format string, v ...any) {
	s.tb.Helper()
	if !s.failed {
		s.tb.Errorf("seed %d, %d shards, threaded %v: %s", s.seed, s.shards, s.thread, fmt.Sprintf(format, v...))
	}
	s.failed = true
}

func newSimulation(tb testing.TB, seed uint64, shards int, threaded bool) *simulation {
	s := &simulation{Rand: rand.New(rand.NewPCG(seed, 7)), tb: tb, seed: seed, shards: shards, thread: threaded,
		last: map[string]*sent{}, wills: map[string]*willLog{}}
	c := memnet.Config{Planes: shards, Threaded: threaded, SendWindowBytes: 1 << (8 + s.IntN(9)), ReceiveWindowBytes: 1 << (8 + s.IntN(9))}
	if !threaded { // the Network calls these from any goroutine
		mean := 1 + s.IntN(3)
		short := func(most int) int {
			if s.IntN(mean) == 0 {
				return most
			}
			return s.IntN(most + 1)
		}
		c.ReadSize, c.WriteSize, c.Shuffle = short, short, s.Shuffle
	}
	s.network = memnet.New(c)
	l, err := broker.Limits{Memory: 96 << 20, Shards: shards, MaxConnections: 500, MaxSubscriptions: 4096, MaxRetained: 4096,
		MaxQueuedMessages: 1 << 20, MaxQueuedBytes: 1 << 30, MaxInflight: 1 + s.IntN(20)}.Resolve()
	if err != nil {
		tb.Fatal(err)
	}
	var planes []broker.Plane
	for _, p := range s.network.Planes() {
		planes = append(planes, p)
	}
	config := broker.Config{Listeners: []broker.ListenerConfig{{AllowAnonymous: true}}, Seed: seed, SharedStrategy: broker.Strategy(s.IntN(6))}
	clock := func() time.Time { return time.Unix(1_700_000_000, s.now.Load()) }
	s.broker, err = broker.New(broker.Options{Limits: l, Config: config, Host: &slow{}, Clock: clock}, planes)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// step lets every loop have its turn, in any order, and every client look at what has come.
func (s *simulation) step() {
	s.now.Add(int64(s.IntN(30)) * int64(time.Millisecond))
	if !s.thread {
		for _, i := range s.Perm(s.shards) {
			if s.calm || s.IntN(3) > 0 {
				if err := s.broker.Loops()[i].Turn(0); err != nil {
					s.tb.Fatal(err)
				}
			}
		}
	}
	for _, a := range s.actors {
		a.step()
	}
	for i := 0; i < len(s.ghosts); i++ {
		if s.calm || s.IntN(20) == 0 {
			if s.IntN(2) == 0 {
				_ = s.ghosts[i].Close()
			} else {
				_ = s.ghosts[i].Reset()
			}
			s.ghosts[i] = s.ghosts[len(s.ghosts)-1]
			s.ghosts = s.ghosts[:len(s.ghosts)-1]
		}
	}
}

// until steps until done says so, calmly.
func (s *simulation) until(what string, done func() bool) bool {
	for i := 0; !done(); i++ {
		if s.failed {
			return false
		}
		if i > 20000 {
			s.fail("%s: not after %d steps\n%s", what, i, s.state())
			return false
		}
		s.step()
		if s.thread {
			time.Sleep(200 * time.Microsecond)
		}
	}
	return true
}

func (s *simulation) state() (text string) {
	for _, a := range s.actors {
		text += fmt.Sprintf("%s: live %v, %d to send, %d under way, %d unread\n", a.id, a.live, len(a.out), len(a.flight), len(a.in))
	}
	return text
}

// quiet steps until nothing has been heard for a while.
func (s *simulation) quiet() {
	for still, before := 0, s.heard; still < 60; still++ {
		s.step()
		if s.thread {
			time.Sleep(time.Millisecond)
		}
		if s.heard != before {
			still, before = 0, s.heard
		}
	}
}

// play is one run; it returns what went wrong by failing the test.
func (s *simulation) play(steps int) {
	defer s.broker.Release()
	var stopped chan error
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	if s.thread {
		stopped = make(chan error, 1)
		go func() { stopped <- s.broker.Run(ctx, time.Second) }()
	}
	s.cast()
	s.calm = true
	ok := s.until("the first subscriptions", func() bool { return s.all(func(a *actor) bool { return a.settled() }) })
	s.calm = false
	for i := 0; ok && i < steps && !s.failed; i++ {
		s.step()
	}
	s.calm = true
	for _, a := range s.actors {
		if a.peer != nil {
			a.peer.SetSendWindow(1 << 16)
		}
	}
	if ok = ok && s.until("the last acknowledgement", func() bool { return s.all(func(a *actor) bool { return a.idle() }) }); ok {
		s.quiet()
		s.judge()
		s.farewell()
	}
	if s.thread {
		stop()
		if err := <-stopped; err != nil {
			s.fail("Run: %v", err)
		}
	}
	if ok && !s.failed {
		for range 20 {
			for _, l := range s.broker.Loops() {
				_ = l.Turn(0)
			}
		}
		for _, err := range s.broker.Leftovers() {
			s.tb.Errorf("seed %d, %d shards, threaded %v: left over: %v", s.seed, s.shards, s.thread, err)
		}
	}
}

func (s *simulation) all(f func(*actor) bool) bool {
	for _, a := range s.actors {
		if !f(a) {
			return false
		}
	}
	return true
}

// seeds are what the tests play: -count or RINGMQ_SEEDS play more, RINGMQ_SEED plays one.
func seeds(normal int) (first, n uint64) {
	if v, err := strconv.ParseUint(os.Getenv("RINGMQ_SEED"), 10, 64); err == nil {
		return v, 1
	}
	if v, err := strconv.ParseUint(os.Getenv("RINGMQ_SEEDS"), 10, 64); err == nil {
		return 1000, v
	}
	return 0, uint64(normal)
}

func TestSimulation(t *testing.T) {
	first, n := seeds(100)
	for seed := first; seed < first+n && !t.Failed(); seed++ {
		newSimulation(t, seed, 1+int(seed%4), false).play(250)
	}
}

func TestThreadedSimulation(t *testing.T) {
	first, n := seeds(2)
	for seed := first; seed < first+n && !t.Failed(); seed++ {
		newSimulation(t, seed, 4, true).play(1000)
	}
}
