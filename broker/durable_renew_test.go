package broker_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/record"
	"github.com/ringmq/ringmq/broker/script"
)

// lose has the store lose all records but those of queues, as a salvage may.
func (m *memStore) lose() {
	maps.DeleteFunc(m.records, func(k, _ string) bool { return strings.IndexByte("FIRS", k[0]) >= 0 })
	m.doubt++
}

// withoutQueues are the records that lose takes, but for what they say of losses.
func (m *memStore) withoutQueues(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for k, v := range m.records {
		if k[0] == byte(record.KindSession) {
			var s record.Session
			if err := s.Decode([]byte(v)); err != nil {
				t.Fatal(err)
			}
			s.Doubt = 0
			v = fmt.Sprintf("%+v", s)
		}
		if strings.IndexByte("FIRS", k[0]) >= 0 {
			out[k] = v
		}
	}
	return out
}

// TestLossWhileServing has a store lose Sessions, subscriptions, Packet Identifiers and Retained Messages while clients are there and absent: with the next
// thing that is written all of it is there again, and a message that is acknowledged then is there for an absent client after a crash.
func TestLossWhileServing(t *testing.T) {
	for _, shards := range []int{1, 3} {
		store := newMemStore()
		w := newWorldOn(t, shards, script.New("options"), store, startOfTime())
		sayAll(t, w, "connect away v5 expiry=1000", "subscribe away t/# qos=1", "subscribe away $share/g/s qos=2", "disconnect away",
			"connect never v311 clean=0", "subscribe never t/# qos=2", "disconnect never",
			"connect here v5 expiry=500 will=w willpayload=gone willqos=1", "subscribe here x qos=2",
			"connect p v5 expiry=1000", "publish p r/1 one qos=1 retain=1 id=1", "publish p r/2 two qos=1 retain=1 id=2", "publish p t/2 m qos=2 id=3")
		for n := range 300 { // more than a shard may hand over at a time
			sayAll(t, w, fmt.Sprintf("publish p r/%d size=2000 qos=0 retain=1", n+10))
		}
		before := store.withoutQueues(t)
		if len(before) < 4+4+1+302 {
			t.Fatalf("%d records", len(before))
		}
		store.lose()
		sayAll(t, w, "publish p t/1 later qos=1 id=4")
		if after := store.withoutQueues(t); !maps.Equal(before, after) {
			for _, k := range slices.Sorted(maps.Keys(before)) {
				if after[k] != before[k] {
					t.Errorf("%d shards: %q is %q, it was %q", shards, k, after[k], before[k])
				}
			}
			t.Errorf("%d shards: %d records, there were %d", shards, len(after), len(before))
		}
		store = store.crashed(w.now.UnixMilli())
		w.broker.Release()
		w = newWorldOn(t, shards, script.New("options"), store, w.now)
		sayAll(t, w, "connect away v5 clean=0 expiry=1000")
		if heard := w.out.String(); !strings.Contains(heard, "Success present") || !strings.Contains(heard, "later") {
			t.Errorf("%d shards: after the crash: heard %q", shards, heard)
		}
		w.broker.Release()
	}
}

// TestLossBeforeConnect: a Session whose client comes back before its records were written anew is written before CONNECT is answered, wherever it is.
func TestLossBeforeConnect(t *testing.T) {
	store := newMemStore()
	w := newWorldOn(t, 2, script.New("options"), store, startOfTime())
	sayAll(t, w, "connect c v5 expiry=1000", "subscribe c t qos=1", "disconnect c", "connect p v5", "connect q v5")
	store.stuck = true
	sayAll(t, w, "publish p t m qos=1 id=1", "publish q t m qos=1 id=1") // Now both shards have a batch under way, and write nothing else before it is durable.
	store.lose()
	sayAll(t, w, "connect c v5 clean=0 expiry=1000")
	if strings.Contains(w.out.String(), "present") {
		t.Errorf("heard %q", w.out.String())
	}
	store.stuck = false
	w.settle()
	if n := len(store.withoutQueues(t)); n != 2 {
		t.Errorf("%d records when CONNACK has come, a Session and a subscription are expected", n)
	}
	w.broker.Release()
}

