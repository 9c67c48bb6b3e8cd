package clients

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

func TestTopicAliasFromClient(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		w, ack := b.tryConnect(t, name(t, "w"), nil)
		if ack.Properties.TopicAliasMaximum == nil {
			t.Fatal("CONNACK without Topic Alias Maximum")
		}
		w.subscribe(subscription(name(t, "#"), 0), 0)
		for i, topic := range []string{"one", "two", ""} {
			p := text("", numbered(i), byte(i))
			if topic != "" {
				p.Topic = name(t, topic)
			}
			p.Properties.TopicAlias = ptr(*ack.Properties.TopicAliasMaximum)
			w.last++
			p.PacketID = w.last
			w.send(p)
		}
		for i, want := range []string{"one", "two", "two"} {
			for {
				p, ok := expect[packets.Packet](w).(*packets.Publish)
				if !ok {
					continue // Acknowledgements come between the messages.
				}
				if p.Topic != name(t, want) || string(p.Payload) != numbered(i) || p.Properties.TopicAlias != nil {
					t.Errorf("got %v, want %s", p, want)
				}
				break
			}
		}
		for _, alias := range []uint16{0, *ack.Properties.TopicAliasMaximum + 1} {
			bad := b.connect(t, name(t, "bad"), nil)
			p := text(name(t, "x"), "x", 0)
			p.Properties.TopicAlias = &alias
			bad.send(p)
			bad.ended(packets.DisconnectTopicAliasInvalid)
		}
		unknown := b.connect(t, name(t, "bad"), nil)
		p := text("", "x", 0)
		p.Properties.TopicAlias = ptr(uint16(1))
		unknown.send(p)
		unknown.ended(packets.DisconnectProtocolError)
	})
}

func TestTopicAliasToClient(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		const maximum = 2
		w := b.connect(t, name(t, "w"), func(c *packets.Connect) { c.Properties.TopicAliasMaximum = ptr(uint16(maximum)) })
		w.subscribe(subscription(name(t, "#"), 1), 0)
		publisher := b.connect(t, name(t, "publisher"), nil)
		names, saved := map[uint16]string{}, 0
		for round := range 30 {
			topic := name(t, fmt.Sprint("topic", round%3))
			publisher.publish(text(topic, numbered(round), byte(round%2)))
			p := w.message(numbered(round))
			if a := p.Properties.TopicAlias; a != nil {
				switch {
				case *a == 0 || *a > maximum:
					t.Fatalf("Topic Alias %d", *a)
				case p.Topic != "":
					names[*a] = p.Topic
				default:
					p.Topic = names[*a]
					saved++
				}
			}
			if p.Topic != topic {
				t.Fatalf("got %v, want %s", p, topic)
			}
			w.ack(p)
		}
		if saved == 0 {
			t.Error("no Topic Name was ever replaced by its alias")
		}
	})
}

func TestReceiveMaximumOfClient(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		topic := name(t, "t")
		w := b.connect(t, name(t, "w"), func(c *packets.Connect) { c.Properties.ReceiveMaximum = ptr(uint16(2)) })
		w.subscribe(subscription(topic, 2), 0)
		publisher := b.connect(t, name(t, "publisher"), nil)
		for i := range 6 {
			publisher.publish(text(topic, numbered(i), byte(1+i%2)))
		}
		first, second := w.message(numbered(0)), w.message(numbered(1))
		w.silent()
		publisher.publish(text(topic, "QoS 0 does not count", 0))
		w.message("QoS 0 does not count")
		w.ack(first)
		third := w.message(numbered(2))
		w.silent()
		w.send(&packets.Pubrec{PacketID: second.PacketID, Properties: &packets.Properties{}})
		expect[*packets.Pubrel](w)
		w.silent() // Only PUBCOMP makes room.
		w.send(&packets.Pubcomp{PacketID: second.PacketID, Properties: &packets.Properties{}})
		fourth := w.message(numbered(3))
		w.silent()
		// A PUBREC that refuses makes room, too.
		w.send(&packets.Pubrec{PacketID: fourth.PacketID, ReasonCode: packets.PubrecQuotaExceeded, Properties: &packets.Properties{}})
		w.message(numbered(4))
		w.ack(third)
		w.message(numbered(5))
		w.silent()
	})
}

func TestReceiveMaximumOfBroker(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		w, ack := b.tryConnect(t, name(t, "w"), nil)
		if ack.Properties.ReceiveMaximum == nil {
			t.Fatal("CONNACK without Receive Maximum")
		}
		most := *ack.Properties.ReceiveMaximum
		for i := range most {
			p := text(name(t, "t"), "x", 2)
			p.PacketID = i + 1
			w.send(p)
			expect[*packets.Pubrec](w)
		}
		p := text(name(t, "t"), "x", 2)
		p.PacketID = most + 1
		w.send(p)
		w.ended(packets.DisconnectReceiveMaximumExceeded)
	})
}

