package broker_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/conform"
	"github.com/ringmq/ringmq/broker/memnet"
	"github.com/ringmq/ringmq/broker/script"
)

// memoryTarget lets the conversations of broker/conform play against a world: they know no more of it than of a broker
// behind TCP.
type memoryTarget struct{ world *world }

func (m memoryTarget) Dial(context.Context) (conform.Conn, error) {
	p, err := m.world.network.Dial(0)
	if err != nil {
		return nil, err
	}
	return &memoryConn{world: m.world, peer: p}, nil
}

// Pass moves the clock in small steps, as real time would pass.
func (m memoryTarget) Pass(_ context.Context, d time.Duration) error {
	const step = 50 * time.Millisecond
	for ; d > 0; d -= step {
		m.world.now = m.world.now.Add(min(step, d))
		m.world.settle()
	}
	m.world.settle()
	return nil
}

type memoryConn struct {
	world *world
	peer  *memnet.Peer
}

// stuckMax is how often a broker may take nothing of what is written to it before it is taken not to read at all.
const stuckMax = 100

func (c *memoryConn) Write(b []byte) error {
	stuck := 0
	for len(b) > 0 {
		n, err := c.peer.Write(b)
		b = b[n:]
		if err != nil && !errors.Is(err, broker.ErrWouldBlock) {
			return err
		}
		if stuck++; n > 0 {
			stuck = 0
		}
		if stuck > stuckMax {
			return os.ErrDeadlineExceeded
		}
		c.world.settle()
	}
	return nil
}

// Read lets the broker do everything that is to be done before it looks.
func (c *memoryConn) Read(b []byte, _ time.Duration) (int, error) {
	c.world.settle()
	n, err := c.peer.Read(b)
	if errors.Is(err, broker.ErrWouldBlock) {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

func (c *memoryConn) Close() error { return c.peer.Close() }
func (c *memoryConn) Reset() error { return c.peer.Reset() }

// strictly plays conversations as the engine must pass them: at once, and with a Reason Code for everything that a 5.0
// client can be told.
func strictly() conform.Options {
	return conform.Options{Timeout: 10 * time.Second, Quiet: 100 * time.Millisecond, Run: "engine", Strict: true}
}

// TestConform plays every conversation of broker/conform against the engine. At the end of each nothing may be in use.
func TestConform(t *testing.T) {
	checks, err := conform.Checks()
	if err != nil {
		t.Fatal(err)
	}
	counts := []int{1, 2, 4}
	if testing.Short() {
		counts = []int{1, 4} // under the race detector each takes ten times as long
	}
	for _, shards := range counts {
		for i, check := range checks {
			t.Run(fmt.Sprintf("%s/%s/%d shards", check.Name, check.Version, shards), func(t *testing.T) {
				w := newWorld(t, shards, script.New("options"))
				r := conform.Play(context.Background(), memoryTarget{w}, check, i, strictly())
				if r.Outcome != conform.Holds {
					t.Errorf("%s: %s", r.Outcome, r.Problem)
					for _, line := range r.Transcript {
						t.Log(line)
					}
				}
				w.end()
			})
		}
	}
}
