package broker_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
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

// TestDoubtOverRuns: what a store has lost counts for a Session until a connection of its has ended on which its client has shown that it has nothing to
// send again, however many runs later, and not for a Session that was made afterwards; not even a crash before the end of such a connection makes it sure.
func TestDoubtOverRuns(t *testing.T) {
	store := newMemStore()
	w := newWorldOn(t, 1, script.New("options"), store, startOfTime())
	again := func(losses uint32) {
		store = store.crashed(w.now.UnixMilli())
		store.doubt += losses
		w.broker.Release()
		w = newWorldOn(t, 1, script.New("options"), store, w.now)
	}
	sayAll(t, w, "connect p v5 expiry=1000", "disconnect p")
	again(1) // and nobody comes
	again(0)
	isTaken := func(who, message string, id string) bool {
		before := strings.Count(w.out.String(), "a < PUBLISH")
		sayAll(t, w, "publish "+who+" t "+message+" qos=2 dup=1 id="+id)
		return strings.Count(w.out.String(), "a < PUBLISH") > before
	}
	sayAll(t, w, "connect a v5", "subscribe a t qos=0", "connect p v5 clean=0 expiry=1000", "connect q v5 expiry=1000")
	if isTaken("p", "one", "1") || !isTaken("q", "two", "1") {
		t.Errorf("heard %q", w.out.String())
	}
	again(0) // without an end of p's connection
	sayAll(t, w, "connect a v5", "subscribe a t qos=0", "connect p v5 clean=0 expiry=1000")
	if isTaken("p", "three", "2") {
		t.Errorf("heard %q", w.out.String())
	}
	sayAll(t, w, "close p") // It may have had no time to send anything again.
	again(0)
	sayAll(t, w, "connect a v5", "subscribe a t qos=0", "connect p v5 clean=0 expiry=1000")
	if isTaken("p", "four", "3") {
		t.Errorf("heard %q", w.out.String())
	}
	sayAll(t, w, "publish p u new qos=2 dup=0 id=9", "disconnect p")
	again(0)
	sayAll(t, w, "connect a v5", "subscribe a t qos=0", "connect p v5 clean=0 expiry=1000")
	if !isTaken("p", "five", "4") {
		t.Errorf("heard %q", w.out.String())
	}
	sayAll(t, w, "connect q v5") // which ends its Session
	w.end()
}

// TestExpiryInDoubt has a store lose when the last run was last heard of, and that a client had come back: no Session ends for that, its time begins
// anew. What it has left of that counts for the next run, which finds no new damage.
func TestExpiryInDoubt(t *testing.T) {
	store := newMemStore()
	w := newWorldOn(t, 1, script.New("options"), store, startOfTime())
	sayAll(t, w, "connect p v5", "connect here v5 expiry=1000", "subscribe here t qos=1", "connect back v5 expiry=1000", "subscribe back t qos=1", "disconnect back")
	away := maps.Clone(store.records)
	w.now = w.now.Add(900 * time.Second)
	sayAll(t, w, "connect back v5 clean=0 expiry=1000", "publish p t m qos=1 id=1")
	next := store.crashed(startOfTime().UnixMilli())
	for k, v := range away {
		if k[0] == byte(record.KindSession) {
			next.records[k] = v
		}
	}
	next.doubt++
	w.broker.Release()
	w.now = w.now.Add(200 * time.Second)
	w = newWorldOn(t, 1, script.New("options"), next, w.now)
	w.settle()
	w.now = w.now.Add(900 * time.Second)
	w.settle()
	next = next.crashed(w.now.UnixMilli())
	w.broker.Release()
	w = newWorldOn(t, 1, script.New("options"), next, w.now)
	sayAll(t, w, "connect here v5 clean=0 expiry=1000", "connect back v5 clean=0 expiry=1000")
	if heard := w.out.String(); strings.Count(heard, "Success present") != 2 || strings.Count(heard, "< PUBLISH") != 2 {
		t.Errorf("heard %q", heard)
	}
	w.broker.Release()
	w = newWorldOn(t, 1, script.New("options"), next.crashed(w.now.UnixMilli()), w.now.Add(1100*time.Second))
	if n := w.broker.Sessions(); n != 0 {
		t.Errorf("%d Sessions are there although their time has passed", n)
	}
	w.broker.Release()
}

// TestWillInDoubt brings back what says that a Will of QoS 2 is due: it may have been published, and is, but not with QoS 2. One that has become due since
// the store was damaged keeps its QoS.
func TestWillInDoubt(t *testing.T) {
	store := newMemStore()
	w := newWorldOn(t, 1, script.New("options"), store, startOfTime())
	sayAll(t, w, "connect a v5 expiry=1000", "subscribe a # qos=2")
	next := store.crashed(w.now.UnixMilli())
	next.doubt++
	for doubt := range uint32(2) {
		will := record.AppendMessage(nil, &record.Message{Flags: packet.PublishFlags(false, 2, true), Topic: fmt.Appendf(nil, "w/%d", doubt)}, 4, []byte("gone"))
		next.records[string(record.SessionKey(nil, uint64(doubt)+1))] = string((&record.Session{Offline: 1, Will: will, Doubt: doubt}).Append(nil))
	}
	w.broker.Release()
	w = newWorldOn(t, 1, script.New("options"), next, w.now)
	sayAll(t, w, "connect a v5 clean=0 expiry=1000")
	if heard := w.out.String(); !strings.Contains(heard, `a < PUBLISH w/0 "gone" qos=1`) || !strings.Contains(heard, `a < PUBLISH w/1 "gone" qos=2`) {
		t.Errorf("heard %q", heard)
	}
	w.broker.Release()
}

