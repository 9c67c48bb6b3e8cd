package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/ringmq/ringmq/perf/load"
	"github.com/ringmq/ringmq/perf/overload"
)

const (
	// victimPairs is how many pairs are victims, and how many find out what the machine can do.
	victimPairs = 100
	// countersTime is how long the broker's counters may be behind: shards publish them once a second.
	countersTime = 1200 * time.Millisecond
	// endPatience is what an attack that has an end may take beyond the victims' run, for every second of that.
	endPatience = 6
)

// trial is one run of the victims: with the aggressor at the broker, or at the sink, or with those of its crowd that do no harm.
type trial struct {
	Round    int              `json:"round"`
	Scenario string           `json:"scenario"`
	Attacked bool             `json:"attacked"`
	Victims  load.Result      `json:"victims"`
	Outcome  overload.Outcome `json:"outcome"`
	shares
	Moved   map[string]int64 `json:"moved"`
	Peak    int64            `json:"peak_bytes"`
	Planned int64            `json:"planned_bytes"`
	Wrong   []string         `json:"wrong,omitempty"`
	Failure string           `json:"failure,omitempty"`
}

// overloader is one call of `perf overload` in one mode.
type overloader struct {
	assault
	rounds    int
	seconds   float64
	qos       int
	alone     bool
	rate      float64     // of the victims' messages per second: half of the capacity
	half      load.Result // of that rate, without anybody else
	scenarios []*overload.Scenario
	done      []trial
}

func scenarioName(s *overload.Scenario) string { return s.Name }

// runOverload is `perf overload`.
func runOverload(ctx context.Context, args []string) error {
	var o overloader
	flags := flag.NewFlagSet("perf overload", flag.ContinueOnError)
	o.flags(flags)
	names := flags.String("scenario", "all", "all, or some of "+namesOf(overload.Scenarios(), scenarioName))
	flags.IntVar(&o.rounds, "rounds", 3, "how often each scenario is run, with and without; medians are shown")
	flags.Float64Var(&o.seconds, "seconds", 10, "length of each measured part")
	flags.Float64Var(&o.rate, "rate", 0, "of the victims, in messages per second (0: what takes half of the machine)")
	flags.IntVar(&o.qos, "qos", 0, "of the victims' messages")
	flags.BoolVar(&o.alone, "alone", false, "the attack only, without its control: for a long one, of which memory and loss are asked")
	check := flags.Bool("check", false, "only what is answered, each scenario in small: no figures, no control")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	if o.scenarios, err = pick(*names, overload.Scenarios(), scenarioName); err != nil {
		return err
	}
	if o.rounds < 1 || o.seconds <= 0 || o.rate < 0 || o.qos < 0 || o.qos > 2 {
		return errors.New("overload: want --rounds and --seconds above zero, --rate not below it, and --qos 0, 1 or 2")
	}
	if elsewhere, err := o.elsewhere(ctx, "overload", args); elsewhere {
		return err
	}
	tidy, err := o.prepare(ctx)
	if err != nil {
		return err
	}
	defer tidy()
	if *check {
		return o.check(ctx)
	}
	return o.run(ctx)
}

// run interleaves: each round goes through all scenarios, each with the control run first.
func (o *overloader) run(ctx context.Context) error {
	if err := o.calibrate(ctx); err != nil {
		return err
	}
	for round := range o.rounds {
		for _, s := range o.scenarios {
			for _, attacked := range []bool{false, true} {
				if o.alone && !attacked {
					continue
				}
				t := o.tryUndisturbed(ctx, s, round, attacked)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				o.done = append(o.done, t)
			}
		}
	}
	bad := o.print(os.Stdout)
	if err := writeJSON(o.jsonFile, o.done); err != nil {
		return err
	}
	if bad > 0 {
		return fmt.Errorf("overload in %s mode: %d of %d scenarios are not as promised", o.mode, bad, len(o.scenarios))
	}
	return nil
}

// tryUndisturbed tries again when strangers have used the machine, and takes the last trial whatever they did.
func (o *overloader) tryUndisturbed(ctx context.Context, s *overload.Scenario, round int, attacked bool) (t trial) {
	for range disturbedTries {
		t = trial{Round: round, Scenario: s.Name, Attacked: attacked}
		if err := o.try(ctx, s, &t); err != nil {
			t.Failure = err.Error()
		}
		if ctx.Err() == nil {
			o.tell(&t)
		}
		if t.Strangers <= strangersMax || ctx.Err() != nil {
			break
		}
	}
	return t
}

