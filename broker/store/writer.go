package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/record"
)

// gatherShare is what part of the last commit's time the writer waits for shards that it has just answered: they come back within
// a turn, and who comes a moment too late waits for a whole sync.
const (
	gatherShare = 8
	gatherMax   = 300 * time.Microsecond // however long a commit takes
	gatherStep  = 20 * time.Microsecond  // between two looks
)

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
				s.beat()
			}
			if !closing && !s.repair() {
				return
			}
			continue
		}
		start := time.Now()
		if !s.commitUntilDone(round, closing) {
			return
		}
		end := time.Now()
		took, shards = end.Sub(start), 0
		for _, r := range round {
			if r.load != nil {
				s.dispatch(r.load)
				continue
			}
			if r.expired != nil {
				_ = s.suspect(s.in, s.in.do(func(db *pebble.DB) error { return s.removeExpired(db, r.expired) }))
				continue
			}
			if r.swept != 0 {
				s.removeSwept(r.swept)
				continue
			}
			shards++
			s.waits.note(r.at, start)
			s.answers.Committed(r.shard, r.ops)
		}
		if shards > 0 { // Loads alone commit nothing.
			s.commitTimes.note(start, end)
		}
		clear(round)
	}
}

// removeSwept removes a part of what a Session has left, and the next one with the next round. What fails the next run finds.
func (s *Store) removeSwept(sid uint64) {
	in := s.in
	more := make(chan bool, 1)
	err := in.do(func(db *pebble.DB) error {
		m, err := s.reapSwept(db, sid)
		more <- m
		return err
	})
	if s.suspect(in, err) == nil && <-more && !s.isClosing() {
		s.put(request{swept: sid})
	}
}

