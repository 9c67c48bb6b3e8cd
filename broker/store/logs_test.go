package store

import (
	"bytes"
	"errors"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	walrecord "github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/ringmq/ringmq/broker/record"
)

// severalLogs is a store that has deliveries of QoS 2, a commit each, in several logs, and none of them in a table before what it waits for is free. It says how
// many are in each.
func severalLogs(t *testing.T, fails errorfs.Injector) (s *Store, a *asked, mem *vfs.MemFS, free chan struct{}, logs []string, commits []int) {
	t.Helper()
	mem = dataDir(t)
	fill(t, mem, true)
	slow := &slowTables{FS: errorfs.Wrap(mem, fails), asked: make(chan struct{}), free: make(chan struct{})}
	s, a = openWith(t, slow, OS)
	slow.on.Store(true)
	message := record.AppendMessage(nil, &record.Message{Topic: []byte("t"), Flags: 4}, 1000, make([]byte, 1000))
	for n := 0; n == 0 || len(files(t, mem, isLog)) < 3; n++ {
		s.Commit(0, record.AppendSet(nil, record.EntryKey(nil, 2, uint64(n)), append((&record.Entry{Flags: 2}).AppendHead(nil), message...)))
		a.until(t, "a commit", func() bool { return a.committed == n+1 })
	}
	logs = files(t, mem, isLog)
	for _, path := range logs {
		n := 0
		readLogOf(t, mem, path, func([]byte, int64) { n++ })
		commits = append(commits, n)
	}
	commits[0]-- // where the run begins
	return s, a, mem, slow.free, logs, commits
}

func copyOf(t *testing.T, mem *vfs.MemFS) *vfs.MemFS {
	t.Helper()
	to := vfs.NewMem()
	if _, err := vfs.Clone(mem, to, "data", "data"); err != nil {
		t.Fatal(err)
	}
	return to
}

// readLogOf gives each batch of a log to f, and where it ends.
func readLogOf(t *testing.T, fsys vfs.FS, path string, f func(repr []byte, end int64)) {
	t.Helper()
	log := openLog(walrecord.NewReader, bytes.NewReader(content(t, fsys, path)), fileNumber(filepath.Base(path)))
	if _, err := eachBatch(log, func(repr []byte) error { f(repr, log.Offset()); return nil }); err != nil {
		t.Fatal(err)
	}
}

// cutLog leaves so many batches of a log.
func cutLog(t *testing.T, mem *vfs.MemFS, path string, left int) error {
	t.Helper()
	b, at, n := content(t, mem, path), int64(0), 0
	readLogOf(t, mem, path, func(_ []byte, end int64) {
		if n++; n == left {
			at = end
		}
	})
	return writeFile(mem, path, b[:at])
}

