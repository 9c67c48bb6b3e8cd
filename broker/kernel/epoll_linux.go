package kernel

// This file uses package unsafe: to give the kernel the addresses of the event list and of a timespec.

import (
	"errors"
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller is level-triggered epoll. An event carries 64 bits of ours: index and generation of a ready.
type poller struct {
	fd         int
	waker      int // an eventfd, edge-triggered: it never needs to be read
	hasPwait2  bool
	park       *parker       // nil: wait in the kernel
	isClosed   bool          // written and read under Plane.wakeMu
	timeout    unix.Timespec // here and not on the stack, from where it would escape at each call
	kernelList [readyMax]unix.EpollEvent
}

func (p *poller) open(park bool) error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll_create1: %w", err)
	}
	p.fd = fd
	p.waker, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(fd) // The first error is the one to report.
		return fmt.Errorf("eventfd: %w", err)
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: -1} // no connection and no listener: someone called Wake
	if err := unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, p.waker, &event); err != nil {
		_ = p.close() // The first error is the one to report.
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	// Linux 5.11 has it; a container's seccomp filter may still forbid it, with any error it likes.
	_, errno := p.pwait2(0)
	p.hasPwait2 = errno == 0
	if !park {
		return nil
	}
	if p.park, err = newParker(p); err != nil {
		return errors.Join(err, p.close())
	}
	return nil
}

func (p *poller) close() error {
	if p.isClosed {
		return nil
	}
	p.isClosed = true
	if p.park != nil {
		return errors.Join(unix.Close(p.waker), p.park.close())
	}
	return errors.Join(unix.Close(p.waker), unix.Close(p.fd))
}

// wake makes wait return. Its caller holds Plane.wakeMu.
func (p *poller) wake() {
	if p.isClosed {
		return
	}
	one := [8]byte{1} // An eventfd adds a 64-bit number in the host's order: any non-zero one will do.
	// It fails only when 2^64-2 wakes have gone before; the poller has seen those.
	_, _ = unix.Write(p.waker, one[:])
}

// add starts watching a connection for its armed interest.
func (p *poller) add(c *conn) error {
	return p.control(unix.EPOLL_CTL_ADD, c)
}

// update makes the watched interest what c wants.
func (p *poller) update(c *conn) {
	if err := p.control(unix.EPOLL_CTL_MOD, c); err != nil {
		// The descriptor is open and registered, and the call needs no memory: no other error is possible.
		panic(fmt.Sprintf("epoll_ctl on descriptor %d: %v", c.fd, err))
	}
}

func (p *poller) control(operation int, c *conn) error {
	event := unix.EpollEvent{Fd: int32(c.index), Pad: int32(c.generation)}
	if c.want&toRead != 0 {
		event.Events |= unix.EPOLLIN
	}
	if c.want&toWrite != 0 {
		event.Events |= unix.EPOLLOUT
	}
	// Not unix.EpollCtl, which tells the scheduler, for a call that takes a fraction of a microsecond.
	_, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.fd), uintptr(operation), uintptr(c.fd),
		uintptr(unsafe.Pointer(&event)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// forget has nothing to do: closing the descriptor takes it out of the set. (A process that is being forked holds a
// copy until it executes; events from that are told by their generation.)
func (p *poller) forget(int) {}

func (p *poller) addListener(l *listener) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(listenerBase + uint32(l.number))}
	if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, l.fd, &event); err != nil {
		return fmt.Errorf("poll the listening socket of %v: %w", l.address, err)
	}
	return nil
}

func (p *poller) armListener(l *listener, on bool) error {
	event := unix.EpollEvent{Fd: int32(listenerBase + uint32(l.number))}
	if on {
		event.Events = unix.EPOLLIN
	}
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_MOD, l.fd, &event)
}

// wait returns how many events are ready; a signal makes it zero.
func (p *poller) wait(timeout time.Duration) (int, error) {
	var n int
	var errno syscall.Errno
	switch {
	case timeout != 0 && p.park != nil:
		return p.park.wait(timeout)
	case timeout > 0 && p.hasPwait2:
		n, errno = p.pwait2(timeout)
	default:
		n, errno = p.pwait(timeout)
	}
	if errno == syscall.EINTR {
		return 0, nil
	}
	if errno != 0 {
		return 0, errno
	}
	return n, nil
}

// pwait waits by the millisecond, rounded up so that a deadline has passed when it returns.
func (p *poller) pwait(timeout time.Duration) (int, syscall.Errno) {
	if timeout == 0 {
		n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.kernelList)),
			readyMax, 0, 0, 0)
		return int(n), errno
	}
	milliseconds := -1
	if timeout > 0 {
		// The cap, an hour, is for the kernel's 32-bit int; Wait may return early.
		milliseconds = int((min(timeout, time.Hour) + time.Millisecond - 1) / time.Millisecond)
	}
	// The scheduler must know of this one: it can block.
	n, _, errno := syscall.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.kernelList)),
		readyMax, uintptr(milliseconds), 0, 0)
	return int(n), errno
}

// pwait2 waits by the nanosecond, or rather by the kernel's timer slack of 50 µs.
func (p *poller) pwait2(timeout time.Duration) (int, syscall.Errno) {
	p.timeout = unix.NsecToTimespec(int64(timeout))
	n, _, errno := syscall.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.fd), uintptr(unsafe.Pointer(&p.kernelList)),
		readyMax, uintptr(unsafe.Pointer(&p.timeout)), 0, 0)
	return int(n), errno
}

// event returns the event of that number from the last wait.
func (p *poller) event(i int) ready {
	e := &p.kernelList[i]
	r := ready{index: uint32(e.Fd), generation: uint32(e.Pad)}
	if e.Events&unix.EPOLLIN != 0 {
		r.is |= isReadable
	}
	if e.Events&unix.EPOLLOUT != 0 {
		r.is |= isWritable
	}
	if e.Events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		r.is |= isBroken
	}
	return r
}
