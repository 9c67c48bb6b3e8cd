package broker

import (
	"math/rand/v2"
	"strconv"
	"sync/atomic"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/record"
	"github.com/ringmq/ringmq/broker/topic"
)

// shared is what all shards of a broker see. Each part says who may write it.
type shared struct {
	limits   Limits
	config   *Config
	host     Host
	conns    []conn    // the slot's shard
	refs     []connRef // the slot's shard
	timers   []timer   // the shard whose wheel holds the timer
	entries  []entry   // the Session's home
	messages []message // immutable but for the reference count
	arena    *arena
	sessions []atomic.Pointer[Session] // by slot; the Session's home writes, and a shard that it has left may read: see Loaded
	registry *registry
	retained *retainedStore
	index    *topic.Index[*subscription]
	groups   *groups
	peers    []*Shard

	store         Store           // nil: nothing outlives the process; so with what follows
	marks         []mark          // beside entries
	watermarks    []atomic.Uint64 // by shard: its last ticket that is durable; that shard
	renewed       []atomic.Uint32 // by shard: the last loss since which its Sessions were written anew, durably; that shard
	numbers       atomic.Uint64   // the last sid or mid given
	ends          atomic.Int64    // kept Sessions whose end is on its way to the store
	retainedLog   *retainedLog
	contributions contributions
	startWall     atomic.Int64 // unix milliseconds when the broker's clock stood at 0; any Loop, see follow
	refusing      atomic.Int32 // a Refusal; Broker.Refuse

	connSlots    *slots
	sessionSlots *slots
	messageSlots *slots
	entrySlots   *slots

	connected    atomic.Int64 // connections that count against MaxConnections
	sessionCount atomic.Int64
	subscribed   atomic.Int64
	cursorCount  atomic.Int64
	endings      atomic.Int64 // lists of subscriptions that count and have ended, see endLater
	longNames    atomic.Int64 // bytes by which names are longer than planned
}

// chargeName counts a name that is about to be kept; false when long names have used up what they may take.
func (w *shared) chargeName(n int) bool { return w.chargeUpTo(n, w.limits.longTopics()) }

// chargeClientID is chargeName for a Client Identifier.
func (w *shared) chargeClientID(n int) bool { return w.chargeUpTo(n, w.limits.longNames()) }

func (w *shared) chargeUpTo(n int, most int64) bool {
	over := int64(n - plannedName)
	if over <= 0 {
		return true
	}
	if w.longNames.Add(over) > most {
		w.longNames.Add(-over)
		return false
	}
	return true
}

// dischargeName undoes chargeName.
func (w *shared) dischargeName(n int) {
	if over := int64(n - plannedName); over > 0 {
		w.longNames.Add(-over)
	}
}

// Shard is the MQTT engine for some of the connections: a state machine that is given bytes, ticks and messages from
// other shards, and gives slices to send. It never blocks, starts no goroutine, and reads neither clock nor socket. One
// goroutine at a time may call it; nothing in it is locked.
type Shard struct {
	*shared
	id       int
	host     Host
	strategy Strategy
	now      int64 // milliseconds since the broker started; 1 at least, which is when what expired before that has expired: see clockOf
	second   int64
	random   uint64
	draining bool
	// identifiers is where made-up Client Identifiers come from: from some that it was given nobody can tell the next.
	identifiers *rand.ChaCha8

	pool         *pool
	ms           messages
	connSlots    slotCache
	sessionSlots slotCache
	entrySlots   slotCache
	wheel        wheel
	tickedAt     int64 // when Tick last worked
	cache        topicCache
	rate         tokenBucket

	in       []*ring // by the shard that writes; nil for this one
	out      []outbox
	roomMade atomic.Bool // another shard has made room in a ring we found full

	dirty        []uint32
	flushing     []uint32
	due          []uint32
	owned        []uint32 // the connections of this shard
	stalledConns []uint64 // tokens
	retrying     []uint32
	work         int      // what the input at hand has caused; see Limits.InputWork
	yielded      []uint64 // tokens of connections whose input is not all handled
	roomAgain    bool
	retryAt      int64
	hungry       []*Session // Sessions whose sending stopped for want of memory
	pumping      []*Session // Sessions with cursors that can go on
	pumpNext     int
	sweep        int // the part of the retained store that is swept, and how far
	sweepFrom    string
	expired      []sweptMessage
	retainedSeen uint64
	orphans      []orphan
	arriving     atomic.Int32            // Sessions on their way here; counted up by the old home before it changes home
	departures   map[*Session]*departure // of Sessions that may still be forwarded for
	departed     uint64                  // from the epoch of the last one on nothing is
	forwarded    map[forwardKey]struct{} // scratch of forward
	ending       []*subscription         // lists of what has ended and is in the index still
	lingering    lingerers
	claimants    map[*Session]claimant
	takes        map[*Session][]takeRequest
	isLate       bool      // the plane is a Laggard
	partings     []parting // Sessions to give away when their connections have been read once more
	viaGroup     uint32
	stream       *stream // to the store; nil without one

	// Scratch, reused for every packet.
	pub, replay, own publication
	inPublish        packet.Publish
	inConnect        packet.Connect
	inAck            packet.Ack
	inSubscribe      packet.Subscribe
	inUnsubscribe    packet.Unsubscribe
	inDisconnect     packet.Disconnect
	inAuth           packet.Auth
	outConnack       packet.Connack
	outDisconnect    packet.Disconnect
	head             packet.PublishHead
	oneID            [1]uint32
	ids              []uint32
	codes            []packet.Reason
	small            []byte
	props            []byte
	large            []byte
	leftOver         []byte // what a connection that ends has not consumed
	longName         []byte
	keyBytes         []byte       // a record's key
	value            []byte       // a record's value
	parts            [][]byte     // of a payload
	outEntry         record.Entry // being written

	sys       sysState // shard 0's
	counters  Counters
	published [counterCount]atomic.Uint64 // counters as of the last second, for other goroutines
	taken     taken                       // the same for what is in use
}

