package broker_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker/record"
	"github.com/ringmq/ringmq/broker/script"
)

func mustParse(t *testing.T, text string) *script.Command {
	t.Helper()
	c, err := script.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// absent is a kept Session that an earlier run has left.
type absent struct {
	sid    uint64
	client string
	hours  int64 // for which its client is away; 0: it was there until the end
	doubt  uint32
	will   bool
}

func (a *absent) append(ops []byte) []byte {
	in := record.Session{ClientID: a.client, Expiry: 1 << 30, Doubt: a.doubt}
	if a.hours > 0 {
		in.Offline = startOfTime().Add(-time.Duration(a.hours) * time.Hour).UnixMilli()
	}
	if a.will {
		in.WillDelay = 1 << 30
		in.Will = record.AppendMessage(nil, &record.Message{Flags: 2, Topic: []byte("will/" + a.client)}, 4, []byte("gone"))
	}
	return record.AppendSet(ops, record.SessionKey(nil, a.sid), in.Append(nil))
}

// withSubscriptions are records of a Session's subscriptions.
func (a *absent) withSubscriptions(ops []byte, filters ...string) []byte {
	for _, f := range filters {
		ops = record.AppendSet(ops, record.SubscriptionKey(nil, a.sid, "", f), (&record.Subscription{QoS: 1}).Append(nil))
	}
	return ops
}

func appendAll(list ...absent) (ops []byte) {
	for _, a := range list {
		ops = a.append(ops)
	}
	return ops
}

// present says of each client whether it finds its Session.
func present(t *testing.T, w *world, clients ...string) (found []string) {
	t.Helper()
	for _, name := range clients {
		w.out.Reset()
		sayAll(t, w, "connect "+name+" v5 clean=0 expiry=1000")
		if strings.Contains(w.out.String(), "Success present") {
			found = append(found, name)
		}
		sayAll(t, w, "disconnect "+name)
	}
	return found
}

// leftOut are the counters of what was left out.
func leftOut(w *world) string {
	w.out.Reset()
	w.tellCounters([]string{"sessions_left_out", "retained_left_out"})
	return strings.Join(strings.Fields(w.out.String()), " ")
}

// endClean ends all that a world knows of and finds nothing left over.
func endClean(t *testing.T, w *world) {
	t.Helper()
	for _, c := range w.clients {
		c.leave(c.peer.Close)
	}
	w.settle()
	w.sweep()
	w.now = w.now.Add(10 * time.Second)
	w.settle()
	for _, err := range w.broker.Leftovers() {
		t.Error(err)
	}
	w.end()
}

// saysOnce finds the one line about what was left out.
func saysOnce(t *testing.T, w *world, words ...string) {
	t.Helper()
	n := 0
	for _, text := range w.host.beyond {
		if !strings.Contains(text, "left out") {
			continue
		}
		n++
		for _, word := range append(words, "damaged-") {
			if !strings.Contains(text, word) {
				t.Errorf("%q does not say %q", text, word)
			}
		}
	}
	if n != 1 {
		t.Errorf("told %q", w.host.beyond)
	}
}

// TestThereUntilTheEnd: whose client was connected until the end is left out last, also where the store has lost when that was.
func TestThereUntilTheEnd(t *testing.T) {
	store := newMemStore()
	store.last, store.doubt = startOfTime().Add(-100*time.Hour).UnixMilli(), 1
	if err := record.Each(appendAll(absent{sid: 1, client: "here"}, absent{sid: 2, client: "away", hours: 2}, absent{sid: 3, client: "back", hours: 1}), store.apply); err != nil {
		t.Fatal(err)
	}
	w := newWorldOn(t, 1, mustParse(t, "options maxconns=2 sessions=2"), store, startOfTime())
	if got := present(t, w, "here", "away"); !slices.Equal(got, []string{"here"}) {
		t.Errorf("%v are present", got)
	}
	w.broker.Release()
}

// TestSalvageBeyondMaxSessions: a salvage has brought back Sessions that had ended, and the store has more than max_sessions. The broker starts, without
// those whose clients are away longest; their Wills are due, and the next start finds no more of them. Where nothing was lost, it does not start.
func TestSalvageBeyondMaxSessions(t *testing.T) {
	const options = "options maxconns=8 sessions=8"
	ended := appendAll(absent{sid: 1, client: "e1", hours: 90, will: true}, absent{sid: 2, client: "e2", hours: 80},
		absent{sid: 3, client: strings.Repeat("e3", 30), hours: 70}, absent{sid: 4, client: "e4", hours: 2})
	stays := appendAll(absent{sid: 5, client: "s1", hours: 75}, absent{sid: 6, client: "s2", hours: 3}, absent{sid: 7, client: "s3"}, absent{sid: 8, client: "s4", hours: 1})
	later := appendAll(absent{sid: 9, client: "l1"}, absent{sid: 10, client: "l2", hours: 1}, absent{sid: 11, client: "l3", hours: 1}, absent{sid: 12, client: "l4", hours: 1})
	stays = (&absent{sid: 5}).withSubscriptions(stays, "s/1", "s/2")
	later = (&absent{sid: 9}).withSubscriptions(later, "will/#")
	names := []string{"e1", "e2", strings.Repeat("e3", 30), "s1", "l1", "l2", "l3", "l4", "s2", "s3", "s4", "e4"}
	for _, shards := range []int{1, 3} {
		fsys := lostEnd(t, append(ended[:len(ended):len(ended)], stays...), deletion(t, ended), later)
		s := onDisk(t, fsys)
		w, err := tryWorld(t, shards, mustParse(t, options), s, startOfTime())
		if err != nil {
			t.Fatal(err)
		}
		if got := leftOut(w); got != "sessions_left_out=4 retained_left_out=0" || w.broker.Sessions() != 8 || w.broker.InUse().Subscriptions != 1 {
			t.Errorf("%d shards: %s, %d Sessions, %+v", shards, got, w.broker.Sessions(), w.broker.InUse())
		}
		saysOnce(t, w, "4 of them", "Sessions", "max_sessions (8)")
		w.broker.Release()
		s.close()
		s = onDisk(t, fsys)
		if w, err = tryWorld(t, shards, mustParse(t, options), s, startOfTime()); err != nil {
			t.Fatal(err)
		}
		if got := leftOut(w); got != "sessions_left_out=0 retained_left_out=0" || len(w.host.beyond) > 0 {
			t.Errorf("%d shards: the next start: %s, %q", shards, got, w.host.beyond)
		}
		sayAll(t, w, "connect l1 v5 clean=0 expiry=1000")
		if !strings.Contains(w.out.String(), "PUBLISH will/e1") {
			t.Errorf("%d shards: no Will: heard %q", shards, w.out.String())
		}
		sayAll(t, w, "disconnect l1")
		if found := strings.Join(present(t, w, names[4:]...), " "); found != strings.Join(names[4:], " ") {
			t.Errorf("%d shards: of %v %s are there", shards, names[4:], found)
		}
		for _, name := range names[4:] { // to have room
			sayAll(t, w, "connect "+name+" v5", "disconnect "+name)
		}
		if found := present(t, w, names[:4]...); len(found) > 0 {
			t.Errorf("%d shards: %v are there", shards, found)
		}
		endClean(t, w)
		s.close()
	}
	refusesToStart(t, sound(t, append(append(ended, stays...), later...)), options, "max_sessions (8)")
}

// TestSalvageBeyondMaxSubscriptions: the same for subscriptions: a Session in doubt is left out with all of them, and its client is told. One that has none stays.
func TestSalvageBeyondMaxSubscriptions(t *testing.T) {
	const options, each = "options subs=16", 7000 // twice as many are more than a start takes beyond the limit
	none, old, young := absent{sid: 1, client: "none", hours: 3}, absent{sid: 3, client: "old", hours: 2}, absent{sid: 2, client: "young", hours: 1}
	var of [2][]byte
	for i, a := range []absent{old, young} {
		for n := range each {
			of[i] = a.withSubscriptions(of[i], fmt.Sprint("t/", n))
		}
	}
	records := append(appendAll(none, old, young), of[0]...)
	fsys := lostEnd(t, append(records, of[1]...), deletion(t, of[1]), appendAll(absent{sid: 4, client: "last"}))
	for _, want := range []string{"sessions_left_out=1 retained_left_out=0", "sessions_left_out=0 retained_left_out=0"} {
		s := onDisk(t, fsys)
		w, err := tryWorld(t, 2, mustParse(t, options), s, startOfTime())
		if err != nil {
			t.Fatal(err)
		}
		if got := leftOut(w); got != want || w.broker.InUse().Subscriptions != each {
			t.Errorf("%s, want %s; %+v", got, want, w.broker.InUse())
		}
		if strings.Contains(want, "=1") {
			saysOnce(t, w, "1 of them", "Sessions", "max_subscriptions (16)")
			w.broker.Release()
		} else {
			if found := strings.Join(present(t, w, "none", "old", "young", "last"), " "); found != "none young last" {
				t.Errorf("%q are there", found)
			}
			endClean(t, w)
		}
		s.close()
	}
	refusesToStart(t, sound(t, append(records, of[1]...)), options, "max_subscriptions")
}

// TestSalvageBeyondMaxRetained: the same for Retained Messages: those that are read last are left out.
func TestSalvageBeyondMaxRetained(t *testing.T) {
	const options, all = "options retained=16", 30000
	var records []byte
	for n := range all {
		topic := fmt.Sprintf("r/%05d", n)
		records = record.AppendSet(records, record.RetainedKey(nil, topic), record.AppendMessage(nil, &record.Message{Topic: []byte(topic)}, 1, []byte("x")))
	}
	watch := absent{sid: 1, client: "watch"}
	last := record.AppendSet(nil, record.SubscriptionKey(nil, 1, "", "r/#"), (&record.Subscription{Retained: true}).Append(nil))
	last = append(watch.append(nil), last...)
	fsys := lostEnd(t, records, deletion(t, records), last)
	kept := int64(0)
	for run := range 2 {
		s := onDisk(t, fsys)
		w, err := tryWorld(t, 2, mustParse(t, options), s, startOfTime())
		if err != nil {
			t.Fatal(err)
		}
		n := w.broker.InUse()
		if run == 0 {
			kept = n.Retained
			saysOnce(t, w, fmt.Sprint(all-kept, " of them"), "Retained Messages", "max_retained (16)")
		}
		want := "sessions_left_out=0 retained_left_out=" + fmt.Sprint([]int64{all - kept, 0}[run])
		if got := leftOut(w); got != want || kept < 10000 || kept >= all || n.Messages != kept || n.Retained != kept {
			t.Errorf("run %d: %s, want %s; %+v", run, got, want, n)
		}
		sayAll(t, w, "connect watch v5 clean=0 expiry=1000")
		if run == 1 {
			sayAll(t, w, "subscribe watch r/# qos=0")
		}
		if got, last := strings.Count(w.out.String(), "PUBLISH r/"), fmt.Sprintf("PUBLISH r/%05d", kept-1); got != int(kept) || !strings.Contains(w.out.String(), last) {
			t.Errorf("run %d: %d messages come, want %d", run, got, kept)
		}
		w.broker.Release()
		s.close()
	}
	refusesToStart(t, sound(t, records), options, "max_retained")
}

// TestSureSessionsStay: Sessions that are not in doubt are never left out, others in the order in which their clients went, by number where that is the same.
func TestSureSessionsStay(t *testing.T) {
	sure := func(sid uint64) absent { return absent{sid: sid, client: fmt.Sprint("c", sid), doubt: 1, hours: 100} }
	doubted := func(sid uint64) absent { return absent{sid: sid, client: fmt.Sprint("c", sid), hours: 1} }
	for _, c := range []struct {
		list []absent
		want string
	}{
		{[]absent{sure(1), sure(2), doubted(3), doubted(4), doubted(5), doubted(6), doubted(7)}, "c1 c2 c6 c7"},
		{[]absent{doubted(1), doubted(2), doubted(3), doubted(4), sure(5), sure(6), sure(7)}, "c4 c5 c6 c7"},
		{[]absent{sure(1), sure(2), sure(3), sure(4), doubted(5)}, "c1 c2 c3 c4"},
		{[]absent{doubted(1), sure(2), sure(3), sure(4), sure(5), sure(6)}, ""},
		{[]absent{sure(1), sure(2), sure(3), sure(4), sure(5), doubted(6)}, ""},
	} {
		for range 5 { // maps differ
			store := newMemStore()
			store.boot, store.doubt = 2, 1
			if err := record.Each(appendAll(c.list...), store.apply); err != nil {
				t.Fatal(err)
			}
			w, err := tryWorld(t, 2, mustParse(t, "options maxconns=4 sessions=4"), store, startOfTime())
			if err != nil {
				if c.want != "" || len(store.queue) > 0 || store.of(record.KindSession) != len(c.list) {
					t.Errorf("%v: %v", c.list, err)
				}
				continue
			}
			if left := len(c.list) - 4; c.want == "" || leftOut(w) != fmt.Sprintf("sessions_left_out=%d retained_left_out=0", left) {
				t.Errorf("%v: %s", c.list, leftOut(w))
			}
			if found := strings.Join(present(t, w, strings.Fields(c.want)...), " "); found != c.want {
				t.Errorf("%v: %q are there, want %q", c.list, found, c.want)
			}
			endClean(t, w)
		}
	}
}

// TestLongNamesBeyondMemory: where Client Identifiers are too long for all, only Sessions that have long ones are left out.
func TestLongNamesBeyondMemory(t *testing.T) {
	const long = 4000
	var list []absent
	for n := range uint64(long) {
		list = append(list, absent{sid: 10 + n, client: fmt.Sprintf("%04d", n) + strings.Repeat("n", 1000), hours: int64(1 + n)})
	}
	list = append(list, absent{sid: 1, client: "short", hours: 5000})
	store := newMemStore()
	store.boot, store.doubt = 2, 1
	if err := record.Each(appendAll(list...), store.apply); err != nil {
		t.Fatal(err)
	}
	w, err := tryWorld(t, 2, mustParse(t, "options sessions=5000"), store, startOfTime())
	if err != nil {
		t.Fatal(err)
	}
	kept := int(w.broker.Sessions()) - 1
	if got := leftOut(w); kept < 50 || got != fmt.Sprintf("sessions_left_out=%d retained_left_out=0", long-kept) {
		t.Errorf("%d Sessions with long names are kept, %s", kept, got)
	}
	saysOnce(t, w, "memory (")
	if n := w.broker.InUse(); n.Sessions != int64(kept)+1 || n.Registered != n.Sessions {
		t.Errorf("%+v", n)
	}
	names := []string{"short", list[0].client, list[kept-1].client, list[kept].client}
	if found := present(t, w, names...); !slices.Equal(found, names[:3]) {
		t.Errorf("%d are there; want the one with a short name, and the two that were there later than the last", len(found))
	}
	w.broker.Release()
}

// TestReceivedBeyondMemory: Packet Identifiers that memory does not hold go with the Session whose client is away longest.
func TestReceivedBeyondMemory(t *testing.T) {
	const sessions, limits = 700, "options sessions=700 subs=120000" // which leave little memory for messages
	for _, doubt := range []uint32{1, 0} {
		store := newMemStore()
		store.boot, store.doubt = 2, doubt
		for n := range uint64(sessions) {
			ops := appendAll(absent{sid: 1 + n, client: fmt.Sprint("c", n), hours: int64(1 + n)})
			for pid := 1; pid < 1<<16; pid += 4096 { // a map each
				ops = record.AppendSet(ops, record.ReceivedKey(nil, 1+n, uint16(pid)), nil)
			}
			if err := record.Each(ops, store.apply); err != nil {
				t.Fatal(err)
			}
		}
		w, err := tryWorld(t, 2, mustParse(t, limits), store, startOfTime())
		if doubt == 0 {
			if err == nil || !strings.Contains(err.Error(), "--memory") || len(store.queue) > 0 {
				t.Errorf("nothing was lost: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		kept := int(w.broker.Sessions())
		if got := leftOut(w); kept < 100 || kept == sessions || got != fmt.Sprintf("sessions_left_out=%d retained_left_out=0", sessions-kept) {
			t.Errorf("%d Sessions are kept, %s", kept, got)
		}
		saysOnce(t, w, "memory (")
		if found := present(t, w, "c0", fmt.Sprint("c", kept-1)); len(found) != 2 {
			t.Errorf("of the first %d %v are there", kept, found)
		}
		w.broker.Release()
	}
}

// forgetful is a store that loses records of Sessions when they are read for the second time.
type forgetful struct {
	*memStore
	lost  []uint64
	reads int
}

func (f *forgetful) Each(kind record.Kind, do func(key, value []byte) error) error {
	if kind == record.KindSession {
		if f.reads++; f.reads == 2 {
			f.doubt++
			for _, sid := range f.lost {
				delete(f.records, string(record.SessionKey(nil, sid)))
			}
		}
	}
	return f.memStore.Each(kind, do)
}

// TestLostBetweenReadings has the records of Sessions be lost between their two readings, of one that was to be there and of one that was to be left out: what
// else there is of them belongs to nobody, and goes.
func TestLostBetweenReadings(t *testing.T) {
	for _, shards := range []int{1, 2} {
		store := newMemStore()
		store.boot, store.doubt = 2, 1
		ops := appendAll(absent{sid: 1, client: "a", hours: 3}, absent{sid: 2, client: "b", hours: 2}, absent{sid: 3, client: "c", hours: 1})
		for sid := range uint64(3) {
			ops = (&absent{sid: sid + 1}).withSubscriptions(ops, "t/#", "u")
			ops = record.AppendSet(ops, record.ReceivedKey(nil, sid+1, 7), nil)
		}
		if err := record.Each(ops, store.apply); err != nil {
			t.Fatal(err)
		}
		w, err := tryWorld(t, shards, mustParse(t, "options maxconns=2 sessions=2"), &forgetful{memStore: store, lost: []uint64{1, 2}}, startOfTime())
		if err != nil {
			t.Fatal(err)
		}
		if n := w.broker.InUse(); n.Sessions != 1 || n.Registered != 1 || n.Subscriptions != 2 || w.broker.Sessions() != 1 {
			t.Errorf("%d shards: %+v", shards, n)
		}
		for sid := range uint64(3) {
			_, gone := store.records[string(record.EndedKey(nil, sid+1))]
			if want := sid < 2; gone != want {
				t.Errorf("%d shards: Session %d is removed: %v, want %v", shards, sid+1, gone, want)
			}
		}
		if found := strings.Join(present(t, w, "c", "b"), " "); found != "c" {
			t.Errorf("%d shards: %q are there", shards, found)
		}
		sayAll(t, w, "connect b v5", "disconnect b", "connect a v5")
		endClean(t, w)
	}
}

// TestRetainedComeLast: Retained Messages that fill the memory, of a store that has lost something, leave room for what Sessions that are not in doubt have.
func TestRetainedComeLast(t *testing.T) {
	const all = 3000
	store := newMemStore()
	store.boot, store.doubt = 2, 1
	ops := record.AppendSet(appendAll(absent{sid: 1, client: "p", doubt: 1}), record.ReceivedKey(nil, 1, 7), nil)
	for n := range all {
		topic := fmt.Sprint("r/", n)
		ops = record.AppendSet(ops, record.RetainedKey(nil, topic), record.AppendMessage(nil, &record.Message{Topic: []byte(topic)}, 4000, make([]byte, 4000)))
	}
	if err := record.Each(ops, store.apply); err != nil {
		t.Fatal(err)
	}
	w, err := tryWorld(t, 1, mustParse(t, "options subs=145000"), store, startOfTime())
	if err != nil {
		t.Fatal(err)
	}
	kept := w.broker.InUse().Retained
	if got := leftOut(w); kept < 100 || got != fmt.Sprint("sessions_left_out=0 retained_left_out=", all-kept) || store.of(record.KindRetained) != int(kept) {
		t.Errorf("%d Retained Messages are kept, %d on disk, %s", kept, store.of(record.KindRetained), got)
	}
	saysOnce(t, w, "Retained Messages", "memory (")
	sayAll(t, w, "connect p v5 clean=0 expiry=1000", "pubrel p 7")
	if heard := w.out.String(); !strings.Contains(heard, "Success present") || !strings.Contains(heard, "p < PUBCOMP 7\n") {
		t.Errorf("heard %q", heard)
	}
	w.broker.Release()
}

// TestAcceptedSessionsStay: Sessions in doubt that an earlier run has served with are more than the limit allows because somebody has lowered that.
func TestAcceptedSessionsStay(t *testing.T) {
	store := newMemStore()
	store.boot, store.doubt, store.accepted = 2, 1, 1
	for sid := range uint64(5) {
		if err := record.Each(appendAll(absent{sid: 1 + sid, client: fmt.Sprint("c", sid), hours: 1}), store.apply); err != nil {
			t.Fatal(err)
		}
	}
	_, err := tryWorld(t, 2, mustParse(t, "options maxconns=4 sessions=4"), store, startOfTime())
	if err == nil || !strings.Contains(err.Error(), "max_sessions (4)") || store.of(record.KindSession) != 5 {
		t.Errorf("%v; %d Sessions are left", err, store.of(record.KindSession))
	}
}