// TestNewMessageInDoubt has the store forget that a Packet Identifier was released, as it has lost something: the client uses it for a new QoS 2
// message, which has DUP 0 and is delivered, once, however often it comes again; one that it sends again from before has DUP 1 and is not.
func TestNewMessageInDoubt(t *testing.T) {
	for _, c := range []struct {
		say  []string
		want int // PUBLISH packets that the subscriber gets
	}{
		{[]string{"publish p t new qos=2 id=1 dup=0"}, 1},
		{[]string{"publish p t new qos=2 id=1 dup=0", "publish p t new qos=2 id=1 dup=1", "publish p t new qos=2 id=1 dup=0"}, 1},
		{[]string{"publish p t new qos=2 id=1 dup=0", "pubrel p 1", "publish p t newer qos=2 id=1 dup=0"}, 2},
		{[]string{"publish p t m qos=2 id=1 dup=1"}, 0},
		{[]string{"publish p t m qos=2 id=1 dup=1", "publish p t m qos=2 id=1 dup=0"}, 0},
		{[]string{"pubrel p 1", "publish p t new qos=2 id=1 dup=0"}, 1},
		{[]string{"close p", "connect p v5 clean=0 expiry=1000", "publish p t new qos=2 id=1 dup=0"}, 1},
	} {
		store := newMemStore()
		w := newWorldOn(t, 1, script.New("options"), store, startOfTime())
		sayAll(t, w, "connect p v5 expiry=1000", "publish p t m qos=2 id=1")
		next := store.crashed(w.now.UnixMilli())
		next.doubt++
		w = newWorldOn(t, 1, script.New("options"), next, w.now)
		sayAll(t, w, "connect a v5", "subscribe a t qos=0", "connect p v5 clean=0 expiry=1000")
		w.out.Reset()
		sayAll(t, w, c.say...)
		heard := w.out.String()
		if got := strings.Count(heard, "a < PUBLISH"); got != c.want || !strings.Contains(heard, "p < PUBREC 1") {
			t.Errorf("%v: %d messages are delivered, want %d; heard %q", c.say, got, c.want, heard)
		}
		w.end()
	}
}

// TestDoubtEnds: a client in doubt shows with a new message that it has sent everything again; what is in the store of earlier messages is forgotten then,
// and a new message with such a Packet Identifier is delivered by the next run.
func TestDoubtEnds(t *testing.T) {
	for _, c := range []struct {
		say  []string
		ends bool
	}{
		{[]string{"close p"}, false},
		{[]string{"publish p x again qos=2 id=2 dup=1", "close p"}, false},
		{[]string{"connect q v5 clean=0 id=p expiry=1000", "close q"}, false}, // taken over by itself
		{[]string{"publish p x new qos=2 id=2 dup=0", "close p"}, true},
		{[]string{"pingreq p", "close p"}, false}, // which comes when it likes
		{[]string{"disconnect p"}, false},
	} {
		store := newMemStore()
		w := newWorldOn(t, 1, script.New("options"), store, startOfTime())
		again := func() {
			store = store.crashed(w.now.UnixMilli())
			w.broker.Release()
			w = newWorldOn(t, 1, script.New("options"), store, w.now)
		}
		sayAll(t, w, "connect p v5 expiry=1000", "publish p t m qos=2 id=1")
		again()
		store.doubt++
		w.broker.Release()
		w = newWorldOn(t, 1, script.New("options"), store, w.now)
		sayAll(t, w, "connect p v5 clean=0 expiry=1000")
		sayAll(t, w, c.say...)
		again()
		sayAll(t, w, "connect a v5", "subscribe a t qos=0", "connect p v5 clean=0 expiry=1000", "publish p t old qos=2 id=9 dup=1",
			"publish p t fresh qos=2 id=1 dup=0")
		heard := w.out.String()
		if strings.Contains(heard, "old") != c.ends || !strings.Contains(heard, "fresh") {
			t.Errorf("%v: heard %q", c.say, heard)
		}
		w.end()
	}
}

// TestYoungerSessionIsTheClients: a store that was damaged has brought back the record of a Session that had ended, beside that of the one which
// followed it. The client has the younger one, with what was acknowledged for it, on however many shards they were.
func TestYoungerSessionIsTheClients(t *testing.T) {
	for shards := 1; shards <= 3; shards++ {
		store := newMemStore()
		w := newWorldOn(t, shards, script.New("options"), store, startOfTime())
		sayAll(t, w, "connect a v5 expiry=1000", "subscribe a old qos=1")
		older := map[string]string{}
		for k, v := range store.records {
			if record.Kind(k[0]) == record.KindSession {
				older[k] = v
			}
		}
		sayAll(t, w, "disconnect a", "connect a v5 clean=1 expiry=1000", "subscribe a new qos=1", "disconnect a", "connect p v5",
			"publish p new m qos=1 id=1")
		next := store.crashed(w.now.UnixMilli())
		for k, v := range older {
			next.records[k] = v
		}
		w = newWorldOn(t, shards, script.New("options"), next, w.now)
		sayAll(t, w, "connect a v5 clean=0 expiry=1000")
		if heard := w.out.String(); len(older) != 1 || !strings.Contains(heard, "a < PUBLISH") {
			t.Errorf("%d shards: heard %q", shards, heard)
		}
		w.end()
	}
}
