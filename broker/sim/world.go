package sim

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/memnet"
)

// Options are how a Script is played.
type Options struct {
	// Threaded runs the loops on goroutines of their own, as broker.Run does: for the race detector. The turns of the
	// Script then only let them run, and nothing is reproducible.
	Threaded bool
}

// Violation is a rule of the model that did not hold.
type Violation struct {
	Rule string
	Text string
	Step int // the Op's place in the Script; beyond its end: while it came to rest
}

// Error is the rule, what was seen, and when.
func (v *Violation) Error() string { return fmt.Sprintf("%s: %s (step %d)", v.Rule, v.Text, v.Step) }

// Result is what became of a Script.
type Result struct {
	Violation *Violation
	Trace     [sha256.Size]byte // of every byte that every client read, and when
	Counters  broker.Counters
	Stats     Stats
}

// Stats say how much there was to check.
type Stats struct {
	Published, Acknowledged, Delivered   int // messages
	Promised, SharedPromised             int // deliveries that had to come by the end
	WillsDue, WillsNever                 int
	Connections, SessionsKept, Refused   int
	ExpectedCloses, Reconnections, Bytes int
	Crashes, RefusedByStore, Stops       int
	Intruders, Exchanges, Renewals       int
	Rated                                int // by max_connect_rate
}

// Add adds up the numbers of several runs.
func (s *Stats) Add(o Stats) {
	s.Published, s.Acknowledged, s.Delivered = s.Published+o.Published, s.Acknowledged+o.Acknowledged, s.Delivered+o.Delivered
	s.Promised, s.SharedPromised = s.Promised+o.Promised, s.SharedPromised+o.SharedPromised
	s.WillsDue, s.WillsNever = s.WillsDue+o.WillsDue, s.WillsNever+o.WillsNever
	s.Connections, s.SessionsKept, s.Refused = s.Connections+o.Connections, s.SessionsKept+o.SessionsKept, s.Refused+o.Refused
	s.ExpectedCloses, s.Reconnections, s.Bytes = s.ExpectedCloses+o.ExpectedCloses, s.Reconnections+o.Reconnections, s.Bytes+o.Bytes
	s.Crashes, s.RefusedByStore, s.Stops = s.Crashes+o.Crashes, s.RefusedByStore+o.RefusedByStore, s.Stops+o.Stops
	s.Intruders, s.Exchanges, s.Renewals = s.Intruders+o.Intruders, s.Exchanges+o.Exchanges, s.Renewals+o.Renewals
	s.Rated += o.Rated
}

// world is a broker, its network and clock, and its clients.
type world struct {
	options  Options
	limits   broker.Limits
	network  *memnet.Network
	broker   *broker.Broker
	now      atomic.Int64 // milliseconds; loops of their own read it
	source   *rand.PCG
	chance   *rand.Rand
	calm     bool
	resting  bool  // the Script is done
	turns    []int // of each shard
	stalled  []int // turns that each shard will not get, unless they are calm
	step     int
	looked   int // turns of the shard that had most, at that jump
	jumped   int // step of the last jump of the clock that timeouts notice
	clients  []*client
	ghosts   []*link
	messages []*message
	streams  map[string][]*message // retained messages by topic
	groups   map[string][]*member
	watched  []*link // whose end the broker may not know yet
	scratch  []byte

	disk                *disk // nil: what the broker knows ends with it
	crashes             []int // steps
	fullAt              int   // last step at which it was full
	windowOut, windowIn int
	lag                 time.Duration // of the planes, if they are late
	auth                int           // who may connect
	questions           int           // that the authenticator lets wait
	authenticator       *authenticator
	intruders           []*intruder
	strategy            broker.Strategy

	trace      hash.Hash
	stats      Stats
	violation  *Violation
	meets      meets // limits that may be met
	rates      rates
	past       broker.Counters // of earlier runs
	starvation starvation
	asked      []holding // where there is a limit to them
	stopping   bool      // the broker was told to
	crowdedAt  int       // step at which there were last too many connections
	quickLost  int       // messages of QoS 0 that did not come
	emptied    int       // step of the last stop that left nothing, 0: none
	unproved   int       // connections that the authenticator refused, and that heard so
}

