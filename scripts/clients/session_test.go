package clients

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session/state"
)

// TestOfflineQueue: what comes while a client is away arrives in order when it is back.
func TestOfflineQueue(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		topic := name(t, "t")
		w, ack := b.tryConnect(t, name(t, "w"), resume(600))
		if ack.SessionPresent {
			t.Error("Session Present before there was one")
		}
		w.subscribe(subscription(topic, 2), 0)
		w.disconnect(0)
		publisher := b.paho(t, name(t, "publisher"), nil, nil)
		const total = 200
		for i := range total {
			publisher.publish(&paho.Publish{Topic: topic, QoS: byte(1 + i%2), Payload: []byte(numbered(i))})
		}
		w, ack = b.tryConnect(t, name(t, "w"), resume(600))
		if !ack.SessionPresent {
			t.Fatal("no Session Present")
		}
		inTurn(w, 0, total)
		w.ping()
		w.disconnect(0)
		if _, ack = b.tryConnect(t, name(t, "w"), nil); ack.SessionPresent {
			t.Error("Session Present after Clean Start")
		}
	})
}

// inTurn reads messages from to before end in order, at QoS 1 and 2 by turns, and acknowledges all of them.
func inTurn(w *wire, from, end int) {
	w.t.Helper()
	var released []uint16
	for next, done := from, from; done < end; {
		switch p := expect[packets.Packet](w).(type) {
		case *packets.Publish:
			if string(p.Payload) != numbered(next) || p.QoS != byte(1+next%2) || p.Duplicate {
				w.t.Fatalf("got %v, want %s", p, numbered(next))
			}
			next++
			if p.QoS == 1 {
				w.send(&packets.Puback{PacketID: p.PacketID, Properties: &packets.Properties{}})
				done++
			} else {
				w.send(&packets.Pubrec{PacketID: p.PacketID, Properties: &packets.Properties{}})
				released = append(released, p.PacketID)
			}
		case *packets.Pubrel:
			if len(released) == 0 || p.PacketID != released[0] {
				w.t.Fatalf("got %v, want PUBREL for %v", p, released)
			}
			released = released[1:]
			w.send(&packets.Pubcomp{PacketID: p.PacketID, Properties: &packets.Properties{}})
			done++
		default:
			w.t.Fatalf("got %v", p)
		}
	}
}

// TestInFlightAgain breaks the connection in every state of a delivery: PUBLISH comes again with DUP and the same
// Packet Identifier, after PUBREC comes PUBREL.
func TestInFlightAgain(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		topic := name(t, "t")
		w := b.connect(t, name(t, "w"), resume(600))
		w.subscribe(subscription(topic, 2), 0)
		publisher := b.connect(t, name(t, "publisher"), nil)
		var ids []uint16
		for i := range 4 {
			publisher.publish(text(topic, numbered(i), byte(1+i%2)))
			ids = append(ids, w.message(numbered(i)).PacketID)
		}
		w.send(&packets.Pubrec{PacketID: ids[1], Properties: &packets.Properties{}}) // Message 1 is half done.
		expect[*packets.Pubrel](w)
		w.conn.Close()
		b.await(t, "client disconnected", "client="+quoted(name(t, "w")))
		publisher.publish(text(topic, numbered(4), 1))

		w = b.connect(t, name(t, "w"), resume(0))
		for i, id := range ids {
			if i == 1 {
				if r := expect[*packets.Pubrel](w); r.PacketID != id {
					t.Fatalf("PUBREL %d, want %d", r.PacketID, id)
				}
				w.send(&packets.Pubcomp{PacketID: id, Properties: &packets.Properties{}})
				continue
			}
			if p := w.message(numbered(i)); !p.Duplicate || p.PacketID != id || p.QoS != byte(1+i%2) {
				t.Fatalf("message %d comes again as %v, want DUP and %d", i, p, id)
			}
		}
		if p := w.message(numbered(4)); p.Duplicate {
			t.Errorf("DUP on a message that was never sent")
		}
	})
}

// quoted is how a log line writes a value: only some are in quotes.
func quoted(s string) string {
	for _, r := range s {
		if r == '=' || r == ' ' || r == '"' {
			return fmt.Sprintf("%q", s)
		}
	}
	return s
}

