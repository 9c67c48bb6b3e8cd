package store

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
	walrecord "github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ringmq/ringmq/broker/record"
)

// A log that ends early is, for Pebble, a log that ends, and one that is empty or gone is none: it goes on with the next one. Commits are numbered, so
// here is found what logs lack before Pebble opens them, for it puts what they have in tables and removes them.

// commitRun is commits that follow each other.
type commitRun struct {
	first, last uint64
	begins      bool // a run of the broker or an opening of the store: numbers in between were never used
}

// commitRuns are the numbers of commits that logs have, in any order, and more than once where a log is read again.
type commitRuns []commitRun

func (c *commitRuns) note(n uint64, begins bool) {
	if len(*c) > 0 && !begins {
		if r := &(*c)[len(*c)-1]; n == r.last || n == r.last+1 {
			r.last = n
			return
		}
	}
	*c = append(*c, commitRun{n, n, begins})
}

// lack says how many commits behind base are not there, up to the last one that is.
func (c commitRuns) lack(base uint64) (lost, last uint64) {
	slices.SortFunc(c, func(a, b commitRun) int { return cmp.Compare(a.first, b.first) })
	last = base
	for _, r := range c {
		if r.first > last+1 && !r.begins {
			lost += r.first - last - 1
		}
		last = max(last, r.last)
	}
	return lost, last
}

// A commit ends with T, as setTime writes it; where a run begins there is B and nothing else before it.
const (
	timeBytes  = 8 + 8 + 4 + 4
	timeRecord = 4 + timeBytes // the kind of change, a key with its length, the length of the value
	bootRecord = 4 + 4
)

// noteBatch notes the commit that a batch of a log is, where it is one: others, the reaper's for instance, have no number. What a salvage puts in its place are
// records alone, and may end with what a client has sent.
func (c *commitRuns) noteBatch(repr []byte) {
	at := len(repr) - timeRecord
	if at < batchrepr.HeaderLen {
		return
	}
	head := [...]byte{byte(pebble.InternalKeyKindSet), 1, byte(record.KindTime), timeBytes}
	h, _ := batchrepr.ReadHeader(repr)
	if [len(head)]byte(repr[at:]) != head || h.Count == 1 && at > batchrepr.HeaderLen {
		return
	}
	begins := at == batchrepr.HeaderLen+bootRecord && repr[batchrepr.HeaderLen+2] == byte(record.KindBoot)
	c.note(decodeTime(repr[at+len(head):]).commits, begins)
}

// eachBatch gives the batches of a log to f, up to its end or an error, and says where the last of them ends. A batch is f's until it returns.
func eachBatch(log *walrecord.Reader, f func(repr []byte) error) (end int64, err error) {
	var repr bytes.Buffer
	for {
		r, err := log.Next()
		if errors.Is(err, io.EOF) {
			return end, nil
		}
		if err == nil {
			repr.Reset()
			_, err = repr.ReadFrom(r)
		}
		if err == nil {
			err = f(repr.Bytes())
		}
		if err != nil {
			return end, err
		}
		end = log.Offset()
	}
}

// lackingCommits is how many commits the logs lack. Where one cannot be read or is damaged, that is not known here: Pebble will say so, or can read it. The end of
// the newest may be torn.
func (s *Store) lackingCommits() uint64 {
	dir := s.databaseDir()
	names, err := s.config.FS.List(dir)
	if err != nil || s.isPutBack() { // of which all is in doubt
		return 0
	}
	names = slices.DeleteFunc(names, func(n string) bool { return filepath.Ext(n) != ".log" })
	sortFiles(names)
	var runs commitRuns
	for i, name := range names {
		err := s.readFile(filepath.Join(dir, name), func(f io.Reader) error {
			_, err := eachBatch(openLog(walrecord.NewReader, f, fileNumber(name)), func(repr []byte) error { runs.noteBatch(repr); return nil })
			return err
		})
		if err != nil && (i > 0 || !errors.Is(err, walrecord.ErrUnexpectedEOF)) {
			return 0
		}
	}
	if len(runs) == 0 {
		return 0
	}
	base, known := s.lastInTables()
	if !known {
		return 0
	}
	lost, last := runs.lack(base)
	if lost > 0 && !s.config.readOnly {
		s.raiseProgress(last + lost)
	}
	return lost
}

// lastInTables is the last commit that tables have.
func (s *Store) lastInTables() (commits uint64, known bool) {
	in := newInstance()
	in.fence = newFence(withoutLogs{s.config.FS}, s.databaseDir(), false, in.fail)
	err := in.do(func(*pebble.DB) error {
		db, err := pebble.Open(s.databaseDir(), &pebble.Options{FS: in.fence, Cache: s.cache, Logger: fatalLogger{in, func(string) {}}, ReadOnly: true,
			FormatMajorVersion: databaseFormat, DisableTableStats: true, DisableAutomaticCompactions: true})
		if err != nil {
			return err
		}
		last, err := lastTime(db)
		if err = errors.Join(err, db.Close()); err == nil {
			commits, known = last.commits, true
		}
		return err
	})
	return commits, known && err == nil
}

// withoutLogs is a file system without the write-ahead logs.
type withoutLogs struct{ vfs.FS }

// List lists a directory.
func (w withoutLogs) List(dir string) ([]string, error) {
	names, err := w.FS.List(dir)
	return slices.DeleteFunc(names, func(n string) bool { return filepath.Ext(n) == ".log" }), err
}
