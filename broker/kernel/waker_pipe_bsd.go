//go:build netbsd || openbsd

package kernel

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// waker is a pipe: these systems' kqueue has had no user event for long.
type waker struct {
	ends [2]int // to read, to write
}

func (w *waker) open(kqueue int) error {
	// Until it is marked, a child that another goroutine starts would inherit the pipe.
	syscall.ForkLock.RLock()
	err := unix.Pipe(w.ends[:])
	if err == nil {
		unix.CloseOnExec(w.ends[0])
		unix.CloseOnExec(w.ends[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return err
	}
	var change [1]unix.Kevent_t
	unix.SetKevent(&change[0], w.ends[0], unix.EVFILT_READ, unix.EV_ADD)
	_, err = unix.Kevent(kqueue, change[:], nil, nil)
	err = errors.Join(err, unix.SetNonblock(w.ends[0], true), unix.SetNonblock(w.ends[1], true))
	if err != nil {
		_ = w.close() // The first error is the one to report.
	}
	return err
}

func (w *waker) wake(int) {
	// It fails only when the pipe is full, and then the poller wakes without it.
	_, _ = unix.Write(w.ends[1], []byte{1})
}

// owns tells whether the event is the waker's, and if so empties the pipe.
func (w *waker) owns(e *unix.Kevent_t) bool {
	if int(e.Ident) != w.ends[0] {
		return false
	}
	var scratch [64]byte
	_, _ = unix.Read(w.ends[0], scratch[:]) // What is left is reported again.
	return true
}

func (w *waker) close() error {
	return errors.Join(unix.Close(w.ends[0]), unix.Close(w.ends[1]))
}