// newShard makes shard number id of the world.
func newShard(w *shared, id int, seed uint64) (*Shard, error) {
	s := &Shard{shared: w, id: id, host: w.host, strategy: w.config.SharedStrategy, random: seed, now: 1}
	s.pool = newPool(w.arena, id)
	scratch, err := reserve[byte](w.limits.MaxPacketSize + pageSize)
	if err != nil {
		return nil, err
	}
	s.ms = messages{all: w.messages, slots: slotCache{s: w.messageSlots}, pool: s.pool, scratch: scratch[:0:len(scratch)]}
	s.connSlots, s.sessionSlots = slotCache{s: w.connSlots}, slotCache{s: w.sessionSlots}
	s.entrySlots = slotCache{s: w.entrySlots}
	s.wheel = wheel{timers: w.timers}
	s.cache = topicCache{index: w.index, sets: make([][cacheWays]cached, w.limits.cacheSets()), marks: make(map[*Session]int)}
	s.cache.most = w.limits.cacheSets() * cacheWays * int(cacheEntryBytes-sizeOf[cached]())
	s.claimants, s.takes = make(map[*Session]claimant), make(map[*Session][]takeRequest)
	s.departures, s.forwarded = make(map[*Session]*departure), make(map[forwardKey]struct{})
	s.small = make([]byte, 0, 4096)
	s.keyBytes = make([]byte, 0, 256) // Keys of messages are short; those with a Topic Filter may be longer.
	if w.store != nil {
		s.stream = newStream(w.limits.Shards)
		s.stream.renewal = renewal{doubt: w.store.Doubt(), part: registryParts + retainedParts} // and from here on it may lose what was read
		s.renewed[id].Store(s.stream.renewal.doubt)
	}
	s.in, s.out = make([]*ring, w.limits.Shards), make([]outbox, w.limits.Shards)
	return s, nil
}

// connectRings joins every pair of shards by a ring each way.
func (w *shared) connectRings() {
	for _, from := range w.peers {
		for _, to := range w.peers {
			r := &ring{}
			if from != to {
				r.slots = make([]shardMessage, ringSlots)
				to.in[from.id] = r
			}
			from.out[to.id].ring = r
		}
	}
}

// BeginTurn starts a turn of the Loop at now, milliseconds since the broker started.
func (s *Shard) BeginTurn(now int64) { s.now = max(s.now, now) }

// wantMemory notes a Session that could not send for want of memory: it is tried again soon.
func (s *Shard) wantMemory(sess *Session) {
	if !sess.hungry {
		sess.hungry = true
		s.hungry = append(s.hungry, sess)
	}
}

// feedHungry tries the Sessions that lacked memory again.
func (s *Shard) feedHungry() {
	if len(s.hungry) == 0 {
		return
	}
	list := s.hungry
	s.hungry = nil
	for _, sess := range list {
		if s.present(sess) && !sess.ended.Load() {
			sess.hungry = false
			s.pump(sess)
		}
	}
}

// Drained says that connection id's outbound buffer has room again: its Session goes on.
func (s *Shard) Drained(id uint32) {
	if sess := s.refs[id].session; sess != nil && (sess.behind() || sess.dropped > 0) {
		s.pump(sess)
		s.settle()
	}
}

// housekeep does what need not be exact: some of it with each tick, most of it once a second.
func (s *Shard) housekeep() {
	s.feedHungry()
	if s.stream != nil {
		s.settleAwaiting()
	}
	if s.retained.count.Load() > 0 && s.id == 0 {
		s.sweepRetained()
	}
	if s.now/1000 == s.second {
		return
	}
	s.second = s.now / 1000
	s.pool.collect()
	s.pool.restock()
	if n := s.counters[CounterNoMemory] - s.published[CounterNoMemory].Load(); n > 0 {
		s.event(LogEvent{Kind: EventExhausted, Text: strconv.FormatUint(n, 10)})
	}
	for i := range s.counters {
		s.published[i].Store(s.counters[i])
	}
	s.publishTaken()
	s.updateSys()
}

// Deadline is when Tick must be called next, in milliseconds since the broker started: once a second at least.
func (s *Shard) Deadline() int64 {
	at := (s.second + 1) * 1000
	if tick, ok := s.wheel.next(); ok {
		at = min(at, max(int64(tick)*tickMS, s.tickedAt+1))
	}
	if len(s.hungry)+len(s.orphans) > 0 || s.lingering.any() || s.stream.waits() {
		at = min(at, s.now+tickMS)
	}
	if len(s.stalledConns) > 0 {
		at = min(at, s.retryAt)
	}
	return s.partDeadline(at)
}

// Dirty takes the list of connections to flush, valid until the next call of Dirty.
func (s *Shard) Dirty() []uint32 {
	s.dirty, s.flushing = s.flushing[:0], s.dirty
	return s.flushing
}

// tokenBucket limits a rate.
type tokenBucket struct {
	tokens float64
	last   int64
	used   bool
}

// take takes one token of perSecond/shards; a rate of 0 is no limit. The bucket holds a second's worth.
func (b *tokenBucket) take(now int64, perSecond, shards int) bool {
	if perSecond == 0 {
		return true
	}
	rate := float64(perSecond) / float64(shards)
	if !b.used {
		b.used, b.tokens = true, max(rate, 1)
	}
	b.tokens = min(max(rate, 1), b.tokens+rate*float64(now-b.last)/1000)
	if b.last = now; b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
