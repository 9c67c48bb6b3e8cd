package broker

import (
	"context"
	crypto "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/topic"
)

// Broker is a set of shards with a Loop and a Plane each.
type Broker struct {
	world *shared
	plan  Plan
	loops []*Loop
}

// Options are what New needs beside the planes.
type Options struct {
	Limits Limits // resolved
	Config Config
	Host   Host
	Clock  func() time.Time // default time.Now
	Store  Store            // what outlives the process; nil: nothing does
	// Prefault touches the reserved memory of messages and connections at once.
	Prefault bool
	// HashKey is of the hash of topics and Client Identifiers, and of made-up Client Identifiers, for runs that are to be repeated
	// exactly; zero: drawn at random, and not from Config.Seed, which other choices give away.
	HashKey [2]uint64
	// LockThread has each Loop keep an OS thread of its own, which suits planes whose Wait blocks in the kernel.
	LockThread bool
}

// New reserves all memory and makes a broker with one shard for each plane. The planes stay the caller's to close.
func New(o Options, planes []Plane) (*Broker, error) {
	if len(planes) != o.Limits.Shards {
		return nil, fmt.Errorf("%d planes for %d shards", len(planes), o.Limits.Shards)
	}
	plan, err := o.Limits.Plan()
	if err != nil {
		return nil, err
	}
	index := o.index()
	w := &shared{limits: o.Limits, config: &o.Config, host: o.Host, store: o.Store, retainedLog: &retainedLog{}, registry: newRegistry(index), retained: &retainedStore{},
		index: index, groups: newGroups()}
	w.contributions.max = o.Limits.Shards * o.Limits.streamBytes() / 2
	if err := w.allocate(plan); err != nil {
		return nil, err
	}
	if o.Prefault {
		w.prefault()
	}
	b := &Broker{world: w, plan: plan}
	clock := w.clock(o.now())
	for i, p := range planes {
		s, err := newShard(w, i, o.Config.Seed+uint64(i)*0x9e3779b97f4a7c15)
		if err != nil {
			return nil, err
		}
		s.identifiers = rand.NewChaCha8(o.identifierKey(i))
		w.peers = append(w.peers, s)
		l := &Loop{shard: s, plane: p, clock: clock, vec: make([][]byte, 0, writeSlices), lock: o.LockThread}
		if late, is := p.(Laggard); is {
			l.late, l.lag, s.isLate = late, late.Lag().Milliseconds(), true
		}
		b.loops = append(b.loops, l)
	}
	w.connectRings()
	for _, l := range b.loops {
		l.peers = b.loops
	}
	return b, w.restore(o.now()())
}

func (o *Options) index() *topic.Index[*subscription] {
	if o.HashKey != [2]uint64{} {
		return topic.NewKeyedIndex[*subscription](o.HashKey)
	}
	return topic.NewIndex[*subscription]()
}

// identifierKey is what a shard makes up Client Identifiers from.
func (o *Options) identifierKey(shard int) (key [32]byte) {
	if o.HashKey == [2]uint64{} {
		_, _ = crypto.Read(key[:]) // It never fails: it ends the process instead.
		return key
	}
	for i, v := range [...]uint64{o.HashKey[0], o.HashKey[1], uint64(shard)} {
		binary.LittleEndian.PutUint64(key[8*i:], v)
	}
	return key
}

func (o *Options) now() func() time.Time {
	if o.Clock == nil {
		return time.Now
	}
	return o.Clock
}

// clock is the broker's clock. It goes on as it is when the wall's is set.
func (w *shared) clock(now func() time.Time) func() int64 {
	start := now()
	return func() int64 {
		t := now()
		ms := t.Sub(start).Milliseconds()
		w.follow(t.UnixMilli() - ms)
		return ms
	}
}

// allocate reserves the tables that the plan counts.
func (w *shared) allocate(p Plan) (err error) {
	conns, sessions := w.limits.connSlots()+1, w.limits.sessionSlots()+1
	try := func(e error) { err = errors.Join(err, e) }
	var e error
	w.conns, e = reserve[conn](conns)
	try(e)
	w.timers, e = reserve[timer](conns + 2*sessions)
	try(e)
	w.entries, e = reserve[entry](p.Entries + 1)
	try(e)
	if w.store != nil {
		w.marks, e = reserve[mark](p.Entries + 1)
		try(e)
		w.watermarks, w.renewed = make([]atomic.Uint64, w.limits.Shards), make([]atomic.Uint32, w.limits.Shards)
	}
	w.messages, e = reserve[message](p.Messages + 1)
	try(e)
	w.arena, e = newArena(p.Pages, w.limits.Shards)
	try(e)
	w.connSlots, e = newSlots(conns - 1)
	try(e)
	w.sessionSlots, e = newSlots(sessions - 1)
	try(e)
	w.messageSlots, e = newSlots(p.Messages)
	try(e)
	w.entrySlots, e = newSlots(p.Entries)
	try(e)
	w.refs, w.sessions = make([]connRef, conns), make([]atomic.Pointer[Session], sessions)
	return err
}

// prefault touches every page of the reserved mappings, so that no page fault comes later.
func (w *shared) prefault() {
	for _, b := range [][]byte{mappingBytes(w.conns), mappingBytes(w.timers), mappingBytes(w.entries), mappingBytes(w.messages),
		w.arena.data, mappingBytes(w.arena.pages)} {
		for i := 0; i < len(b); i += pageSize {
			b[i] = 0
		}
	}
}

