package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

const (
	// quiesceMillis is how long paho.mqtt.golang may take to say DISCONNECT.
	quiesceMillis = 1000
	// protocolV3 is how 3.1.1 calls itself in CONNECT.
	protocolV3 = 4
)

// pahoV3 is a client of paho.mqtt.golang, which speaks 3.1.1.
type pahoV3 struct {
	client  mqtt.Client
	present bool
	got     chan message
	ended   chan string

	mu   sync.Mutex
	conn net.Conn // of the latest connection
}

// optionsV3 are what all scenes want: one try, in 3.1.1.
func (c *pahoV3) optionsV3(ctx context.Context, t task, o connectOptions) *mqtt.ClientOptions {
	settings := mqtt.NewClientOptions().
		AddBroker("tcp://" + net.JoinHostPort(t.Host, strconv.Itoa(t.Port))).
		SetProtocolVersion(protocolV3).
		SetClientID(o.clientID).
		SetCleanSession(!o.keep).
		SetKeepAlive(o.keepAlive).
		SetAutoReconnect(false).
		SetDefaultPublishHandler(c.receive).
		SetConnectionLostHandler(func(mqtt.Client, error) { c.ended <- "lost" }).
		SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) {
			conn, err := dial(ctx, t)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.conn = conn
			return conn, err
		})
	if o.will != nil {
		settings.SetBinaryWill(o.will.topic, []byte(o.will.payload), o.will.qos, o.will.retain)
	}
	return settings
}

// connectV3 connects with whatever change adds to the options; it may be nil.
func connectV3(ctx context.Context, t task, o connectOptions, change func(*mqtt.ClientOptions)) (*pahoV3, error) {
	c := &pahoV3{got: make(chan message, inboxMax), ended: make(chan string, 8)}
	settings := c.optionsV3(ctx, t, o)
	if change != nil {
		change(settings)
	}
	c.client = mqtt.NewClient(settings)
	token := c.client.Connect()
	if err := await(ctx, token); err != nil {
		return nil, err
	}
	c.present = token.(*mqtt.ConnectToken).SessionPresent()
	return c, nil
}

// await waits for the end of what a token stands for.
func await(ctx context.Context, token mqtt.Token) error {
	select {
	case <-token.Done():
		return token.Error()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *pahoV3) receive(_ mqtt.Client, m mqtt.Message) {
	c.got <- message{topic: m.Topic(), payload: string(m.Payload()), qos: m.Qos(), retain: m.Retained()}
}

func (c *pahoV3) sessionPresent() bool { return c.present }

func (c *pahoV3) subscribe(ctx context.Context, filter string, qos byte) error {
	token := c.client.Subscribe(filter, qos, nil)
	if err := await(ctx, token); err != nil {
		return err
	}
	for _, granted := range token.(*mqtt.SubscribeToken).Result() { // One; its key has lost $share.
		return differ("the return code of SUBACK", granted, qos)
	}
	return errors.New("SUBACK without a return code")
}

func (c *pahoV3) unsubscribe(ctx context.Context, filter string) error {
	return await(ctx, c.client.Unsubscribe(filter))
}

func (c *pahoV3) publish(ctx context.Context, messages ...message) error {
	var tokens []mqtt.Token
	for _, m := range messages {
		tokens = append(tokens, c.client.Publish(m.topic, m.qos, m.retain, m.payload))
	}
	for i, token := range tokens {
		if err := await(ctx, token); err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
	}
	return nil
}

func (c *pahoV3) messages() <-chan message { return c.got }

func (c *pahoV3) gone() <-chan string { return c.ended }

func (c *pahoV3) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	cutSocket(c.conn)
}

func (c *pahoV3) close() { c.client.Disconnect(quiesceMillis) }

// pahoV3Scenes are the scenes of paho.mqtt.golang.
func pahoV3Scenes() inProcess {
	scenes := basics(func(ctx context.Context, t task, o connectOptions) (link, error) { return connectV3(ctx, t, o, nil) })
	scenes["reconnect"] = alone(reconnectV3)
	scenes["send"] = alone(sendV3)
	scenes["receive"] = receiveV3
	return scenes
}

// reconnectV3 has both clients reconnect by themselves.
func reconnectV3(ctx context.Context, t task) error {
	const n = 300
	lost := make(chan bool, 8)
	s := &stage{task: t, ctx: ctx, connect: func(ctx context.Context, t task, o connectOptions) (link, error) {
		return connectV3(ctx, t, o, func(o *mqtt.ClientOptions) {
			o.SetAutoReconnect(true).SetMaxReconnectInterval(50 * time.Millisecond)
			o.SetConnectionLostHandler(func(mqtt.Client, error) { lost <- true })
		})
	}}
	s.enter("subscriber").close() // No Session from before.
	subscriber, publisher := s.enter("subscriber", kept), s.enter("publisher", kept)
	subscriber.subscribe(t.name("t"), 2)
	s.try("publish and receive", func() error {
		return receiveCut(ctx, subscriber.link.(*pahoV3), publisher.link.(*pahoV3), numbers(t.name("t"), 2, n))
	})
	s.try("reconnect", func() error {
		// The library tells from a goroutine of its own, which may come to it late.
		for deadline := time.Now().Add(5 * time.Second); len(lost) < 2 && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
		return differ("the number of connections lost", len(lost), 2)
	})
	subscriber.close()
	publisher.close()
	s.enter("subscriber").close() // The Sessions end.
	s.enter("publisher").close()
	s.try("receive", func() error {
		return remark("may publish a QoS 2 message again after PUBREL, and hands on again what it has received: after a cut it is at least once")
	})
	return s.end()
}

// receiveCut has one publish and the other receive messages, and cuts the publisher's socket amid and then the
// subscriber's.
func receiveCut(ctx context.Context, subscriber, publisher *pahoV3, all []message) error {
	n := len(all)
	publish := func(messages []message) { // What fails to be written is sent later: the tokens do not know.
		for _, m := range messages {
			publisher.client.Publish(m.topic, m.qos, m.retain, m.payload)
		}
	}
	publish(all[:n/2])
	for seen := map[string]bool{}; len(seen) < n; {
		select {
		case m := <-subscriber.got:
			if i, err := strconv.Atoi(m.payload); err != nil || i >= n {
				return fmt.Errorf("message %q came", m.payload)
			} else if seen[m.payload] {
				continue
			}
			seen[m.payload] = true
		case <-ctx.Done():
			return fmt.Errorf("%d of %d messages have come: %w", len(seen), n, ctx.Err())
		}
		switch len(seen) {
		case n / 4:
			publish(all[n/2:])
			publisher.cut()
		case n * 3 / 4:
			subscriber.cut()
		}
	}
	return nil
}

func sendV3(ctx context.Context, t task) error {
	s := &stage{task: t, ctx: ctx, connect: func(ctx context.Context, t task, o connectOptions) (link, error) { return connectV3(ctx, t, o, nil) }}
	s.enter("sender").publish(crossMessages(t, v3)...)
	return s.end()
}

func receiveV3(ctx context.Context, t task, ready func()) error {
	s := &stage{task: t, ctx: ctx, connect: func(ctx context.Context, t task, o connectOptions) (link, error) { return connectV3(ctx, t, o, nil) }}
	a := s.enter("receiver paho.mqtt.golang")
	a.subscribe(t.name("kept"), 2)
	a.wants(message{topic: t.name("kept"), payload: "kept", qos: 1, retain: true})
	a.subscribe(t.name("messages"), 2)
	s.try("ready", func() error { ready(); return nil })
	for _, want := range crossMessages(t, v3) {
		a.wants(want)
	}
	return s.end()
}
