package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ringmq/ringmq/broker/crashtest"
)

// lyingFS is a disk that says that it has synced and has not, from some moment on. What it was told of progress it has, by
// chance: a disk writes in the order that suits it.
type lyingFS struct {
	vfs.FS
	lies atomic.Bool
}

func (l *lyingFS) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &lyingFile{File: f, disk: l, kept: strings.HasSuffix(name, "progress")}, nil
}

func (l *lyingFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := l.FS.Create(name, c)
	return l.wrap(name, f, err)
}

func (l *lyingFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := l.FS.OpenReadWrite(name, c, o...)
	if err == nil && strings.HasSuffix(name, "progress") {
		err = syncDir(l.FS, "data")
	}
	return l.wrap(name, f, err)
}

func (l *lyingFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := l.FS.ReuseForWrite(old, name, c)
	return l.wrap(name, f, err)
}

func (l *lyingFS) OpenDir(name string) (vfs.File, error) {
	f, err := l.FS.OpenDir(name)
	return l.wrap(name, f, err)
}

type lyingFile struct {
	vfs.File
	disk *lyingFS
	kept bool
}

func (f *lyingFile) Sync() error     { return f.sync(f.File.Sync) }
func (f *lyingFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *lyingFile) sync(do func() error) error {
	if f.disk.lies.Load() {
		return nil
	}
	return do()
}

func (f *lyingFile) WriteAt(p []byte, at int64) (int, error) {
	n, err := f.File.WriteAt(p, at)
	if err == nil && f.kept {
		err = f.File.Sync()
	}
	return n, err
}

// losesAndKnows plays so many seeds, and goes on until one has lost something: a sample in which nothing is lost proves nothing. Wherever
// something is, the store must know.
func losesAndKnows(t *testing.T, seeds int64, play func(seed uint64) (noticed bool, lost int, err error)) {
	t.Helper()
	found, missing := 0, 0
	for seed := uint64(0); seed < uint64(seeds) || missing == 0 && seed < 240; seed++ {
		noticed, lost, err := play(seed)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if lost > 0 {
			missing++
		}
		if noticed {
			found++
		}
		if lost > 0 && !noticed {
			t.Errorf("seed %d: %d acknowledged messages are gone, and the store does not know", seed, lost)
		}
	}
	if missing == 0 {
		t.Error("nothing was ever lost: the disk does not lie, or the power was not cut")
	}
	t.Logf("messages were lost %d times, the store knew %d times", missing, found)
}

// TestLyingDisk loses what was synced: the store opens all the same, knows that something is missing, and nothing of QoS 2 comes twice.
func TestLyingDisk(t *testing.T) {
	losesAndKnows(t, 240/sampled(40), lieAndCut)
}

func lieAndCut(seed uint64) (noticed bool, lost int, err error) {
	l := crashtest.NewLedger()
	l.MayLose()
	sim := crashtest.NewSim(1+int(seed%2), seed, newClients(l))
	mem := vfs.NewCrashableMem()
	if err := errors.Join(mem.MkdirAll("data", 0o700), syncDir(mem, "")); err != nil {
		return false, 0, err
	}
	disk := &lyingFS{FS: mem}
	var dead atomic.Bool
	sim.Dead = dead.Load
	s, err := start(sim, disk)
	if err != nil {
		return false, 0, err
	}
	for n := range 250 {
		disk.lies.Store(n >= int(seed%5)*40)
		if err := sim.Step(true); err != nil {
			return false, 0, err
		}
	}
	dead.Store(true)
	after := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: int(seed%3) * 30, RNG: rand.New(rand.NewPCG(seed, 3))})
	if err := s.Close(); err != nil {
		return false, 0, err
	}
	dead.Store(false)
	if s, err = start(sim, after); err != nil {
		return false, 0, fmt.Errorf("refused to start: %w", err)
	}
	noticed = s.Doubt() > 0
	err = errors.Join(sim.Drain(l, 40000), s.Close())
	return noticed, l.Missing(), err
}

// TestPowerCutAtLevelOS cuts the power, which that level promises nothing against: what the operating system had not written is gone. The store
// opens all the same. Where the disk has the last state of progress, which nothing syncs at any level, the store knows that something is
// missing, and nothing of QoS 2 comes twice.
func TestPowerCutAtLevelOS(t *testing.T) {
	losesAndKnows(t, 240/sampled(120), cutAtLevelOS)
}

func cutAtLevelOS(seed uint64) (noticed bool, lost int, err error) {
	l := crashtest.NewLedger()
	l.MayLose()
	sim := crashtest.NewSim(1+int(seed%2), seed, newClients(l))
	mem := vfs.NewCrashableMem()
	if err := errors.Join(mem.MkdirAll("data", 0o700), syncDir(mem, "")); err != nil {
		return false, 0, err
	}
	var dead atomic.Bool
	sim.Dead = dead.Load
	config := Config{Dir: "data", FS: &lyingFS{FS: mem}, Durability: OS, MemTableBytes: 64 << 10, CacheBytes: 1 << 20}
	s, err := startWith(sim, config)
	if err != nil {
		return false, 0, err
	}
	for range steps {
		if err := step(sim); err != nil {
			return false, 0, err
		}
	}
	dead.Store(true)
	config.FS = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: int(seed%3) * 30, RNG: rand.New(rand.NewPCG(seed, 3))})
	if err := s.Close(); err != nil {
		return false, 0, err
	}
	dead.Store(false)
	if s, err = startWith(sim, config); err != nil {
		return false, 0, fmt.Errorf("refused to start: %w", err)
	}
	noticed = s.Doubt() > 0
	err = errors.Join(sim.Drain(l, 40000), s.Close())
	return noticed, l.Missing(), err
}
