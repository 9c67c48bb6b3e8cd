package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/ringmq/ringmq/broker/packet"
	"go.uber.org/goleak"
)

// TestMain lets pass what v311.carry and ask leave behind for half a minute when a connection ends in the middle of a request.
func TestMain(m *testing.M) {
	const library = "github.com/eclipse/paho%2emqtt%2egolang.(*client)."
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(library+"Publish"), goleak.IgnoreAnyFunction(library+"SubscribeMultiple"),
		goleak.IgnoreAnyFunction(library+"Unsubscribe"))
}

const patience = 10 * time.Second

// peer is the broker's end of one connection, scripted by a test.
type peer struct {
	net.Conn
	in      *bufio.Reader
	version packet.Version
}

// next reads one packet, whole; nil at the end.
func (p *peer) next() []byte {
	for size := 2; ; size++ {
		head, err := p.in.Peek(size)
		if err != nil {
			return nil
		}
		if h, reason := packet.ParseHeader(head); reason == packet.Success && h.Size > 0 {
			whole := make([]byte, h.Size+h.Remaining)
			_, _ = io.ReadFull(p.in, whole)
			return whole
		}
	}
}

func (p *peer) send(b []byte) { _, _ = p.Write(b) }

func (p *peer) publish(qos uint8, id uint16, payload string) {
	p.send(packet.AppendPublish(nil, &packet.PublishHead{Flags: packet.PublishFlags(false, qos, false), Topic: []byte("a"), PacketID: id, PayloadSize: len(payload)}, []byte(payload), p.version))
}

func (p *peer) connack() {
	if p.next(); p.version == packet.V50 {
		p.send([]byte{0x20, 3, 0, 0, 0})
	} else {
		p.send([]byte{0x20, 2, 0, 0})
	}
}

// connected dials a peer that has accepted the connection; serve is the rest of its script.
func connected(t testing.TB, version Version, serve func(p *peer)) Client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := l.Accept()
		if err != nil {
			return
		}
		defer raw.Close()
		_ = raw.SetDeadline(time.Now().Add(patience))
		p := &peer{raw, bufio.NewReaderSize(raw, 64<<10), packet.Version(version)}
		p.connack()
		serve(p)
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	c, err := Dial(context.Background(), Config{Version: version, Endpoint: Endpoint{Network: "tcp", Address: l.Addr().String()}, ClientID: "test",
		CleanStart: true, Timeout: patience, MaxInflight: 10})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func eachVersion(t *testing.T, test func(t *testing.T, v Version)) {
	for _, v := range []Version{V311, V5} {
		t.Run(v.String(), func(t *testing.T) { test(t, v) })
	}
}

// TestAcknowledgementWaits: a message is acknowledged when it was handled, in order, and one that was handled just before
// Close is, before the DISCONNECT.
func TestAcknowledgementWaits(t *testing.T) {
	eachVersion(t, func(t *testing.T, v Version) {
		after := make(chan []packet.Kind, 1)
		c := connected(t, v, func(p *peer) {
			p.publish(1, 1, "one")
			p.publish(2, 2, "two")
			p.publish(1, 3, "three")
			var kinds []packet.Kind
			for b := p.next(); b != nil; b = p.next() {
				kinds = append(kinds, packet.Kind(b[0]>>4))
			}
			after <- kinds
		})
		for _, want := range []string{"one", "two"} {
			m := <-c.Messages()
			if string(m.Payload) != want {
				t.Errorf("%q, want %q", m.Payload, want)
			}
			m.Handled()
		}
		<-c.Messages() // Taken, never handled.
		c.Close(Properties{}, time.Second)
		if got, want := fmt.Sprint(<-after), fmt.Sprint([]packet.Kind{packet.PUBACK, packet.PUBREC, packet.DISCONNECT}); got != want {
			t.Errorf("the broker gets %s, want %s", got, want)
		}
	})
}

