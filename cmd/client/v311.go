package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/ringmq/ringmq/broker/packet"
)

// v311 is a Client over paho.mqtt.golang.
type v311 struct {
	*inbox
	cfg     Config
	conn    *conn
	flight  *flight
	library mqtt.Client
	tokens  chan *mqtt.PublishToken // of messages under way, in their order; as many as flight allows
	ending  chan struct{}           // closed by the first finish: the library completes no more tokens
	gone    chan struct{}           // closed when acknowledge has returned
	errands chan *Message           // to carry, which answers each on carried
	carried chan *mqtt.PublishToken
	present bool

	subscribing chan struct{} // holds one SUBSCRIBE at a time
	filters     atomic.Int64  // its Topic Filters: written by Subscribe, read by look
	returnCode  byte          // of a CONNACK, above those that 3.1.1 has; written by look before the library's Connect returns

	finishOnce sync.Once
}

func dialV311(ctx context.Context, cfg Config, raw net.Conn) (Client, error) {
	bound := max(1, cfg.MaxInflight)
	c := &v311{inbox: newInbox(), cfg: cfg, conn: newConn(raw), flight: newFlight(bound, cfg.AckTimeout),
		tokens: make(chan *mqtt.PublishToken, bound), ending: make(chan struct{}), gone: make(chan struct{}),
		errands: make(chan *Message), carried: make(chan *mqtt.PublishToken, 1), subscribing: make(chan struct{}, 1)}
	c.conn.onClose = func() {
		if c.leaving.Load() {
			c.leave()
		}
	}
	c.conn.look = c.look
	c.library = mqtt.NewClient(c.options(wholePackets{c.conn}))
	cfg.debug("CONNECT as %q, MQTT 3.1.1, clean session %v, keep alive %v", cfg.ClientID, cfg.CleanStart, cfg.KeepAlive)
	go c.acknowledge()
	token := c.library.Connect().(*mqtt.ConnectToken)
	select {
	case <-token.Done():
	case <-ctx.Done():
		_ = c.conn.Close()
		<-token.Done()
	}
	if err := c.notConnected(ctx, token); err != nil {
		_ = c.conn.Close()
		c.finish(err)
		return nil, err
	}
	c.present = token.SessionPresent()
	cfg.debug("CONNACK, session present %v", c.present)
	go c.carry()
	return c, nil
}

func (c *v311) options(connection net.Conn) *mqtt.ClientOptions {
	cfg := &c.cfg
	o := mqtt.NewClientOptions()
	o.Servers = []*url.URL{{Scheme: "tcp", Host: "opened.already"}} // The library wants one to ask for a connection to.
	o.SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) { return connection, nil })
	o.SetProtocolVersion(uint(V311)).SetClientID(cfg.ClientID).SetCleanSession(cfg.CleanStart)
	o.SetUsername(cfg.Username).SetPassword(string(cfg.Password))
	o.SetAutoReconnect(false).SetConnectRetry(false).SetConnectTimeout(cfg.Timeout)
	o.SetKeepAlive(time.Duration(cfg.keepAliveSeconds()) * time.Second).SetPingTimeout(pingTimeout)
	o.SetDefaultPublishHandler(c.received).SetConnectionLostHandler(c.lost).SetAutoAckDisabled(true)
	if w := cfg.Will; w != nil {
		o.SetBinaryWill(w.Topic, w.Payload, w.QoS, w.Retain)
	}
	return o
}

// pingTimeout is how long a broker has to answer a PINGREQ.
const pingTimeout = 10 * time.Second

func (c *v311) notConnected(ctx context.Context, token *mqtt.ConnectToken) error {
	err, code := token.Error(), token.ReturnCode()
	switch {
	case c.returnCode > 0:
		return &Refused{Endpoint: c.cfg.Endpoint, Packet: "CONNACK", Reason: connackReason(c.returnCode)}
	case err == nil:
		return nil
	case code != packets.Accepted && code < packets.ErrNetworkError:
		return &Refused{Endpoint: c.cfg.Endpoint, Packet: "CONNACK", Reason: connackReason(code)}
	case errors.Is(context.Cause(ctx), context.Canceled):
		return context.Canceled
	case ctx.Err() != nil, isTimeout(err):
		err = &timedOut{"CONNACK", c.cfg.Timeout}
	}
	return c.cfg.Endpoint.notConnected(ctx, err)
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.As(err, &network) && network.Timeout()
}

