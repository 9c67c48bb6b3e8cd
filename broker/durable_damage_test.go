package broker_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/broker/record"
	"github.com/ringmq/ringmq/broker/script"
)

// TestDamagedEntriesGo: deliveries that do not decode, or whose message is missing, are deleted when they are met, so that no later run counts them
// again. One of QoS 2 that an earlier run may have sent leaves the release of its Packet Identifier, and goes with PUBCOMP.
func TestDamagedEntriesGo(t *testing.T) {
	store := newMemStore()
	w := newWorldOn(t, 1, script.New("options"), store, startOfTime())
	sayAll(t, w, "connect a v5 expiry=1000", "subscribe a t qos=2", "disconnect a", "connect p v5", "publish p t first qos=1 id=1",
		"publish p t second qos=1 id=2", "publish p t third qos=2 id=3", "publish p t last qos=1 id=4")
	next := store.crashed(w.now.UnixMilli())
	n := 0
	for _, key := range slices.Sorted(maps.Keys(next.records)) {
		if record.Kind(key[0]) != record.KindEntry {
			continue
		}
		switch n++; n {
		case 1:
			next.records[key] = "?"
		case 2, 3:
			missing := record.Entry{Flags: uint8(n - 1), Mid: 99}
			next.records[key] = string(missing.AppendHead(nil))
		}
	}
	w = newWorldOn(t, 1, script.New("options"), next, w.now)
	sayAll(t, w, "connect a v5 clean=0 expiry=1000")
	heard := w.out.String()
	if n != 4 || strings.Count(heard, "a < PUBLISH") != 1 || strings.Count(heard, "a < PUBREL") != 1 {
		t.Errorf("%d entries: heard %q", n, heard)
	}
	if left := next.of(record.KindEntry); left != 2 {
		t.Errorf("%d entries are left; want the last one and the release", left)
	}
	w.end()
}
