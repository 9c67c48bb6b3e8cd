package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/extensions/topicaliases"
)

// stageV5 is a stage whose links may need more than connectOptions say.
func stageV5(ctx context.Context, t task, packet func(*paho.Connect), config func(*paho.ClientConfig)) *stage {
	return &stage{task: t, ctx: ctx, connect: func(ctx context.Context, t task, o connectOptions) (link, error) {
		return connectV5(ctx, t, o, packet, config)
	}}
}

// v5 is the link of an actor on a stage of stageV5.
func (a actor) v5() *pahoV5 { return a.link.(*pahoV5) }

func (a actor) subscribeWith(id int, o paho.SubscribeOptions) {
	a.try("subscribe", func() error { return a.v5().subscribeWith(a.stage.ctx, id, o) })
}

func optionsV5(ctx context.Context, t task) error {
	s := stageV5(ctx, t, nil, nil)
	publisher := s.enter("publisher")
	old := message{topic: t.name("t"), payload: "old", qos: 1, retain: true}
	publisher.publish(old)
	for handling, comes := range map[byte][2]bool{0: {true, true}, 1: {true, false}, 2: {false, false}} {
		a := s.enter(fmt.Sprint("handling ", handling))
		for _, c := range comes {
			a.subscribeWith(0, paho.SubscribeOptions{Topic: old.topic, QoS: 1, RetainHandling: handling})
			if c {
				a.wants(old)
			}
		}
		a.silent()
	}
	published, plain := s.enter("as published"), s.enter("not as published")
	published.subscribeWith(0, paho.SubscribeOptions{Topic: old.topic, QoS: 1, RetainAsPublished: true, RetainHandling: 2})
	plain.subscribeWith(0, paho.SubscribeOptions{Topic: old.topic, QoS: 1, RetainHandling: 2})
	publisher.subscribeWith(0, paho.SubscribeOptions{Topic: old.topic, QoS: 1, NoLocal: true, RetainHandling: 2})
	publisher.publish(message{topic: old.topic, qos: 1, retain: true})
	published.wants(message{topic: old.topic, qos: 1, retain: true})
	plain.wants(message{topic: old.topic, qos: 1})
	publisher.silent()
	return s.end()
}

func propertiesV5(ctx context.Context, t task) error {
	s := stageV5(ctx, t, nil, nil)
	subscriber := s.enter("subscriber")
	subscriber.subscribeWith(268_435_455, paho.SubscribeOptions{Topic: t.name("t"), QoS: 1})
	want := message{topic: t.name("t"), payload: "ü", qos: 1, properties: properties{contentType: "text/plain; charset=utf-8",
		responseTopic: t.name("answers/ü"), correlation: "\x00\xff\x01\x00", user: "b=1 a=2 b=3 b=1 ü=ß", utf8: true,
		expiry: pointer(uint32(100))}}
	s.enter("publisher").publish(want)
	got := subscriber.next()
	s.try("receive", func() error {
		if got.expiry == nil || *got.expiry > 100 || *got.expiry < 90 {
			return fmt.Errorf("the Message Expiry Interval of 100 is %s", short(got.expiry))
		}
		got.expiry, want.expiry = nil, nil
		want.subscription = 268_435_455
		return differ("the message", got, want)
	})
	return s.end()
}

func expiryV5(ctx context.Context, t task) error {
	s := stageV5(ctx, t, nil, nil)
	publisher := s.enter("publisher")
	long := message{topic: t.name("long"), payload: "long", qos: 1, retain: true, properties: properties{expiry: pointer(uint32(100))}}
	brief := message{topic: t.name("brief"), payload: "brief", qos: 1, retain: true, properties: properties{expiry: pointer(uint32(1))}}
	publisher.publish(long, brief)
	s.wait(2500 * time.Millisecond)
	subscriber := s.enter("subscriber")
	subscriber.subscribe(t.name("#"), 1)
	got := subscriber.next()
	s.try("receive", func() error {
		if err := differ("the topic", got.topic, long.topic); err != nil {
			return err
		}
		if got.expiry == nil || *got.expiry > 98 || *got.expiry < 60 {
			return fmt.Errorf("the Message Expiry Interval of 100 is %s after more than 2 s", short(got.expiry))
		}
		return nil
	})
	subscriber.silent()
	publisher.publish(message{topic: long.topic, qos: 1, retain: true})
	return s.end()
}

func requestV5(ctx context.Context, t task) error {
	const n = 20
	s := stageV5(ctx, t, nil, nil)
	responder, requester := s.enter("responder"), s.enter("requester")
	responder.subscribe(t.name("requests"), 1)
	requester.subscribe(t.name("answers"), 1)
	requests := numbers(t.name("requests"), 1, n)
	for i := range requests {
		requests[i].properties = properties{responseTopic: t.name("answers"), correlation: fmt.Sprintf("\x00%d\xff", i)}
	}
	requester.publish(requests...)
	for range requests {
		r := responder.next()
		responder.publish(message{topic: r.responseTopic, payload: "answer to " + r.payload, qos: 1,
			properties: properties{correlation: r.correlation}})
	}
	for _, r := range requests {
		a := requester.next()
		s.try("answer", func() error {
			return differ("the answer", a, message{topic: t.name("answers"), payload: "answer to " + r.payload, qos: 1,
				properties: properties{correlation: r.correlation}})
		})
	}
	return s.end()
}

