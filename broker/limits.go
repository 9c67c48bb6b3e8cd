package broker

import (
	"fmt"
	"math"
	"runtime"
	"strings"
	"time"
)

// Limits are the bounds of a broker, each with its unit. A zero field takes the default named beside it; Resolve fills
// them in. Everything that grows with clients or messages is bounded here, and Plan adds up the memory it implies.
type Limits struct {
	Memory           int64 // bytes the whole process may take; default in DefaultMemory
	Shards           int   // event loops; default the number of CPUs
	MaxConnections   int   // Network Connections with a Session attached; default by Memory, at most Descriptors allows
	Descriptors      int   // file descriptors the process may open; 0: not bounded by them
	MaxSessions      int   // Sessions, connected or not; default twice MaxConnections
	MaxSubscriptions int   // default by Memory
	MaxRetained      int   // Retained Messages; default by Memory

	MaxPacketSize     int   // bytes of one Control Packet either way; default 2 MiB or Memory/32, at most 256 MiB
	MaxQueuedMessages int   // messages waiting in one Session beyond those in flight; default 1000
	QueueOnDisk       bool  // MaxQueuedMessages was not set and Sessions that outlive their connections may use the disk; see StoreBytes
	MaxQueuedBytes    int64 // bytes pinned by one Session's waiting messages, and of those on disk; default Memory/16
	BytesOnDisk       bool  // MaxQueuedBytes was not set, and says nothing of a queue on disk
	// MaxInflight is how many QoS 1 and 2 messages are sent to a client and not yet acknowledged; default 128: Mosquitto's
	// 20 leaves a fast subscriber waiting for its own acknowledgements.
	MaxInflight       int
	MaxOutboundBytes  int // bytes waiting in one connection's outbound buffer before QoS 0 is dropped; default 1 MiB
	ReceiveMaximum    int // QoS 1 and 2 messages a client may have under way to us; default 1024
	TopicAliasMaximum int // Topic Aliases each way per connection; default 16, at most 64
	MaxTopicLevels    int // levels of a Topic Name or Filter; default 64
	MaxFilters        int // Topic Filters in one SUBSCRIBE or UNSUBSCRIBE; default 1024
	MaxConnectRate    int // CONNECT packets per second in the whole broker; 0: no limit
	InputWork         int // deliveries, and what costs as much, that one connection's input may cause in a turn; default 32768, some 10 ms

	MaxKeepAlive     time.Duration // longer or no Keep Alive is replaced by it (5.0); 0: clients choose
	MaxSessionExpiry time.Duration // longer Session Expiry Intervals are cut to it; 0: clients choose
	AuthBytes        int64         // what verifying passwords may take at a time
	// PlaneConnectionBytes, PlaneFixedBytes, PlaneSendBytes, PlaneReceiveBytes and PlaneBytes are what planes take that end TCP
	// themselves: per connection, without any, for all that clients have not acknowledged, for all that was received and is
	// not read yet, and outside the heap. Default 0: the kernel holds it.
	PlaneConnectionBytes int64
	PlaneFixedBytes      int64
	PlaneSendBytes       int64
	PlaneReceiveBytes    int64
	PlaneBytes           int64
	ProgramBytes         int64         // the program, its runtime, the tables that do not depend on limits; default 10 MiB
	StoreBytes           int64         // what a store takes of memory; 0: there is none
	StoreOutsideBytes    int64         // what of that is outside the Go heap
	ConnectTimeout       time.Duration // from accept to the end of CONNECT; default 10 s, and as little as three quarters of it, by chance
	PacketTimeout        time.Duration // a large packet must make progress within it; default 20 s
}