// TestCloseAcknowledgesTheLast: Handled and Close follow each other at once.
func TestCloseAcknowledgesTheLast(t *testing.T) {
	eachVersion(t, func(t *testing.T, v Version) {
		for range 20 {
			first := make(chan packet.Kind, 1)
			c := connected(t, v, func(p *peer) {
				p.publish(1, 1, "one")
				if b := p.next(); b != nil {
					first <- packet.Kind(b[0] >> 4)
				}
				p.next()
			})
			m := <-c.Messages()
			m.Handled()
			c.Close(Properties{}, time.Second)
			if kind := <-first; kind != packet.PUBACK {
				t.Fatalf("the broker gets %v first, want PUBACK", kind)
			}
		}
	})
}

// TestEverythingBeforeTheEnd: what came before the connection broke is there, then the reason.
func TestEverythingBeforeTheEnd(t *testing.T) {
	const messages = 5000 // more than the inbox holds
	eachVersion(t, func(t *testing.T, v Version) {
		c := connected(t, v, func(p *peer) {
			for i := range messages {
				p.publish(0, 0, fmt.Sprint(i))
			}
		})
		defer c.Close(Properties{}, 0)
		for i := range messages {
			if m := <-c.Messages(); string(m.Payload) != fmt.Sprint(i) {
				t.Fatalf("%q, want %d", m.Payload, i)
			}
		}
		<-c.Done()
		var lost *Lost
		if err := c.Err(); !errors.As(err, &lost) || lost.Connecting {
			t.Errorf("%v, want Lost", err)
		}
	})
}

// TestCloseWithoutTaker: nobody takes, the broker sends on, and Close returns.
func TestCloseWithoutTaker(t *testing.T) {
	eachVersion(t, func(t *testing.T, v Version) {
		c := connected(t, v, func(p *peer) {
			for i := range 3 * inboxMessages {
				p.publish(uint8(i/(2*inboxMessages)), uint16(i+1), "x")
			}
			for p.next() != nil {
			}
		})
		<-c.Messages()
		c.Close(Properties{}, time.Second)
		<-c.Done()
	})
}

// TestProgress: acknowledged is what the broker has answered, and the first open message is the oldest it has not.
func TestProgress(t *testing.T) {
	eachVersion(t, func(t *testing.T, v Version) {
		c := connected(t, v, func(p *peer) {
			var ids []uint16
			for range 3 {
				b := p.next()
				id := uint16(b[5])<<8 | uint16(b[6]) // behind the Fixed Header and the topic "a"
				ids = append(ids, id)
			}
			p.send(packet.AppendAck(nil, packet.PUBACK, ids[0], packet.Success, p.version))
			p.send(packet.AppendAck(nil, packet.PUBACK, ids[1], packet.Success, p.version))
		})
		defer c.Close(Properties{}, 0)
		var err error
		for range 3 { // The end may overtake the third before Publish returns.
			if err == nil {
				err = c.Publish(t.Context(), &Message{Topic: "a", Payload: []byte("x"), QoS: 1})
			}
		}
		if err == nil {
			err = c.Drain(t.Context())
		}
		if lost := (*Lost)(nil); !errors.As(err, &lost) {
			t.Errorf("%v, want Lost", err)
		}
		if p := c.Progress(); p.Acknowledged != 2 || p.FirstOpen != 3 {
			t.Errorf("%+v, want 2 acknowledged and 3 the first open", p)
		}
	})
}

