package clients

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
)

// subscription is a filter with a QoS and no other Subscription Options.
func subscription(filter string, qos byte) packets.SubOptions {
	return packets.SubOptions{Topic: filter, QoS: qos}
}

func TestPahoQoS(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		publisher := b.paho(t, name(t, "publisher"), nil, nil)
		for subscribed := range byte(3) {
			topic := name(t, fmt.Sprint(subscribed))
			c := b.paho(t, topic, nil, nil)
			c.subscribe(paho.SubscribeOptions{Topic: topic, QoS: subscribed})
			for published := range byte(3) {
				for i := range 50 {
					publisher.publish(&paho.Publish{Topic: topic, QoS: published, Payload: []byte(numbered(i))})
				}
				for i := range 50 {
					if p := c.next(); p.QoS != min(published, subscribed) || string(p.Payload) != numbered(i) || p.Topic != topic || p.Retain {
						t.Fatalf("published at %d, subscribed at %d: got %v, want %s", published, subscribed, p, numbered(i))
					}
				}
			}
		}
	})
}

// TestExchanges reads every packet of QoS 1 and 2 in both directions.
func TestExchanges(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		topic := name(t, "t")
		w := b.connect(t, name(t, "w"), nil)
		for qos := range byte(3) {
			if r := w.publish(text(topic, "to nobody", qos)); qos > 0 && r != packets.PubackNoMatchingSubscribers {
				t.Errorf("QoS %d without subscribers: Reason Code %#x", qos, r)
			}
		}
		if granted := w.subscribe(subscription(topic, 2), 0); granted != 2 {
			t.Fatalf("granted %d", granted)
		}
		other := b.connect(t, name(t, "other"), nil)
		for qos := range byte(3) {
			if r := other.publish(text(topic, "hello", qos)); r != 0 {
				t.Errorf("QoS %d: Reason Code %#x", qos, r)
			}
			p := w.message("hello")
			if p.QoS != qos || p.Duplicate || p.Retain || qos > 0 && p.PacketID == 0 {
				t.Errorf("got %v, want QoS %d", p, qos)
			}
			w.ack(p)
		}
		// A QoS 2 PUBLISH that comes twice before PUBREL is delivered once.
		again := text(topic, "once", 2)
		again.PacketID = 99
		other.send(again)
		expect[*packets.Pubrec](other)
		again.Duplicate = true
		other.send(again)
		expect[*packets.Pubrec](other)
		other.send(&packets.Pubrel{PacketID: 99, Properties: &packets.Properties{}})
		expect[*packets.Pubcomp](other)
		w.ack(w.message("once"))
		w.ping()
	})
}

func TestRetained(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		topic := name(t, "t")
		live := b.connect(t, name(t, "live"), nil)
		live.subscribe(subscription(topic, 1), 0)
		publisher := b.connect(t, name(t, "publisher"), nil)
		set := func(payload string) {
			p := text(topic, payload, 1)
			p.Retain = true
			publisher.publish(p)
			got := live.message(payload)
			if got.Retain {
				t.Errorf("RETAIN is set for a subscription that was there")
			}
			live.ack(got)
		}
		set("first")
		set("second")
		for _, filter := range []string{topic, name(t, "#"), name(t, "+")} {
			late := b.connect(t, name(t, "late"), nil)
			late.subscribe(subscription(filter, 1), 0)
			got := late.message("second")
			if !got.Retain || got.Topic != topic {
				t.Errorf("%s: got %v", filter, got)
			}
			late.ack(got)
			late.ping()
		}
		set("")
		late := b.connect(t, name(t, "late"), nil)
		late.subscribe(subscription(topic, 1), 0)
		late.silent()
	})
}

// TestRetainOptions goes through Retain Handling and Retain As Published.
func TestRetainOptions(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		topic := name(t, "t")
		publisher := b.connect(t, name(t, "publisher"), nil)
		keep := text(topic, "kept", 1)
		keep.Retain = true
		publisher.publish(keep)
		for handling, want := range [...]struct{ first, second bool }{{true, true}, {true, false}, {false, false}} {
			w := b.connect(t, name(t, "w"), nil)
			for _, due := range []bool{want.first, want.second} {
				w.subscribe(packets.SubOptions{Topic: topic, QoS: 1, RetainHandling: byte(handling)}, 0)
				if !due {
					w.silent()
					continue
				}
				w.ack(w.message("kept"))
			}
		}
		plain, asIs := b.connect(t, name(t, "plain"), nil), b.connect(t, name(t, "as is"), nil)
		plain.subscribe(packets.SubOptions{Topic: topic, RetainHandling: 2}, 0)
		asIs.subscribe(packets.SubOptions{Topic: topic, RetainHandling: 2, RetainAsPublished: true}, 0)
		for _, retain := range []bool{true, false} {
			p := text(topic, "live", 1)
			p.Retain = retain
			publisher.publish(p)
			if plain.message("live").Retain || asIs.message("live").Retain != retain {
				t.Errorf("RETAIN %v arrives otherwise", retain)
			}
		}
	})
}

