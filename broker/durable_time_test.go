package broker_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker/script"
)

// endings are how a broker may end while a client is away, or connected. The others pass over the connection's time.
var endings = []struct {
	name   string
	say    []string // before the broker ends
	before time.Duration
	down   time.Duration
}{
	{"the client is away, and a crash", []string{"close a", "tick 30s"}, 30 * time.Second, 40 * time.Second},
	{"the client is away, and a stop", []string{"close a", "tick 30s", "stop"}, 30 * time.Second, 40 * time.Second},
	{"the client is connected, and a crash", []string{"tick 300s"}, 0, 70 * time.Second},
	{"the client is connected, and a stop", []string{"tick 300s", "stop"}, 0, 70 * time.Second},
}

// nextWorld is the broker that runs after so long on what the store of another one has kept.
func nextWorld(t *testing.T, shards int, w *world, down time.Duration) *world {
	t.Helper()
	options, err := script.Parse("options fresh=1")
	if err != nil {
		t.Fatal(err)
	}
	return newWorldOn(t, shards, options, w.store.(*memStore).crashed(w.now.UnixMilli()), w.now.Add(down))
}

// TestSessionExpiryCountsTheTimeDown: a Session Expiry Interval of 100 s is over 100 s after the client's connection has ended, whether a broker
// ran or not; a crash ends connections when the store last noted the time.
func TestSessionExpiryCountsTheTimeDown(t *testing.T) {
	for _, e := range endings {
		for _, after := range []struct {
			tick  string
			there bool
		}{{"20s", true}, {"40s", false}} {
			t.Run(fmt.Sprint(e.name, "/", after.there), func(t *testing.T) {
				w := newWorldOn(t, 2, script.New("options"), newMemStore(), startOfTime())
				sayAll(t, w, append([]string{"connect a v5 expiry=100", "subscribe a t qos=1"}, e.say...)...)
				w = nextWorld(t, 2, w, e.down)
				sayAll(t, w, "tick "+after.tick)
				w.out.Reset()
				sayAll(t, w, "connect a v5 clean=0 expiry=100")
				if there := strings.Contains(w.out.String(), " present\n"); there != after.there {
					t.Errorf("%v away, %v of them without a broker: %q", e.before+e.down, e.down, w.out.String())
				}
				w.end()
			})
		}
	}
}

// TestWillDelayCountsTheTimeDown: so does a Will Delay Interval of 100 s.
func TestWillDelayCountsTheTimeDown(t *testing.T) {
	for _, e := range endings {
		for _, after := range []struct {
			tick string
			came bool
		}{{"20s", false}, {"40s", true}} {
			t.Run(fmt.Sprint(e.name, "/", after.came), func(t *testing.T) {
				w := newWorldOn(t, 2, script.New("options"), newMemStore(), startOfTime())
				sayAll(t, w, "connect watches v5 expiry=10000", "subscribe watches w qos=1", "close watches")
				sayAll(t, w, append([]string{"connect a v5 expiry=1000 will=w willpayload=gone willqos=1 willdelay=100"}, e.say...)...)
				w = nextWorld(t, 2, w, e.down)
				sayAll(t, w, "connect watches v5 clean=0 expiry=10000", "tick "+after.tick)
				if came := strings.Contains(w.out.String(), `< PUBLISH w "gone"`); came != after.came {
					t.Errorf("%v after the end, %v of them without a broker: %q", e.before+e.down, e.down, w.out.String())
				}
				sayAll(t, w, "connect a v5")
				w.end()
			})
		}
	}
}

// TestWillDelayThatPassesWhileDown is due as soon as a broker runs, and its client's return cancels it no more [MQTT-3.1.2-8].
func TestWillDelayThatPassesWhileDown(t *testing.T) {
	w := newWorldOn(t, 1, script.New("options"), newMemStore(), startOfTime())
	sayAll(t, w, "connect watches v5 expiry=10000", "subscribe watches w qos=1", "close watches",
		"connect a v5 expiry=1000 will=w willpayload=gone willqos=1 willdelay=100", "close a", "tick 60s")
	w = nextWorld(t, 1, w, 60*time.Second)
	sayAll(t, w, "connect a v5 clean=0 expiry=1000", "connect watches v5 clean=0 expiry=10000")
	if got := strings.Count(w.out.String(), `< PUBLISH w "gone"`); got != 1 {
		t.Errorf("the Will came %d times: %q", got, w.out.String())
	}
	w.end()
}

