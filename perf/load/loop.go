package load

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"github.com/ringmq/ringmq/perf/epoll"
)

const (
	// eventsMax is how many connections one turn serves at most; the kernel rotates through the rest.
	eventsMax = 2048
	// readBytes is the part of the read buffer beyond one whole packet: many messages in one read.
	readBytes = 256 << 10
	// writeBytes is how much the scenario adds to a connection in one turn before the others have theirs.
	writeBytes = 64 << 10
	// tickMax bounds how long a turn waits, so that cancelling, deadlines, progress and stalls are seen.
	tickMax = 50 * time.Millisecond
	// portsPerSource is what Linux's default range (32768 to 60999) offers between two addresses, less a reserve.
	portsPerSource = 28000
	// descriptorsReserve is for the poller's own, standard streams, and what the process has open besides.
	descriptorsReserve = 64
)

// scenario is what a run does on top of the loop. All calls come from the loop's goroutine.
type scenario interface {
	// run does everything, by calling the loop's turns.
	run(ctx context.Context) error
	// pacesMessages says whether single messages must not wait for Nagle's algorithm.
	pacesMessages() bool
	// opened is told that c is connected and subscribed.
	opened(c *conn) error
	// take is given what an open connection has sent: it handles the whole packets in front and says how many
	// bytes they were. b is valid during the call.
	take(c *conn, b []byte) (int, error)
	// fill appends what an open connection is to send this turn, and says whether there is more for the next.
	fill(c *conn, dst []byte) ([]byte, bool)
	// turnEnds comes between the turn's reads and its writes.
	turnEnds() error
	// lost is told that c ended; what it returns ends the run. It or run closes c.
	lost(c *conn, reason error) error
	// progress adds the scenario's counts.
	progress(p *Progress)
}

// loop owns the connections and the turns.
type loop struct {
	cfg      Config
	run      string // lgXXXXXXXX
	scenario scenario
	poll     *epoll.Poller
	conns    []conn
	dirty    []*conn // to be written at the end of this turn
	flushing []*conn // dirty's other half: the list being written
	in       []byte  // the one read buffer
	scratch  []byte  // the one write buffer

	base      time.Time
	now       int64 // nanoseconds since base, read after each wait
	sendTime  int64 // the same, read before the turn's writes
	openCount int
	spin      bool // the next turn does not wait
	sources   []netip.Addr
	sourceAt  int
	// receiveMaximum is the smallest that a CONNACK has told.
	receiveMaximum int

	phase         Phase
	report        func(Progress)
	reportedAt    int64
	reportedCount int64
}

// Run does what cfg says and returns what it found. progress, which may be nil, is called every
// ProgressInterval from Run's own goroutine and must return soon. An error that ends a run in the middle comes
// with the Result so far. Cancelling ctx ends it with ctx's error.
func Run(ctx context.Context, cfg Config, progress func(Progress)) (Result, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return Result{Config: cfg}, err
	}
	if !cfg.Target.IsValid() || cfg.Target.Port() == 0 {
		return Result{Config: cfg}, errors.New("no broker address: want ADDRESS:PORT")
	}
	result, err := Result{Config: cfg}, error(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: a pinned thread must not serve other goroutines, so it ends with this one.
		runtime.LockOSThread()
		err = runLocked(ctx, cfg, progress, &result)
	}()
	<-done
	return result, err
}

func runLocked(ctx context.Context, cfg Config, progress func(Progress), result *Result) error {
	if len(cfg.CPUs) > 0 {
		if _, err := epoll.Pin(cfg.CPUs[0]); err != nil {
			return err
		}
	}
	l, err := newLoop(cfg, progress)
	if err != nil {
		return err
	}
	defer l.shutdown()
	switch cfg.Scenario {
	case Storm:
		l.scenario = newStorm(l, result)
	case Idle:
		l.scenario = newIdle(l, result)
	case Retained:
		l.scenario = newRetained(l, result)
	default:
		l.scenario = newTraffic(l, result)
	}
	return l.scenario.run(ctx)
}

// Pin keeps the calling thread, which the caller has locked to its goroutine, on one processor, and with it all
// processes that it starts. It returns what puts the earlier set back.
func Pin(cpu int) (restore func(), err error) { return epoll.Pin(cpu) }

func newLoop(cfg Config, progress func(Progress)) (*loop, error) {
	poll, err := epoll.New(eventsMax)
	if err != nil {
		return nil, err
	}
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails
	return &loop{
		cfg: cfg, run: "lg" + hex.EncodeToString(random[:]), poll: poll, report: progress,
		in: make([]byte, readBytes+cfg.PayloadBytes), scratch: make([]byte, 0, writeBytes),
		base: time.Now(), receiveMaximum: windowMax,
	}, nil
}

