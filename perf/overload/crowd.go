package overload

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/perf/epoll"
)

const (
	// eventsMax is how many connections a turn serves at most.
	eventsMax = 4096
	// readBytes is the one read buffer, beyond what is left of the last read.
	readBytes = 256 << 10
	// turnMax is the longest turn: the grain of every pace.
	turnMax = time.Millisecond
	// outMaxBytes is what a client may have been unable to send before its tactic holds back.
	outMaxBytes = 64 << 10
	// openingMax is how many connections of a crowd are being opened at a time.
	openingMax = 256
	// openTimeout bounds opening all of them.
	openTimeout = 90 * time.Second
	// drainTime is how long an attack that is over still listens.
	drainTime = time.Second
	nothing   = epoll.Ready(0)
)

// Config says whom to attack, and from where.
type Config struct {
	Target  netip.AddrPort
	Sources []netip.Addr // local addresses to connect from, in turn; empty: the system's choice
	CPU     int          // the processor of the aggressor's thread; negative: any
	Seed    uint64
	// Long is about how long victims will be measured: what has an end is stretched over it.
	Long time.Duration
	// Patience is how long an attack that is over waits for what clients who behave should still have; a sink gives them
	// nothing.
	Patience time.Duration
	// Harmless leaves out those of the crowd who do harm, and what is meant for them.
	Harmless bool
	// Begin is closed when an attack acts that finds others connected already (Scenario.Late); nil: at once.
	Begin <-chan struct{}
	// Small is for checks of what is answered, without figures: a tenth of what takes time to build up.
	Small bool
}

// scaled is a size that Small makes smaller.
func (c *Config) scaled(n int) int {
	if c.Small {
		return n / 10
	}
	return n
}

// state is how far a client has come.
type state byte

const (
	closed state = iota
	connecting
	live
)

// client is one Network Connection of an aggressor.
type client struct {
	fd       int
	token    int32
	role     int // what the tactic uses it for
	number   int // within its role
	state    state
	deaf     bool // not watched for input: the tactic reads by sip
	full     bool // the socket takes no more
	dirty    bool
	waits    bool   // to be opened
	hello    []byte // CONNECT, to be sent when the connection is opened; empty: the tactic says what is sent
	version  packet.Version
	out      []byte
	partial  []byte // the front of a packet
	nextID   uint16
	unacked  int   // PUBLISH of QoS 1 and 2
	at       int   // for tactics that send a packet in pieces
	inPacket bool  // it has sent the front of one: no DISCONNECT can follow
	since    int64 // when it was opened
}

// tactic is what the clients of a crowd do. All calls come from the crowd's goroutine.
type tactic interface {
	// layOut makes the clients; the crowd opens those that it is told to (crowd.open).
	layOut(c *crowd)
	// lives is told that a CONNACK granted cl its Session.
	lives(cl *client)
	// hears is given a whole packet for cl. body is valid during the call.
	hears(cl *client, first byte, body []byte)
	// acts comes once in each turn.
	acts()
	// ended is told that cl's connection is gone.
	ended(cl *client)
	// stands says whether the attack is under way as it is meant to be.
	stands() bool
	// isDone says whether the attack has an end and has reached it.
	isDone() bool
}

// crowd owns the clients of an aggressor and their turns.
type crowd struct {
	cfg      Config
	tactic   tactic
	poll     *epoll.Poller
	clients  []*client
	opening  []*client // to be opened, as openings come free
	underWay int       // of which so many are being opened
	dirty    []*client
	in       []byte
	base     time.Time
	now      int64 // nanoseconds since base
	random   uint64
	sourceAt int
	outcome  Outcome       // read by others when the goroutine has ended
	used     atomic.Int64  // the thread's processor time as of the last turn, in nanoseconds: written by the goroutine, read by any
	finished chan struct{} // closed when an attack that has an end has reached it
}

func newCrowd(cfg Config, t tactic) (*crowd, error) {
	poll, err := epoll.New(eventsMax)
	if err != nil {
		return nil, err
	}
	return &crowd{cfg: cfg, tactic: t, poll: poll, in: make([]byte, readBytes), base: time.Now(), random: cfg.Seed | 1,
		outcome: Outcome{Answers: map[string]int64{}}, finished: make(chan struct{})}, nil
}

// add makes a client that is not opened yet.
func (c *crowd) add(role, number int) *client {
	cl := &client{fd: -1, token: int32(len(c.clients)), role: role, number: number, version: packet.V50}
	c.clients = append(c.clients, cl)
	return cl
}