// Who may connect.
const (
	everybodyIn  = iota
	strangersIn  // who says nothing of himself, and who can prove what he says
	strangersOut // the latter only
)

// Play plays a Script and checks it.
func Play(s Script, o Options) Result {
	w := newWorld(&s[0], o)
	defer func() { w.broker.Release() }()
	stop := w.start()
	for i := range s[1:] {
		w.step = i + 1
		w.do(&s[i+1])
		if w.violation != nil {
			break
		}
	}
	w.rest()
	if err := stop(); err != nil {
		w.violate("run", "%v", err)
	}
	w.leftovers()
	r := Result{Violation: w.violation, Counters: w.broker.Counters(), Stats: w.stats}
	fmt.Fprint(w.trace, r.Violation, r.Counters)
	w.trace.Sum(r.Trace[:0])
	return r
}

func newWorld(o *Op, options Options) *world {
	w := &world{options: options, trace: sha256.New(), source: rand.NewPCG(0, 0), streams: map[string][]*message{}, groups: map[string][]*member{},
		scratch: make([]byte, 4096)}
	w.chance = rand.New(w.source)
	shards := min(max(o.get("shards", 1), 1), 8)
	w.turns, w.stalled = make([]int, shards), make([]int, shards)
	w.windowOut, w.windowIn = o.get("window", 1<<16), o.get("rwindow", 1<<16)
	w.lag = time.Duration(o.get("lag", 0)) * time.Millisecond
	w.strategy = broker.Strategy(o.get("strategy", 0) % 6)
	w.auth, w.questions = o.get("auth", everybodyIn)%(strangersOut+1), o.get("questions", 1<<20)
	if o.is("store") {
		w.disk = newDisk()
	}
	w.limits = limitsOf(o, shards)
	w.meets = meets{queue: o.get("queue", 1<<20) < 1<<20 || o.is("qbytes"), subs: o.is("subs"), retained: o.is("retained"), conns: o.is("conns"), memory: o.is("memory"), rate: o.is("rate")}
	w.rates.perSecond = o.get("rate", 0)
	l, err := w.limits.Resolve()
	if err != nil {
		panic(fmt.Sprintf("the script's first line: %v", err))
	}
	w.limits = l
	if err := w.boot(); err != nil {
		panic(err)
	}
	return w
}

// limitsOf are the limits of a Script, in the least memory that they need, and room for messages in MiB.
func limitsOf(o *Op, shards int) broker.Limits {
	l := broker.Limits{Shards: shards, MaxConnections: o.get("conns", 300), MaxSubscriptions: o.get("subs", 2048),
		MaxRetained: o.get("retained", 1024), MaxQueuedMessages: o.get("queue", 1<<20), MaxQueuedBytes: int64(o.get("qbytes", 1<<30)),
		MaxInflight: o.get("inflight", 20), MaxOutboundBytes: o.get("outbound", 1<<20), TopicAliasMaximum: o.get("alias", 16),
		ReceiveMaximum: o.get("recv", 1024), MaxPacketSize: 256 << 10, MaxConnectRate: o.get("rate", 0), InputWork: o.get("work", 0),
		MaxSessionExpiry: time.Duration(o.get("expirymax", 0)) * time.Second, MaxKeepAlive: time.Duration(o.get("keepmax", 0)) * time.Second}
	if o.is("store") {
		l.StoreBytes = 1 << 20
	}
	room := int64(o.get("memory", 32))
	for l.Memory = (16 + room) << 20; ; l.Memory += 1 << 20 {
		r := l
		r.Memory -= room << 20
		if _, err := r.Resolve(); err == nil {
			return l
		}
	}
}

