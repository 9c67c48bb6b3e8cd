package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/ringmq/ringmq/broker/record"
)

// OpenForTools opens the store in a directory for its tools: what is not a store is left alone, a damaged one too, and with readOnly nothing is
// changed. Only CloseTools, Check, Stats, Records, Compact and Backup may be called.
func OpenForTools(config Config, readOnly bool) (*Store, error) {
	config.mustExist, config.readOnly = true, readOnly
	return Open(config)
}

// CloseTools ends what OpenForTools began.
func (s *Store) CloseTools() error { return s.shut() }

// Findings are what Check found.
type Findings struct {
	Records  map[string]int64 // by kind
	Problems []string         // the first of them
	Wrong    int64            // how many there are
}

// problemsMax is how many problems Check describes.
const problemsMax = 20

func (f *Findings) problem(format string, a ...any) {
	if f.Wrong++; f.Wrong <= problemsMax {
		f.Problems = append(f.Problems, fmt.Sprintf(format, a...))
	}
}

// Check reads every block and decodes every record, and looks whether what records refer to is there, and the commits that were made durable.
func (s *Store) Check() (Findings, error) {
	f := Findings{Records: make(map[string]int64)}
	if err := s.in.check(); err != nil {
		f.problem("tables: %v", err)
	}
	err := s.in.do(func(db *pebble.DB) error {
		last, err := lastTime(db)
		if err != nil {
			return err
		}
		gone, _ := s.compareProgress(last.commits, 0)
		if gone = max(gone, s.lacks.Load()); gone > 0 {
			f.problem("%d commits are gone, and acknowledged messages with them", gone)
		}
		return each(db, nil, nil, func(key, value []byte) error {
			f.Records[KindName(record.Kind(key[0]))]++
			f.record(db, key, value)
			return nil
		})
	})
	return f, err
}

// record judges one record.
func (f *Findings) record(db *pebble.DB, key, value []byte) {
	var err error
	switch kind := record.Kind(key[0]); kind {
	case record.KindSession:
		err = new(record.Session).Decode(value)
	case record.KindSubscription:
		err = new(record.Subscription).Decode(value)
	case record.KindMessage, record.KindRetained:
		err = new(record.Message).Decode(value)
	case record.KindEntry:
		var e record.Entry
		if err = e.Decode(value); err != nil || e.Mid == 0 {
			break
		}
		var message []byte
		if message, err = get(db, record.MessageKey(nil, e.Mid)); err == nil && message == nil {
			f.problem("queue entry %x: its message %x is missing", key[1:], e.Mid)
		}
	case record.KindBoot, record.KindTime, record.KindEnded, record.KindReceived, record.KindReference, record.KindSent:
	default:
		f.problem("record %x is of no known kind", key)
	}
	if err != nil {
		f.problem("record %c %x: %v", key[0], key[1:], err)
	}
}

// KindName is a kind of records in words.
func KindName(k record.Kind) string {
	for _, n := range [...]struct {
		kind record.Kind
		name string
	}{
		{record.KindBoot, "boot"}, {record.KindEnded, "ended sessions"}, {record.KindSubscription, "subscriptions"},
		{record.KindReceived, "received identifiers"}, {record.KindMessage, "shared messages"}, {record.KindEntry, "queue entries"},
		{record.KindRetained, "retained messages"}, {record.KindSession, "sessions"}, {record.KindTime, "time"},
		{record.KindReference, "references"}, {record.KindSent, "send marks"},
	} {
		if n.kind == k {
			return n.name
		}
	}
	return "unknown"
}

// Stats are a store's sizes.
type Stats struct {
	Records map[string]KindStats `json:"records"`
	// DiskBytes is what the store takes on disk, LogBytes what of it is log that is not in tables yet.
	DiskBytes uint64 `json:"disk_bytes"`
	LogBytes  uint64 `json:"log_bytes"`
	// WriteAmplification is how often a byte that was handed over has been written in this run, to the log and to tables.
	WriteAmplification float64 `json:"write_amplification"`
	Commits            int64   `json:"commits"`
	Batches            int64   `json:"batches"`
	Changes            int64   `json:"changes"`
	Bytes              int64   `json:"bytes"`
	Failures           int64   `json:"failures"`
	// Wait is from when a shard hands a batch over until a commit begins that has it, Commit from there until it is durable; Sync is the
	// part of it that the disk takes: fsync of the log. What a publisher waits for is their sum, and its network.
	Wait   Timing `json:"wait"`
	Commit Timing `json:"commit"`
	Sync   Timing `json:"sync"`
	// Expired messages were removed from the queues of clients that are away.
	Expired int64 `json:"expired"`
	// What was lost, since the store was opened: LostCommits were made, in this run or the one before, and are gone, Doubted messages of QoS 2 are not
	// delivered for that reason or because of damage. Salvages have read Salvaged records; LostRecords and the rest of LostFiles could not be read,
	// and for LeftRecords there was no room on the disk.
	LostCommits int64 `json:"lost_commits"`
	Doubted     int64 `json:"doubted"`
	Salvages    int64 `json:"salvages"`
	Salvaged    int64 `json:"salvaged"`
	LostRecords int64 `json:"lost_records"`
	LostFiles   int64 `json:"lost_files"`
	LeftRecords int64 `json:"left_records"`
	Health
}

