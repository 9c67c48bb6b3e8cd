package broker_test

import (
	"bytes"
	"maps"
	"slices"
	"sync"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/record"
)

// memStore is a store in memory, whose commits happen when work is called: what was handed over and not committed is what a crash
// loses. It counts what it does, so that a crash can be put behind any commit.
type memStore struct {
	boot    uint32
	last    int64
	records map[string]string

	mu      sync.Mutex
	queue   []memRequest
	commits int
	stopAt  int // no commit beyond it, 0: no limit
	stuck   bool
	doubt   uint32
	// accepted is what doubt was when the last run began to serve, and served for this run, from its first commit on.
	accepted, served uint32
	damaged          record.Kind // whose records turn out to be lost when they are read,
	loses            bool        // and with them what lose takes
	written          int64
	// counts is how many loads were to count, and countMost how many entries each looks at, 0: as many as it is asked to.
	counts, countMost int
}

type memRequest struct {
	shard int
	ops   []byte
	load  *broker.Load
}

func newMemStore() *memStore { return &memStore{boot: 1, records: map[string]string{}} }

// crashed is the store as the next run finds it.
func (m *memStore) crashed(last int64) *memStore {
	return &memStore{boot: m.boot + 1, last: last, records: maps.Clone(m.records), doubt: m.doubt, accepted: m.served}
}

func (m *memStore) Boot() uint32      { return m.boot }
func (m *memStore) LastCommit() int64 { return m.last }
func (m *memStore) Doubt() uint32     { return m.doubt }
func (m *memStore) Accepted() uint32  { return m.accepted }

func (m *memStore) Each(kind record.Kind, f func(key, value []byte) error) error {
	if kind == m.damaged {
		if m.doubt++; m.loses {
			m.lose()
		}
		return nil
	}
	for _, k := range slices.Sorted(maps.Keys(m.records)) {
		if k[0] == byte(kind) {
			if err := f([]byte(k), []byte(m.records[k])); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *memStore) Commit(shard int, ops []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queue = append(m.queue, memRequest{shard: shard, ops: ops})
}

func (m *memStore) Load(l broker.Load) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queue = append(m.queue, memRequest{load: &l})
}

// work does the oldest request and says whether there was one that could be done.
func (m *memStore) work(b *broker.Broker) bool {
	m.mu.Lock()
	if len(m.queue) == 0 || m.stuck || m.stopAt > 0 && m.commits >= m.stopAt && m.queue[0].load == nil {
		m.mu.Unlock()
		return false
	}
	r := m.queue[0]
	m.queue = m.queue[1:]
	m.mu.Unlock()
	if r.load != nil {
		b.Loops()[r.load.Shard].Loaded(m.load(*r.load))
		return true
	}
	m.served = max(m.served, m.doubt)
	m.commits++
	m.written += int64(len(r.ops))
	if err := record.Each(r.ops, m.apply); err != nil {
		panic(err)
	}
	b.Loops()[r.shard].Committed(r.ops)
	return true
}

func (m *memStore) apply(op record.Op, key, value []byte) error {
	switch op {
	case record.Set:
		m.records[string(key)] = string(value)
	case record.Delete:
		delete(m.records, string(key))
	case record.DeleteRange:
		maps.DeleteFunc(m.records, func(k, _ string) bool {
			return bytes.Compare([]byte(k), key) >= 0 && bytes.Compare([]byte(k), value) < 0
		})
	}
	return nil
}

func (m *memStore) load(l broker.Load) broker.Loaded {
	r := broker.Loaded{Load: l, Done: true}
	from, to := string(record.EntryKey(nil, l.SID, l.From)), string(record.EntryKey(nil, l.SID, l.To))
	size, looked := 0, 0
	if l.Count {
		m.counts++
	}
	var keys []string
	for k := range m.records {
		if k >= from && k <= to {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		if l.Count {
			if looked == l.Entries || m.countMost > 0 && looked == m.countMost {
				r.Done = false
				break
			}
			looked++
			m.count(&r, k)
			continue
		}
		if len(r.Entries) >= l.Entries || size >= l.Bytes {
			r.Done = false
			break
		}
		e := broker.LoadedEntry{Pos: record.Number([]byte(k), 1), Value: []byte(m.records[k])}
		var entry record.Entry
		if err := entry.Decode(e.Value); err != nil {
			r.Damaged++
		} else if entry.Mid != 0 {
			e.Message = []byte(m.records[string(record.MessageKey(nil, entry.Mid))])
		}
		r.Entries, size = append(r.Entries, e), size+len(e.Value)+len(e.Message)
	}
	return r
}

// count is what a load that counts looks at.
func (m *memStore) count(r *broker.Loaded, k string) {
	value := []byte(m.records[k])
	r.Last = record.Number([]byte(k), 1)
	if !record.Waits(value) {
		return
	}
	var e record.Entry
	if err := e.Decode(value); err != nil {
		panic(err)
	}
	expires := e.Message.Expires
	if e.Mid != 0 {
		expires = record.MessageExpires([]byte(m.records[string(record.MessageKey(nil, e.Mid))]))
	}
	r.Expires = append(r.Expires, expires)
}

// of counts the records of a kind.
func (m *memStore) of(kind record.Kind) (n int) {
	for k := range m.records {
		if k[0] == byte(kind) {
			n++
		}
	}
	return n
}
