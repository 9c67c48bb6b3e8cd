package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/ringmq/ringmq/broker/record"
)

// early does something with the store before Start, when nobody else opens it again, and opens it where that is still to be done. A disk that
// cannot read is asked again, as often and as slowly as later on; what is damaged, or can never be read, is salvaged, once. Whether f comes
// upon it or Pebble does in the background makes no difference. What f returns must be its own: an earlier try of it may still be at work.
func early[T any](s *Store, f func(*pebble.DB) (T, error)) (T, error) {
	var nothing T
	salvaged := false
	for n := 1; ; n++ {
		var (
			result T
			err    error
		)
		if s.in == nil {
			s.in, err = s.openDatabase()
		}
		if err == nil {
			err = s.in.do(func(db *pebble.DB) (err error) {
				result, err = f(db)
				return err
			})
		}
		if err == nil {
			return result, nil
		}
		again := isUnread(err) && n < unreadMax
		if s.config.mustExist || s.fresh && s.isEmpty() || !isUnread(err) && !isDamage(err) || salvaged && !again {
			if _, writing := errors.AsType[writeError](err); writing {
				return nothing, s.unusable(err)
			}
			return nothing, fmt.Errorf("open the store in %s: %w", s.config.Dir, err)
		}
		if s.in != nil {
			s.in.discard()
			s.in = nil
		}
		if again {
			wait := unreadPause(s.config.unreadEvery, n)
			s.warn(fmt.Sprintf("the store cannot be read, which is tried again in %v, try %d of %d: %v", wait, n+1, unreadMax, err))
			time.Sleep(wait)
		} else {
			if err := s.salvage(err, true); err != nil {
				return nothing, fmt.Errorf("salvage the store in %s: %w", s.config.Dir, err)
			}
			n, salvaged = 0, true
		}
		s.damage.Store(nil) // which Pebble may have told in the background
		s.unread.forget()
	}
}

// openFirst opens Pebble and begins a new run.
func (s *Store) openFirst() error {
	if s.config.mustExist {
		_, err := early(s, func(*pebble.DB) (struct{}, error) { return struct{}{}, nil })
		return err
	}
	if _, err := early(s, verify); err != nil {
		return err
	}
	if s.fresh || s.badFormat {
		if err := s.noteFormat(); err != nil {
			return err
		}
	}
	r, err := early(s, s.beginRun)
	if err != nil {
		return err
	}
	s.boot, s.last, s.commits, s.done = r.boot, r.last.at, r.last.commits, r.last.commits
	s.lacks.Store(0)
	s.doubt.Store(r.last.doubt)
	s.accepted.Store(r.last.accepted)
	if r.lost > 0 {
		s.counts.lostCommits.Store(int64(r.lost))
		s.counts.doubted.Add(r.doubted)
		s.tellLoss(r.lost, r.doubted)
	}
	if r.putBack {
		s.counts.doubted.Add(r.doubted)
		if err := s.forgetPutBack(r.doubted); err != nil {
			return err
		}
	}
	if s.config.Durability == None {
		return s.removeProgress() // what a run without a log loses is no surprise
	}
	s.progress.open(s)
	s.progress.note(s.commits, s.boot)
	return nil
}

// verify reads what the broker reads before it serves. Queues and messages may be large: damage in them is found when they are read.
func verify(db *pebble.DB) (struct{}, error) {
	for _, k := range [...]record.Kind{record.KindBoot, record.KindEnded, record.KindSubscription, record.KindReceived, record.KindRetained,
		record.KindSent, record.KindSession, record.KindTime} {
		from, to := record.Bounds(k)
		if err := each(db, from, to, func([]byte, []byte) error { return nil }); err != nil {
			return struct{}{}, err
		}
	}
	return struct{}{}, nil
}

// run is where a run begins.
type run struct {
	boot    uint32
	last    lastCommit // of the run before
	lost    uint64     // commits of it that are gone
	doubted int64      // messages of QoS 2 that are not delivered for that reason
	putBack bool       // the database was put aside before, and nothing is known of commits
}

// lastCommit is what T says.
type lastCommit struct {
	at      int64  // unix milliseconds
	commits uint64 // of all runs, before it
	doubt   uint32 // how often the store was damaged
	// accepted is what doubt was when a broker last began to serve.
	accepted uint32
	known    bool // there is T
}

