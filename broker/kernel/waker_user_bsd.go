//go:build darwin || dragonfly || freebsd

package kernel

import "golang.org/x/sys/unix"

// waker is a kqueue's user event: no descriptor, and nothing to read.
type waker struct{}

func (waker) open(kqueue int) error {
	var change [1]unix.Kevent_t
	unix.SetKevent(&change[0], 0, unix.EVFILT_USER, unix.EV_ADD|unix.EV_CLEAR)
	_, err := unix.Kevent(kqueue, change[:], nil, nil)
	return err
}

func (waker) wake(kqueue int) {
	var change [1]unix.Kevent_t
	unix.SetKevent(&change[0], 0, unix.EVFILT_USER, 0)
	change[0].Fflags = unix.NOTE_TRIGGER
	// The event is registered for as long as the kqueue is open, so that nothing can fail.
	_, _ = unix.Kevent(kqueue, change[:], nil, nil)
}

func (waker) owns(e *unix.Kevent_t) bool { return e.Filter == unix.EVFILT_USER }

func (waker) close() error { return nil }
