package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
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
	over     int64        // how many reads fail; 0: all
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
	if n := u.failed.Add(1); u.over > 0 && n > u.over {
		return nil
	}
	return syscall.EIO
}

// String is part of errorfs.Injector.
func (*unreadable) String() string { return "unreadable" }

// unreadEntries is how many entries the Session of TestUnreadForAWhile has.
const unreadEntries = 100

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

// sharedQueue are a Session and its queue, and the messages in it, which are records of their own, and too large for one block.
func sharedQueue() (queue, messages []byte) {
	queue = record.AppendSet(nil, record.SessionKey(nil, 1), (&record.Session{ClientID: "c", Expiry: 1<<32 - 1}).Append(nil))
	noise := rand.NewChaCha8([32]byte{})
	for pos := range uint64(unreadEntries) {
		mid := 1000 + pos
		payload := make([]byte, 500)
		_, _ = noise.Read(payload)
		messages = record.AppendSet(messages, record.MessageKey(nil, mid), record.AppendMessage(nil, &record.Message{Topic: []byte("t")}, len(payload), payload))
		queue = record.AppendSet(queue, record.ReferenceKey(nil, mid, 1, pos), nil)
		queue = record.AppendSet(queue, record.EntryKey(nil, 1, pos), (&record.Entry{Flags: 1, Mid: mid}).AppendHead(nil))
	}
	return queue, messages
}