func TestRetainedManyAndSmallWindow(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		const total = 3000 // more than a Session may queue
		publisher := b.connect(t, name(t, "publisher"), nil)
		for i := range total {
			p := text(name(t, fmt.Sprintf("many/%d", i)), numbered(i), 0)
			p.Retain = true
			publisher.send(p)
		}
		publisher.ping()
		w := b.connect(t, name(t, "w"), func(c *packets.Connect) { c.Properties.ReceiveMaximum = ptr(uint16(3)) })
		one := text(name(t, "many/last"), "last", 1)
		one.Retain = true
		publisher.publish(one)
		w.subscribe(subscription(name(t, "many/#"), 1), 0)
		seen := map[string]bool{}
		for range total + 1 {
			p := expect[*packets.Publish](w)
			seen[p.Topic] = true
			w.ack(p)
		}
		if len(seen) != total+1 {
			t.Errorf("%d topics of %d", len(seen), total+1)
		}
	})
}

func TestShared(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		topic := name(t, "t")
		filter := "$share/workers/" + topic
		var members []*client
		for i := range 3 {
			c := b.paho(t, name(t, fmt.Sprint("member", i)), nil, func(c *paho.Connect) {
				c.Properties.SessionExpiryInterval = ptr(uint32(600))
			})
			c.subscribe(paho.SubscribeOptions{Topic: filter, QoS: 1})
			members = append(members, c)
		}
		publisher := b.paho(t, name(t, "publisher"), nil, nil)
		for i := range 90 {
			publisher.publish(&paho.Publish{Topic: topic, QoS: 1, Payload: []byte(numbered(i))})
		}
		seen := map[string]int{}
		for i, c := range members {
			for range 30 {
				seen[string(c.next().Payload)]++
			}
			if len(c.got) > 0 {
				t.Errorf("member %d got more than a third", i)
			}
		}
		if len(seen) != 90 {
			t.Errorf("%d different messages of 90", len(seen))
		}
		// A member that is away is skipped, although its Session and its subscription live on.
		away := b.connect(t, name(t, "member2"), resume(600))
		away.settle()
		away.disconnect(0)
		for i := range 20 {
			publisher.publish(&paho.Publish{Topic: topic, QoS: 1, Payload: []byte(numbered(i))})
		}
		for range 20 {
			select {
			case <-members[0].got:
			case <-members[1].got:
			case <-time.After(patience):
				t.Fatal("a message went to the member that is away")
			}
		}
		back, ack := b.tryConnect(t, name(t, "member2"), resume(0))
		if !ack.SessionPresent {
			t.Error("the Session is gone")
		}
		back.silent()
	})
}

func TestNoLocal(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		topic := name(t, "t")
		w, other := b.connect(t, name(t, "w"), nil), b.connect(t, name(t, "other"), nil)
		w.subscribe(packets.SubOptions{Topic: topic, QoS: 1, NoLocal: true}, 0)
		w.publish(text(topic, "mine", 1))
		if r := other.publish(text(topic, "yours", 1)); r != 0 {
			t.Errorf("Reason Code %#x", r)
		}
		w.ack(w.message("yours"))
		w.silent()
		w.sendSubscribe(packets.SubOptions{Topic: "$share/g/" + topic, NoLocal: true}, 0)
		w.ended(packets.DisconnectProtocolError)
	})
}

// TestProperties publishes every property that a client may see and compares what arrives.
func TestProperties(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		topic := name(t, "t")
		c, publisher := b.paho(t, name(t, "c"), nil, nil), b.paho(t, name(t, "publisher"), nil, nil)
		if _, err := c.Subscribe(t.Context(), &paho.Subscribe{
			Properties:    &paho.SubscribeProperties{SubscriptionIdentifier: ptr(268435455)},
			Subscriptions: []paho.SubscribeOptions{{Topic: topic, QoS: 2}}}); err != nil {
			t.Fatal(err)
		}
		users := paho.UserProperties{{Key: "z", Value: "1"}, {Key: "a", Value: "2"}, {Key: "z", Value: "1"}, {Key: "", Value: ""}, {Key: "z", Value: "ü"}}
		for qos := range byte(3) {
			publisher.publish(&paho.Publish{Topic: topic, QoS: qos, Payload: []byte("näme"), Properties: &paho.PublishProperties{
				User: users, ContentType: "text/plain", ResponseTopic: "answers/here", CorrelationData: []byte{0, 1, 0xFF},
				PayloadFormat: ptr(byte(1)), MessageExpiry: ptr(uint32(3600))}})
			got := c.next().Properties
			if !slices.Equal(got.User, users) {
				t.Errorf("User Properties %v, want %v", got.User, users)
			}
			if got.ContentType != "text/plain" || got.ResponseTopic != "answers/here" || !bytes.Equal(got.CorrelationData, []byte{0, 1, 0xFF}) ||
				got.PayloadFormat == nil || *got.PayloadFormat != 1 {
				t.Errorf("got %v", got)
			}
			if got.MessageExpiry == nil || *got.MessageExpiry > 3600 || *got.MessageExpiry < 3590 {
				t.Errorf("Message Expiry Interval %v", got.MessageExpiry)
			}
			if got.SubscriptionIdentifier == nil || *got.SubscriptionIdentifier != 268435455 {
				t.Errorf("Subscription Identifier %v", got.SubscriptionIdentifier)
			}
		}
		bad := b.connect(t, name(t, "bad"), nil)
		p := text(topic, "\xff\xfe", 1)
		p.Properties.PayloadFormat = ptr(byte(1))
		if r := bad.publish(p); r != packets.PubackPayloadFormatInvalid {
			t.Errorf("Reason Code %#x for a payload that is not UTF-8", r)
		}
	})
}

