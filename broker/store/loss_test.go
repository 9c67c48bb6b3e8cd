package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ringmq/ringmq/broker/record"
)

// dataBlocks are the offsets of a table's data blocks.
func dataBlocks(t *testing.T, fsys vfs.FS, path string) (at []int64) {
	t.Helper()
	f, err := fsys.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		t.Fatal(err)
	}
	r, err := sstable.NewReader(context.Background(), readable, readerOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	l, err := r.Layout()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range l.Data {
		at = append(at, int64(b.Offset))
	}
	return at
}

// damageBlocks overwrites some data blocks of every table, counted from the first or, below zero, from the last.
func damageBlocks(t *testing.T, fsys vfs.FS, which ...int) {
	t.Helper()
	for _, path := range files(t, fsys, isTable) {
		blocks := dataBlocks(t, fsys, path)
		f, err := fsys.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range which {
			if n < 0 {
				n += len(blocks)
			}
			if _, err := f.WriteAt([]byte("damage"), blocks[n]+2); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// damageManifest makes Pebble's list of tables useless, and gives what mends it.
func damageManifest(t *testing.T, fsys vfs.FS) (mend func()) {
	t.Helper()
	whole := make(map[string][]byte)
	for _, path := range files(t, fsys, func(n string) bool { return strings.HasPrefix(n, "MANIFEST") }) {
		whole[path] = content(t, fsys, path)
		if err := writeFile(fsys, path, bytes.Repeat([]byte{0xa5}, 300)); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		for path, b := range whole {
			if err := writeFile(fsys, path, b); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestSalvageOfWhatWasSetAgain: a record that was deleted and set anew is a record, of whatever kind a table says that it is.
func TestSalvageOfWhatWasSetAgain(t *testing.T) {
	mem := vfs.NewMem()
	s, a := open(t, mem)
	key := record.SubscriptionKey(nil, 7, "", "a/b")
	s.Commit(0, record.AppendSet(nil, key, (&record.Subscription{QoS: 1}).Append(nil)))
	s.Commit(0, record.AppendDelete(nil, key))
	s.Commit(0, record.AppendSet(nil, key, (&record.Subscription{QoS: 2}).Append(nil)))
	a.until(t, "commits", func() bool { return a.committed == 3 })
	if err := s.in.do((*pebble.DB).Flush); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	damageManifest(t, mem)
	s, _ = open(t, mem)
	if n := count(t, s, record.KindSubscription); n != 1 || s.Doubt() != 1 {
		t.Errorf("%d subscriptions after the salvage, doubt %d", n, s.Doubt())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestSalvageOfWhatWasUsedUp: when nothing says which files are the database's, a table that a compaction has used up, or a log that waits to
// be used again, brings back what was delivered to its end. It is not delivered again, and what was never sent is not given up.
func TestSalvageOfWhatWasUsedUp(t *testing.T) {
	for _, kept := range []func(string) bool{isTable, isLog} {
		mem := vfs.NewMem()
		s, a := open(t, mem)
		n := 0
		put := func(ops []byte) {
			t.Helper()
			s.Commit(0, ops)
			n++
			a.until(t, "a commit", func() bool { return a.committed == n })
		}
		flush := func() {
			t.Helper()
			if err := s.in.do((*pebble.DB).Flush); err != nil {
				t.Fatal(err)
			}
		}
		for sid := range uint64(2) {
			put(record.AppendSet(twice(record.EntryKey(nil, 1+sid, 5)), record.SessionKey(nil, 1+sid), (&record.Session{ClientID: "c"}).Append(nil)))
		}
		put(record.AppendSet(nil, record.SentKey(nil, 1), record.AppendNumber(nil, 4)))
		left := make(map[string][]byte)
		if kept("1.sst") {
			flush()
		}
		for _, path := range files(t, mem, kept) {
			left[path] = content(t, mem, path)
		}
		put(record.AppendSet(nil, record.SentKey(nil, 1), record.AppendNumber(nil, 5)))
		put(record.AppendDelete(nil, record.EntryKey(nil, 1, 5))) // delivered to its end
		flush()
		if err := s.Compact(); err != nil {
			t.Fatal(err)
		}
		for sid := range uint64(5) { // the logs are used again
			put(record.AppendSet(nil, record.SubscriptionKey(nil, sid, "", "a"), (&record.Subscription{}).Append(nil)))
			flush()
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for path, b := range left {
			if err := writeFile(mem, path, b); err != nil {
				t.Fatal(err)
			}
		}
		damageManifest(t, mem)
		s, _ = open(t, mem)
		var states []string
		err := readAll(s, record.KindEntry, func(key, value []byte) error {
			var e record.Entry
			err := e.Decode(value)
			states = append(states, fmt.Sprintf("%d released %v", record.Number(key, 0), e.Flags&record.EntryReleased != 0))
			return err
		})
		if got := fmt.Sprint(states); err != nil || got != "[1 released true 2 released false]" || s.Doubt() != 1 || mustStats(t, s).Doubted != 1 {
			t.Errorf("entries %v, %v; doubt %d", got, err, s.Doubt())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestSalvageOfWhatIsOldest: of versions that compactions have given the same change number, 0, as nothing was older, the one in the younger table counts.
func TestSalvageOfWhatIsOldest(t *testing.T) {
	mem := vfs.NewMem()
	key := record.SubscriptionKey(nil, 7, "", "a/b")
	set := func(qos byte) []byte { return record.AppendSet(nil, key, (&record.Subscription{QoS: qos}).Append(nil)) }
	s, a := open(t, mem)
	merged := make(map[string][]byte)
	for n, ops := range [][]byte{set(0), set(1), set(2)} {
		s.Commit(0, ops)
		a.until(t, "a commit", func() bool { return a.committed == n+1 })
		if err := errors.Join(s.in.do((*pebble.DB).Flush), s.Compact()); err != nil {
			t.Fatal(err)
		}
		if tables := files(t, mem, isTable); n > 0 { // The first is moved as it is.
			merged[tables[len(tables)-1]] = content(t, mem, tables[len(tables)-1])
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range files(t, mem, func(name string) bool { return isTable(name) || isLog(name) }) {
		if err := mem.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for path, b := range merged {
		if err := writeFile(mem, path, b); err != nil {
			t.Fatal(err)
		}
	}
	damageManifest(t, mem)
	s, _ = open(t, mem)
	var got record.Subscription
	if err := readAll(s, record.KindSubscription, func(_, value []byte) error { return got.Decode(value) }); err != nil || got.QoS != 2 || s.Doubt() != 1 {
		t.Errorf("%v: of %d tables the subscription has QoS %d, doubt %d", err, len(merged), got.QoS, s.Doubt())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// twice is a delivery of QoS 2, with its message.
func twice(key []byte) []byte {
	e := record.Entry{Flags: 2}
	return record.AppendSet(nil, key, record.AppendMessage(e.AppendHead(nil), &record.Message{Topic: []byte("t"), Flags: 4}, 0))
}

// TestSalvageOfATableThatIsGone: what was in it nobody can count, but that something is lost is known, and what of QoS 2 it may have ended is not
// delivered again.
func TestSalvageOfATableThatIsGone(t *testing.T) {
	mem := vfs.NewMem()
	key := record.EntryKey(nil, 1, 5)
	sent := record.AppendSet(nil, record.SentKey(nil, 1), record.AppendNumber(nil, 5))
	tables := inTables(t, mem, record.AppendSet(twice(key), record.SessionKey(nil, 1), (&record.Session{ClientID: "c"}).Append(nil)),
		record.AppendDelete(sent, key), entryBatch(2, 1, "later"))
	if err := mem.Remove(tables[1]); err != nil {
		t.Fatal(err)
	}
	s, _ := open(t, mem)
	if stats := mustStats(t, s); stats.LostFiles != 1 || stats.Doubted != 1 || s.Doubt() != 1 {
		t.Errorf("doubt %d, %+v", s.Doubt(), stats)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// leavesOneOfEach has a store salvage what is left without a table: a message, its entry, and the reference between them.
func leavesOneOfEach(t *testing.T, mem *vfs.MemFS, table string) {
	t.Helper()
	if err := mem.Remove(table); err != nil {
		t.Fatal(err)
	}
	s, _ := open(t, mem)
	if err := s.Compact(); err != nil { // which removes what is garbage
		t.Fatal(err)
	}
	if refs, messages, list := count(t, s, record.KindReference), count(t, s, record.KindMessage), count(t, s, record.KindEntry); refs != 1 || messages != 1 || list != 1 {
		t.Errorf("%d references, %d messages and %d entries are there, 1 is expected of each", refs, messages, list)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestSalvageOfReferencesThatAreGone: an entry keeps its message all the same.
func TestSalvageOfReferencesThatAreGone(t *testing.T) {
	mem := vfs.NewMem()
	const mid = 1000
	reference := record.ReferenceKey(nil, mid, 1, 0)
	kept := record.AppendSet(nil, record.SessionKey(nil, 1), (&record.Session{ClientID: "c"}).Append(nil))
	kept = record.AppendSet(kept, record.MessageKey(nil, mid), record.AppendMessage(nil, &record.Message{Topic: []byte("t")}, 0))
	kept = record.AppendSet(kept, record.EntryKey(nil, 1, 0), (&record.Entry{Flags: 1, Mid: mid}).AppendHead(nil))
	tables := inTables(t, mem, kept, record.AppendSet(nil, reference, nil), record.AppendSet(nil, record.SentKey(nil, 1), record.AppendNumber(nil, 0)))
	leavesOneOfEach(t, mem, tables[1])
}

// TestSalvageOfEntriesThatAreGone: what their messages are kept for goes with them, and then the messages; another entry's stays.
func TestSalvageOfEntriesThatAreGone(t *testing.T) {
	mem := vfs.NewMem()
	parts := [2][]byte{record.AppendSet(nil, record.SessionKey(nil, 1), (&record.Session{ClientID: "c"}).Append(nil)), nil}
	for pos := range uint64(2) {
		mid := 1000 + pos
		parts[0] = record.AppendSet(parts[0], record.MessageKey(nil, mid), record.AppendMessage(nil, &record.Message{Topic: []byte("t")}, 0))
		parts[0] = record.AppendSet(parts[0], record.ReferenceKey(nil, mid, 1, pos), nil)
		parts[pos] = record.AppendSet(parts[pos], record.EntryKey(nil, 1, pos), (&record.Entry{Flags: 1, Mid: mid}).AppendHead(nil))
	}
	tables := inTables(t, mem, parts[0], parts[1], record.AppendSet(nil, record.SentKey(nil, 1), record.AppendNumber(nil, 0)))
	leavesOneOfEach(t, mem, tables[1])
}

// TestLossIsRemembered: that records were lost, as a disk loses them that lies, or in a salvage at the start or while the broker serves, is known to
// every run after it, as one loss. A salvage that has lost the time of the last commit blames nobody for commits.
func TestLossIsRemembered(t *testing.T) {
	for _, how := range []string{"lie", "salvage at the start", "salvage while serving"} {
		mem := vfs.NewMem()
		fill(t, mem, true)
		switch how {
		case "lie":
			p := progress{}
			p.file, _ = mem.Create("data/progress", vfs.WriteCategoryUnspecified)
			p.note(math.MaxInt32, 1)
		case "salvage at the start":
			damageBlocks(t, mem, -1)
		}
		for run := range 3 {
			s, a := open(t, mem)
			if how == "salvage while serving" && run == 0 {
				damageBlocks(t, mem, 1)
				s.Compact() // comes upon it
				a.until(t, "the salvage", func() bool { return s.counts.salvages.Load() == 1 && !a.refusing })
			}
			if lost := s.counts.lostCommits.Load(); s.Doubt() != 1 || (lost > 0) != (how == "lie" && run == 0) {
				t.Errorf("%s, run %d: doubt %d, %d commits lost", how, run, s.Doubt(), lost)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestNumbersAreNotUsedTwice: the number of the last run is known when its record is lost, from what that run has written.
func TestNumbersAreNotUsedTwice(t *testing.T) {
	for _, d := range []Durability{Fsync, None} {
		mem := dataDir(t)
		s, a := openWith(t, mem, d)
		first := record.FirstOf(s.Boot())
		for n := range uint64(1000) {
			s.Commit(0, entryBatch(1, first+n, strings.Repeat("y", 500)))
		}
		a.until(t, "commits", func() bool { return a.committed == 1000 })
		if err := s.in.do((*pebble.DB).Flush); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := mem.Remove("data/progress"); err != nil && d != None {
			t.Fatal(err)
		}
		damageBlocks(t, mem, 0)
		if s, _ = openWith(t, mem, d); s.Boot() != 2 {
			t.Errorf("%v: the second run has number %d", d, s.Boot())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestDamageIsAccepted: what was damaged since a broker last served is known until one serves again, however often somebody looks in between.
func TestDamageIsAccepted(t *testing.T) {
	mem := vfs.NewMem()
	fill(t, mem, true)
	damageManifest(t, mem)
	look := func(doubt, accepted uint32) *Store {
		t.Helper()
		s, err := Open(Config{Dir: "data", FS: mem, MemTableBytes: 64 << 10, CacheBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if s.Doubt() != doubt || s.Accepted() != accepted {
			t.Errorf("damaged %d times, accepted %d; want %d and %d", s.Doubt(), s.Accepted(), doubt, accepted)
		}
		return s
	}
	for range 2 {
		if err := look(1, 0).Close(); err != nil {
			t.Fatal(err)
		}
	}
	s, a := look(1, 0), newAsked()
	s.Start(a)
	s.Commit(0, entryBatch(1, damagedEntries+1, "served"))
	a.until(t, "a commit", func() bool { return a.committed == 1 })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := look(1, 1).Close(); err != nil {
		t.Error(err)
	}
}
