//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package kernel

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// pausedLowWater is more bytes than any receive buffer holds: the read filter of a paused connection tells of the
// connection's end only.
const pausedLowWater = 1 << 30

// wakerIndex is the poller's own, and says nothing more than that someone called Wake.
const wakerIndex = ^uint32(0)

// poller is level-triggered kqueue. It names connections by descriptor, since the word of user data in an event is a
// pointer in some of these systems' definitions, and a number may not pretend to be one in Go.
type poller struct {
	fd         int
	waker      waker
	isClosed   bool    // written and read under Plane.wakeMu
	byFD       []ready // by descriptor; only index and generation are used
	timeout    unix.Timespec
	kernelList [readyMax]unix.Kevent_t
	change     [1]unix.Kevent_t
}

func (p *poller) open(bool) error {
	fd, err := unix.Kqueue()
	if err != nil {
		return fmt.Errorf("kqueue: %w", err)
	}
	p.fd = fd
	unix.CloseOnExec(fd) // A child does not inherit a kqueue by fork either, so no lock is needed.
	if err := p.waker.open(fd); err != nil {
		_ = unix.Close(fd) // The first error is the one to report.
		return fmt.Errorf("waker of kqueue: %w", err)
	}
	return nil
}

func (p *poller) close() error {
	if p.isClosed {
		return nil
	}
	p.isClosed = true
	return errors.Join(p.waker.close(), unix.Close(p.fd))
}

// wake makes wait return. Its caller holds Plane.wakeMu.
func (p *poller) wake() {
	if !p.isClosed {
		p.waker.wake(p.fd)
	}
}

// add starts watching a connection for its armed interest, which is to read.
func (p *poller) add(c *conn) error {
	p.name(int(c.fd), ready{index: c.index, generation: c.generation})
	return p.control(int(c.fd), unix.EVFILT_READ, unix.EV_ADD, 0)
}

// update makes the watched interest what c wants. Errors say that the connection is broken, which the read filter
// will report: every connection has one, in one of two forms.
func (p *poller) update(c *conn) {
	fd, differs := int(c.fd), c.want^c.armed
	if differs&toRead != 0 {
		// A filter keeps its EV_CLEAR for life, so it is made anew.
		_ = p.control(fd, unix.EVFILT_READ, unix.EV_DELETE, 0)
		if c.want&toRead != 0 {
			_ = p.control(fd, unix.EVFILT_READ, unix.EV_ADD, 0)
		} else {
			// EV_CLEAR, because a peer that closes its side only must not be reported in every turn.
			_ = p.control(fd, unix.EVFILT_READ, unix.EV_ADD|unix.EV_CLEAR, pausedLowWater)
		}
	}
	if differs&toWrite != 0 {
		if c.want&toWrite != 0 {
			_ = p.control(fd, unix.EVFILT_WRITE, unix.EV_ADD, 0)
		} else {
			_ = p.control(fd, unix.EVFILT_WRITE, unix.EV_DELETE, 0)
		}
	}
}

func (p *poller) control(fd, filter, flags int, lowWater int64) error {
	unix.SetKevent(&p.change[0], fd, filter, flags)
	p.change[0].Fflags, p.change[0].Data = 0, 0
	if lowWater != 0 {
		p.change[0].Fflags = unix.NOTE_LOWAT
		p.change[0].Data = lowWater
	}
	_, err := unix.Kevent(p.fd, p.change[:], nil, nil)
	return err
}

// name remembers whose a descriptor is.
func (p *poller) name(fd int, owner ready) {
	for fd >= len(p.byFD) {
		p.byFD = append(p.byFD, ready{index: wakerIndex})
	}
	p.byFD[fd] = owner
}

// forget makes events of a descriptor that is about to be closed stale; closing it takes it out of the kqueue.
func (p *poller) forget(fd int) {
	p.name(fd, ready{index: wakerIndex})
}

func (p *poller) addListener(l *listener) error {
	p.name(l.fd, ready{index: listenerBase + uint32(l.number)})
	if err := p.armListener(l, true); err != nil {
		return fmt.Errorf("poll the listening socket of %v: %w", l.address, err)
	}
	return nil
}

func (p *poller) armListener(l *listener, on bool) error {
	if on {
		return p.control(l.fd, unix.EVFILT_READ, unix.EV_ADD, 0)
	}
	return p.control(l.fd, unix.EVFILT_READ, unix.EV_DELETE, 0)
}

// wait returns how many events are ready; a signal makes it zero.
func (p *poller) wait(timeout time.Duration) (int, error) {
	var limit *unix.Timespec
	if timeout >= 0 {
		p.timeout = unix.NsecToTimespec(int64(timeout))
		limit = &p.timeout
	}
	n, err := unix.Kevent(p.fd, nil, p.kernelList[:], limit)
	if err == unix.EINTR {
		return 0, nil
	}
	return max(n, 0), err
}

// event returns the event of that number from the last wait.
func (p *poller) event(i int) ready {
	e := &p.kernelList[i]
	if p.waker.owns(e) {
		return ready{index: wakerIndex}
	}
	if int(e.Ident) >= len(p.byFD) {
		return ready{index: wakerIndex}
	}
	r := p.byFD[e.Ident]
	if e.Filter == unix.EVFILT_WRITE {
		r.is = isWritable
		if e.Flags&unix.EV_EOF != 0 {
			r.is = isBroken // Our side is never closed while we watch it, so the whole connection is.
		}
		return r
	}
	r.is = isReadable
	if e.Flags&unix.EV_EOF != 0 && e.Fflags != 0 { // Fflags has the socket's error.
		r.is |= isBroken
	}
	return r
}
