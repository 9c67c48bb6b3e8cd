package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
)

func sessionExpiryV5(ctx context.Context, t task) error {
	s := stageV5(ctx, t, func(c *paho.Connect) { c.Properties.SessionExpiryInterval = pointer(uint32(4)) }, nil)
	s.enter("sleeper").close()
	soon := s.enter("sleeper", func(o *connectOptions) { o.resume = true })
	soon.session(true)
	soon.close()
	s.wait(7 * time.Second)
	s.enter("sleeper", func(o *connectOptions) { o.resume = true }).session(false)
	return s.end()
}

func willDelayV5(ctx context.Context, t task) error {
	s := stageV5(ctx, t, nil, nil)
	gone := message{topic: t.name("will"), payload: "gone", qos: 1, properties: properties{willDelay: 4}}
	marker := message{topic: t.name("marker"), payload: "before the will", qos: 1}
	watcher, publisher := s.enter("watcher"), s.enter("publisher")
	watcher.subscribe(t.name("#"), 1)
	s.enter("dying", kept, withWill(gone)).cut()
	back := s.enter("dying", resumed, withWill(gone))
	back.session(true)
	s.wait(6 * time.Second)
	watcher.silent()
	back.cut()
	publisher.publish(marker)
	watcher.wants(marker)
	watcher.wants(message{topic: gone.topic, payload: gone.payload, qos: 1})
	s.enter("dying").close()
	return s.end()
}

// lasting is an autopaho connection whose socket can be cut.
type lasting struct {
	*autopaho.ConnectionManager
	mu       sync.Mutex
	conn     net.Conn
	sessions []bool // Session Present of each connection
}

// keepUp connects, and connects again with the same Session whenever the connection is lost.
func keepUp(ctx context.Context, t task, id string, got func(*paho.Publish)) (*lasting, error) {
	l := &lasting{}
	server := &url.URL{Scheme: "mqtt", Host: net.JoinHostPort(t.Host, strconv.Itoa(t.Port))}
	c, err := autopaho.NewConnection(ctx, autopaho.ClientConfig{
		ServerUrls:                    []*url.URL{server},
		KeepAlive:                     60,
		CleanStartOnInitialConnection: true,
		SessionExpiryInterval:         sessionSeconds,
		ReconnectBackoff:              autopaho.NewConstantBackoff(50 * time.Millisecond),
		AttemptConnection: func(ctx context.Context, _ autopaho.ClientConfig, _ *url.URL) (net.Conn, error) {
			conn, err := dial(ctx, t)
			l.mu.Lock()
			defer l.mu.Unlock()
			l.conn = conn
			return conn, err
		},
		DisconnectPacketBuilder: func() *paho.Disconnect {
			return &paho.Disconnect{Properties: &paho.DisconnectProperties{SessionExpiryInterval: pointer(uint32(0))}}
		},
		OnConnectionUp: func(_ *autopaho.ConnectionManager, ack *paho.Connack) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.sessions = append(l.sessions, ack.SessionPresent)
		},
		ClientConfig: paho.ClientConfig{ClientID: t.name(id), Session: newStateV5(), OnPublishReceived: []func(paho.PublishReceived) (bool, error){
			func(r paho.PublishReceived) (bool, error) { got(r.Packet); return true, nil },
		}},
	})
	if err != nil {
		return nil, err
	}
	l.ConnectionManager = c
	return l, c.AwaitConnection(ctx)
}

func (l *lasting) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	cutSocket(l.conn)
}

// came says whether there was one connection without a Session, and then so many with it.
func (l *lasting) came(again int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	want := append([]bool{false}, slices.Repeat([]bool{true}, again)...)
	return differ("Session Present", fmt.Sprint(l.sessions), fmt.Sprint(want))
}

// reconnectV5 tries again when a message has not come. paho.golang 0.23 loses one when its socket is cut, about once in twenty runs, with
// Mosquitto for a broker (7 of 135) as with ours (3 of 80): a broker that loses one fails every time.
func reconnectV5(ctx context.Context, t task) (err error) {
	prefix, deadline := t.Prefix, time.Now().Add(t.limit())
	for left := 3; left > 0; left-- {
		t.Prefix = fmt.Sprintf("%s/%d", prefix, left)
		try, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		err = reconnectOnceV5(try, t)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			break
		}
	}
	return err
}

func reconnectOnceV5(ctx context.Context, t task) error {
	const n = 300
	got := make(chan string, inboxMax)
	subscriber, err := keepUp(ctx, t, "subscriber", func(p *paho.Publish) { got <- string(p.Payload) })
	if err != nil {
		return err
	}
	defer subscriber.end()
	publisher, err := keepUp(ctx, t, "publisher", func(*paho.Publish) {})
	if err != nil {
		return err
	}
	defer publisher.end()
	if _, err := subscriber.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: t.name("t"), QoS: 2}}}); err != nil {
		return err
	}
	err = eachOnce(ctx, got, n, func(count int) error {
		switch count {
		case 0:
			return publisher.queue(ctx, t, 0, n/2)
		case n / 4:
			err := publisher.queue(ctx, t, n/2, n)
			publisher.cut()
			return err
		case n * 3 / 4:
			subscriber.cut()
		}
		return nil
	})
	return errors.Join(err, subscriber.came(1), publisher.came(1))
}

// queue hands the numbers from first to before end to autopaho, which publishes them as soon as it can.
func (l *lasting) queue(ctx context.Context, t task, first, end int) error {
	for i := first; i < end; i++ {
		p := &paho.Publish{Topic: t.name("t"), QoS: 2, Payload: []byte(strconv.Itoa(i))}
		if err := l.PublishViaQueue(ctx, &autopaho.QueuePublish{Publish: p}); err != nil {
			return err
		}
	}
	return nil
}

// eachOnce takes the numbers below n, each once, in any order, and then silence. It says after how many it is.
func eachOnce(ctx context.Context, got <-chan string, n int, at func(count int) error) error {
	seen := map[string]bool{}
	for len(seen) < n {
		if err := at(len(seen)); err != nil {
			return err
		}
		select {
		case payload := <-got:
			if i, err := strconv.Atoi(payload); err != nil || i >= n || seen[payload] {
				return fmt.Errorf("message %q came, or came twice", payload)
			}
			seen[payload] = true
		case <-ctx.Done():
			return fmt.Errorf("%d of %d messages have come: %w", len(seen), n, ctx.Err())
		}
	}
	select {
	case payload := <-got:
		return fmt.Errorf("message %s came twice", payload)
	case <-time.After(quiet):
		return nil
	}
}

// end ends the connection and the Session.
func (l *lasting) end() {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	l.Disconnect(ctx)
}
