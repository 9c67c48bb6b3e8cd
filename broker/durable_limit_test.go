package broker_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker/script"
)

// TestQueueLimitAfterRestart: what an earlier run of the broker has left on disk counts against max_queued_messages, but for the one
// message that asks how much that is, and no more once it is delivered.
func TestQueueLimitAfterRestart(t *testing.T) {
	const limit = 5
	for earlier, want := range map[int]int{0: 5, 3: 5, 4: 5, 5: 6, 9: 10} {
		for _, shards := range []int{1, 2} {
			t.Run(fmt.Sprint(earlier, "/", shards), func(t *testing.T) {
				store := newMemStore()
				w := newWorldOn(t, shards, script.New("options"), store, startOfTime())
				sayAll(t, w, "connect a v5 expiry=1000", "subscribe a t qos=1", "close a", "connect p v5",
					fmt.Sprintf("publish p t old%%d qos=1 count=%d", max(earlier, 1)))
				if earlier == 0 {
					sayAll(t, w, "+connect a v5 clean=0 expiry=1000", "auto a", "close a")
				}
				w = limitedWorld(t, shards, limit, store.crashed(w.now.UnixMilli()), w.now)
				sayAll(t, w, "connect p v5", "publish p t m%d qos=1 count=1", "publish p t m%d qos=1 count=8")
				if n := delivered(t, w); n != want {
					t.Errorf("%d were waiting, %d came in the end; want %d", earlier, n, want)
				}
				sayAll(t, w, "close a", "publish p t n%d qos=1 count=8")
				if n := delivered(t, w); n != limit {
					t.Errorf("%d were waiting, then %d of 8 more wait; want %d", earlier, n, limit)
				}
				w.end()
			})
		}
	}
}

// TestQueueLimitOfClientThatLeavesEarly has the client take two of what an earlier run has left, and not acknowledge them: they are in
// flight and do not count any more, the rest does.
func TestQueueLimitOfClientThatLeavesEarly(t *testing.T) {
	const limit = 6
	store := newMemStore()
	w := newWorldOn(t, 1, script.New("options"), store, startOfTime())
	sayAll(t, w, "connect a v5 expiry=1000", "subscribe a t qos=1", "close a", "connect p v5", "publish p t old%d qos=1 count=6")
	w = limitedWorld(t, 1, limit, store.crashed(w.now.UnixMilli()), w.now)
	sayAll(t, w, "connect p v5", "publish p t m0 qos=1 id=1", "publish p t m1 qos=1 id=2") // 7: the first one is let through
	for range 2 {
		sayAll(t, w, "connect a v5 clean=0 expiry=1000 recvmax=2", "close a", "publish p t n%d qos=1 count=4")
	}
	if n := delivered(t, w); n != limit+2 {
		t.Errorf("%d came; want %d that waited and 2 that were in flight", n, limit)
	}
	w.end()
}

// TestQueueLimitCountedBesideALoad has a message queue up while what an earlier run has left is loaded: how much that is, is told behind the
// load, and must not count what that has brought.
func TestQueueLimitCountedBesideALoad(t *testing.T) {
	const limit, earlier, inFlight = 6, 5, 2
	store := newMemStore()
	w := newWorldOn(t, 1, script.New("options"), store, startOfTime())
	sayAll(t, w, "connect a v5 expiry=1000", "subscribe a t qos=1", "close a", "connect p v5", fmt.Sprintf("publish p t old%%d qos=1 count=%d", earlier))
	store = store.crashed(w.now.UnixMilli())
	w = limitedWorld(t, 1, limit, store, w.now)
	sayAll(t, w, "connect p v5")
	store.stuck = true
	sayAll(t, w, fmt.Sprintf("connect a v5 clean=0 expiry=1000 recvmax=%d", inFlight))
	store.stuck = false
	store.work(w.broker) // what CONNACK waits for
	store.stuck = true
	sayAll(t, w, "tick 0s", "publish p t m0 qos=1 id=1")
	if n := len(store.queue); n < 2 || store.queue[0].load == nil {
		t.Fatalf("%d requests wait; want the load, and behind it the question", n)
	}
	store.stuck = false
	sayAll(t, w, "tick 0s", "publish p t m%d qos=1 count=8", "close a")
	if n := delivered(t, w); n != inFlight+limit {
		t.Errorf("%d came; want %d that were in flight and %d that waited", n, inFlight, limit)
	}
	w.end()
}

// limitedWorld is a broker whose Sessions may have so many messages wait.
func limitedWorld(t *testing.T, shards, limit int, store *memStore, now time.Time) *world {
	t.Helper()
	c, err := script.Parse(fmt.Sprintf("options queue=%d", limit))
	if err != nil {
		t.Fatal(err)
	}
	return newWorldOn(t, shards, c, store, now.Add(time.Second))
}

func sayAll(t *testing.T, w *world, lines ...string) {
	t.Helper()
	for _, text := range lines {
		if err := w.do(text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
}

// delivered is how many PUBLISH the client gets that comes back, and acknowledges them.
func delivered(t *testing.T, w *world) int {
	t.Helper()
	w.out.Reset()
	sayAll(t, w, "+connect a v5 clean=0 expiry=1000", "auto a")
	return strings.Count(w.out.String(), "< PUBLISH t ")
}

// TestQueueLimitInBytes: max_queued_bytes, where it is set, counts what waits on disk, in this run of the broker; neither what is in flight to a client that
// leaves early nor what is delivered counts.
func TestQueueLimitInBytes(t *testing.T) {
	const publish, two = "publish p t size=60000 qos=1 count=40", "connect a v5 clean=0 expiry=1000 recvmax=2"
	for options, want := range map[string]int{"options queuebytes=1000000": 16, "options queuebytes=1000000 queue=100": 16, "options queue=20": 20} {
		for _, shards := range []int{1, 2} {
			c, err := script.Parse(options)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorldOn(t, shards, c, newMemStore(), startOfTime())
			sayAll(t, w, "connect p v5", "connect a v5 expiry=1000", "subscribe a t qos=1", "close a", publish, two, "close a", publish)
			for _, inFlight := range []int{2, 0, 0} {
				if n, want := delivered(t, w), want+inFlight; n != want {
					t.Errorf("%d shards, %s: %d come, want %d", shards, options, n, want)
				}
				sayAll(t, w, "close a", publish)
			}
			w.end()
		}
	}
}
