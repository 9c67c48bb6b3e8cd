package conform

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/ringmq/ringmq/broker/packet"
)

// Plan is which checks to play, and how.
type Plan struct {
	Options
	// Parallel is how many checks play at once, against a Target that several goroutines may use.
	Parallel int
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

// Run plays the checks of a plan and tells each result to done, which may be nil and is called by one goroutine at a time.
// An error says that they could not be played at all.
func Run(ctx context.Context, target Target, plan Plan, done func(Result)) ([]Result, error) {
	checks, err := plan.chosen()
	if err != nil {
		return nil, err
	}
	probe, err := target.Dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	_ = probe.Close()
	var mutex sync.Mutex // guards next and results, and calls of done
	next, results := 0, make([]Result, len(checks))
	var players sync.WaitGroup
	for range max(plan.Parallel, 1) {
		players.Go(func() {
			for {
				mutex.Lock()
				i := next
				next++
				mutex.Unlock()
				if i >= len(checks) || ctx.Err() != nil {
					return
				}
				result := Play(ctx, target, checks[i], i, plan.Options)
				mutex.Lock()
				results[i] = result
				if done != nil {
					done(result)
				}
				mutex.Unlock()
			}
		})
	}
	players.Wait()
	return results, ctx.Err()
}
