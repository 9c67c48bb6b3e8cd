package crashtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
)

// peerPatience bounds the wait for what must come; only a test that fails waits as long.
const peerPatience = 60 * time.Second

// peer is a client that waits for each answer. It acknowledges what it gets and remembers it.
type peer struct {
	id       string
	version  packet.Version
	kept     bool // its Session outlives its connections
	conn     net.Conn
	in       []byte
	lastPID  uint16
	got      []string        // Application Messages, in the order of their first arrival
	received map[uint16]bool // Packet Identifiers of QoS 2 that are not released
	again    bool            // the broker was killed: messages of QoS 1 may come again, with DUP
}

func newPeer(id string, v packet.Version, kept bool) *peer {
	return &peer{id: id, version: v, kept: kept, received: make(map[uint16]bool)}
}

// connect gives CONNACK's Reason Code.
func (p *peer) connect(dial func() (net.Conn, error)) (reason packet.Reason, present bool, err error) {
	if err := p.begin(dial); err != nil {
		return 0, false, err
	}
	return p.connack()
}

// begin sends CONNECT.
func (p *peer) begin(dial func() (net.Conn, error)) (err error) {
	if p.conn, err = dial(); err != nil {
		return fmt.Errorf("%s: %w", p.id, err)
	}
	p.in = nil
	c := packet.Connect{Version: p.version, ClientID: []byte(p.id), CleanStart: !p.kept}
	if p.kept && p.version == packet.V50 {
		c.SessionExpiry = 3600 // A Session that never expires, as those of 3.1.1, resumes with nothing written.
	}
	return p.send(packet.AppendConnect(nil, &c))
}

func (p *peer) connack() (reason packet.Reason, present bool, err error) {
	body, err := p.await(packet.CONNACK)
	if err != nil {
		return 0, false, err
	}
	var a packet.Connack
	if r := a.Decode(body, p.version); r != packet.Success {
		return 0, false, fmt.Errorf("%s: CONNACK: %v", p.id, r)
	}
	return a.Reason, a.SessionPresent, nil
}

// mustConnect fails where the broker refuses.
func (p *peer) mustConnect(dial func() (net.Conn, error)) error {
	reason, _, err := p.connect(dial)
	if err == nil && reason != packet.Success {
		err = fmt.Errorf("%s: CONNACK %v", p.id, reason)
	}
	return err
}

// disconnect ends the connection in order.
func (p *peer) disconnect() error {
	defer p.hangUp()
	return p.send(packet.AppendDisconnect(nil, &packet.Disconnect{}, p.version))
}

// end ends the Session with its connection.
func (p *peer) end() error {
	defer p.hangUp()
	return p.send(packet.AppendDisconnect(nil, &packet.Disconnect{HasSessionExpiry: true}, p.version))
}

// hangUp ends the connection, if there is one.
func (p *peer) hangUp() {
	if p.conn != nil {
		_ = p.conn.Close() // Nothing is expected of it any more.
		p.conn = nil
	}
}

// subscribe gives SUBACK's code.
func (p *peer) subscribe(filter string, qos uint8) (packet.Reason, error) {
	s := []packet.Subscription{{Filter: []byte(filter), Options: packet.Options{QoS: qos}}}
	if err := p.send(packet.AppendSubscribe(nil, &packet.Subscribe{PacketID: p.newPID()}, s, p.version)); err != nil {
		return 0, err
	}
	body, err := p.await(packet.SUBACK)
	if err != nil {
		return 0, err
	}
	var a packet.Suback
	if r := a.Decode(body, p.version); r != packet.Success {
		return 0, fmt.Errorf("%s: SUBACK: %v", p.id, r)
	}
	return a.Code(0), nil
}

func (p *peer) newPID() uint16 {
	p.lastPID++
	return p.lastPID
}

// publish sends a PUBLISH and waits for nothing.
func (p *peer) publish(topic, payload string, qos uint8, retain bool) error {
	h := packet.PublishHead{Flags: packet.PublishFlags(false, qos, retain), Topic: []byte(topic), PayloadSize: len(payload)}
	if qos > 0 {
		h.PacketID = p.newPID()
	}
	return p.send(packet.AppendPublish(nil, &h, []byte(payload), p.version))
}

// acknowledged waits for what answers the last PUBLISH, to the end of the exchange.
func (p *peer) acknowledged(qos uint8) (packet.Reason, error) {
	if qos == 1 {
		return p.ack(packet.PUBACK)
	}
	if r, err := p.ack(packet.PUBREC); err != nil || r.Failed() {
		return r, err
	}
	if err := p.send(packet.AppendAck(nil, packet.PUBREL, p.lastPID, packet.Success, p.version)); err != nil {
		return 0, err
	}
	return p.ack(packet.PUBCOMP)
}

