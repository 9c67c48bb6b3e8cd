package netstack

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// expireEvery is how often handshakes are looked at while there are any.
const expireEvery = time.Second

// expire ends handshakes whose remotes say nothing. The stack by itself goes on for two minutes, which no option shortens, and
// whoever is not answered after a third of that has given up; meanwhile each takes a place of the backlog, and its flow would stay
// until as many others have begun.
func (p *Plane) expire(now time.Time) {
	if p.link.flows.halfOpen == 0 || now.Before(p.expireAt) {
		return
	}
	p.expireAt = now.Add(expireEvery)
	for _, f := range p.staleHandshakes() {
		e := p.stack.FindTransportEndpoint(networkProtocol(f.isV6), tcp.ProtocolNumber, f.key.endpointID(f.isV6), nicID)
		if !p.endHandshake(e) {
			continue // It is a connection, about to be accepted.
		}
		p.link.mu.Lock()
		p.group.owners.remove(&f.key, p)
		p.link.forget(f)
		p.link.mu.Unlock()
		p.counters.handshakesExpired.Add(1)
	}
}

// staleHandshakes are those that have been under way for too long, until the next call.
func (p *Plane) staleHandshakes() []*flow {
	l := p.link
	l.mu.Lock()
	defer l.mu.Unlock()
	p.stale = p.stale[:0]
	begun := l.clock.elapsed() - p.config.TCP.HandshakeTimeout
	for i := range l.flows.handshakes {
		f := l.flows.find(&l.flows.handshakes[i])
		if f != nil && !f.isLive && !f.isPoisoned && f.handshake < begun {
			f.handshake = l.clock.elapsed() // Its key may be there twice.
			p.stale = append(p.stale, f)
		}
	}
	return p.stale
}

// endHandshake gives a handshake of the stack up, if it is one still. What is listened on is no handshake, and stands for one that a
// SYN cookie has answered, or that is gone.
func (p *Plane) endHandshake(e stack.TransportEndpoint) bool {
	endpoint, ok := e.(*tcp.Endpoint)
	if !ok {
		return true
	}
	switch tcp.EndpointState(endpoint.State()) {
	case tcp.StateConnecting, tcp.StateSynRecv:
		endpoint.Abort()
	case tcp.StateListen, tcp.StateError, tcp.StateClose:
	default:
		return false
	}
	return true
}
