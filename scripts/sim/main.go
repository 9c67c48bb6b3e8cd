// Command sim plays brokers from seeds (package broker/sim): many, one, or a script that an earlier run has printed. A seed
// that violates a rule of MQTT is played again, which must give the same trace, shrunk, and printed as a script.
//
//	go run ./scripts/sim                      300 seeds
//	go run ./scripts/sim -from 1000 -seeds 20000 -jobs 2
//	go run ./scripts/sim -seed 34
//	go run ./scripts/sim -script failing.txt
//	go run ./scripts/sim -bugs                planted bugs, and how many seeds find each
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/sim"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// command is what the command line asks for.
type command struct {
	from, seeds uint64
	seed        int64
	jobs        int
	script      string
	shrink      int
	quiet       bool
	bugs        bool
	bugFolder   string
	root        string
}

// Exit statuses beside 0.
const (
	statusViolated = 1
	statusUsage    = 2
)

func run(ctx context.Context, args []string, out, errs io.Writer) int {
	var c command
	f := flag.NewFlagSet("sim", flag.ContinueOnError)
	f.SetOutput(errs)
	f.Uint64Var(&c.from, "from", 0, "first seed")
	f.Uint64Var(&c.seeds, "seeds", 300, "how many seeds")
	f.Int64Var(&c.seed, "seed", -1, "play this seed only")
	f.IntVar(&c.jobs, "jobs", 1, "how many seeds at a time")
	f.StringVar(&c.script, "script", "", "play the script in this file")
	f.IntVar(&c.shrink, "shrink", 2000, "how many scripts shrinking may play; 0: no shrinking")
	f.BoolVar(&c.quiet, "q", false, "print nothing but the rule, the seed, and how many seeds it took")
	f.BoolVar(&c.bugs, "bugs", false, "plant every bug, one at a time, and see how many seeds find it")
	f.StringVar(&c.bugFolder, "folder", "broker/sim/testdata/bugs", "where the bugs lie, from the root")
	f.StringVar(&c.root, "root", ".", "the root of the tree")
	if err := f.Parse(args); err != nil {
		return statusUsage
	}
	if c.seed >= 0 {
		c.from, c.seeds = uint64(c.seed), 1
	}
	switch {
	case c.bugs:
		return c.plant(ctx, out, errs)
	case c.script != "":
		return c.replay(out, errs)
	}
	return c.play(ctx, out)
}

// replay plays one script.
func (c *command) replay(out, errs io.Writer) int {
	text, err := os.ReadFile(c.script)
	if err == nil {
		var s sim.Script
		if s, err = sim.Parse(string(text)); err == nil {
			r := sim.Play(s, sim.Options{})
			fmt.Fprintf(out, "trace %x\n%s\n", r.Trace, r.Counters.String())
			if r.Violation != nil {
				fmt.Fprintln(out, r.Violation)
				return statusViolated
			}
			return 0
		}
	}
	fmt.Fprintf(errs, "sim: %s: %v\n", c.script, err)
	return statusUsage
}

// found is a seed that violated a rule.
type found struct {
	seed   uint64
	result sim.Result
}

// play plays the seeds in order, several at a time, until one violates a rule.
func (c *command) play(ctx context.Context, out io.Writer) int {
	start := time.Now()
	var next, played atomic.Uint64
	var mu sync.Mutex // guards what follows
	var stats sim.Stats
	var counters broker.Counters
	var first *found
	failed := func() bool { mu.Lock(); defer mu.Unlock(); return first != nil }
	var wg sync.WaitGroup
	for range max(c.jobs, 1) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < c.seeds && ctx.Err() == nil && !failed(); i = next.Add(1) - 1 {
				r := sim.Play(sim.Generate(c.from+i), sim.Options{})
				played.Add(1)
				mu.Lock()
				stats.Add(r.Stats)
				for k := range counters {
					counters[k] += r.Counters[k]
				}
				if r.Violation != nil && (first == nil || c.from+i < first.seed) {
					first = &found{c.from + i, r}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if first != nil {
		c.tell(out, first, played.Load())
		return statusViolated
	}
	if !c.quiet {
		fmt.Fprintf(out, "%d seeds from %d on in %v: nothing violated\n%+v\n%s\n", played.Load(), c.from, time.Since(start).Round(time.Millisecond), stats, counters.String())
	}
	return 0
}

// tell plays a seed that violated a rule again and prints the shortest script that does.
func (c *command) tell(out io.Writer, f *found, played uint64) {
	v := f.result.Violation
	if c.quiet {
		fmt.Fprintf(out, "%s\t%d\t%d\n", v.Rule, f.seed, played)
		return
	}
	fmt.Fprintf(out, "# seed %d: %v\n", f.seed, v)
	s := sim.Generate(f.seed)
	if again := sim.Play(s, sim.Options{}); again.Trace != f.result.Trace {
		fmt.Fprintf(out, "# NOT REPRODUCIBLE: trace %x, and then %x\n", f.result.Trace, again.Trace)
	}
	if c.shrink > 0 {
		s = sim.Shrink(s, v.Rule, c.shrink)
	}
	fmt.Fprintf(out, "# %d Ops; go run ./scripts/sim -script FILE\n%s# %v\n", len(s), s, sim.Play(s, sim.Options{}).Violation)
}
