package crashtest

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/memnet"
	"github.com/ringmq/ringmq/broker/packet"
)

// Sim is a broker in memory and its clients, driven by one goroutine. When the broker is to crash, it is abandoned, and Restart makes
// another one on what its store has kept.
type Sim struct {
	Clients []*Client
	Rand    *rand.Rand
	// Work, when not nil, is called in each step: for stores without goroutines.
	Work func(*broker.Broker)
	// Dead, when not nil, says that the crash has happened: nothing that comes from the broker counts any more.
	Dead func() bool

	broker  *broker.Broker
	network *memnet.Network
	peers   []*memnet.Peer
	shards  int
	now     time.Time
	still   int // turns in which no time passes
}

// firstTurns is for how many turns of a broker its clock stands at 0: the first millisecond is long when clients are waiting.
const firstTurns = 60

// NewSim makes a simulation; Restart starts its broker.
func NewSim(shards int, seed uint64, clients []*Client) *Sim {
	s := &Sim{Clients: clients, Rand: rand.New(rand.NewPCG(seed, 7)), shards: shards, now: time.Unix(1_700_000_000, 0)}
	for _, c := range clients {
		c.ledger.now = s.Now
	}
	return s
}

// Authenticate is part of broker.Host; everybody may connect.
func (s *Sim) Authenticate(broker.AuthRequest) bool { return false }

// Log is part of broker.Host.
func (s *Sim) Log(broker.LogEvent) bool { return true }

// Broker is the one that runs.
func (s *Sim) Broker() *broker.Broker { return s.broker }

// Now is the simulation's time.
func (s *Sim) Now() time.Time { return s.now }

// Sleep lets time pass in which no broker runs: the connections of the one that did have ended.
func (s *Sim) Sleep(d time.Duration) {
	for i := range s.peers {
		s.lose(i)
	}
	s.now = s.now.Add(d)
}

// Restart abandons the broker, if there is one, and starts one on a store.
func (s *Sim) Restart(store broker.Store) error {
	limits, err := broker.Limits{Memory: 64 << 20, Shards: s.shards, MaxConnections: 64, MaxSubscriptions: 1024, MaxRetained: 1024,
		MaxInflight: 8, StoreBytes: 1 << 20}.Resolve()
	if err != nil {
		return err
	}
	if s.broker != nil {
		s.broker.Release()
	}
	s.network = memnet.New(memnet.Config{Planes: s.shards})
	var planes []broker.Plane
	for _, p := range s.network.Planes() {
		planes = append(planes, p)
	}
	s.broker, err = broker.New(broker.Options{Limits: limits, Host: s, Store: store, Clock: func() time.Time { return s.now },
		Config: broker.Config{Listeners: []broker.ListenerConfig{{AllowAnonymous: true}}, Seed: 1}}, planes)
	for i := range s.peers {
		s.lose(i)
	}
	s.peers, s.still = make([]*memnet.Peer, len(s.Clients)), firstTurns
	for _, c := range s.Clients {
		c.Doubt()
	}
	return err
}

// Step has a client do something by chance, turns the loops, and has the clients take what came.
func (s *Sim) Step(publish bool) error {
	i := s.Rand.IntN(len(s.Clients))
	c := s.Clients[i]
	switch what := s.Rand.IntN(20); {
	case s.peers[i] == nil && c.Gone() && what > 0: // most of the time it stays away
	case s.peers[i] == nil:
		if err := s.connect(i); err != nil {
			return err
		}
	case what == 0 && !c.Live, what == 0 && publish && c.ready:
		s.cut(i)
	case what == 1 && publish && c.Fickle && c.Subscribed():
		s.write(i, c.Change())
	case what == 2 && publish && c.Polite:
		s.write(i, c.Leave())
	case publish && c.Topic != "" && s.everybodySubscribed():
		for range 1 + s.Rand.IntN(3) {
			s.write(i, c.Publish(byte(1+s.Rand.IntN(2))))
		}
	}
	return s.Turn()
}

// cut resets a connection.
func (s *Sim) cut(i int) {
	_ = s.peers[i].Reset()
	s.Clients[i].Doubt()
	s.lose(i)
}