// received is called by the library, one message after the other.
func (c *v311) received(_ mqtt.Client, m mqtt.Message) {
	if c.deliver(&Message{Topic: m.Topic(), Payload: m.Payload(), QoS: m.Qos(), Retain: m.Retained(), Duplicate: m.Duplicate(), PacketID: m.MessageID()}) {
		m.Ack() // A DISCONNECT given to the library afterwards is sent afterwards.
		c.acknowledged()
	}
}

// lost is called by the library when received will not be called any more.
func (c *v311) lost(_ mqtt.Client, err error) { c.finish(&Lost{Endpoint: c.cfg.Endpoint, Cause: err}) }

// finish ends everything once all acknowledgements that came are counted.
func (c *v311) finish(err error) {
	c.finishOnce.Do(func() { close(c.ending) })
	<-c.gone
	c.end(err)
}

// acknowledge takes the library's tokens in the order of their messages, so the first open message is the oldest one
// that was not acknowledged. It ends with the connection.
func (c *v311) acknowledge() {
	defer close(c.gone)
	for {
		select {
		case token := <-c.tokens:
			select {
			case <-token.Done():
			case <-c.ending:
			}
			c.land(token)
		case <-c.ending:
			for {
				select {
				case token := <-c.tokens:
					c.land(token)
				default:
					return
				}
			}
		}
	}
}

// land counts a message whose token the library has completed.
func (c *v311) land(token *mqtt.PublishToken) {
	select {
	case <-token.Done():
		if token.Error() == nil {
			c.flight.land(token.MessageID(), packet.Success, "")
		}
	default:
	}
}

// Publish writes QoS 0 straight into the connection's buffer with the library's encoder: on the library's own way each
// message crosses two channels, starts a timer and is written by itself, which takes 4 µs instead of 0.2
// (BenchmarkPublish): too long for the 200,000 lines per second that ringmq pub -l promises beside a broker.
func (c *v311) Publish(ctx context.Context, m *Message) error {
	c.cfg.debugPublish(m)
	if m.QoS > 0 {
		return c.publishAcknowledged(ctx, m)
	}
	p := packets.PublishPacket{FixedHeader: packets.FixedHeader{MessageType: packets.Publish, Retain: m.Retain}, TopicName: m.Topic, Payload: m.Payload}
	flushed, err := c.conn.enqueue(len(m.Topic)+len(m.Payload), func(w io.Writer) error { return p.Write(w) })
	c.flight.sent(flushed, 1)
	return c.broken(err, c.cfg.Endpoint)
}

// carry calls the library's Publish for publishAcknowledged: when the connection ends in the middle of that, the library
// waits for half a minute for somebody to take the packet, which nobody will.
func (c *v311) carry() {
	for {
		select {
		case m := <-c.errands:
			c.carried <- c.library.Publish(m.Topic, m.QoS, m.Retain, m.Payload).(*mqtt.PublishToken)
		case <-c.done:
			return
		}
	}
}

// carriedGrace is how long carry has, after the end of the connection, for a Publish that was all but done.
const carriedGrace = 100 * time.Millisecond

// awaitCarried is the token of what carry was given; nil when the connection has ended in the middle of it.
func (c *v311) awaitCarried() *mqtt.PublishToken {
	select {
	case token := <-c.carried:
		return token
	case <-c.done:
	}
	select {
	case token := <-c.carried:
		return token
	case <-time.After(carriedGrace):
		return nil
	}
}

// publishAcknowledged leaves everything to the library, which keeps the payload until it is acknowledged.
func (c *v311) publishAcknowledged(ctx context.Context, m *Message) error {
	if err := c.flight.enter(ctx, c.done, c.Flush); err != nil {
		return c.unlessEnded(err)
	}
	errand := *m // carry may still look at it when this has returned
	errand.Payload = bytes.Clone(m.Payload)
	var token *mqtt.PublishToken
	select {
	case c.errands <- &errand:
		if token = c.awaitCarried(); token == nil {
			c.flight.giveUp()
			return c.unlessEnded(errEnded)
		}
	case <-c.done:
		c.flight.giveUp()
		return c.unlessEnded(errEnded)
	}
	select {
	case <-token.Done():
		if err := token.Error(); err != nil {
			c.flight.giveUp()
			return c.broken(err, c.cfg.Endpoint)
		}
	default:
	}
	c.flight.takeOff(token.MessageID())
	c.tokens <- token
	return nil
}

// Flush is part of Client.
func (c *v311) Flush() error {
	err := c.conn.flush()
	c.flight.sent(err == nil, 0)
	return c.broken(err, c.cfg.Endpoint)
}

