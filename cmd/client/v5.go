package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/ringmq/ringmq/broker/packet"
)

// v5 is a Client over paho.golang.
type v5 struct {
	*inbox
	cfg     Config
	conn    *conn
	flight  *flight
	session *flownSession
	library *paho.Client

	present bool
	limits  limits
	aliases map[uint16]string // of topics that came; the library's delivering goroutine only
}

// limits are what the broker's CONNACK allows.
type limits struct {
	topicAliases uint16
	packetBytes  uint32 // 0: any
	qos          byte
	retain       bool
}

func dialV5(ctx context.Context, cfg Config, raw net.Conn) (Client, error) {
	c := &v5{inbox: newInbox(), cfg: cfg, conn: newConn(raw), aliases: map[uint16]string{}}
	c.conn.onClose = func() {
		if c.leaving.Load() {
			c.leave()
		}
	}
	c.session = &flownSession{State: cfg.Session.stateOrNew(), acknowledged: c.acknowledged, prepare: c.prepare}
	auth := &noAuthentication{conn: c.conn}
	c.library = paho.NewClient(paho.ClientConfig{
		Conn:               c.conn,
		Session:            c.session,
		AuthHandler:        auth,
		PingHandler:        &pinger{conn: c.conn},
		PacketTimeout:      cfg.Timeout,
		OnPublishReceived:  []func(paho.PublishReceived) (bool, error){c.received},
		OnServerDisconnect: c.disconnected,
		OnClientError:      c.failed,
	})
	cfg.debug("CONNECT as %q, MQTT 5.0, clean start %v, keep alive %v", cfg.ClientID, cfg.CleanStart, cfg.KeepAlive)
	connack, err := c.library.Connect(ctx, connectV5(&cfg))
	if err != nil {
		_ = c.conn.Close()
		return nil, c.notConnected(ctx, connack, auth, err)
	}
	c.connected(connack)
	return c, nil
}

// prepare is called when the CONNACK has come, before anything else can happen.
func (c *v5) prepare(receiveMaximum uint16) *flight {
	c.flight = newFlight(min(max(1, c.cfg.MaxInflight), int(receiveMaximum)), c.cfg.AckTimeout)
	return c.flight
}

func connectV5(cfg *Config) *paho.Connect {
	p := &paho.Connect{ClientID: cfg.ClientID, CleanStart: cfg.CleanStart, KeepAlive: cfg.keepAliveSeconds(),
		Username: cfg.Username, UsernameFlag: cfg.Username != "", Password: cfg.Password, PasswordFlag: cfg.Password != nil,
		Properties: connectProperties(&cfg.Properties)}
	if w := cfg.Will; w != nil {
		p.WillMessage = &paho.WillMessage{Topic: w.Topic, Payload: w.Payload, QoS: w.QoS, Retain: w.Retain}
		p.WillProperties = willProperties(&w.Properties)
	}
	return p
}

// notConnected says what became of a CONNECT.
func (c *v5) notConnected(ctx context.Context, connack *paho.Connack, auth *noAuthentication, err error) error {
	switch {
	case auth.asked.Load():
		return &Lost{Endpoint: c.cfg.Endpoint, Connecting: true, Cause: errAuthentication}
	case connack != nil && packet.Reason(connack.ReasonCode).Failed():
		return &Refused{Endpoint: c.cfg.Endpoint, Packet: "CONNACK", Reason: packet.Reason(connack.ReasonCode), Text: connack.Properties.ReasonString}
	case errors.Is(context.Cause(ctx), context.Canceled):
		return context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		err = &timedOut{"CONNACK", c.cfg.Timeout}
	}
	return c.cfg.Endpoint.notConnected(ctx, err)
}

func (c *v5) connected(connack *paho.Connack) {
	p := connack.Properties
	c.present = connack.SessionPresent
	c.limits = limits{qos: 2, retain: p.RetainAvailable}
	if p.MaximumQoS != nil {
		c.limits.qos = *p.MaximumQoS
	}
	if p.MaximumPacketSize != nil {
		c.limits.packetBytes = *p.MaximumPacketSize
	}
	if p.TopicAliasMaximum != nil {
		c.limits.topicAliases = *p.TopicAliasMaximum
	}
	c.cfg.debug("CONNACK, session present %v, assigned Client Identifier %q, at most %d in flight", c.present, p.AssignedClientID, cap(c.flight.slots))
}

