package broker

import (
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// TestStopWhileWaitingForASession stops the broker while a connection waits for a Session that another shard is to hand over: it has
// said CONNECT, and hears why that comes to nothing.
func TestStopWhileWaitingForASession(t *testing.T) {
	for _, version := range []packet.Version{packet.V311, packet.V50} {
		b := newBench(t, 2, nil)
		b.open(1, persistent("x")).hear()
		in := persistent("x")
		in.Version = version
		h := b.open(0, in)
		if state := h.s.conns[h.id].state; state != connClaim {
			t.Fatalf("the connection is in state %d, and does not wait", state)
		}
		h.s.Drain(drainBatch)
		got := h.hear()
		var ack packet.Connack
		if len(got) != 1 || got[0].kind != packet.CONNACK || ack.Decode(got[0].body, version) != packet.Success || ack.Reason != packet.ServerUnavailable {
			t.Errorf("%s: got %v, want a CONNACK that says so", version, got)
		}
		if !h.net.closed {
			t.Errorf("%s: the connection is open", version)
		}
	}
}
