package store

import (
	"bytes"
	"errors"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/ringmq/ringmq/broker/record"
)

const (
	reapEvery = time.Second
	// endedAge is how long the records of an ended Session stay: a publication that was matched before the end may still be
	// on its way from another shard.
	endedAge   = 10 * time.Second
	reapChunk  = 4096    // entries per batch of the reaper
	droppedMax = 1 << 18 // messages that are noted, some 4 MiB; where more lose references in a round, all that there are are looked at
	searchPart = 1 << 15 // of them, in a round
)

// reaper collects what may have become garbage: messages that lost a reference, and Sessions that ended.
type reaper struct {
	mu     sync.Mutex // guards what follows, up to missed
	mids   map[uint64]struct{}
	sids   map[uint64]ended
	missed bool // messages may have lost references that are not in mids

	swept bool
	next  []byte // where the search through all messages goes on; nil: none is under way
}

// ended is a Session that ended.
type ended struct {
	since time.Time
	swept bool // by the sweep, for there was no record of it
}

// dropped notes that messages have lost a reference: after that can be seen in the database, for who looks before takes the message
// for needed and does not look again.
func (r *reaper) dropped(mids ...uint64) {
	if len(mids) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mids == nil {
		r.mids = make(map[uint64]struct{})
	}
	for _, mid := range mids {
		if len(r.mids) == droppedMax {
			r.missed = true
			return
		}
		r.mids[mid] = struct{}{}
	}
}

// takeDropped hands over the messages that were noted.
func (r *reaper) takeDropped() (mids []uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for mid := range r.mids {
		mids = append(mids, mid)
	}
	r.mids = nil // A map keeps the memory that it had once.
	return mids
}

// miss has all messages looked at.
func (r *reaper) miss() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.missed = true
}

// searches says whether a search through all messages is under way or begins now.
func (r *reaper) searches() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == nil && r.missed {
		r.missed = false
		r.next, _ = record.Bounds(record.KindMessage)
	}
	return r.next != nil
}

// ended notes a Session that ended; swept is that nothing but the lack of its record says so.
func (r *reaper) ended(sid uint64, swept bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sids == nil {
		r.sids = make(map[uint64]ended)
	}
	if e, noted := r.sids[sid]; noted && swept && !e.swept {
		return // its end is on record
	}
	r.sids[sid] = ended{time.Now(), swept}
}

// takeEnded hands over the Sessions whose end is old enough.
func (r *reaper) takeEnded(age time.Duration) (sids, swept []uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for sid, e := range r.sids {
		if time.Since(e.since) < age {
			continue
		}
		if e.swept {
			swept = append(swept, sid)
		} else {
			sids = append(sids, sid)
		}
		delete(r.sids, sid)
	}
	if len(r.sids) == 0 {
		r.sids = nil
	}
	return sids, swept
}

// reap is the reaper's goroutine.
func (s *Store) reap() {
	for given := int64(0); ; {
		select {
		case <-s.stop:
			return
		case <-time.After(reapEvery):
			s.reapOnce(endedAge)
			s.keepBallast()
			s.expireOnce()
			s.reclaimOnce()
			if s.reclaim.rests() {
				if n := s.counts.commits.Load(); n != given { // it walks through all that the C library keeps
					giveBack()
					given = n
				}
				s.config.Idle()
			}
		}
	}
}

// reapOnce removes what is garbage. What fails is garbage still and found by the sweep of the next run.
func (s *Store) reapOnce(age time.Duration) {
	s.mu.Lock()
	in := s.in
	s.mu.Unlock()
	if !s.reaper.swept {
		s.reaper.swept = s.suspect(in, in.do(s.sweep)) == nil
	}
	sids, swept := s.reaper.takeEnded(age)
	for _, sid := range swept {
		s.put(request{swept: sid})
	}
	for _, sid := range sids {
		if s.suspect(in, s.reapSession(in, sid)) != nil {
			s.reaper.ended(sid, false)
		}
	}
	s.reapDropped(in)
	s.searchMessages(in)
}

// reapDropped removes the messages that have lost a reference and that no entry needs.
func (s *Store) reapDropped(in *instance) {
	mids := s.reaper.takeDropped()
	if len(mids) > 0 && s.suspect(in, in.do(func(db *pebble.DB) error { return reapMessages(db, mids) })) != nil {
		s.reaper.dropped(mids...)
	}
}

// searchMessages is reapDropped for the next part of all messages, when some were not noted. How many there are only the disk bounds: so many
// fit in no memory.
func (s *Store) searchMessages(in *instance) {
	r := &s.reaper
	if !r.searches() {
		return
	}
	var next []byte
	from := r.next
	if s.suspect(in, in.do(func(db *pebble.DB) (err error) {
		next, err = reapPart(db, from)
		return err
	})) == nil { // What do has left behind still writes to next.
		r.next = next
	}
}

// sweep finds what a run that did not end well has left: Sessions that ended, records of Sessions that are no more, and messages
// without references.
func (s *Store) sweep(db *pebble.DB) error {
	ended := func(sid uint64, swept bool) error {
		session, err := get(db, record.SessionKey(nil, sid))
		if err == nil && session == nil {
			s.reaper.ended(sid, swept)
		}
		return err
	}
	from, to := record.Bounds(record.KindEnded)
	if err := each(db, from, to, func(key, _ []byte) error {
		return ended(record.Number(key, 0), false) // unless a salvage has brought the Session back
	}); err != nil {
		return err
	}
	if err := eachOwner(db, record.KindEntry, func(sid uint64) error {
		return ended(sid, !s.config.mustExist) // a tool has no writer, and nobody writes a Session anew
	}); err != nil {
		return err
	}
	s.reaper.miss()
	return nil
}

