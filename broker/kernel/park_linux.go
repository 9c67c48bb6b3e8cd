package kernel

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// parker waits for a poller in the runtime's poller, which watches the epoll descriptor like any other.
type parker struct {
	poller *poller
	file   *os.File // the epoll descriptor
	raw    syscall.RawConn
	look   func(uintptr) bool // isReady, made once

	// What the last look found. A deadline is set in file until hasDeadline is false.
	n           int
	errno       syscall.Errno
	hasDeadline bool
}

// newParker leaves the descriptor to the parker when it succeeds.
func newParker(p *poller) (*parker, error) {
	// os.NewFile gives a descriptor to the runtime's poller only if it does not block.
	if err := unix.SetNonblock(p.fd, true); err != nil {
		return nil, fmt.Errorf("park a poller: %w", err)
	}
	k := &parker{poller: p, file: os.NewFile(uintptr(p.fd), "epoll")}
	k.look = k.isReady
	var err error
	if k.raw, err = k.file.SyscallConn(); err != nil {
		return nil, fmt.Errorf("park a poller: %w", err)
	}
	return k, nil
}

func (k *parker) close() error { return k.file.Close() }

// isReady takes the events that are there. The runtime calls it again only when the descriptor has become readable since.
func (k *parker) isReady(uintptr) bool {
	k.n, k.errno = k.poller.pwait(0)
	return k.n != 0 || k.errno != 0
}

// wait is poller.wait. A negative timeout is none.
func (k *parker) wait(timeout time.Duration) (int, error) {
	if !k.isReady(0) {
		if err := k.sleep(timeout); err != nil {
			return 0, err
		}
	}
	switch k.errno {
	case 0:
		return k.n, nil
	case syscall.EINTR:
		return 0, nil
	}
	return 0, k.errno
}

// sleep returns when something is ready or the timeout has passed.
func (k *parker) sleep(timeout time.Duration) error {
	if timeout > 0 || k.hasDeadline {
		var deadline time.Time
		if timeout > 0 {
			deadline = time.Now().Add(timeout)
		}
		if err := k.file.SetReadDeadline(deadline); err != nil {
			return err
		}
		k.hasDeadline = timeout > 0
	}
	if err := k.raw.Read(k.look); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}
