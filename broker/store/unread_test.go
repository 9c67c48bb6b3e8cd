package store

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/record"
)

// unreadable fails reads of tables.
type unreadable struct {
	on       atomic.Bool
	table    string       // its path
	from, to int64        // the part of it that cannot be read
	failed   atomic.Int64 // reads so far
	moved    atomic.Bool  // the table is with those that were damaged, and another may have its name
}

// MaybeError is part of errorfs.Injector.
func (u *unreadable) MaybeError(op errorfs.Op) error {
	if op.Kind == errorfs.OpRename && op.Path == "data/db" {
		u.moved.Store(true)
	}
	if !u.on.Load() || u.moved.Load() || op.Kind != errorfs.OpFileReadAt || op.Path != u.table || op.Offset < u.from || op.Offset >= u.to {
		return nil
	}
	u.failed.Add(1)
	return syscall.EIO
}

// String is part of errorfs.Injector.
func (*unreadable) String() string { return "unreadable" }

// inTables makes a store in which each batch is a table of its own, and names the tables.
func inTables(t *testing.T, fsys vfs.FS, batches ...[]byte) (tables []string) {
	t.Helper()
	s, a := open(t, fsys)
	for n, ops := range batches {
		s.Commit(0, ops)
		a.until(t, "a commit", func() bool { return a.committed == n+1 })
		if err := s.in.do((*pebble.DB).Flush); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if tables = files(t, fsys, isTable); len(tables) != len(batches) {
		t.Fatalf("%d tables of %d batches", len(tables), len(batches))
	}
	return tables
}

// openUnread is open for a disk that cannot read for long.
func openUnread(t *testing.T, fsys vfs.FS) (*Store, *asked) {
	t.Helper()
	s, err := Open(Config{Dir: "data", FS: fsys, MemTableBytes: 256 << 10, CacheBytes: 1 << 20, Warn: func(text string) { t.Log(text) },
		unreadEvery: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	a := newAsked()
	s.Start(a)
	return s, a
}

// TestUnreadForEver has a part of a table that can never be read, as one on a bad sector: the store is salvaged, everything else is there,
// and what was lost is counted.
func TestUnreadForEver(t *testing.T) {
	mem := vfs.NewMem()
	fill(t, mem, true)
	table := files(t, mem, isTable)[0]
	middle := int64(len(content(t, mem, table))) / 2
	u := &unreadable{table: table, from: middle, to: middle + 4096}
	u.on.Store(true)
	s, a := openUnread(t, errorfs.Wrap(mem, u))
	s.Load(broker.Load{SID: 1, From: 0, To: damagedEntries, Entries: damagedEntries, Bytes: 1 << 30})
	a.until(t, "the load", func() bool { return len(a.loaded) == 1 && !a.refusing })
	n, stats := len(a.loaded[0].Entries), mustStats(t, s)
	if lost := damagedEntries - 1 - n; lost <= 0 || n < damagedEntries*2/3 || stats.Salvages != 1 || stats.LostRecords != int64(lost) {
		t.Errorf("%d of %d entries are there, the store says %+v", n, damagedEntries-1, stats)
	}
	if len(a.refused) < unreadMax {
		t.Errorf("the broker was told %v: want several tries", a.refused)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestUnreadSession cannot read the records of Sessions for a moment: nobody takes them for gone, and their queues for garbage.
func TestUnreadSession(t *testing.T) {
	mem := vfs.NewMem()
	session := record.AppendSet(nil, record.SessionKey(nil, 1), (&record.Session{ClientID: "c"}).Append(nil))
	u := &unreadable{table: inTables(t, mem, entryBatch(1, 1, "queued"), session)[1], to: 1 << 40}
	s, err := OpenForTools(Config{Dir: "data", FS: errorfs.Wrap(mem, u)}, true) // which reads none of it
	if err != nil {
		t.Fatal(err)
	}
	u.on.Store(true)
	if err := s.in.do(s.sweep); err == nil || u.failed.Load() == 0 {
		t.Errorf("the sweep says %v, %d reads have failed", err, u.failed.Load())
	}
	if n := len(s.reaper.sids); n > 0 {
		t.Errorf("%d Sessions that could not be read are taken for ended", n)
	}
	u.on.Store(false)
	if err := s.CloseTools(); err != nil {
		t.Error(err)
	}
}

// TestIsDamage: what the machine lacks for now is no reason to salvage a store.
func TestIsDamage(t *testing.T) {
	for err, want := range map[error]bool{syscall.EDQUOT: false, syscall.ENFILE: false, syscall.EMFILE: false, syscall.ENOMEM: false, syscall.ESTALE: false,
		syscall.ENOSPC: false, syscall.EROFS: false, syscall.EACCES: false, syscall.ENOENT: true, syscall.ENOTDIR: true, pebble.ErrCorruption: true} {
		if err = fmt.Errorf("open: %w", err); isDamage(err) != want {
			t.Errorf("%v is damage: %v", err, !want)
		}
	}
}
