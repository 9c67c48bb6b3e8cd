package store

import (
	"bytes"
	"errors"
	"math"
	"sync/atomic"
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

// never is when a message expires that does not, for what looks for the first one.
const never = math.MaxInt64

// expiry is the search for expired messages. Clients that are away for long do not find them, so somebody must. A search goes through all
// queues, and the next one begins when something can have expired: not to read what never will, again and again.
type expiry struct {
	search  search       // the reaper's
	written atomic.Int64 // when the first one expires of those that were committed since the search began; the writer's and the reaper's
}

// search is where a search is.
type search struct {
	next    []byte // where it goes on; nil: none is under way
	soonest int64  // when the first one expires of those that it has left; 0: at once, for there was no search, or it was for nothing
}

// committed is told, once a batch can be read, when the first message in it expires.
func (e *expiry) committed(at int64) {
	for old := e.written.Load(); at < old && !e.written.CompareAndSwap(old, at); old = e.written.Load() {
	}
}

// begins says whether a search is under way or begins now.
func (e *expiry) begins(now int64) bool {
	if e.search.next != nil {
		return true
	}
	if min(e.search.soonest, e.written.Load()) > now {
		return false
	}
	e.written.Store(never)
	first, _ := record.Bounds(record.KindEntry)
	e.search = search{next: first, soonest: never}
	return true
}

// left notes an entry that the search leaves. One that has expired is for the writer to remove: whether it has, the next search sees.
func (e *search) left(found foundEntry, now int64) {
	switch {
	case found.expired:
		e.soonest = 0
	case found.expires > now:
		e.soonest = min(e.soonest, found.expires)
	}
}

// expiresAt is when the message in a record expires that something may wait for.
func expiresAt(key, value []byte) int64 {
	at := int64(0)
	switch record.Kind(key[0]) {
	case record.KindEntry:
		at = record.EntryExpires(value)
	case record.KindMessage:
		at = record.MessageExpires(value)
	}
	if at <= 0 {
		return never
	}
	return at
}

// expireOnce looks at the next part of all queues and has the writer remove what has expired. Only the writer may remove it: it alone knows
// that an entry is still as it was found. While it cannot, there is no use in finding more.
func (s *Store) expireOnce() {
	e, now := &s.expiry, time.Now().UnixMilli()
	if s.Health().Refusing || !e.begins(now) {
		return
	}
	s.mu.Lock()
	in := s.in
	s.mu.Unlock()
	var keys [][]byte
	at := e.search
	err := in.do(func(db *pebble.DB) (err error) {
		keys, err = at.part(db, now)
		return err
	})
	if s.suspect(in, err) != nil { // What do has left behind may still write to keys.
		return // The same part is next: what cannot be read for ever is to be met often enough to be given up, however much there is before it.
	}
	if e.search = at; len(keys) > 0 {
		s.put(request{expired: keys})
	}
}

// part gives the keys of entries that have expired in the next part of all queues.
func (e *search) part(db *pebble.DB, now int64) (keys [][]byte, err error) {
	_, to := record.Bounds(record.KindEntry)
	n, size, from := 0, 0, e.next
	e.next = nil
	err = each(db, from, to, func(key, value []byte) error {
		found, err := look(db, key, value, now)
		if err != nil {
			return err
		}
		if e.left(found, now); found.expired {
			keys = append(keys, bytes.Clone(key))
		}
		if n, size = n+1, size+found.bytes; n == expiryChunk || size >= expiryBytes {
			e.next = append(bytes.Clone(key), 0) // behind it
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return keys, err
}

// foundEntry is what look finds out about a queue entry.
type foundEntry struct {
	expired bool
	expires int64  // as in record.Message; 0 when it was sent
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
	if found.expires = m.Expires; m.Expires <= 0 || m.Expires > now {
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
		if err := s.expire(b, key, value); err != nil {
			return err
		}
		if found.mid != 0 {
			unreferenced = append(unreferenced, found.mid)
		}
		n++
	}
	if err := db.Apply(b, pebble.NoSync); err != nil { // lost with the power, they are found again
		return err
	}
	s.counts.expired.Add(n)
	s.reclaim.deleted.Add(n)
	s.reaper.dropped(unreferenced...)
	return nil
}

// expire removes an entry. One of QoS 2 that an earlier run may have sent, and died before it said so, becomes the release of its Packet
// Identifier: its client may hold on to that, and would take the next message that has it for this one.
func (s *Store) expire(b *pebble.Batch, key, value []byte) error {
	var e record.Entry
	if err := e.Decode(value); err != nil {
		return err
	}
	sid, pos := record.Number(key, 0), record.Number(key, 1)
	if e.Flags&record.EntryQoS == 2 && pos < record.FirstOf(s.Boot()) {
		return doubtEntry(b, key, &e)
	}
	err := b.Delete(key, nil)
	if e.Mid != 0 {
		err = errors.Join(err, b.Delete(record.ReferenceKey(nil, e.Mid, sid, pos), nil))
	}
	return err
}
