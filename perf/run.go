package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/ringmq/ringmq/perf/load"
)

// runFlags declares the flags that shape a load; the pointers in Config are filled when they are parsed.
func runFlags(flags *flag.FlagSet, cfg *load.Config) {
	flags.IntVar(&cfg.Connections, "n", 100, "pairs, subscribers, publishers or idle connections")
	flags.IntVar(&cfg.Window, "window", 16, "messages a publisher may have under way")
	flags.IntVar(&cfg.PayloadBytes, "payload", 64, "payload in bytes, at least 20")
	flags.Float64Var(&cfg.Rate, "rate", 0, "open loop: messages published per second in all (0: closed loop)")
	flags.Int64Var(&cfg.Count, "count", 0, "end after so many messages (0: after --seconds)")
	flags.IntVar(&cfg.Parallel, "parallel", 64, "connections being opened at a time")
	flags.IntVar(&cfg.Messages, "messages", 10000, "retained messages to store and fetch")
	flags.Func("scenario", fmt.Sprintf("one of %v (default pairs)", load.Scenarios()), func(s string) error {
		cfg.Scenario = load.Scenario(s)
		return nil
	})
	byteVar(flags, &cfg.QoS, "qos", "0, 1 or 2")
	byteVar(flags, &cfg.Version, "version", "4 (MQTT 3.1.1, the default) or 5")
	secondsVar(flags, &cfg.Duration, "seconds", "length of the measured part (default 3)")
	secondsVar(flags, &cfg.WarmUp, "warm-up", "seconds before the measured part (default 0.5)")
}

func byteVar(flags *flag.FlagSet, field *byte, name, usage string) {
	flags.Func(name, usage, func(s string) error {
		_, err := fmt.Sscanf(s, "%d", field)
		return err
	})
}

func secondsVar(flags *flag.FlagSet, field *time.Duration, name, usage string) {
	flags.Func(name, usage, func(s string) error {
		seconds := 0.0
		_, err := fmt.Sscanf(s, "%g", &seconds)
		*field = time.Duration(seconds * float64(time.Second))
		return err
	})
}

// runLoad is `perf run`: one load against one broker.
func runLoad(ctx context.Context, args []string) error {
	var cfg load.Config
	flags := flag.NewFlagSet("perf run", flag.ContinueOnError)
	runFlags(flags, &cfg)
	address := flags.String("addr", "127.0.0.1:1883", "the broker's address")
	cpu := flags.Int("cpu", -1, "processor to pin the generator to (-1: none)")
	asJSON := flags.Bool("json", false, "print the result as JSON")
	flags.IntVar(&cfg.PID, "pid", 0, "the broker's process id, to measure its processor time and memory")
	if err := flags.Parse(args); err != nil {
		return err
	}
	target, err := netip.ParseAddrPort(*address)
	if err != nil {
		return fmt.Errorf("--addr: %w", err)
	}
	cfg.Target = target
	if *cpu >= 0 {
		cfg.CPUs = []int{*cpu}
	}
	result, err := load.Run(ctx, cfg, printProgress)
	if err != nil {
		return err
	}
	if *asJSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(result)
	}
	printResult(result)
	return nil
}

func printProgress(p load.Progress) {
	fmt.Fprintf(os.Stderr, "%6.1f s  %-10s %6d connections  %10.0f /s  p50 %v  p99 %v\n",
		p.Elapsed.Seconds(), p.Phase, p.Connections, p.PerSecond, p.P50, p.P99)
}

// inShort is a result on one line.
func inShort(r load.Result) string {
	if r.Config.Scenario == load.Idle {
		return fmt.Sprintf("%.0f bytes PSS, %.0f bytes RSS per connection", r.PSSBytesPerConnection, r.RSSBytesPerConnection)
	}
	return fmt.Sprintf("%9.0f /s  %7.1f k per broker-CPU-s  broker %3.0f %%  load %3.0f %%  p50 %v  p99 %v",
		r.PerSecond, r.PerTargetCPUSecond/1000, 100*r.TargetShare(), 100*r.GeneratorShare(),
		r.Latency.P50.Round(time.Microsecond), r.Latency.P99.Round(time.Microsecond))
}

func printResult(r load.Result) {
	fmt.Printf("%s: %d connections opened in %v, %.2f s measured\n", r.Config.Scenario, r.Config.Connections, r.ConnectTime, r.MeasuredTime.Seconds())
	fmt.Println(inShort(r))
	switch r.Config.Scenario {
	case load.Idle:
		return
	case load.Storm:
		fmt.Printf("%d connections made, %d failed %s\n", r.Delivered, r.Failed, r.FailedReason)
	case load.Retained:
		fmt.Printf("%d of %d fetches complete, %d messages missing, %d doubled\n", r.FetchesComplete, r.Fetches, r.Lost, r.Duplicated)
	default:
		fmt.Printf("%d published, %d expected, %d lost, %d doubled, %d out of order, %d corrupt, %d unacknowledged, %d refused, %d stalls\n",
			r.Published, r.Expected, r.Lost, r.Duplicated, r.Reordered, r.Corrupt, r.Unacknowledged, r.Refused, r.Stalls)
	}
	fmt.Printf("latency mean %v, p50 %v, p99 %v, p99.9 %v, max %v\n", r.Latency.Mean, r.Latency.P50, r.Latency.P99, r.Latency.P999, r.Latency.Max)
}