func TestMessageExpiry(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		topic := name(t, "t")
		w := b.connect(t, name(t, "w"), resume(600))
		w.subscribe(subscription(topic, 1), 0)
		w.disconnect(0)
		publisher := b.connect(t, name(t, "publisher"), nil)
		for _, seconds := range []uint32{1, 100} {
			p := text(topic, fmt.Sprint("keeps ", seconds), 1)
			p.Properties.MessageExpiry = ptr(seconds)
			p.Retain = true
			publisher.publish(p)
		}
		publisher.publish(text(topic, "keeps", 1))
		pass(t, 2100*time.Millisecond)
		w = b.connect(t, name(t, "w"), resume(0))
		p := w.message("keeps 100")
		if left := *p.Properties.MessageExpiry; left < 90 || left > 98 {
			t.Errorf("%d of 100 s are left after 2.1 s", left)
		}
		w.ack(p)
		last := w.message("keeps")
		if last.Properties.MessageExpiry != nil {
			t.Errorf("a Message Expiry Interval of %d came from nowhere", *last.Properties.MessageExpiry)
		}
		w.ack(last)
		w.subscribe(subscription(topic, 1), 0)
		if left := *w.message("keeps 100").Properties.MessageExpiry; left < 90 || left > 98 {
			t.Errorf("retained: %d of 100 s are left after 2.1 s", left)
		}
		none := text(topic, "", 1) // the brokers outlive a test that runs again
		none.Retain = true
		publisher.publish(none)
	})
}

// TestSubscriptionIdentifiers has overlapping subscriptions: one copy says all identifiers, or each copy its own.
func TestSubscriptionIdentifiers(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		topic := name(t, "a/b")
		w := b.connect(t, name(t, "w"), nil)
		for id, filter := range map[int]string{1: topic, 200: name(t, "a/+"), 70000: name(t, "#")} {
			w.subscribe(subscription(filter, 1), id)
		}
		w.subscribe(subscription(name(t, "+/b"), 2), 0)
		b.connect(t, name(t, "publisher"), nil).publish(text(topic, "x", 2))
		var got []int
		for copies := 0; len(got) < 3 && copies < 4; copies++ {
			p := w.message("x")
			got = append(got, identifiers(w.raw.Bytes(), topic)...)
			w.ack(p)
		}
		slices.Sort(got)
		if !slices.Equal(got, []int{1, 200, 70000}) {
			t.Errorf("Subscription Identifiers %v", got)
		}
	})
}

// identifiers finds the Subscription Identifiers of a PUBLISH above QoS 0 that has no other properties and is shorter
// than 128 bytes: paho keeps only the last.
func identifiers(raw []byte, topic string) (ids []int) {
	at := 2 + 2 + len(topic) + 2
	section := raw[at+1 : at+1+int(raw[at])]
	for len(section) > 0 {
		n, size := binary.Uvarint(section[1:])
		ids, section = append(ids, int(n)), section[1+size:]
	}
	return ids
}

func TestPahoLargePayload(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		noise := make([]byte, 1<<20)
		rand.Read(noise)
		want := sha256.Sum256(noise)
		topic := name(t, "t")
		var receivers []*client
		for i := range 3 {
			c := b.paho(t, name(t, fmt.Sprint(i)), nil, nil)
			c.subscribe(paho.SubscribeOptions{Topic: topic, QoS: byte(i)})
			receivers = append(receivers, c)
		}
		publisher := b.paho(t, name(t, "publisher"), nil, nil)
		for qos := range byte(3) {
			publisher.publish(&paho.Publish{Topic: topic, QoS: qos, Payload: noise})
			for i, c := range receivers {
				if p := c.next(); sha256.Sum256(p.Payload) != want || p.QoS != min(qos, byte(i)) {
					t.Errorf("published at %d, subscribed at %d: another hash of %d bytes at QoS %d", qos, i, len(p.Payload), p.QoS)
				}
			}
		}
	})
}
