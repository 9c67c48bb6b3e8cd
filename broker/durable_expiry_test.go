package broker_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/script"
)

// limited is a broker with options, on a store that keeps it.
func limited(t *testing.T, options string, shards int, store *memStore, now time.Time) *world {
	t.Helper()
	c, err := script.Parse(options)
	if err != nil {
		t.Fatal(err)
	}
	return newWorldOn(t, shards, c, store, now)
}

// fits is how many of n messages are not dropped by a queue of its only subscriber.
func fits(t *testing.T, w *world, n int, words string) int {
	t.Helper()
	before := w.broker.Live()
	sayAll(t, w, fmt.Sprintf("publish p t %s qos=1 count=%d", words, n))
	after := w.broker.Live()
	return n - int(after.Of(broker.CounterDroppedQueue)-before.Of(broker.CounterDroppedQueue))
}

// TestExpiredOnDiskLeavesRoom: what expires on disk for a client that is away counts against neither limit from then on [MQTT-3.3.2-5], whether
// it shares its message with another Session's or not, and makes room for as much as it took; what has not expired keeps its place.
func TestExpiredOnDiskLeavesRoom(t *testing.T) {
	for _, row := range []struct {
		options, small string
		limit          int
	}{{"options queue=5", "size=20", 5}, {"options queue=5", "size=500", 5}, {"options queuebytes=1000000", "size=60000", 16}, {"options queue=100 queuebytes=1000000", "size=60000", 16}} {
		for _, shards := range []int{1, 2} {
			t.Run(fmt.Sprint(row.options, "/", row.small, "/", shards), func(t *testing.T) {
				w := limited(t, row.options, shards, newMemStore(), startOfTime())
				sayAll(t, w, "connect a v5 expiry=10000", "subscribe a t qos=1", "close a", "connect p v5")
				receivers := 1
				if row.small == "size=500" { // Both Sessions are of one shard, and share messages, where there is one shard.
					sayAll(t, w, "connect b v5 expiry=10000", "subscribe b t qos=1", "close b")
					receivers = 2
				}
				for i, step := range []struct {
					tick, words string
					n, fits     int
				}{
					{"0s", "expiry=30", 2, 2}, {"0s", "expiry=10", row.limit, row.limit - 2},
					{"9s", "", 3, 0}, {"2s", "", 1, 1}, {"0s", "expiry=100", row.limit, row.limit - 3}, {"10s", "", 3, 0},
					{"10s", "", 1, 1}, {"0s", "", 5, 1}, {"60s", "", 1, 0}, {"20s", "", row.limit, row.limit - 3},
				} {
					sayAll(t, w, "tick "+step.tick)
					if n := fits(t, w, step.n, row.small+" "+step.words); n != step.n-receivers*(step.n-step.fits) {
						t.Errorf("step %d: of %d messages for %d Sessions %d were not dropped, want %d for each", i, step.n, receivers, n, step.fits)
					}
				}
				if n := delivered(t, w); n != row.limit {
					t.Errorf("%d come in the end, want %d", n, row.limit)
				}
				w.end()
			})
		}
	}
}

// TestExpiredOfEarlierRunLeavesRoom: so it is with what an earlier run has left, whether it expires while no broker runs, before it is counted or
// afterwards. It is counted once, and nothing is asked again because the queue is full.
func TestExpiredOfEarlierRunLeavesRoom(t *testing.T) {
	for _, size := range []int{20, 500} {
		for _, before := range []string{"0s", "20s"} {
			store := newMemStore()
			w := limited(t, "options", 1, store, startOfTime())
			sayAll(t, w, "connect a v5 expiry=10000", "subscribe a t qos=1", "close a", "connect b v5 expiry=10000", "subscribe b t qos=1", "close b", "connect p v5",
				fmt.Sprintf("publish p t size=%d qos=1 count=3 expiry=15", size), fmt.Sprintf("publish p t size=%d qos=1 count=2", size), "tick "+before)
			store = store.crashed(w.now.UnixMilli())
			w = limited(t, "options queue=6", 1, store, w.now)
			sayAll(t, w, "connect b v5", "close b", "connect p v5")
			want := 4
			if before == "0s" {
				if first, more := fits(t, w, 1, "expiry=3"), fits(t, w, 20, ""); first != 1 || more != 0 {
					t.Errorf("%d bytes: before that %d and %d fit", size, first, more)
				}
				sayAll(t, w, "tick 10s")
				if n := fits(t, w, 4, "expiry=1"); n != 3+1 && n != 4 {
					t.Errorf("%d bytes: %d fit", size, n)
				}
				sayAll(t, w, "tick 10s")
			}
			first, more := fits(t, w, 1, ""), fits(t, w, 20, "")
			if first+more != want {
				t.Errorf("%d bytes, %s before the crash: %d and %d fit, want %d", size, before, first, more, want)
			}
			if n := delivered(t, w); n != 6 || store.counts != 1 {
				t.Errorf("%d bytes, %s before the crash: %d come in the end, and the store has counted %d times", size, before, n, store.counts)
			}
			w.end()
		}
	}
}

