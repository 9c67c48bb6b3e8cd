package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/ringmq/ringmq/cmd/client"
)

// request subscribes for the response, publishes the request and prints the response (MQTT 5.0, section 4.10).
func (p *publishing) request(ctx context.Context, payload []byte, out *printer) error {
	codes, err := p.client.Subscribe(ctx, []client.Subscription{{Filter: p.responseTopic, QoS: byte(p.qos), RetainHandling: 2}}, p.subscribe)
	switch {
	case err != nil:
		return p.cutShort(ctx, err, "request")
	case codes[0].Failed():
		return fmt.Errorf("the broker refused the subscription to %s: %w (0x%02X)", p.responseTopic, codes[0], byte(codes[0]))
	}
	m := p.message(payload)
	m.Properties.ResponseTopic = p.responseTopic
	if m.Properties.CorrelationData == nil {
		m.Properties.CorrelationData = []byte(randomHex())
	}
	timed, cancel := context.WithTimeoutCause(ctx, p.patience(), errTimeUp)
	defer cancel()
	// The acknowledgement is awaited while messages are taken: what nobody takes could hold it back.
	published := make(chan error, 1)
	go func() {
		err := p.client.Publish(timed, m)
		if err == nil {
			err = p.finish(timed, "request")
		}
		published <- err
	}()
	response, err := p.response(timed, m.Properties.CorrelationData, published)
	switch {
	case errors.Is(err, errTimeUp):
		return fmt.Errorf("%w: no response on %s within %v (-W)", errTimeUp, p.responseTopic, p.patience())
	case err != nil:
		return err
	}
	if err := out.print(response); err != nil {
		return err
	}
	err = out.flush()
	response.Handled()
	if errors.Is(err, errOutputClosed) {
		return nil
	}
	return err
}

// response waits for the message with the request's correlation data, or with none at all.
func (p *publishing) response(ctx context.Context, correlation []byte, published <-chan error) (*client.Message, error) {
	for {
		select {
		case m := <-p.client.Messages():
			if data := m.Properties.CorrelationData; data == nil || bytes.Equal(data, correlation) {
				return m, nil
			}
			m.Handled()
		case err := <-published:
			if err != nil {
				return nil, err
			}
			published = nil // Never ready again.
		case <-p.client.Done():
			return nil, p.client.Err()
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errTimeUp) {
				return nil, errTimeUp
			}
			return nil, errInterrupted
		}
	}
}