// Drain is part of Client.
func (c *v311) Drain(ctx context.Context) error {
	if err := c.Flush(); err != nil {
		return err
	}
	return c.unlessEnded(c.flight.wait(ctx, c.done))
}

// Progress is part of Client.
func (c *v311) Progress() Progress { return c.flight.snapshot() }

// SessionPresent is part of Client.
func (c *v311) SessionPresent() bool { return c.present }

// Subscribe is part of Client. The library wants each filter once, and gives the codes by filter.
func (c *v311) Subscribe(ctx context.Context, subscriptions []Subscription, _ Properties) ([]packet.Reason, error) {
	filters := map[string]byte{}
	for _, s := range subscriptions {
		filters[s.Filter] = s.QoS
	}
	select {
	case c.subscribing <- struct{}{}:
		defer func() { <-c.subscribing }()
	case <-ctx.Done():
		return nil, cause(ctx)
	}
	c.filters.Store(int64(len(filters)))
	var token *mqtt.SubscribeToken
	err := c.ask(ctx, "SUBACK", func() mqtt.Token {
		token = c.library.SubscribeMultiple(filters, nil).(*mqtt.SubscribeToken)
		return token
	})
	if err != nil {
		return nil, err
	}
	codes, reasons := token.Result(), make([]packet.Reason, len(subscriptions))
	for i, s := range subscriptions {
		code, answered := codes[s.Filter]
		if !answered {
			return nil, fmt.Errorf("%s answered %d filters with %d codes in its SUBACK", c.cfg.Endpoint, len(filters), len(codes))
		}
		reasons[i] = packet.Reason(code)
	}
	c.cfg.debug("SUBACK %v", reasons)
	return reasons, nil
}

// Unsubscribe is part of Client.
func (c *v311) Unsubscribe(ctx context.Context, filters []string, _ Properties) ([]packet.Reason, error) {
	err := c.ask(ctx, "UNSUBACK", func() mqtt.Token { return c.library.Unsubscribe(filters...) })
	return make([]packet.Reason, len(filters)), err
}

// ask has the library send a request and waits for the answer. On a connection that is being closed the library holds whoever asks for
// half a minute: it is left to that.
func (c *v311) ask(ctx context.Context, kind string, request func() mqtt.Token) error {
	asked := make(chan mqtt.Token, 1)
	go func() { asked <- request() }()
	select {
	case token := <-asked:
		return c.await(ctx, token, kind)
	case <-c.done:
		return c.Err()
	case <-ctx.Done():
		return cause(ctx)
	}
}

func (c *v311) await(ctx context.Context, token mqtt.Token, kind string) error {
	timer := time.NewTimer(c.cfg.Timeout)
	defer timer.Stop()
	select {
	case <-token.Done():
		return c.broken(token.Error(), c.cfg.Endpoint)
	case <-c.done:
		return c.Err()
	case <-ctx.Done():
		return cause(ctx)
	case <-timer.C:
		return &timedOut{kind, c.cfg.Timeout}
	}
}

// Interrupt is part of Client.
func (c *v311) Interrupt() { c.conn.hurry(hurryTime) }

// Close is part of Client. The library's Disconnect returns early when it has waited long enough for its own goroutines,
// so the rest is waited for here.
func (c *v311) Close(_ Properties, linger time.Duration) {
	c.awaitAcknowledgement()
	c.leaving.Store(true)
	if c.conn.closed.Load() {
		c.leave()
	}
	c.conn.linger.Store(int64(linger))
	c.conn.hurry(max(linger, hurryTime))
	_ = c.conn.flush()                                                  // The DISCONNECT fails like it.
	c.library.Disconnect(uint((linger + hurryTime) / time.Millisecond)) // It ends the library's goroutines, too.
	_ = c.conn.Close()
	c.leave()
	c.finish(&Lost{Endpoint: c.cfg.Endpoint})
}

// look keeps two packets from the library, v1.5.1: of a return code of a CONNACK that 3.1.1 does not define it makes a connection
// that is up and closed at the same time, and more return codes in a SUBACK than it has asked for end the process.
func (c *v311) look(h packet.Header) error {
	switch {
	case h.Kind == packet.SUBACK && int64(h.Remaining) > 2+c.filters.Load():
		return errMalformed
	case h.Kind == packet.CONNACK && h.Remaining >= 2:
		head, err := c.conn.in.Peek(h.Size + 2)
		if err == nil && head[h.Size+1] > packets.ErrRefusedNotAuthorised {
			c.returnCode = head[h.Size+1]
			return io.ErrUnexpectedEOF
		}
	}
	return nil
}
