package main

import (
	"context"
	"io"
	"sync"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho/session"
	"github.com/eclipse/paho.golang/paho/session/state"
)

// stateV5 is paho.golang's Session State, kept from two faults of v0.23.0: it answers a PUBREC on a connection that was lost meanwhile,
// a nil dereference, which ends the program; and a publisher reads the send quota while the next connection's CONNACK replaces it.
type stateV5 struct {
	*state.State
	quota  sync.RWMutex // held by publishers, whom the loss of the connection ends, and to replace the send quota
	mu     sync.Mutex   // held while a PUBREC is answered, and guards isLost
	isLost bool
}

func newStateV5() *stateV5 { return &stateV5{State: state.NewInMemory()} }

// ConAckReceived is part of session.SessionManager.
func (s *stateV5) ConAckReceived(w io.Writer, connect *packets.Connect, connack *packets.Connack) error {
	s.mu.Lock()
	s.isLost = false
	s.mu.Unlock()
	s.quota.Lock()
	defer s.quota.Unlock()
	return s.State.ConAckReceived(w, connect, connack)
}

// AddToSession is part of session.SessionManager.
func (s *stateV5) AddToSession(ctx context.Context, p session.Packet, response chan<- packets.ControlPacket) error {
	s.quota.RLock()
	defer s.quota.RUnlock()
	return s.State.AddToSession(ctx, p, response)
}

// ConnectionLost is part of session.SessionManager.
func (s *stateV5) ConnectionLost(d *packets.Disconnect) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.isLost = true
	return s.State.ConnectionLost(d)
}

// PacketReceived is part of session.SessionManager.
func (s *stateV5) PacketReceived(p *packets.ControlPacket, messages chan<- *packets.Publish) error {
	if _, isPubrec := p.Content.(*packets.Pubrec); isPubrec {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.isLost {
			return nil // The PUBLISH or PUBREL is sent again on the next connection.
		}
	}
	return s.State.PacketReceived(p, messages)
}
