package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/crashtest"
	"github.com/ringmq/ringmq/broker/packet"
)

// simAnswers brings the store's answers to the loops of a simulated broker.
type simAnswers struct{ sim *crashtest.Sim }

func (a simAnswers) Committed(shard int, ops []byte)   { a.sim.Broker().Loops()[shard].Committed(ops) }
func (a simAnswers) Loaded(l broker.Loaded)            { a.sim.Broker().Loops()[l.Shard].Loaded(l) }
func (a simAnswers) Refuse(r broker.Refusal, _ string) { a.sim.Broker().Refuse(r) }
func (a simAnswers) Connected() int64                  { return a.sim.Broker().Connected() }

// disaster is what happens to the disk at its n-th change.
type disaster struct {
	at     int64
	only   func(errorfs.Op) bool // nil: every change counts
	healed atomic.Bool
	count  atomic.Int64
	dead   atomic.Bool
	do     func(errorfs.Op) error // decides what the operation says once the disaster has come
	strike func()
}

func (d *disaster) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || d.only != nil && !d.only(op) {
		return nil
	}
	if d.count.Add(1) == d.at {
		d.dead.Store(true)
		if d.strike != nil {
			d.strike()
		}
	}
	if d.dead.Load() {
		return d.do(op)
	}
	return nil
}

func (d *disaster) String() string { return "disaster" }

func newClients(l *crashtest.Ledger) []*crashtest.Client {
	list := []*crashtest.Client{
		crashtest.NewClient(l, "s1", packet.V50, "t/#", ""), crashtest.NewClient(l, "s2", packet.V311, "t/+", ""),
		crashtest.NewClient(l, "p1", packet.V50, "", "t/x"), crashtest.NewClient(l, "p2", packet.V311, "", "t/x"),
		crashtest.NewClient(l, "p3", packet.V50, "", "t/r"),
	}
	list[2].Padding, list[4].Retain = 300, true
	return list
}

// start opens a store and starts a simulated broker on it.
func start(sim *crashtest.Sim, fsys vfs.FS) (*Store, error) {
	return startWith(sim, Config{Dir: "data", FS: fsys, MemTableBytes: 64 << 10, CacheBytes: 1 << 20})
}

func startWith(sim *crashtest.Sim, config Config) (*Store, error) {
	s, err := Open(config)
	if err != nil {
		return nil, err
	}
	if err := sim.Restart(s); err != nil {
		return nil, errors.Join(err, s.shut())
	}
	s.Start(simAnswers{sim})
	return s, nil
}

// stepPause is what a step leaves to the store, whose goroutines run by themselves: without it the traffic is over before anything is committed.
const stepPause = 100 * time.Microsecond

func step(sim *crashtest.Sim) error {
	time.Sleep(stepPause)
	return sim.Step(true)
}

// powerCut runs traffic, cuts the power at the at-th change of the disk, and recovers. It says how many changes there were, and how many
// messages had been acknowledged when the power went.
func powerCut(shards int, seed uint64, at int64, steps int) (changes int64, acknowledged int, err error) {
	l := crashtest.NewLedger()
	sim := crashtest.NewSim(shards, seed, newClients(l))
	mem := vfs.NewCrashableMem()
	if err := errors.Join(mem.MkdirAll("data", 0o700), syncDir(mem, "")); err != nil {
		return 0, 0, err
	}
	var after *vfs.MemFS // written before cut is closed
	cut := make(chan struct{})
	d := &disaster{at: at, do: func(errorfs.Op) error { return errorfs.ErrInjected }}
	d.strike = func() {
		after = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: int(seed%3) * 50, RNG: rand.New(rand.NewPCG(seed, uint64(at)))})
		close(cut)
	}
	sim.Dead = d.dead.Load
	s, err := start(sim, errorfs.Wrap(mem, d))
	if err == nil {
		for n := 0; n < steps && !d.dead.Load(); n++ {
			if err := step(sim); err != nil {
				return 0, 0, err
			}
		}
		_ = s.Close()
	} else if !d.dead.Load() {
		return 0, 0, err
	}
	changes, acknowledged = d.count.Load(), l.Tally().Acknowledged
	if d.dead.Load() {
		<-cut // by a goroutine of Pebble's that nobody waits for
	} else {
		after = mem
	}
	sim.Dead = nil
	if s, err = start(sim, after); err != nil {
		return changes, acknowledged, fmt.Errorf("recovery: %w", err)
	}
	if s.Doubt() > 0 && acknowledged > 0 { // What was not complete yet when the power went may be salvaged.
		return changes, acknowledged, errors.New("the store doubts what it has")
	}
	return changes, acknowledged, errors.Join(sim.Drain(l, 40000), s.Close())
}

func long() bool { return os.Getenv("RINGMQ_LONG") != "" }

