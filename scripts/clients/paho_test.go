package clients

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

// client is a paho client with what it has received.
type client struct {
	*paho.Client
	t    *testing.T
	ack  *paho.Connack
	got  chan *paho.Publish
	gone chan *paho.Disconnect // the broker's DISCONNECT
}

// paho connects a paho client; settings and connect may be nil.
func (b *broker) paho(t *testing.T, clientID string, settings func(*paho.ClientConfig), connect func(*paho.Connect)) *client {
	t.Helper()
	c, err := b.tryPaho(t, clientID, settings, connect)
	if err != nil {
		t.Fatalf("%s: %v", clientID, err)
	}
	return c
}

func (b *broker) tryPaho(t *testing.T, clientID string, settings func(*paho.ClientConfig), connect func(*paho.Connect)) (*client, error) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", b.address, patience)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, got: make(chan *paho.Publish, 1<<12), gone: make(chan *paho.Disconnect, 1)}
	config := paho.ClientConfig{Conn: conn, PacketTimeout: patience,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(r paho.PublishReceived) (bool, error) {
			c.got <- r.Packet
			return true, nil
		}},
		OnServerDisconnect: func(d *paho.Disconnect) { c.gone <- d },
	}
	if settings != nil {
		settings(&config)
	}
	p := &paho.Connect{ClientID: clientID, CleanStart: true, KeepAlive: 60, Properties: &paho.ConnectProperties{RequestProblemInfo: true}}
	if connect != nil {
		connect(p)
	}
	c.Client = paho.NewClient(config)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if c.ack, err = c.Connect(ctx, p); err != nil {
		return c, err
	}
	t.Cleanup(func() { c.Disconnect(&paho.Disconnect{}) })
	return c, nil
}

func (c *client) subscribe(o paho.SubscribeOptions) {
	c.t.Helper()
	if _, err := c.Subscribe(c.t.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{o}}); err != nil {
		c.t.Fatalf("subscribe to %s: %v", o.Topic, err)
	}
}

func (c *client) publish(p *paho.Publish) {
	c.t.Helper()
	if _, err := c.Publish(c.t.Context(), p); err != nil {
		c.t.Fatalf("publish to %s: %v", p.Topic, err)
	}
}

// next is the next message.
func (c *client) next() *paho.Publish {
	c.t.Helper()
	select {
	case p := <-c.got:
		return p
	case d := <-c.gone:
		select {
		case p := <-c.got: // It came before the DISCONNECT, and both were there.
			c.gone <- d
			return p
		default:
		}
		c.t.Fatalf("disconnected with %#x", d.ReasonCode)
	case <-time.After(patience):
		c.t.Fatal("no message came")
	}
	return nil
}