// TestEarlierRunIsCountedInParts: what has expired before what has not does not end the count, and what is there in the end is no more than
// was let through while the store counted. Each part is asked for once, and none when the limit is met.
func TestEarlierRunIsCountedInParts(t *testing.T) {
	for limit, want := range map[int]struct{ counts, come int }{3: {6, 10}, 4: {6, 10}, 6: {7, 10}, 10: {9, 10}, 20: {9, 20}} {
		store := newMemStore()
		w := limited(t, "options", 1, store, startOfTime())
		sayAll(t, w, "connect a v5 expiry=10000", "subscribe a t qos=1", "close a", "connect p v5", "publish p t old qos=1 count=9 expiry=15", "publish p t old qos=1 count=9", "tick 20s")
		store = store.crashed(w.now.UnixMilli())
		store.countMost = 2
		w = limited(t, fmt.Sprint("options queue=", limit), 1, store, w.now)
		sayAll(t, w, "connect p v5", "publish p t new qos=1")
		for range 30 {
			sayAll(t, w, "publish p t new qos=1")
		}
		if n := delivered(t, w); n != want.come || store.counts != want.counts {
			t.Errorf("limit %d: %d come, and the store has counted %d times; want %+v", limit, n, store.counts, want)
		}
		w.end()
	}
}

// TestPublishedWhileTheStoreCounts is let through, and counts afterwards.
func TestPublishedWhileTheStoreCounts(t *testing.T) {
	store := newMemStore()
	w := limited(t, "options", 1, store, startOfTime())
	sayAll(t, w, "connect a v5 expiry=10000", "subscribe a t qos=1", "close a", "connect p v5", "publish p t old qos=1 count=9 expiry=15", "publish p t old qos=1 count=3", "tick 20s")
	store = store.crashed(w.now.UnixMilli())
	w = limited(t, "options queue=10", 1, store, w.now)
	sayAll(t, w, "connect p v5")
	store.stuck = true
	if n := fits(t, w, 4, "expiry=5"); n != 4 {
		t.Errorf("%d fit before the store has counted", n)
	}
	store.stuck = false
	sayAll(t, w, "tick 0s")
	if n := fits(t, w, 9, ""); n != 3 {
		t.Errorf("then %d fit, want 3: 3 are left of 12, and 4 came meanwhile", n)
	}
	sayAll(t, w, "tick 6s")
	if n := fits(t, w, 9, ""); n != 4 {
		t.Errorf("when those have expired %d fit", n)
	}
	if n := delivered(t, w); n != 10 || store.counts != 1 {
		t.Errorf("%d come in the end, and the store has counted %d times", n, store.counts)
	}
	w.end()
}

// TestExpiredBehindSlowClient: what waits for a client that is connected and acknowledges nothing leaves room when it expires, wherever it waits:
// up to 256 in memory to be sent, as many behind that, and more on disk.
func TestExpiredBehindSlowClient(t *testing.T) {
	for _, limit := range []int{100, 400, 2000} {
		for _, shards := range []int{1, 2} {
			w := limited(t, fmt.Sprint("options queue=", limit), shards, newMemStore(), startOfTime())
			sayAll(t, w, "connect a v5 expiry=10000 recvmax=1", "subscribe a t qos=1", "connect p v5", "publish p t first qos=1")
			for i := range 3 {
				if n := fits(t, w, limit+10, "expiry=10"); n != limit {
					t.Errorf("limit %d, round %d: %d fit", limit, i, n)
				}
				sayAll(t, w, "tick 11s")
			}
			w.end()
		}
	}
}

