package store

import (
	"errors"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/ringmq/ringmq/broker"
)

const (
	// unreadMax is how often in a row reading fails before that is taken for damage. With the pauses in between these are eight seconds.
	unreadMax    = 6
	unreadForget = time.Minute // after the last failure: who has to be read may not ask at once
)

// unread counts what the disk could not read. A disk that fails for a moment is no reason to give a table up, and one with a bad sector, or
// whose file system finds a wrong checksum, gives the same error for ever.
type unread struct {
	mu   sync.Mutex // guards what follows
	n    int        // failures in a row
	last time.Time
	load *broker.Load // which met the last one; nil: something else did, of which nobody can say that it works again
}

// writeError is an error of something that was to be changed.
type writeError struct{ error }

// Unwrap is the error itself.
func (e writeError) Unwrap() error { return e.error }

// isUnread says whether an error is that of a disk that cannot read.
func isUnread(err error) bool {
	if _, writing := errors.AsType[writeError](err); writing {
		return false
	}
	return slices.ContainsFunc(unreadErrnos[:], func(e syscall.Errno) bool { return errors.Is(err, e) })
}

// count counts a failure to read, by a load or something else.
func (u *unread) count(load *broker.Load) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if time.Since(u.last) > unreadForget {
		u.n = 0
	}
	u.n, u.last, u.load = u.n+1, time.Now(), load
}

// works is told of a load that was done: where it is the one that failed, the row of failures has ended.
func (u *unread) works(load *broker.Load) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.load == load {
		u.n, u.load = 0, nil
	}
}

// tooOften says whether the failures are too many.
func (u *unread) tooOften() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.n >= unreadMax
}

// forget is for a store that has been salvaged: it has its failures before it.
func (u *unread) forget() {
	u.mu.Lock()
	u.n, u.load = 0, nil
	u.mu.Unlock()
}

// pause is how long to wait before the store is opened again: what has failed too often is given up, for which there is nothing to wait.
func (u *unread) pause(first time.Duration) time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.n == 0 || u.n >= unreadMax || time.Since(u.last) > unreadForget {
		return reopenEvery
	}
	return unreadPause(first, u.n)
}

// unreadPause is the pause after n failures in a row.
func unreadPause(first time.Duration, n int) time.Duration {
	return min(first<<(n-1), reopenSeldom)
}