func (p *peer) ack(kind packet.Kind) (packet.Reason, error) {
	body, err := p.await(kind)
	if err != nil {
		return 0, err
	}
	var a packet.Ack
	if r := a.Decode(kind, body, p.version); r != packet.Success {
		return 0, fmt.Errorf("%s: %v: %v", p.id, kind, r)
	}
	return a.Reason, nil
}

// gets reads until so many messages have come in all.
func (p *peer) gets(n int) error {
	for len(p.got) < n {
		kind, err := p.next(peerPatience)
		if err != nil {
			return fmt.Errorf("%s has %d of %d messages: %w", p.id, len(p.got), n, err)
		}
		if kind.Kind != packet.PUBLISH && kind.Kind != packet.PUBREL {
			return fmt.Errorf("%s: %v among messages", p.id, kind.Kind)
		}
	}
	return nil
}

// settled reads until every message of QoS 2 that came is released.
func (p *peer) settled() error {
	for len(p.received) > 0 {
		if _, err := p.next(peerPatience); err != nil {
			return fmt.Errorf("%s waits for PUBREL: %w", p.id, err)
		}
	}
	return nil
}

// await reads until a packet of that kind comes; messages that come before it are taken.
func (p *peer) await(kind packet.Kind) (body []byte, err error) {
	for {
		got, err := p.next(peerPatience)
		if err != nil {
			return nil, fmt.Errorf("%s waits for %v: %w", p.id, kind, err)
		}
		switch got.Kind {
		case kind:
			return got.body, nil
		case packet.PUBLISH, packet.PUBREL:
		default:
			return nil, fmt.Errorf("%s waits for %v: %v % x came", p.id, kind, got.Kind, got.body)
		}
	}
}

// silent finds that nothing but messages has come.
func (p *peer) silent() error {
	for {
		got, err := p.next(time.Millisecond)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return err
		case got.Kind != packet.PUBLISH && got.Kind != packet.PUBREL:
			return fmt.Errorf("%s is answered: %v % x", p.id, got.Kind, got.body)
		}
	}
}

// incoming is a packet; body is the peer's until the next one is read.
type incoming struct {
	packet.Header
	body []byte
}

// next reads a packet and acknowledges a message.
func (p *peer) next(patience time.Duration) (incoming, error) {
	if err := p.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return incoming{}, err
	}
	for {
		h, r := packet.ParseHeader(p.in)
		if r != packet.Success {
			return incoming{}, fmt.Errorf("undecodable packet: %v", r)
		}
		if end := h.Size + h.Remaining; h.Size > 0 && len(p.in) >= end {
			got := incoming{h, p.in[h.Size:end]}
			p.in = p.in[end:]
			return got, p.take(got)
		}
		b := make([]byte, 64<<10)
		n, err := p.conn.Read(b)
		if p.in = append(p.in, b[:n]...); err != nil {
			return incoming{}, err
		}
	}
}

func (p *peer) take(got incoming) error {
	switch got.Kind {
	case packet.PUBLISH:
		var m packet.Publish
		if r := m.DecodeFromServer(got.Flags, got.body, p.version); r != packet.Success {
			return fmt.Errorf("PUBLISH: %v", r)
		}
		comesAgain := m.QoS == 2 && p.received[m.PacketID] || m.QoS == 1 && p.again && m.Dup && slices.Contains(p.got, string(m.Payload))
		if !comesAgain {
			p.got = append(p.got, string(m.Payload))
		}
		switch m.QoS {
		case 1:
			return p.send(packet.AppendAck(nil, packet.PUBACK, m.PacketID, packet.Success, p.version))
		case 2:
			p.received[m.PacketID] = true
			return p.send(packet.AppendAck(nil, packet.PUBREC, m.PacketID, packet.Success, p.version))
		}
	case packet.PUBREL:
		var a packet.Ack
		if r := a.Decode(packet.PUBREL, got.body, p.version); r != packet.Success {
			return fmt.Errorf("PUBREL: %v", r)
		}
		delete(p.received, a.PacketID)
		return p.send(packet.AppendAck(nil, packet.PUBCOMP, a.PacketID, packet.Success, p.version))
	}
	return nil
}

func (p *peer) send(b []byte) error {
	if err := p.conn.SetWriteDeadline(time.Now().Add(peerPatience)); err != nil {
		return err
	}
	if _, err := p.conn.Write(b); err != nil {
		return fmt.Errorf("%s: %w", p.id, err)
	}
	return nil
}