// greets has a client connect by 5.0 with Clean Start.
func (cl *client) greets(name string) *client {
	return cl.greetsAs(packet.Connect{Version: packet.V50, CleanStart: true, ClientID: fmt.Appendf(nil, "%s.%d.%d", name, cl.role, cl.number)})
}

func (cl *client) greetsAs(hello packet.Connect) *client {
	hello.RequestProblemInfo = true
	cl.version, cl.hello = hello.Version, packet.AppendConnect(nil, &hello)
	return cl
}

// open has a client opened as soon as its turn comes.
func (c *crowd) open(cl *client) {
	cl.waits = true
	c.opening = append(c.opening, cl)
}

// run turns until ctx ends; ready is closed when the attack stands.
func (c *crowd) run(ctx context.Context, ready chan<- struct{}) error {
	defer c.shutdown()
	c.tactic.layOut(c)
	standing, finished := false, false
	for ctx.Err() == nil {
		if err := c.turn(c.acts); err != nil {
			return err
		}
		if !standing && c.tactic.stands() {
			standing = true
			close(ready)
		}
		if !finished && c.tactic.isDone() {
			finished = true
			close(c.finished)
		}
		if !standing && c.now > int64(openTimeout) {
			return fmt.Errorf("the attack does not stand after %v: %s", openTimeout, &c.outcome)
		}
	}
	return c.drain()
}

// acts has the tactic act, once it may.
func (c *crowd) acts() {
	if c.cfg.Begin != nil {
		select {
		case <-c.cfg.Begin:
			c.cfg.Begin = nil
		default:
			return
		}
	}
	c.tactic.acts()
}

// drain hears what is still under way: for a while, and longer as long as clients who behave have not had all that they should.
func (c *crowd) drain() error {
	c.opening = nil
	least, most := c.now+int64(c.cfg.scaled(int(drainTime))), c.now+int64(c.cfg.Patience)
	for c.now < least || c.now < most && c.outcome.Good < c.outcome.Expected {
		if err := c.turn(func() {}); err != nil {
			return err
		}
	}
	return nil
}

func (c *crowd) shutdown() {
	for _, cl := range c.clients {
		if cl.state == live && !cl.inPacket {
			_, _ = epoll.Write(cl.fd, []byte{0xe0, 0}) // DISCONNECT; whether it arrives does not matter
		}
		c.release(cl)
	}
	c.poll.Close()
}

// turn waits, reads, acts and writes.
func (c *crowd) turn(acts func()) error {
	wait := turnMax
	if len(c.dirty) > 0 {
		wait = 0
	}
	n, err := c.poll.Wait(wait)
	if err != nil {
		return fmt.Errorf("epoll_wait: %w", err)
	}
	c.now = int64(time.Since(c.base))
	for i := range n {
		token, is := c.poll.Event(i)
		if token < 0 {
			continue
		}
		cl := c.clients[token]
		if is.CanWrite() && cl.state != closed {
			c.writable(cl)
		}
		if is.CanRead() && cl.state != closed {
			c.read(cl, len(c.in))
		}
	}
	for len(c.opening) > 0 && c.underWay < openingMax {
		cl := c.opening[0]
		c.opening, cl.waits = c.opening[1:], false
		if err := c.connect(cl); err != nil {
			return err
		}
	}
	acts()
	c.flushAll()
	c.used.Store(int64(epoll.ThreadCPU()))
	return nil
}

// draw is the next number of a sequence that Config.Seed determines (xorshift64).
func (c *crowd) draw() uint64 {
	c.random ^= c.random << 13
	c.random ^= c.random >> 7
	c.random ^= c.random << 17
	return c.random
}

// below draws a number from 0 to n-1.
func (c *crowd) below(n int) int { return int(c.draw() >> 1 % uint64(n)) }

// pace says how often something has become due at an even rate.
type pace struct {
	perSecond float64
	since     int64
	done      int64
	started   bool
}

// burstMax bounds what a pace makes up for after a pause.
const burstMax = 100 * time.Millisecond

// due is how many are due now; they count as done.
func (p *pace) due(now int64) int {
	if !p.started {
		p.started, p.since, p.done = true, now, 0
	}
	n := int64(float64(now-p.since)*p.perSecond/1e9) - p.done
	if most := int64(max(1, p.perSecond*burstMax.Seconds())); n > most {
		p.since, p.done = now, 0 // what was missed is not made up for
		return int(most)
	}
	p.done += n
	return int(n)
}