func (s *Sim) everybodySubscribed() bool {
	for _, c := range s.Clients {
		if c.Filter != "" && !c.ready {
			return false
		}
	}
	return true
}

// lose is for a connection that has ended.
func (s *Sim) lose(i int) {
	if s.peers[i] != nil {
		s.peers[i] = nil
		s.Clients[i].Lost()
	}
}

func (s *Sim) connect(i int) (err error) {
	if s.peers[i], err = s.network.Dial(0); err == nil {
		s.write(i, s.Clients[i].Connect())
	}
	return err
}

func (s *Sim) write(i int, b []byte) {
	if s.peers[i] == nil || len(b) == 0 {
		return
	}
	if _, err := s.peers[i].Write(b); err != nil {
		s.cut(i) // what the broker does not take now is sent again on the next connection
	}
}

// Turn turns every loop once and has the clients take what came.
func (s *Sim) Turn() error {
	if s.still--; s.still < 0 {
		s.now = s.now.Add(time.Millisecond)
	}
	for _, l := range s.broker.Loops() {
		if err := l.Turn(0); err != nil {
			return err
		}
	}
	if s.Work != nil {
		s.Work(s.broker)
	}
	for i := range s.peers {
		if s.peers[i] == nil {
			continue
		}
		if err := s.read(i); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sim) read(i int) error {
	b := make([]byte, 64<<10)
	n, err := s.peers[i].Read(b)
	if s.Dead != nil && s.Dead() {
		return nil
	}
	if n > 0 {
		out, err := s.Clients[i].Feed(b[:n])
		if err != nil {
			return err
		}
		s.write(i, out)
		return nil
	}
	if errors.Is(err, broker.ErrWouldBlock) {
		return nil
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, memnet.ErrReset) {
		return fmt.Errorf("%s: %w", s.Clients[i].ID, err)
	}
	s.lose(i)
	return nil
}

// Drain connects everybody and goes on until all publications are done with and everything acknowledged has arrived, or until no more
// steps are left.
func (s *Sim) Drain(l *Ledger, steps int) error {
	for n := 0; n < steps; n++ {
		for i, p := range s.peers {
			if p == nil {
				if err := s.connect(i); err != nil {
					return err
				}
			}
		}
		if err := s.Turn(); err != nil {
			return err
		}
		pending := 0
		for _, c := range s.Clients {
			pending += c.Pending()
		}
		if pending == 0 && (l.Missing() == 0 && n > 20 || l.mayLose && n > settledTurns) {
			break
		}
		s.pause()
	}
	for _, c := range s.Clients {
		if c.Pending() > 0 {
			l.problem("%s has %d publications that are never acknowledged", c.ID, c.Pending())
		}
	}
	if problems := l.Problems(); len(problems) > 0 {
		return fmt.Errorf("%d problems, the first: %s", len(problems), problems[0])
	}
	return s.lookAtRetained(l)
}

// pause leaves time to a store that has goroutines of its own.
func (s *Sim) pause() {
	if s.Work == nil {
		time.Sleep(50 * time.Microsecond)
	}
}

// settledTurns is after how many turns nothing more is waited for when it may be lost.
const settledTurns = 500

// lookAtRetained has somebody new subscribe and finds that no Retained Message is older than the last one that was acknowledged.
func (s *Sim) lookAtRetained(l *Ledger) error {
	if l.mayLose {
		return nil
	}
	visitor := newVisitor(l, packet.V311, "#")
	peer, err := s.network.Dial(0)
	if err != nil {
		return err
	}
	s.Clients, s.peers = append(s.Clients, visitor), append(s.peers, peer)
	at := len(s.Clients) - 1
	s.write(at, visitor.Connect())
	for n := 0; n < 10*settledTurns && !visitor.Seen() && err == nil; n++ {
		err = s.Turn()
		s.pause()
	}
	s.Clients, s.peers = s.Clients[:at], s.peers[:at]
	_ = peer.Reset()
	switch problems := l.Problems(); {
	case err != nil:
		return err
	case len(problems) > 0:
		return fmt.Errorf("%d problems, the first: %s", len(problems), problems[0])
	case !visitor.Seen():
		return fmt.Errorf("these are not retained any more: %v", visitor.visit.owed)
	}
	return nil
}
