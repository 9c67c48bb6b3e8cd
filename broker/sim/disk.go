package sim

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/tidwall/btree"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/record"
)

// disk is a store in memory that loses with a crash what it has not committed: requests wait in order, and turns decide when each is
// done. It is told to stand still, as one that has to be opened again does, or to be full.
type disk struct {
	boot    uint32
	last    int64 // unix ms of the last commit, or of the last sign of life
	records *btree.Map[string, string]
	stuck   bool
	full    bool

	mu    sync.Mutex // guards queue: shards on goroutines of their own hand over
	queue []request
}

// request is a batch, or a load.
type request struct {
	shard int
	ops   []byte
	load  *broker.Load
}

// beatMS is how long a store lets time pass without noting it: what a Session's expiry may be out by after a crash.
const beatMS = 30_000

func newDisk() *disk { return &disk{boot: 1, records: &btree.Map[string, string]{}} }

// Boot is part of broker.Store.
func (d *disk) Boot() uint32 { return d.boot }

// LastCommit is part of broker.Store.
func (d *disk) LastCommit() int64 { return d.last }

// Doubt is part of broker.Store: what was committed is there.
func (d *disk) Doubt() uint32 { return 0 }

// Accepted is part of broker.Store.
func (d *disk) Accepted() uint32 { return 0 }

// Each is part of broker.Store.
func (d *disk) Each(kind record.Kind, f func(key, value []byte) error) (err error) {
	d.scan(func(k, v string) bool {
		err = f([]byte(k), []byte(v))
		return err == nil
	}, kind)
	return err
}

// scan gives the records of a kind, and of an owner, to f until f says no.
func (d *disk) scan(f func(k, v string) bool, kind record.Kind, owner ...uint64) {
	from, to := record.Bounds(kind, owner...)
	d.records.Ascend(string(from), func(k, v string) bool { return k < string(to) && f(k, v) })
}

// Commit is part of broker.Store.
func (d *disk) Commit(shard int, ops []byte) {
	d.mu.Lock()
	d.queue = append(d.queue, request{shard: shard, ops: ops})
	d.mu.Unlock()
}

// Load is part of broker.Store.
func (d *disk) Load(l broker.Load) {
	d.mu.Lock()
	d.queue = append(d.queue, request{load: &l})
	d.mu.Unlock()
}

func (d *disk) take() (r request, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) == 0 {
		return request{}, false
	}
	r = d.queue[0]
	d.queue = d.queue[1:]
	return r, true
}

func (d *disk) idle() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.queue) == 0
}

// work does up to so many requests, and answers them unless the broker is not to hear of it any more.
func (d *disk) work(b *broker.Broker, most int, now int64) error {
	for ; most > 0; most-- {
		r, ok := d.take()
		switch {
		case !ok:
			return nil
		case r.load != nil && b != nil:
			b.Loops()[r.load.Shard].Loaded(d.load(*r.load))
		case r.load == nil:
			if err := errors.Join(record.Each(r.ops, d.apply), checkShared(r.ops)); err != nil {
				return err
			}
			if d.last = now; b != nil {
				b.Loops()[r.shard].Committed(r.ops)
			}
		}
	}
	return nil
}

// checkShared says what is wrong with the messages of a batch that stand apart from their entries: each is there once, and at least one entry needs
// it, and each that does has its reference; nothing else would ever remove the message, or keep it as long.
func checkShared(ops []byte) error {
	kinds := []record.Kind{record.KindMessage, record.KindReference, record.KindEntry}
	counts := map[uint64][3]int{}
	err := record.Each(ops, func(op record.Op, key, value []byte) error {
		mid, i := record.Number(key, 0), slices.Index(kinds, record.Kind(key[0]))
		if i == 2 {
			var e record.Entry
			if err := e.Decode(value); op == record.Set && err != nil {
				return err
			}
			mid = e.Mid
		}
		if c := counts[mid]; op == record.Set && i >= 0 && mid != 0 {
			c[i]++
			counts[mid] = c
		}
		return nil
	})
	for mid, c := range counts {
		if c[0] != 1 || c[1] != c[2] || c[2] == 0 {
			return fmt.Errorf("store: message %d is written %d times, with %d references, for %d entries", mid, c[0], c[1], c[2])
		}
	}
	return err
}