// The sizes in bytes that the plan multiplies. Go objects are counted as the allocator rounds them; a test measures
// a full broker against the sum.
const (
	programBytes      = 10 << 20 // for a small program around the engine; see Limits.ProgramBytes
	connPlaneBytes    = 72       // what the plane keeps per connection
	sessionBytes      = 288      // a Session, its Client Identifier, its place in the registry
	subscriptionBytes = 176      // a subscription, its Topic Filter, its place in the index
	levelBytes        = 96       // a level of a Topic Filter with wildcards that no other filter has, beyond what subscriptionBytes has room for
	groupBytes        = 320      // a Shared Subscription, beside its members
	cursorBytes       = 112      // the delivery of Retained Messages to a subscription
	retainedBytes     = 104      // a retained entry and its place in the ordered store
	cacheEntryBytes   = 208      // one topic of a shard's cache, with room for its topic and a receiver
	minArenaPages     = 512
	connectionsFewest = 64 // the least that max_connections is by default
	// arenaBytesPerMessage is the arena that the plan grants per message slot: a small message with a short topic.
	arenaBytesPerMessage = 192
	maxPacketSizeLimit   = 268435455 + 5 // Remaining Length's maximum and the largest fixed header [MQTT-2.1.4]
	passwordMax          = 8 << 10       // bytes of a Password, which may be a token
	authDataMax          = 4 << 10       // bytes of Authentication Data in one packet
	lobbySlots           = 128           // connections per shard beyond the maximum, kept to refuse with a Reason Code
)

// DefaultMemory is a quarter of the machine's memory or 1 GiB, whichever is smaller.
func DefaultMemory(ramBytes int64) int64 {
	if ramBytes <= 0 {
		return 1 << 30
	}
	return min(ramBytes/4, 1<<30)
}

func orDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// Resolve fills in defaults and checks every bound; the error says which limit does not fit and what to change.
func (l Limits) Resolve() (Limits, error) {
	orDefault(&l.Memory, 1<<30)
	orDefault(&l.Shards, runtime.NumCPU())
	orDefault(&l.MaxSubscriptions, int(max(l.Memory/8/subscriptionBytes, 1024)))
	orDefault(&l.ProgramBytes, programBytes)
	orDefault(&l.MaxRetained, int(max(l.Memory/32/retainedBytes, 1024)))
	orDefault(&l.MaxPacketSize, int(min(2<<20, max(l.Memory/32, 64<<10))))
	l.QueueOnDisk = l.StoreBytes > 0 && l.MaxQueuedMessages == 0
	l.BytesOnDisk = l.StoreBytes > 0 && l.MaxQueuedBytes == 0
	orDefault(&l.MaxQueuedMessages, 1000)
	orDefault(&l.MaxQueuedBytes, l.Memory/16)
	orDefault(&l.MaxInflight, 128)
	orDefault(&l.MaxOutboundBytes, 1<<20)
	orDefault(&l.ReceiveMaximum, 1024)
	orDefault(&l.TopicAliasMaximum, 16)
	orDefault(&l.MaxTopicLevels, 64)
	orDefault(&l.MaxFilters, 1024)
	orDefault(&l.InputWork, 1<<15)
	orDefault(&l.ConnectTimeout, 10*time.Second)
	orDefault(&l.PacketTimeout, 20*time.Second)
	orDefault(&l.MaxConnections, l.connectionsDefault())
	orDefault(&l.MaxSessions, 2*l.MaxConnections)
	if err := l.check(); err != nil {
		return l, err
	}
	_, err := l.Plan()
	return l, err
}

