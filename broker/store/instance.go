package store

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// errClosed is what is answered when the store has been closed.
var errClosed = errors.New("the store is closed")

// instance is one opening of Pebble.
type instance struct {
	db    *pebble.DB // set by openInstance; used by what do runs, and by the last, which closes it
	fence *fenceFS

	once   sync.Once
	err    error         // why it failed; read after failed is closed
	failed chan struct{} // closed when Pebble gave up
	dead   chan struct{} // closed when Pebble could not open: nobody will ever close what it has begun
	closes chan struct{} // closed when nothing but its closing is left

	suspected atomic.Bool // Store.countUnread has been told of it

	mu    sync.Mutex // guards what follows
	users int        // goroutines of do that have not ended
	last  func()     // closes the database when there are no users any more; nil: it stays open
}

func newInstance() *instance {
	return &instance{failed: make(chan struct{}), dead: make(chan struct{}), closes: make(chan struct{})}
}

// fail notes the first failure.
func (in *instance) fail(err error) {
	in.once.Do(func() {
		in.err = err
		in.fence.up.Store(true)
		close(in.failed)
	})
}

// do runs f on a goroutine of its own, which Pebble may end by Fatalf or a panic: both become the instance's failure. When the
// instance fails otherwise it does not wait for f, which goes on with the database until it ends.
func (in *instance) do(f func(*pebble.DB) error) error {
	if err := in.enter(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		defer in.leave()
		in.run(f, done)
	}()
	return in.await(done)
}

// run answers with what f returns, or with the instance's failure when f never does.
func (in *instance) run(f func(*pebble.DB) error, done chan<- error) {
	ended := false
	defer func() {
		if ended {
			return
		}
		in.fail(fmt.Errorf("store: %v", recover()))
		done <- in.err
	}()
	err := f(in.db)
	ended = true
	done <- err
}

func (in *instance) await(done <-chan error) error {
	select {
	case err := <-done:
		if in.hasFailed() { // what Pebble was not told of
			return in.err
		}
		return err
	case <-in.failed:
		return in.err
	}
}

// enter counts a user, unless the database is, or is to be, closed.
func (in *instance) enter() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.hasFailed() {
		return in.err
	}
	if in.last != nil {
		return errClosed
	}
	in.users++
	return nil
}

// leave is the end of a user. The last one closes a database that is to be closed.
func (in *instance) leave() {
	in.mu.Lock()
	in.users--
	last := in.last
	if in.users > 0 {
		last = nil
	}
	in.mu.Unlock()
	if last != nil {
		last()
	}
}

// afterUsers has the database closed, once, when nobody uses it: at once, or by the last user. What Pebble's locks hold for ever keeps
// the database open, and nobody waits for it.
func (in *instance) afterUsers(last func()) {
	in.mu.Lock()
	first := in.last == nil
	if first {
		in.last = func() {
			close(in.closes)
			last()
		}
	}
	now := first && in.users == 0
	in.mu.Unlock()
	if now {
		go in.last()
	}
}

func (in *instance) hasFailed() bool {
	select {
	case <-in.failed:
		return true
	default:
		return false
	}
}

// close closes the database in order, when what uses it has ended; finish is the last that is done with it.
func (in *instance) close(finish func(*pebble.DB) error) error {
	done := make(chan error, 1)
	in.afterUsers(func() {
		finished := false
		defer func() {
			if !finished {
				in.tryClose()
			}
		}()
		in.run(func(db *pebble.DB) error {
			err := finish(db)
			finished = true
			return errors.Join(err, db.Close())
		}, done)
	})
	return in.await(done)
}

// discard closes an instance that has failed, as far as that is possible: a goroutine that Fatalf ended may have left Pebble's
// locks taken, and then what it holds in memory is lost until the process ends.
func (in *instance) discard() {
	in.fail(errFenced)
	in.afterUsers(in.tryClose)
}

func (in *instance) tryClose() {
	defer func() { _ = recover() }()
	if in.db != nil {
		_ = in.db.Close()
	}
}

// fatalLogger is what Pebble logs to. Fatalf must not return.
type fatalLogger struct {
	in  *instance
	log func(string)
}

// Infof drops what Pebble tells about its work.
func (fatalLogger) Infof(string, ...any) {}

// Errorf passes an error on.
func (l fatalLogger) Errorf(format string, args ...any) { l.log(fmt.Sprintf(format, args...)) }

// Fatalf fails the instance and ends the goroutine.
func (l fatalLogger) Fatalf(format string, args ...any) {
	l.in.fail(fmt.Errorf(format, args...))
	runtime.Goexit()
}

// openInstance opens Pebble. It may fail by Fatalf as well, so it runs as do runs things.
func (s *Store) openInstance(dir string, fresh bool) (*instance, error) {
	in := newInstance()
	in.fence = newFence(s.config.FS, dir, s.config.Durability == OS, in.fail)
	in.fence.syncs = &s.syncTimes
	err := in.do(func(*pebble.DB) error {
		defer func() {
			if in.db == nil {
				close(in.dead)
			}
		}()
		db, err := pebble.Open(dir, s.pebbleOptions(in, fresh))
		if err == nil {
			in.db = db
		}
		return err
	})
	if err != nil {
		in.fail(err)
		s.countUnread(nil, in, err)
		in.discard() // it may have opened all the same, or be about to
		return nil, err
	}
	return in, nil
}

func (s *Store) pebbleOptions(in *instance, fresh bool) *pebble.Options {
	o := &pebble.Options{
		FS: in.fence, Cache: s.cache, Logger: fatalLogger{in, s.warn},
		FormatMajorVersion: databaseFormat, DisableWAL: s.config.Durability == None,
		// A queue is written once and deleted soon: large memtables let much of it die before it is ever written to a table.
		MemTableSize: uint64(s.config.MemTableBytes), MemTableStopWritesThreshold: memTables,
		L0CompactionThreshold: l0Sublevels, L0StopWritesThreshold: 4 * l0Sublevels, MaxOpenFiles: OpenFilesMax,
		WALBytesPerSync: 0, FlushDelayDeleteRange: flushDelay,
		ErrorIfNotExists: !fresh, ReadOnly: s.config.readOnly,
	}
	o.EventListener = &pebble.EventListener{BackgroundError: func(err error) { s.onBackgroundError(in, err) },
		DataCorruption: func(i pebble.DataCorruptionInfo) { s.suspect(in, i.Details) }}
	return o
}

// check reads every block of every table.
func (in *instance) check() error {
	return in.do(func(db *pebble.DB) error { return db.CheckLevels(nil) })
}

// diskFS is the file system of the machine.
func diskFS() vfs.FS { return vfs.Default }