// openUnread opens a store on a disk that cannot read; it is not started yet.
func openUnread(t *testing.T, fsys vfs.FS) *Store {
	t.Helper()
	s, err := Open(Config{Dir: "data", FS: fsys, MemTableBytes: 256 << 10, CacheBytes: 1 << 20, Warn: func(text string) { t.Log(text) },
		unreadEvery: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestUnreadForAWhile: a table cannot be read five times in a row, for the disk's reasons. Nobody is told that messages are damaged, the
// store says that it fails, and what was asked for is answered when the disk works again.
func TestUnreadForAWhile(t *testing.T) {
	mem := vfs.NewMem()
	queue, messages := sharedQueue()
	u := &unreadable{table: inTables(t, mem, messages, queue)[0], to: 1 << 40, over: unreadMax - 1}
	s, a := openUnread(t, errorfs.Wrap(mem, u)), newAsked()
	u.on.Store(true) // Nothing has asked for a message yet.
	s.Start(a)
	s.Load(broker.Load{SID: 1, From: 0, To: unreadEntries, Entries: unreadEntries, Bytes: 1 << 30})
	a.until(t, "the load", func() bool { return len(a.loaded) == 1 && !a.refusing })
	if l := a.loaded[0]; len(l.Entries) != unreadEntries || l.Damaged > 0 {
		t.Errorf("%d of %d entries, %d damaged", len(l.Entries), unreadEntries, l.Damaged)
	}
	if n := u.failed.Load(); n <= u.over || len(a.refused) == 0 {
		t.Errorf("%d reads, of which the first %d failed; the broker was told %v", n, u.over, a.refused)
	}
	if stats := mustStats(t, s); stats.Salvages > 0 {
		t.Errorf("a disk that could not be read for a moment is taken for damage: %+v", stats)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestUnreadAtStart: a store that cannot be read before Start stops no broker, whether Open comes upon it, Each does, or Pebble does in the
// background. What is over soon costs nothing, and otherwise the store is salvaged. No record is read twice.
func TestUnreadAtStart(t *testing.T) {
	footer := func(size int64) int64 { return size - 100 }
	all := func(int64) int64 { return 0 }
	none := func(size int64) int64 { return size }
	for _, c := range [...]struct {
		name       string
		from       func(size int64) int64 // where the table cannot be read from
		open       bool                   // not even by Open
		over       int64
		background error
		salvaged   bool
		lost       bool
	}{
		{name: "Open, for a moment", from: footer, open: true, over: 3},
		{name: "Open, for ever", from: footer, open: true, salvaged: true, lost: true},
		{name: "Each, for a moment", from: all, over: 3},
		{name: "Each, for ever, the second half", from: func(size int64) int64 { return size / 2 }, salvaged: true, lost: true},
		{name: "Pebble, for a moment", from: none, background: fmt.Errorf("statistics: %w", syscall.EIO)},
		{name: "Pebble, damage", from: none, background: pebble.ErrCorruption, salvaged: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem := vfs.NewMem()
			fill(t, mem, true)
			table := largestTable(t, mem)
			u := &unreadable{table: table, from: c.from(int64(len(content(t, mem, table)))), to: 1 << 40, over: c.over}
			u.on.Store(c.open)
			s := openUnread(t, errorfs.Wrap(mem, u))
			u.on.Store(true)
			if c.background != nil {
				s.onBackgroundError(s.in, c.background)
			}
			var list []uint64
			err := s.Each(record.KindEntry, func(key, _ []byte) error { list = append(list, record.Number(key, 1)); return nil })
			s.Start(newAsked())
			switch stats := mustStats(t, s); {
			case err != nil:
				t.Error(err)
			case len(list) != damagedEntries-1 && !c.lost, len(list) > damagedEntries-1 || !slices.IsSorted(list) || len(slices.Compact(list)) != len(list):
				t.Errorf("%d of %d entries", len(list), damagedEntries-1)
			case (stats.Salvages == 1) != c.salvaged, (stats.LostFiles+stats.LostRecords > 0) != c.lost:
				t.Errorf("the store says %+v", stats)
			}
			if u.failed.Load() == 0 && c.background == nil {
				t.Error("no read has failed")
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestEachStops when what is called says so, with its error and nothing else: the store is not to blame.
func TestEachStops(t *testing.T) {
	mem := vfs.NewMem()
	fill(t, mem, true)
	s := openUnread(t, mem)
	n, enough := 0, errors.New("no more memory")
	if err := s.Each(record.KindEntry, func(_, _ []byte) error { n++; return enough }); !errors.Is(err, enough) || n != 1 {
		t.Errorf("after %d records: %v", n, err)
	}
	s.Start(newAsked())
	if stats := mustStats(t, s); stats.Salvages > 0 {
		t.Errorf("the store says %+v", stats)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestUnreadForEver has a part of a table that can never be read, as one on a bad sector: the store is salvaged, everything else is there,
// and what was lost is counted.
func TestUnreadForEver(t *testing.T) {
	mem := vfs.NewMem()
	fill(t, mem, true)
	table := largestTable(t, mem)
	middle := int64(len(content(t, mem, table))) / 2
	u := &unreadable{table: table, from: middle, to: middle + 4096}
	u.on.Store(true)
	s, a := openUnread(t, errorfs.Wrap(mem, u)), newAsked()
	s.Start(a)
	s.Load(broker.Load{SID: 1, From: 0, To: damagedEntries, Entries: damagedEntries, Bytes: 1 << 30})
	a.until(t, "the load", func() bool { return len(a.loaded) == 1 && !a.refusing })
	n, stats := len(a.loaded[0].Entries), mustStats(t, s)
	if lost := damagedEntries - 1 - n; lost <= 0 || n < damagedEntries*2/3 || stats.Salvages != 1 || stats.LostRecords != int64(lost) {
		t.Errorf("%d of %d entries are there, the store says %+v", n, damagedEntries-1, stats)
	}
	if n := u.failed.Load(); n < unreadMax {
		t.Errorf("%d reads have failed: want several tries", n)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestUnreadBySearch: what nobody but the search for expired messages comes upon, and the disk can never read, is given up like anything else: the search
// tries the same part again, and does not begin with all that is before it, which may take hours.
func TestUnreadBySearch(t *testing.T) {
	mem := vfs.NewMem()
	var queue []byte
	for pos := range uint64(expiryChunk * 3 / 2) {
		queue = append(queue, entryBatch(1, pos, "queued")...)
	}
	table := inTables(t, mem, append(queue, record.AppendSet(nil, record.SessionKey(nil, 1), (&record.Session{ClientID: "c"}).Append(nil))...))[0]
	size := int64(len(content(t, mem, table)))
	u := &unreadable{table: table, from: size * 3 / 4, to: size * 9 / 10}
	s, a := openUnread(t, errorfs.Wrap(mem, u)), newAsked()
	u.on.Store(true)
	s.answers, s.loads = a, make(chan *broker.Load)
	s.work.Go(s.write) // and no reaper, whose part this test has
	if s.expireOnce(); u.failed.Load() > 0 {
		t.Fatal("the first part cannot be read: the scene is another one")
	}
	for range unreadMax {
		in := s.instanceOf()
		s.expireOnce()
		a.until(t, "that it is open again", func() bool { return s.instanceOf() != in && !s.Health().Refusing })
	}
	if stats := mustStats(t, s); stats.Salvages != 1 || stats.LostRecords == 0 {
		t.Errorf("the store says %+v", stats)
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