// gather waits until as many batches as before are there, but not long. It looks again and again: Go's timers are late by up to a
// millisecond where nothing else is to be done, which is several syncs.
func (s *Store) gather(shards int, most time.Duration) {
	for end := time.Now().Add(min(most, gatherMax)); ; pause(gatherStep) {
		s.mu.Lock()
		n := len(s.queue)
		s.mu.Unlock()
		if n >= shards || !time.Now().Before(end) {
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
	if sizeOf(round) == 0 {
		return true // Loads wait for no disk that is full.
	}
	for {
		err := s.waitForSpace(closing)
		if err == nil {
			err = s.commit(round)
		}
		if err == nil {
			s.over(failing)
			return true
		}
		s.counts.failures.Add(1)
		s.troubled(failing, broker.RefuseMessages, err.Error())
		if closing || s.isClosing() {
			return false
		}
		if !s.reopen() {
			return false
		}
	}
}

// sizeOf is how many bytes a round has to commit.
func sizeOf(round []request) (size int) {
	for _, r := range round {
		size += len(r.ops)
	}
	return size
}

func (s *Store) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// commit puts all batches of a round into one batch of Pebble's. Whoever commits for an instance that has failed may still be at
// it when the round is put again and its batches are the shards': it has the batch alone.
func (s *Store) commit(round []request) error {
	size := sizeOf(round)
	s.unreferenced, s.expires = s.unreferenced[:0], never
	b := s.in.db.NewBatchWithSize(size + size/8 + 64)
	for _, r := range round {
		if err := record.Each(r.ops, func(op record.Op, key, value []byte) error { return s.apply(b, op, key, value) }); err != nil {
			return errors.Join(err, b.Close())
		}
		if len(r.ops) > 0 {
			s.counts.batches.Add(1)
		}
	}
	s.commits++
	if err := setTime(b, s.lastCommit(s.commits)); err != nil {
		return errors.Join(err, b.Close())
	}
	s.counts.commits.Add(1)
	s.counts.bytes.Add(int64(b.Len()))
	s.counts.changes.Add(int64(b.Count()))
	if err := s.in.do(func(db *pebble.DB) error { return errors.Join(db.Apply(b, s.syncOption()), b.Close()) }); err != nil {
		return err
	}
	s.noted, s.done = time.Now(), s.commits
	s.progress.note(s.commits, s.boot)
	s.reaper.dropped(s.unreferenced...)
	s.expiry.committed(s.expires)
	return nil
}

// beat notes the time, as commits do, where there has been none for long: after a crash a Session that was connected counts as
// offline since the time that was noted last, and would expire although its client was there all the time.
func (s *Store) beat() {
	if time.Since(s.noted) < s.config.beatEvery || s.answers.Connected() == 0 || s.lookAtSpace() == broker.RefuseAll {
		return
	}
	// What has come meanwhile is tried by the caller, even when this was given up because the broker closes.
	s.commitUntilDone([]request{{ops: record.AppendSet(nil, []byte{byte(record.KindTime)}, nil)}}, false)
}

func (s *Store) apply(b *pebble.Batch, op record.Op, key, value []byte) error {
	switch op {
	case record.Set:
		if record.Kind(key[0]) == record.KindEnded {
			s.reaper.ended(record.Number(key, 0), false)
		}
		s.expires = min(s.expires, expiresAt(key, value))
		return b.Set(key, value, nil)
	case record.Delete:
		s.reclaim.countDeleted(op, key, value)
		if record.Kind(key[0]) == record.KindReference {
			s.unreferenced = append(s.unreferenced, record.Number(key, 0))
		}
		return b.Delete(key, nil)
	case record.DeleteRange:
		s.reclaim.countDeleted(op, key, value)
		return b.DeleteRange(key, value, nil)
	}
	return fmt.Errorf("unknown change %d", op)
}

// reopen abandons the instance and opens the store until that works; false when the broker closes meanwhile.
func (s *Store) reopen() bool {
	s.in.discard()
	for wait := s.unread.pause(s.config.unreadEvery); ; wait = min(2*wait, reopenSeldom) {
		select {
		case <-s.stop:
			return false
		case <-time.After(wait):
		}
		var in *instance
		err := s.tryDisk()
		if err != nil {
			wait = reopenEvery / 2
		} else if in, err = s.openAgain(); err == nil {
			if err = s.tryInstance(in); err != nil {
				in.discard()
			}
		}
		if err != nil {
			s.troubled(failing, broker.RefuseMessages, err.Error())
			s.dropBallast(err)
			continue
		}
		s.adopt(in)
		return true
	}
}

// tryInstance finds out whether an instance that was opened again can be written, and what it lacks: without a log, what was not in tables, and with one
// what the disk has lost of it. What lacks is a loss that the shards have to know of, and the next runs.
func (s *Store) tryInstance(in *instance) error {
	l, done, lacks := s.lastCommit(s.commits), s.done, s.lacks.Load()
	type loss struct {
		commits uint64
		doubted int64
	}
	found := make(chan loss, 1)
	err := in.do(func(db *pebble.DB) error {
		last, err := lastTime(db)
		if err != nil {
			return err
		}
		lost := loss{commits: goneCommits(done, last) + lacks}
		l.commits += lacks // numbers go on where the lost ones ended
		if lost.commits > 0 {
			l.doubt++
			if lost.doubted, err = settleDoubt(db, nil); err != nil {
				return err
			}
		}
		found <- lost
		if err = s.begin(db, s.boot, l); err != nil || lost.commits == 0 || s.config.Durability != None {
			return err
		}
		return db.Flush() // otherwise the next instance would lack the same once more
	})
	if err != nil {
		return err
	}
	s.commits += lacks
	s.lacks.Store(0)
	if lost := <-found; lost.commits > 0 {
		s.doubt.Add(1)
		s.counts.doubted.Add(lost.doubted)
		s.tellGone(lost.commits)
	}
	return nil
}

// goneCommits is how many commits are gone of those that were made, when T says which was the last.
func goneCommits(done uint64, last lastCommit) uint64 { return done - min(done, last.commits) }

// tellGone makes it known that commits of this run are gone.
func (s *Store) tellGone(n uint64) {
	s.counts.lostCommits.Add(int64(n))
	s.warn(fmt.Sprintf("%d commits are gone: messages that were acknowledged, and Sessions and subscriptions made since; %s", n, s.whyLost()))
}

// adopt goes on with another instance.
func (s *Store) adopt(in *instance) {
	s.mu.Lock()
	s.in = in
	var again []*broker.Load
	for l := range s.loading {
		again = append(again, l)
	}
	s.mu.Unlock()
	s.warn("the store is open again")
	s.expiry.committed(0) // What was removed may be back, in what was not synced or was read of a damaged table.
	s.work.Go(func() {    // what readers that were at it in the old instance answer late is not answered twice
		for _, l := range again {
			s.answer(s.load(in, l))
		}
	})
}

// openAgain opens the store after a failure, and salvages it where damage was the reason.
func (s *Store) openAgain() (*instance, error) {
	why := s.damage.Load()
	if why == nil {
		in, err := s.openDatabase()
		if err == nil || !s.isDamaged(err) && !(isDamage(err) && s.hasFiles()) {
			return in, err
		}
		why = &err
	}
	if err := s.salvage(*why, false); err != nil {
		err = fmt.Errorf("the store is damaged (%w) and not salvaged yet: %w", *why, err)
		s.warn(err.Error())
		return nil, err
	}
	return s.openDatabase()
}

// repair opens the store anew if it has failed beside the writer; false when the broker closes meanwhile.
func (s *Store) repair() bool {
	select {
	case <-s.in.failed:
	default:
		return true
	}
	s.counts.failures.Add(1)
	s.troubled(failing, broker.RefuseMessages, s.in.err.Error())
	if !s.reopen() {
		return false
	}
	s.over(failing)
	return true
}

// lastCommit is a commit of now, behind so many.
func (s *Store) lastCommit(commits uint64) lastCommit {
	return lastCommit{at: time.Now().UnixMilli(), commits: commits, doubt: s.doubt.Load(), accepted: s.accepted.Load()}
}

// suspect is told what an access to an instance has said. What cannot be read ends the instance: the writer reopens the store, and salvages
// it where damage was the reason.
func (s *Store) suspect(in *instance, err error) error { return s.suspectIn(nil, in, err) }

// suspectIn is suspect for what a load has met; nil: something else.
func (s *Store) suspectIn(load *broker.Load, in *instance, err error) error {
	if err == nil || errors.Is(err, errClosed) || in.hasFailed() || !s.countUnread(load, in, err) {
		return err
	}
	if s.isDamaged(err) {
		s.damage.CompareAndSwap(nil, &err)
	}
	in.fail(err)
	s.signal()
	return err
}

// countUnread counts what could not be read of an instance, once: an opening that fails may be told of in the background, too. It says
// whether this was the first that was told of the instance.
func (s *Store) countUnread(load *broker.Load, in *instance, err error) bool {
	if !in.suspected.CompareAndSwap(false, true) {
		return false
	}
	if isUnread(err) {
		s.unread.count(load)
	}
	return true
}

// isDamaged says whether an instance cannot be read because of damage, as which counts what the disk does not read again and again.
func (s *Store) isDamaged(err error) bool {
	return isUnread(err) && s.unread.tooOften() || pebble.IsCorruptionError(err)
}

// failedPace is how often an instance that has failed may try in the background until it is closed.
const failedPace = 100 * time.Millisecond

// onBackgroundError is told that tables cannot be written or read. Commits would still work until memory is full of what is to
// be written: the store is opened anew, which refuses messages until that works. What Pebble tries in the background it tries again at
// once, and for ever where its Open has failed: an instance that has failed is slowed down, and then ended.
func (s *Store) onBackgroundError(in *instance, err error) {
	if in.hasFailed() {
		select {
		case <-in.dead:
			runtime.Goexit()
		case <-in.closes:
		case <-time.After(failedPace):
		}
		return
	}
	s.warn("store: " + err.Error())
	_ = s.suspect(in, err)
}

// tryDisk writes a small file. While that fails Pebble is not opened: each opening that fails may cost memory.
func (s *Store) tryDisk() error {
	name := filepath.Join(s.config.Dir, probeFile)
	if err := writeFile(s.config.FS, name, make([]byte, 4096)); err != nil {
		_ = s.config.FS.Remove(name) // which may not be there
		return err
	}
	return s.config.FS.Remove(name)
}

// probeFile is what tryDisk writes.
const probeFile = "probe.ringmq"
