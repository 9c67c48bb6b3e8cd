//go:build linux

package lab

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// crowd is a number of clients that go on: each pings the broker all the time, and when its connection breaks or cannot be
// had it connects again.
type crowd struct {
	t       *testing.T
	members []member
	end     chan struct{}
	ended   sync.WaitGroup
}

type member struct {
	pings atomic.Uint64 // answered
}

// pingEvery keeps a crowd from loading the machine.
const pingEvery = 10 * time.Millisecond

// newCrowd lets n clients connect to a host, and waits until all have.
func (s *scene) newCrowd(n int, host string) *crowd {
	s.t.Helper()
	c := &crowd{t: s.t, members: make([]member, n), end: make(chan struct{})}
	for i := range c.members {
		c.ended.Go(func() {
			for c.isOn() {
				c.visit(&c.members[i], s.Client, host, fmt.Sprintf("crowd%d", i))
			}
		})
	}
	s.t.Cleanup(c.leave)
	c.served()
	return c
}

func (c *crowd) isOn() bool {
	select {
	case <-c.end:
		return false
	default:
		return true
	}
}

// visit is the life of one connection.
func (c *crowd) visit(m *member, namespace, host, id string) {
	visitor, err := c.enter(namespace, host, id)
	for err == nil && c.isOn() {
		if err = visitor.ping(); err == nil {
			m.pings.Add(1)
			time.Sleep(pingEvery)
		}
	}
	if visitor != nil {
		visitor.conn.Close()
	}
	if err != nil {
		time.Sleep(pingEvery)
	}
}

// enter connects. A broker that is killed after its stack has acknowledged a request and before the answer leaves its client nothing to
// repeat, so that only a probe finds out.
func (c *crowd) enter(namespace, host, id string) (*client, error) {
	conn, err := dial(namespace, host)
	if err != nil {
		return nil, err
	}
	if err := conn.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second}); err != nil {
		return nil, err
	}
	return greet(c.t, conn, id)
}

// served waits until the broker has answered each member twice from now on: one answer may have been under way.
func (c *crowd) served() {
	c.t.Helper()
	before := make([]uint64, len(c.members))
	for i := range c.members {
		before[i] = c.members[i].pings.Load()
	}
	for i := range c.members {
		eventually(c.t, fmt.Sprintf("client %d of the crowd is served", i), func() bool { return c.members[i].pings.Load() >= before[i]+2 })
	}
}

func (c *crowd) leave() {
	if c.isOn() {
		close(c.end)
	}
	c.ended.Wait()
}