// received is called by the library, one message after the other; the library acknowledges when it returns.
func (c *v5) received(r paho.PublishReceived) (bool, error) {
	m := r.Packet
	topic := m.Topic
	if alias := m.Properties.TopicAlias; alias != nil {
		if topic == "" {
			topic = c.aliases[*alias]
		} else {
			c.aliases[*alias] = topic
		}
	}
	handled := c.deliver(&Message{Topic: topic, Payload: m.Payload, QoS: m.QoS, Retain: m.Retain, Duplicate: m.Duplicate(), PacketID: m.PacketID,
		Properties: publishedProperties(m.Properties)})
	c.session.unhandled = !handled
	return true, nil
}

func (c *v5) disconnected(d *paho.Disconnect) {
	c.end(&Refused{Endpoint: c.cfg.Endpoint, Packet: "DISCONNECT", Reason: packet.Reason(d.ReasonCode), Text: d.Properties.ReasonString})
}

func (c *v5) failed(err error) {
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	c.end(&Lost{Endpoint: c.cfg.Endpoint, Cause: err})
}

// Publish leaves encoding, Packet Identifiers, acknowledgements and PUBREL to the library, and keeps what it writes in the
// connection's buffer. flight keeps fewer messages under way than the broker's Receive Maximum, so that the library never
// waits for room in there.
func (c *v5) Publish(ctx context.Context, m *Message) error {
	if err := c.allows(m); err != nil {
		return err
	}
	c.cfg.debugPublish(m)
	if m.QoS > 0 {
		if err := c.flight.enter(ctx, c.done, c.Flush); err != nil {
			return c.unlessEnded(err)
		}
	}
	flushed, err := c.conn.cork(len(m.Topic) + len(m.Payload))
	if err == nil {
		_, err = c.library.PublishWithOptions(ctx, &paho.Publish{Topic: m.Topic, Payload: m.Payload, QoS: m.QoS, Retain: m.Retain,
			Properties: publishProperties(&m.Properties)}, paho.PublishOptions{Method: paho.PublishMethod_AsyncSend})
	}
	c.conn.uncork()
	if m.QoS == 0 {
		c.flight.sent(flushed, 1)
	}
	if err != nil && ctx.Err() != nil {
		return cause(ctx)
	}
	return c.broken(err, c.cfg.Endpoint)
}

// allows checks what the broker would otherwise end the connection for.
func (c *v5) allows(m *Message) error {
	l := &c.limits
	switch alias := m.Properties.TopicAlias; {
	case m.QoS > l.qos:
		return fmt.Errorf("%s takes QoS %d at most: -q %d", c.cfg.Endpoint, l.qos, l.qos)
	case m.Retain && !l.retain:
		return fmt.Errorf("%s keeps no Retained Messages: leave -r out", c.cfg.Endpoint)
	case alias != nil && *alias > l.topicAliases:
		return fmt.Errorf("%s takes Topic Aliases up to %d, not %d", c.cfg.Endpoint, l.topicAliases, *alias)
	case l.packetBytes != 0 && uint64(len(m.Payload)) > uint64(l.packetBytes):
		return fmt.Errorf("%s takes packets of %d bytes at most, and this payload has %d", c.cfg.Endpoint, l.packetBytes, len(m.Payload))
	}
	return nil
}

// Flush is part of Client.
func (c *v5) Flush() error {
	err := c.conn.flush()
	c.flight.sent(err == nil, 0)
	return c.broken(err, c.cfg.Endpoint)
}

// Drain is part of Client.
func (c *v5) Drain(ctx context.Context) error {
	if err := c.Flush(); err != nil {
		return err
	}
	return c.unlessEnded(c.flight.wait(ctx, c.done))
}

// Progress is part of Client.
func (c *v5) Progress() Progress { return c.flight.snapshot() }

// SessionPresent is part of Client.
func (c *v5) SessionPresent() bool { return c.present }