// TestLossWhileConnecting: a Session whose client was coming back when the store lost its records is written anew with all it has, whether its own
// record was on its way or its connection ends first, and whether or not it is in doubt since an earlier loss.
func TestLossWhileConnecting(t *testing.T) {
	for _, shards := range []int{1, 2} {
		for _, doubtful := range []bool{false, true} {
			for _, then := range []string{"settle", "close c", "connect d v5 clean=0 id=c expiry=1000"} {
				store := newMemStore()
				w := newWorldOn(t, shards, script.New("options"), store, startOfTime())
				sayAll(t, w, "connect c v5 expiry=1000", "subscribe c t qos=1", "disconnect c")
				if doubtful {
					store = store.crashed(w.now.UnixMilli())
					store.doubt++
					w.broker.Release()
					w = newWorldOn(t, shards, script.New("options"), store, w.now)
				}
				sayAll(t, w, "connect p v5", "connect q v5")
				store.stuck = true
				sayAll(t, w, "publish p t m qos=1 id=1", "publish q t m qos=1 id=1", "connect c v5 clean=0 expiry=1000")
				store.lose()
				if then != "settle" {
					sayAll(t, w, then)
				}
				store.stuck = false
				w.settle()
				if n := len(store.withoutQueues(t)); n != 2 {
					t.Errorf("%d shards, doubtful %v, %s: %d records, a Session and a subscription are expected", shards, doubtful, then, n)
				}
				w.broker.Release()
			}
		}
	}
}

// TestLossBringsBack: what a salvage has brought back of a Session, a subscription that it gave up and a Packet Identifier that was released, does not
// outlast its renewal: a new message with that identifier is delivered after the next start.
func TestLossBringsBack(t *testing.T) {
	store := newMemStore()
	w := newWorldOn(t, 1, script.New("options"), store, startOfTime())
	sayAll(t, w, "connect c v5 expiry=1000", "subscribe c t qos=1", "publish c x m qos=2 id=1")
	old := maps.Clone(store.records)
	sayAll(t, w, "pubrel c 1", "unsubscribe c t")
	before := store.withoutQueues(t)
	store.lose()
	for k, v := range old {
		if k[0] == byte(record.KindReceived) || k[0] == byte(record.KindSubscription) {
			store.records[k] = v
		}
	}
	sayAll(t, w, "subscribe c u qos=0", "unsubscribe c u")
	if after := store.withoutQueues(t); !maps.Equal(before, after) {
		t.Errorf("%d records, there were %d", len(after), len(before))
	}
	store = store.crashed(w.now.UnixMilli())
	w.broker.Release()
	w = newWorldOn(t, 1, script.New("options"), store, w.now)
	sayAll(t, w, "connect a v5", "subscribe a x qos=0", "connect c v5 clean=0 expiry=1000", "publish c x new qos=2 id=1 dup=0")
	if heard := w.out.String(); !strings.Contains(heard, "a < PUBLISH") {
		t.Errorf("heard %q", heard)
	}
	w.end()
}

// TestLossUnderLoad: however much is waiting for the store, records are written anew with the next batch.
func TestLossUnderLoad(t *testing.T) {
	store := newMemStore()
	w := newWorldOn(t, 1, script.New("options"), store, startOfTime())
	sayAll(t, w, "connect c v5 expiry=1000", "subscribe c t qos=1", "disconnect c")
	before := len(store.withoutQueues(t))
	store.stuck = true
	for p := range 20 {
		sayAll(t, w, fmt.Sprintf("connect p%d v5", p))
		for n := range 40 {
			sayAll(t, w, fmt.Sprintf("publish p%d t size=8000 qos=1 id=%d", p, n+1))
		}
	}
	store.lose()
	store.stuck, store.stopAt = false, store.commits+2 // the batch under way, and the next
	w.settle()
	if n := len(store.withoutQueues(t)); n != before {
		t.Errorf("%d of %d records are there with the next batch", n, before)
	}
	if w.broker.Live()[broker.CounterStalledStore] == 0 {
		t.Error("nothing had to wait for the store")
	}
	store.stopAt = 0
	w.settle()
	w.broker.Release()
}

