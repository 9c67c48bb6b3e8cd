package store

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/goleak"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/record"
)

// asked collects what a store answers.
type asked struct {
	mu        sync.Mutex
	committed int
	loaded    []broker.Loaded
	refusing  bool
	refused   []broker.Refusal // every change
	connected atomic.Int64
	changed   chan struct{}
}

func newAsked() *asked { return &asked{changed: make(chan struct{}, 1)} }

func (a *asked) Committed(int, []byte) { a.note(func() { a.committed++ }) }

func (a *asked) Loaded(l broker.Loaded) { a.note(func() { a.loaded = append(a.loaded, l) }) }

func (a *asked) Refuse(r broker.Refusal, _ string) {
	a.note(func() { a.refusing, a.refused = r != broker.RefuseNothing, append(a.refused, r) })
}

func (a *asked) Connected() int64 { return a.connected.Load() }

func (a *asked) note(f func()) {
	a.mu.Lock()
	f()
	a.mu.Unlock()
	select {
	case a.changed <- struct{}{}:
	default: // Whoever looks will see this, too.
	}
}

// until waits for a condition to come true.
func (a *asked) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		a.mu.Lock()
		done := ok()
		a.mu.Unlock()
		if done {
			return
		}
		select {
		case <-a.changed:
		case <-timeout:
			t.Fatal("no answer: ", what)
		}
	}
}

func open(t *testing.T, fsys vfs.FS) (*Store, *asked) {
	t.Helper()
	err := fsys.MkdirAll("data", 0o700)
	if fsys != vfs.Default { // where it is relative to the working directory
		err = errors.Join(err, syncDir(fsys, ""))
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(Config{Dir: "data", FS: fsys, MemTableBytes: 256 << 10, CacheBytes: 1 << 20, Warn: func(text string) { t.Log(text) }})
	if err != nil {
		t.Fatal(err)
	}
	a := newAsked()
	s.Start(a)
	return s, a
}

// TestMain finds leaked goroutines, flushes and commits of abandoned instances included; what Pebble leaves behind when it cannot
// open a store is not ours.
func TestMain(m *testing.M) {
	const pebble = "github.com/cockroachdb/pebble/v2"
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(pebble+"/record.(*LogWriter).flushLoop"),
		goleak.IgnoreAnyFunction(pebble+".(*cleanupManager).mainLoop"),
		goleak.IgnoreAnyFunction(pebble+".(*ConcurrencyLimitScheduler).periodicGranter"),
		goleak.IgnoreAnyFunction(pebble+"/internal/genericcache.(*shard[...]).releaseLoop"))
}

func entryBatch(sid, pos uint64, text string) []byte {
	e := record.Entry{Flags: 1}
	m := record.Message{Topic: []byte("t")}
	value := record.AppendMessage(e.AppendHead(nil), &m, len(text), []byte(text))
	return record.AppendSet(nil, record.EntryKey(nil, sid, pos), value)
}

// expiringBatch is entryBatch of an empty message that expires.
func expiringBatch(sid, pos uint64, at int64) []byte {
	e := record.Entry{Flags: 1}
	value := record.AppendMessage(e.AppendHead(nil), &record.Message{Topic: []byte("t"), Expires: at}, 0)
	return record.AppendSet(nil, record.EntryKey(nil, sid, pos), value)
}

