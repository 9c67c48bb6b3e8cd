package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/record"
)

// damagedEntries is how many queue entries a store has that is to be damaged: enough for a table of many blocks.
const damagedEntries = 2000

// fill makes a store with entries of a queue, the first of which is deleted, and one Session.
func fill(t *testing.T, fsys vfs.FS, inTables bool) {
	t.Helper()
	s, a := open(t, fsys)
	for pos := range uint64(damagedEntries) {
		s.Commit(0, entryBatch(1, pos, strings.Repeat("y", 500)))
	}
	s.Commit(0, record.AppendDelete(nil, record.EntryKey(nil, 1, 0)))
	s.Commit(0, record.AppendSet(nil, record.SessionKey(nil, 1), (&record.Session{ClientID: "c", Expiry: 1<<32 - 1}).Append(nil)))
	a.until(t, "commits", func() bool { return a.committed == damagedEntries+2 })
	if inTables {
		if err := s.in.do((*pebble.DB).Flush); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// readAll reads all records of a kind of a store that has been started.
func readAll(s *Store, kind record.Kind, f func(key, value []byte) error) error {
	s.mu.Lock()
	in := s.in
	s.mu.Unlock()
	from, to := record.Bounds(kind)
	return in.do(func(db *pebble.DB) error { return each(db, from, to, f) })
}

// entries are the positions in the queue.
func entries(s *Store) (list []uint64, err error) {
	return list, readAll(s, record.KindEntry, func(key, _ []byte) error { list = append(list, record.Number(key, 1)); return nil })
}

// files are the paths of a store's files with a suffix or prefix, in order.
func files(t *testing.T, fsys vfs.FS, with func(string) bool) (list []string) {
	t.Helper()
	names, err := fsys.List("data/db")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	for _, n := range names {
		if with(n) {
			list = append(list, "data/db/"+n)
		}
	}
	if len(list) == 0 {
		t.Fatal("no such file among ", names)
	}
	return list
}

// largestTable is the path of a store's largest table. How many there are depends on when memory was full.
func largestTable(t *testing.T, fsys vfs.FS) string {
	t.Helper()
	return slices.MaxFunc(files(t, fsys, isTable), func(a, b string) int {
		return cmp.Compare(len(content(t, fsys, a)), len(content(t, fsys, b)))
	})
}

func isTable(name string) bool { return strings.HasSuffix(name, ".sst") }
func isLog(name string) bool   { return strings.HasSuffix(name, ".log") }

func content(t *testing.T, fsys vfs.FS, path string) []byte {
	t.Helper()
	f, err := fsys.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSalvageManifest damages what says which files there are: every record is read all the same, and the old store is kept.
func TestSalvageManifest(t *testing.T) {
	for _, damage := range []string{"overwritten", "gone"} {
		mem := vfs.NewMem()
		fill(t, mem, damage == "gone")
		if damage == "gone" {
			for _, path := range files(t, mem, func(n string) bool { return strings.HasPrefix(n, "marker.manifest") }) {
				if err := mem.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
		} else {
			damageManifest(t, mem)
		}
		s, _ := open(t, mem)
		list, err := entries(s)
		if err != nil || len(list) != damagedEntries-1 || list[0] != 1 || s.Doubt() != 1 {
			t.Errorf("%s: %d entries, %v, doubt %v", damage, len(list), err, s.Doubt())
		}
		names, _ := mem.List("data")
		if !strings.Contains(strings.Join(names, " "), "damaged-") {
			t.Error("the damaged store is not kept: ", names)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestSalvageEndOfManifest damages a MANIFEST behind its first record, in each part of the rest: Pebble would take that for its end, and remove the tables that
// only later records name. Nothing is lost.
func TestSalvageEndOfManifest(t *testing.T) {
	original := vfs.NewMem()
	s, a := open(t, original)
	for sid := range uint64(6) { // and logs are used again
		s.Commit(0, record.AppendSet(nil, record.SessionKey(nil, sid), (&record.Session{ClientID: "c"}).Append(nil)))
		a.until(t, "a commit", func() bool { return a.committed == int(sid)+1 })
		if err := s.in.do((*pebble.DB).Flush); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := files(t, original, func(n string) bool { return strings.HasPrefix(n, "MANIFEST") })[0]
	whole := content(t, original, path)
	for at := 50; at < len(whole); at += 20 {
		mem := vfs.NewMem()
		if _, err := vfs.Clone(original, mem, "data", "data"); err != nil {
			t.Fatal(err)
		}
		b := bytes.Clone(whole)
		b[at] ^= 1
		if err := writeFile(mem, path, b); err != nil {
			t.Fatal(err)
		}
		s, _ := open(t, mem)
		if n, stats := count(t, s, record.KindSession), mustStats(t, s); n != 6 || stats.Salvages != 1 {
			t.Errorf("byte %d of %d: %d Sessions, %d salvages", at, len(b), n, stats.Salvages)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// badSector is a disk that cannot read one byte of a file.
type badSector struct {
	vfs.FS
	path string
	at   int64
}

func (d badSector) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := d.FS.Open(name, o...)
	if err == nil && name == d.path {
		f = &badFile{File: f, bad: d.at}
	}
	return f, err
}

type badFile struct {
	vfs.File
	read, bad int64
}

func (f *badFile) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.read)
	f.read += int64(n)
	return n, err
}

func (f *badFile) ReadAt(p []byte, at int64) (int, error) {
	if at <= f.bad && f.bad < at+int64(len(p)) {
		return 0, syscall.EIO
	}
	return f.File.ReadAt(p, at)
}

// TestSalvageLog damages, or cannot read, a part in the middle of the only log: what is before and behind it is there, and what is not is counted, also
// by who does not know how many commits there were.
func TestSalvageLog(t *testing.T) {
	const n = 300
	for _, how := range []string{"damaged", "not readable"} {
		mem := vfs.NewMem()
		made, _ := open(t, mem)
		if err := made.Close(); err != nil { // The first log of all does not say up to where it was synced.
			t.Fatal(err)
		}
		s, a := open(t, mem)
		for pos := range uint64(n) {
			s.Commit(0, entryBatch(1, pos, strings.Repeat("y", 500)))
			a.until(t, "a commit", func() bool { return a.committed == int(pos)+1 })
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		logs := files(t, mem, isLog)
		path := logs[len(logs)-1]
		b := content(t, mem, path)
		disk := vfs.FS(badSector{mem, path, 2*logBlock + 300})
		if how == "damaged" {
			copy(b[2*logBlock+300:], "damage")
			disk = mem
			if err := writeFile(mem, path, b); err != nil {
				t.Fatal(err)
			}
		}
		if err := mem.Remove("data/progress"); err != nil || len(b) < 4*logBlock {
			t.Fatal(err, len(b))
		}
		s = openUnread(t, disk)
		s.Start(newAsked())
		list, err := entries(s)
		if err != nil || len(list) < n-3*logBlock/500 || len(list) == n || list[len(list)-1] != n-1 {
			t.Errorf("%s: %d of %d entries, %v", how, len(list), n, err)
		}
		if stats := mustStats(t, s); stats.LostFiles != 1 || int(stats.LostCommits) != n-len(list) { // each a message
			t.Errorf("%s: of %d that are gone %+v", how, n-len(list), stats)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestSalvageTable overwrites bytes of a table while the store is in use: the load that comes upon them, and whatever else
// is asked for, is answered once everything else is salvaged; what was lost is counted, and the next start finds a good store.
func TestSalvageTable(t *testing.T) {
	mem := vfs.NewMem()
	fill(t, mem, true)
	path := largestTable(t, mem)
	b := content(t, mem, path)
	copy(b[len(b)/3:], "damage")
	if err := writeFile(mem, path, b); err != nil {
		t.Fatal(err)
	}
	s, a := open(t, mem)
	s.Load(broker.Load{SID: 1, From: 0, To: damagedEntries, Entries: damagedEntries, Bytes: 1 << 30})
	a.until(t, "the load", func() bool { return len(a.loaded) == 1 })
	n, stats := len(a.loaded[0].Entries), mustStats(t, s)
	if n < damagedEntries*9/10 || n >= damagedEntries-1 {
		t.Errorf("%d of %d entries were salvaged", n, damagedEntries-1)
	}
	if lost := damagedEntries - 1 - n; stats.LostRecords != int64(lost) || stats.Salvages != 1 {
		t.Errorf("%d entries are missing, the store says %+v", lost, stats)
	}
	s.Commit(0, entryBatch(1, damagedEntries, "afterwards"))
	a.until(t, "a commit", func() bool { return a.committed == 1 && !a.refusing })
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	again, _ := open(t, mem)
	if list, err := entries(again); err != nil || len(list) != n+1 || again.Boot() != 3 {
		t.Errorf("%d entries, %v, boot %d", len(list), err, again.Boot())
	}
	if found, err := again.Check(); err != nil || found.Wrong > 0 {
		t.Errorf("%+v %v", found, err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// TestSalvageOfAMissingTable: a table that is cut short, or is not there when the store is opened again after a failure, is damage like any other: the
// broker that serves goes on by itself.
func TestSalvageOfAMissingTable(t *testing.T) {
	for how, damage := range map[string]func(string) error{
		"cut short": func(path string) error { return os.Truncate(path, int64(len(content(t, vfs.Default, path)))/2) },
		"gone":      os.Remove,
	} {
		t.Chdir(t.TempDir())
		fill(t, vfs.Default, true)
		s, a := open(t, vfs.Default)
		if err := damage(largestTable(t, vfs.Default)); err != nil {
			t.Fatal(err)
		}
		s.in.fail(writeError{syscall.EIO})
		s.Load(broker.Load{SID: 1, From: 0, To: damagedEntries, Entries: damagedEntries, Bytes: 1 << 30})
		a.until(t, "the load, of a table that is "+how, func() bool { return len(a.loaded) == 1 && !a.refusing })
		if stats := mustStats(t, s); stats.Salvages != 1 || s.Doubt() != 1 {
			t.Errorf("%s: doubt %d, %+v", how, s.Doubt(), stats)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestSalvageEverywhere overwrites a few bytes of a table of Sessions, here and there: the store opens wherever they are, has what
// is elsewhere, and knows that it has lost something if it has.
func TestSalvageEverywhere(t *testing.T) {
	const sessions = 300
	original := vfs.NewMem()
	s, a := open(t, original)
	for sid := range uint64(sessions) {
		s.Commit(0, record.AppendSet(nil, record.SessionKey(nil, sid+1), (&record.Session{ClientID: strings.Repeat("c", 200)}).Append(nil)))
	}
	a.until(t, "commits", func() bool { return a.committed == sessions })
	if err := s.in.do((*pebble.DB).Flush); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	table := largestTable(t, original)
	size := len(content(t, original, table))
	step := max(1, size/int(400/sampled(40)))
	for at := 0; at < size; at += step {
		mem := vfs.NewMem()
		if _, err := vfs.Clone(original, mem, "data", "data"); err != nil {
			t.Fatal(err)
		}
		b := content(t, mem, table)
		for i := at; i < min(at+8, size); i++ {
			b[i] ^= 0xff
		}
		if err := writeFile(mem, table, b); err != nil {
			t.Fatal(err)
		}
		s, _ := open(t, mem)
		n := count(t, s, record.KindSession)
		if stats := mustStats(t, s); n < sessions && stats.LostRecords+stats.LostFiles == 0 {
			t.Errorf("byte %d of %d: %d of %d Sessions are there, and the store does not know: %+v", at, size, n, sessions, stats)
		}
		if s.Boot() < 2 {
			t.Errorf("byte %d: boot %d is used twice", at, s.Boot())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestSalvageNothing takes the database away in several ways: the broker starts all the same, knows that something is lost, what was there
// is kept, and the store works from then on.
func TestSalvageNothing(t *testing.T) {
	for name, damage := range map[string]func(vfs.FS) error{
		"directory gone":  func(f vfs.FS) error { return f.RemoveAll("data/db") },
		"directory empty": func(f vfs.FS) error { return errors.Join(f.RemoveAll("data/db"), f.MkdirAll("data/db", 0o700)) },
		"a file": func(f vfs.FS) error {
			return errors.Join(f.RemoveAll("data/db"), writeFile(f, "data/db", []byte("not a directory")))
		},
	} {
		for _, disk := range []vfs.FS{vfs.NewMem(), vfs.Default} {
			t.Chdir(t.TempDir())
			fill(t, disk, true)
			if err := damage(disk); err != nil {
				t.Fatal(err)
			}
			s, a := open(t, disk)
			if n := count(t, s, record.KindEntry); n != 0 || s.Doubt() == 0 || s.Boot() != 2 || mustStats(t, s).Salvages != 1 {
				t.Errorf("%s: %d entries, doubt %v, boot %d, %+v", name, n, s.Doubt(), s.Boot(), mustStats(t, s))
			}
			doubt := s.Doubt()
			s.Commit(0, entryBatch(1, 1, "afterwards"))
			a.until(t, "a commit", func() bool { return a.committed == 1 })
			if err := s.Close(); err != nil {
				t.Error(name, err)
			}
			names, _ := disk.List("data")
			at := slices.IndexFunc(names, func(n string) bool { return strings.HasPrefix(n, "damaged-") })
			if at < 0 || len(content(t, disk, "data/"+names[at]+"/WHY")) == 0 {
				t.Errorf("%s: what was there is not kept with a reason: %v", name, names)
			} else if name == "a file" && string(content(t, disk, "data/"+names[at]+"/db")) != "not a directory" {
				t.Errorf("%s: it is not kept", name)
			}
			s, _ = open(t, disk)
			if n := count(t, s, record.KindEntry); n != 1 || s.Doubt() != doubt || mustStats(t, s).Salvages != 0 {
				t.Errorf("%s: at the start after it %d entries, doubt %v", name, n, s.Doubt())
			}
			if err := s.Close(); err != nil {
				t.Error(name, err)
			}
		}
	}
}

func mustStats(t *testing.T, s *Store) Stats {
	t.Helper()
	stats, err := s.Stats(false)
	if err != nil {
		t.Fatal(err)
	}
	return stats
}

// TestTornLog cuts the log off at each of its last bytes, as a loss of power may, and overwrites each: what was committed
// before is there, in order, and nothing else.
func TestTornLog(t *testing.T) {
	original := vfs.NewMem()
	s, a := open(t, original)
	const commits = 20
	for pos := range uint64(commits) {
		s.Commit(0, entryBatch(1, pos, strings.Repeat("z", 50)))
		a.until(t, "a commit", func() bool { return a.committed == int(pos)+1 })
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	logs := files(t, original, isLog)
	log := logs[len(logs)-1]
	whole := content(t, original, log)
	end := len(bytes.TrimRight(whole, "\x00"))
	fewest := commits
	for cut := end; cut > end-400; cut -= int(sampled(79)) {
		for _, how := range []string{"cut off", "overwritten"} {
			mem := vfs.NewMem()
			if _, err := vfs.Clone(original, mem, "data", "data"); err != nil {
				t.Fatal(err)
			}
			b := bytes.Clone(whole)
			if how == "cut off" {
				b = b[:cut]
			} else {
				b[cut-1] ^= 0x5a
			}
			if err := writeFile(mem, log, b); err != nil {
				t.Fatal(err)
			}
			s, _ := open(t, mem)
			list, err := entries(s)
			for i, pos := range list {
				if pos != uint64(i) {
					t.Errorf("%s at %d: position %d follows %d others", how, cut, pos, i)
				}
			}
			if err != nil || how == "cut off" && len(list) < commits && s.Doubt() == 0 {
				t.Errorf("%s at %d: %d of %d commits are there, doubt %v, %v", how, cut, len(list), commits, s.Doubt(), err)
			}
			fewest = min(fewest, len(list))
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if fewest == commits || fewest == 0 {
		t.Errorf("at least %d of %d commits were there: nothing was torn, or everything", fewest, commits)
	}
}

// TestSalvageCutShort cuts the power at changes of the disk while a store is salvaged: the next start has what the first would have had.
func TestSalvageCutShort(t *testing.T) {
	changes := int64(1)
	for at := int64(0); at <= changes; at += sampled(37) {
		mem := vfs.NewCrashableMem()
		fill(t, mem, true)
		for _, path := range files(t, mem, func(n string) bool { return strings.HasPrefix(n, "MANIFEST") }) {
			if err := writeFile(mem, path, bytes.Repeat([]byte{0xa5}, 300)); err != nil {
				t.Fatal(err)
			}
		}
		after, cut := mem, make(chan struct{}) // after is written before cut is closed
		d := &disaster{at: at, do: func(errorfs.Op) error { return errorfs.ErrInjected }}
		d.strike = func() { after = mem.CrashClone(vfs.CrashCloneCfg{}); close(cut) }
		s, err := Open(Config{Dir: "data", FS: errorfs.Wrap(mem, d), MemTableBytes: 256 << 10, CacheBytes: 1 << 20})
		if err == nil {
			_ = s.shut()
		}
		if at == 0 { // nothing was cut short: that is how many there are
			changes = d.count.Load()
			continue
		}
		if d.dead.Load() {
			<-cut // by a goroutine of Pebble's that nobody waits for
		}
		s, _ = open(t, after)
		if list, err := entries(s); err != nil || len(list) != damagedEntries-1 {
			t.Errorf("power cut at change %d of %d: %d entries, %v", at, changes, len(list), err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestDoubt takes a store back to an earlier state, as a disk does that lies: a message of QoS 2 that may have been delivered
// since then becomes the release of its Packet Identifier, one of QoS 1 stays, and numbers are not used again.
func TestDoubt(t *testing.T) {
	mem := vfs.NewMem()
	s, a := open(t, mem)
	for pos, qos := range []uint8{1, 2} {
		value := record.AppendMessage((&record.Entry{Flags: qos}).AppendHead(nil), &record.Message{Topic: []byte("t")}, 1, []byte("x"))
		s.Commit(0, record.AppendSet(nil, record.EntryKey(nil, 1, uint64(pos)), value))
	}
	a.until(t, "commits", func() bool { return a.committed == 2 })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	noted := binary.BigEndian.Uint64(content(t, mem, "data/progress"))
	p := progress{}
	p.file, _ = mem.Create("data/progress", vfs.WriteCategoryUnspecified)
	p.note(noted+7, 41)
	s, _ = open(t, mem)
	stats := mustStats(t, s)
	if s.Doubt() == 0 || s.Boot() != 42 || stats.LostCommits != 7 || stats.Doubted != 1 {
		t.Errorf("doubt %v, boot %d, %+v", s.Doubt(), s.Boot(), stats)
	}
	var flags []string
	_ = readAll(s, record.KindEntry, func(_, value []byte) error {
		var e record.Entry
		err := e.Decode(value)
		flags = append(flags, fmt.Sprint(e.Flags))
		return err
	})
	if got := strings.Join(flags, " "); got != fmt.Sprint(1, " ", 2|record.EntryReleased) {
		t.Errorf("flags %s", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if s, _ = open(t, mem); s.Doubt() != 1 || mustStats(t, s).LostCommits > 0 {
		t.Errorf("the next run: doubt %d, %+v", s.Doubt(), mustStats(t, s))
	}
	_ = s.Close()
}

// TestFileNumbers: a table with a number of seven digits is newer than one of six.
func TestFileNumbers(t *testing.T) {
	names := []string{"999999.log", "000012.sst", "WHY", "1000001.sst", "1000000.log"}
	sortFiles(names)
	if got := strings.Join(names, " "); got != "1000001.sst 1000000.log 999999.log 000012.sst WHY" {
		t.Error(got)
	}
}

// TestLeftDeletions: a deletion for which there was no room counts as left, for what it has deleted may be back.
func TestLeftDeletions(t *testing.T) {
	v := versions{pass: pass{allKinds, func(int) bool { return true }}}
	if err := v.put(record.EntryKey(nil, 1, 1), 1, false, nil); err != nil || v.left != 1 {
		t.Errorf("%d left, %v", v.left, err)
	}
}

// TestDeletedRanges: however ranges overlap, a version is deleted when one that is newer has its key.
func TestDeletedRanges(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var ranges []deletedRange
		for range dice.IntN(12) {
			from := byte(dice.IntN(20))
			ranges = append(ranges, deletedRange{[]byte{from}, []byte{from + byte(dice.IntN(8))}, uint64(1 + dice.IntN(9))})
		}
		all := slices.Clone(ranges)
		v := versions{spans: flatten(ranges)}
		for key := range byte(30) {
			for seq := range uint64(11) {
				want := slices.ContainsFunc(all, func(r deletedRange) bool { return r.from[0] <= key && key < r.to[0] && r.seq > seq })
				if got := v.isDeleted([]byte{key}, seq); got != want {
					t.Fatalf("%v: key %d, change %d: deleted %v, want %v", all, key, seq, got, want)
				}
			}
		}
	}
}

// BenchmarkDeletedRanges looks one version up among the ranges that a million acknowledgements, one at a time, leave at worst.
func BenchmarkDeletedRanges(b *testing.B) {
	var ranges []deletedRange
	for n := range uint64(1_000_000) {
		ranges = append(ranges, deletedRange{record.EntryKey(nil, n%1000, n), record.EntryKey(nil, n%1000, n+1), n})
	}
	v := versions{spans: flatten(ranges)}
	key := record.EntryKey(nil, 500, 500_500)
	for b.Loop() {
		if v.isDeleted(key, 1<<40) {
			b.Fatal("it is newer")
		}
	}
}
