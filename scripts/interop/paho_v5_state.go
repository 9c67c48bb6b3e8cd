package main

import (
	"io"
	"sync"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho/session/state"
)

// stateV5 is paho.golang's Session State, kept from answering a PUBREC on a connection that was lost meanwhile: in v0.23.0 that is a
// nil dereference, which ends the program.
type stateV5 struct {
	*state.State
	mu     sync.Mutex // held while a PUBREC is answered, and guards isLost
	isLost bool
}

func newStateV5() *stateV5 { return &stateV5{State: state.NewInMemory()} }

// ConAckReceived is part of session.SessionManager.
func (s *stateV5) ConAckReceived(w io.Writer, connect *packets.Connect, connack *packets.Connack) error {
	s.mu.Lock()
	s.isLost = false
	s.mu.Unlock()
	return s.State.ConAckReceived(w, connect, connack)
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