// tell says how a trial went while others are still to come.
func (o *overloader) tell(t *trial) {
	who := "control"
	if t.Attacked {
		who = "attack"
	}
	fmt.Fprintf(os.Stderr, "%-8s round %d  %-8s %-7s kept %.3f  lost %d  p50 %v  p99 %v  peak %d MiB  machine %.0f %% (broker %.0f, victims %.0f, aggressor %.0f, sink %.0f, strangers %.0f of one)  %s  %s %s\n", o.mode, t.Round+1,
		t.Scenario, who, o.kept(t), t.Victims.Lost, t.Victims.Latency.P50.Round(time.Microsecond), t.Victims.Latency.P99.Round(time.Microsecond),
		t.Peak>>20, 100*t.Victims.MachineShare(), 100*t.Victims.TargetShare(), 100*t.Victims.GeneratorShare(), 100*t.Aggressor, 100*t.Sink, 100*t.Strangers, &t.Outcome, t.Failure, strings.Join(t.Wrong, "; "))
}

// victims are pairs at a fixed rate, or in a closed loop when it is zero.
func (o *overloader) victims(rate float64) load.Config {
	cfg := load.Config{Connections: victimPairs, QoS: byte(o.qos), Rate: rate, Duration: time.Duration(o.seconds * float64(time.Second)),
		WarmUp: time.Second, ProgressInterval: 50 * time.Millisecond, WholeMachine: true, Unhurried: true}
	if o.loadCPU >= 0 {
		cfg.CPUs = []int{o.loadCPU}
	}
	return cfg
}

// try runs one trial: a fresh broker, the aggressor, then the victims.
func (o *overloader) try(ctx context.Context, sc *overload.Scenario, t *trial) error {
	s, address, err := o.startBroker(ctx, sc.Settings)
	if err != nil {
		return err
	}
	defer s.stop()
	attacked := address
	var sink *server
	if !t.Attacked && !sc.Beside {
		if sink, attacked, err = o.startSink(ctx); err != nil {
			return err
		}
		defer sink.stop()
	}
	before, err := o.ask(ctx)
	if err != nil {
		return err
	}
	cfg := o.aggressor(attacked)
	cfg.Harmless = !t.Attacked && sc.Beside
	cfg.Long = time.Duration(o.seconds * float64(time.Second))
	if t.Attacked {
		cfg.Patience = checkPatience
	}
	victims, connected := o.victims(o.rate), begins(sc, &cfg)
	attack, err := overload.Start(ctx, sc, cfg)
	if err != nil {
		return err
	}
	victims.Target, victims.PID = address, s.command.Process.Pid
	limited, cancel := context.WithTimeout(ctx, victims.Duration+runReserve)
	defer cancel()
	meter := startMeter(s, sink, attack)
	t.Victims, err = load.Run(limited, victims, connected)
	t.shares = meter.stop()
	patience := time.Duration(0)
	if sc.Ends && t.Attacked {
		patience = endPatience*cfg.Long + runReserve
	}
	var attackErr error
	t.Outcome, attackErr = attack.Stop(patience)
	time.Sleep(countersTime)
	return errors.Join(err, attackErr, o.judge(ctx, s, sc, t, before))
}

// begins has an attack that comes late wait until the victims are connected, of which the function that it returns is told.
func begins(sc *overload.Scenario, cfg *overload.Config) func(load.Progress) {
	if !sc.Late {
		return nil
	}
	begin := make(chan struct{})
	cfg.Begin = begin
	once := sync.OnceFunc(func() { close(begin) })
	return func(p load.Progress) {
		if p.Phase != load.Connecting {
			once()
		}
	}
}

// judge asks the broker what has become of it.
func (o *overloader) judge(ctx context.Context, s *server, sc *overload.Scenario, t *trial, before report) error {
	after, err := o.ask(ctx)
	if err != nil {
		return err
	}
	t.Moved = map[string]int64{}
	for name, n := range after.Counters {
		if n != before.Counters[name] {
			t.Moved[name] = n - before.Counters[name]
		}
	}
	t.Planned = after.PlannedBytes
	if t.Attacked {
		t.Wrong = sc.Wrong(&t.Outcome, t.Moved)
	}
	t.Peak, err = load.PeakMemory(s.command.Process.Pid)
	return err
}

// kept is the part of the victims' rate that was delivered.
func (o *overloader) kept(t *trial) float64 { return t.Victims.PerSecond / o.rate }
