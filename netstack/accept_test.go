package netstack

import (
	"sync"
	"testing"
	"time"

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

// TestAcceptStorm: one Wait accepts no more than its share, and the next one the rest, without being told again.
func TestAcceptStorm(t *testing.T) {
	c := cable.New(cable.Config{})
	p := mustOpen(t, testConfig(), c).Planes()[0]
	k := newClient(t, c)
	const storm = 5 * acceptBatch
	var dialling sync.WaitGroup
	for range storm {
		dialling.Go(func() {
			if _, err := k.dial(dialled(0)); err != nil {
				t.Error(err)
			}
		})
	}
	accepted := 0
	for deadline := time.Now().Add(patience); accepted < storm && time.Now().Before(deadline); {
		events, err := p.Wait(patience / 10)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for i := range events {
			if events[i].Kind&broker.Accepted != 0 {
				n++
			}
		}
		if n > acceptBatch {
			t.Errorf("one Wait accepts %d connections; want %d at most", n, acceptBatch)
		}
		accepted += n
		p.Flush()
	}
	if accepted != storm {
		t.Errorf("%d of %d connections are accepted", accepted, storm)
	}
	dialling.Wait()
}
