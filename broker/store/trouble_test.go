package store

import (
	"errors"
	"fmt"
	"strings"
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

// openWith is open with a durability, for a directory that is there. The reaper does not run: what it would do is the test's.
func openWith(t *testing.T, fsys vfs.FS, d Durability) (*Store, *asked) {
	t.Helper()
	s, err := Open(Config{Dir: "data", FS: fsys, Durability: d, MemTableBytes: 1 << 20, CacheBytes: 1 << 20, Warn: func(text string) { t.Log(text) },
		unreadEvery: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	a := newAsked()
	s.answers, s.loads = a, make(chan *broker.Load)
	s.work.Go(s.write)
	s.work.Go(s.read)
	return s, a
}

// dataDir is a file system with an empty data directory.
func dataDir(t *testing.T) *vfs.MemFS {
	t.Helper()
	mem := vfs.NewMem()
	if err := mem.MkdirAll("data", 0o700); err != nil {
		t.Fatal(err)
	}
	return mem
}

// instanceOf is the open instance.
func (s *Store) instanceOf() *instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in
}

// slowTables has tables wait until they may be made.
type slowTables struct {
	vfs.FS
	on    atomic.Bool
	asked chan struct{}
	free  chan struct{}
}

func (f *slowTables) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if isTable(name) && f.on.CompareAndSwap(true, false) {
		close(f.asked)
		<-f.free
	}
	return f.FS.Create(name, c)
}

// TestCloseWhileReclaiming stops in order while space is given back: that this is called off is no failure of the store, which would
// be left as it is.
func TestCloseWhileReclaiming(t *testing.T) {
	for _, d := range []Durability{None, Fsync} {
		mem := dataDir(t)
		slow := &slowTables{FS: mem, asked: make(chan struct{}), free: make(chan struct{})}
		s, a := openWith(t, slow, d)
		const messages, left = 10_000, 100
		b := record.AppendSet(nil, record.SessionKey(nil, 1), (&record.Session{ClientID: "c", Expiry: 1 << 31}).Append(nil))
		for pos := range uint64(messages) {
			b = append(b, entryBatch(1, pos, "text")...)
		}
		s.Commit(0, b)
		a.until(t, "the messages", func() bool { return a.committed == 1 })
		if err := s.in.do((*pebble.DB).Flush); err != nil {
			t.Fatal(err)
		}
		// So little stays in memory: Pebble does not come first.
		s.Commit(0, record.AppendDeleteRange(nil, record.EntryKey(nil, 1, 0), record.EntryKey(nil, 1, messages-left)))
		a.until(t, "the deletions", func() bool { return a.committed == 2 })
		slow.on.Store(true)
		s.reclaim.idle, s.reclaim.commits = reclaimRounds, s.counts.commits.Load()
		s.work.Go(s.reclaimOnce)
		<-slow.asked
		go func() {
			<-s.stop
			close(slow.free)
		}()
		if err := s.Close(); err != nil {
			t.Errorf("%v: Close says %v", d, err)
		}
		s, _ = openWith(t, mem, d)
		if n := count(t, s, record.KindEntry); n != left {
			t.Errorf("%v: %d entries are there, want %d", d, n, left)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestUnreadMoments: loads that fail once each, and are read at once when they are tried again, are six troubles of the disk, and not one.
func TestUnreadMoments(t *testing.T) {
	mem := vfs.NewMem()
	queue, messages := sharedQueue()
	u := &unreadable{table: inTables(t, mem, messages, queue)[0], to: 1 << 40, over: 1}
	s, a := openWith(t, errorfs.Wrap(mem, u), Fsync)
	u.on.Store(true)
	const each = 10
	for i := range unreadMax {
		u.failed.Store(0)
		from := uint64(unreadEntries - each*(i+1)) // where nothing has been read before
		s.Load(broker.Load{SID: 1, From: from, To: from + each - 1, Entries: each, Bytes: 1 << 20})
		a.until(t, "a load", func() bool { return len(a.loaded) == i+1 && !a.refusing })
		if l := a.loaded[i]; len(l.Entries) != each || u.failed.Load() < 2 {
			t.Errorf("load %d: %d entries, %d reads", i, len(l.Entries), u.failed.Load())
		}
	}
	if stats := mustStats(t, s); stats.Salvages > 0 {
		t.Errorf("the store says %+v", stats)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestUnreadPauses: each is twice as long as the one before, until what cannot be read is given up, for which nothing is waited.
func TestUnreadPauses(t *testing.T) {
	var u unread
	for n, quarters := range [unreadMax + 1]time.Duration{1, 1, 2, 4, 8, 16, 1} {
		if got, want := u.pause(reopenEvery), quarters*reopenEvery; got != want {
			t.Errorf("after %d failures: %v, want %v", n, got, want)
		}
		u.count(nil)
	}
}

// TestUnreadInSalvage has a disk that cannot read for a moment while a store is salvaged, for damage elsewhere: it costs nothing.
func TestUnreadInSalvage(t *testing.T) {
	for _, over := range []int64{1, 2, -1, 1 - unreadMax} { // of the end of the table, which is read first, or of what is in it
		mem := vfs.NewMem()
		fill(t, mem, true)
		table := largestTable(t, mem)
		half := int64(len(content(t, mem, table))) / 2
		u := &unreadable{table: table, from: half, to: 1 << 40, over: over}
		if over < 0 {
			u.from, u.to, u.over = 0, half, -over
		}
		s, a := openWith(t, errorfs.Wrap(mem, u), Fsync)
		u.on.Store(true)
		_ = s.suspect(s.instanceOf(), pebble.ErrCorruption)
		s.Load(broker.Load{SID: 1, From: 0, To: damagedEntries, Entries: damagedEntries, Bytes: 1 << 30})
		a.until(t, "the load", func() bool { return len(a.loaded) == 1 && !a.refusing })
		if n, stats := len(a.loaded[0].Entries), mustStats(t, s); n != damagedEntries-1 || stats.Salvages != 1 || stats.LostFiles+stats.LostRecords > 0 {
			t.Errorf("%d reads failed: %d of %d entries, the store says %+v", over, n, damagedEntries-1, stats)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestSalvageLastStepFails: the directory cannot be synced when the damaged store has moved aside. The new one is not made again, of nothing.
func TestSalvageLastStepFails(t *testing.T) {
	for _, how := range []string{"tried again", "while it runs", "restart"} {
		mem := vfs.NewMem()
		fill(t, mem, true)
		var moved, failed atomic.Bool
		fault := errorfs.InjectorFunc(func(op errorfs.Op) error {
			switch {
			case op.Kind == errorfs.OpRename && op.Path == "data/db":
				moved.Store(true)
			case op.Kind == errorfs.OpFileSync && op.Path == "data" && moved.Load() && (!failed.Swap(true) || how == "restart"):
				return syscall.EIO
			}
			return nil
		})
		s, err := Open(Config{Dir: "data", FS: errorfs.Wrap(mem, fault), MemTableBytes: 256 << 10, CacheBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if how == "while it runs" {
			a := newAsked()
			s.Start(a)
			_ = s.suspect(s.instanceOf(), pebble.ErrCorruption)
			a.until(t, "that it is open again", func() bool { return len(a.refused) > 0 && !a.refusing })
		} else {
			s.onBackgroundError(s.in, pebble.ErrCorruption)
			if err := s.Each(record.KindEntry, func([]byte, []byte) error { return nil }); err == nil {
				t.Error("the salvage has not failed")
			}
		}
		if how == "tried again" {
			if err := s.Each(record.KindEntry, func([]byte, []byte) error { return nil }); err != nil {
				t.Error(err)
			}
		}
		if how != "restart" {
			if s.counts.salvages.Load() != 1 || s.counts.salvaged.Load() < damagedEntries {
				t.Errorf("%d salvages, %d records", s.counts.salvages.Load(), s.counts.salvaged.Load())
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		s, _ = open(t, mem)
		if list, err := entries(s); err != nil || len(list) != damagedEntries-1 || count(t, s, record.KindSession) != 1 {
			t.Errorf("%s: %d of %d entries are there, %v", how, len(list), damagedEntries-1, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestSalvageWithoutANote: where the disk has no room for what says why a store was put aside, the salvage is made all the same, and told of.
func TestSalvageWithoutANote(t *testing.T) {
	for _, serving := range []bool{false, true} {
		mem := vfs.NewMem()
		fill(t, mem, true)
		fault := errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, "/WHY") {
				return syscall.ENOSPC
			}
			return nil
		})
		if !serving {
			damageManifest(t, mem)
		}
		var warnings []string
		s, err := Open(Config{Dir: "data", FS: errorfs.Wrap(mem, fault), MemTableBytes: 256 << 10, CacheBytes: 1 << 20,
			Warn: func(text string) { warnings = append(warnings, text) }})
		if err != nil {
			t.Errorf("it does not start: %v", err)
			continue
		}
		if serving {
			s.damage.Store(&pebble.ErrCorruption)
			if in, err := s.openAgain(); err != nil {
				t.Error(err)
			} else {
				s.in.discard()
				s.in = in
			}
		}
		if said := strings.Join(warnings, "\n"); !strings.Contains(said, "/WHY cannot be written") || !strings.Contains(said, "the store was damaged") {
			t.Errorf("it says %q", said)
		}
		if err := s.shut(); err != nil {
			t.Error(err)
		}
	}
}

// TestExpirySearchAndTrouble: while the writer can remove nothing, nothing more is found for it; and an instance that is opened again is searched
// anew, for what was removed may be back.
func TestExpirySearchAndTrouble(t *testing.T) {
	s, a := openWith(t, dataDir(t), Fsync)
	s.Commit(0, expiringBatch(2, 1, time.Now().Add(-time.Second).UnixMilli()))
	a.until(t, "the commit", func() bool { return a.committed == 1 })
	s.refusal.mu.Lock()
	s.refusal.health.Refusing = true
	s.refusal.mu.Unlock()
	s.expireOnce()
	if s.expiry.written.Load() == never {
		t.Error("the search goes on although nothing can be removed")
	}
	s.refusal.mu.Lock()
	s.refusal.health.Refusing = false
	s.refusal.mu.Unlock()
	for n := 2; s.expiry.begins(time.Now().UnixMilli()); n++ {
		s.expireOnce()
		s.Commit(0, record.AppendDelete(nil, record.SentKey(nil, 9))) // behind the removal
		a.until(t, "the removal", func() bool { return a.committed == n })
	}
	if n := count(t, s, record.KindEntry); n > 0 {
		t.Error("what has expired is still there")
	}
	s.in.fail(writeError{syscall.EIO})
	s.signal()
	a.until(t, "that it is open again", func() bool { return len(a.refused) > 0 && !a.refusing })
	if !s.expiry.begins(time.Now().UnixMilli()) {
		t.Error("a store that was opened again is not searched")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestBackupInUse: a backup has what was acknowledged before it, also where there is no log.
func TestBackupInUse(t *testing.T) {
	for _, d := range []Durability{Fsync, OS, None} {
		mem := dataDir(t)
		s, a := openWith(t, mem, d)
		for pos := range uint64(100) {
			s.Commit(0, entryBatch(1, pos, "text"))
		}
		a.until(t, "the commits", func() bool { return a.committed == 100 })
		if err := s.Backup("copy"); err != nil {
			t.Fatal(err)
		}
		c, err := OpenForTools(Config{Dir: "copy", FS: mem}, true)
		if err != nil {
			t.Fatal(err)
		}
		if f, err := c.Check(); err != nil || f.Records[KindName(record.KindEntry)] != 100 {
			t.Errorf("%v: the copy has %v, %v", d, f.Records, err)
		}
		if err := errors.Join(c.CloseTools(), s.Close()); err != nil {
			t.Error(err)
		}
	}
}

// TestReopenedWithoutLog: what durability none had in memory when the disk failed, or the store was found damaged, is counted, and a loss of which
// the shards are told and the next run knows.
func TestReopenedWithoutLog(t *testing.T) {
	for _, c := range []struct {
		durability Durability
		why        error
		lost       int64
		doubt      uint32
	}{
		{OS, writeError{syscall.EIO}, 0, 0},
		{None, writeError{syscall.EIO}, 100, 1},
		{OS, pebble.ErrCorruption, 0, 1},
		{None, pebble.ErrCorruption, 100, 1},
	} {
		mem := dataDir(t)
		s, a := openWith(t, mem, c.durability)
		for pos := range uint64(100) {
			s.Commit(0, entryBatch(1, pos, "text"))
			a.until(t, "a commit", func() bool { return a.committed == int(pos)+1 })
		}
		if _, writing := errors.AsType[writeError](c.why); writing {
			s.in.fail(c.why)
		} else {
			_ = s.suspect(s.in, c.why)
		}
		s.Commit(0, entryBatch(1, 100, "text"))
		a.until(t, "that it is open again", func() bool { return a.committed == 101 && !a.refusing })
		if stats := mustStats(t, s); stats.LostCommits != c.lost || count(t, s, record.KindEntry) != 101-int(c.lost) || s.Doubt() != c.doubt {
			t.Errorf("%v, %v: %d entries are there, doubt %d, the store says %+v", c.durability, c.why, count(t, s, record.KindEntry), s.Doubt(), stats)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if s, _ = openWith(t, mem, c.durability); s.Doubt() != c.doubt {
			t.Errorf("%v, %v: the next run has doubt %d", c.durability, c.why, s.Doubt())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestLostOnce: what durability none had in memory is counted once, however soon the store that was opened for it fails, and as one loss.
func TestLostOnce(t *testing.T) {
	s, a := openWith(t, dataDir(t), None)
	for n := range 10 {
		s.Commit(0, entryBatch(1, uint64(n), "text"))
		a.until(t, "a commit", func() bool { return a.committed == n+1 })
	}
	for failures := range 3 {
		in := s.instanceOf()
		in.fail(writeError{syscall.EIO})
		s.signal()
		a.until(t, "that it is open again", func() bool { return s.instanceOf() != in && !s.Health().Refusing })
		if stats := mustStats(t, s); stats.LostCommits != 10 || s.Doubt() != 1 {
			t.Errorf("after %d failures: %d commits are lost, doubt %d", failures+1, stats.LostCommits, s.Doubt())
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestLostWhileServing: what an instance that is opened again lacks of what was acknowledged is counted, whether it was in memory only or the disk does not
// have it any more, also where everything that is there can be read. What was delivered to its end since is not delivered again.
func TestLostWhileServing(t *testing.T) {
	for _, d := range []Durability{Fsync, None} {
		for _, why := range []error{writeError{syscall.EIO}, pebble.ErrCorruption} {
			mem := dataDir(t)
			s, a := openWith(t, mem, d)
			put := func(n int, ops []byte) {
				t.Helper()
				s.Commit(0, ops)
				a.until(t, "a commit", func() bool { return a.committed == n })
			}
			key := record.EntryKey(nil, 1, 5)
			put(1, record.AppendSet(twice(key), record.SessionKey(nil, 1), (&record.Session{ClientID: "c"}).Append(nil)))
			if err := s.in.do((*pebble.DB).Flush); err != nil {
				t.Fatal(err)
			}
			put(2, record.AppendSet(nil, record.SentKey(nil, 1), record.AppendNumber(nil, 5)))
			put(3, record.AppendDelete(nil, key)) // delivered to its end
			if d == Fsync {
				logs := files(t, mem, isLog)
				damaged := content(t, mem, logs[len(logs)-1])
				clear(damaged)
				f, err := mem.OpenReadWrite(logs[len(logs)-1], vfs.WriteCategoryUnspecified)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := f.WriteAt(damaged, 0); err != nil {
					t.Fatal(err)
				}
			}
			if _, writing := errors.AsType[writeError](why); writing {
				s.in.fail(why)
			} else {
				_ = s.suspect(s.in, why)
			}
			s.signal()
			a.until(t, "that it is open again", func() bool { return len(a.refused) > 0 && !a.refusing })
			err := readAll(s, record.KindEntry, func(_, value []byte) error {
				var e record.Entry
				if e.Decode(value) != nil || e.Flags&record.EntryReleased == 0 {
					t.Errorf("%v, %v: a message of QoS 2 is delivered again", d, why)
				}
				return nil
			})
			if stats := mustStats(t, s); err != nil || stats.LostCommits != 2 || stats.Doubted != 1 || s.Doubt() != 1 {
				t.Errorf("%v, %v: doubt %d, %+v, %v", d, why, s.Doubt(), stats, err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestNewerDatabase: a database in a newer form of Pebble's is refused, and not taken for damaged.
func TestNewerDatabase(t *testing.T) {
	mem := vfs.NewMem()
	fill(t, mem, true)
	marker := files(t, mem, func(n string) bool { return strings.HasPrefix(n, "marker.format-version") })[0]
	if err := mem.Rename(marker, marker[:len(marker)-3]+"999"); err != nil {
		t.Fatal(err)
	}
	before, _ := mem.List("data/db")
	_, err := Open(Config{Dir: "data", FS: mem})
	after, _ := mem.List("data/db")
	if err == nil || !strings.Contains(err.Error(), "999") || !strings.Contains(err.Error(), "run the newer ringmq") || len(after) != len(before) {
		t.Errorf("Open says %v; %d files, then %d", err, len(before), len(after))
	}
}

// TestDamagedFormat: FORMAT alone is damaged, or cannot be read. There is a database, so that is whose directory it is.
func TestDamagedFormat(t *testing.T) {
	for _, text := range []string{"ringmq stnre format 1\n", "ringmq store format 0\n", "unreadable"} {
		mem := vfs.NewMem()
		fill(t, mem, true)
		if err := writeFile(mem, "data/FORMAT", []byte(text)); err != nil {
			t.Fatal(err)
		}
		fsys := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if text == "unreadable" && op.Kind == errorfs.OpFileRead && op.Path == "data/FORMAT" {
				return syscall.EBADMSG
			}
			return nil
		}))
		s, err := Open(Config{Dir: "data", FS: fsys, Warn: func(text string) { t.Log(text) }})
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if n := count(t, s, record.KindEntry); n != damagedEntries-1 || string(content(t, mem, "data/FORMAT")) != "ringmq store format 1\n" {
			t.Errorf("%q: %d entries, then %q", text, n, content(t, mem, "data/FORMAT"))
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestErrorsOfFiles: what each error is taken for.
func TestErrorsOfFiles(t *testing.T) {
	for err, want := range map[error]bool{syscall.EIO: true, syscall.EBADMSG: true, syscall.ENOSPC: false, pebble.ErrCorruption: false, writeError{syscall.EIO}: false} {
		if err = fmt.Errorf("a table: %w", err); isUnread(err) != want {
			t.Errorf("%v is of a disk that cannot read: %v", err, !want)
		}
	}
	for err, want := range map[error]bool{syscall.EAGAIN: true, errors.New("lock held by current process"): true, syscall.ENOSPC: false, syscall.ENOLCK: false, syscall.EMFILE: false} {
		if isTaken(err) != want {
			t.Errorf("%v is of a lock that is taken: %v", err, !want)
		}
	}
	fence := newFence(vfs.NewMem(), "data/db", false, func(error) {})
	for name, want := range map[string]bool{"data/db": true, "data/db/000001.sst": true, "data/db-monday/000001.sst": false, "data/ballast": false} {
		if fence.inside(name) != want {
			t.Errorf("%s is in the database: %v", name, !want)
		}
	}
}

// stuckAnswers do not return from Refuse before they are let go.
type stuckAnswers struct {
	*asked
	told, free chan struct{}
}

func (a stuckAnswers) Refuse(broker.Refusal, string) {
	close(a.told)
	<-a.free
}

// TestHealthBesideTelling: who asks for the health does not wait for a log that is stuck.
func TestHealthBesideTelling(t *testing.T) {
	a := stuckAnswers{newAsked(), make(chan struct{}), make(chan struct{})}
	s := &Store{answers: a}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.troubled(failing, broker.RefuseMessages, "a reason")
	}()
	<-a.told
	if !s.refusal.mu.TryLock() {
		t.Error("the health cannot be read while the broker is told")
	} else {
		s.refusal.mu.Unlock()
		if h := s.Health(); !h.Refusing || h.Why != "a reason" {
			t.Errorf("%+v", h)
		}
	}
	close(a.free)
	<-done
}
