//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package kernel

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringmq/ringmq/broker"
)

const (
	// acceptBatch bounds the connections that one Wait accepts per listener: a storm of them must not keep the plane
	// from those it has. Level-triggered polling brings the rest in the next turn.
	acceptBatch = 64

	// acceptPause is how long a listener rests when the host has no descriptor or no memory for a connection. The
	// socket stays readable meanwhile, so polling it would spin.
	acceptPause = 100 * time.Millisecond
)

// accept takes a batch of connections and deals them out.
func (p *Plane) accept(l *listener) {
	for range acceptBatch {
		a, errno := acceptSocket(l.fd, &p.accepted)
		switch {
		case errno == 0 && p.numberMax > 0 && int(a.fd) >= p.numberMax:
			_ = unix.Close(int(a.fd)) // Nothing was ever written to it.
			p.rest(l, syscall.EMFILE)
			return
		case errno == 0:
			a.listener = int32(l.number)
			p.deal(l, a)
		case errno == syscall.EAGAIN:
			return
		case isOfOneConnection(errno):
			// It was the connection's error, not the listener's; the next one may be sound.
		default:
			p.rest(l, errno)
			return
		}
	}
}

// isOfOneConnection tells the errors that accept reports on behalf of a connection that has died in the queue
// (accept(2), "Error handling") from those that will come again at once.
func isOfOneConnection(errno syscall.Errno) bool {
	switch errno {
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EBADF, syscall.EINVAL, syscall.ENOTSOCK:
		return false
	}
	return true
}

// deal gives a new connection to the plane whose turn it is.
func (p *Plane) deal(l *listener, a arrival) {
	target := p.siblings[l.next%len(p.siblings)]
	l.next++
	if target == p || !target.inbox.push(a) {
		p.adopt(a)
		return
	}
	target.Wake()
}

// takeArrivals adopts what siblings have accepted for this plane.
func (p *Plane) takeArrivals() {
	if !p.inbox.filled.Load() {
		return
	}
	for _, a := range p.inbox.take(&p.arrivals) {
		p.adopt(a)
	}
}

// adopt makes an accepted socket a connection of this plane.
func (p *Plane) adopt(a arrival) {
	c := p.slab.take(p)
	c.remote, c.fd, c.state = a.remote, a.fd, open
	c.want, c.armed = toRead, toRead
	c.flags &= changed // A slot may still be in the list of changed interest from its former life.
	if err := p.poller.add(c); err != nil {
		p.release(c)
		p.events = append(p.events, broker.Event{
			Kind: broker.AcceptFailed, Listener: int(a.listener), Err: fmt.Errorf("poll a new connection: %w", err),
		})
		return
	}
	p.events = append(p.events, broker.Event{Conn: c, Kind: broker.Accepted, Listener: int(a.listener)})
}

// rest stops polling a listener for a while and reports why. Descriptors that only linger are given back first.
func (p *Plane) rest(l *listener, errno syscall.Errno) {
	p.finishLingerers()
	l.offTill = time.Now().Add(acceptPause)
	p.resting++
	err := fmt.Errorf("accept on %v: %w", l.address, errno)
	if errno := p.poller.armListener(l, false); errno != nil {
		err = fmt.Errorf("%w (and it will be tried again in every turn: %v)", err, errno)
	}
	p.events = append(p.events, broker.Event{Kind: broker.AcceptFailed, Listener: l.number, Err: err})
}

// rouse polls the listeners again that have rested long enough.
func (p *Plane) rouse(now time.Time) {
	for _, l := range p.listeners {
		if l.offTill.IsZero() || now.Before(l.offTill) {
			continue
		}
		if err := p.poller.armListener(l, true); err != nil {
			l.offTill = now.Add(acceptPause)
			continue
		}
		l.offTill = time.Time{}
		p.resting--
	}
}

// StopAccepting closes this plane's listening sockets. Siblings keep theirs, and may still hand connections over.
func (p *Plane) StopAccepting() {
	for _, l := range p.listeners {
		p.poller.forget(l.fd)
		_ = unix.Close(l.fd) // A listening socket has nothing to lose.
	}
	p.listeners, p.resting = nil, 0
}
