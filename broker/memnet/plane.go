package memnet

import (
	"net"
	"time"

	"github.com/ringmq/ringmq/broker"
)

// Plane is one loop's share of a Network: a broker.Plane.
type Plane struct {
	network   *Network
	buffer    []byte
	events    []broker.Event
	failures  []broker.Event
	arrivals  []*conn // dialled, but not yet reported
	stirring  []*conn // may have something to report; each connection is in it once at most
	woken     bool
	accepting bool
	isClosed  bool
	conns     map[*conn]struct{} // never iterated over but to close all, in an order nobody sees

	// stirred has room for one: something has happened that a blocked Wait must look at.
	stirred chan struct{}
}

var _ broker.Plane = (*Plane)(nil)

// dial is called with the Network's mutex held.
func (p *Plane) dial(listener int) *Peer {
	n := p.network
	c := &conn{
		plane: p, listener: listener, sendWindow: n.config.SendWindowBytes,
		local: localAddress(listener), remote: peerAddress(n.dialled),
	}
	peer := &Peer{conn: c, readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
	c.peer = peer
	n.open++
	if p.conns == nil {
		p.conns = map[*conn]struct{}{}
	}
	p.conns[c] = struct{}{}
	p.arrivals = append(p.arrivals, c)
	p.stir()
	return peer
}

// stir ends a blocked Wait. It is called with the Network's mutex held.
func (p *Plane) stir() { signal(p.stirred) }

// signal leaves a mark in a channel with room for one.
func signal(mark chan struct{}) {
	select {
	case mark <- struct{}{}:
	default: // It is there already.
	}
}

// Wait implements broker.Plane. It looks at the clock in a threaded Network only.
func (p *Plane) Wait(timeout time.Duration) ([]broker.Event, error) {
	if events, done, err := p.look(timeout); done || err != nil {
		return events, err
	}
	var expired <-chan time.Time
	if timeout > 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		expired = timer.C
	}
	for {
		select {
		case <-p.stirred:
			if events, done, err := p.look(timeout); done || err != nil {
				return events, err
			}
		case <-expired:
			events, _, err := p.look(0)
			return events, err
		}
	}
}

// look gathers what is ready; done says that Wait returns it.
func (p *Plane) look(timeout time.Duration) (events []broker.Event, done bool, err error) {
	n := p.network
	n.mu.Lock()
	defer n.mu.Unlock()
	if p.isClosed {
		return nil, true, net.ErrClosed
	}
	p.events = append(p.events[:0], p.failures...)
	p.failures = nil
	p.gatherReady()
	p.gatherArrivals()
	if n.config.Shuffle != nil {
		n.config.Shuffle(len(p.events), func(i, j int) { p.events[i], p.events[j] = p.events[j], p.events[i] })
	}
	done = len(p.events) > 0 || p.woken || timeout == 0 || !n.config.Threaded
	if done {
		p.woken = false
	}
	return p.events, done, nil
}

// gatherReady reports the connections that have something to say and drops the others from the list: they come back
// when something happens to them.
func (p *Plane) gatherReady() {
	still := p.stirring[:0]
	for _, c := range p.stirring {
		kind := c.report()
		if kind == 0 {
			c.isStirring = false
			continue
		}
		still = append(still, c)
		p.events = append(p.events, broker.Event{Conn: c, Token: c.token, Kind: kind, Err: c.hangupError(kind)})
	}
	clear(p.stirring[len(still):])
	p.stirring = still
}

func (p *Plane) gatherArrivals() {
	for _, c := range p.arrivals {
		c.isAccepted = true
		c.stir()
		p.events = append(p.events, broker.Event{Conn: c, Kind: broker.Accepted, Listener: c.listener})
	}
	p.arrivals = nil
}

// Wake implements broker.Plane.
func (p *Plane) Wake() {
	p.network.mu.Lock()
	defer p.network.mu.Unlock()
	p.woken = true
	p.stir()
}

// Buffer implements broker.Plane.
func (p *Plane) Buffer() []byte { return p.buffer }

// Flush has nothing to do: Write has delivered everything.
func (p *Plane) Flush() {}

// StopAccepting implements broker.Plane. Connections that it has not reported yet are reset.
func (p *Plane) StopAccepting() {
	p.network.mu.Lock()
	defer p.network.mu.Unlock()
	p.stopAccepting()
}

func (p *Plane) stopAccepting() {
	p.accepting = false
	for _, c := range p.arrivals {
		c.breakDown(ErrReset)
		c.close()
	}
	p.arrivals = nil
}

// Close implements broker.Plane. A second call does nothing.
func (p *Plane) Close() error {
	p.network.mu.Lock()
	defer p.network.mu.Unlock()
	if p.isClosed {
		return nil
	}
	p.stopAccepting()
	for c := range p.conns {
		c.close()
	}
	p.isClosed = true
	p.stir()
	return nil
}
