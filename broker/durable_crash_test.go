package broker_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/crashtest"
	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/record"
	"github.com/ringmq/ringmq/broker/script"
)

func crashClients(l *crashtest.Ledger, shards int) []*crashtest.Client {
	list := []*crashtest.Client{
		crashtest.NewClient(l, "s1", packet.V50, "t/#", ""),
		crashtest.NewClient(l, "s2", packet.V311, "t/+", ""),
		crashtest.NewClient(l, "b1", packet.V311, "t/x", "t/x"),
		crashtest.NewClient(l, "p1", packet.V50, "", "t/x"),
		crashtest.NewClient(l, "p2", packet.V311, "", "t/x"),
		crashtest.NewClient(l, "fickle", packet.V50, "t/x", ""),
		crashtest.NewClient(l, "g1", packet.V50, "$share/g/t/#", ""),
		crashtest.NewClient(l, "g2", packet.V311, "$share/g/t/#", ""),
		crashtest.NewClient(l, "r", packet.V50, "", "t/r"),
		crashtest.NewClient(l, "e", packet.V50, "", "t/x"),
		crashtest.NewClient(l, "w1", packet.V311, "", ""),
		crashtest.NewClient(l, "w2", packet.V50, "", ""),
		crashtest.NewClient(l, "w3", packet.V50, "", ""),
		crashtest.NewClient(l, "k", packet.V50, "", "k/r"),
		crashtest.NewClient(l, "x", packet.V50, "", ""),
	}
	list[3].Padding = 200 // stored once for several
	list[5].Fickle = true
	list[8].Retain = true
	list[9].Expiries = []uint32{3600, 1}
	list[13].Retain, list[13].Clears = true, true
	list[14].Expiry = 60
	list[10].Will, list[10].Polite = &crashtest.Will{Topic: "t/w", QoS: 2}, true
	list[11].Will = &crashtest.Will{Topic: "t/w", QoS: 1, Delay: 60}
	list[12].Will, list[12].Polite = &crashtest.Will{Topic: "t/w", QoS: 1}, true
	return list
}

// TestCrashBehindEveryCommit plays traffic by chance, crashes behind each number of commits, and again in the recovery, and finds that
// nothing that was acknowledged is lost and nothing of QoS 2 is doubled.
func TestCrashBehindEveryCommit(t *testing.T) {
	crashes := 0
	for _, shards := range []int{1, 2, 3} {
		for seed := range uint64(6) {
			for stop := 1; stop <= 60; stop++ {
				if testing.Short() && stop%5 != int(seed)%5 {
					continue
				}
				crashes++
				if err := crashOnce(shards, seed, stop); err != nil {
					t.Fatalf("%d shards, seed %d, crash behind commit %d: %v", shards, seed, stop, err)
				}
			}
		}
	}
	t.Log(crashes, "crashes")
}

func crashOnce(shards int, seed uint64, stop int) error {
	l := crashtest.NewLedger()
	sim := crashtest.NewSim(shards, seed, crashClients(l, shards))
	store := newMemStore()
	for round := range 3 {
		store.stopAt = stop
		if round > 0 {
			store.stopAt = 1 + int(sim.Rand.Uint32()%40)
		}
		if err := sim.Restart(store); err != nil {
			return err
		}
		sim.Work = func(b *broker.Broker) {
			for sim.Rand.IntN(3) > 0 && store.work(b) {
			}
		}
		for n, over := 0, 0; n < 600 && over < 10; n++ {
			if err := sim.Step(true); err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
			if store.commits >= store.stopAt {
				over++ // some turns more: what is not committed must not be acknowledged
			}
		}
		store = store.crashed(sim.Now().UnixMilli())
		sim.Sleep(time.Duration(sim.Rand.IntN(3)) * 40 * time.Second) // twice that is longer than the Will's delay
	}
	if err := sim.Restart(store); err != nil {
		return err
	}
	sim.Work = func(b *broker.Broker) {
		for store.work(b) {
		}
	}
	return sim.Drain(l, 20000)
}

// TestStoredOnceAcrossRestart has Sessions of three shards wait for a message that is stored once: the next run, in which they are on other shards, has it
// for all of them.
func TestStoredOnceAcrossRestart(t *testing.T) {
	for _, qos := range []int{1, 2} {
		store := newMemStore()
		w := newWorldOn(t, 3, script.New("options"), store, startOfTime())
		readers := []string{"a", "b", "c", "d"}
		for _, name := range readers { // each on the next shard
			sayAll(t, w, "connect "+name+" v5 expiry=1000", fmt.Sprintf("subscribe %s t qos=%d", name, qos), "close "+name)
		}
		sayAll(t, w, "connect p v5", fmt.Sprintf("publish p t size=200 qos=%d id=1", qos))
		if m, x, q := store.of(record.KindMessage), store.of(record.KindReference), store.of(record.KindEntry); m != 1 || x != len(readers) || q != len(readers) {
			t.Errorf("QoS %d: %d messages, %d references and %d entries are stored", qos, m, x, q)
		}
		store = store.crashed(w.now.UnixMilli())
		w = newWorldOn(t, 3, script.New("options"), store, w.now.Add(time.Second))
		sayAll(t, w, "connect p v5")
		for _, name := range readers {
			w.out.Reset()
			sayAll(t, w, "+connect "+name+" v5 clean=0 expiry=1000", "auto "+name)
			if n := strings.Count(w.out.String(), "< PUBLISH t "); n != 1 {
				t.Errorf("QoS %d: %s got %d messages", qos, name, n)
			}
		}
		if n := store.of(record.KindReference) + store.of(record.KindEntry); n != 0 {
			t.Errorf("QoS %d: %d references and entries are left", qos, n)
		}
		w.end()
	}
}

// TestRunOutInTheFirstMillisecond has messages run out while no broker runs, and clients there at once when one does: its clock stands at its
// beginning when it loads them, and they have expired all the same [MQTT-3.3.2-5].
func TestRunOutInTheFirstMillisecond(t *testing.T) {
	expired := 0
	for seed := range uint64(20) {
		l := crashtest.NewLedger()
		sim := crashtest.NewSim(1, seed, []*crashtest.Client{
			crashtest.NewClient(l, "s", packet.V50, "t", ""),
			crashtest.NewClient(l, "e", packet.V50, "", "t"),
		})
		sim.Clients[1].Expiries = []uint32{1}
		store := newMemStore()
		store.stopAt = 1 << 30
		sim.Work = func(b *broker.Broker) {
			for store.work(b) {
			}
		}
		if err := sim.Restart(store); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if err := sim.Step(true); err != nil {
				t.Fatal(err)
			}
		}
		store = store.crashed(sim.Now().UnixMilli())
		sim.Sleep(time.Hour)
		if err := sim.Restart(store); err != nil {
			t.Fatal(err)
		}
		if err := sim.Drain(l, 1000); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		expired += l.Tally().Expired
	}
	if expired == 0 {
		t.Error("nothing has expired")
	}
}
