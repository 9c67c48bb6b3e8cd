package netstack

import (
	"fmt"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/ringmq/ringmq/broker"
)

const (
	// acceptBatch bounds the connections that one Wait accepts per listener: each takes some 30 µs with its handshake, and others
	// must get their turn.
	acceptBatch = 16

	// acceptPause is how long a listener rests after an error, so that it never spins.
	acceptPause = 100 * time.Millisecond

	connMask = waiter.ReadableEvents | waiter.WritableEvents | waiter.EventHUp | waiter.EventErr
)

// accept takes a batch of connections.
func (p *Plane) accept(l *listener) {
	if !l.filled.Swap(false) {
		return
	}
	for range p.bounded(acceptBatch) {
		endpoint, queue, err := l.endpoint.Accept(nil)
		switch err.(type) {
		case nil:
			p.adopt(endpoint, queue)
		case *tcpip.ErrWouldBlock:
			return
		default:
			l.restsUntil = time.Now().Add(acceptPause)
			p.events = append(p.events, broker.Event{Kind: broker.AcceptFailed, Listener: l.number, Err: fmt.Errorf("accept: %w", goError(err))})
			return
		}
	}
	l.filled.Store(true)
	p.hasMore = true
}

// rouse looks again at the listeners that have rested long enough.
func (p *Plane) rouse(now time.Time) {
	for _, l := range p.listeners {
		if !l.restsUntil.IsZero() && !now.Before(l.restsUntil) {
			l.restsUntil = time.Time{}
			l.filled.Store(true)
			p.hasMore = true
		}
	}
}

// adopt makes a connection of the stack one of the plane's. One that has died meanwhile is not worth the broker's time.
func (p *Plane) adopt(accepted tcpip.Endpoint, queue *waiter.Queue) {
	endpoint := accepted.(*tcp.Endpoint)
	key, isV6, ok := keyOf(endpoint)
	number, isListening := p.group.listenerOf(&key)
	if !ok || !isListening || !endpointIsUp(endpoint) {
		endpoint.Close()
		return
	}
	if p.slab.taken >= p.config.MaxConnections && !p.makeRoom() {
		p.counters.acceptRefused.Add(1)
		endpoint.Abort()
		endpoint.Close()
		return
	}
	c := p.slab.take(p)
	c.endpoint, c.queue, c.state = endpoint, queue, open
	c.flags &= reviewed // A slot may still be in the list from its former life.
	c.flow = p.track(&key, isV6, c)
	endpoint.LockUser() // What the stack sends has the owner read under the endpoint's lock.
	endpoint.SetOwner(c.flow)
	endpoint.UnlockUser()
	p.counters.accepted.Add(1)
	p.counters.connections.Add(1)
	c.entry.Init(c, connMask)
	queue.EventRegister(&c.entry)
	p.review(c) // Bytes may have come before.
	p.hasMore = true
	p.events = append(p.events, broker.Event{Conn: c, Kind: broker.Accepted, Listener: number})
}

// keyOf tells the addresses of a connection; ok is false if it has none any more.
func keyOf(endpoint tcpip.Endpoint) (key flowKey, isV6, ok bool) {
	local, err := endpoint.GetLocalAddress()
	if err != nil {
		return key, false, false
	}
	remote, err := endpoint.GetRemoteAddress()
	if err != nil {
		return key, false, false
	}
	key.localPort, key.remotePort = local.Port, remote.Port
	if local.Addr.Len() == 4 && remote.Addr.Len() == 4 {
		a, b := local.Addr.As4(), remote.Addr.As4()
		key.local, key.remote = mapped(a[:]), mapped(b[:])
		return key, false, true
	}
	if local.Addr.Len() != 16 || remote.Addr.Len() != 16 {
		return key, false, false
	}
	key.local, key.remote = local.Addr.As16(), remote.Addr.As16()
	return key, true, true
}

// track makes the handshake's flow that of a connection. There is none if it came by a SYN cookie, or if more
// handshakes were under way than are tracked.
func (p *Plane) track(key *flowKey, isV6 bool, c *conn) *flow {
	l := p.link
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.flows.find(key)
	switch {
	case f == nil:
		to, _ := l.linkOf(nil, &outgoing{key: *key})
		f = p.addFlow(key, isV6, to)
		f.handshake = unknownHandshake
	case f.isLive:
		// A new connection has taken the place of one in TIME-WAIT, whose slot is not released yet.
		l.discardHeld(f)
		l.flows.abandon(f)
		f = p.addFlow(key, isV6, f.link)
		f.handshake = unknownHandshake
	default:
		f.handshake = l.clock.elapsed() - f.handshake
	}
	l.flows.promote(f)
	p.unread.adopt(f)
	f.conn = c
	return f
}