// TestIdentifiersOutliveACrash: what was sent and not acknowledged comes again with its Packet Identifier and DUP, at QoS 1 as at QoS 2
// [MQTT-4.4.0-1], and what was not sent yet with the identifiers that follow.
func TestIdentifiersOutliveACrash(t *testing.T) {
	for _, qos := range []int{1, 2} {
		for _, way := range []string{"", "stop"} {
			store := newMemStore()
			w := newWorldOn(t, 1, script.New("options"), store, startOfTime())
			sayAll(t, w, "connect a v5 expiry=1000 recvmax=3", fmt.Sprintf("subscribe a t qos=%d", qos), "connect p v5",
				fmt.Sprintf("publish p t m%%d qos=%d count=5", qos))
			first := published(w.out.String())
			if way != "" {
				sayAll(t, w, way)
			}
			w = nextWorld(t, 1, w, time.Second)
			w.out.Reset()
			sayAll(t, w, "connect a v5 clean=0 expiry=1000 recvmax=10")
			again := published(w.out.String())
			if len(first) != 3 || len(again) != 5 {
				t.Fatalf("QoS %d: %d came before, %d afterwards: %q", qos, len(first), len(again), again)
			}
			for i := range first {
				if want := first[i] + " dup"; again[i] != want {
					t.Errorf("QoS %d: %q came again as %q", qos, first[i], again[i])
				}
			}
			w.end()
		}
	}
}

// published are the deliveries to a in what was heard.
func published(heard string) (list []string) {
	for line := range strings.Lines(heard) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "a < PUBLISH t "); ok {
			list = append(list, rest)
		}
	}
	return list
}

// TestRetainedOutliveACrash: Retained Messages of every QoS are there after a crash, and those that were cleared are not. What was published
// at QoS 0 has no acknowledgement: the one behind it says that both are durable.
func TestRetainedOutliveACrash(t *testing.T) {
	for qos := range 3 {
		w := newWorldOn(t, 2, script.New("options"), newMemStore(), startOfTime())
		id := 0
		publish := func(topic, payload string) {
			id++
			sayAll(t, w, fmt.Sprintf("publish p %s %s retain=1 qos=%d id=%d", topic, payload, qos, id))
		}
		sayAll(t, w, "connect p v5")
		publish("r/stays", "old")
		publish("r/stays", "stays")
		publish("r/cleared", "cleared")
		publish("r/once", "once")
		w = nextWorld(t, 2, w, time.Second)
		sayAll(t, w, "connect p v5")
		publish("r/cleared", `""`)
		publish("r/anew", "gone")
		publish("r/anew", `""`)
		w = nextWorld(t, 2, w, time.Second)
		sayAll(t, w, "connect s v5", "subscribe s r/#")
		heard := w.out.String()
		if strings.Count(heard, "< PUBLISH") != 2 || !strings.Contains(heard, `< PUBLISH r/once "once"`) || !strings.Contains(heard, `< PUBLISH r/stays "stays"`) {
			t.Errorf("QoS %d: this is retained: %q", qos, heard)
		}
		sayAll(t, w, "connect p v5")
		publish("r/stays", `""`)
		publish("r/once", `""`)
		w.end()
	}
}

// TestEveryIntervalOutlivesACrash: whatever Session Expiry Interval a client asks for, the store has its Session before CONNACK, and so what it was
// promised, those next to "for ever" too (section 3.1.2.11.2).
func TestEveryIntervalOutlivesACrash(t *testing.T) {
	for _, expiry := range []uint32{1000, 1 << 31, 1<<32 - 3, 1<<32 - 2, 1<<32 - 1} {
		t.Run(fmt.Sprint(expiry), func(t *testing.T) {
			w := newWorldOn(t, 1, script.New("options"), newMemStore(), startOfTime())
			connect := fmt.Sprint("connect a v5 clean=0 expiry=", expiry)
			sayAll(t, w, connect, "subscribe a t qos=1", "mute a", "connect p v5", "publish p t kept qos=1")
			w = nextWorld(t, 1, w, time.Second)
			w.out.Reset()
			sayAll(t, w, connect)
			if heard := w.out.String(); !strings.Contains(heard, " present\n") || !strings.Contains(heard, `< PUBLISH t "kept"`) {
				t.Errorf("it heard %q", heard)
			}
			w.end()
		})
	}
}

// TestClockSetBack: a clock that was set back by an hour between two runs has a Session, and the Will of a client that had gone, wait for one interval
// from then on, not for an hour more, and not for another one with each run.
func TestClockSetBack(t *testing.T) {
	for _, leaves := range []bool{false, true} {
		t.Run(fmt.Sprint(leaves), func(t *testing.T) {
			w := newWorldOn(t, 2, script.New("options"), newMemStore(), startOfTime())
			sayAll(t, w, "connect watches v5 expiry=1000000", "subscribe watches w qos=1", "close watches",
				"connect a v5 expiry=200 will=w willpayload=gone willqos=1 willdelay=100")
			if leaves {
				sayAll(t, w, "close a")
			}
			w = nextWorld(t, 2, w, -time.Hour)
			sayAll(t, w, "tick 60s")
			w = nextWorld(t, 2, w, 0)
			sayAll(t, w, "connect watches v5 clean=0 expiry=1000000", "tick 45s")
			if !strings.Contains(w.out.String(), `< PUBLISH w "gone"`) {
				t.Errorf("no Will: %q", w.out.String())
			}
			sayAll(t, w, "tick 100s", "connect a v5 clean=0")
			if strings.Contains(w.out.String(), "a < CONNACK 0x00 Success present") {
				t.Errorf("the Session is there: %q", w.out.String())
			}
			w.end()
		})
	}
}