func (l Limits) check() error {
	for _, b := range []struct {
		name     string
		v        int64
		from, to int64
	}{
		{"shards", int64(l.Shards), 1, 255},
		{"max_connections", int64(l.MaxConnections), 1, 1 << 24},
		{"max_sessions", int64(l.MaxSessions), int64(l.MaxConnections), 1 << 25},
		{"max_subscriptions", int64(l.MaxSubscriptions), 1, 1 << 30},
		{"max_retained", int64(l.MaxRetained), 1, 1 << 30},
		{"max_packet_size", int64(l.MaxPacketSize), 256, maxPacketSizeLimit},
		{"max_queued_messages", int64(l.MaxQueuedMessages), 1, math.MaxInt32},
		{"max_queued_bytes", l.MaxQueuedBytes, pageSize, math.MaxInt64},
		{"max_inflight_messages", int64(l.MaxInflight), 1, 65535},
		{"max_outbound_bytes", int64(l.MaxOutboundBytes), 4 * pageSize, math.MaxInt32},
		{"receive_maximum", int64(l.ReceiveMaximum), 1, 65535},
		{"topic_alias_maximum", int64(l.TopicAliasMaximum), 1, 64},
		{"max_topic_levels", int64(l.MaxTopicLevels), 1, 128},
		{"max_filters", int64(l.MaxFilters), 1, 1 << 20},
		{"max_connect_rate", int64(l.MaxConnectRate), 0, math.MaxInt32},
		{"max_keep_alive (seconds)", int64(l.MaxKeepAlive / time.Second), 0, 65535},
		{"persistent_client_expiration (seconds)", int64(l.MaxSessionExpiry / time.Second), 0, math.MaxUint32},
		{"connect_timeout (milliseconds)", int64(l.ConnectTimeout / time.Millisecond), 100, math.MaxInt32},
		{"packet_timeout (milliseconds)", int64(l.PacketTimeout / time.Millisecond), 100, math.MaxInt32},
	} {
		if b.v < b.from || b.v > b.to {
			return fmt.Errorf("%s: %d is outside %d..%d", b.name, b.v, b.from, b.to)
		}
	}
	if l.Descriptors > 0 && l.MaxConnections > l.Descriptors-32 {
		return fmt.Errorf("max_connections: %d needs more than the %d file descriptors that this process has for it; raise the limit (ulimit -n) or lower max_connections", l.MaxConnections, l.Descriptors)
	}
	return nil
}

// Plan is the memory that a set of limits implies.
type Plan struct {
	Lines    []PlanLine
	Pages    int   // pages of the arena
	Messages int   // message slots
	Entries  int   // slots for queued and in-flight deliveries
	Heap     int64 // bytes that the Go runtime may manage: the lines above that are Go objects, and room to collect
}

// PlanLine is one owner of memory: Count things of Unit bytes.
type PlanLine struct {
	Name  string
	Count int64
	Unit  int64
	heap  bool // Go objects
}

// Bytes is what the line adds up to.
func (p PlanLine) Bytes() int64 { return p.Count * p.Unit }

// Bytes is the sum of the plan.
func (p Plan) Bytes() (n int64) {
	for _, l := range p.Lines {
		n += l.Bytes()
	}
	return n
}

// String is the table that --plan prints.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-34s %12s %10s %14s\n", "what", "count", "bytes each", "bytes")
	for _, l := range p.Lines {
		fmt.Fprintf(&b, "%-34s %12d %10d %14d\n", l.Name, l.Count, l.Unit, l.Bytes())
	}
	fmt.Fprintf(&b, "%-34s %12s %10s %14d\n", "sum", "", "", p.Bytes())
	return b.String()
}

// connectionsDefault is how many connections the rest of the limits, the data plane and the store leave room for, if an eighth of the
// memory is to be left for messages, or half of what connections could take where that is less. Where not even the fewest fit, Plan says so.
func (l Limits) connectionsDefault() int {
	n := int(min(max(l.Memory/(8192+2*l.PlaneConnectionBytes), connectionsFewest), 1<<20))
	if l.Descriptors > 0 {
		n = min(n, max(l.Descriptors-128, connectionsFewest))
	}
	least := min(l.Memory/8, l.arenaWith(connectionsFewest)/2)
	for n > connectionsFewest && l.arenaWith(n) < least {
		n = max(n-n/8, connectionsFewest)
	}
	return n
}

// arenaWith is what that many connections leave for messages, in bytes; negative: they do not fit.
func (l Limits) arenaWith(connections int) int64 {
	l.MaxConnections = connections
	orDefault(&l.MaxSessions, 2*connections)
	p, err := l.Plan()
	if err != nil {
		return -1
	}
	return int64(p.Pages) * pageSize
}

