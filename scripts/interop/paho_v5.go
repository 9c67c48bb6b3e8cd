package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
)

// sessionSeconds is the Session Expiry Interval of Sessions that outlive their connection: long enough for a scene.
const sessionSeconds = 600

// pahoV5 is a client of paho.golang, which speaks 5.0.
type pahoV5 struct {
	client *paho.Client
	conn   net.Conn
	ack    *paho.Connack
	got    chan message
	ended  chan string
	closed atomic.Bool // by us: what the library says of the connection is no news then
}

// dial opens the Network Connection that paho.golang wants from its user.
func dial(ctx context.Context, t task) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", net.JoinHostPort(t.Host, strconv.Itoa(t.Port)))
}

// cutSocket ends a connection as a broken network does, without a word. A socket that is closed instead would look to
// paho.mqtt.golang as if its user wanted to leave.
func cutSocket(conn net.Conn) {
	socket := conn.(*net.TCPConn)
	socket.CloseRead()
	socket.CloseWrite()
}

// connectV5 connects with whatever change adds to the CONNECT and to the client; both may be nil.
func connectV5(ctx context.Context, t task, o connectOptions, packet func(*paho.Connect), config func(*paho.ClientConfig)) (*pahoV5, error) {
	conn, err := dial(ctx, t)
	if err != nil {
		return nil, err
	}
	c := &pahoV5{conn: conn, got: make(chan message, inboxMax), ended: make(chan string, 1)}
	settings := paho.ClientConfig{Conn: conn, Session: newStateV5(), PacketTimeout: t.limit(),
		OnPublishReceived:  []func(paho.PublishReceived) (bool, error){c.receive},
		OnServerDisconnect: func(d *paho.Disconnect) { c.over(fmt.Sprintf("%#x", d.ReasonCode)) },
		OnClientError:      func(error) { c.over("lost") },
	}
	if config != nil {
		config(&settings)
	}
	p := connectPacket(o)
	if packet != nil {
		packet(p)
	}
	c.client = paho.NewClient(settings)
	c.ack, err = c.client.Connect(ctx, p)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func connectPacket(o connectOptions) *paho.Connect {
	p := &paho.Connect{ClientID: o.clientID, CleanStart: !o.resume, KeepAlive: uint16(o.keepAlive.Seconds()),
		Properties: &paho.ConnectProperties{RequestProblemInfo: true}}
	if o.keep {
		p.Properties.SessionExpiryInterval = pointer(uint32(sessionSeconds))
	}
	if o.will != nil {
		p.WillMessage = &paho.WillMessage{Topic: o.will.topic, Payload: []byte(o.will.payload), QoS: o.will.qos, Retain: o.will.retain}
		p.WillProperties = &paho.WillProperties{WillDelayInterval: pointer(o.will.willDelay)}
	}
	return p
}

func pointer[T any](v T) *T { return &v }

func (c *pahoV5) over(why string) {
	if c.closed.Load() {
		return
	}
	select {
	case c.ended <- why:
	default:
	}
}

func (c *pahoV5) receive(r paho.PublishReceived) (bool, error) {
	c.got <- messageV5(r.Packet)
	return true, nil
}

// messageV5 is what paho.golang shows of a message.
func messageV5(p *paho.Publish) message {
	m := message{topic: p.Topic, payload: string(p.Payload), qos: p.QoS, retain: p.Retain}
	q := p.Properties
	if q == nil {
		return m
	}
	m.properties = properties{contentType: q.ContentType, responseTopic: q.ResponseTopic, correlation: string(q.CorrelationData),
		utf8: q.PayloadFormat != nil && *q.PayloadFormat == 1, expiry: q.MessageExpiry}
	var pairs []string
	for _, u := range q.User {
		pairs = append(pairs, u.Key+"="+u.Value)
	}
	m.user = strings.Join(pairs, " ")
	if q.SubscriptionIdentifier != nil {
		m.subscription = *q.SubscriptionIdentifier
	}
	if q.TopicAlias != nil {
		m.alias = *q.TopicAlias
	}
	return m
}

// publishV5 is the PUBLISH of a message.
func publishV5(m message) *paho.Publish {
	q := &paho.PublishProperties{ContentType: m.contentType, ResponseTopic: m.responseTopic, MessageExpiry: m.expiry}
	if m.correlation != "" {
		q.CorrelationData = []byte(m.correlation)
	}
	if m.utf8 {
		q.PayloadFormat = pointer(byte(1))
	}
	for pair := range strings.FieldsSeq(m.user) {
		key, value, _ := strings.Cut(pair, "=")
		q.User.Add(key, value)
	}
	return &paho.Publish{Topic: m.topic, Payload: []byte(m.payload), QoS: m.qos, Retain: m.retain, Properties: q}
}

func (c *pahoV5) sessionPresent() bool { return c.ack.SessionPresent }

func (c *pahoV5) subscribe(ctx context.Context, filter string, qos byte) error {
	return c.subscribeWith(ctx, 0, paho.SubscribeOptions{Topic: filter, QoS: qos})
}

// subscribeWith subscribes with Subscription Options and, unless it is 0, a Subscription Identifier.
func (c *pahoV5) subscribeWith(ctx context.Context, id int, o paho.SubscribeOptions) error {
	s := &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{o}}
	if id != 0 {
		s.Properties = &paho.SubscribeProperties{SubscriptionIdentifier: &id}
	}
	ack, err := c.client.Subscribe(ctx, s)
	if err != nil {
		return err
	}
	return differ("the Reason Code of SUBACK", ack.Reasons[0], o.QoS)
}

