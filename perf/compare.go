package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/ringmq/ringmq/perf/load"
)

// runReserve is what one run may take beyond its measured part: opening, warm-up, draining.
const runReserve = 2 * time.Minute

// measurement is one run of one target under one load.
type measurement struct {
	Round      int          `json:"round"`
	Scenario   string       `json:"scenario"`
	Target     string       `json:"target"`
	Result     *load.Result `json:"result,omitempty"`
	Failure    string       `json:"failure,omitempty"`
	comparison comparison
}

// comparer is one call of `perf compare`.
type comparer struct {
	overrides
	place
	rounds    int
	brokerCPU int
	jsonFile  string
	profiles  string // folder for CPU profiles; empty: none
	rows      []comparison
	targets   []target
	done      []measurement
}

// runCompare is `perf compare`.
func runCompare(ctx context.Context, args []string) error {
	var c comparer
	flags := flag.NewFlagSet("perf compare", flag.ContinueOnError)
	scenarios := flags.String("scenario", "pairs,pairs-w1,fanout-100,fanin-100,pairs-q1,pairs-q2", "all, or some of "+comparisonNames())
	names := flags.String("targets", "relay,ringmq,mosquitto", "some of "+targetNames)
	external := flags.String("relay", "", "a relay program to use as relay instead of the one in perf/relay, which is go-relay then")
	built := flags.String("ringmq", "", "a ringmq program to measure instead of building this checkout's")
	flags.IntVar(&c.rounds, "rounds", 5, "how often each target is run; medians are shown")
	flags.Float64Var(&c.seconds, "seconds", 3, "length of each measured part")
	flags.IntVar(&c.payload, "payload", 64, "payload in bytes")
	flags.IntVar(&c.version, "version", 4, "4 (MQTT 3.1.1) or 5")
	flags.IntVar(&c.brokerCPU, "broker-cpu", 0, "processor for the broker (-1: any)")
	flags.IntVar(&c.loadCPU, "load-cpu", 1, "processor for the load (-1: any)")
	c.flag(flags)
	flags.StringVar(&c.jsonFile, "json", "", "write all results to this file")
	flags.StringVar(&c.profiles, "profiles", "", "write a CPU profile of each of our brokers' runs to this folder; of several rounds the last")
	if err := flags.Parse(args); err != nil {
		return err
	}
	c.machine = c.bench != nil
	var err error
	if c.rows, err = chosen(*scenarios); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "ringmq-perf")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	from := sources{dir: dir, relay: *external, ringmq: *built, bench: c.bench, admin: c.profiles != ""}
	if c.targets, err = prepare(ctx, strings.Split(*names, ","), from); err != nil {
		return err
	}
	return c.run(ctx)
}

// run interleaves: each round goes through all rows, each row through all targets.
func (c *comparer) run(ctx context.Context) error {
	for round := range c.rounds {
		for _, row := range c.rows {
			for _, t := range c.targets {
				if err := c.measure(ctx, round, row, t); err != nil {
					return err
				}
			}
		}
	}
	c.print(os.Stdout)
	return writeJSON(c.jsonFile, c.done)
}

// writeJSON writes v to a file, if there is a name for one.
func writeJSON(file string, v any) error {
	if file == "" {
		return nil
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

// measure starts the target, loads it and stops it. A broker's failure is a result; only our own end is an error.
func (c *comparer) measure(ctx context.Context, round int, row comparison, t target) error {
	address, err := c.nextAddress()
	if err != nil {
		return err
	}
	argv := t.command(int(address.Port()), row)
	if argv == nil {
		return nil
	}
	m := measurement{Round: round, Scenario: row.name, Target: t.name, comparison: row}
	result, err := c.measureOnce(ctx, argv, address, row, t)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		m.Failure = err.Error()
		fmt.Fprintf(os.Stderr, "round %d  %-12s %-10s failed: %v\n", round+1, row.name, t.name, err)
	} else {
		m.Result = &result
		fmt.Fprintf(os.Stderr, "round %d  %-12s %-10s %s\n", round+1, row.name, t.name, inShort(result))
	}
	c.done = append(c.done, m)
	return nil
}

func (c *comparer) measureOnce(ctx context.Context, argv []string, address netip.AddrPort, row comparison, t target) (load.Result, error) {
	s, err := c.start(ctx, argv, c.brokerCPU, address, t.socket)
	if err != nil {
		return load.Result{}, err
	}
	defer s.stop()
	cfg := c.apply(row.cfg)
	cfg.Target, cfg.PID = address, s.command.Process.Pid
	ctx, cancel := context.WithTimeout(ctx, cfg.Duration+runReserve)
	defer cancel()
	if c.profiles == "" || t.socket == "" {
		return load.Run(ctx, cfg, nil)
	}
	wait := profileDuring(ctx, t.socket, cfg.Duration, c.profileFile(row, t))
	result, err := load.Run(ctx, cfg, nil)
	return result, errors.Join(err, wait())
}
