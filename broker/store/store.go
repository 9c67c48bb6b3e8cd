package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/record"
)

// Durability is what a commit waits for.
type Durability uint8

// The levels, by what an acknowledged message survives.
const (
	Fsync Durability = iota // loss of power: the log is synced
	OS                      // the end of the process: the log is written
	None                    // a stop in order: the log is left out
)

var durabilityNames = [...]string{"fsync", "os", "none"}

// String is the level's word in the configuration.
func (d Durability) String() string { return durabilityNames[d] }

// ParseDurability reads a level's name; empty means fsync.
func ParseDurability(name string) (Durability, error) {
	for i, n := range durabilityNames {
		if n == name {
			return Durability(i), nil
		}
	}
	if name == "" {
		return Fsync, nil
	}
	return 0, fmt.Errorf("store.durability: %q is none of %v", name, durabilityNames)
}

// OpenFilesMax is how many tables are kept open; logs and others come beside.
const OpenFilesMax = 256

// The parameters of Pebble and of the writer, with reasons.
const (
	memTables     = 4                      // memtables before writes stop: a flush that takes long does not stop commits at once
	memTableBytes = 16 << 20               // default size of each
	cacheBytes    = 32 << 20               // default block cache: queues are read once, in order
	l0Sublevels   = 16                     // flushed memtables before they are merged: what is delivered soon is never merged at all
	flushDelay    = 10 * time.Second       // space of a deleted range comes back after it
	reopenEvery   = 250 * time.Millisecond // how often a failed store is opened anew,
	reopenSeldom  = 5 * time.Second        // and how seldom, when it fails again and again
	spaceEvery    = 100 * time.Millisecond // how often free space is asked for
	beatEvery     = 30 * time.Second       // how often the time is noted where nothing else is: what a crash may cut off a Session's expiry
	reserveBytes  = 64 << 20               // free space that is left alone; see spaceMarks
	ballastBytes  = 8 << 20                // given up when the disk is full
	readers       = 2                      // loads at a time
)

// Config says where and how to keep a store.
type Config struct {
	Dir           string
	Durability    Durability
	MemTableBytes int64        // default 16 MiB; four of them are held
	CacheBytes    int64        // default 32 MiB
	ReserveBytes  int64        // free space that is left alone: below twice as much messages are refused, below half of it nothing is written; default 64 MiB
	FS            vfs.FS       // default the machine's
	Warn          func(string) // for the log; may be nil
	Idle          func()       // called once a second while the store has nothing to do; may be nil

	mustExist bool // do not make a store where there is none
	readOnly  bool // change nothing
	beatEvery time.Duration
	// unreadEvery is the first pause when the disk cannot read; each one after it is twice as long.
	unreadEvery time.Duration
}

// MemoryBytes is what a store with this configuration takes in all, and outside the Go heap.
func (c Config) MemoryBytes() (all, outside int64) {
	c.setDefaults()
	tables := memTables*c.MemTableBytes + c.CacheBytes
	if !inGoHeap {
		outside = tables
	}
	return tables + 8<<20, outside
}

func (c *Config) setDefaults() {
	if c.MemTableBytes == 0 {
		c.MemTableBytes = memTableBytes
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = cacheBytes
	}
	if c.ReserveBytes == 0 {
		c.ReserveBytes = reserveBytes
	}
	if c.beatEvery == 0 {
		c.beatEvery = beatEvery
	}
	if c.unreadEvery == 0 {
		c.unreadEvery = reopenEvery
	}
	if c.FS == nil {
		c.FS = diskFS()
	}
}

// Answers is who gets what the store has done, on the store's goroutines; no method may block.
type Answers interface {
	// Committed says that a batch of a shard is durable; ops is the shard's again.
	Committed(shard int, ops []byte)
	// Loaded answers a Load.
	Loaded(broker.Loaded)
	// Refuse says what must be refused for now, and why.
	Refuse(level broker.Refusal, why string)
	// Connected is how many clients are connected.
	Connected() int64
}

// Store is an open store.
type Store struct {
	config Config
	cache  *pebble.Cache
	lock   interface{ Close() error }
	boot   uint32
	fresh  bool // there is no store in the directory yet
	// badFormat is that FORMAT is damaged, and the database is there.
	badFormat bool
	last      int64         // T of the last run
	doubt     atomic.Uint32 // how often the store was damaged
	accepted  atomic.Uint32 // what that was when a broker last began to serve
	lacks     atomic.Uint64 // commits that logs did not have when they were opened, of which nobody was told yet

	commits  uint64 // of all runs; the writer's, once it runs
	progress progress

	mu       sync.Mutex // guards what follows
	in       *instance
	queue    []request
	closing  bool
	loading  map[*broker.Load]bool // not answered yet
	wake     chan struct{}
	answers  Answers
	work     sync.WaitGroup
	loads    chan *broker.Load
	stop     chan struct{}
	reaper   reaper
	reclaim  reclaim
	expiry   expiry
	refusal  refusal
	damage   atomic.Pointer[error] // why the open instance cannot be read; reopening salvages then
	unread   unread
	salvaged salvaged
	space    space
	lighter  atomic.Bool // the ballast was given up
	counts   counts
	warned   warned
	noted    time.Time // the writer's: when it last committed, and the time with it
	done     uint64    // the writer's: commits up to there that were made

	unreferenced []uint64 // the writer's: messages that lost a reference in the batch that is being committed
	expires      int64    // the writer's: when the first message in that batch expires

	waits, commitTimes, syncTimes stopwatch // see Stats
}

