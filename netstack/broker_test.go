package netstack

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/netstack/cable"
)

// host is a process around a broker that authenticates nobody and logs into the test.
type host struct{ t *testing.T }

func (h host) Authenticate(broker.AuthRequest) bool { return false }
func (h host) Log(broker.LogEvent) bool             { return true }

// TestBroker runs the real broker on two planes over a cable that loses frames, with real clients.
func TestBroker(t *testing.T) {
	const planes = 2
	c := cable.New(cable.Config{Queues: planes, Steer: byRemotePort(planes)})
	config := testConfig()
	config.TCP.MinRTO = 5 * time.Millisecond
	g := mustOpen(t, config, c)
	limits, err := broker.Limits{Shards: planes, Memory: 64 << 20, MaxConnections: 100}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	var list []broker.Plane
	for _, p := range g.Planes() {
		list = append(list, p)
	}
	listeners := make([]broker.ListenerConfig, len(g.Addresses()))
	for i := range listeners {
		listeners[i].AllowAnonymous = true
	}
	b, err := broker.New(broker.Options{Limits: limits, Config: broker.Config{Listeners: listeners}, Host: host{t}}, list)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx, time.Second) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	defer stop()
	k := newClient(t, c)
	c.SetFaults(cable.Faults{Seed: 1, Loss: 0.01})
	publishAndReceive(t, k)
	c.SetFaults(cable.Faults{})
	stop()
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	k.stop()
	if err := checkLeftovers(g, c); err != nil {
		t.Error(err)
	}
}

// publishAndReceive has one client of each family publish to each other, at every QoS.
func publishAndReceive(t *testing.T, k *client) {
	t.Helper()
	const messages = 100
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	received := make(chan string, 2*messages)
	var clients []*paho.Client
	for i := range 2 {
		p, err := k.dial(dialled(i))
		if err != nil {
			t.Fatal(err)
		}
		m := paho.NewClient(paho.ClientConfig{Conn: packets.NewThreadSafeConn(p), OnPublishReceived: []func(paho.PublishReceived) (bool, error){
			func(r paho.PublishReceived) (bool, error) {
				received <- string(r.Packet.Payload)
				return true, nil
			},
		}})
		if _, err := m.Connect(ctx, &paho.Connect{ClientID: fmt.Sprint("client", i), CleanStart: true, KeepAlive: 30}); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: fmt.Sprint("to/", i), QoS: 2}}}); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, m)
	}
	for i, m := range clients {
		for n := range messages {
			packet := &paho.Publish{Topic: fmt.Sprint("to/", 1-i), QoS: byte(n % 3), Payload: fmt.Appendf(nil, "%d from %d", n, i)}
			if _, err := m.Publish(ctx, packet); err != nil {
				t.Fatalf("message %d of client %d: %v", n, i, err)
			}
		}
	}
	want := map[string]bool{}
	for range 2 * messages {
		select {
		case payload := <-received:
			want[payload] = true
		case <-ctx.Done():
			t.Fatalf("%d of %d messages have come", len(want), 2*messages)
		}
	}
	if len(want) != 2*messages {
		t.Errorf("%d different messages have come; want %d", len(want), 2*messages)
	}
	for _, m := range clients {
		if err := m.Disconnect(&paho.Disconnect{}); err != nil {
			t.Error(err)
		}
	}
}