// TestExpiredBehindOthers: so does what expires in memory behind what does not.
func TestExpiredBehindOthers(t *testing.T) {
	w := limited(t, "options queue=300", 1, newMemStore(), startOfTime())
	sayAll(t, w, "connect a v5 expiry=10000 recvmax=1", "subscribe a t qos=1", "connect p v5", "publish p t first qos=1 count=257")
	for range 3 {
		if n := fits(t, w, 60, "expiry=10"); n != 44 {
			t.Errorf("%d fit behind 256 that do not expire", n)
		}
		sayAll(t, w, "tick 11s")
	}
	w.end()
}

// TestQueueOnDiskIsCountedRight has clients come, take some and leave, brokers crash and messages expire, and then fills the queue: what waits, and
// has not expired, is as much as the limit allows. Of messages there may be one more for each crash, which was let through while the store
// counted; of bytes those do not count that an earlier run has left.
func TestQueueOnDiskIsCountedRight(t *testing.T) {
	for seed := range uint64(40) {
		for _, bytes := range []bool{false, true} {
			testQueueOnDisk(t, rand.New(rand.NewPCG(seed, 1)), fmt.Sprint("seed ", seed), bytes)
		}
	}
}

func testQueueOnDisk(t *testing.T, dice *rand.Rand, name string, bytes bool) {
	limit, shards := 1+dice.IntN(300), 1+dice.IntN(2)
	options := fmt.Sprint("options queue=", limit)
	if bytes {
		options = fmt.Sprint("options queuebytes=", 4096+40*limit)
	}
	r := &filling{t: t, w: limited(t, options, shards, newMemStore(), startOfTime())}
	sayAll(t, r.w, "connect a v5 expiry=1000000", "subscribe a t qos=1", "close a", "connect p v5")
	if bytes {
		limit = r.publish("expiry=1", 1000)
		sayAll(t, r.w, "tick 2s")
	}
	inFlight := map[int]bool{}
	crashes, crashed := 0, 0
	for range 12 {
		switch dice.IntN(6) {
		case 0, 1:
			r.publish(fmt.Sprintf("expiry=%d", 1+dice.IntN(40)), dice.IntN(limit/2+2))
		case 2:
			r.publish("", dice.IntN(limit/4+2))
		case 3:
			sayAll(t, r.w, fmt.Sprintf("tick %ds", dice.IntN(20)))
		case 4:
			r.w.out.Reset()
			sayAll(t, r.w, fmt.Sprintf("connect a v5 clean=0 expiry=1000000 recvmax=%d", 1+dice.IntN(3)))
			r.publish("", dice.IntN(4))
			for _, serial := range r.heard() {
				inFlight[serial] = true
			}
			if dice.IntN(2) == 0 {
				sayAll(t, r.w, "close a")
				continue
			}
			fallthrough
		case 5:
			r.w = limited(t, options, shards, r.w.store.(*memStore).crashed(r.w.now.UnixMilli()), r.w.now)
			sayAll(t, r.w, "connect p v5")
			crashes, crashed = crashes+1, r.serial
		}
	}
	sayAll(t, r.w, "tick 60s")
	r.publish("", limit+2)
	waited, more := 0, crashes
	r.w.out.Reset()
	sayAll(t, r.w, "+connect a v5 clean=0 expiry=1000000", "auto a")
	for _, serial := range r.heard() {
		if !inFlight[serial] && (!bytes || serial > crashed) {
			waited++
		}
	}
	if bytes {
		more = 0
	}
	if waited < limit || waited > limit+more {
		t.Errorf("%s, %s: %d wait, there is room for %d, %d crashes", name, options, waited, limit, crashes)
	}
	r.w.end()
}

// filling publishes numbered messages of one size.
type filling struct {
	t      *testing.T
	w      *world
	serial int
}

// publish says how many were not dropped.
func (r *filling) publish(words string, n int) (fit int) {
	for range n {
		r.serial++
		fit += fits(r.t, r.w, 1, fmt.Sprintf("%05d %s", r.serial, words))
	}
	return fit
}

// heard is the numbers of what the client got.
func (r *filling) heard() (list []int) {
	for _, line := range published(r.w.out.String()) {
		serial := 0
		if _, err := fmt.Sscanf(line, `"%d"`, &serial); err != nil {
			r.t.Fatal(err)
		}
		list = append(list, serial)
	}
	return list
}
