package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/cmd/client"
)

const (
	// repliesMax is how many answers may wait for the broker. Beyond it requests go unanswered, which is counted: to
	// wait here would keep the acknowledgements from coming in that the answers before wait for.
	repliesMax = 1024
	// repliesTimeout is how long answers have to get away in the end.
	repliesTimeout = 2 * time.Second
)

// replier publishes answers to requests on a goroutine of its own (MQTT 5.0, section 4.10).
type replier struct {
	client     client.Client
	format     format
	properties client.Properties
	queue      chan *client.Message
	done       chan struct{}
	dropped    atomic.Int64
}

func startReplier(c client.Client, f format, properties *client.Properties) *replier {
	r := &replier{client: c, format: f, queue: make(chan *client.Message, repliesMax), done: make(chan struct{})}
	if properties != nil {
		r.properties = *properties
	}
	go r.run()
	return r
}

// answer queues the answer to m.
func (r *replier) answer(m *client.Message) {
	payload, err := r.format.append(nil, &received{m, time.Now()})
	if err != nil {
		payload = []byte(err.Error()) // %J of a request that is no JSON: who asked should know.
	}
	p := r.properties
	p.CorrelationData = m.Properties.CorrelationData
	select {
	case r.queue <- &client.Message{Topic: m.Properties.ResponseTopic, Payload: payload, QoS: m.QoS, Properties: p}:
	default:
		r.dropped.Add(1)
	}
}

func (r *replier) run() {
	defer close(r.done)
	for m := range r.queue {
		err := r.client.Publish(context.Background(), m)
		if err == nil && len(r.queue) == 0 {
			err = r.client.Flush()
		}
		if err != nil {
			r.dropped.Add(1)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), repliesTimeout)
	defer cancel()
	_ = r.client.Drain(ctx) // What is lost with the connection is said there.
}

// stop waits for the answers that are under way, and says how many there are none of.
func (r *replier) stop() int64 {
	close(r.queue)
	select {
	case <-r.done:
	case <-time.After(repliesTimeout):
	}
	return r.dropped.Load()
}