func TestCommitAndLoad(t *testing.T) {
	s, a := open(t, vfs.NewMem())
	for pos := range uint64(100) {
		s.Commit(0, entryBatch(1, pos, fmt.Sprint("m", pos)))
	}
	s.Load(broker.Load{SID: 1, From: 10, To: 98, Entries: 5, Bytes: 1 << 20})
	s.Load(broker.Load{SID: 1, From: 95, To: 98, Entries: 5, Bytes: 1 << 20})
	s.Load(broker.Load{SID: 1, From: 20, To: 98, Entries: 50, Bytes: 1})
	a.until(t, "loads", func() bool { return len(a.loaded) == 3 && a.committed == 100 })
	for _, l := range a.loaded {
		switch l.From {
		case 10:
			if len(l.Entries) != 5 || l.Done || l.Entries[4].Pos != 14 {
				t.Errorf("%+v", l)
			}
		case 95:
			if len(l.Entries) != 4 || !l.Done {
				t.Errorf("%+v", l)
			}
		case 20:
			if len(l.Entries) != 1 || l.Done {
				t.Errorf("%+v", l)
			}
		}
	}
	s.Commit(0, entryBatch(1, 1<<41, "of a later run"))
	s.Load(broker.Load{SID: 1, From: 0, To: math.MaxUint64, Entries: 500, Bytes: 1 << 20})
	a.until(t, "a load of all", func() bool { return len(a.loaded) == 4 })
	if l := a.loaded[3]; len(l.Entries) != 101 || l.Entries[99].Pos != 99 || l.Entries[100].Pos != 1<<41 || !l.Done {
		t.Errorf("all: %d entries, done: %v", len(l.Entries), l.Done)
	}
	s.Load(broker.Load{SID: 1, From: 10, To: 98, Entries: 5, Bytes: 1 << 20}) // A round without a batch is no commit.
	a.until(t, "one more load", func() bool { return len(a.loaded) == 5 })
	if stats := mustStats(t, s); stats.Wait.Count != 101 || stats.Commit.Count != stats.Commits || stats.Sync.Count < stats.Commits {
		t.Errorf("101 batches: %d have waited, %d commits are timed of %d, %d of the log's fsyncs", stats.Wait.Count, stats.Commit.Count, stats.Commits, stats.Sync.Count)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestPowerCut ends the world at a random moment: what was answered is there, and numbers begin anew.
func TestPowerCut(t *testing.T) {
	for seed := range uint64(8) {
		mem := vfs.NewCrashableMem()
		s, a := open(t, mem)
		for pos := range uint64(50) {
			s.Commit(int(pos%3), entryBatch(1, pos, strings.Repeat("x", int(pos)*10)))
		}
		a.until(t, "some commits", func() bool { return a.committed > 2*int(seed) })
		a.mu.Lock()
		crashed := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(seed, 1))})
		n := a.committed
		a.mu.Unlock()
		boot := s.Boot()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s2, _ := open(t, crashed)
		found := 0
		if err := readAll(s2, record.KindEntry, func(key, _ []byte) error {
			if record.Number(key, 1) != uint64(found) {
				return errors.New("a batch is missing between others")
			}
			found++
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if found < n || s2.Boot() != boot+1 {
			t.Errorf("seed %d: %d of %d answered batches are there, boot %d", seed, found, n, s2.Boot())
		}
		if err := s2.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFailingDisk has every write fail for a while: nothing is answered, new messages are refused, and afterwards all is well.
func TestFailingDisk(t *testing.T) {
	for _, what := range []errorfs.OpKind{errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileWrite} {
		broken := errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == what || what == errorfs.OpFileSync && op.Kind == errorfs.OpFileSyncData {
				return errorfs.ErrInjected
			}
			return nil
		})}
		mem := vfs.NewCrashableMem()
		s, a := open(t, errorfs.Wrap(mem, &broken))
		s.Commit(0, entryBatch(1, 1, "before"))
		a.until(t, "the first commit", func() bool { return a.committed == 1 })
		broken.On()
		s.Commit(0, entryBatch(1, 2, "meanwhile"))
		a.until(t, "refusal", func() bool { return a.refusing })
		if a.committed != 1 {
			t.Error("answered although the disk fails")
		}
		if stats := mustStats(t, s); !stats.Refusing || stats.Why == "" || stats.Failures == 0 {
			t.Errorf("while the disk fails the store says %+v", stats)
		}
		time.Sleep(2 * reopenEvery)
		broken.Off()
		a.until(t, "recovery", func() bool { return a.committed == 2 && !a.refusing })
		s.Load(broker.Load{SID: 1, From: 0, To: 9, Entries: 9, Bytes: 1 << 20})
		a.until(t, "a load", func() bool { return len(a.loaded) == 1 })
		if len(a.loaded[0].Entries) != 2 {
			t.Errorf("%+v", a.loaded[0])
		}
		crashed := mem.CrashClone(vfs.CrashCloneCfg{})
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		s2, _ := open(t, crashed)
		n := 0
		_ = readAll(s2, record.KindEntry, func([]byte, []byte) error { n++; return nil })
		if n != 2 {
			t.Errorf("%d of 2 entries survive a power cut", n)
		}
		_ = s2.Close()
	}
}

