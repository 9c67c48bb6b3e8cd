package broker_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/script"
)

// TestRefusals has a store that takes less and less: what it does not take is refused at once with a Reason Code, what it still takes goes
// on, and nobody is left without an answer.
func TestRefusals(t *testing.T) {
	type step struct{ say, want string } // want is part of what is heard; "" nothing at all
	// Sessions end, but that is not written: what they would have got is refused, and nothing else.
	ends := []step{
		{"disconnect leaver expiry=0", "closed"}, {"tick 200s", "-- 200s"},
		{"publish p x m qos=1 id=8", "passing < PUBLISH x"}, {"publish p3 x m qos=1 id=8", "p3 < PUBACK 8"}, {"publish p nobody m qos=2 id=7", "p < PUBREC 7"},
		{"publish p left m qos=1 id=5", "p < PUBACK 5 0x97"}, {"publish p left/shared m qos=1 id=4", "p < PUBACK 4 0x97"},
		{"publish p out/of/time m qos=2 id=3", "p < PUBREC 3 0x97"}, {"publish p left m qos=0", ""},
	}
	for _, level := range []struct {
		name    string
		refusal broker.Refusal
		stuck   bool
		steps   []step
	}{
		{"messages", broker.RefuseMessages, false, []step{
			{"publish p away m qos=1 id=1", "< PUBACK 1 0x97"}, {"publish p nobody m qos=1 id=2", "< PUBACK 2"},
			{"connect new v5 expiry=100", "< CONNACK"}, {"subscribe new x qos=1", "< SUBACK"},
		}},
		{"messages, and nothing is written", broker.RefuseMessages, true, append([]step{{"connect passing v5", "< CONNACK"}, {"subscribe passing x qos=1", "< SUBACK"}}, ends...)},
		{"new ones", broker.RefuseNew, false, []step{
			{"publish p away m qos=2 id=1", "< PUBREC 1 0x97"},
			{"connect new v5 expiry=100", "0x97"}, {"connect new3 v311 clean=0", "CONNACK return code 3"},
			{"connect a v5 expiry=1000", "0x97"}, // a new Session in the old one's place
			{"connect passing v5", "< CONNACK"}, {"subscribe passing x qos=1", "< SUBACK"},
			{"connect a v5 clean=0 expiry=1000", "< PUBLISH away"}, {"puback a 1", ""},
			{"subscribe a away qos=1", "< SUBACK 1 "}, {"subscribe a other qos=1", "0x97"},
			{"connect a3 v311 clean=0", "< PUBLISH away"}, {"subscribe a3 other qos=1", "0x80"},
			{"disconnect a expiry=0", "closed"}, {"connect a v5", "< CONNACK"},
		}},
		{"everything", broker.RefuseAll, true, append([]step{
			{"connect new v5 expiry=100", "0x97"}, {"connect a v5 clean=0 expiry=1000", "0x89"}, {"connect a v5", "0x89"},
			{"connect passing v5", "< CONNACK"}, {"subscribe passing x qos=1", "< SUBACK"}, {"publish p x m qos=1 id=9", "passing < PUBLISH x"},
			{"connect a3 v311 clean=0", "< CONNACK"}, {"subscribe a3 away qos=1", "0x80"},
		}, ends...)},
	} {
		store := newMemStore()
		w := newWorldOn(t, 1, script.New("options"), store, startOfTime())
		sayAll(t, w, "connect a v5 expiry=1000", "subscribe a away qos=1", "close a", "connect a3 v311 clean=0", "subscribe a3 away qos=1", "close a3",
			"connect p v5", "publish p away old qos=1 id=1", "connect p3 v311", "connect leaver v5 expiry=1000",
			"subscribe leaver left qos=1", "subscribe leaver $share/s/left/shared qos=1", "connect brief v5 expiry=100", "subscribe brief out/# qos=2", "close brief")
		w.broker.Refuse(level.refusal)
		store.stuck = level.stuck
		for _, s := range level.steps {
			w.out.Reset()
			sayAll(t, w, s.say)
			if heard := w.out.String(); !strings.Contains(heard, s.want) || s.want == "" && heard != "" {
				t.Errorf("%s: %s: heard %q, want %q", level.name, s.say, heard, s.want)
			}
		}
		store.stuck = false
		w.broker.Refuse(broker.RefuseNothing)
		w.out.Reset()
		if sayAll(t, w, "connect last v5 expiry=100", "subscribe last x qos=1"); !strings.Contains(w.out.String(), "< SUBACK") {
			t.Errorf("%s: when it is over: %q", level.name, w.out.String())
		}
		w.end()
	}
}