// makeConns lays out count connections; each calls set to say what it is.
func (l *loop) makeConns(count int, set func(i int, c *conn)) error {
	if limit := descriptorLimit(); limit > 0 && count+descriptorsReserve > limit {
		return fmt.Errorf("%d connections need %d descriptors and the limit is %d: raise it (ulimit -n, LimitNOFILE=) or ask for fewer", count, count+descriptorsReserve, limit)
	}
	if err := l.chooseSources(count); err != nil {
		return err
	}
	l.conns = make([]conn, count)
	l.dirty, l.flushing = make([]*conn, 0, count), make([]*conn, 0, count)
	for i := range l.conns {
		c := &l.conns[i]
		c.token, c.fd = int32(i), -1
		set(i, c)
	}
	return nil
}

// chooseSources finds enough local addresses for count connections at a time.
func (l *loop) chooseSources(count int) error {
	l.sources = l.cfg.Sources
	needed := (count + portsPerSource - 1) / portsPerSource
	if target := l.cfg.Target.Addr().Unmap(); len(l.sources) == 0 && needed > 1 && target.Is4() && target.IsLoopback() {
		at := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		for range needed {
			l.sources = append(l.sources, at)
			at = at.Next()
		}
	}
	if have := max(len(l.sources), 1); have < needed {
		return fmt.Errorf("%d connections to one address need %d local addresses (%d ports each): give more sources", count, needed, portsPerSource)
	}
	return nil
}

// source is the next local address to connect from.
func (l *loop) source() netip.Addr {
	if len(l.sources) == 0 {
		return netip.Addr{}
	}
	l.sourceAt++
	return l.sources[l.sourceAt%len(l.sources)]
}

func (l *loop) shutdown() {
	for i := range l.conns {
		if c := &l.conns[i]; c.state != closed {
			if c.state == open {
				// Asked to close, a broker does not publish Will Messages or log an error; whether this arrives does not matter.
				_, _ = epoll.Write(c.fd, []byte{kindDisconnect << 4, 0})
			}
			l.close(c)
		}
	}
	l.poll.Close()
}

func (l *loop) clock() int64 { return int64(time.Since(l.base)) }

// turn waits up to timeout and serves what is ready.
func (l *loop) turn(timeout time.Duration) error {
	if len(l.dirty) > 0 || l.spin {
		timeout = 0
	}
	n, err := l.poll.Wait(timeout)
	if err != nil {
		return fmt.Errorf("epoll_wait: %w", err)
	}
	l.now = l.clock()
	for i := range n {
		token, ready := l.poll.Event(i)
		if token < 0 {
			continue
		}
		if err := l.serve(&l.conns[token], ready); err != nil {
			return err
		}
	}
	if err := l.scenario.turnEnds(); err != nil {
		return err
	}
	return l.flushAll()
}

func (l *loop) serve(c *conn, ready epoll.Ready) error {
	if ready.CanWrite() && c.state != closed {
		if err := l.writable(c); err != nil {
			return err
		}
	}
	if ready.CanRead() && c.state != closed {
		return l.readable(c)
	}
	return nil
}

// flushAll writes each connection on the list once; those with more to send go on the next turn's list.
func (l *loop) flushAll() error {
	if len(l.dirty) == 0 {
		return nil
	}
	l.sendTime = l.clock()
	l.dirty, l.flushing = l.flushing[:0], l.dirty
	for _, c := range l.flushing {
		c.dirty = false
		if err := l.flush(c); err != nil {
			return err
		}
	}
	return nil
}

// until turns the loop until done says so or the loop's time reaches deadline, and says whether it was done.
func (l *loop) until(ctx context.Context, deadline int64, done func() bool) (bool, error) {
	for !done() {
		if l.now >= deadline {
			return false, nil
		}
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err := l.turn(min(time.Duration(deadline-l.now), tickMax)); err != nil {
			return false, err
		}
		l.reportProgress()
	}
	return true, nil
}

// openAll opens every connection, Parallel at a time, and says how long that took.
func (l *loop) openAll(ctx context.Context) (time.Duration, error) {
	l.phase, l.now = Connecting, l.clock()
	began, started, count := l.now, 0, len(l.conns)
	deadline := began + int64(l.cfg.ConnectTimeout)
	for l.openCount < count {
		for started < count && started-l.openCount < l.cfg.Parallel {
			if err := l.connect(&l.conns[started]); err != nil {
				return 0, err
			}
			started++
		}
		done, err := l.until(ctx, deadline, func() bool {
			return l.openCount == count || started < count && started-l.openCount < l.cfg.Parallel
		})
		if err != nil {
			return 0, err
		}
		if !done {
			return 0, fmt.Errorf("only %d of %d connections were open after %v: is the broker overloaded, or limited to fewer?", l.openCount, count, l.cfg.ConnectTimeout)
		}
	}
	return time.Duration(l.now - began), nil
}

// reportProgress calls the user's function when it is time to.
func (l *loop) reportProgress() {
	if l.report == nil || l.now-l.reportedAt < int64(l.cfg.ProgressInterval) {
		return
	}
	p := Progress{Phase: l.phase, Elapsed: time.Duration(l.now), Connections: l.openCount}
	l.scenario.progress(&p)
	p.PerSecond = float64(p.Delivered-l.reportedCount) / (float64(l.now-l.reportedAt) / 1e9)
	l.reportedAt, l.reportedCount = l.now, p.Delivered
	l.report(p)
}
