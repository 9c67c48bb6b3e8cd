package conform

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
)

// Plan is which checks to play, and how.
type Plan struct {
	Options
	// Parallel is how many checks play at once, against a Target that several goroutines may use.
	Parallel int
	// Revival is how long a broker that has gone may take to come back.
	Revival time.Duration
	// Versions and Statements choose checks; empty means all. A statement is written as MQTT-3.1.0-1.
	Versions   []packet.Version
	Statements []string
}

// chosen are the checks of a plan.
func (p Plan) chosen() ([]Check, error) {
	all, err := Checks()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(c Check) bool {
		if len(p.Versions) > 0 && !slices.Contains(p.Versions, c.Version) {
			return true
		}
		return len(p.Statements) > 0 && !slices.ContainsFunc(p.Statements, func(id string) bool { return slices.Contains(c.Statements, id) })
	}), nil
}

// run is a plan under way.
type run struct {
	ctx    context.Context
	target Target
	plan   Plan

	mutex   sync.Mutex
	next    int // guarded by mutex, and so is what follows
	results []Result
	isLost  bool // the broker has gone and did not come back
}

// Run plays the checks of a plan. A check in which the broker went, or harmed a client that only looked on, is played again by
// itself once the broker is back, for in the first round several play at once; what cannot be played is Unplayed. An error says
// that nothing could be played at all.
func Run(ctx context.Context, target Target, plan Plan) ([]Result, error) {
	checks, err := plan.chosen()
	if err != nil {
		return nil, err
	}
	probe, err := target.Dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	_ = probe.Close()
	r := &run{ctx: ctx, target: target, plan: plan}
	for _, c := range checks {
		r.results = append(r.results, Result{Check: c, Outcome: Unplayed, Problem: "the broker went before, and did not come back"})
	}
	var players sync.WaitGroup
	for range max(plan.Parallel, 1) {
		players.Go(r.play)
	}
	players.Wait()
	r.again()
	return r.results, ctx.Err()
}

// play plays one check after another until none is left.
func (r *run) play() {
	for {
		r.mutex.Lock()
		i, isLost := r.next, r.isLost
		r.next++
		r.mutex.Unlock()
		if i >= len(r.results) || isLost || r.ctx.Err() != nil {
			return
		}
		result := Play(r.ctx, r.target, r.results[i].Check, i, r.plan.Options)
		isBack := !result.gone || r.revived()
		r.mutex.Lock()
		r.results[i] = result
		r.isLost = r.isLost || !isBack
		r.mutex.Unlock()
	}
}

// again plays by itself what went wrong for others too.
func (r *run) again() {
	for i := range r.results {
		if !r.results[i].gone || r.ctx.Err() != nil {
			continue
		}
		if r.isLost && r.plan.Parallel > 1 {
			r.results[i].Outcome = Unplayed
			r.results[i].Problem = "the broker went during this one or another that was played at the same time; --parallel 1 tells which"
		}
		if r.isLost {
			continue
		}
		r.results[i] = Play(r.ctx, r.target, r.results[i].Check, len(r.results)+i, r.plan.Options)
		r.isLost = r.results[i].gone && !r.revived()
	}
}

// revivalPoll is how often a broker that has gone is looked for.
const revivalPoll = 50 * time.Millisecond

// revived waits until the broker can be reached.
func (r *run) revived() bool {
	for end := time.Now().Add(r.plan.Revival); ; {
		c, err := r.target.Dial(r.ctx)
		if err == nil {
			_ = c.Close()
			return true
		}
		if time.Now().After(end) || r.target.Pass(r.ctx, revivalPoll) != nil {
			return false
		}
	}
}
