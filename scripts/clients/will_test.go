package clients

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

// will gives a CONNECT a Will Message.
func will(topic string, properties *packets.Properties, expiry uint32) func(*packets.Connect) {
	return func(c *packets.Connect) {
		c.WillFlag, c.WillTopic, c.WillMessage, c.WillQOS, c.WillProperties = true, topic, []byte("gone"), 1, properties
		c.Properties.SessionExpiryInterval = &expiry
	}
}

func TestWill(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		topic := name(t, "t")
		watcher := b.connect(t, name(t, "watcher"), nil)
		watcher.subscribe(subscription(topic, 1), 0)
		dying := func() *wire { return b.connect(t, name(t, "dying"), will(topic, &packets.Properties{}, 0)) }

		dying().disconnect(0)
		watcher.silent()
		dying().disconnect(packets.DisconnectDisconnectWithWillMessage)
		watcher.ack(watcher.message("gone"))
		dying().conn.Close()
		watcher.ack(watcher.message("gone"))
		broken := dying()
		broken.sendBytes(0xF3, 0) // AUTH with reserved bits.
		broken.ended(packets.DisconnectMalformedPacket)
		watcher.ack(watcher.message("gone"))
		dying()
		b.connect(t, name(t, "dying"), nil).disconnect(0) // A takeover ends the first connection and its Session.
		watcher.ack(watcher.message("gone"))
		watcher.silent()
	})
}

// TestWillProperties has mosquitto_sub give them: paho's codec forgets most.
func TestWillProperties(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		topic := name(t, "t")
		watcher := b.connect(t, name(t, "watcher"), nil)
		watcher.subscribe(packets.SubOptions{Topic: topic, QoS: 1, RetainAsPublished: true}, 5)
		users := []packets.User{{Key: "b", Value: "1"}, {Key: "a", Value: "2"}, {Key: "b", Value: "1"}}
		arguments := strings.Fields("-V mqttv5 -t else --will-payload gone --will-qos 1 --will-retain -D will content-type text/plain " +
			"-D will response-topic answers -D will correlation-data c -D will payload-format-indicator 1 -D will message-expiry-interval 500")
		for _, u := range users {
			arguments = append(arguments, "-D", "will", "user-property", u.Key, u.Value)
		}
		dying := b.sub(t, "%p", append(arguments, "--will-topic", topic)...)
		if err := dying.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		p := watcher.message("gone")
		q := p.Properties
		if !p.Retain || !slices.Equal(q.User, users) || q.ContentType != "text/plain" || q.ResponseTopic != "answers" ||
			string(q.CorrelationData) != "c" || q.PayloadFormat == nil || q.MessageExpiry == nil || *q.MessageExpiry < 490 ||
			q.WillDelayInterval != nil || q.SubscriptionIdentifier == nil || *q.SubscriptionIdentifier != 5 {
			t.Errorf("got %v", p)
		}
		late := b.connect(t, name(t, "late"), nil)
		late.subscribe(subscription(topic, 1), 0)
		if !late.message("gone").Retain {
			t.Error("the retained Will comes without RETAIN")
		}
	})
}

// TestWillDelay: the Will waits for its delay, or for the end of the Session if that is sooner; who comes back in time
// cancels it.
func TestWillDelay(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		for _, c := range []struct {
			what          string
			delay, expiry uint32
		}{{"delay", 1, 600}, {"end of the Session", 600, 1}} {
			topic := name(t, c.what)
			watcher := b.connect(t, name(t, "watcher"), nil)
			watcher.subscribe(subscription(topic, 1), 0)
			start := time.Now()
			b.connect(t, topic, will(topic, &packets.Properties{WillDelayInterval: &c.delay}, c.expiry)).conn.Close()
			watcher.silent()
			watcher.ack(watcher.message("gone"))
			if took := time.Since(start); took < time.Second {
				t.Errorf("%s: the Will came after %v", c.what, took)
			}
		}
		topic := name(t, "cancelled")
		watcher := b.connect(t, name(t, "watcher"), nil)
		watcher.subscribe(subscription(topic, 1), 0)
		change := func(c *packets.Connect) {
			will(topic, &packets.Properties{WillDelayInterval: ptr(uint32(1))}, 600)(c)
			c.CleanStart = false
		}
		b.connect(t, name(t, "dying"), change).conn.Close()
		watcher.silent()
		back := b.connect(t, name(t, "dying"), change)
		pass(t, 1200*time.Millisecond)
		watcher.silent()
		back.disconnect(0)
		watcher.silent()
	})
}

// TestNoWillAfterDisconnect connects again at once after DISCONNECT, to whichever shard: what the client sent first counts.
func TestNoWillAfterDisconnect(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		topic := name(t, "t")
		watcher := b.connect(t, name(t, "watcher"), nil)
		watcher.subscribe(subscription(topic, 1), 0)
		for range 300 {
			w := b.connect(t, name(t, "hasty"), will(topic, &packets.Properties{}, 0))
			w.send(&packets.Disconnect{Properties: &packets.Properties{}})
			w.conn.Close()
			b.connect(t, name(t, "hasty"), nil).conn.Close()
		}
		watcher.silent()
	})
}
