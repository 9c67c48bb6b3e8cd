package store

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/record"
)

// gatherShare is what part of the last commit's time the writer waits for shards that it has just answered: they come back within
// a turn, and who comes a moment too late waits for a whole sync.
const gatherShare = 8

// write is the writer.
func (s *Store) write() {
	defer close(s.loads)
	var round []request
	shards, took := 0, time.Duration(0)
	for {
		if shards > 1 {
			s.gather(shards, took/gatherShare)
		}
		var closing bool
		round, closing = s.take(round[:0])
		if len(round) == 0 {
			if closing {
				return
			}
			shards = 0
			select {
			case <-s.wake:
			case <-time.After(spaceEvery):
				s.lookAtSpace()
			}
			continue
		}
		start := time.Now()
		if !s.commitUntilDone(round, closing) {
			return
		}
		took, shards = time.Since(start), 0
		for _, r := range round {
			if r.load != nil {
				s.dispatch(r.load)
				continue
			}
			shards++
			s.answers.Committed(r.shard, r.ops)
		}
		clear(round)
	}
}

// gather waits until as many batches as before are there, but not long.
func (s *Store) gather(shards int, most time.Duration) {
	timeout := time.NewTimer(min(most, time.Millisecond))
	defer timeout.Stop()
	for {
		s.mu.Lock()
		n := len(s.queue)
		s.mu.Unlock()
		if n >= shards {
			return
		}
		select {
		case <-s.wake:
		case <-timeout.C:
			return
		}
	}
}

func (s *Store) take(to []request) ([]request, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	to = append(to, s.queue...)
	clear(s.queue)
	s.queue = s.queue[:0]
	return to, s.closing
}

// commitUntilDone makes a round durable, through as many openings of the store as it takes. When the broker is closing it tries but
// once; false says that the round was given up.
func (s *Store) commitUntilDone(round []request, closing bool) bool {
	for {
		err := s.waitForSpace(closing)
		if err == nil {
			err = s.in.do(func(db *pebble.DB) error { return s.commit(db, round) })
		}
		if err == nil {
			s.recovered()
			return true
		}
		s.counts.failures.Add(1)
		s.refuse(true, err.Error())
		if closing || s.isClosing() {
			return false
		}
		if !s.reopen() {
			return false
		}
	}
}

func (s *Store) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// commit puts all batches of a round into one batch of Pebble's.
func (s *Store) commit(db *pebble.DB, round []request) error {
	size := 0
	for _, r := range round {
		size += len(r.ops)
	}
	if size == 0 {
		return nil
	}
	b := db.NewBatchWithSize(size + size/8 + 64)
	defer b.Close()
	for _, r := range round {
		if err := record.Each(r.ops, func(op record.Op, key, value []byte) error { return s.apply(b, op, key, value) }); err != nil {
			return err
		}
		if len(r.ops) > 0 {
			s.counts.batches.Add(1)
		}
	}
	now := time.Now().UnixMilli()
	if err := b.Set([]byte{byte(record.KindTime)}, binary.BigEndian.AppendUint64(nil, uint64(now)), nil); err != nil {
		return err
	}
	s.counts.commits.Add(1)
	s.counts.bytes.Add(int64(b.Len()))
	s.counts.changes.Add(int64(b.Count()))
	return db.Apply(b, s.syncOption())
}

func (s *Store) apply(b *pebble.Batch, op record.Op, key, value []byte) error {
	switch op {
	case record.Set:
		if record.Kind(key[0]) == record.KindEnded {
			s.reaper.ended(record.Number(key, 0))
		}
		return b.Set(key, value, nil)
	case record.Delete:
		if record.Kind(key[0]) == record.KindReference {
			s.reaper.dropped(record.Number(key, 0))
		}
		return b.Delete(key, nil)
	case record.DeleteRange:
		return b.DeleteRange(key, value, nil)
	}
	return fmt.Errorf("unknown change %d", op)
}

// reopen abandons the instance and opens the store until that works; false when the broker closes meanwhile.
func (s *Store) reopen() bool {
	s.in.discard()
	for {
		select {
		case <-s.stop:
			return false
		case <-time.After(reopenEvery):
		}
		in, err := s.openInstance()
		if err != nil {
			s.refuse(true, err.Error())
			s.dropBallast()
			continue
		}
		s.mu.Lock()
		s.in = in
		var again []*broker.Load
		for l := range s.loading {
			again = append(again, l)
		}
		s.mu.Unlock()
		s.warn("the store is open again")
		go func() { // readers may be stuck in the old instance; what they answer late is not answered twice
			for _, l := range again {
				s.answer(s.load(in, l))
			}
		}()
		return true
	}
}

// refuse tells the broker whether to refuse messages, when that changes.
func (s *Store) refuse(on bool, why string) {
	if s.refusing.Swap(on) != on {
		s.answers.Refuse(on, why)
	}
}

// recovered says that a commit worked.
func (s *Store) recovered() {
	if s.refusing.Load() && s.space.enough(s) {
		s.refuse(false, "")
	}
}

func (s *Store) onBackgroundError(err error) {
	s.warn("store: " + err.Error())
}
