package broker_test

import (
	"strings"
	"testing"

	"github.com/ringmq/ringmq/broker/record"
	"github.com/ringmq/ringmq/broker/script"
)

// TestDoubtWhileReading has the store find out that it has lost something while it is read at the start, of whatever kind: what a client sends again
// then is not delivered a second time [MQTT-4.3.3-1].
func TestDoubtWhileReading(t *testing.T) {
	for _, kind := range []record.Kind{record.KindReceived, record.KindSent} {
		store := newMemStore()
		w := newWorldOn(t, 1, script.New("options"), store, startOfTime())
		sayAll(t, w, "connect p v5 expiry=1000", "connect a v5", "subscribe a t qos=0", "publish p t m qos=2 id=1")
		if !strings.Contains(w.out.String(), "p < PUBREC 1") {
			t.Fatalf("heard %q", w.out.String())
		}
		next := store.crashed(w.now.UnixMilli())
		next.damaged = kind
		w = newWorldOn(t, 1, script.New("options"), next, w.now)
		sayAll(t, w, "connect a v5", "subscribe a t qos=0", "connect p v5 clean=0 expiry=1000", "publish p t m qos=2 id=1 dup=1")
		if heard := w.out.String(); strings.Contains(heard, "a < PUBLISH") || !strings.Contains(heard, "p < PUBREC 1") {
			t.Errorf("records of kind %c are lost: heard %q", kind, heard)
		}
		w.end()
	}
}