// TestBeat leaves a store alone: while clients are connected it notes the time, and otherwise it does not.
func TestBeat(t *testing.T) {
	mem := vfs.NewCrashableMem()
	if err := errors.Join(mem.MkdirAll("data", 0o700), syncDir(mem, "")); err != nil {
		t.Fatal(err)
	}
	s, err := Open(Config{Dir: "data", FS: mem, MemTableBytes: 256 << 10, CacheBytes: 1 << 20, beatEvery: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	a := newAsked()
	s.Start(a)
	noted := func() int64 {
		s2, _ := open(t, mem.CrashClone(vfs.CrashCloneCfg{}))
		defer s2.Close()
		return s2.LastCommit()
	}
	time.Sleep(3 * spaceEvery)
	if at := noted(); at != 0 {
		t.Errorf("noted %d although nobody is connected", at)
	}
	start := time.Now().UnixMilli()
	a.connected.Store(1)
	for deadline := time.Now().Add(10 * time.Second); noted() < start; time.Sleep(spaceEvery) {
		if time.Now().After(deadline) {
			t.Fatal("the time is not noted although a client is connected")
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if a.committed != 0 {
		t.Errorf("%d answers that nobody asked for", a.committed)
	}
}

func TestReaper(t *testing.T) {
	s, a := open(t, vfs.NewMem())
	b := record.AppendSet(nil, record.MessageKey(nil, 5), record.AppendMessage(nil, &record.Message{Topic: []byte("t")}, 0))
	for _, sid := range []uint64{1, 2} {
		e := record.Entry{Flags: 1, Mid: 5}
		b = record.AppendSet(b, record.EntryKey(nil, sid, 1), e.AppendHead(nil))
		b = record.AppendSet(b, record.ReferenceKey(nil, 5, sid, 1), nil)
		b = record.AppendSet(b, record.SessionKey(nil, sid), (&record.Session{ClientID: "c"}).Append(nil))
	}
	b = record.AppendSet(b, record.ReceivedKey(nil, 2, 7), nil)
	s.Commit(0, b)
	s.Commit(0, record.AppendDelete(record.AppendDelete(nil, record.EntryKey(nil, 1, 1)), record.ReferenceKey(nil, 5, 1, 1)))
	a.until(t, "commits", func() bool { return a.committed == 2 })
	s.reapOnce(0)
	if count(t, s, record.KindMessage) != 1 {
		t.Error("a message that is needed is gone")
	}
	s.Commit(0, record.AppendSet(record.AppendDelete(nil, record.SessionKey(nil, 2)), record.EndedKey(nil, 2), nil))
	a.until(t, "commits", func() bool { return a.committed == 3 })
	s.reapOnce(0)
	s.reapOnce(0)
	for _, k := range []record.Kind{record.KindMessage, record.KindReference, record.KindEntry, record.KindReceived, record.KindEnded} {
		if n := count(t, s, k); n != 0 {
			t.Errorf("%d records %c are left", n, k)
		}
	}
	_ = s.Close()
}

// TestReaperIsBounded: the reaper notes so many messages and no more, however many there are and whatever they lose, and finds garbage among all of them; so does
// compacting.
func TestReaperIsBounded(t *testing.T) {
	mem := dataDir(t)
	s, err := Open(Config{Dir: "data", FS: mem}) // and no reaper beside
	if err != nil {
		t.Fatal(err)
	}
	const messages = searchPart + 10
	value := record.AppendMessage(nil, &record.Message{Topic: []byte("t")}, 0)
	garbage := func() {
		var b []byte
		for mid := uint64(1); mid <= messages; mid++ {
			b = record.AppendSet(b, record.MessageKey(nil, mid), value)
		}
		if err := s.commit([]request{{ops: record.AppendSet(b, record.ReferenceKey(nil, messages, 1, 1), nil)}}); err != nil {
			t.Fatal(err)
		}
	}
	garbage()
	s.reaper.dropped(slices.Repeat([]uint64{1}, 2*droppedMax)...)
	if s.reaper.missed {
		t.Error("one message fills the list")
	}
	for mid := range uint64(droppedMax) {
		s.reaper.dropped(1<<40 + mid) // which are gone already
	}
	s.reaper.swept = true
	s.reaper.dropped(messages - 1)
	if n := len(s.reaper.mids); n != droppedMax {
		t.Errorf("%d messages are noted; the bound is %d", n, droppedMax)
	}
	s.reapOnce(0)
	if n := count(t, s, record.KindMessage); n != messages-1-searchPart {
		t.Errorf("after a part of the search %d messages are left", n)
	}
	s.reapOnce(0)
	if n := count(t, s, record.KindMessage); n != 1 {
		t.Errorf("after the search %d messages are left; one is needed", n)
	}
	garbage()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	tool, err := OpenForTools(Config{Dir: "data", FS: mem}, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := tool.Compact(); err != nil {
		t.Error(err)
	}
	if n := count(t, tool, record.KindMessage); n != 1 || tool.reaper.mids != nil {
		t.Errorf("after compacting %d messages are left; one is needed", n)
	}
	if err := tool.CloseTools(); err != nil {
		t.Error(err)
	}
}

// TestCheckFindsLostCommits: a store whose log is gone has nothing that is damaged, and is not good.
func TestCheckFindsLostCommits(t *testing.T) {
	mem := dataDir(t)
	s, a := openWith(t, mem, Fsync)
	for pos := range uint64(3) {
		s.Commit(0, entryBatch(1, pos, ""))
	}
	a.until(t, "the commits", func() bool { return a.committed == 3 })
	made := int(s.commits)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check := func() []string {
		t.Helper()
		tool, err := OpenForTools(Config{Dir: "data", FS: mem}, true)
		if err != nil {
			t.Fatal(err)
		}
		found, err := tool.Check()
		if err = errors.Join(err, tool.CloseTools()); err != nil {
			t.Fatal(err)
		}
		return found.Problems
	}
	if problems := check(); len(problems) > 0 {
		t.Errorf("a store that lacks nothing: %v", problems)
	}
	names, err := mem.List("data/db")
	for _, name := range names {
		if strings.HasSuffix(name, ".log") {
			err = errors.Join(err, mem.Remove("data/db/"+name))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if problems := check(); len(problems) != 1 || !strings.HasPrefix(problems[0], fmt.Sprint(made, " commits")) {
		t.Errorf("a store that lacks %d commits: %v", made, problems)
	}
}

// TestEndBesideSession: a salvage that has lost how a Session ended, and not that it did, brings it back. What it has from then on is not removed as what an
// ended one has left.
func TestEndBesideSession(t *testing.T) {
	s, a := openWith(t, dataDir(t), Fsync)
	b := record.AppendSet(entryBatch(1, 1, ""), record.SessionKey(nil, 1), (&record.Session{ClientID: "c"}).Append(nil))
	s.Commit(0, record.AppendSet(b, record.EndedKey(nil, 1), nil))
	a.until(t, "the commit", func() bool { return a.committed == 1 })
	s.reaper.sids = nil // this run knows nothing of the end
	s.reapOnce(0)
	s.reapOnce(0)
	if n := count(t, s, record.KindEntry); n != 1 {
		t.Errorf("%d entries are left", n)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestSweptSession: the sweep finds queues without Sessions. One whose Session is written anew before it is removed stays, with all that belongs to it.
// A tool removes what it finds itself.
func TestSweptSession(t *testing.T) {
	mem := dataDir(t)
	s, a := openWith(t, mem, Fsync)
	var b []byte
	for pos := range uint64(reapChunk + 10) {
		b = append(append(b, entryBatch(1, pos, "")...), entryBatch(2, pos, "")...)
	}
	b = record.AppendSet(record.AppendSet(b, record.ReceivedKey(nil, 1, 7), nil), record.ReceivedKey(nil, 2, 7), nil)
	s.Commit(0, b)
	a.until(t, "the queues", func() bool { return a.committed == 1 })
	s.reapOnce(time.Hour)
	s.Commit(0, record.AppendSet(nil, record.SessionKey(nil, 1), (&record.Session{ClientID: "c"}).Append(nil)))
	s.reapOnce(0)
	for n := 2; n < 6; n++ { // each behind what is asked of the writer
		s.Commit(0, record.AppendDelete(nil, record.SentKey(nil, 9)))
		a.until(t, "a commit", func() bool { return a.committed > n })
	}
	left := make(map[uint64]int)
	for _, k := range []record.Kind{record.KindEntry, record.KindReceived} {
		if err := readAll(s, k, func(key, _ []byte) error { left[record.Number(key, 0)]++; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if left[1] != reapChunk+11 || left[2] != 0 {
		t.Errorf("records that are left, by Session: %v", left)
	}
	s.Commit(0, entryBatch(3, 1, ""))
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	tool, err := OpenForTools(Config{Dir: "data", FS: mem}, false)
	if err != nil {
		t.Fatal(err)
	}
	err = tool.Compact()
	if n := count(t, tool, record.KindEntry); err != nil || n != reapChunk+10 {
		t.Errorf("after a compaction %d entries are there, %v", n, err)
	}
	if err := tool.CloseTools(); err != nil {
		t.Error(err)
	}
}

// TestExpiry: what expires in the queue of somebody who is away is removed, with the message that it shared; what was sent once, what does not
// expire and what has time left stays, and so does the release of what an earlier run may have sent, which is position 2. So it is in tables.
func TestExpiry(t *testing.T) {
	for _, flush := range []bool{false, true} {
		testExpiry(t, flush)
	}
}

func testExpiry(t *testing.T, flush bool) {
	s, a := open(t, vfs.NewMem())
	past, future := time.Now().Add(-time.Minute).UnixMilli(), time.Now().Add(time.Hour).UnixMilli()
	b := record.AppendSet(nil, record.MessageKey(nil, 9), record.AppendMessage(nil, &record.Message{Topic: []byte("t"), Expires: past}, 0))
	for pos, e := range []record.Entry{{Flags: 1, Message: record.Message{Expires: past}}, {Flags: 1, Message: record.Message{Expires: past}}, {Flags: 2, Mid: 9},
		{Flags: 1, Message: record.Message{Expires: future}}, {Flags: 1}, {Flags: 2 | record.EntrySent, Message: record.Message{Expires: past}},
		{Flags: 2 | record.EntryReleased}} {
		value := e.AppendHead(nil)
		if e.Mid == 0 && e.Flags&record.EntryReleased == 0 {
			value = record.AppendMessage(value, &e.Message, 0)
		}
		b = record.AppendSet(b, record.EntryKey(nil, 1, uint64(pos)), value)
	}
	b = record.AppendSet(b, record.ReferenceKey(nil, 9, 1, 2), nil)
	b = record.AppendSet(b, record.SessionKey(nil, 1), (&record.Session{ClientID: "c"}).Append(nil))
	b = record.AppendSet(b, record.SentKey(nil, 1), record.AppendNumber(nil, 0)) // position 0 was sent
	s.Commit(0, b)
	a.until(t, "the commit", func() bool { return a.committed == 1 })
	if flush {
		if err := s.in.do((*pebble.DB).Flush); err != nil {
			t.Fatal(err)
		}
	}
	for until := time.Now().Add(20 * time.Second); count(t, s, record.KindMessage) > 0 && time.Now().Before(until); {
		time.Sleep(10 * time.Millisecond) // the reaper looks once a second
	}
	list, err := entries(s)
	if got := fmt.Sprint(list); got != "[0 2 3 4 5 6]" || err != nil {
		t.Errorf("positions %s are left, %v", got, err)
	}
	if n := count(t, s, record.KindReference) + count(t, s, record.KindMessage); n != 0 || mustStats(t, s).Expired != 2 {
		t.Errorf("%d records of the shared message are left, %+v", n, mustStats(t, s))
	}
	_ = s.Close()
}

// TestExpirySearchIsBounded: of a queue of large messages, in its entries and shared, only so much is read at a time, and all of it in the end.
func TestExpirySearchIsBounded(t *testing.T) {
	s, a := open(t, vfs.NewMem())
	const each, n = 1 << 20, 24
	large := record.AppendMessage(nil, &record.Message{Topic: []byte("t")}, each, make([]byte, each))
	var b []byte
	for pos := range uint64(n) {
		e := record.Entry{Flags: 1}
		if pos%2 > 0 {
			e.Mid = pos
			b = record.AppendSet(b, record.MessageKey(nil, pos), large)
			b = record.AppendSet(b, record.EntryKey(nil, 1, pos), e.AppendHead(nil))
		} else {
			b = record.AppendSet(b, record.EntryKey(nil, 1, pos), append(e.AppendHead(nil), large...))
		}
	}
	e := record.Entry{Flags: 1}
	b = record.AppendSet(b, record.EntryKey(nil, 1, n), record.AppendMessage(e.AppendHead(nil), &record.Message{Topic: []byte("t"), Expires: 1}, 0))
	s.Commit(0, b)
	a.until(t, "the commit", func() bool { return a.committed == 1 })
	var turns []int
	var searching expiry
	for searching.begins(2); searching.search.next != nil; {
		if err := s.in.do(func(db *pebble.DB) error {
			keys, err := searching.search.part(db, 2)
			turns = append(turns, len(keys))
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(turns, []int{0, 1}) {
		t.Errorf("so many were found: %v, want none in the first 16 MiB and one behind", turns)
	}
	_ = s.Close()
}

// largeReads counts what is read of files in large pieces.
type largeReads struct {
	vfs.FS
	n atomic.Int64
}

func (r *largeReads) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := r.FS.Open(name, o...)
	if err != nil {
		return nil, err
	}
	return largeReadsFile{f, &r.n}, nil
}

type largeReadsFile struct {
	vfs.File
	n *atomic.Int64
}

func (f largeReadsFile) ReadAt(p []byte, off int64) (int, error) {
	if len(p) > 100_000 {
		f.n.Add(1)
	}
	return f.File.ReadAt(p, off)
}

// TestLargeMessagesAreLeftAlone: large messages that wait cost nothing while they do. What looks for expired ones reads them once, not many
// at a time, and never again while none can have expired; then it does. A load reads no more than it brings.
func TestLargeMessagesAreLeftAlone(t *testing.T) {
	const messages, size = 150, 300_000
	reads := &largeReads{FS: vfs.NewMem()}
	if err := reads.MkdirAll("data", 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := Open(Config{Dir: "data", FS: reads, MemTableBytes: 4 << 20, CacheBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	a := newAsked()
	s.answers, s.loads = a, make(chan *broker.Load)
	s.work.Go(s.write) // and no reaper, whose part this test has
	s.work.Go(s.read)
	noise := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	for pos := range uint64(messages) {
		s.Commit(0, entryBatch(1, pos, string(noise)))
	}
	a.until(t, "the commits", func() bool { return a.committed == messages })
	if err := s.in.do((*pebble.DB).Flush); err != nil {
		t.Fatal(err)
	}
	search := func() int64 {
		before := reads.n.Load()
		s.expireOnce()
		return reads.n.Load() - before
	}
	const most = expiryBytes/size + 20 // and one more for each table
	for range messages*size/expiryBytes + 1 {
		if n := search(); n == 0 || n > most {
			t.Errorf("the search reads %d messages at a time", n)
		}
	}
	if n := search(); n != 0 {
		t.Errorf("what never expires is read again: %d messages", n)
	}
	s.Commit(0, expiringBatch(2, 1, time.Now().Add(-time.Second).UnixMilli()))
	a.until(t, "one more", func() bool { return a.committed == messages+1 })
	if n := search(); n == 0 {
		t.Error("what was committed since then, and has expired, is not looked for")
	}
	if err := s.in.do(func(db *pebble.DB) error { return db.Compact(t.Context(), []byte{0}, []byte{0xff}, false) }); err != nil {
		t.Fatal(err)
	}
	before := reads.n.Load()
	s.Load(broker.Load{SID: 1, From: 50, To: messages - 1, Entries: 100, Bytes: 1})
	a.until(t, "the load", func() bool { return len(a.loaded) == 1 })
	if n := reads.n.Load() - before; n > 1 || len(a.loaded[0].Entries) != 1 || a.loaded[0].Done {
		t.Errorf("a load of 1 message has read %d, and brought %d, %v", n, len(a.loaded[0].Entries), a.loaded[0].Done)
	}
	s.Load(broker.Load{SID: 1, From: messages - 1, To: messages - 1, Entries: 100, Bytes: 1})
	a.until(t, "the load of the last", func() bool { return len(a.loaded) == 2 })
	if l := a.loaded[1]; len(l.Entries) != 1 || !l.Done {
		t.Errorf("the last message: %d came, and there are more: %v", len(l.Entries), !l.Done)
	}
	_ = s.Close()
}

func count(t *testing.T, s *Store, k record.Kind) (n int) {
	t.Helper()
	if err := readAll(s, k, func([]byte, []byte) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRefusals(t *testing.T) {
	mem := vfs.NewMem()
	refused := func(dir, word string) {
		t.Helper()
		if _, err := Open(Config{Dir: dir, FS: mem}); err == nil || !strings.Contains(err.Error(), word) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", dir, err, word)
		}
	}
	refused("missing", "does not exist")
	_ = writeFile(mem, "file", nil)
	refused("file", "is a file")
	_ = mem.MkdirAll("other", 0o700)
	_ = writeFile(mem, "other/notes", nil)
	refused("other", "other files")
	_ = mem.MkdirAll("newer", 0o700)
	_ = writeFile(mem, "newer/FORMAT", []byte(formatWords+"2\n"))
	refused("newer", "format 2")
	for _, never := range []string{"0", "-1"} {
		_ = mem.MkdirAll("never"+never, 0o700)
		_ = writeFile(mem, "never"+never+"/FORMAT", []byte(formatWords+never+"\n"))
		refused("never"+never, "no ringmq has made")
	}
	_ = mem.MkdirAll("locked/LOCK", 0o700)
	refused("locked", "LOCK is a directory")
	if names, _ := mem.List("newer"); len(names) != 1 {
		t.Error("a refused directory was changed: ", names)
	}
	_ = mem.MkdirAll("data", 0o700)
	_ = writeFile(mem, "data/"+probeFile, nil) // of a start that was cut short
	s, _ := open(t, mem)
	refused("data", "in use")
	_ = s.Close()
	if _, err := mem.Stat("missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a missing directory was made")
	}
}

// TestReaperBesideCommits: a message whose last reference goes while the reaper looks is collected all the same.
//
// Without that, ten minutes of churn left four of a million on disk until the next start.
func TestReaperBesideCommits(t *testing.T) {
	s, err := Open(Config{Dir: t.TempDir(), Durability: None, MemTableBytes: 1 << 20, CacheBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	const messages = 100
	var much []byte // makes a batch long
	for pos := range uint64(5000) {
		much = append(much, entryBatch(7, pos, "x")...)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				s.reapOnce(time.Hour)
			}
		}
	}()
	for mid := uint64(1); mid <= messages; mid++ {
		reference := record.ReferenceKey(nil, mid, 1, mid)
		set := record.AppendSet(record.AppendSet(nil, record.MessageKey(nil, mid), []byte("m")), reference, nil)
		err := errors.Join(s.commit([]request{{ops: set}}), s.commit([]request{{ops: record.AppendDelete(nil, reference)}, {ops: much}}))
		if err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	<-stopped
	s.reapOnce(time.Hour)
	left := 0
	from, to := record.Bounds(record.KindMessage)
	if err := s.in.do(func(db *pebble.DB) error {
		return each(db, from, to, func(_, _ []byte) error { left++; return nil })
	}); err != nil || left > 0 {
		t.Errorf("%d of %d messages without references are left (%v)", left, messages, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
