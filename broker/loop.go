package broker

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	writeSlices  = 64 // slices per Write
	lastReads    = 16 // from a connection that a write has found broken
	flushPasses  = 4  // times one turn goes over the connections to flush, while sending makes room for more
	writesPerRun = 16 // writes to one connection before others get their turn
	// shortRead is what is read of a connection in bytes while memory is used up: what comes of it, to be answered or to wait, takes
	// a few of the pages that a shard keeps for all its connections.
	shortRead = 2 * pageSize
)

// Loop drives one Shard on one Plane: it alone calls either, from one goroutine. It is the only part of the engine that
// waits, and the only one that knows the time.
type Loop struct {
	shard *Shard
	plane Plane
	clock func() int64 // milliseconds since the broker started
	peers []*Loop

	lock bool    // stay on one OS thread
	late Laggard // nil: the plane is none
	lag  int64   // milliseconds
	vec  [][]byte
	busy bool // the next turn must not sleep

	parting []uint32 // scratch of part

	sleeping atomic.Bool // written by the Loop before it waits; read by those who have sent it something

	mu    sync.Mutex // guards inbox
	inbox []func(*Shard)
	taken []func(*Shard)
}

// Do runs f on the Loop's goroutine, with its Shard, soon. Any goroutine may call it.
func (l *Loop) Do(f func(*Shard)) {
	l.mu.Lock()
	l.inbox = append(l.inbox, f)
	l.mu.Unlock()
	l.wake()
}

// Committed brings the store's answer to a Commit of this Loop's shard.
func (l *Loop) Committed(ops []byte) { l.Do(func(s *Shard) { s.Committed(ops) }) }

// Loaded brings the store's answer to a Load of this Loop's shard.
func (l *Loop) Loaded(r Loaded) { l.Do(func(s *Shard) { s.Loaded(r) }) }

// Authenticated brings the answer to an AuthRequest of this Loop's shard.
func (l *Loop) Authenticated(r AuthResult) { l.Do(func(s *Shard) { s.Authenticated(r) }) }

func (l *Loop) wake() {
	if l.sleeping.Load() {
		l.plane.Wake()
	}
}

// run turns until stop is closed or the plane fails.
func (l *Loop) run(stop <-chan struct{}) error {
	if l.lock {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
	}
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		if err := l.Turn(-1); err != nil {
			return fmt.Errorf("shard %d: %w", l.shard.id, err)
		}
	}
}

// IsBusy says whether the last turn has left something for the next one. For who drives the Loop; it must not run.
func (l *Loop) IsBusy() bool { return l.busy }

// Turn waits until there is something to do, but no longer than most (negative: no limit), and does it.
func (l *Loop) Turn(most time.Duration) error {
	s := l.shard
	events, err := l.plane.Wait(l.timeout(most))
	l.sleeping.Store(false)
	if err != nil {
		return err
	}
	s.BeginTurn(l.clock())
	l.part()
	l.busy = s.Exchange() || s.IsParting()
	l.takeInbox()
	for _, id := range s.Behind() {
		l.retry(id)
	}
	for i := range events {
		l.handle(&events[i])
		if s.pool.isLow() {
			l.flush() // What was answered so far makes room for what the next one is answered.
		}
	}
	for _, id := range s.Stalled() {
		l.retry(id)
	}
	s.Tick(s.now)
	l.busy = s.Pump() || len(s.yielded) > 0 || l.busy
	s.Persist()
	l.flush()
	l.busy = l.busy || s.mayPersist()
	l.plane.Flush()
	s.Wakes(func(to int) { l.peers[to].wake() })
	return nil
}

// part reads what is there of connections whose Sessions leave, and lets them. They are those that the last turn's exchange
// named: Wait has taken since then what their clients had sent before, or takes it within the plane's lag.
func (l *Loop) part() {
	l.parting = l.shard.Parting(l.parting[:0])
	for _, id := range l.parting {
		l.read(id)
	}
	l.shard.Part(l.lag, l.late != nil && !l.late.CaughtUp())
}

// timeout is how long the next Wait may last. Having said that it sleeps, the Loop looks once more whether anything was
// sent to it, for who sends looks at sleeping afterwards.
func (l *Loop) timeout(most time.Duration) time.Duration {
	if l.busy {
		return 0
	}
	l.sleeping.Store(true)
	if l.shard.Pending() || l.hasInbox() {
		l.sleeping.Store(false)
		return 0
	}
	left := max(0, time.Duration(l.shard.Deadline()-l.clock())*time.Millisecond)
	if most >= 0 && most < left {
		return most
	}
	return left
}

func (l *Loop) hasInbox() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.inbox) > 0
}

func (l *Loop) takeInbox() {
	l.mu.Lock()
	l.inbox, l.taken = l.taken[:0], l.inbox
	l.mu.Unlock()
	for i, f := range l.taken {
		f(l.shard)
		l.taken[i] = nil
	}
}