// Subscribe is part of Client.
func (c *v5) Subscribe(ctx context.Context, subscriptions []Subscription, p Properties) ([]packet.Reason, error) {
	request := &paho.Subscribe{Properties: &paho.SubscribeProperties{SubscriptionIdentifier: p.SubscriptionID, User: userProperties(p.User)}}
	for _, s := range subscriptions {
		request.Subscriptions = append(request.Subscriptions, paho.SubscribeOptions{Topic: s.Filter, QoS: s.QoS, NoLocal: s.NoLocal,
			RetainAsPublished: s.RetainAsPublished, RetainHandling: s.RetainHandling})
	}
	connected, cancel := c.whileConnected(ctx)
	defer cancel()
	answer, err := c.library.Subscribe(connected, request)
	if answer != nil {
		return c.answered(ctx, "SUBACK", answer.Reasons, len(subscriptions), nil)
	}
	return c.answered(ctx, "SUBACK", nil, len(subscriptions), err)
}

// Unsubscribe is part of Client.
func (c *v5) Unsubscribe(ctx context.Context, filters []string, p Properties) ([]packet.Reason, error) {
	connected, cancel := c.whileConnected(ctx)
	defer cancel()
	answer, err := c.library.Unsubscribe(connected, &paho.Unsubscribe{Topics: filters, Properties: &paho.UnsubscribeProperties{User: userProperties(p.User)}})
	if answer != nil {
		return c.answered(ctx, "UNSUBACK", answer.Reasons, len(filters), nil)
	}
	return c.answered(ctx, "UNSUBACK", nil, len(filters), err)
}

// whileConnected is ctx until the connection ends: the library, v0.23.0, does not tell who waits for an answer when it ends together
// with the Session, and has them wait for the whole timeout.
func (c *v5) whileConnected(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-c.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

func (c *v5) answered(ctx context.Context, kind string, codes []byte, want int, err error) ([]packet.Reason, error) {
	switch {
	case err == nil && len(codes) != want:
		return nil, fmt.Errorf("%s answered %d filters with %d codes in its %s", c.cfg.Endpoint, want, len(codes), kind)
	case errors.Is(err, paho.ErrConnectionLost):
		return nil, c.broken(err, c.cfg.Endpoint)
	case err != nil && ctx.Err() != nil:
		return nil, cause(ctx)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, &timedOut{kind, c.cfg.Timeout}
	case errors.Is(err, paho.ErrInvalidArguments):
		return nil, err
	case err != nil:
		return nil, c.broken(err, c.cfg.Endpoint)
	}
	reasons := make([]packet.Reason, len(codes))
	for i, code := range codes {
		reasons[i] = packet.Reason(code)
	}
	c.cfg.debug("%s %v", kind, reasons)
	return reasons, nil
}

// Interrupt is part of Client.
func (c *v5) Interrupt() { c.conn.hurry(hurryTime) }

// Close is part of Client.
func (c *v5) Close(p Properties, linger time.Duration) {
	c.awaitAcknowledgement()
	c.leaving.Store(true)
	if c.conn.closed.Load() {
		c.leave()
	}
	c.conn.linger.Store(int64(linger))
	c.conn.hurry(max(linger, hurryTime))
	_ = c.library.Disconnect(&paho.Disconnect{Properties: &paho.DisconnectProperties{SessionExpiryInterval: p.SessionExpiry, User: userProperties(p.User)}})
	c.end(&Lost{Endpoint: c.cfg.Endpoint})
}

// errAuthentication is what a broker meets that wants an enhanced authentication.
var errAuthentication = errors.New("it asks for an enhanced authentication, which this client does not know")

// noAuthentication ends the connection when the broker wants one.
type noAuthentication struct {
	conn  *conn
	asked atomic.Bool
}

// Authenticate is part of paho.Auther.
func (a *noAuthentication) Authenticate(*paho.Auth) *paho.Auth {
	a.asked.Store(true)
	_ = a.conn.Close()
	return &paho.Auth{Properties: &paho.AuthProperties{}}
}

// Authenticated is part of paho.Auther.
func (a *noAuthentication) Authenticated() {}
