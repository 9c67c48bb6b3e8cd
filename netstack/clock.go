package netstack

import (
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// turnClock is a stack's clock. Within a turn it stands still: the stack asks for the time several times per segment, and a turn
// is shorter than anything that TCP measures. Between turns it is the system's.
type turnClock struct {
	base time.Time

	// frozen is the time of the turn under way, in nanoseconds since base; zero: there is none. The plane's owner writes it,
	// the stack's goroutines read it.
	frozen atomic.Int64

	timers timers
}

var _ tcpip.Clock = (*turnClock)(nil)

// newTurnClock counts from a time that is the same for all planes of a group; see secrets.
// Timers that are set while the plane's owner sleeps stir it.
func newTurnClock(base time.Time, stir func()) *turnClock {
	c := &turnClock{base: base}
	c.timers.clock, c.timers.stir = c, stir
	return c
}

// freeze begins a turn, or the next part of it.
func (c *turnClock) freeze() { c.frozen.Store(max(1, int64(time.Since(c.base)))) }

// thaw ends it.
func (c *turnClock) thaw() { c.frozen.Store(0) }

// elapsed is the time since base.
func (c *turnClock) elapsed() time.Duration {
	if frozen := c.frozen.Load(); frozen != 0 {
		return time.Duration(frozen)
	}
	return time.Since(c.base)
}

// Now implements tcpip.Clock.
func (c *turnClock) Now() time.Time { return time.Now() }

// NowMonotonic implements tcpip.Clock.
func (c *turnClock) NowMonotonic() tcpip.MonotonicTime { return tcpip.MonotonicTime{}.Add(c.elapsed()) }

// AfterFunc implements tcpip.Clock, but that the plane's owner runs f, in a turn.
func (c *turnClock) AfterFunc(d time.Duration, f func()) tcpip.Timer { return c.timers.add(d, f) }
