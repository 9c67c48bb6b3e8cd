package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/crashtest"
	"github.com/ringmq/ringmq/broker/packet"
)

// simAnswers brings the store's answers to the loops of a simulated broker.
type simAnswers struct{ sim *crashtest.Sim }

func (a simAnswers) Committed(shard int, ops []byte) { a.sim.Broker().Loops()[shard].Committed(ops) }
func (a simAnswers) Loaded(l broker.Loaded)          { a.sim.Broker().Loops()[l.Shard].Loaded(l) }
func (a simAnswers) Refuse(on bool, _ string)        { a.sim.Broker().Refuse(on) }

// disaster is what happens to the disk at its n-th change.
type disaster struct {
	at     int64
	count  atomic.Int64
	dead   atomic.Bool
	do     func(errorfs.Op) error // decides what the operation says once the disaster has come
	strike func()
}

func (d *disaster) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
		return nil
	}
	if d.at > 0 && d.count.Add(1) == d.at {
		d.dead.Store(true)
		d.strike()
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
	}
	list[2].Padding = 300
	return list
}

// start opens a store and starts a simulated broker on it.
func start(sim *crashtest.Sim, fsys vfs.FS) (*Store, error) {
	s, err := Open(Config{Dir: "data", FS: fsys, MemTableBytes: 64 << 10, CacheBytes: 1 << 20})
	if err != nil {
		return nil, err
	}
	if err := sim.Restart(s); err != nil {
		return nil, errors.Join(err, s.shut())
	}
	s.Start(simAnswers{sim})
	return s, nil
}

// powerCut runs traffic, cuts the power at the at-th change of the disk, and recovers. It says how many changes there were.
func powerCut(shards int, seed uint64, at int64, steps int) (changes int64, err error) {
	l := crashtest.NewLedger()
	sim := crashtest.NewSim(shards, seed, newClients(l))
	mem := vfs.NewCrashableMem()
	if err := errors.Join(mem.MkdirAll("data", 0o700), syncDir(mem, "")); err != nil {
		return 0, err
	}
	var after *vfs.MemFS
	d := &disaster{at: at, do: func(errorfs.Op) error { return errorfs.ErrInjected }}
	d.strike = func() {
		after = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: int(seed%3) * 50, RNG: rand.New(rand.NewPCG(seed, uint64(at)))})
	}
	sim.Dead = d.dead.Load
	s, err := start(sim, errorfs.Wrap(mem, d))
	if err == nil {
		for n := 0; n < steps && !d.dead.Load(); n++ {
			if err := sim.Step(true); err != nil {
				return 0, err
			}
		}
		_ = s.Close()
	} else if !d.dead.Load() {
		return 0, err
	}
	changes = d.count.Load()
	if !d.dead.Load() {
		after = mem
	}
	sim.Dead = nil
	if s, err = start(sim, after); err != nil {
		return changes, fmt.Errorf("recovery: %w", err)
	}
	return changes, errors.Join(sim.Drain(l, 40000), s.Close())
}

func long() bool { return os.Getenv("RINGMQ_LONG") != "" }

// TestPowerCutAtEveryChange cuts the power at the changes of the disk one after the other, from the making of the store on: every one
// with RINGMQ_LONG, a sample without.
func TestPowerCutAtEveryChange(t *testing.T) {
	cuts := 0
	for _, shards := range []int{1, 2} {
		last, step := int64(1), int64(13)
		if long() {
			step = 1
		}
		for at := int64(1); at <= last && at < 3000; at += step {
			changes, err := powerCut(shards, uint64(at), at, 150)
			if err != nil {
				t.Fatalf("%d shards, power cut at change %d: %v", shards, at, err)
			}
			last = max(last, changes)
			cuts++
		}
	}
	t.Log(cuts, "power cuts")
}

// TestFullDiskAtEveryChange has the disk fail for good reasons and for a while: from the at-th change on every write fails, with no space or
// with an error, then it works again. Nobody is told a lie meanwhile, and everything goes on afterwards by itself.
func TestFullDiskAtEveryChange(t *testing.T) {
	step := 97
	if long() {
		step = 7
	}
	for at := 40; at < 600; at += step {
		for _, what := range []error{errors.New("no space left on device"), errorfs.ErrInjected} {
			if err := failForAWhile(uint64(at), int64(at), what); err != nil {
				t.Fatalf("disk fails at change %d with %v: %v", at, what, err)
			}
		}
	}
}

func failForAWhile(seed uint64, at int64, what error) error {
	l := crashtest.NewLedger()
	sim := crashtest.NewSim(2, seed, newClients(l))
	mem := vfs.NewCrashableMem()
	if err := errors.Join(mem.MkdirAll("data", 0o700), syncDir(mem, "")); err != nil {
		return err
	}
	var healed atomic.Bool
	d := &disaster{at: at, strike: func() {}, do: func(op errorfs.Op) error {
		if healed.Load() || strings.HasSuffix(op.Path, "LOCK") {
			return nil
		}
		return what
	}}
	s, err := start(sim, errorfs.Wrap(mem, d))
	if err != nil {
		return nil // the store could not even be made: that is told at the start
	}
	for range 150 {
		if err := sim.Step(true); err != nil {
			return err
		}
	}
	healed.Store(true)
	if err := sim.Drain(l, 100000); err != nil {
		return err
	}
	crashed := mem.CrashClone(vfs.CrashCloneCfg{})
	if err := s.Close(); err != nil {
		return err
	}
	if s, err = start(sim, crashed); err != nil {
		return err
	}
	return errors.Join(sim.Drain(l, 40000), s.Close())
}