// aliasTopics is how many topics the scenes of Topic Aliases use, aliasRounds how often each.
const (
	aliasTopics = 3
	aliasRounds = 20
)

func aliasMessages(t task) (all []message) {
	for i := range aliasRounds * aliasTopics {
		all = append(all, message{topic: t.name(fmt.Sprint("t", i%aliasTopics)), payload: fmt.Sprint(i), qos: byte(i % 2)})
	}
	return all
}

func aliasOutV5(ctx context.Context, t task) error {
	aliases := topicaliases.NewTAHandler(aliasTopics)
	var aliased atomic.Int32
	s := stageV5(ctx, t, nil, func(c *paho.ClientConfig) {
		c.PublishHook = func(p *paho.Publish) {
			aliases.PublishHook(p)
			if p.Topic == "" {
				aliased.Add(1)
			}
		}
	})
	subscriber, publisher := s.enter("subscriber"), s.enter("publisher")
	s.try("connect", func() error {
		if q := publisher.v5().ack.Properties; q == nil || q.TopicAliasMaximum == nil || *q.TopicAliasMaximum < aliasTopics {
			return impossible("the broker takes no Topic Aliases")
		}
		return nil
	})
	subscriber.subscribe(t.name("#"), 1)
	for _, m := range aliasMessages(t) {
		publisher.publish(m)
		subscriber.wants(m)
	}
	s.try("publish", func() error {
		return differ("PUBLISH without a topic", int(aliased.Load()), (aliasRounds-1)*aliasTopics)
	})
	return s.end()
}

// aliasInV5 resolves Topic Aliases itself: paho.golang leaves that to its user.
func aliasInV5(ctx context.Context, t task) error {
	s := stageV5(ctx, t, func(c *paho.Connect) { c.Properties.TopicAliasMaximum = pointer(uint16(aliasTopics)) }, nil)
	subscriber, publisher := s.enter("subscriber"), s.enter("publisher")
	subscriber.subscribe(t.name("#"), 1)
	aliases := topicaliases.NewTAHandler(aliasTopics)
	aliased := 0
	for _, m := range aliasMessages(t) {
		publisher.publish(m)
		got := subscriber.next()
		switch {
		case got.topic == "" && got.alias <= aliasTopics:
			got.topic = aliases.GetTopic(got.alias)
			aliased++
		case got.alias > aliasTopics:
			s.try("receive", func() error { return fmt.Errorf("the Topic Alias %d is above the maximum", got.alias) })
		case got.alias > 0:
			aliases.ResetAlias(got.topic, got.alias)
		}
		s.try("receive", func() error { return differ("the message", core(got), m) })
	}
	s.try("receive", func() error {
		if aliased == 0 {
			return impossible("the broker sends no Topic Aliases")
		}
		return nil
	})
	return s.end()
}

// receiveMaximumV5 acknowledges by hand, and not before nothing more comes.
func receiveMaximumV5(ctx context.Context, t task) error {
	const n, most = 30, 3
	got := make(chan *paho.Publish, inboxMax)
	s := stageV5(ctx, t, nil, nil)
	publisher := s.enter("publisher")
	s.connect = stageV5(ctx, t, func(c *paho.Connect) { c.Properties.ReceiveMaximum = pointer(uint16(most)) },
		func(c *paho.ClientConfig) {
			c.EnableManualAcknowledgment, c.SendAcksInterval = true, time.Millisecond
			c.OnPublishReceived = []func(paho.PublishReceived) (bool, error){func(r paho.PublishReceived) (bool, error) {
				got <- r.Packet
				return true, nil
			}}
		}).connect
	subscriber := s.enter("subscriber")
	subscriber.subscribe(t.name("t"), 2)
	publisher.publish(numbers(t.name("t"), 2, n)...)
	var held []*paho.Publish
	for i := range n {
		s.try("receive", func() error {
			select {
			case p := <-got:
				held = append(held, p)
				return differ("the payload", string(p.Payload), fmt.Sprint(i))
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if len(held) < most || s.err != nil {
			continue
		}
		s.try("hold back", func() error {
			select {
			case p := <-got:
				return fmt.Errorf("%q came with %d unacknowledged", p.Payload, most)
			case <-time.After(quiet / 3):
				return nil
			}
		})
		for _, p := range held {
			s.try("acknowledge", func() error { return subscriber.v5().client.Ack(p) })
		}
		held = nil
	}
	return s.end()
}

func sendQuotaV5(ctx context.Context, t task) error {
	const n = 300
	s := stageV5(ctx, t, nil, nil)
	subscriber, publisher := s.enter("subscriber"), s.enter("publisher")
	subscriber.subscribe(t.name("t"), 2)
	for qos := byte(1); qos <= 2; qos++ {
		all := numbers(t.name("t"), qos, n)
		publisher.publish(all...)
		for _, m := range all {
			subscriber.wants(m)
		}
	}
	subscriber.silent()
	return s.end()
}

func willDisconnectV5(ctx context.Context, t task) error {
	s := stageV5(ctx, t, nil, nil)
	gone := message{topic: t.name("will"), payload: "gone", qos: 1}
	watcher := s.enter("watcher")
	watcher.subscribe(gone.topic, 1)
	dying := s.enter("dying", withWill(gone))
	s.try("disconnect", func() error { dying.v5().disconnect(packets.DisconnectDisconnectWithWillMessage); return nil })
	watcher.wants(gone)
	watcher.silent()
	return s.end()
}
