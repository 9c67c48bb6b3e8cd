package netstack

import (
	"fmt"
	"net"
	"runtime"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/ringmq/ringmq/broker"
)

const (
	// eventsMax bounds the connections that one Wait reports, as in broker/kernel: a turn stays below a millisecond.
	eventsMax = 512

	// roundsMax is how often one Wait takes frames that make no event before it returns without any.
	roundsMax = 16

	// yieldsMax is how often the owner lets the stack's processor run for one batch of frames. The second time is for
	// when another thread has taken the processor.
	yieldsMax = 2

	// lagMax is what a queue of 4096 frames takes at its slowest, and a time slice of the kernel's scheduler. Clients feel it
	// in CONNACK only, and only when they come back before their old connection has ended.
	lagMax = 20 * time.Millisecond

	// timersLate is how late timers may be for frames that wait.
	timersLate = 50 * time.Millisecond

	// blockedPause is how long a plane sleeps at most while frames wait for the device to have room.
	blockedPause = time.Millisecond
)

// The states of Plane.sleep.
const (
	awake    int32 = iota // the owner is in its turn
	sleeping              // the owner waits in the device, or is about to: it must be woken
	woken                 // it was
)

// Plane is one device's stack and connections: a broker.Plane. See the package's documentation for who may call what.
type Plane struct {
	group   *Group
	config  *Config
	device  Device
	stack   *stack.Stack
	tcp     segmentQueuer // of the stack
	link    *link
	deliver func(frame []byte) // onFrame, made once

	received  received // of the frame in hand
	slab      slab
	attempts  attempts
	listeners []*listener
	reviewed  []*conn // connections that may have something to report
	spare     []*conn // the other list, while one is walked
	events    []broker.Event
	lingerers deadlines
	closers   deadlines
	budget    budget
	ration    ration
	unread    unreadBudget
	expireAt  time.Time     // when to look for handshakes to give up
	timersAt  time.Duration // by the stack's clock, when timers were last run
	probeAt   time.Duration // by that, when to look for silent connections
	stale     []*flow       // scratch of expire
	reader    roomWriter
	writer    sliceReader
	scratch   [scratchBytes]byte
	mtu       int           // of the device, in the last turn
	linkRest  time.Duration // how long the link lets the plane rest; negative: for ever
	hasMore   bool          // something is left to do that nobody will wake the plane for
	isTurn    bool          // between Wait and Flush
	caughtUp  bool          // the last turn has taken all frames that there were
	warmth    extent        // of the stack's endpoints
	warmed    byte          // what warm has read, kept so that it does read
	isClosed  bool

	inbox inbox
	ready readyList

	// sleep is moved to woken by any goroutine and to the other states by the owner. Who has something for the owner
	// publishes it, then looks at sleep; the owner moves sleep, then looks for what there is: neither misses the other.
	sleep atomic.Int32

	// wakeAsked is set by Wake: the next Wait returns, with events or without. Wait clears it.
	wakeAsked atomic.Bool

	counters counterSet
}

var _ broker.Plane = (*Plane)(nil)

// Wait implements broker.Plane. It may also return without any event before the timeout, when only its own
// housekeeping was due or frames came that concern nobody.
func (p *Plane) Wait(timeout time.Duration) ([]broker.Event, error) {
	if p.isClosed {
		return nil, net.ErrClosed
	}
	if p.isTurn {
		p.Flush() // Whoever calls Wait again without a Flush gets one.
	}
	var deadline time.Time
	if timeout > 0 {
		deadline = time.Now().Add(timeout)
	}
	for round := 0; ; round++ {
		took := p.turn()
		if len(p.events) > 0 || p.wakeAsked.Swap(false) || timeout == 0 || round == roundsMax {
			return p.events, nil
		}
		if took > 0 || p.hasMore {
			if timeout > 0 && !time.Now().Before(deadline) {
				return p.events, nil
			}
			continue
		}
		p.Flush()
		isOver, err := p.rest(timeout, deadline)
		if err != nil {
			return nil, fmt.Errorf("wait for frames: %w", err)
		}
		if isOver {
			timeout = 0 // One more look.
		}
	}
}

// turn takes frames, lets the stack work on them, and gathers the events; it returns how many frames it took.
func (p *Plane) turn() int {
	p.isTurn = true
	p.link.beginTurn()
	p.followMTU()
	took := p.device.Receive(receiveBatch, p.deliver)
	p.caughtUp = took < receiveBatch
	took += p.takeInbox() + p.takeAttempts()
	for range yieldsMax {
		if took > 0 && !p.ready.filled.Load() {
			runtime.Gosched()
		}
	}
	p.gather()
	p.keepHouse()
	p.runTimers()
	return took
}

// bounded is how much one turn does of what connections cost that begin: an eighth while frames wait in the device, for each turn
// takes no more than a batch of them, and what beginnings cost all others wait for.
func (p *Plane) bounded(most int) int {
	if p.caughtUp {
		return most
	}
	return max(1, most/8)
}

// runTimers runs the stack's timers, once all frames that have come are taken: they may hold what a timer waits for in vain.
func (p *Plane) runTimers() {
	clock := p.link.clock
	now := clock.elapsed()
	if !p.caughtUp && now-p.timersAt < timersLate {
		return
	}
	p.timersAt = now
	p.hasMore = clock.timers.run(p.onTimer) || p.hasMore
}