func (d *disk) apply(op record.Op, key, value []byte) error {
	switch op {
	case record.Set:
		d.records.Set(string(key), string(value))
	case record.Delete:
		d.records.Delete(string(key))
	case record.DeleteRange:
		var gone []string
		d.records.Ascend(string(key), func(k, _ string) bool {
			if k >= string(value) {
				return false
			}
			gone = append(gone, k)
			return true
		})
		d.drop(gone)
	}
	return nil
}

func (d *disk) drop(keys []string) {
	for _, k := range keys {
		d.records.Delete(k)
	}
}

func (d *disk) load(l broker.Load) broker.Loaded {
	r := broker.Loaded{Load: l, Done: true}
	size, to := 0, string(record.EntryKey(nil, l.SID, l.To))
	d.records.Ascend(string(record.EntryKey(nil, l.SID, l.From)), func(k, v string) bool {
		if k > to || record.Kind(k[0]) != record.KindEntry {
			return false
		}
		if l.Count {
			r.Last = record.Number([]byte(k), 1)
			if record.Waits([]byte(v)) {
				r.Expires = append(r.Expires, d.expires([]byte(v)))
			}
			return true
		}
		if len(r.Entries) >= l.Entries || size >= l.Bytes {
			r.Done = false
			return false
		}
		e := broker.LoadedEntry{Pos: record.Number([]byte(k), 1), Value: []byte(v)}
		var entry record.Entry
		if entry.Decode(e.Value) != nil {
			r.Damaged++
		} else if entry.Mid != 0 {
			m, _ := d.records.Get(string(record.MessageKey(nil, entry.Mid)))
			e.Message = []byte(m)
		}
		r.Entries, size = append(r.Entries, e), size+len(v)+len(e.Message)
		return true
	})
	return r
}

// expires says when the message that an entry waits with expires.
func (d *disk) expires(value []byte) int64 {
	var e record.Entry
	if e.Decode(value) != nil || e.Mid == 0 {
		return e.Message.Expires
	}
	m, _ := d.records.Get(string(record.MessageKey(nil, e.Mid)))
	return record.MessageExpires([]byte(m))
}

// reap removes what belongs to Sessions that ended, and shared messages that nobody needs, as the reaper of broker/store does.
func (d *disk) reap() {
	var gone []string
	collect := func(k, _ string) bool { gone = append(gone, k); return true }
	d.scan(func(k, _ string) bool {
		sid := record.Number([]byte(k), 0)
		for _, kind := range [...]record.Kind{record.KindSubscription, record.KindReceived, record.KindSent, record.KindEnded} {
			d.scan(collect, kind, sid)
		}
		d.scan(func(k, v string) bool {
			var e record.Entry
			if e.Decode([]byte(v)) == nil && e.Mid != 0 {
				gone = append(gone, string(record.ReferenceKey(nil, e.Mid, sid, record.Number([]byte(k), 1))))
			}
			return collect(k, v)
		}, record.KindEntry, sid)
		return true
	}, record.KindEnded)
	d.drop(gone)
	gone = gone[:0]
	d.scan(func(k, _ string) bool {
		used := false
		d.scan(func(_, _ string) bool { used = true; return false }, record.KindReference, record.Number([]byte(k), 0))
		if !used {
			gone = append(gone, k)
		}
		return true
	}, record.KindMessage)
	d.drop(gone)
}

// left counts what is there by kind, for a store in which nothing should be.
func (d *disk) left() (errs []error) {
	counts := map[byte]int{}
	d.records.Scan(func(k, _ string) bool { counts[k[0]]++; return true })
	for kind := range 256 {
		if n := counts[byte(kind)]; n > 0 {
			errs = append(errs, fmt.Errorf("store: %d records of kind %c are left", n, kind))
		}
	}
	return errs
}

// crash loses what is not committed, and makes the disk one for the next run of the broker.
func (d *disk) crash() {
	d.queue = nil
	d.stuck, d.full = false, false
	d.boot++
	d.reap()
}