// Plan is the memory this broker was planned with.
func (b *Broker) Plan() Plan { return b.plan }

// Loops are the broker's loops, one per shard, for those who drive them themselves.
func (b *Broker) Loops() []*Loop { return b.loops }

// Run drives all loops until ctx is done, then says goodbye to the clients, within grace, and returns.
func (b *Broker) Run(ctx context.Context, grace time.Duration) error {
	stop := make(chan struct{})
	failed := make(chan error, len(b.loops))
	var wg sync.WaitGroup
	for _, l := range b.loops {
		wg.Go(func() { failed <- l.run(stop) })
	}
	var err error
	select {
	case <-ctx.Done():
		b.drain(grace)
	case err = <-failed:
	}
	close(stop)
	for _, l := range b.loops {
		l.Do(func(*Shard) {})
		l.plane.Wake()
	}
	wg.Wait()
	b.HandOver()
	return err
}

// HandOver gives the store what the last turns have left, for those who drive the loops themselves and have stopped. No loop runs any more.
func (b *Broker) HandOver() {
	for _, s := range b.world.peers {
		for s.stream != nil {
			if s.handOver(); !s.renews() {
				break
			}
		}
	}
}

// drainBatch is how many connections of a shard are ended in one turn when the broker stops. All of a hundred thousand in
// one would keep a plane that is its own TCP from hearing what their clients acknowledge meanwhile.
const drainBatch = 512

// StopRounds is how many turns every Loop has when no shard has anything left, before it stops: what the last connection had to say, a Will
// above all, goes to another shard, and from the old home of a Session that moves to the new one, and each answers in its next turn.
const StopRounds = 3

// drainPause is between two looks at whether there are any left.
const drainPause = time.Millisecond

// drain closes the listeners, sends DISCONNECT to every client, batch by batch, and waits until they have taken it.
func (b *Broker) drain(grace time.Duration) {
	for _, l := range b.loops {
		l.Do(func(*Shard) { l.plane.StopAccepting() })
	}
	rounds := StopRounds
	for until := time.Now().Add(grace); rounds > 0 && time.Now().Before(until); time.Sleep(drainPause) {
		left := false
		for _, l := range b.loops {
			left = l.ask(l.drain, until) || left
		}
		if rounds--; left {
			rounds = StopRounds
		}
	}
}

// drain ends a batch of connections, unless the plane has not heard yet what the clients of the last ones have answered; it tells
// whether there are any left. A plane that is its own TCP would send again and again, at a rate that only grows, what was
// acknowledged long ago: 60,000 clients took 13 s.
func (l *Loop) drain(s *Shard) (left bool) {
	if l.late == nil || l.late.CaughtUp() {
		s.Drain(drainBatch)
	}
	return s.hasLeft()
}

// ask runs f on the Loop and returns what it says; false when the Loop does not answer in time.
func (l *Loop) ask(f func(*Shard) bool, until time.Time) bool {
	answer := make(chan bool, 1)
	l.Do(func(s *Shard) { answer <- f(s) })
	select {
	case v := <-answer:
		return v
	case <-time.After(time.Until(until)):
		return false
	}
}

// HasLeft says whether a Loop that stops still has connections, or messages for it or of it that are not where they are to be: a turn takes
// so many of them only. For who drives the Loop; it must not run.
func (l *Loop) HasLeft() bool { return l.shard.hasLeft() }

func (s *Shard) hasLeft() bool {
	for to := range s.out {
		if len(s.out[to].overflow) > 0 {
			return true
		}
	}
	return len(s.owned)+len(s.orphans) > 0 || s.Pending()
}

// Drain ends so many connections because the broker stops [MQTT-3.14.0-1]; new ones are refused. What has been read of a connection
// counts, so that one whose input has yielded comes later.
func (s *Shard) Drain(most int) {
	s.draining = true
	reason := s.elsewhere(packet.ServerShuttingDown) // Table 3-10.
	for _, id := range s.owned {
		if s.conns[id].isBehind() {
			continue
		}
		switch s.conns[id].state {
		case connLive:
			s.endSessionAs(id, false, reason, "broker stops")
		case connAuth, connClaim, connExchange:
			s.violate(id, s.stopping())
		case connOpen: // It has not said which version it speaks.
			s.Closed(id, "broker stops")
		default:
			continue
		}
		if most--; most == 0 {
			break
		}
	}
	s.settle()
}

// Counters adds up what the shards have counted, as of their last second.
func (b *Broker) Counters() Counters { return b.world.sum() }

func (w *shared) sum() (sum Counters) {
	for _, s := range w.peers {
		for i := range sum {
			sum[i] += s.published[i].Load()
		}
	}
	return sum
}

// Release gives the reserved memory back. No loop may run any more.
func (b *Broker) Release() {
	w := b.world
	_, _, _, _ = release(w.conns), release(w.timers), release(w.entries), release(w.messages)
	_ = release(w.marks)
	w.arena.release()
	for _, s := range []*slots{w.connSlots, w.sessionSlots, w.messageSlots, w.entrySlots} {
		s.release()
	}
	for _, s := range w.peers {
		_ = release(s.ms.scratch[:cap(s.ms.scratch)])
	}
}