// TestQoS2: the whole QoS 2 exchange, many at a time, in order.
func TestQoS2(t *testing.T) {
	const messages = 500
	eachVersion(t, func(t *testing.T, v Version) {
		c := connected(t, v, func(p *peer) {
			for b := p.next(); b != nil; b = p.next() {
				switch kind := packet.Kind(b[0] >> 4); kind {
				case packet.PUBLISH:
					p.send([]byte{0x50, 2, b[5], b[6]})
				case packet.PUBREL:
					p.send([]byte{0x70, 2, b[2], b[3]})
				}
			}
		})
		defer c.Close(Properties{}, time.Second)
		for range messages {
			if err := c.Publish(t.Context(), &Message{Topic: "a", Payload: []byte("x"), QoS: 2}); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if p := c.Progress(); p.Acknowledged != messages || p.FirstOpen != 0 || p.Sent != messages {
			t.Errorf("%+v, want %d acknowledged", p, messages)
		}
	})
}

// TestCloseInTheMiddle ends connections while QoS 2 answers are under way, which met a nil connection in paho.golang.
func TestCloseInTheMiddle(t *testing.T) {
	eachVersion(t, func(t *testing.T, v Version) {
		for range 20 {
			c := connected(t, v, func(p *peer) {
				for b := p.next(); b != nil; b = p.next() {
					if packet.Kind(b[0]>>4) == packet.PUBLISH {
						p.send([]byte{0x50, 2, b[5], b[6]})
					}
				}
			})
			for range 10 {
				if err := c.Publish(t.Context(), &Message{Topic: "a", QoS: 2}); err != nil {
					t.Fatal(err)
				}
			}
			c.Close(Properties{}, 0)
		}
	})
}

// TestWaitsEnd: whoever waits for the broker hears when time is up.
func TestWaitsEnd(t *testing.T) {
	eachVersion(t, func(t *testing.T, v Version) {
		c := connected(t, v, func(p *peer) {
			for p.next() != nil {
			}
		})
		defer c.Close(Properties{}, 0)
		stop := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, stop)
		defer cancel()
		for i := 0; ; i++ {
			if err := c.Publish(ctx, &Message{Topic: "a", QoS: 1}); err != nil {
				if err != stop || i != 10 {
					t.Errorf("%d messages, then %v, want 10 and %v", i, err, stop)
				}
				break
			}
		}
		if err := c.Drain(ctx); err != stop {
			t.Errorf("Drain: %v", err)
		}
		if _, err := c.Subscribe(ctx, []Subscription{{Filter: "a"}}, Properties{}); err != stop {
			t.Errorf("Subscribe: %v", err)
		}
	})
}

// TestRequestAndTheEnd: a request that is not answered ends with the connection, long before its time is up.
func TestRequestAndTheEnd(t *testing.T) {
	eachVersion(t, func(t *testing.T, v Version) {
		c := connected(t, v, func(p *peer) { p.next() })
		defer c.Close(Properties{}, 0)
		var lost *Lost
		if _, err := c.Subscribe(t.Context(), []Subscription{{Filter: "a"}}, Properties{}); !errors.As(err, &lost) {
			t.Errorf("it ends with %v", err)
		}
	})
}

// TestRequestThatIsHeld: the library may hold a request for half a minute when the connection is being closed; Close ends the waiting.
func TestRequestThatIsHeld(t *testing.T) {
	c := connected(t, V311, func(p *peer) {
		for p.next() != nil {
		}
	}).(*v311)
	held, let := make(chan struct{}), make(chan struct{})
	defer close(let)
	ended := make(chan error, 1)
	go func() {
		ended <- c.ask(t.Context(), "SUBACK", func() mqtt.Token {
			close(held)
			<-let
			return &mqtt.DummyToken{}
		})
	}()
	<-held
	c.Close(Properties{}, 0)
	select {
	case err := <-ended:
		var lost *Lost
		if !errors.As(err, &lost) {
			t.Errorf("it ends with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("nobody ends it")
	}
}

// TestInterrupt: a broker that does not read holds a publisher up, until Interrupt.
func TestInterrupt(t *testing.T) {
	eachVersion(t, func(t *testing.T, v Version) {
		over := make(chan struct{})
		c := connected(t, v, func(*peer) { <-over })
		defer close(over)
		defer c.Close(Properties{}, 0)
		m := &Message{Topic: "a", Payload: make([]byte, 256<<10)}
		failed := make(chan error, 1)
		go func() {
			var err error
			for err == nil {
				err = c.Publish(t.Context(), m)
			}
			failed <- err
		}()
		c.Interrupt()
		var lost *Lost
		if err := <-failed; !errors.As(err, &lost) {
			t.Errorf("%v, want Lost", err)
		}
	})
}

// TestDialIsCancelled: the taker's context ends the wait for a CONNACK.
func TestDialIsCancelled(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	eachVersion(t, func(t *testing.T, v Version) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		if _, err := Dial(ctx, Config{Version: v, Endpoint: Endpoint{Network: "tcp", Address: l.Addr().String()}, CleanStart: true, Timeout: patience}); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want %v", err, context.Canceled)
		}
	})
}