// eachOwner gives the first number of all keys of a kind to f, each once, by jumping from one to the next.
func eachOwner(db *pebble.DB, k record.Kind, f func(uint64) error) error {
	from, to := record.Bounds(k)
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; {
		owner := record.Number(it.Key(), 0)
		if err := f(owner); err != nil {
			return errors.Join(err, it.Close())
		}
		_, next := record.Bounds(k, owner)
		ok = it.SeekGE(next)
	}
	return errors.Join(it.Error(), it.Close())
}

// reapMessages removes those messages that no entry needs.
func reapMessages(db *pebble.DB, mids []uint64) error {
	it, err := db.NewIter(nil)
	if err != nil {
		return err
	}
	b := db.NewBatch()
	defer b.Close()
	for _, mid := range mids {
		from, to := record.Bounds(record.KindReference, mid)
		it.SetBounds(from, to)
		if !it.First() && it.Error() == nil {
			if err := b.Delete(record.MessageKey(nil, mid), nil); err != nil {
				return errors.Join(err, it.Close())
			}
		}
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return err
	}
	return db.Apply(b, pebble.NoSync)
}

// reapPart is reapMessages for those from a key on, as many as are looked at in a round, and says where to go on; nil: that was the last part.
func reapPart(db *pebble.DB, from []byte) (next []byte, err error) {
	var mids []uint64
	_, to := record.Bounds(record.KindMessage)
	err = each(db, from, to, func(key, _ []byte) error {
		if len(mids) == searchPart {
			next = bytes.Clone(key)
			return errEnough
		}
		mids = append(mids, record.Number(key, 0))
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	return next, reapMessages(db, mids)
}

// mendReferences writes the references that entries lack: without them the reaper would take their messages for garbage.
func mendReferences(db *pebble.DB) error {
	from, to := record.Bounds(record.KindEntry)
	return each(db, from, to, func(key, value []byte) error {
		var e record.Entry
		if e.Decode(value) != nil || e.Mid == 0 {
			return nil
		}
		reference := record.ReferenceKey(nil, e.Mid, record.Number(key, 0), record.Number(key, 1))
		is, err := get(db, reference)
		if err != nil || is != nil {
			return err
		}
		return db.Set(reference, nil, pebble.NoSync)
	})
}

// reapReferences removes the references of entries that are gone, which keep messages that nobody needs. Only a salvage loses one without the other.
func reapReferences(db *pebble.DB) error {
	from, to := record.Bounds(record.KindReference)
	return each(db, from, to, func(key, _ []byte) error {
		entry, err := get(db, record.EntryKey(nil, record.Number(key, 1), record.Number(key, 2)))
		if err != nil || entry != nil {
			return err
		}
		return db.Delete(key, pebble.NoSync)
	})
}

// reapSwept is the writer's: a part of what the sweep has found without a Session, unless there is one now. After a salvage while the broker serves
// shards write their Sessions anew, and only the writer knows that none comes in between.
func (s *Store) reapSwept(db *pebble.DB, sid uint64) (more bool, err error) {
	session, err := get(db, record.SessionKey(nil, sid))
	if err != nil || session != nil {
		return false, err
	}
	if more, err = s.reapQueue(db, sid); more || err != nil {
		return more, err
	}
	return false, reapRest(db, sid)
}

// reapSession removes what an ended Session has left. Where the broker closes meanwhile the next run goes on.
func (s *Store) reapSession(in *instance, sid uint64) error {
	for more := true; more; {
		if err := in.do(func(db *pebble.DB) (err error) {
			more, err = s.reapQueue(db, sid)
			return err
		}); err != nil || s.isClosing() {
			return err
		}
		s.reapDropped(in)
	}
	return in.do(func(db *pebble.DB) error { return reapRest(db, sid) })
}

// reapQueue removes a chunk of a queue, and says whether there is more of it.
func (s *Store) reapQueue(db *pebble.DB, sid uint64) (more bool, err error) {
	from, to := record.Bounds(record.KindEntry, sid)
	b := db.NewBatch()
	defer b.Close()
	n, mids := 0, []uint64(nil)
	err = each(db, from, to, func(key, value []byte) error {
		if n == reapChunk {
			return errEnough
		}
		n++
		var e record.Entry
		if e.Decode(value) == nil && e.Mid != 0 {
			mids = append(mids, e.Mid)
			_ = b.Delete(record.ReferenceKey(nil, e.Mid, sid, record.Number(key, 1)), nil)
		}
		return b.Delete(key, nil)
	})
	if more = errors.Is(err, errEnough); err != nil && !more {
		return false, err
	}
	if err := db.Apply(b, pebble.NoSync); err != nil {
		return false, err
	}
	s.reclaim.deleted.Add(int64(n))
	s.reaper.dropped(mids...)
	return more, nil
}

// reapRest removes what an ended Session has left beside its queue.
func reapRest(db *pebble.DB, sid uint64) error {
	b := db.NewBatch()
	defer b.Close()
	for _, k := range [...]record.Kind{record.KindSubscription, record.KindReceived, record.KindSent} {
		from, to := record.Bounds(k, sid)
		if err := b.DeleteRange(from, to, nil); err != nil {
			return err
		}
	}
	if err := b.Delete(record.EndedKey(nil, sid), nil); err != nil {
		return err
	}
	return db.Apply(b, pebble.NoSync)
}