// onTimer runs a timer of the stack, which takes the locks of a connection. After a panic some may be taken for ever: then it is a
// goroutine's.
func (p *Plane) onTimer(f func()) {
	if p.counters.panics.Load() == 0 {
		f()
		return
	}
	go f()
}

// takeInbox takes what other planes have received for this one.
func (p *Plane) takeInbox() int {
	frames := p.inbox.take()
	if len(frames) == 0 {
		return 0
	}
	for _, frame := range frames {
		p.onTakenOver(frame)
	}
	p.inbox.giveBack()
	return len(frames)
}

// rest sleeps until there is something to do; isOver says that the caller's time has passed.
func (p *Plane) rest(timeout time.Duration, deadline time.Time) (isOver bool, err error) {
	p.sleep.Store(sleeping)
	if p.ready.filled.Load() || p.inbox.filled.Load() || p.wakeAsked.Load() {
		p.sleep.Store(awake)
		return false, nil
	}
	left := timeout
	if timeout > 0 {
		left = max(0, time.Until(deadline))
	}
	nap := p.untilHousekeeping(left)
	if p.linkRest >= 0 {
		nap = sooner(nap, p.linkRest)
	}
	if d, ok := p.link.clock.timers.rest(); ok {
		nap = sooner(nap, d)
	}
	began := time.Now()
	err = p.device.Wait(nap)
	p.sleep.Store(awake)
	now := time.Now()
	p.link.rested(now.Sub(began))
	return timeout > 0 && !now.Before(deadline), err
}

// Wake implements broker.Plane. It costs something only if the plane sleeps, and only the first of several.
func (p *Plane) Wake() {
	p.wakeAsked.Store(true)
	p.stir()
}

// stir has a sleeping plane look around. Whoever calls it has published before what there is to see.
func (p *Plane) stir() {
	if p.sleep.Load() == sleeping && p.sleep.CompareAndSwap(sleeping, woken) {
		p.device.Wake()
	}
}

// Still runs f while nobody uses the plane's device. Only the plane's own goroutine may call it, between Wait and Flush.
func (p *Plane) Still(f func()) {
	p.link.mu.Lock()
	defer p.link.mu.Unlock()
	f()
}

// Lag implements broker.Laggard: a frame may wait in the RX ring behind thousands of others, and before that for the
// kernel to look at this queue.
func (p *Plane) Lag() time.Duration { return lagMax }

// CaughtUp implements broker.Laggard.
func (p *Plane) CaughtUp() bool { return p.caughtUp }

// Buffer implements broker.Plane: it is the device's broker region.
func (p *Plane) Buffer() []byte { return p.device.Buffer() }

// Flush starts the sending of everything written in the turn, and of ACKs that have waited long enough.
func (p *Plane) Flush() {
	p.isTurn = false
	p.counters.pinnedBytes.Store(uint64(p.budget.pinnedBytes))
	p.counters.unreadBytes.Store(uint64(p.unread.bytes))
	p.linkRest = p.link.endTurn()
}

// StopAccepting implements broker.Plane. Handshakes under way, and connections that were not reported yet, are reset;
// so are later attempts, as on any closed port.
func (p *Plane) StopAccepting() {
	for _, l := range p.listeners {
		l.close()
	}
	p.listeners = nil
}

// Close implements broker.Plane. What was written and fits the device is sent, then every connection ends with RST, at once: a FIN
// would be sent again and again by timers, for nobody takes the frames that acknowledge it any more, and those timers were what
// closing 60,000 connections took ten seconds for. A second call does nothing. The device stays the caller's to close.
func (p *Plane) Close() error {
	if p.isClosed {
		return nil
	}
	p.isClosed = true
	p.StopAccepting()
	p.link.beginTurn()
	p.slab.each(func(c *conn) {
		if c.state == open && c.flags&(wrote|ended|untouchable) == wrote {
			p.drain(c) // The best that can be done for its last bytes without waiting.
		}
		if c.flags&untouchable == 0 {
			c.endpoint.Abort()
		}
	})
	p.link.endTurn()
	if p.counters.panics.Load() == 0 {
		// After a panic, locks of the stack may be taken for ever: then it is left as it is.
		p.stack.Close()
		p.link.close()
		p.stack.Wait()
	} else {
		p.link.close()
	}
	p.slab.each(p.release)
	return nil
}

// Counters returns what the plane has counted. Any goroutine may call it.
func (p *Plane) Counters() Counters {
	c := p.counters.snapshot()
	s := p.stack.Stats()
	c.ChecksumErrors += s.TCP.ChecksumErrors.Value() + s.IP.MalformedPacketsReceived.Value()
	c.Retransmits, c.Established = s.TCP.Retransmits.Value(), s.TCP.CurrentEstablished.Value()
	c.ResetsSent, c.ResetsReceived = s.TCP.ResetsSent.Value(), s.TCP.ResetsReceived.Value()
	c.CookiesSent, c.CookiesReturned = p.counters.cookies.Load()+s.TCP.ListenOverflowSynCookieSent.Value(), s.TCP.ListenOverflowSynCookieRcvd.Value()
	c.CookiesRefused = s.TCP.ListenOverflowInvalidSynCookieRcvd.Value()
	p.link.mu.Lock()
	defer p.link.mu.Unlock()
	c.Flows, c.HalfOpen = uint64(len(p.link.flows.flows)), uint64(p.link.flows.halfOpen)
	c.Remotes = uint64(p.link.remotes.count)
	return c
}