// lastTime reads T.
func lastTime(db *pebble.DB) (l lastCommit, err error) {
	v, err := get(db, []byte{byte(record.KindTime)})
	return decodeTime(v), err
}

// decodeTime is what a value of T says.
func decodeTime(v []byte) (l lastCommit) {
	if len(v) < 8 {
		return l
	}
	l.at, l.known = int64(binary.BigEndian.Uint64(v)), true
	if len(v) >= 16 {
		l.commits = binary.BigEndian.Uint64(v[8:])
	}
	if len(v) >= 20 {
		l.doubt = binary.BigEndian.Uint32(v[16:])
	}
	if len(v) >= 24 {
		l.accepted = binary.BigEndian.Uint32(v[20:])
	}
	return l
}

// beginRun finds where the next run begins, and notes that durably, before any number is made of it. What was lost is settled with the same
// sync: that it is settled is never known alone.
func (s *Store) beginRun(db *pebble.DB) (r run, err error) {
	if r, err = s.nextRun(db); err != nil {
		return r, err
	}
	return r, s.noteRun(db, r)
}

// nextRun says where the next run begins.
func (s *Store) nextRun(db *pebble.DB) (r run, err error) {
	boot, err := get(db, []byte{byte(record.KindBoot)})
	if err != nil {
		return r, err
	}
	if len(boot) == 4 {
		r.boot = binary.BigEndian.Uint32(boot)
	}
	if r.last, err = lastTime(db); err != nil {
		return r, err
	}
	if r.putBack = s.isPutBack(); r.putBack {
		noted, _ := s.readProgress()
		r.last.commits = max(r.last.commits, noted)
	}
	r.lost, r.boot = s.compareProgress(r.last.commits, s.lastBoot(r.boot, r.putBack))
	r.lost = max(r.lost, s.lacks.Load())
	if r.lost > 0 || r.putBack {
		if r.doubted, err = settleDoubt(db, nil); err != nil {
			return r, err
		}
		r.last.commits += r.lost // numbers go on where the lost ones ended
		r.last.doubt++
	}
	r.boot++
	return r, nil
}

// noteRun writes where a run begins.
func (s *Store) noteRun(db *pebble.DB, r run) error {
	if err := s.begin(db, r.boot, r.last); err != nil {
		return err
	}
	if s.config.Durability == None {
		return db.Flush() // numbers must not be used twice even so
	}
	return nil
}

// begin writes that commits go on behind another one, which finds out whether the store can be written.
func (s *Store) begin(db *pebble.DB, boot uint32, l lastCommit) error {
	b := db.NewBatch()
	defer b.Close()
	if err := errors.Join(b.Set([]byte{byte(record.KindBoot)}, binary.BigEndian.AppendUint32(nil, boot), nil), setTime(b, l)); err != nil {
		return err
	}
	return db.Apply(b, s.syncOption())
}

// eachBytes is how much Each reads at a time.
const eachBytes = 1 << 20

// records are some that have been read, one behind the other.
type records struct {
	bytes []byte
	ends  []int // of each key and each value
	more  bool
}

// read reads records from a key up to another.
func (r *records) read(db *pebble.DB, from, to []byte) error {
	err := each(db, from, to, func(key, value []byte) error {
		if r.more = len(r.bytes) >= eachBytes; r.more {
			return errEnough
		}
		r.bytes = append(r.bytes, key...)
		r.ends = append(r.ends, len(r.bytes))
		r.bytes = append(r.bytes, value...)
		r.ends = append(r.ends, len(r.bytes))
		return nil
	})
	if r.more {
		return nil
	}
	return err
}

// Each is part of broker.Store. It is for before Start: what fails is opened again, or salvaged, and goes on behind the last record.
func (s *Store) Each(kind record.Kind, f func(key, value []byte) error) error {
	from, to := record.Bounds(kind)
	for more := true; more; {
		first := from
		r, err := early(s, func(db *pebble.DB) (*records, error) {
			r := new(records)
			return r, r.read(db, first, to)
		})
		if err != nil {
			return err
		}
		start := 0
		for i := 0; i < len(r.ends); i += 2 {
			key := r.bytes[start:r.ends[i]]
			if err := f(key, r.bytes[r.ends[i]:r.ends[i+1]]); err != nil {
				return err
			}
			start, from = r.ends[i+1], key
		}
		if more = r.more; more {
			from = append(append([]byte{}, from...), 0) // the next possible key
		}
	}
	return nil
}