func (l *Loop) handle(e *Event) {
	s := l.shard
	switch {
	case e.Kind&Accepted != 0:
		t := s.Accept(e.Conn, e.Listener)
		if t == 0 {
			e.Conn.Close()
			return
		}
		e.Conn.SetToken(t)
	case e.Kind&AcceptFailed != 0:
		s.counters[CounterAcceptFailed]++
		s.event(LogEvent{Kind: EventAcceptFailed, Text: e.Err.Error()})
	default:
		id := s.connOf(e.Token)
		if id == 0 {
			return
		}
		if e.Kind&Readable != 0 {
			l.read(id)
		}
		if e.Kind&Hangup != 0 {
			l.lose(id, lostBy(e.Err))
			return
		}
		if e.Kind&Writable != 0 {
			s.conns[id].clear(connBlocked)
			s.touch(id)
		}
	}
}

// hearOut reads what came before a write found the connection broken: a DISCONNECT among it deletes the Will
// [MQTT-3.14.4-3]. It reads no more than the connection may leave unconsumed.
func (l *Loop) hearOut(id uint32) {
	c := &l.shard.conns[id]
	for n := 0; n < lastReads && !l.shard.wantsPause(c) && !c.isBehind() && l.read(id); n++ {
	}
}

// lose ends a connection that is broken, behind what it has yielded with: a DISCONNECT may stand there.
func (l *Loop) lose(id uint32, why string) {
	if c := &l.shard.conns[id]; c.isBehind() {
		c.set(connEnded)
		return
	}
	l.shard.Closed(id, why)
	l.shard.settle()
}

// read makes one read behind what the connection has left over, and gives the shard all of it. It tells whether anything
// came.
func (l *Loop) read(id uint32) bool {
	s := l.shard
	if c := &s.conns[id]; c.state == connClosing || c.state == connReleased || c.is(connPaused) || s.draining && c.is(connYielded) {
		return false
	}
	buf := l.plane.Buffer()
	kept := s.Carry(id, buf)
	if kept == len(buf) {
		s.Receive(id, buf, 0)
		return false
	}
	room := buf[kept:]
	if !s.pool.mayTake() {
		room = room[:min(len(room), shortRead)]
	}
	n, err := s.refs[id].net.Read(room)
	if n > 0 || errors.Is(err, ErrWouldBlock) {
		s.Receive(id, buf[:kept+n], n)
		return n > 0
	}
	ended := errors.Is(err, io.EOF)
	if kept > 0 {
		// What came before the end still counts, a DISCONNECT behind a stalled PUBLISH above all.
		if ended {
			s.conns[id].set(connEnded)
		}
		s.Receive(id, buf[:kept], 0)
		if ended {
			return false
		}
	}
	why := closedByClient
	if !ended {
		why = lostBy(err)
	}
	l.lose(id, why)
	return false
}

// lostBy is why a Session ends whose connection broke, of what the plane knows.
func lostBy(err error) string {
	if err == nil {
		return "connection lost"
	}
	return "connection lost: " + err.Error()
}

// retry offers a connection's unconsumed input again.
func (l *Loop) retry(id uint32) {
	buf := l.plane.Buffer()
	n := l.shard.Carry(id, buf)
	l.shard.Receive(id, buf[:n], 0)
}

// flush writes what the turn has produced, once per connection, and again where that made room for more.
func (l *Loop) flush() {
	for range flushPasses {
		dirty := l.shard.Dirty()
		if len(dirty) == 0 {
			return
		}
		for _, id := range dirty {
			l.flushConn(id)
		}
	}
	l.busy = l.busy || len(l.shard.dirty) > 0
}

func (l *Loop) flushConn(id uint32) {
	s := l.shard
	c := &s.conns[id]
	c.clear(connDirty)
	if c.outHead != 0 && !c.is(connBlocked) && c.state != connReleased && !l.write(id, c) {
		l.hearOut(id)
		l.lose(id, "connection lost while writing")
	}
	if c.state == connClosing && c.outHead == 0 {
		s.release(id)
	}
	if c.state == connReleased {
		if c.is(connDirty) {
			return // on the list again: the next pass lets go of it, when no list holds its number
		}
		s.refs[id].net.Close()
		s.free(id)
		return
	}
	if pause := s.wantsPause(c); pause != c.is(connPaused) {
		if pause {
			c.set(connPaused)
			s.refs[id].net.Pause()
		} else {
			c.clear(connPaused)
			s.refs[id].net.Resume()
		}
	}
}

// write sends what a connection has to send, as far as the plane takes it; false when the connection is broken.
func (l *Loop) write(id uint32, c *conn) bool {
	s := l.shard
	for range writesPerRun {
		l.vec = s.Gather(id, l.vec[:0])
		total := 0
		for _, b := range l.vec {
			total += len(b)
		}
		n, err := s.refs[id].net.Write(l.vec)
		if err != nil {
			return false
		}
		s.Sent(id, n)
		if n < total {
			c.set(connBlocked)
			break
		}
		if c.outHead == 0 {
			break
		}
	}
	if c.outHead != 0 && !c.is(connBlocked) {
		s.touch(id)
	}
	if c.state == connLive {
		s.Drained(id)
	}
	return true
}

// wantsPause says whether a connection is not to be read now: it is being decided on, holds as much unconsumed input as
// it may, or does not take the acknowledgements of what it sends.
func (s *Shard) wantsPause(c *conn) bool {
	switch c.state {
	case connAuth, connClaim, connClosing:
		return true
	}
	return c.carryLen >= carryMax || c.is(connEnded) || c.is(connStalled) && c.asmNeed != 0 || int(c.outBytes) > 2*s.limits.MaxOutboundBytes
}
