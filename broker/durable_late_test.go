package broker

import (
	"maps"
	"slices"

	"github.com/ringmq/ringmq/broker/record"
)

// lateStore is a store that commits, and answers, when it is told to.
type lateStore struct {
	batches []lateBatch
	loads   []Load
	records map[string]string
	handed  int // batches so far
	doubt   uint32
}

// lateBatch is what a shard has handed over.
type lateBatch struct {
	shard int
	ops   []byte
}

func (*lateStore) Boot() uint32                                          { return 1 }
func (*lateStore) LastCommit() int64                                     { return 0 }
func (*lateStore) Accepted() uint32                                      { return 0 }
func (l *lateStore) Doubt() uint32                                       { return l.doubt }
func (*lateStore) Each(record.Kind, func(key, value []byte) error) error { return nil }
func (l *lateStore) Load(r Load)                                         { l.loads = append(l.loads, r) }
func (l *lateStore) Commit(shard int, ops []byte) {
	l.batches = append(l.batches, lateBatch{shard, ops})
	l.handed++
}

// lose loses all records but those of queues, as a salvage may.
func (l *lateStore) lose() {
	maps.DeleteFunc(l.records, func(k, _ string) bool {
		return k[0] == byte(record.KindSession) || k[0] == byte(record.KindSubscription)
	})
	l.doubt++
}

// commit makes the oldest batch durable, whosever it is.
func (l *lateStore) commit(s *Shard) {
	if len(l.batches) == 0 {
		return
	}
	b := l.batches[0]
	l.batches = l.batches[1:]
	if err := record.Each(b.ops, l.apply); err != nil {
		panic(err)
	}
	s.peers[b.shard].Committed(b.ops)
}

func (l *lateStore) apply(op record.Op, key, value []byte) error {
	if l.records == nil {
		l.records = map[string]string{}
	}
	switch op {
	case record.Set:
		l.records[string(key)] = string(value)
	case record.Delete:
		delete(l.records, string(key))
	case record.DeleteRange:
		maps.DeleteFunc(l.records, func(k, _ string) bool { return k >= string(key) && k < string(value) })
	}
	return nil
}

// all makes everything of a shard durable, and what follows from it.
func (l *lateStore) all(s *Shard) {
	for range 5 {
		s.Persist()
		l.commit(s)
	}
}

// answer answers the oldest question, if there is one. All that was handed over before it has been committed.
func (l *lateStore) answer(s *Shard) {
	if len(l.loads) == 0 {
		return
	}
	r := Loaded{Load: l.loads[0], Done: true}
	l.loads = l.loads[1:]
	size := 0
	from, to := string(record.EntryKey(nil, r.SID, r.From)), string(record.EntryKey(nil, r.SID, r.To))
	for _, k := range slices.Sorted(maps.Keys(l.records)) {
		switch {
		case k < from || k > to:
		case len(r.Entries) == r.Load.Entries || size >= r.Bytes:
			r.Done = false
		default:
			size += len(l.records[k])
			var e record.Entry
			_ = e.Decode([]byte(l.records[k]))
			r.Entries = append(r.Entries, LoadedEntry{Pos: record.Number([]byte(k), 1), Value: []byte(l.records[k]),
				Message: []byte(l.records[string(record.MessageKey(nil, e.Mid))])})
		}
	}
	s.peers[r.Shard].Loaded(r)
}

// of counts the records of a kind.
func (l *lateStore) of(kind record.Kind) (n int) {
	for k := range l.records {
		if k[0] == byte(kind) {
			n++
		}
	}
	return n
}