// TestPahoReconnect has paho's own session state send again what was not acknowledged.
func TestPahoReconnect(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		topic := name(t, "t")
		keeps := state.NewInMemory()
		defer keeps.Close()
		link := b.cut(t)
		kept := func(p *paho.Connect) { p.CleanStart, p.Properties.SessionExpiryInterval = false, ptr(uint32(600)) }
		c := b.paho(t, name(t, "c"), func(s *paho.ClientConfig) { s.Session, s.Conn = keeps, link }, kept)
		c.subscribe(paho.SubscribeOptions{Topic: topic, QoS: 2})
		sent := 0
		for ; sent < 10; sent++ {
			c.publish(&paho.Publish{Topic: topic, QoS: byte(1 + sent%2), Payload: []byte(numbered(sent))})
		}
		link.Close()
		<-c.Done()
		for ; sent < 20; sent++ { // While offline paho stores them.
			ctx, cancel := context.WithTimeout(t.Context(), quiet)
			c.PublishWithOptions(ctx, &paho.Publish{Topic: topic, QoS: byte(1 + sent%2), Payload: []byte(numbered(sent))}, paho.PublishOptions{Method: paho.PublishMethod_AsyncSend})
			cancel()
		}
		again := b.paho(t, name(t, "c"), func(s *paho.ClientConfig) { s.Session = keeps }, kept)
		if !again.ack.SessionPresent {
			t.Error("no Session Present")
		}
		again.publish(&paho.Publish{Topic: topic, QoS: 2, Payload: []byte("last")})
		seen := map[string]bool{}
		for {
			for len(c.got) > 0 {
				seen[string((<-c.got).Payload)] = true
			}
			p := again.next()
			seen[string(p.Payload)] = true
			if string(p.Payload) == "last" {
				break
			}
		}
		for i := range 10 {
			if !seen[numbered(i)] {
				t.Errorf("%s was acknowledged and never arrived", numbered(i))
			}
		}
	})
}

// cut is a connection that a test can break.
func (b *broker) cut(t *testing.T) net.Conn {
	t.Helper()
	return b.dial(t).conn
}

func TestTakeover(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		topic := name(t, "t")
		old := b.connect(t, name(t, "w"), resume(600))
		old.subscribe(subscription(topic, 1), 0)
		publisher := b.connect(t, name(t, "publisher"), nil)
		for round := range 20 { // Connections are dealt out: some of these cross shards.
			publisher.publish(text(topic, numbered(round), 1))
			p := old.message(numbered(round))
			taker, ack := b.tryConnect(t, name(t, "w"), resume(600))
			if !ack.SessionPresent {
				t.Fatal("no Session Present")
			}
			old.ended(packets.DisconnectSessionTakenOver)
			again := taker.message(numbered(round))
			if !again.Duplicate || again.PacketID != p.PacketID {
				t.Fatalf("got %v again", again)
			}
			taker.ack(again)
			taker.ping()
			old = taker
		}
	})
}

// TestTakeoverOfPlainSession has Sessions that end with their connection, one connection taking over from another.
func TestTakeoverOfPlainSession(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		w := b.connect(t, name(t, "w"), nil)
		for round := range 8 {
			taker, ack := b.tryConnect(t, name(t, "w"), resume(0))
			if ack.SessionPresent {
				t.Errorf("round %d: Session Present, but it ended with the connection", round)
			}
			w.ended(packets.DisconnectSessionTakenOver)
			w = taker
			// A new client is another Session in every respect: its messages are not local to w.
			other := b.connect(t, name(t, fmt.Sprint("other", round)), nil)
			w.subscribe(packets.SubOptions{Topic: name(t, "t"), QoS: 1, NoLocal: true}, 0)
			other.publish(text(name(t, "t"), numbered(round), 1))
			w.ack(w.message(numbered(round)))
		}
	})
}

func TestPahoTakeover(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		first := b.paho(t, name(t, "c"), nil, nil)
		b.paho(t, name(t, "c"), nil, nil)
		select {
		case d := <-first.gone:
			if d.ReasonCode != packets.DisconnectSessionTakenOver {
				t.Errorf("DISCONNECT %#x", d.ReasonCode)
			}
		case <-time.After(patience):
			t.Error("the old connection stays")
		}
	})
}

func TestSessionExpiry(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		topic := name(t, "t")
		w := b.connect(t, name(t, "w"), resume(1))
		w.subscribe(subscription(topic, 1), 0)
		w.disconnect(0)
		if _, ack := b.tryConnect(t, name(t, "w"), resume(1)); !ack.SessionPresent {
			t.Error("the Session is gone at once")
		}
		longer := b.connect(t, name(t, "longer"), resume(1))
		longer.send(&packets.Disconnect{Properties: &packets.Properties{SessionExpiryInterval: ptr(uint32(600))}})
		longer.closed()
		shorter := b.connect(t, name(t, "shorter"), resume(600))
		shorter.send(&packets.Disconnect{Properties: &packets.Properties{SessionExpiryInterval: ptr(uint32(0))}})
		shorter.closed()
		b.connect(t, name(t, "w"), resume(1)).disconnect(0)
		pass(t, 2*time.Second)
		for clientID, want := range map[string]bool{"w": false, "longer": true, "shorter": false} {
			if _, ack := b.tryConnect(t, name(t, clientID), resume(1)); ack.SessionPresent != want {
				t.Errorf("%s: Session Present %v", clientID, ack.SessionPresent)
			}
		}
		none := b.connect(t, name(t, "none"), nil)
		none.send(&packets.Disconnect{Properties: &packets.Properties{SessionExpiryInterval: ptr(uint32(5))}})
		none.ended(packets.DisconnectProtocolError)
	})
}
