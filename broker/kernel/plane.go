//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package kernel

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringmq/ringmq/broker"
)

// readyMax is how many ready descriptors one Wait takes from the kernel. The kernel hands them out in turn, so that a
// bound is fair; this one keeps a turn below a millisecond.
const readyMax = 512

// The states of Plane.sleep.
const (
	awake    int32 = iota // the owner is in its turn, or polls without blocking
	sleeping              // the owner blocks, or is about to: a wake must reach the poller
	woken                 // the next Wait must not block
)

// Plane is one event loop's share of the connections: a broker.Plane. See the package's documentation for who may
// call what.
type Plane struct {
	poller    poller
	slab      slab
	changed   uint32 // the first of the list of connections whose interest may have changed
	events    []broker.Event
	gather    gather
	listeners []*listener
	resting   int // listeners that are not polled for the moment
	lingerers lingerQueue
	buffer    []byte
	numberMax int // Config.DescriptorsMax
	isClosed  bool
	siblings  []*Plane // all planes of the Group, this one included; fixed after Open
	accepted  acceptScratch
	arrivals  [inboxMax]arrival
	scratch   [scratchBytes]byte

	// inbox is filled by siblings.
	inbox inbox

	// sleep is moved to woken by any goroutine and to the other states by the owner. A waker publishes what it has
	// for the owner, then swaps; the owner swaps, then looks for what there is: neither can miss the other.
	sleep atomic.Int32

	// wakeMu keeps Close from closing the poller between a waker's swap and its call of the poller. It is held over
	// that system call, which does not block, and taken only when the owner sleeps.
	wakeMu sync.Mutex
}

var _ broker.Plane = (*Plane)(nil)

func newPlane(config Config, listeners int) (*Plane, error) {
	buffer, err := unix.Mmap(-1, 0, config.BufferBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("map a read buffer of %d bytes: %w", config.BufferBytes, err)
	}
	p := &Plane{buffer: buffer, numberMax: config.DescriptorsMax, changed: noSlot, slab: slab{free: noSlot}}
	if err := p.poller.open(config.Park); err != nil {
		_ = unix.Munmap(buffer) // The poller's error is the one to report.
		return nil, err
	}
	p.events = make([]broker.Event, 0, readyMax+inboxMax+listeners*acceptBatch)
	return p, nil
}

// Wait implements broker.Plane. It may also return without any event before the timeout: after a signal, and when
// only its own housekeeping was due.
func (p *Plane) Wait(timeout time.Duration) ([]broker.Event, error) {
	if p.isClosed {
		return nil, net.ErrClosed
	}
	p.applyInterest()
	p.events = p.events[:0]
	n, err := p.poll(p.untilDeadline(timeout))
	if err != nil {
		return nil, fmt.Errorf("poll: %w", err)
	}
	// Connections first, sockets that bring new ones after: a slot or a descriptor that the first step frees must not
	// be someone else's while events of its former owner are still to come.
	listening := false
	for i := range n {
		e := p.poller.event(i)
		if e.index >= listenerBase {
			listening = true
		} else if c := p.slab.find(e.index, e.generation); c != nil {
			p.report(c, e.is)
		}
	}
	if listening {
		p.acceptReady(n)
	}
	p.takeArrivals()
	p.keepHouse()
	return p.events, nil
}

// poll blocks only if nobody has woken the plane since the last time.
func (p *Plane) poll(timeout time.Duration) (int, error) {
	if timeout != 0 && !p.sleep.CompareAndSwap(awake, sleeping) {
		timeout = 0
	}
	n, err := p.poller.wait(timeout)
	p.sleep.Store(awake)
	return n, err
}

// Wake costs a system call only if the plane sleeps, and only the first of several.
func (p *Plane) Wake() {
	if p.sleep.Swap(woken) != sleeping {
		return
	}
	p.wakeMu.Lock()
	defer p.wakeMu.Unlock()
	p.poller.wake()
}

