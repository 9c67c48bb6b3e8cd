package overload

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/perf/epoll"
)

// Outcome is what an aggressor has seen.
type Outcome struct {
	Opened        int64            `json:"opened"`    // connections that got a Session
	Closed        int64            `json:"closed"`    // connections that the broker ended, or the network
	Answers       map[string]int64 `json:"answers"`   // failures that the broker has told, such as "DISCONNECT 0x95"
	Sent          int64            `json:"sent"`      // whatever the scenario counts: messages, filters, bytes
	Expected      int64            `json:"expected"`  // messages that clients who behave should have had
	Received      int64            `json:"received"`  // messages that came to any of the clients
	Good          int64            `json:"good"`      // of these, what came to clients who behave
	HeldBack      int64            `json:"held_back"` // times that the broker's back-pressure stopped a sender
	BytesReceived int64            `json:"bytes_received"`
	// Complete says of an attack that has an end whether it has reached it.
	Complete bool `json:"complete"`
}

// answer counts a Reason Code. Success is what everybody expects.
func (o *Outcome) answer(kind string, r packet.Reason) {
	if r != packet.Success {
		o.Answers[fmt.Sprintf("%s 0x%02X", kind, uint8(r))]++
	}
}

// String is the outcome in short, for a table.
func (o *Outcome) String() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(o.Answers)) {
		parts = append(parts, fmt.Sprintf("%d %s", o.Answers[name], name))
	}
	if o.Closed > 0 {
		parts = append(parts, fmt.Sprintf("%d closed", o.Closed))
	}
	if o.Expected > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d delivered", o.Good, o.Expected))
	}
	if o.HeldBack > 0 {
		parts = append(parts, fmt.Sprintf("held back %d times", o.HeldBack))
	}
	return strings.Join(append(parts, fmt.Sprintf("%d opened, %d sent", o.Opened, o.Sent)), ", ")
}

// Scenario is one kind of overload and what is promised of it.
type Scenario struct {
	Name string
	Says string
	// Policy is the broker's answer in words.
	Policy string
	// Settings are lines of the broker's configuration that the scenario needs.
	Settings string
	// Counters must have moved in the broker when the attack is over, each of them.
	Counters []string
	// Least is by how much a counter must have moved that moves with the victims, too.
	Least map[string]int64
	// Answers are the failures that the aggressor must have been told, and Allowed those that it may have been told; others
	// are wrong.
	Answers, Allowed []string
	// Ends says that the attack has an end, which it must reach.
	Ends bool
	// check judges the rest of the outcome; nil: nothing more.
	check func(o *Outcome) string
	// Beside says that most of the crowd does no harm, and is there in the control, too: at the broker, without those who do.
	Beside bool
	// Late says that it begins when others are connected already, whom the limit that it meets would turn away, too.
	Late bool
	// make makes the tactic.
	make func() tactic
}

// Wrong says what is not as promised; moved are the broker's counters, by how much each has moved.
func (s *Scenario) Wrong(o *Outcome, moved map[string]int64) (wrong []string) {
	for _, name := range s.Counters {
		switch n := moved[name]; {
		case n <= 0:
			wrong = append(wrong, "counter "+name+" has not moved")
		case n < s.Least[name]:
			wrong = append(wrong, fmt.Sprintf("counter %s has moved by %d only, as it does without the aggressor", name, n))
		}
	}
	for _, name := range s.Answers {
		if o.Answers[name] == 0 {
			wrong = append(wrong, "no client was told "+name)
		}
	}
	for name := range maps.Keys(o.Answers) {
		if !slices.Contains(s.Answers, name) && !slices.Contains(s.Allowed, name) {
			wrong = append(wrong, "a client was told "+name)
		}
	}
	if s.check != nil {
		if says := s.check(o); says != "" {
			wrong = append(wrong, says)
		}
	}
	return wrong
}

// Attack is an aggressor at work.
type Attack struct {
	crowd  *crowd
	cancel context.CancelFunc
	ready  chan struct{}
	done   chan struct{}
	err    error // read after done is closed
}

// Start begins a scenario and waits until it stands. Stop ends it.
func Start(ctx context.Context, s *Scenario, cfg Config) (*Attack, error) {
	t := s.make()
	c, err := newCrowd(cfg, t)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	a := &Attack{crowd: c, cancel: cancel, ready: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(a.done)
		runtime.LockOSThread() // Never unlocked: a pinned thread must not serve other goroutines, so it ends with this one.
		if cfg.CPU >= 0 {
			if _, a.err = epoll.Pin(cfg.CPU); a.err != nil {
				return
			}
		}
		a.err = c.run(ctx, a.ready)
	}()
	select {
	case <-a.ready:
		return a, nil
	case <-a.done:
		cancel()
		if a.err == nil {
			a.err = ctx.Err()
		}
		return nil, fmt.Errorf("scenario %s: %w", s.Name, a.err)
	}
}

// ProcessorTime is what the aggressor's thread has used. Any goroutine may ask.
func (a *Attack) ProcessorTime() time.Duration { return time.Duration(a.crowd.used.Load()) }

// Stop ends the attack; one that has an end gets up to patience to reach it.
func (a *Attack) Stop(patience time.Duration) (Outcome, error) {
	defer a.cancel()
	if patience > 0 {
		a.await(patience)
	}
	a.cancel()
	<-a.done
	a.crowd.outcome.Complete = a.crowd.tactic.isDone()
	return a.crowd.outcome, a.err
}

// await waits for the end of an attack that has one. The crowd's goroutine closes done when it is there.
func (a *Attack) await(patience time.Duration) {
	select {
	case <-a.crowd.finished:
	case <-a.done:
	case <-time.After(patience):
	}
}
