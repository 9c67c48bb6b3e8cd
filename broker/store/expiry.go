package store

import (
	"bytes"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/ringmq/ringmq/broker/record"
)

// expiryChunk is how many queue entries are looked at for expiry at a time, once a second: a thousandth of a second's work.
// Ten million take an hour and a half; until then what has expired takes space, and is not delivered.
const expiryChunk = 2048

// expiry is where the search for expired messages is. Clients that are away for long do not find them, so somebody must.
type expiry struct{ next []byte }

// findExpired looks at the next part of all queues and has the writer remove what has expired. Only the writer may remove it: it alone
// knows that an entry is still as it was found.
func (s *Store) findExpired(db *pebble.DB) error {
	from, to := record.Bounds(record.KindEntry)
	if s.expiry.next != nil {
		from = s.expiry.next
	}
	s.expiry.next = nil
	now, n := time.Now().UnixMilli(), 0
	var keys [][]byte
	err := each(db, from, to, func(key, value []byte) error {
		if n++; n > expiryChunk {
			s.expiry.next = bytes.Clone(key)
			return errEnough
		}
		_, expired, err := expiredEntry(db, key, value, now)
		if expired {
			keys = append(keys, bytes.Clone(key))
		}
		return err
	})
	if len(keys) > 0 {
		s.put(request{expired: keys})
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// expiredEntry says whether a queue entry's message has expired and was not sent yet: what was sent once is sent to its end.
func expiredEntry(db *pebble.DB, key, value []byte, now int64) (mid uint64, expired bool, err error) {
	var e record.Entry
	if e.Decode(value) != nil || e.Flags&(record.EntrySent|record.EntryReleased) != 0 {
		return 0, false, nil
	}
	m := e.Message
	if e.Mid != 0 {
		message, err := get(db, record.MessageKey(nil, e.Mid))
		if err != nil || m.Decode(message) != nil {
			return 0, false, err
		}
	}
	if m.Expires <= 0 || m.Expires > now {
		return 0, false, nil
	}
	sid, pos := record.Number(key, 0), record.Number(key, 1)
	sent, err := get(db, record.SentKey(nil, sid))
	return e.Mid, err == nil && pos > record.ReadNumber(sent), err
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
		mid, expired, err := expiredEntry(db, key, value, now)
		if err != nil {
			return err
		}
		if !expired {
			continue
		}
		err = b.Delete(key, nil)
		if mid != 0 {
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
