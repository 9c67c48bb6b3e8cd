package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/ringmq/ringmq/perf/load"
)

const (
	// halfBusy is what victims at half of the capacity leave of the machine, and what they take.
	halfBusy = 0.5
	// probeTime is how long one rate is tried, after probeWarmUp.
	probeTime   = 1500 * time.Millisecond
	probeWarmUp = 500 * time.Millisecond
	// probeFirst is the first rate that is tried, in messages per second; each further one is probeStep times the one before.
	probeFirst = 4000
	probeStep  = 1.25
	// kneeLatency is a p99 that says that messages have waited in a queue: the machine does not carry that rate, busy or not.
	kneeLatency = 10 * time.Millisecond
	// probeTries: a rate is not carried when it was so often not carried, for the machine may have had something else to do.
	probeTries = 2
)

// probe is one rate that was tried: what it took of the machine.
type probe struct {
	rate, busy float64
	carried    bool
}

// calibrate finds the rate of an open loop that takes half of the machine's processor time while nobody attacks: half of what
// broker, kernel and victims can do together. Half of what a closed loop carries is no half: it sends in batches, as it gets time,
// and one message by one each costs several times as much. Neither is half of the rate at which an open loop's queues
// begin to grow: it batches as well when it is late.
func (o *overloader) calibrate(ctx context.Context) error {
	s, address, err := o.startBroker(ctx, "")
	if err != nil {
		return err
	}
	defer s.stop()
	run := func(rate float64) (load.Result, error) {
		cfg := o.victims(rate)
		cfg.Target, cfg.PID, cfg.Duration, cfg.WarmUp = address, s.command.Process.Pid, probeTime, probeWarmUp
		return load.Run(ctx, cfg, nil)
	}
	if o.rate == 0 {
		o.rate, err = o.findHalf(run)
	}
	if err == nil {
		o.half, err = run(o.rate)
	}
	if err != nil {
		return fmt.Errorf("calibration: %w", err)
	}
	fmt.Fprintf(os.Stderr, "%-8s half of the capacity: %.0f messages/s take %s\n", o.mode, o.rate, takes(&o.half))
	return nil
}

// findHalf tries rates, and tells of each.
func (o *overloader) findHalf(run func(rate float64) (load.Result, error)) (float64, error) {
	return halfRate(func(rate float64) (probe, error) {
		r, err := run(rate)
		fmt.Fprintf(os.Stderr, "%-8s %6.0f messages/s take %s\n", o.mode, rate, takes(&r))
		return probe{rate, r.MachineShare(), r.Clean() && r.PerSecond >= keptMin*rate && r.Latency.P99 <= kneeLatency}, err
	})
}

// takes says what a run has taken of the machine.
func takes(r *load.Result) string {
	return fmt.Sprintf("%.0f %% of the machine (of one processor: broker %.0f %%, victims %.0f %%), p99 %s, lost %d", 100*r.MachineShare(),
		100*r.TargetShare(), 100*r.GeneratorShare(), milliseconds(r.Latency.P99), r.Lost)
}

// halfRate climbs to the rate that takes half of the machine, or to the last one that is carried.
func halfRate(try func(rate float64) (probe, error)) (float64, error) {
	var last probe
	for rate := float64(probeFirst); ; rate *= probeStep {
		p, err := try(rate)
		for again := 1; again < probeTries && err == nil && (!p.carried || p.busy >= halfBusy); again++ {
			p, err = try(rate)
		}
		switch {
		case err != nil:
			return 0, fmt.Errorf("at %.0f messages/s: %w", rate, err)
		case (!p.carried || p.busy >= halfBusy) && last.rate == 0:
			return 0, fmt.Errorf("%.0f messages/s are too many for half of this machine: what else is running?", rate)
		case !p.carried:
			return last.rate, nil
		case p.busy >= halfBusy:
			return last.rate + (p.rate-last.rate)*(halfBusy-last.busy)/(p.busy-last.busy), nil
		}
		last = p
	}
}