// TestLogsThatLackCommits takes from logs what Pebble does not miss: all or the end of one that is not the last. What is gone is counted, to the commit, also when the
// first that opens the store then does no more than that; what of QoS 2 is left is not delivered again; and the run after it knows of one loss.
func TestLogsThatLackCommits(t *testing.T) {
	s, _, mem, free, logs, commits := severalLogs(t, new(unwrittenLog))
	disk := copyOf(t, mem)
	close(free)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	cut := func(log, left int) func(*vfs.MemFS) error {
		return func(mem *vfs.MemFS) error { return cutLog(t, mem, logs[log], left) }
	}
	remove := func(log int) func(*vfs.MemFS) error {
		return func(mem *vfs.MemFS) error { return mem.Remove(logs[log]) }
	}
	for _, c := range []struct {
		what string
		do   func(*vfs.MemFS) error
		lost int
	}{
		{"nothing", func(*vfs.MemFS) error { return nil }, 0},
		{"the end of the first", cut(0, 101), commits[0] - 100},
		{"all of the first", cut(0, 0), commits[0]},
		{"the first", remove(0), commits[0]},
		{"the end of the second", cut(1, 100), commits[1] - 100},
		{"the second", remove(1), commits[1]},
		{"the last", remove(2), commits[2]}, // which progress tells
	} {
		for _, opened := range []bool{false, true} {
			mem := copyOf(t, disk)
			if err := c.do(mem); err != nil {
				t.Fatal(err)
			}
			if opened {
				tools, err := OpenForTools(Config{Dir: "data", FS: mem, MemTableBytes: 64 << 10, CacheBytes: 1 << 20}, false)
				if err != nil {
					t.Fatal(err)
				}
				if err := tools.CloseTools(); err != nil {
					t.Fatal(err)
				}
			}
			for run := range 2 {
				s, _ := openWith(t, mem, OS)
				stats, lost, doubt, doubted := mustStats(t, s), 0, uint32(0), 0
				if c.lost > 0 {
					doubt = 1
				}
				if run == 0 && c.lost > 0 {
					lost, doubted = c.lost, commits[0]+commits[1]+commits[2]-c.lost
				}
				if int(stats.LostCommits) != lost || s.Doubt() != doubt || int(stats.Doubted) != doubted || stats.Salvages != 0 {
					t.Errorf("%s is gone, opened before %v, run %d: %d commits are gone and not %d, doubt %d, %d given up and not %d, %d salvages", c.what, opened, run,
						stats.LostCommits, lost, s.Doubt(), stats.Doubted, doubted, stats.Salvages)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// TestLogsThatLackCommitsWhileServing has a store that has failed find, when it is opened again, that a log lacks its end; also when it fails once more then, with what
// was missing in no log any more, and not settled. The number of the next commit is a new one, and the run after it knows of one loss.
func TestLogsThatLackCommitsWhileServing(t *testing.T) {
	for _, again := range []bool{false, true} {
		var u unwrittenLog
		s, a, mem, free, logs, commits := severalLogs(t, &u)
		if err := cutLog(t, mem, logs[1], 100); err != nil {
			t.Fatal(err)
		}
		lost, done := int64(commits[1]-100), commits[0]+commits[1]+commits[2]
		if again {
			u.from.Store(&logs[2])
		}
		s.in.fail(errors.New("the disk has failed"))
		close(free)
		s.Commit(0, entryBatch(1, damagedEntries+1, "behind"))
		a.until(t, "the commit behind the failure", func() bool { return a.committed == done+1 })
		if stats := mustStats(t, s); u.failed.Load() != again || stats.LostCommits != lost || s.Doubt() != 1 || stats.Doubted != int64(done)-lost && !again {
			t.Errorf("failed again %v: %d commits are gone and not %d, doubt %d, %d given up", u.failed.Load(), stats.LostCommits, lost, s.Doubt(), stats.Doubted)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s, _ = openWith(t, mem, OS)
		if stats := mustStats(t, s); stats.LostCommits != 0 || s.Doubt() != 1 {
			t.Errorf("the next run: %d commits are gone, doubt %d", stats.LostCommits, s.Doubt())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// unreadLog fails one read of a log, behind its first.
type unreadLog struct {
	log   string // its path
	reads int
}

// MaybeError is part of errorfs.Injector.
func (u *unreadLog) MaybeError(op errorfs.Op) error {
	if (op.Kind == errorfs.OpFileRead || op.Kind == errorfs.OpFileReadAt) && op.Path == u.log {
		if u.reads++; u.reads == 2 {
			return syscall.EIO
		}
	}
	return nil
}

// String is part of errorfs.Injector.
func (*unreadLog) String() string { return "unread log" }

// TestLogThatIsNotReadAtOnce has the disk not read a log once while the store looks for what logs lack: they lack nothing.
func TestLogThatIsNotReadAtOnce(t *testing.T) {
	s, _, mem, free, logs, _ := severalLogs(t, new(unwrittenLog))
	disk := copyOf(t, mem)
	close(free)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	u := &unreadLog{log: logs[0]}
	s, _ = openWith(t, errorfs.Wrap(disk, u), OS)
	if stats := mustStats(t, s); u.reads < 2 || stats.LostCommits != 0 || s.Doubt() != 0 || stats.Doubted != 0 {
		t.Errorf("%d reads of the log, %d commits are gone, doubt %d, %d given up", u.reads, stats.LostCommits, s.Doubt(), stats.Doubted)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestDamagedLogOfSeveral damages the middle of a log that is not the last: what a salvage does not bring is counted once.
func TestDamagedLogOfSeveral(t *testing.T) {
	s, _, mem, free, logs, commits := severalLogs(t, new(unwrittenLog))
	disk := copyOf(t, mem)
	close(free)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b := content(t, disk, logs[0])
	copy(b[len(b)/2:], "damage")
	if err := writeFile(disk, logs[0], b); err != nil {
		t.Fatal(err)
	}
	s, _ = openWith(t, disk, OS)
	from, to := record.Bounds(record.KindEntry, 2)
	left := int64(0)
	err := s.in.do(func(db *pebble.DB) error {
		return each(db, from, to, func([]byte, []byte) error { left++; return nil })
	})
	lost := int64(commits[0]+commits[1]+commits[2]) - left
	if stats := mustStats(t, s); err != nil || lost == 0 || stats.LostCommits != lost || stats.Salvages != 1 {
		t.Errorf("%d commits are gone and not %d, %d salvages, %v", stats.LostCommits, lost, stats.Salvages, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// unwrittenLog fails the first write of a log that is made from some time on, or none.
type unwrittenLog struct {
	from   atomic.Pointer[string] // the last one before it
	failed atomic.Bool
}

// MaybeError is part of errorfs.Injector.
func (u *unwrittenLog) MaybeError(op errorfs.Op) error {
	if from := u.from.Load(); from != nil && op.Kind == errorfs.OpFileWrite && isLog(op.Path) && op.Path > *from && u.failed.CompareAndSwap(false, true) {
		return syscall.EIO
	}
	return nil
}

// String is part of errorfs.Injector.
func (*unwrittenLog) String() string { return "unwritten log" }

// TestPayloadLikeACommit salvages a store that has a message which ends like a commit. It is none, where the salvage has put it in its place.
func TestPayloadLikeACommit(t *testing.T) {
	mem := dataDir(t)
	fill(t, mem, true)
	s, a := open(t, mem)
	like := string(append([]byte{1, 1, byte(record.KindTime), timeBytes}, bytes.Repeat([]byte{3}, timeBytes)...))
	s.Commit(0, entryBatch(1, damagedEntries+1, like))
	a.until(t, "a commit", func() bool { return a.committed == 1 })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	damageBlocks(t, mem, 0)
	for range 2 {
		s, _ = openWith(t, mem, OS)
		if stats := mustStats(t, s); stats.LostCommits != 0 {
			t.Errorf("%d commits are gone", stats.LostCommits)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