func TestMaximumPacketSizeOfClient(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		topic := name(t, "t")
		const most = 200
		w := b.connect(t, name(t, "w"), func(c *packets.Connect) { c.Properties.MaximumPacketSize = ptr(uint32(most)) })
		w.subscribe(subscription(topic, 2), 0)
		publisher := b.connect(t, name(t, "publisher"), nil)
		for qos := range byte(3) {
			for _, size := range []int{most, 1 << 16, 1 << 20} {
				publisher.publish(text(topic, strings.Repeat("x", size), qos))
			}
			publisher.publish(text(topic, numbered(int(qos)), qos))
			w.ack(w.message(numbered(int(qos))))
		}
		whole := most - (2 + 1 + 2 + len(topic) + 1) // Remaining Length takes two bytes, QoS 0 has no Packet Identifier.
		publisher.publish(text(topic, strings.Repeat("y", whole), 0))
		w.message(strings.Repeat("y", whole))
		publisher.publish(text(topic, strings.Repeat("z", whole+1), 0))
		w.silent()
	})
}

func TestMaximumPacketSizeOfBroker(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		w, ack := b.tryConnect(t, name(t, "w"), nil)
		if ack.Properties.MaximumPacketSize == nil || *ack.Properties.MaximumPacketSize != 2<<20 {
			t.Fatalf("CONNACK's Maximum Packet Size is %v", ack.Properties.MaximumPacketSize)
		}
		w.sendBytes(0x30, 0xFF, 0xFF, 0xFF, 0x7F) // A PUBLISH of 256 MiB: refused before its bytes come.
		w.ended(packets.DisconnectPacketTooLarge)
	})
}

// TestKeepAlive: a client that is silent for one and a half times Keep Alive is disconnected, no sooner.
func TestKeepAlive(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		topic := name(t, "will")
		watcher := b.connect(t, name(t, "watcher"), nil)
		watcher.subscribe(subscription(topic, 1), 0)
		w := b.connect(t, name(t, "w"), func(c *packets.Connect) {
			will(topic, &packets.Properties{}, 0)(c)
			c.KeepAlive = 1
		})
		w.ping()
		start := time.Now()
		w.ended(packets.DisconnectKeepAliveTimeout)
		if took := time.Since(start); took < 1450*time.Millisecond || took > 4*time.Second {
			t.Errorf("disconnected after %v", took)
		}
		watcher.message("gone")
		for _, seconds := range []uint16{0, math.MaxUint16} { // 65,535 × 1.5 does not fit 16 bits.
			b.connect(t, name(t, fmt.Sprint(seconds)), func(c *packets.Connect) { c.KeepAlive = seconds }).silent()
		}
	})
}

func TestAssignedClientID(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		seen := map[string]bool{}
		for range 20 {
			_, ack := b.tryConnect(t, "", nil)
			if ack.ReasonCode != 0 || ack.Properties.AssignedClientID == "" || seen[ack.Properties.AssignedClientID] {
				t.Fatalf("CONNACK %v", ack)
			}
			seen[ack.Properties.AssignedClientID] = true
		}
		if _, ack := b.tryConnect(t, name(t, "w"), nil); ack.Properties.AssignedClientID != "" {
			t.Error("a client with an identifier got another")
		}
		_, ack := b.tryConnect(t, name(t, "w"), func(c *packets.Connect) { c.Properties.RequestResponseInfo = ptr(byte(1)) })
		if want := "answers/" + name(t, "w"); ack.Properties.ResponseInfo != want {
			t.Errorf("Response Information %q, want %q", ack.Properties.ResponseInfo, want)
		}
	})
}

// TestSys reads what the broker says of itself.
func TestSys(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		w := b.connect(t, name(t, "w"), nil)
		all := b.connect(t, name(t, "all"), nil)
		all.subscribe(subscription("#", 0), 0)
		w.subscribe(subscription("$SYS/broker/#", 0), 0)
		values := map[string]string{}
		names := strings.Split("version|uptime|clients/total|clients/connected|clients/disconnected|clients/maximum|clients/expired|"+
			"subscriptions/count|shared_subscriptions/count|retained messages/count|messages/received|messages/sent|messages/stored|"+
			"publish/messages/received|publish/messages/sent|publish/messages/dropped|publish/bytes/received|publish/bytes/sent|"+
			"bytes/received|bytes/sent|store/messages/count|store/messages/bytes|load/messages/received/1min|load/connections/15min|heap/current", "|")
		for deadline := time.Now().Add(patience); len(values) < len(names) && time.Now().Before(deadline); {
			p := expect[*packets.Publish](w)
			for _, n := range names {
				if p.Topic == "$SYS/broker/"+n {
					values[n] = string(p.Payload)
				}
			}
		}
		for _, n := range names {
			if values[n] == "" {
				t.Errorf("$SYS/broker/%s does not come", n)
			}
		}
		if !strings.HasPrefix(values["version"], "RingMQ version ") || !strings.HasSuffix(values["uptime"], " seconds") {
			t.Errorf("version %q, uptime %q", values["version"], values["uptime"])
		}
		all.sendSubscribe(subscription("#", 0), 0) // More bytes received: what stays as it is is not published again.
		for {                                      // The next update knows of w.
			p := expect[*packets.Publish](w)
			if p.Topic != "$SYS/broker/clients/connected" && p.Topic != "$SYS/broker/bytes/received" {
				continue
			}
			if n, err := strconv.Atoi(string(p.Payload)); err != nil || n < 1 {
				t.Errorf("%s says %q", p.Topic, p.Payload)
			}
			break
		}
		for {
			p, err := all.read(quiet)
			if err != nil {
				break
			}
			if m, ok := p.(*packets.Publish); ok && strings.HasPrefix(m.Topic, "$") {
				t.Fatalf("# matches %s", m.Topic)
			}
		}
	})
}
