package store

import (
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/ringmq/ringmq/broker/record"
)

// TestBatchesShareACommit has batches of several shards come while the log is synced: one commit, and one sync, releases them all.
func TestBatchesShareACommit(t *testing.T) {
	var holds atomic.Bool
	entered, leave := make(chan struct{}, 1), make(chan struct{})
	slow := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) && strings.HasSuffix(op.Path, ".log") && holds.CompareAndSwap(true, false) {
			entered <- struct{}{}
			<-leave
		}
		return nil
	})
	s, a := open(t, errorfs.Wrap(vfs.NewMem(), slow))
	s.Commit(0, entryBatch(1, 1, "before"))
	a.until(t, "the first commit", func() bool { return a.committed == 1 })
	holds.Store(true)
	s.Commit(0, entryBatch(1, 2, "under way"))
	<-entered
	before := mustStats(t, s)
	const shards = 8
	for shard := range shards {
		s.Commit(shard, entryBatch(uint64(shard+2), 1, "meanwhile"))
	}
	a.mu.Lock()
	if a.committed != 1 {
		t.Error("answered before the log is synced")
	}
	a.mu.Unlock()
	close(leave)
	a.until(t, "all commits", func() bool { return a.committed == 2+shards })
	after := mustStats(t, s)
	if n := after.Commits - before.Commits; n != 1 || after.Batches-before.Batches != shards {
		t.Errorf("%d batches of %d shards made %d commits", after.Batches-before.Batches, shards, n)
	}
	if n := after.Sync.Count - before.Sync.Count; n > 2 { // that one's, which was under way, and one for all others
		t.Errorf("they took %d syncs of the log", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestNoneSurvivesAStopInOrder: what was acknowledged at any level is there after a stop in order, even when the power goes then.
func TestNoneSurvivesAStopInOrder(t *testing.T) {
	for _, d := range []Durability{Fsync, OS, None} {
		mem := vfs.NewCrashableMem()
		if err := mem.MkdirAll("data", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := syncDir(mem, ""); err != nil {
			t.Fatal(err)
		}
		config := Config{Dir: "data", FS: mem, Durability: d, MemTableBytes: 1 << 20, CacheBytes: 1 << 20}
		for run := range uint64(3) {
			s, err := Open(config)
			if err != nil {
				t.Fatal(err)
			}
			a := newAsked()
			s.Start(a)
			if n := count(t, s, record.KindEntry); n != 100*int(run) {
				t.Errorf("%v: %d of %d entries survive a stop in order", d, n, 100*run)
			}
			for pos := range uint64(100) {
				s.Commit(0, entryBatch(1, run*100+pos, "x"))
			}
			a.until(t, "the commits", func() bool { return a.committed == 100 })
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		config.FS = mem.CrashClone(vfs.CrashCloneCfg{})
		if d == OS {
			config.FS = mem // which promises nothing when the power goes
		}
		s, err := Open(config)
		if err != nil {
			t.Fatal(err)
		}
		s.Start(newAsked())
		if n := count(t, s, record.KindEntry); n != 300 || s.Doubt() > 0 {
			t.Errorf("%v: %d of 300 entries survive the power's end after a stop in order; in doubt: %v", d, n, s.Doubt())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBallastOpensAFullDisk has a disk become full to the last byte while messages come: the store gives its ballast up, which is enough
// for it to be opened and for what was under way to be committed; when there is space it is set aside again.
func TestBallastOpensAFullDisk(t *testing.T) {
	var full atomic.Bool
	mem := vfs.NewMem()
	disk := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !full.Load() || op.Kind.ReadOrWrite() != errorfs.OpIsWrite || op.Kind == errorfs.OpRemove {
			return nil
		}
		if _, err := mem.Stat("data/ballast"); err != nil {
			return nil // what it took is free
		}
		return syscall.ENOSPC
	})
	s, a := open(t, errorfs.Wrap(mem, disk))
	s.Commit(0, entryBatch(1, 1, "before"))
	a.until(t, "the first commit", func() bool { return a.committed == 1 })
	if i, err := mem.Stat("data/ballast"); err != nil || i.Size() != ballastBytes {
		t.Fatalf("no ballast is set aside: %v %v", i, err)
	}
	full.Store(true)
	s.Commit(0, entryBatch(1, 2, "on the full disk"))
	a.until(t, "the commit on the full disk", func() bool { return a.committed == 2 })
	if mustStats(t, s).Failures == 0 {
		t.Error("the disk was never full")
	}
	full.Store(false)
	a.until(t, "the end of the refusal", func() bool { return !a.refusing })
	set := func() bool { i, err := mem.Stat("data/ballast"); return err == nil && i.Size() == ballastBytes }
	for until := time.Now().Add(20 * time.Second); !set() && time.Now().Before(until); {
		time.Sleep(spaceEvery) // the reaper looks once a second
	}
	if !set() {
		t.Error("the ballast is not set aside again")
	}
	if n := count(t, s, record.KindEntry); n != 2 {
		t.Errorf("%d of 2 entries are there", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
