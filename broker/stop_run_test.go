package broker_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/memnet"
)

// countingPlane counts how often a Loop has asked, since it accepts nothing more, whether the plane has caught up: once a turn, and once
// for each look at what is left.
type countingPlane struct {
	broker.Plane
	stopped atomic.Bool
	asked   atomic.Int32
}

func (p *countingPlane) StopAccepting() {
	p.stopped.Store(true)
	p.Plane.StopAccepting()
}

func (p *countingPlane) Lag() time.Duration { return 0 }

func (p *countingPlane) CaughtUp() bool {
	if p.stopped.Load() {
		p.asked.Add(1)
	}
	return true
}

type silentHost struct{}

func (silentHost) Authenticate(broker.AuthRequest) bool { return true }
func (silentHost) Log(broker.LogEvent) bool             { return true }

// TestStopHasItsRounds stops a broker without connections: its Loops turn on until what the last connections may have had to say, to a
// Session on another shard, has arrived.
func TestStopHasItsRounds(t *testing.T) {
	l, err := broker.Limits{Shards: 2, Memory: 256 << 20, MaxConnections: 64}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	var planes []broker.Plane
	var counting []*countingPlane
	for _, p := range memnet.New(memnet.Config{Planes: 2, Threaded: true}).Planes() {
		c := &countingPlane{Plane: p}
		planes, counting = append(planes, c), append(counting, c)
	}
	b, err := broker.New(broker.Options{Limits: l, Host: silentHost{}}, planes)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.Run(ctx, time.Minute); err != nil {
		t.Fatal(err)
	}
	for i, p := range counting {
		// The first look may share its turn with the end of accepting; a last turn may follow.
		if n := p.asked.Load(); n < 2*broker.StopRounds-1 {
			t.Errorf("shard %d was asked %d times, fewer than %d turns and looks make", i, n, 2*broker.StopRounds-1)
		}
	}
}