// start lets the loops run if they do so by themselves; the function it returns stops them.
func (w *world) start() func() error {
	if !w.options.Threaded {
		return func() error { return nil }
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- w.broker.Run(ctx, time.Second) }()
	return func() error {
		cancel()
		return <-stopped
	}
}

func (w *world) violate(rule, format string, v ...any) {
	if w.violation == nil {
		w.violation = &Violation{Rule: rule, Text: fmt.Sprintf(format, v...), Step: w.step}
	}
}

func (w *world) moment() moment { return moment{w.step, w.now.Load(), slices.Max(w.turns)} }

// part is how much of a read or a write moves.
func (w *world) part(most int) int {
	if w.calm || w.chance.IntN(2) == 0 {
		return most
	}
	return w.chance.IntN(most + 1)
}

func (w *world) shuffle(n int, swap func(i, j int)) {
	if !w.calm {
		w.chance.Shuffle(n, swap)
	}
}

// turn gives the shards their turns, in an order and with a network that the number decides; 0 is a calm turn, in which
// everything moves. Then the clients write and read. What one client does depends on the number and on the client only,
// so that a Script without another one goes on alike.
func (w *world) turn(number int) {
	w.calm = number == 0
	w.source.Seed(uint64(number), 7)
	if w.now.Add(10); !w.calm {
		w.now.Add(int64(w.chance.IntN(20)))
	}
	w.noteExcuses()
	w.authenticator.work(uint64(number))
	if w.options.Threaded {
		time.Sleep(200 * time.Microsecond)
	} else {
		w.turnShards()
	}
	w.workDisk()
	w.noteEnds()
	for i, c := range w.clients {
		c.turn(mix(uint64(number), uint64(i)))
	}
	w.turnGhosts(uint64(number))
	w.turnIntruders(uint64(number))
}

func (w *world) turnShards() {
	for _, i := range w.chance.Perm(len(w.turns)) {
		if !w.calm && w.chance.IntN(3) == 0 {
			continue
		}
		if !w.calm && w.stalled[i] > 0 {
			w.stalled[i]--
			continue
		}
		if err := w.broker.Loops()[i].Turn(0); err != nil {
			w.violate("run", "shard %d: %v", i, err)
		}
		w.turns[i]++
	}
}

// noteEnds finds the connections of which every shard must know by now that they are gone.
func (w *world) noteEnds() {
	least := slices.Min(w.turns)
	for i := 0; i < len(w.watched); i++ {
		l := w.watched[i]
		if least < l.knownAfter || w.options.Threaded {
			continue
		}
		l.gone = w.moment()
		if s := l.session; s != nil && s.link == l {
			s.gone = l.gone
		}
		w.watched = append(w.watched[:i], w.watched[i+1:]...)
		i--
	}
}

// watch has noteEnds look for a connection that has ended: so many turns of every shard from now on it is surely known.
func (w *world) watch(l *link, turns int) {
	l.knownAfter = slices.Max(w.turns) + turns
	w.watched = append(w.watched, l)
}

// turnGhosts ends connections that their clients have left behind.
func (w *world) turnGhosts(number uint64) {
	for i := 0; i < len(w.ghosts); i++ {
		l := w.ghosts[i]
		x := mix(number, uint64(l.serial))
		if w.calm {
			x = mix(uint64(w.step), uint64(l.serial))
		}
		if l.serial%4 != 0 && l.listen() || x%16 == 0 || w.calm && x%4 == 0 {
			if x&64 == 0 {
				_ = l.peer.Close()
			} else {
				_ = l.peer.Reset()
			}
			w.ghosts = append(w.ghosts[:i], w.ghosts[i+1:]...)
			i--
		}
	}
}

// mix is a hash of two numbers (the finaliser of SplitMix64), for decisions that depend on nothing else.
func mix(a, b uint64) uint64 {
	x := a*0x9e3779b97f4a7c15 + b*0xbf58476d1ce4e5b9 + 0x94d049bb133111eb
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
