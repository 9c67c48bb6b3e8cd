package store

import (
	"bytes"
	"context"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/ringmq/ringmq/broker/record"
)

// Pebble gives the space of deleted records back when it compacts, and it compacts when there is much to write. When nothing is, as
// after the delivery of long queues, the reaper has it do so.
const (
	reclaimSlice   = 16 << 20 // bytes of tables that are rewritten at a time, once per round of the reaper: 16 MiB/s
	reclaimCommits = 8        // in a round, at most: more, and the disk is not idle
	reclaimRounds  = 5        // rounds in a row that must have been idle
	reclaimShare   = 4        // one record in so many must be deleted: each byte that comes back costs at most three that are rewritten,
	reclaimMin     = 4096     // and so many records in all
)

// reclaim is what was deleted and takes space still. All but deleted is the reaper's goroutine's.
type reclaim struct {
	deleted atomic.Int64 // records since the last pass that went well began; the writer and the reaper count
	commits int64        // when the reaper looked last
	idle    int          // rounds in a row
	next    []byte       // where the pass under way goes on; nil: there is none
}

// countDeleted counts a change that deletes.
func (r *reclaim) countDeleted(op record.Op, key, value []byte) {
	n := uint64(1)
	if op == record.DeleteRange && record.Kind(key[0]) == record.KindEntry && record.Number(key, 0) == record.Number(value, 0) {
		n = record.Number(value, 1) - record.Number(key, 1)
	}
	r.deleted.Add(int64(n))
}

// isIdle is asked once per round.
func (r *reclaim) isIdle(commits int64) bool {
	if commits-r.commits > reclaimCommits {
		r.idle = 0
	} else {
		r.idle++
	}
	r.commits = commits
	return r.idle >= reclaimRounds
}

// rests says that nothing has been committed for some rounds, and nothing is being rewritten.
func (r *reclaim) rests() bool { return r.idle >= reclaimRounds && r.next == nil }

// reclaimOnce rewrites the next tables of a pass, and begins one when that is worth it. What a pass that fails leaves, the next one finds.
func (s *Store) reclaimOnce() {
	r := &s.reclaim
	if !r.isIdle(s.counts.commits.Load()) || r.next == nil && r.deleted.Load() < reclaimMin || s.Health().Refusing {
		return
	}
	s.mu.Lock()
	in := s.in
	s.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-s.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	from, next, deleted := r.next, []byte(nil), int64(0)
	err := in.do(func(db *pebble.DB) (err error) {
		next, deleted, err = s.compactSlice(ctx, db, from)
		return err
	})
	if ctx.Err() == nil && s.suspect(in, err) == nil { // That it was called off is nobody's fault, and what do has left behind still writes to next.
		r.next = next
		r.deleted.Add(-deleted)
	}
}

// compactSlice rewrites the tables from a key on, and says where to go on (nil: the pass has ended, or is not worth while) and, when it
// begins a pass, for how many deleted records that is.
func (s *Store) compactSlice(ctx context.Context, db *pebble.DB, from []byte) (next []byte, deleted int64, err error) {
	if from == nil {
		deleted = s.reclaim.deleted.Load()
		worth, err := worthwhile(db, deleted)
		if !worth || err != nil {
			return nil, 0, err
		}
		from = []byte{0}
	}
	levels, err := db.SSTables()
	if err != nil {
		return nil, 0, err
	}
	next = sliceEnd(levels, from)
	to := next
	if to == nil {
		to = []byte{0xff}
	}
	return next, deleted, db.Compact(ctx, from, to, false)
}

// worthwhile says whether enough of what the tables hold is deleted.
func worthwhile(db *pebble.DB, deleted int64) (bool, error) {
	levels, err := db.SSTables(pebble.WithProperties())
	if err != nil {
		return false, err
	}
	entries := int64(0)
	for _, tables := range levels {
		for i := range tables {
			entries += int64(tables[i].Properties.NumEntries)
		}
	}
	return deleted >= entries/reclaimShare, nil
}

// sliceEnd is the key up to which the deepest level has enough to rewrite at a time; nil: all the rest.
func sliceEnd(levels [][]pebble.SSTableInfo, from []byte) []byte {
	size := uint64(0)
	for i := len(levels) - 1; i >= 0; i-- {
		if len(levels[i]) == 0 {
			continue
		}
		for _, table := range levels[i] {
			if bytes.Compare(table.Largest.UserKey, from) < 0 {
				continue
			}
			if size += table.Size; size >= reclaimSlice {
				return append(bytes.Clone(table.Largest.UserKey), 0)
			}
		}
		return nil
	}
	return nil
}
