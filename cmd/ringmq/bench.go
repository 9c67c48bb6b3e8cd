package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/ringmq/ringmq/perf/load"
	"github.com/urfave/cli/v2"
)

const (
	// benchUnclean is the exit status of a run that found messages lost, doubled, out of order or corrupt.
	benchUnclean = 4
	// resolveTimeout bounds the search for a host's address.
	resolveTimeout = 5 * time.Second
)

const benchDescription = `Examples:
  ringmq bench                                        100 pairs, QoS 0, 16 messages in flight each, for 10 s
  ringmq bench -q 1 -n 1000 --payload 1024            1000 pairs, QoS 1, 1 KiB
  ringmq bench --scenario fanout -n 1000              one publisher, 1000 subscribers
  ringmq bench --rate 20000 --time 60s                20,000 messages/s whatever the broker does: honest latency
  ringmq bench --scenario storm -n 256                connect, CONNACK, DISCONNECT, 256 at a time
  ringmq bench --scenario idle -n 15000 --pid $(pidof ringmq)   what an idle connection costs in memory
  ringmq bench -h 192.0.2.1 --version 5 -u alice --count 1000000 --json > result.json

Scenarios:
  pairs     publisher i to subscriber i, each pair on a topic of its own
  fanout    one publisher, -n subscribers          fanin    -n publishers, one subscriber
  storm     connect and go, -n at a time           idle     -n connections that do nothing
  retained  store --messages Retained Messages, then fetch them all with one wildcard, again and again

Without --rate the loop is closed: a publisher has at most --window messages under way. With --rate it is open, and
latency counts from the moment a message was due, so that a slow broker cannot hide by slowing the load; what was due and
could not be sent by the end is told.

Exit status: 0 when nothing was lost, doubled, out of order or corrupt, and everything was answered; 4 when not; 1 when it could not be run.`

func benchCommand() *cli.Command {
	return &cli.Command{
		Name:        "bench",
		Usage:       "load a broker and measure throughput, latency, loss, duplicates and order",
		UsageText:   "ringmq bench [flags]",
		Description: benchDescription,
		HideHelp:    true, // -h is the host, as in every MQTT tool
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "host", Aliases: []string{"h"}, Value: "127.0.0.1", Usage: "the broker's `HOST`"},
			&cli.IntFlag{Name: "port", Aliases: []string{"p"}, Value: 1883, Usage: "the broker's `PORT`"},
			&cli.StringFlag{Name: "scenario", Aliases: []string{"s"}, Value: string(load.Pairs), Usage: "`NAME`: " + scenarioNames()},
			&cli.IntFlag{Name: "connections", Aliases: []string{"n"}, Value: 100, Usage: "`N` pairs, subscribers, publishers or connections"},
			&cli.UintFlag{Name: "qos", Aliases: []string{"q"}, Usage: "`QOS`: 0, 1 or 2"},
			&cli.IntFlag{Name: "payload", Value: 64, Usage: "`BYTES`, at least 20, which carry publisher, number and time"},
			&cli.IntFlag{Name: "window", Aliases: []string{"w"}, Usage: "`N` messages a publisher may have under way", DefaultText: "16; with --rate what the broker allows"},
			&cli.Float64Flag{Name: "rate", Aliases: []string{"r"}, Usage: "publish `N` messages/s in all, however slow the broker", DefaultText: "as fast as the window allows"},
			&cli.BoolFlag{Name: "unhurried", Usage: "with --rate, sleep between two messages, up to 0.1 ms too long, and leave the processor to a broker on this machine"},
			&cli.DurationFlag{Name: "time", Aliases: []string{"t"}, Value: 10 * time.Second, Usage: "measure for `DURATION`"},
			&cli.Int64Flag{Name: "count", Aliases: []string{"c"}, Usage: "end after `N` messages, connections (storm) or fetches (retained)", DefaultText: "after --time"},
			&cli.DurationFlag{Name: "warm-up", Value: 500 * time.Millisecond, Usage: "leave out the first `DURATION`"},
			&cli.DurationFlag{Name: "drain", Value: 5 * time.Second, Usage: "wait for messages under way until none has come for `DURATION`"},
			&cli.IntFlag{Name: "messages", Value: 10000, Usage: "`N` Retained Messages to store and fetch"},
			&cli.IntFlag{Name: "parallel", Value: 64, Usage: "open `N` connections at a time"},
			&cli.StringFlag{Name: "version", Aliases: []string{"V"}, Value: "311", Usage: "protocol `VERSION`: 311 or 5"},
			&cli.StringFlag{Name: "username", Aliases: []string{"u"}, Usage: "User `NAME`"},
			&cli.StringFlag{Name: "pw", Aliases: []string{"P"}, Usage: "`PASSWORD`", EnvVars: []string{"RINGMQ_PASSWORD"}},
			&cli.StringSliceFlag{Name: "source", Usage: "connect from `ADDRESS` (may be repeated; one gives 28,000 connections)"},
			&cli.IntFlag{Name: "pid", Usage: "`PID` of a broker on this machine, to measure its processor time and memory"},
			&cli.IntFlag{Name: "cpu", Value: -1, Usage: "pin the load to processor `N`", DefaultText: "not pinned"},
			&cli.BoolFlag{Name: "json", Usage: "print the result as JSON"},
			&cli.BoolFlag{Name: "quiet", Usage: "no progress while it runs"},
			&cli.BoolFlag{Name: "help", Usage: "show help"},
		},
		Action: bench,
	}
}

