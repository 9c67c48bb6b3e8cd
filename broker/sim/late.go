package sim

import (
	"time"

	"github.com/ringmq/ringmq/broker/memnet"
)

// latePlane is a plane that says it may show bytes late, and has not always taken all that there was: where the order between two
// connections matters, the broker waits, and much can happen meanwhile.
type latePlane struct {
	*memnet.Plane
	w *world
}

// Lag is part of broker.Laggard.
func (p latePlane) Lag() time.Duration { return p.w.lag }

// CaughtUp is part of broker.Laggard.
func (p latePlane) CaughtUp() bool { return p.w.options.Threaded || p.w.calm || p.w.chance.IntN(3) > 0 }