// report turns what the poller says about a connection into an event, if the broker has to know.
func (p *Plane) report(c *conn, is readiness) {
	if c.state == lingering {
		if p.drain(c) { // Also where both sides have closed, which epoll calls broken: unread bytes would be answered with RST.
			p.release(c)
		}
		return
	}
	event := broker.Event{Conn: c, Token: c.token}
	if is&isBroken != 0 {
		event.Kind, event.Err = p.reportBroken(c)
	} else if is&isReadable != 0 && c.want&toRead != 0 {
		event.Kind = broker.Readable
	}
	if is&isWritable != 0 && c.want&toWrite != 0 {
		event.Kind |= broker.Writable
		c.watch(c.want &^ toWrite)
	}
	if event.Kind != 0 {
		p.events = append(p.events, event)
	}
}

// reportBroken tells whether the broker must first read what came before the connection broke.
func (p *Plane) reportBroken(c *conn) (broker.EventKind, error) {
	if c.want&toRead != 0 {
		left, err := peekSocket(c.fd)
		if left {
			return broker.Readable, nil
		}
		c.flags |= ended
		return broker.Hangup, err
	}
	c.flags |= ended
	cause, err := unix.GetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil || cause == 0 {
		return broker.Hangup, nil
	}
	return broker.Hangup, unix.Errno(cause)
}

func (p *Plane) acceptReady(n int) {
	for i := range n {
		e := p.poller.event(i)
		for _, l := range p.listeners {
			if e.index == listenerBase+uint32(l.number) {
				p.accept(l)
			}
		}
	}
}

// applyInterest tells the poller what the last turn has changed.
func (p *Plane) applyInterest() {
	for p.changed != noSlot {
		c := p.slab.at(p.changed)
		p.changed, c.nextChanged = c.nextChanged, noSlot
		c.flags &^= changed
		if c.state != free && c.want != c.armed {
			p.poller.update(c)
			c.armed = c.want
		}
	}
}

// untilDeadline shortens timeout to the plane's own next deadline. It reads the clock only if there is one.
func (p *Plane) untilDeadline(timeout time.Duration) time.Duration {
	if timeout == 0 || (p.resting == 0 && p.lingerers.count == 0) {
		return timeout
	}
	now := time.Now()
	if deadline, ok := p.nextLingerDeadline(); ok {
		timeout = sooner(timeout, deadline.Sub(now))
	}
	for _, l := range p.listeners {
		if !l.offTill.IsZero() {
			timeout = sooner(timeout, l.offTill.Sub(now))
		}
	}
	return timeout
}

// sooner returns the lesser of two timeouts, of which the first may be negative for "never".
func sooner(timeout, left time.Duration) time.Duration {
	left = max(left, 0)
	if timeout < 0 || left < timeout {
		return left
	}
	return timeout
}

// keepHouse does what is due of the plane's own business.
func (p *Plane) keepHouse() {
	if p.resting == 0 && p.lingerers.count == 0 {
		return
	}
	now := time.Now()
	for {
		deadline, ok := p.nextLingerDeadline()
		if !ok || deadline.After(now) {
			break
		}
		p.finishOldest()
	}
	if p.resting > 0 {
		p.rouse(now)
	}
}

// release closes a connection's descriptor, which also takes it out of the poller, and frees its slot. The kernel
// still sends what Write took.
func (p *Plane) release(c *conn) {
	p.poller.forget(int(c.fd))
	_ = unix.Close(int(c.fd)) // It reports nothing that could still be acted on; the descriptor is gone either way.
	p.slab.release(c)
}

// Buffer implements broker.Plane.
func (p *Plane) Buffer() []byte { return p.buffer }

// Flush has nothing to do: Write has given everything to the kernel.
func (p *Plane) Flush() {}

// Close implements broker.Plane. A second call does nothing.
func (p *Plane) Close() error {
	if p.isClosed {
		return nil
	}
	p.isClosed = true
	p.StopAccepting()
	p.inbox.close()
	p.slab.each(func(c *conn) {
		if c.flags&(wrote|ended) == wrote {
			p.drain(c) // The best that can be done for its last bytes without waiting.
		}
		p.release(c)
	})
	p.wakeMu.Lock()
	err := p.poller.close()
	p.wakeMu.Unlock()
	return errors.Join(err, unix.Munmap(p.buffer))
}
