package store

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/ringmq/ringmq/broker/record"
)

// TestReclaim: the space of what was delivered comes back although nothing more is written, and what waits still is there.
func TestReclaim(t *testing.T) {
	fsys := vfs.NewMem()
	if err := fsys.MkdirAll("data", 0o700); err != nil {
		t.Fatal(err)
	}
	var idle atomic.Int64
	s, err := Open(Config{Dir: "data", FS: fsys, MemTableBytes: 8 << 20, CacheBytes: 1 << 20, Idle: func() { idle.Add(1) }}) // holds the deletions: nothing but the reaper has them flushed
	if err != nil {
		t.Fatal(err)
	}
	a := newAsked()
	s.Start(a)
	const messages = 20_000
	random := rand.New(rand.NewPCG(1, 2))
	var b []byte
	for pos := range uint64(messages) {
		text := make([]byte, 64)
		for i := range text {
			text[i] = byte(random.Uint32())
		}
		b = append(b, entryBatch(1+pos%2, pos, string(text))...)
	}
	b = record.AppendSet(b, record.SessionKey(nil, 1), (&record.Session{ClientID: "c"}).Append(nil))
	b = record.AppendSet(b, record.SessionKey(nil, 2), (&record.Session{ClientID: "d"}).Append(nil))
	s.Commit(0, b)
	a.until(t, "the messages", func() bool { return a.committed == 1 })
	if err := s.in.do(func(db *pebble.DB) error { return db.Flush() }); err != nil {
		t.Fatal(err)
	}
	before := tableBytes(t, s)
	if idle.Load() > 0 {
		t.Error("a store that works is idle")
	}
	b = nil
	for sid := uint64(1); sid <= 2; sid++ {
		for pos := uint64(0); pos < messages-100; pos++ {
			b = record.AppendDelete(b, record.EntryKey(nil, sid, pos))
		}
	}
	s.Commit(0, b)
	a.until(t, "the deletions", func() bool { return a.committed == 2 })
	for until := time.Now().Add(20 * time.Second); tableBytes(t, s) > before/10; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("tables of %d bytes take %d after nearly all in them was deleted", before, tableBytes(t, s))
		}
	}
	for until := time.Now().Add(20 * time.Second); idle.Load() == 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("nobody is told that the store is idle")
		}
	}
	if n := count(t, s, record.KindEntry); n != 100 {
		t.Errorf("%d entries are left; want 100", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func tableBytes(t *testing.T, s *Store) (size int64) {
	t.Helper()
	err := s.in.do(func(db *pebble.DB) error {
		m := db.Metrics()
		for i := range m.Levels {
			size += m.Levels[i].TablesSize
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return size
}

// TestReclaimWaitsForRest: a disk that is at work is left alone.
func TestReclaimWaitsForRest(t *testing.T) {
	var r reclaim
	commits := int64(0)
	for round, c := range []struct {
		commits int64
		idle    bool
	}{{0, false}, {1, false}, {8, false}, {0, false}, {0, true}, {9, false}, {0, false}, {0, false}, {0, false}, {0, false}, {0, true}} {
		commits += c.commits
		if got := r.isIdle(commits); got != c.idle {
			t.Errorf("round %d: idle %v", round, got)
		}
	}
}

// TestReclaimAgain: a pass that the disk did not let go on is made again, although nothing more is deleted.
func TestReclaimAgain(t *testing.T) {
	mem := vfs.NewMem()
	const messages = 2 * reclaimMin
	var b []byte
	for pos := range uint64(messages) {
		b = append(b, entryBatch(1, pos, "text")...)
	}
	b = record.AppendSet(b, record.SessionKey(nil, 1), (&record.Session{ClientID: "c", Expiry: 1 << 31}).Append(nil))
	u := &unreadable{table: inTables(t, mem, b)[0], to: 1000, over: 1} // whether a pass is worth while is read from the end
	s, a := openWith(t, errorfs.Wrap(mem, u), Fsync)
	// So little stays in memory: Pebble does not come first. Half is left, or it would drop the table unread.
	s.Commit(0, record.AppendDeleteRange(nil, record.EntryKey(nil, 1, 0), record.EntryKey(nil, 1, messages/2)))
	a.until(t, "the deletions", func() bool { return a.committed == 1 })
	for _, fails := range []bool{true, false} {
		u.on.Store(fails)
		s.reclaim.idle, s.reclaim.commits = reclaimRounds, s.counts.commits.Load()
		s.reclaimOnce()
		a.until(t, "a store that works", func() bool { return len(a.refused) > 0 && !a.refusing })
		if n := s.reclaim.deleted.Load(); (n >= messages/2) != fails || u.failed.Load() == 0 {
			t.Errorf("fails %v: %d deleted records are to be found; %d reads failed", fails, n, u.failed.Load())
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