func (c *pahoV5) unsubscribe(ctx context.Context, filter string) error {
	ack, err := c.client.Unsubscribe(ctx, &paho.Unsubscribe{Topics: []string{filter}})
	if err != nil {
		return err
	}
	return differ("the Reason Code of UNSUBACK", ack.Reasons[0], packets.UnsubackSuccess)
}

// publish waits for the last acknowledgement only: those of one QoS come in order.
func (c *pahoV5) publish(ctx context.Context, messages ...message) error {
	for i, m := range messages {
		method := paho.PublishMethod_AsyncSend
		if i == len(messages)-1 {
			method = paho.PublishMethod_Blocking
		}
		if _, err := c.client.PublishWithOptions(ctx, publishV5(m), paho.PublishOptions{Method: method}); err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
	}
	return nil
}

func (c *pahoV5) messages() <-chan message { return c.got }

func (c *pahoV5) gone() <-chan string { return c.ended }

func (c *pahoV5) cut() {
	c.closed.Store(true)
	cutSocket(c.conn)
	<-c.client.Done()
}

func (c *pahoV5) close() { c.disconnect(packets.DisconnectNormalDisconnection) }

func (c *pahoV5) disconnect(reason byte) {
	if !c.closed.Swap(true) {
		c.client.Disconnect(&paho.Disconnect{ReasonCode: reason})
	}
	<-c.client.Done()
}

// pahoV5Scenes are the scenes of paho.golang.
func pahoV5Scenes() inProcess {
	scenes := basics(func(ctx context.Context, t task, o connectOptions) (link, error) {
		return connectV5(ctx, t, o, nil, nil)
	})
	for name, scene := range map[string]func(context.Context, task) error{
		"options": optionsV5, "properties": propertiesV5, "expiry": expiryV5, "request": requestV5, "session-expiry": sessionExpiryV5,
		"reconnect": reconnectV5, "will-delay": willDelayV5, "will-disconnect": willDisconnectV5, "alias-out": aliasOutV5,
		"alias-in": aliasInV5, "receive-maximum": receiveMaximumV5, "send-quota": sendQuotaV5, "send": sendV5,
	} {
		scenes[name] = alone(scene)
	}
	maps.Copy(scenes, inProcess{"receive": receiveV5})
	return scenes
}
