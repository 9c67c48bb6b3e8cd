package store

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/record"
)

// dispatch gives a load to a reader. Readers are always on their way to take one, so the writer waits for no more than a read.
func (s *Store) dispatch(l *broker.Load) {
	s.mu.Lock()
	s.loading[l] = true
	s.mu.Unlock()
	s.loads <- l
}

// read is a reader.
func (s *Store) read() {
	for l := range s.loads {
		s.mu.Lock()
		in := s.in
		s.mu.Unlock()
		s.answer(s.load(in, l))
	}
}

// answer gives a result to the shard, unless it has one; a load that failed is done again when the store is open again.
func (s *Store) answer(l *broker.Load, r broker.Loaded, err error) {
	s.mu.Lock()
	due := s.loading[l] && err == nil
	if due {
		delete(s.loading, l)
	}
	s.mu.Unlock()
	if due {
		s.counts.damaged.Add(int64(r.Damaged))
		s.answers.Loaded(r)
	}
}

// load reads a part of a queue.
func (s *Store) load(in *instance, l *broker.Load) (*broker.Load, broker.Loaded, error) {
	r := broker.Loaded{Load: *l, Done: true}
	from, to := record.EntryKey(nil, l.SID, l.From), record.EntryKey(nil, l.SID, l.To)
	err := in.do(func(db *pebble.DB) error {
		if l.Count {
			return countWaiting(db, from, append(to, 0), &r)
		}
		n, size := 0, 0
		full := func() bool { return n >= max(1, l.Entries) || size >= max(1, l.Bytes) }
		return each(db, from, append(to, 0), func(key, value []byte) error {
			if full() {
				r.Done = false
				return errEnough
			}
			e := broker.LoadedEntry{Pos: record.Number(key, 1), Value: append([]byte{}, value...)}
			var entry record.Entry
			if entry.Decode(value) != nil {
				r.Damaged++
				return nil
			}
			if entry.Mid != 0 {
				var err error
				if e.Message, err = get(db, record.MessageKey(nil, entry.Mid)); err != nil {
					return err
				}
				if e.Message == nil {
					r.Damaged++
					return nil
				}
			}
			r.Entries = append(r.Entries, e)
			n, size = n+1, size+len(e.Value)+len(e.Message)
			return nil
		})
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	if err != nil {
		return l, broker.Loaded{}, s.suspect(in, err) // whoever reads for a failed instance may still write to r
	}
	return l, r, nil
}

// countWaiting counts the entries from and to keys that were not sent.
func countWaiting(db *pebble.DB, from, to []byte, r *broker.Loaded) error {
	n := 0
	return each(db, from, to, func(_, value []byte) error {
		if n == max(1, r.Load.Entries) {
			r.Done = false
			return errEnough
		}
		n++
		if record.Waits(value) {
			r.Waiting++
		}
		return nil
	})
}