// counts is what Stats reports; written by the writer.
type counts struct {
	commits, batches, bytes, changes, failures, damaged atomic.Int64
	// Since the store was opened: commits that were made and are gone, messages of QoS 2 that are not delivered for that reason.
	lostCommits, doubted atomic.Int64
	expired              atomic.Int64 // messages that were removed because they had expired
	// What salvage has found.
	salvages, salvaged, lostRecords, lostFiles, leftRecords atomic.Int64
}

// request is a batch, a load, what has expired or what a Session has left, in the order in which they were asked for.
type request struct {
	shard   int
	ops     []byte
	at      time.Time // when it was handed over
	load    *broker.Load
	expired [][]byte // queue entries to be removed
	swept   uint64   // a Session of which the sweep has found no record
}

// Open opens or makes the store in config.Dir, which must exist. What it returns does nothing until Start.
func Open(config Config) (*Store, error) {
	config.setDefaults()
	if config.Warn == nil {
		config.Warn = func(string) {}
	}
	if config.Idle == nil {
		config.Idle = func() {}
	}
	keepLittle()
	s := &Store{config: config, wake: make(chan struct{}, 1), stop: make(chan struct{}), loading: make(map[*broker.Load]bool)}
	if err := s.openDir(); err != nil {
		return nil, err
	}
	s.cache = pebble.NewCache(config.CacheBytes)
	if err := s.openFirst(); err != nil {
		if s.in != nil {
			s.in.discard()
		}
		s.cache.Unref()
		return nil, errors.Join(err, s.lock.Close())
	}
	return s, nil
}

func (s *Store) databaseDir() string { return filepath.Join(s.config.Dir, "db") }

// setTime has a batch record when it was committed, in unix milliseconds, how many commits there were before, how often the store was damaged, and how often it
// was when a broker last began to serve.
func setTime(b *pebble.Batch, l lastCommit) error {
	value := binary.BigEndian.AppendUint64(nil, uint64(l.at))
	value = record.AppendNumber(value, l.commits)
	value = binary.BigEndian.AppendUint32(value, l.doubt)
	return b.Set([]byte{byte(record.KindTime)}, binary.BigEndian.AppendUint32(value, l.accepted), nil)
}

func (s *Store) syncOption() *pebble.WriteOptions {
	if s.config.Durability == None {
		return pebble.NoSync
	}
	return pebble.Sync
}

// get is a copy of a value; nil when there is none. That it cannot be read is something else.
func get(db *pebble.DB, key []byte) ([]byte, error) {
	v, closer, err := db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return append([]byte{}, v...), closer.Close()
}

// Boot is part of broker.Store.
func (s *Store) Boot() uint32 { return s.boot }

// LastCommit is part of broker.Store.
func (s *Store) LastCommit() int64 { return s.last }

func each(db pebble.Reader, from, to []byte, f func(key, value []byte) error) error {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return err
	}
	if err := eachOf(it, f); err != nil {
		return errors.Join(err, it.Close())
	}
	return it.Close() // which says what has gone wrong before, too
}

// eachOf is each within the bounds of an iterator, until that says that something has gone wrong.
func eachOf(it *pebble.Iterator, f func(key, value []byte) error) error {
	for ok := it.First(); ok; ok = it.Next() {
		if err := f(it.Key(), it.Value()); err != nil {
			return err
		}
	}
	return nil
}

// Start starts the goroutines; answers come from now on.
func (s *Store) Start(a Answers) {
	s.answers, s.loads = a, make(chan *broker.Load)
	s.accepted.Store(s.doubt.Load()) // on disk with the next commit
	s.work.Go(s.write)
	for range readers {
		s.work.Go(s.read)
	}
	s.work.Go(s.reap)
}

// Commit is part of broker.Store.
func (s *Store) Commit(shard int, ops []byte) { s.put(request{shard: shard, ops: ops, at: time.Now()}) }

// Load is part of broker.Store.
func (s *Store) Load(l broker.Load) { s.put(request{load: &l}) }

func (s *Store) put(r request) {
	s.mu.Lock()
	s.queue = append(s.queue, r)
	s.mu.Unlock()
	s.signal()
}

func (s *Store) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close commits what was handed over, as far as the disk takes it, and closes the store.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.signal()
	close(s.stop)
	s.work.Wait()
	return s.shut()
}

// shut closes what is open; a store that has failed is left as it is.
func (s *Store) shut() error {
	var err error
	switch {
	case s.in == nil: // and Each has said why
	case s.in.hasFailed():
		err = s.in.err
		s.in.discard()
	default:
		err = s.in.close(func(db *pebble.DB) error {
			if s.config.Durability == None && !s.config.mustExist {
				return db.Flush()
			}
			return nil
		})
	}
	s.cache.Unref()
	return errors.Join(err, s.progress.close(), s.lock.Close())
}