// cacheSets is the number of four-way sets in each shard's topic cache.
func (l Limits) cacheSets() int {
	sets := 64
	for int64(sets)*8*cacheEntryBytes*int64(l.Shards) <= l.Memory/16 && sets < 1<<15 {
		sets *= 2
	}
	return sets
}

// ringSlots is the capacity of the queue between each pair of shards.
const ringSlots = 1024

// Sockets is how many connections the broker may hold at a time: MaxConnections, and those that are being refused.
func (l Limits) Sockets() int { return l.connSlots() }

// connSlots is how many connection slots exist: the maximum, those kept for refusals, and what shard caches may hold.
func (l Limits) connSlots() int { return l.MaxConnections + l.Shards*(lobbySlots+2*slotBatch) }

func (l Limits) sessionSlots() int { return l.MaxSessions + l.Shards*2*slotBatch }

// plannedName is the length in bytes of a Client Identifier, User Name, Topic Filter or retained Topic Name that the plan counts
// with its owner; what names are longer is bounded by longNames in all.
const plannedName = 32

// heapObjects is what Sessions, subscriptions and retained entries take of the Go heap in bytes, and headroom what is
// kept free beside them, for the collector and for long names.
func (l Limits) heapObjects() int64 {
	return int64(l.sessionSlots())*sessionBytes + int64(l.MaxSubscriptions)*subscriptionBytes + int64(l.MaxRetained)*retainedBytes
}

// keptBytes bounds what of the queue of a kept Session waits in memory, where it has more than one message.
func (l Limits) keptBytes() int64 { return l.MaxQueuedBytes / 4 }

// boundsDisk says whether what a kept Session has on disk is bounded by more than the disk.
func (l Limits) boundsDisk() bool { return !l.QueueOnDisk || !l.BytesOnDisk }

// streamBytes bounds what a shard has gathered for the store and what the store has not committed yet.
func (l Limits) streamBytes() int {
	return int(min(streamBytesMax, max(streamBytesMin, l.StoreBytes/16/int64(l.Shards))))
}

// loadsAtOnce is how many loads of a shard the store is asked for at a time: answers, each of up to fetchBytes and a message, may come faster than the shard
// sends them on, and all that are there come in one turn.
func (l Limits) loadsAtOnce() int { return max(loadsFewest, l.streamBytes()/fetchBytes) }

// filterRoom is what n subscriptions leave of their part of the plan, and a quarter of the headroom, for the levels of their filters, for
// Shared Subscriptions, and for Retained Messages that are still to be delivered.
func (l Limits) filterRoom(n int64) int64 {
	return (int64(l.MaxSubscriptions)-n)*subscriptionBytes + l.headroom()/4
}

func (l Limits) headroom() int64  { return l.heapObjects()/8 + 4<<20 }
func (l Limits) longNames() int64 { return l.headroom() / 2 }

// longTopics is what others than Client Identifiers may take of it: nobody's Topic Filters keep others from connecting.
func (l Limits) longTopics() int64 { return l.longNames() * 3 / 4 }

// shardsRemedy says how to have fewer shards, or less for each.
func (l Limits) shardsRemedy() string {
	if l.PlaneBytes == 0 {
		return fmt.Sprintf("shards (%d)", l.Shards)
	}
	return fmt.Sprintf("what XDP mode takes for its queues (--queues; [xdp] receive_frames, transmit_frames: %d bytes; send_memory: %d; receive_memory: %d)",
		l.PlaneBytes, l.PlaneSendBytes, l.PlaneReceiveBytes)
}