// TestRefusedMessagesCountOnce has a 3.1.1 client wait, for many retries, with a PUBLISH that the store does not take.
func TestRefusedMessagesCountOnce(t *testing.T) {
	w := newWorldOn(t, 1, script.New("options"), newMemStore(), startOfTime())
	sayAll(t, w, "connect a v5 expiry=1000", "subscribe a away qos=1", "close a", "connect p v311", "connect q v5")
	of := func(c broker.Counter) uint64 { all := w.broker.Counters(); return all.Of(c) }
	count := func() uint64 { return of(broker.CounterStoreRefused) }
	w.broker.Refuse(broker.RefuseMessages)
	sayAll(t, w, "publish p away m qos=1 id=1", "publish q away m qos=1 id=1")
	for range 50 {
		sayAll(t, w, "tick 1s")
	}
	if n, again := count(), of(broker.CounterStalledStore); n != 2 || again < 10 {
		t.Errorf("two messages count as %d, tried %d times", n, again)
	}
	w.out.Reset()
	w.broker.Refuse(broker.RefuseNothing)
	if sayAll(t, w, "tick 1s"); !strings.Contains(w.out.String(), "p < PUBACK 1") {
		t.Errorf("when space is back the client hears %q", w.out.String())
	}
	w.broker.Refuse(broker.RefuseMessages)
	if sayAll(t, w, "publish p away m qos=1 id=2", "tick 1s"); count() != 3 {
		t.Errorf("the third message counts as %d", count()-2)
	}
	w.broker.Refuse(broker.RefuseNothing)
	sayAll(t, w, "tick 1s")
	w.end()
}

// TestGoodbyeBehindRefused has a client with a Will say DISCONNECT behind a PUBLISH that waits for room in the store, and the connection
// end before there is any, by a takeover or by its peer: the Will is discarded where that DISCONNECT says so [MQTT-3.14.4-3], and published otherwise.
func TestGoodbyeBehindRefused(t *testing.T) {
	for _, end := range []string{"connect again v311 id=p", "reset p"} {
		for _, c := range []struct {
			name    string
			leave   []string
			publish bool
		}{
			{name: "no DISCONNECT", publish: true},
			{name: "DISCONNECT", leave: []string{"disconnect p"}},
			{name: "DISCONNECT behind more than a page", leave: []string{"publish p away m size=3000 qos=1 id=2", "publish p away m size=3000 qos=1 id=3", "disconnect p"}},
			{name: "half of DISCONNECT", leave: []string{"raw p e0"}, publish: true},
			{name: "flags of DISCONNECT", leave: []string{"raw p e100"}, publish: true},
		} {
			w := newWorldOn(t, 1, script.New("options"), newMemStore(), startOfTime())
			sayAll(t, w, "connect watcher v5", "subscribe watcher will", "connect a v5 expiry=1000", "subscribe a away qos=1", "close a",
				"connect p v311 will=will willpayload=gone")
			w.broker.Refuse(broker.RefuseMessages)
			sayAll(t, w, "publish p away m qos=1 id=1")
			sayAll(t, w, c.leave...)
			w.out.Reset()
			sayAll(t, w, end)
			if got := strings.Contains(w.out.String(), "watcher < PUBLISH will"); got != c.publish {
				t.Errorf("%s after %s: the Will is published: %v; heard %q", end, c.name, got, w.out.String())
			}
			w.broker.Refuse(broker.RefuseNothing)
			w.end()
		}
	}
}

// TestRetainedQoS0GoesOn has far more bytes of Retained Messages come with QoS 0, while nothing is written, than may wait: they are delivered, and so is
// what comes without RETAIN. When the store works again it gets what each topic has, which the next run finds.
func TestRetainedQoS0GoesOn(t *testing.T) {
	const topics, last = 7, 699
	for _, shards := range []int{1, 2} {
		store := newMemStore()
		w := newWorldOn(t, shards, script.New("options"), store, startOfTime())
		sayAll(t, w, "connect p v5", "connect s v5", "subscribe s r/#", "publish p r/gone m retain=1")
		w.broker.Refuse(broker.RefuseAll)
		store.stuck = true
		for i := range last + 1 {
			w.out.Reset()
			sayAll(t, w, fmt.Sprintf("publish p r/%d m size=%d retain=1", i%topics, 3000+i))
			if !strings.Contains(w.out.String(), "s < PUBLISH r/") {
				t.Fatalf("message %d is not delivered", i)
			}
		}
		w.out.Reset()
		if sayAll(t, w, `publish p r/gone "" retain=1`, "publish p r/x m"); !strings.Contains(w.out.String(), "s < PUBLISH r/x") {
			t.Errorf("QoS 0 without RETAIN: heard %q", w.out.String())
		}
		store.stuck = false
		w.broker.Refuse(broker.RefuseNothing)
		sayAll(t, w, "tick 1s")
		w = newWorldOn(t, shards, script.New("options"), store.crashed(w.now.UnixMilli()), w.now)
		sayAll(t, w, "connect s v5", "subscribe s r/#")
		heard := w.out.String()
		for i := last + 1 - topics; i <= last; i++ {
			if !strings.Contains(heard, fmt.Sprintf("s < PUBLISH r/%d <%d bytes>", i%topics, 3000+i)) {
				t.Errorf("%d shards: the next run has not the last message of r/%d", shards, i%topics)
			}
		}
		if n := strings.Count(heard, "PUBLISH"); n != topics {
			t.Errorf("%d shards: the next run has %d Retained Messages, want %d: %s", shards, n, topics, heard)
		}
		sayAll(t, w, "connect p v5")
		for i := range topics {
			sayAll(t, w, fmt.Sprintf(`publish p r/%d "" retain=1`, i))
		}
		w.end()
	}
}