// TestPowerCutAtEveryChange cuts the power at the changes of the disk one after the other, from the making of the store on: every one
// with RINGMQ_LONG, a sample without.
func TestPowerCutAtEveryChange(t *testing.T) {
	for _, shards := range []int{1, 2} {
		last, _, err := powerCut(shards, 0, 0, steps)
		if err != nil {
			t.Fatal(err)
		}
		if last > cutsMax {
			t.Errorf("of %d changes the last %d are left out", last, last-cutsMax)
		}
		cuts, meaning, all := 0, 0, 0
		for at := int64(1); at <= min(last, cutsMax); at += sampled(141) {
			_, acknowledged, err := powerCut(shards, uint64(at), at, steps)
			if err != nil {
				t.Fatalf("%d shards, power cut at change %d: %v", shards, at, err)
			}
			if cuts++; acknowledged > 0 {
				meaning++
			}
			all += acknowledged
		}
		t.Logf("%d shards: %d power cuts in %d changes, at %d of them messages had been acknowledged, %d in all", shards, cuts, last, meaning, all)
		if meaning < cuts/2 || all < 5*cuts {
			t.Error("too few messages were acknowledged before the power went to mean anything")
		}
	}
}

// steps are how long the traffic is that a disaster meets.
const steps = 300

// cutsMax bounds the changes that TestPowerCutAtEveryChange needs; there are some hundreds.
const cutsMax = 3000

// sampled is how far apart the steps are at which a disaster strikes: every one with RINGMQ_LONG, few without.
func sampled(few int64) int64 {
	if long() {
		return 1
	}
	return few
}

// TestFullDiskAtEveryChange has every change of the disk fail from the at-th on, with no space or with an error, and work again later.
// Nobody is told a lie meanwhile, and everything goes on afterwards by itself. A store that cannot even be opened says so, and opens
// when the disk works.
func TestFullDiskAtEveryChange(t *testing.T) {
	acknowledged, last := 0, int64(0)
	for at := int64(1); at < 500; at += sampled(199) {
		for _, what := range []error{syscall.ENOSPC, errorfs.ErrInjected} {
			d := &disaster{at: at}
			d.do = func(op errorfs.Op) error {
				if d.healed.Load() || strings.HasSuffix(op.Path, "LOCK") {
					return nil
				}
				return what
			}
			n, err := failForAWhile(uint64(at), d)
			if err != nil {
				t.Fatalf("disk fails at change %d with %v: %v", at, what, err)
			}
			acknowledged += n
			if d.dead.Load() {
				last = at
			}
		}
	}
	t.Logf("%d messages were acknowledged before or while the disk failed; the last change that failed is the %d-th", acknowledged, last)
	if acknowledged == 0 || last < 300 {
		t.Error("too little was acknowledged, or failed, to mean anything")
	}
}

// TestOneSyncFails has one sync fail, after which the disk works again and keeps nothing of what that sync was for: what is synced later says
// nothing about it.
func TestOneSyncFails(t *testing.T) {
	acknowledged, failed := 0, 0
	for at := int64(1); at < 200; at += sampled(47) {
		d := &disaster{at: at, only: func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData }}
		d.do = func(errorfs.Op) error {
			if d.healed.Swap(true) {
				return nil
			}
			return syscall.EIO
		}
		n, err := failForAWhile(uint64(at), d)
		if err != nil {
			t.Fatalf("sync %d fails: %v", at, err)
		}
		if acknowledged += n; d.dead.Load() {
			failed++
		}
	}
	t.Logf("%d syncs failed; %d messages were acknowledged before or then", failed, acknowledged)
	if acknowledged == 0 || failed < 2 {
		t.Error("too little was acknowledged, or failed, to mean anything")
	}
}

// works waits until a store has recovered: it may have failed beside what the clients asked for.
func works(s *Store) error {
	for range 1000 {
		s.mu.Lock()
		in := s.in
		s.mu.Unlock()
		if !in.hasFailed() && !s.Health().Refusing {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("the store does not recover: %+v", s.Health())
}

// failForAWhile runs traffic on a disk that fails, has it work again, and then cuts the power. It says how many messages had been acknowledged
// when the disk worked again.
func failForAWhile(seed uint64, d *disaster) (acknowledged int, err error) {
	l := crashtest.NewLedger()
	sim := crashtest.NewSim(2, seed, newClients(l))
	mem := vfs.NewCrashableMem()
	if err := errors.Join(mem.MkdirAll("data", 0o700), syncDir(mem, "")); err != nil {
		return acknowledged, err
	}
	s, err := start(sim, errorfs.Wrap(mem, d))
	if err != nil {
		d.healed.Store(true)
		if s, err = start(sim, errorfs.Wrap(mem, d)); err != nil {
			return 0, fmt.Errorf("the disk works again: %w", err)
		}
	}
	for range steps {
		if err := step(sim); err != nil {
			return acknowledged, err
		}
	}
	acknowledged = l.Tally().Acknowledged
	d.healed.Store(true)
	if err := errors.Join(sim.Drain(l, 100000), works(s)); err != nil {
		return acknowledged, err
	}
	crashed := mem.CrashClone(vfs.CrashCloneCfg{})
	if err := s.Close(); err != nil {
		return acknowledged, err
	}
	if s, err = start(sim, crashed); err != nil {
		return acknowledged, err
	}
	if s.Doubt() > 0 {
		return acknowledged, errors.New("the store doubts what it has")
	}
	return acknowledged, errors.Join(sim.Drain(l, 40000), s.Close())
}