// KindStats are the sizes of a kind of records.
type KindStats struct {
	Count int64 `json:"count"`
	Bytes int64 `json:"bytes"` // keys and values, before compression
}

// Stats measures the store; with records it reads all of them. Of one that fails it may say no more than what it counts.
func (s *Store) Stats(records bool) (Stats, error) {
	out := Stats{Records: make(map[string]KindStats), Commits: s.counts.commits.Load(), Batches: s.counts.batches.Load(),
		Changes: s.counts.changes.Load(), Bytes: s.counts.bytes.Load(), Failures: s.counts.failures.Load(), LostCommits: s.counts.lostCommits.Load(), Doubted: s.counts.doubted.Load(), Salvages: s.counts.salvages.Load(),
		Salvaged: s.counts.salvaged.Load(), LostRecords: s.counts.lostRecords.Load(), LostFiles: s.counts.lostFiles.Load(), LeftRecords: s.counts.leftRecords.Load(), Expired: s.counts.expired.Load(), Health: s.Health()}
	now := time.Now()
	out.Wait, out.Commit, out.Sync = s.waits.read(now), s.commitTimes.read(now), s.syncTimes.read(now)
	s.mu.Lock()
	in := s.in
	s.mu.Unlock()
	measured := Stats{Records: make(map[string]KindStats)}
	err := in.do(func(db *pebble.DB) error {
		m := db.Metrics()
		measured.DiskBytes, measured.LogBytes = m.DiskSpaceUsage(), m.WAL.PhysicalSize
		total := m.Total()
		if measured.WriteAmplification = total.WriteAmp(); math.IsNaN(measured.WriteAmplification) || math.IsInf(measured.WriteAmplification, 0) {
			measured.WriteAmplification = 0
		}
		if !records {
			return nil
		}
		return each(db, nil, nil, func(key, value []byte) error {
			name := KindName(record.Kind(key[0]))
			k := measured.Records[name]
			k.Count, k.Bytes = k.Count+1, k.Bytes+int64(len(key)+len(value))
			measured.Records[name] = k
			return nil
		})
	})
	switch {
	case err == nil: // otherwise do may have left somebody behind who writes to it
		out.Records, out.DiskBytes, out.LogBytes, out.WriteAmplification = measured.Records, measured.DiskBytes, measured.LogBytes, measured.WriteAmplification
	case out.Refusing:
		err = nil // What else there is to know is asked for then above all.
	}
	return out, err
}

// Records gives every record to f.
func (s *Store) Records(f func(key, value []byte) error) error {
	return s.in.do(func(db *pebble.DB) error { return each(db, nil, nil, f) })
}

// Compact removes what is garbage and rewrites the tables.
func (s *Store) Compact() error {
	for s.reapOnce(0); s.reaper.searches() && !s.in.hasFailed(); {
		s.reapOnce(0)
	}
	return s.in.do(func(db *pebble.DB) error { return db.Compact(context.Background(), []byte{0}, []byte{0xff}, true) })
}

// Backup writes a copy of the store, as of now, into a directory that must not exist. The store may be in use.
func (s *Store) Backup(to string) error {
	fsys := s.config.FS
	if _, err := fsys.Stat(to); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("backup: %s exists; name a directory that does not", to)
	}
	if err := fsys.MkdirAll(to, 0o700); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	s.mu.Lock()
	in := s.in
	s.mu.Unlock()
	err := in.do(func(db *pebble.DB) error {
		if s.config.Durability == None { // there is no log to be copied
			if err := db.Flush(); err != nil {
				return err
			}
		}
		return db.Checkpoint(filepath.Join(to, "db"), pebble.WithFlushedWAL())
	})
	if err == nil {
		err = noteFormat(fsys, to)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("backup: %w", err), fsys.RemoveAll(to))
	}
	return nil
}
