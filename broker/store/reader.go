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
		s.unread.works(l)
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
	err := in.do(func(db *pebble.DB) error {
		if l.Count {
			return countWaiting(db, record.EntryKey(nil, l.SID, l.From), append(record.EntryKey(nil, l.SID, l.To), 0), &r)
		}
		return loadEntries(db, &r)
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	if err != nil {
		return l, broker.Loaded{}, s.suspectIn(l, in, err) // whoever reads for a failed instance may still write to r
	}
	return l, r, nil
}

// loadStep is how many positions of a queue are looked at first. Each table that has something behind them, and within the bounds of the
// search, would be asked for the first of that, and where messages are large, that is as much to read as what is wanted. Past loadGap there
// is nothing for long, as between the positions of two runs.
const (
	loadStep = 16
	loadGap  = 1 << 16
)

// loadEntries reads what r.Load asks for.
func loadEntries(db *pebble.DB, r *broker.Loaded) error {
	it, err := db.NewIter(nil)
	if err != nil {
		return err
	}
	l, size := &r.Load, 0
	for from, step := l.From, uint64(loadStep); err == nil && from <= l.To; step *= loadStep {
		to := l.To
		if step <= loadGap && to-from >= step {
			to = from + step - 1
		}
		it.SetBounds(record.EntryKey(nil, l.SID, from), append(record.EntryKey(nil, l.SID, to), 0))
		err = eachOf(it, func(key, value []byte) error {
			e, ok, err := loadEntry(db, key, value)
			if err != nil {
				return err
			}
			if !ok {
				r.Damaged++
			}
			r.Entries, size = append(r.Entries, e), size+len(e.Value)+len(e.Message)
			if len(r.Entries) < max(1, l.Entries) && size < max(1, l.Bytes) {
				return nil
			}
			r.Done = record.Number(key, 1) == l.To // To look for another would be to read it.
			return errEnough
		})
		if it.Error() != nil || to == l.To {
			break
		}
		from = to + 1
	}
	return errors.Join(err, it.Close()) // which says what has gone wrong before, too
}

// loadEntry is an entry with its message; false when it is damaged.
func loadEntry(db *pebble.DB, key, value []byte) (e broker.LoadedEntry, ok bool, err error) {
	var entry record.Entry
	e = broker.LoadedEntry{Pos: record.Number(key, 1), Value: append([]byte{}, value...)}
	if entry.Decode(value) != nil {
		return e, false, nil
	}
	if entry.Mid != 0 {
		e.Message, err = get(db, record.MessageKey(nil, entry.Mid))
	}
	return e, entry.Mid == 0 || e.Message != nil, err
}

// countWaiting says when the entries from and to keys expire that were not sent.
func countWaiting(db *pebble.DB, from, to []byte, r *broker.Loaded) error {
	n, size := 0, 0
	return each(db, from, to, func(key, value []byte) error {
		if n > 0 && (n >= r.Load.Entries || size >= r.Load.Bytes) {
			r.Done = false
			return errEnough
		}
		r.Last = record.Number(key, 1)
		n, size = n+1, size+len(value)
		if !record.Waits(value) {
			return nil
		}
		expires, read, err := expiresOf(db, value)
		r.Expires, size = append(r.Expires, expires), size+read
		return err
	})
}

// expiresOf is Expires of the message that an entry waits with, and how many bytes were read for it; 0 where that is damaged.
func expiresOf(db *pebble.DB, value []byte) (expires int64, read int, err error) {
	var e record.Entry
	if e.Decode(value) != nil || e.Mid == 0 {
		return e.Message.Expires, 0, nil
	}
	message, err := get(db, record.MessageKey(nil, e.Mid))
	return record.MessageExpires(message), len(message), err
}
