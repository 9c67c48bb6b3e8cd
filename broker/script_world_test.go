package broker_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/memnet"
	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/script"
)

// world is a broker over the in-memory plane with its clients, stepped by one goroutine. Its clock moves only by tick,
// and nothing in it is left to chance: the same steps give the same answers.
type world struct {
	tb      testing.TB
	network *memnet.Network
	broker  *broker.Broker
	now     time.Time
	shards  int
	clients []*client // in the order in which they first connected
	split   int       // bytes per write, 0 for all at once
	out     strings.Builder
	host    *scriptedHost
	known   map[string]bool // Client Identifiers that may have a Session
	topics  map[string]bool // Topic Names that may have a Retained Message
	stopped bool
	store   worldStore // nil: none

	keepsSys bool // $SYS is published, and retained
}

// worldStore is a store whose answers come when work is called, one at a time; it says whether there was one.
type worldStore interface {
	broker.Store
	work(*broker.Broker) bool
}

// scriptedHost takes what the broker asks the process around it; the answers are the script's.
type scriptedHost struct {
	world   *world
	pending map[string]broker.AuthRequest // by Client Identifier, the last
	names   map[uint64]string             // Client Identifier by token
	busy    bool
	log     bool
	beyond  []string // what it was told of more than limits allow
}

func (h *scriptedHost) Authenticate(r broker.AuthRequest) bool {
	if r.ClientID == "" {
		r.ClientID = h.names[r.Token]
	}
	step := [...]string{"password", "start", "continue", "abandon"}[r.Step]
	l := script.Line{"host ?", step, r.ClientID}
	l.Text("user", optional(r.User))
	l.Text("pass", r.Password)
	l.Text("method", optional(r.Method))
	l.Text("data", r.Data)
	h.world.say(l.String())
	h.pending[r.ClientID], h.names[r.Token] = r, r.ClientID
	return !h.busy
}

func optional(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s)
}

func (h *scriptedHost) Log(e broker.LogEvent) bool {
	if e.Kind == broker.EventBeyondLimit {
		h.beyond = append(h.beyond, e.Text)
	}
	if h.log {
		kind := [...]string{"connected", "disconnected", "refused", "dropping", "accept failed"}[e.Kind]
		l := script.Line{"log ", kind, e.ClientID}
		l.Reason(e.Reason)
		l.Text("text", optional(e.Text))
		h.world.say(l.String())
	}
	return true
}

// usual are the limits of a broker that is told nothing else.
func usual() script.Usual {
	return script.Usual{ReceiveMaximum: 1024, MaximumPacketSize: 2 << 20, TopicAliasMaximum: 16, AssignedPrefix: "ringmq-"}
}

// newWorld makes a broker; the options are those of the script command of that name.
func newWorld(tb testing.TB, shards int, c *script.Command) *world {
	return newWorldOn(tb, shards, c, nil, startOfTime())
}

func startOfTime() time.Time { return time.Unix(1_700_000_000, 0) }