// Plan adds up the memory; what the fixed owners leave of Memory goes to messages.
func (l Limits) Plan() (Plan, error) {
	conns, sessions, shards := int64(l.connSlots()), int64(l.sessionSlots()), int64(l.Shards)
	p := Plan{Lines: []PlanLine{
		{"program and runtime", 1, l.ProgramBytes, true},
		{"connection slots", conns, sizeOf[conn]() + sizeOf[timer]() + 8, false},
		{"connections", conns, sizeOf[connRef]() + connPlaneBytes, true},
		{"sessions", sessions, sessionBytes + 8, true},
		{"session timers", sessions, 2*sizeOf[timer]() + 8, false},
		{"subscriptions", int64(l.MaxSubscriptions), subscriptionBytes, true},
		{"retained entries", int64(l.MaxRetained), retainedBytes, true},
		{"heap kept free for the collector", 1, l.headroom(), true},
		{"topic cache entries", shards * int64(l.cacheSets()) * cacheWays, cacheEntryBytes, true},
		{"queues between shards", shards * (shards - 1) * ringSlots, sizeOf[shardMessage](), true},
		{"password verification", 1, l.AuthBytes, true},
		{"read and scratch buffers", shards, 256<<10 + int64(l.MaxPacketSize), false},
	}}
	if l.PlaneConnectionBytes+l.PlaneBytes > 0 {
		p.Lines = append(p.Lines,
			PlanLine{"TCP of the process, connections", int64(l.MaxConnections), l.PlaneConnectionBytes, true},
			PlanLine{"TCP of the process, handshakes and frames that wait", 1, l.PlaneFixedBytes, true},
			PlanLine{"TCP of the process, slow clients", 1, l.PlaneSendBytes, true},
			PlanLine{"TCP of the process, unread", 1, l.PlaneReceiveBytes, true},
			PlanLine{"umem and rings", 1, l.PlaneBytes, false})
	}
	if l.StoreBytes > 0 {
		p.Lines = append(p.Lines,
			PlanLine{"store: memtables and cache", 1, l.StoreOutsideBytes, false},
			PlanLine{"store: what else it has in the heap", 1, l.StoreBytes - l.StoreOutsideBytes, true},
			PlanLine{"store: batches", shards, 4*int64(l.streamBytes()) + int64(l.MaxPacketSize), true},
			PlanLine{"sessions that are kept", sessions, sizeOf[kept](), true})
		if l.boundsDisk() {
			p.Lines = append(p.Lines, PlanLine{"expiry of what they have on disk", sessions, sizeOf[lifetimes]() + 16, true})
		}
	}
	for _, line := range p.Lines {
		if line.heap {
			p.Heap += line.Bytes()
		}
	}
	perMessage := sizeOf[message]() + 8 + 2*(sizeOf[entry]()+8)
	perPage := int64(pageSize) + sizeOf[page]() + 8
	if l.StoreBytes > 0 {
		perMessage += 2 * sizeOf[mark]()
	}
	rest := l.Memory - p.Bytes()
	messages := rest / (perMessage + arenaBytesPerMessage*perPage/pageSize)
	p.Pages = int((rest - messages*perMessage) / perPage)
	p.Messages, p.Entries = int(messages), 2*int(messages)
	if rest < 0 || p.Pages < minArenaPages*l.Shards {
		need := p.Bytes() + int64(minArenaPages*l.Shards)*perPage*2
		return p, fmt.Errorf("memory: %d bytes do not hold the limits, which need at least %d; raise --memory, or lower max_connections (%d), max_sessions (%d), max_subscriptions (%d), max_retained (%d) or %s",
			l.Memory, need, l.MaxConnections, l.MaxSessions, l.MaxSubscriptions, l.MaxRetained, l.shardsRemedy())
	}
	if pagesFor(l.MaxPacketSize) > p.Pages/2 {
		return p, fmt.Errorf("max_packet_size: %d bytes are more than half of the %d that memory leaves for messages; raise --memory or lower max_packet_size", l.MaxPacketSize, p.Pages*pageSize)
	}
	p.Lines = append(p.Lines,
		PlanLine{"message slots", int64(p.Messages), sizeOf[message]() + 8, false},
		PlanLine{"queued and in-flight deliveries", int64(p.Entries), sizeOf[entry]() + 8, false},
		PlanLine{"arena pages", int64(p.Pages), perPage, false})
	return p, nil
}