// TestLossWhileReading has the store lose at the start what the broker has read of it: it is written anew.
func TestLossWhileReading(t *testing.T) {
	store := newMemStore()
	w := newWorldOn(t, 1, script.New("options"), store, startOfTime())
	sayAll(t, w, "connect c v5 expiry=1000", "subscribe c t qos=1", "publish c x m qos=2 id=1")
	before := store.withoutQueues(t)
	store = store.crashed(w.now.UnixMilli())
	store.damaged, store.loses = record.KindRetained, true // the last that is read
	w.broker.Release()
	w = newWorldOn(t, 1, script.New("options"), store, w.now)
	sayAll(t, w, "connect p v5", "publish p t m qos=1 id=1")
	if n := len(store.withoutQueues(t)); n != len(before) || n != 3 {
		t.Errorf("%d of %d records are there", n, len(before))
	}
	w.broker.Release()
}

// TestLossBeforeStop: a broker that stops in order while records are written anew writes all of them.
func TestLossBeforeStop(t *testing.T) {
	store := newMemStore()
	w := newWorldOn(t, 2, script.New("options"), store, startOfTime())
	sayAll(t, w, "connect c v5 expiry=1000", "connect p v5")
	for n := range 500 { // more than a batch takes
		sayAll(t, w, fmt.Sprintf("publish p r/%d size=2000 qos=0 retain=1", n))
	}
	before := len(store.withoutQueues(t))
	store.lose()
	w.broker.HandOver()
	for store.work(w.broker) {
	}
	if n := len(store.withoutQueues(t)); n != before || before != 501 {
		t.Errorf("%d of %d records", n, before)
	}
	w.broker.Release()
}

// TestLossBeforeAcknowledgement: what is acknowledged after a loss, in a batch that was under way then or in a later one, is not lost in a crash, at whatever
// batch and with however many shards: its Session is written anew first, although that takes several batches.
func TestLossBeforeAcknowledgement(t *testing.T) {
	for shards := 1; shards <= 3; shards++ {
		isDone := false
		for batches := 0; !isDone; batches++ {
			store := newMemStore()
			w := newWorldOn(t, shards, script.New("options"), store, startOfTime())
			for n := range 12 {
				sayAll(t, w, fmt.Sprintf("connect c%d v5 expiry=1000 will=w willsize=60000 willdelay=900", n), fmt.Sprintf("subscribe c%d t qos=1", n), fmt.Sprintf("disconnect c%d reason=4", n))
			}
			for n := range 3 {
				sayAll(t, w, fmt.Sprintf("connect p%d v5", n))
			}
			store.stuck = true
			sayAll(t, w, "publish p0 t m0 qos=1 id=1", "publish p1 t m1 qos=1 id=1")
			store.lose()
			sayAll(t, w, "publish p2 t m2 qos=1 id=1")
			store.stuck, store.stopAt = false, store.commits+batches
			sayAll(t, w, "pingreq p0")
			heard := w.out.String()
			isDone = len(store.queue) == 0
			next := store.crashed(w.now.UnixMilli())
			w.broker.Release()
			w = newWorldOn(t, shards, script.New("options"), next, w.now)
			for n := range 12 {
				sayAll(t, w, fmt.Sprintf("connect c%d v5 clean=0 expiry=1000", n))
			}
			for p := range 3 {
				acked := strings.Contains(heard, fmt.Sprintf("p%d < PUBACK", p))
				if n := strings.Count(w.out.String(), fmt.Sprintf("\"m%d\"", p)); acked && n != 12 || isDone && !acked {
					t.Errorf("%d shards, a crash after %d batches: message %d was acknowledged: %v; %d of 12 have it", shards, batches, p, acked, n)
				}
			}
			w.broker.Release()
		}
	}
}
