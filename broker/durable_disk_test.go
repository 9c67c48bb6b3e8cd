package broker_test

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/record"
	"github.com/ringmq/ringmq/broker/store"
)

// diskStore is broker/store for a world: its answers wait until work is called.
type diskStore struct {
	*store.Store
	tb      testing.TB
	start   sync.Once
	asked   int
	answers chan func(*broker.Broker)
}

// onDisk opens a store in a file system in memory.
func onDisk(tb testing.TB, fsys vfs.FS) *diskStore {
	tb.Helper()
	if err := fsys.MkdirAll("data", 0o700); err != nil {
		tb.Fatal(err)
	}
	s, err := store.Open(store.Config{Dir: "data", FS: fsys, MemTableBytes: 8 << 20, CacheBytes: 1 << 20})
	if err != nil {
		tb.Fatal(err)
	}
	return &diskStore{Store: s, tb: tb, answers: make(chan func(*broker.Broker), 1<<10)}
}

func (d *diskStore) Commit(shard int, ops []byte) {
	d.asked++
	d.Store.Commit(shard, ops)
}

func (d *diskStore) Load(l broker.Load) {
	d.asked++
	d.Store.Load(l)
}

func (d *diskStore) work(b *broker.Broker) bool {
	d.start.Do(func() { d.Store.Start(diskAnswers(d.answers)) })
	if d.asked == 0 {
		return false
	}
	d.asked--
	select {
	case answer := <-d.answers:
		answer(b)
	case <-time.After(20 * time.Second):
		d.tb.Fatal("the store does not answer")
	}
	return true
}

// put commits records without a broker.
func (d *diskStore) put(ops []byte) {
	d.Commit(0, ops)
	d.start.Do(func() { d.Store.Start(diskAnswers(d.answers)) })
	<-d.answers
	d.asked--
}

func (d *diskStore) close() {
	d.tb.Helper()
	if err := d.Close(); err != nil {
		d.tb.Error(err)
	}
}

// content are all records but those that each run writes.
func (d *diskStore) content() map[string]string {
	out := map[string]string{}
	for _, kind := range []record.Kind{record.KindEnded, record.KindSubscription, record.KindReceived, record.KindMessage, record.KindEntry, record.KindRetained,
		record.KindSent, record.KindSession, record.KindReference} {
		if err := d.Each(kind, func(key, value []byte) error {
			out[string(key)] = string(value)
			return nil
		}); err != nil {
			d.tb.Fatal(err)
		}
	}
	return out
}

type diskAnswers chan func(*broker.Broker)

func (a diskAnswers) Committed(shard int, ops []byte) {
	a <- func(b *broker.Broker) { b.Loops()[shard].Committed(ops) }
}

func (a diskAnswers) Loaded(l broker.Loaded) {
	a <- func(b *broker.Broker) { b.Loops()[l.Shard].Loaded(l) }
}

func (diskAnswers) Refuse(broker.Refusal, string) {}
func (diskAnswers) Connected() int64              { return 0 }

// lostEnd makes a store of records, of which some were deleted later, and others written after that. The table that says that they were deleted
// is damaged: what opens the store brings them back.
func lostEnd(t *testing.T, records, deleted, later []byte) vfs.FS {
	t.Helper()
	fsys := vfs.NewMem()
	for _, ops := range [][]byte{records, deleted, later} { // each run finds a log, and makes a table of it
		s := onDisk(t, fsys)
		s.put(ops)
		s.close()
	}
	names, err := fsys.List("data/db")
	if err != nil {
		t.Fatal(err)
	}
	tables := slices.DeleteFunc(slices.Sorted(slices.Values(names)), func(name string) bool { return !strings.HasSuffix(name, ".sst") })
	if len(tables) != 2 {
		t.Fatalf("tables %v: the scene is another one", tables)
	}
	f, err := fsys.Create("data/db/"+tables[1], vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.Write([]byte("damage"))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return fsys
}

// sound makes a store of records of which none was lost.
func sound(t *testing.T, records []byte) vfs.FS {
	t.Helper()
	fsys := vfs.NewMem()
	s := onDisk(t, fsys)
	s.put(records)
	s.close()
	return fsys
}

// deletion deletes what a batch has set: as ranges where Pebble would find so many single ones worth a compaction, which the scene is not about.
func deletion(t *testing.T, ops []byte) (out []byte) {
	t.Helper()
	var keys []string
	if err := record.Each(ops, func(_ record.Op, key, _ []byte) error {
		keys = append(keys, string(key))
		out = record.AppendDelete(out, key)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(keys) < 50 {
		return out
	}
	return record.AppendDeleteRange(nil, []byte(slices.Min(keys)), append([]byte(slices.Max(keys)), 0))
}

// refusesToStart says that a broker does not start on a store, by which limit, and that it has changed nothing.
func refusesToStart(t *testing.T, fsys vfs.FS, options, limit string) {
	t.Helper()
	s := onDisk(t, fsys)
	before := s.content()
	w, err := tryWorld(t, 2, mustParse(t, options), s, startOfTime())
	if err == nil {
		w.broker.Release()
		t.Errorf("%s: the broker starts", options)
	} else if !strings.Contains(err.Error(), limit) {
		t.Errorf("%s: %v", options, err)
	}
	if after := s.content(); s.asked > 0 || !maps.Equal(before, after) {
		t.Errorf("%s: the store has changed", options)
	}
	s.close()
}
