package store

import (
	"bytes"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/ringmq/ringmq/broker/record"
)

// How much of the queues is looked at for expiry at a time, once a second: some thousandths of a second's work. Ten million entries take an
// hour and a half; until then what has expired takes space, and is not delivered. Large messages are read whole.
const (
	expiryChunk = 2048     // entries
	expiryBytes = 16 << 20 // of them, with their messages
)

// expiry is where the search for expired messages is. Clients that are away for long do not find them, so somebody must.
type expiry struct{ next []byte }

// findExpired looks at the next part of all queues and has the writer remove what has expired. Only the writer may remove it: it alone
// knows that an entry is still as it was found.
func (s *Store) findExpired(db *pebble.DB) error {
	keys, next, err := searchExpired(db, s.expiry.next, time.Now().UnixMilli())
	s.expiry.next = next
	if len(keys) > 0 {
		s.put(request{expired: keys})
	}
	return err
}

// searchExpired gives the keys of entries that have expired, from one on, and where the search goes on; nil is the beginning.
func searchExpired(db *pebble.DB, from []byte, now int64) (keys [][]byte, next []byte, err error) {
	first, to := record.Bounds(record.KindEntry)
	if from == nil {
		from = first
	}
	n, size := 0, 0
	err = each(db, from, to, func(key, value []byte) error {
		found, err := look(db, key, value, now)
		if err != nil {
			return err
		}
		if found.expired {
			keys = append(keys, bytes.Clone(key))
		}
		if n, size = n+1, size+found.bytes; n == expiryChunk || size >= expiryBytes {
			next = append(bytes.Clone(key), 0) // behind it
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return keys, next, err
}

// foundEntry is what look finds out about a queue entry.
type foundEntry struct {
	expired bool
	mid     uint64 // of its message, when that is shared
	bytes   int    // that were read
}

// look says whether a queue entry's message has expired and was not sent yet: what was sent once is sent to its end.
func look(db *pebble.DB, key, value []byte, now int64) (foundEntry, error) {
	found := foundEntry{bytes: len(value)}
	var e record.Entry
	if e.Decode(value) != nil || e.Flags&(record.EntrySent|record.EntryReleased) != 0 {
		return found, nil
	}
	m := e.Message
	if found.mid = e.Mid; e.Mid != 0 {
		message, err := get(db, record.MessageKey(nil, e.Mid))
		if found.bytes += len(message); err != nil || m.Decode(message) != nil {
			return found, err
		}
	}
	if m.Expires <= 0 || m.Expires > now {
		return found, nil
	}
	sid, pos := record.Number(key, 0), record.Number(key, 1)
	sent, err := get(db, record.SentKey(nil, sid))
	found.expired = err == nil && pos > record.ReadNumber(sent)
	return found, err
}

// removeExpired is the writer's part.
func (s *Store) removeExpired(db *pebble.DB, keys [][]byte) error {
	now := time.Now().UnixMilli()
	b := db.NewBatch()
	defer b.Close()
	n := int64(0)
	var unreferenced []uint64
	for _, key := range keys {
		value, err := get(db, key)
		if err != nil {
			return err
		}
		if value == nil {
			continue
		}
		found, err := look(db, key, value, now)
		if err != nil {
			return err
		}
		if !found.expired {
			continue
		}
		err = b.Delete(key, nil)
		if mid := found.mid; mid != 0 {
			err = errors.Join(err, b.Delete(record.ReferenceKey(nil, mid, record.Number(key, 0), record.Number(key, 1)), nil))
			unreferenced = append(unreferenced, mid)
		}
		if err != nil {
			return err
		}
		n++
	}
	s.counts.expired.Add(n)
	s.reclaim.deleted.Add(n)
	if err := db.Apply(b, pebble.NoSync); err != nil { // lost with the power, they are found again
		return err
	}
	s.reaper.dropped(unreferenced...)
	return nil
}
