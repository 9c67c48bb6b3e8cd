package store

import (
	"time"

	"golang.org/x/sys/unix"
)

// pause sleeps for less than a timer of Go's can tell. The thread sleeps and the scheduler takes its processor if that matters.
func pause(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&t, nil) // a signal ends it early, which does no harm
}
