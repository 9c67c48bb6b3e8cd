package client

import (
	"context"
	"io"
	"sync"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho/session"
	"github.com/eclipse/paho.golang/paho/session/state"
	"github.com/ringmq/ringmq/broker/packet"
)

// Session is what a 5.0 client remembers of its Session between connections. One connection at a time may use it.
type Session struct{ state *state.State }

// NewSession returns an empty Session.
func NewSession() *Session { return &Session{state.NewInMemory()} }

func (s *Session) stateOrNew() *state.State {
	if s == nil {
		return state.NewInMemory()
	}
	return s.state
}

// flownSession is the library's session state that also tells flight what is sent and acknowledged: the library's way
// to publish without waiting says neither.
type flownSession struct {
	*state.State
	prepare      func(receiveMaximum uint16) *flight // called once per connection
	flight       *flight
	acknowledged func()
	unhandled    bool // the message that is delivered now was not handled; the library's delivering goroutine only

	mu   sync.Mutex // guards lost, and holds ConnectionLost back while a PUBREC is answered
	lost bool
}

// ConAckReceived is part of session.SessionManager.
func (s *flownSession) ConAckReceived(w io.Writer, connect *packets.Connect, connack *packets.Connack) error {
	receiveMaximum := uint16(65535) // section 3.2.2.3.3: the value where it is absent
	if p := connack.Properties; p != nil && p.ReceiveMaximum != nil {
		receiveMaximum = max(1, *p.ReceiveMaximum)
	}
	s.flight = s.prepare(receiveMaximum)
	return s.State.ConAckReceived(w, connect, connack)
}

// ConnectionLost is part of session.SessionManager.
func (s *flownSession) ConnectionLost(d *packets.Disconnect) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = true
	return s.State.ConnectionLost(d)
}

// AddToSession is part of session.SessionManager.
func (s *flownSession) AddToSession(ctx context.Context, p session.Packet, answer chan<- packets.ControlPacket) error {
	err := s.State.AddToSession(ctx, p, answer)
	publish, ok := p.(*packets.Publish)
	switch {
	case ok && err == nil:
		s.flight.takeOff(publish.PacketID)
	case ok:
		s.flight.giveUp()
	}
	return err
}

// PacketReceived is part of session.SessionManager.
func (s *flownSession) PacketReceived(p *packets.ControlPacket, messages chan<- *packets.Publish) error {
	switch ack := p.Content.(type) {
	case *packets.Puback:
		defer s.flight.land(ack.PacketID, packet.Reason(ack.ReasonCode), ack.Properties.ReasonString)
	case *packets.Pubcomp:
		defer s.flight.land(ack.PacketID, packet.Reason(ack.ReasonCode), ack.Properties.ReasonString)
	case *packets.Pubrec:
		return s.pubrec(p, ack, messages)
	}
	return s.State.PacketReceived(p, messages)
}

// Ack is part of session.SessionManager: called behind v5.received, by the same goroutine.
func (s *flownSession) Ack(p *packets.Publish) error {
	if s.unhandled || p.QoS == 0 {
		return nil
	}
	err := s.State.Ack(p)
	s.acknowledged()
	return err
}

// pubrec keeps the library from answering on a connection that ConnectionLost has set to nil meanwhile, which in v0.23.0
// is a nil dereference.
func (s *flownSession) pubrec(p *packets.ControlPacket, ack *packets.Pubrec, messages chan<- *packets.Publish) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost {
		return nil
	}
	err := s.State.PacketReceived(p, messages)
	if reason := packet.Reason(ack.ReasonCode); reason.Failed() {
		s.flight.land(ack.PacketID, reason, ack.Properties.ReasonString)
	}
	return err
}
