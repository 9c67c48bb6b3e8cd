package netstack

import (
	"testing"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/netstack/cable"
)

// TestAcceptFailed: the event names the listener whose port it is.
func TestAcceptFailed(t *testing.T) {
	p := mustOpen(t, testConfig(), cable.New(cable.Config{})).Planes()[0]
	broken := p.listeners[1]
	broken.endpoint.Close() // Which nothing but StopAccepting does: the stack says now that it does not listen.
	failures := 0
	for range 3 {
		broken.NotifyEvent(connMask)
		events, err := p.Wait(0)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if failures++; e.Kind != broker.AcceptFailed || e.Listener != 1 || e.Err == nil {
				t.Errorf("event %+v; want AcceptFailed of listener 1", e)
			}
		}
		p.Flush()
	}
	if failures == 0 {
		t.Error("nobody tells that a listener has failed")
	}
}