// newWorldOn is newWorld with a store, at a time.
func newWorldOn(tb testing.TB, shards int, c *script.Command, store *memStore, now time.Time) *world {
	var s worldStore
	if store != nil {
		s = store
	}
	w, err := tryWorld(tb, shards, c, s, now)
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

// tryWorld is newWorldOn of any store; it fails where the broker does not start.
func tryWorld(tb testing.TB, shards int, c *script.Command, store worldStore, now time.Time) (*world, error) {
	w := &world{tb: tb, shards: shards, now: now, store: store, known: map[string]bool{}, topics: map[string]bool{}}
	w.keepsSys = c.Yes("sys")
	w.host = &scriptedHost{world: w, pending: map[string]broker.AuthRequest{}, names: map[uint64]string{}}
	asked := limitsOf(c, shards)
	if store != nil {
		asked.StoreBytes = 1 << 20
	}
	limits, err := asked.Resolve()
	if err != nil {
		tb.Fatal(err)
	}
	w.network = memnet.New(memnet.Config{Planes: shards})
	var planes []broker.Plane
	for _, p := range w.network.Planes() {
		planes = append(planes, p)
	}
	o := broker.Options{Limits: limits, Config: configOf(c), Host: w.host, Clock: func() time.Time { return w.now }}
	if store != nil {
		o.Store = store
	}
	if w.broker, err = broker.New(o, planes); err != nil {
		if w.broker != nil {
			w.broker.Release()
		}
		return nil, err
	}
	if !c.Yes("fresh") {
		w.now = w.now.Add(10 * time.Second)
	}
	w.settle()
	return w, nil
}

func limitsOf(c *script.Command, shards int) broker.Limits {
	n := func(name string) int { return int(c.Number(name, 0)) }
	seconds := func(name string) time.Duration { return time.Duration(n(name)) * time.Second }
	memory := max(n("memory"), 64<<20)
	return broker.Limits{
		Memory: int64(memory), Shards: shards, MaxConnections: int(c.Number("maxconns", 256)), MaxSessions: n("sessions"),
		MaxSubscriptions: int(c.Number("subs", 4096)), MaxRetained: int(c.Number("retained", 8192)), MaxPacketSize: n("packet"),
		MaxQueuedMessages: n("queue"), MaxQueuedBytes: int64(n("queuebytes")), MaxInflight: n("inflight"),
		MaxOutboundBytes: n("outbound"), ReceiveMaximum: n("recvmax"), TopicAliasMaximum: n("aliasmax"),
		MaxTopicLevels: n("levels"), MaxFilters: n("filters"), MaxConnectRate: n("rate"), MaxKeepAlive: seconds("keepalive"),
		MaxSessionExpiry: seconds("expiry"), ConnectTimeout: seconds("connecttimeout"), PacketTimeout: seconds("packettimeout"),
	}
}

func configOf(c *script.Command) broker.Config {
	strategy, err := broker.ParseStrategy(c.Text("strategy", "round_robin"))
	if err != nil {
		panic(err)
	}
	config := broker.Config{
		Listeners: []broker.ListenerConfig{{AllowAnonymous: c.Number("anonymous", 1) != 0}},
		Passwords: c.Yes("passwords"), SharedStrategy: strategy, ServerReference: c.Text("reference", ""),
		ResponseInformation: c.Text("respinfo", ""), Version: "test", SysIntervalSeconds: int(c.Number("sys", 0)), Seed: 1,
	}
	if m := c.Text("methods", ""); m != "" {
		config.Methods = strings.Split(m, ",")
	}
	return config
}

func (w *world) say(text string) { fmt.Fprintln(&w.out, text) }

// quietRounds is how many rounds over all shards must pass without a counter moving, a byte sent or a message between
// shards until everything is taken to have been done.
const quietRounds = 6

// settle turns all loops, one after another, until nothing happens any more.
func (w *world) settle() {
	var before broker.Counters
	for quiet, pulled := 0, -1; quiet < quietRounds; {
		busy := false
		for _, l := range w.broker.Loops() {
			l.Do(func(s *broker.Shard) { busy = busy || s.Pending() })
			if err := l.Turn(0); err != nil {
				w.tb.Fatal(err)
			}
		}
		for w.store != nil && w.store.work(w.broker) {
			busy = true
		}
		now := 0
		for _, c := range w.clients {
			c.pull()
			now += c.pulled
		}
		counters := w.broker.Live()
		if quiet++; busy || now != pulled || counters != before {
			quiet = 0
		}
		pulled, before = now, counters
	}
}

// find is the client of that name; it must have been dialled.
func (w *world) find(name string) *client {
	for _, c := range w.clients {
		if c.name == name {
			return c
		}
	}
	panic(fmt.Sprintf("no client %q", name))
}

// dial opens a Network Connection under a name. A name whose connection is closed may be used again.
func (w *world) dial(name string, v packet.Version) *client {
	p, err := w.network.Dial(0)
	if err != nil {
		panic(err)
	}
	at := slices.IndexFunc(w.clients, func(c *client) bool { return c.name == name })
	if at < 0 {
		w.clients = append(w.clients, &client{name: name})
		at = len(w.clients) - 1
	} else if !w.clients[at].over {
		panic(fmt.Sprintf("client %q is still connected", name))
	}
	old := w.clients[at]
	c := &client{name: name, world: w, peer: p, version: v, auto: old.auto, brief: old.brief, mute: old.mute, pulled: old.pulled}
	w.clients[at] = c
	return c
}

// client is one end of a Network Connection as a script sees it.
type client struct {
	name    string
	world   *world
	peer    *memnet.Peer
	version packet.Version
	in      []byte // read, and not yet a whole packet
	heard   []string
	unsent  []byte

	payloads map[string][]string // that came, by topic
	run      run
	pulled   int  // bytes read so far
	held     bool // reads nothing
	auto     bool // acknowledges by itself
	brief    bool // tells runs of packets of one kind in short
	mute     bool // tells nothing

	anyVersion bool   // what it cannot decode may be in the form of another version
	closed     string // how the connection ended, as far as the broker is concerned
	over       bool   // that has been told, or we have ended it
}

// pull reads what has come.
func (c *client) pull() {
	if c.over || c.closed != "" {
		return
	}
	if len(c.unsent) > 0 {
		c.push()
	}
	if !c.held {
		c.read(1 << 30)
	}
}

func (c *client) read(most int) {
	b := make([]byte, 64<<10)
	for most > 0 {
		n, err := c.peer.Read(b[:min(most, len(b))])
		c.in = append(c.in, b[:n]...)
		c.pulled += n
		most -= n
		c.hear()
		switch {
		case errors.Is(err, broker.ErrWouldBlock):
			return
		case errors.Is(err, io.EOF):
			c.closed = "closed"
			return
		case err != nil:
			c.closed = "closed: " + err.Error()
			return
		}
	}
}

// write sends bytes, in pieces when the script says so. What the broker does not read yet is sent by pull.
func (c *client) write(b []byte) {
	for n := c.world.split; n > 0 && len(b) > n; b = b[n:] {
		c.unsent = append(c.unsent, b[:n]...)
		c.world.settle()
	}
	c.unsent = append(c.unsent, b...)
	c.push()
}

// push writes as much as the broker's window takes.
func (c *client) push() {
	n, err := c.peer.Write(c.unsent)
	c.unsent = c.unsent[n:]
	if err != nil && !errors.Is(err, broker.ErrWouldBlock) {
		c.unsent = nil // The broker has closed it; the script will hear.
	}
}
