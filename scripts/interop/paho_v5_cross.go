package main

import (
	"context"

	"github.com/eclipse/paho.golang/paho"
)

// The properties of the messages in the scene cross (doc.go).
const (
	crossCount       = 100
	crossContentType = "text/plain"
	crossCorrelation = "\xff\x01\x80"
	crossUser        = "b=1 b=3 a=2"
)

// crossMessages are what the publisher of the scene cross sends.
func crossMessages(t task, version string) []message {
	all := numbers(t.name("messages"), 2, crossCount)
	if version == v5 {
		for i := range all {
			all[i].properties = properties{contentType: crossContentType, correlation: crossCorrelation, user: crossUser,
				responseTopic: t.name("answers")}
		}
	}
	return all
}

func sendV5(ctx context.Context, t task) error {
	s := stageV5(ctx, t, nil, nil)
	s.enter("sender").publish(crossMessages(t, v5)...)
	return s.end()
}

func receiveV5(ctx context.Context, t task, ready func()) error {
	s := stageV5(ctx, t, nil, nil)
	a := s.enter("receiver " + t.From + " paho.golang")
	a.subscribeWith(0, paho.SubscribeOptions{Topic: t.name("kept"), QoS: 2})
	a.wants(message{topic: t.name("kept"), payload: "kept", qos: 1, retain: true})
	a.subscribe(t.name("messages"), 2)
	s.try("ready", func() error { ready(); return nil })
	for _, want := range crossMessages(t, t.From) {
		got := a.next()
		s.try("receive", func() error { return differ("the message", got, want) })
	}
	return s.end()
}
