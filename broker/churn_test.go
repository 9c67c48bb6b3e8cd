package broker

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// TestUnsubscribedTakesNoMemory has clients, one after the other, subscribe to as much as there may be and unsubscribe from all but a few, for
// the next to have: what they have given up takes no memory, and what they have left is found.
func TestUnsubscribedTakesNoMemory(t *testing.T) {
	const clients, most, each, left = 20, 5000, 1000, 40
	b := newBench(t, 1, func(l *Limits) { l.MaxSubscriptions = most + clients*left })
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for c := range clients {
		h := b.open(0, transient(fmt.Sprint("x", c)))
		for i := 0; i < most; i += each {
			var filters []string
			for n := range each {
				filters = append(filters, fmt.Sprintf("%07d", i+n))
			}
			h.subscribeMany(0, 0, filters...)
		}
		for from, to := left, most; from < to; from += each {
			h.unsubscribeMany(from, min(from+each, to))
		}
		h.hear()
		h.unsubscribeMany(0, left/2)
		if got := h.hear(); h.s.subscribed.Load() != int64((c+1)*left/2) || len(got) != 1 {
			t.Fatalf("client %d unsubscribed from all but %d of %d filters: there are %d subscriptions now, want %d", c, left/2, most, h.s.subscribed.Load(), (c+1)*left/2)
		}
		h.net.got = nil
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > most*subscriptionBytes {
		t.Errorf("%d clients that have %d subscriptions each left of %d take %d KB of the heap", clients, left/2, most, grown>>10)
	}
	runtime.KeepAlive(b)
}

// unsubscribeMany ends the subscriptions to numbered filters.
func (h *hand) unsubscribeMany(from, to int) {
	var filters [][]byte
	for i := from; i < to; i++ {
		filters = append(filters, fmt.Appendf(nil, "%07d", i))
	}
	h.give(packet.AppendUnsubscribe(nil, &packet.Unsubscribe{PacketID: 2}, filters, packet.V50))
}