func scenarioNames() string {
	var names []string
	for _, s := range load.Scenarios() {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

func bench(c *cli.Context) error {
	if c.Bool("help") {
		return cli.ShowSubcommandHelp(c)
	}
	if runtime.GOOS != "linux" {
		return fmt.Errorf("bench: the load generator needs epoll, which %s does not have; run it on Linux against this machine's broker (-h)", runtime.GOOS)
	}
	cfg, err := benchConfig(c)
	if err != nil {
		return fmt.Errorf("bench: %w; ringmq bench --help lists the flags", err)
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait until Retained Messages are cleared
	if cfg.Target, err = resolve(ctx, c.String("host"), c.Int("port")); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	var progress func(load.Progress)
	watch := newBenchProgress(os.Stderr, cfg)
	if !c.Bool("quiet") {
		progress = watch.show
	}
	result, err := load.Run(ctx, cfg, progress)
	watch.end()
	if err != nil {
		if ctx.Err() != nil {
			return errors.New("bench: interrupted before there was a result")
		}
		return fmt.Errorf("bench: %w", err)
	}
	if c.Bool("json") {
		encoder := json.NewEncoder(c.App.Writer)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(result)
	} else {
		err = printBench(c.App.Writer, result)
	}
	if err == nil && !result.Clean() {
		err = cli.Exit("bench: something was lost, doubled, out of order, corrupt, refused or not answered (see above)", benchUnclean)
	}
	return err
}

// benchConfig turns flags into a load and refuses those that do not go together.
func benchConfig(c *cli.Context) (load.Config, error) {
	cfg := load.Config{
		Scenario: load.Scenario(c.String("scenario")), Connections: c.Int("connections"), PayloadBytes: c.Int("payload"),
		Window: c.Int("window"), Rate: c.Float64("rate"), Duration: c.Duration("time"), Count: c.Int64("count"),
		Parallel: c.Int("parallel"), Messages: c.Int("messages"), PID: c.Int("pid"), QoS: byte(min(c.Uint("qos"), 255)),
		Username: c.String("username"), Password: c.String("pw"), DrainTimeout: c.Duration("drain"), Unhurried: c.Bool("unhurried"), WholeMachine: runtime.GOOS == "linux",
	}
	if cfg.WarmUp = c.Duration("warm-up"); cfg.WarmUp == 0 {
		cfg.WarmUp = -1
	}
	if err := benchConflicts(c, cfg); err != nil {
		return cfg, err
	}
	if cfg.Count > 0 && !c.IsSet("time") {
		cfg.Duration = 0 // as long as it takes
	}
	if cfg.Scenario == load.Storm && c.IsSet("connections") {
		cfg.Parallel = cfg.Connections
	}
	switch v := c.String("version"); v {
	case "311", "3.1.1", "4", "mqttv311":
		cfg.Version = load.Version311
	case "5", "5.0", "mqttv5":
		cfg.Version = load.Version5
	default:
		return cfg, fmt.Errorf("--version %q: want 311 or 5", v)
	}
	if cpu := c.Int("cpu"); cpu >= 0 {
		cfg.CPUs = []int{cpu}
	}
	for _, s := range c.StringSlice("source") {
		address, err := netip.ParseAddr(s)
		if err != nil {
			return cfg, fmt.Errorf("--source: %w", err)
		}
		cfg.Sources = append(cfg.Sources, address)
	}
	return cfg, cfg.Check()
}

// benchConflicts refuses flags that would have no effect, rather than let somebody believe in them.
func benchConflicts(c *cli.Context, cfg load.Config) error {
	if c.Args().Present() {
		return fmt.Errorf("unexpected argument %q", c.Args().First())
	}
	only := map[string][]load.Scenario{
		"messages": {load.Retained},
		"window":   {load.Pairs, load.FanOut, load.FanIn},
		"drain":    {load.Pairs, load.FanOut, load.FanIn, load.Retained},
		"rate":     {load.Pairs, load.FanOut, load.FanIn},
		"qos":      {load.Pairs, load.FanOut, load.FanIn, load.Retained},
		"payload":  {load.Pairs, load.FanOut, load.FanIn, load.Retained},
		"count":    {load.Pairs, load.FanOut, load.FanIn, load.Retained, load.Storm},
		"warm-up":  {load.Pairs, load.FanOut, load.FanIn, load.Storm},
	}
	for _, name := range c.LocalFlagNames() {
		scenarios, limited := only[name]
		if !limited {
			continue
		}
		fits := false
		for _, s := range scenarios {
			fits = fits || s == cfg.Scenario
		}
		if !fits {
			return fmt.Errorf("--%s has no effect with --scenario %s: leave it out", name, cfg.Scenario)
		}
	}
	for _, name := range []string{"connections", "payload", "window", "count", "messages", "parallel"} {
		if c.IsSet(name) && c.Int64(name) < 1 {
			return fmt.Errorf("--%s: want at least 1", name)
		}
	}
	switch {
	case cfg.Unhurried && cfg.Rate == 0:
		return errors.New("--unhurried has no effect without --rate: leave it out")
	case cfg.Duration <= 0 || cfg.DrainTimeout <= 0:
		return errors.New("--time and --drain: want more than 0")
	case cfg.Password != "" && cfg.Username == "":
		return errors.New("a password (--pw or RINGMQ_PASSWORD) without a User Name: add -u NAME")
	case cfg.PID < 0 || c.IsSet("pid") && cfg.PID == 0:
		return errors.New("--pid: want the process id of a broker on this machine")
	}
	return nil
}

// resolve finds the address of a host; of several it takes the first.
func resolve(ctx context.Context, host string, port int) (netip.AddrPort, error) {
	if port < 1 || port > 65535 {
		return netip.AddrPort{}, fmt.Errorf("--port %d: want 1 to 65535", port)
	}
	if address, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return netip.AddrPortFrom(address, uint16(port)), nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(addresses) == 0 {
		return netip.AddrPort{}, fmt.Errorf("host %q has no address: check --host", host)
	}
	return netip.AddrPortFrom(addresses[0].Unmap(), uint16(port)), nil
}
