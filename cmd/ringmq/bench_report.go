package main

import (
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/ringmq/ringmq/perf/load"
)

// benchProgress shows a run while it goes on: one line that is written over on a terminal, a line a second elsewhere.
type benchProgress struct {
	to       io.Writer
	terminal bool
	shown    bool
	what     string // what PerSecond counts
}

func newBenchProgress(to *os.File, cfg load.Config) *benchProgress {
	info, err := to.Stat()
	p := &benchProgress{to: to, terminal: err == nil && info.Mode()&os.ModeCharDevice != 0, what: "messages/s"}
	if cfg.Scenario == load.Storm {
		p.what = "connects/s"
	}
	return p
}

func (b *benchProgress) show(p load.Progress) {
	line := fmt.Sprintf("%5.1f s  %-10s  %6d open  %11s %s", p.Elapsed.Seconds(), p.Phase, p.Connections, thousands(int64(p.PerSecond)), b.what)
	if p.P50 > 0 {
		line += fmt.Sprintf("  p50 %s  p99 %s", short(p.P50), short(p.P99))
	}
	if b.terminal {
		fmt.Fprintf(b.to, "\r\x1b[K%s", line)
		b.shown = true
		return
	}
	fmt.Fprintln(b.to, line)
}

// end clears the terminal's line for what comes after it.
func (b *benchProgress) end() {
	if b.terminal && b.shown {
		fmt.Fprint(b.to, "\r\x1b[K")
	}
}

// printBench writes a result for people.
func printBench(to io.Writer, r load.Result) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	row := func(name, format string, values ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, values...))
	}
	row("scenario", "%s", benchScenario(r.Config))
	switch r.Config.Scenario {
	case load.Idle:
		row("connections", "%s open in %s, held for %s", thousands(int64(r.Config.Connections)), short(r.ConnectTime), short(r.Config.Duration))
		if r.Config.PID != 0 {
			row("broker memory", "%.0f bytes per connection (PSS), %.0f (RSS)", r.PSSBytesPerConnection, r.RSSBytesPerConnection)
		}
		return w.Flush()
	case load.Storm:
		row("connects", "%s in %s: %s/s", thousands(r.Delivered), short(r.MeasuredTime), thousands(int64(r.PerSecond)))
		if r.Failed > 0 {
			row("failed", "%s, the first: %s", thousands(r.Failed), r.FailedReason)
		}
	case load.Retained:
		row("fetches", "%d, %d complete, of %s messages each", r.Fetches, r.FetchesComplete, thousands(int64(r.Config.Messages)))
		row("messages", "%s in %s: %s/s", thousands(r.Delivered), short(r.MeasuredTime), thousands(int64(r.PerSecond)))
		row("exactness", "%d lost, %d doubled, %d corrupt", r.Lost, r.Duplicated, r.Corrupt)
	default:
		printTraffic(row, r)
	}
	l := r.Latency
	row("latency", "p50 %s  p99 %s  p99.9 %s  max %s  mean %s", short(l.P50), short(l.P99), short(l.P999), short(l.Max), short(l.Mean))
	if r.Config.PID != 0 {
		row("broker CPU", "%s, %.0f %% of one processor: %s per CPU second", short(r.TargetCPU), 100*r.TargetShare(), thousands(int64(r.PerTargetCPUSecond)))
	}
	if r.MachineCPU > 0 {
		row("machine CPU", "%.0f %% of all processors", 100*r.MachineShare())
	}
	row("load CPU", "%s, %.0f %% of one processor%s", short(r.GeneratorCPU), 100*r.GeneratorShare(), bottleneck(r))
	return w.Flush()
}

func printTraffic(row func(string, string, ...any), r load.Result) {
	row("messages", "%s in %s: %s/s", thousands(r.Delivered), short(r.MeasuredTime), thousands(int64(r.PerSecond)))
	exact := ""
	if r.Inexact {
		exact = " (more gaps than are kept: late messages may count as lost and doubled)"
	}
	row("exactness", "%s expected: %d lost, %d doubled, %d out of order, %d corrupt%s",
		thousands(r.Expected), r.Lost, r.Duplicated, r.Reordered, r.Corrupt, exact)
	if r.Config.QoS > 0 {
		row("acknowledged", "%d missing, %d out of order, %d refused", r.Unacknowledged, r.AcksOutOfOrder, r.Refused)
	}
	if r.Unsent > 0 {
		row("not sent", "%s that were due in the time measured, and are not in the latency", thousands(r.Unsent))
	}
	if r.Stalls > 0 {
		row("stalls", "%d times a publisher's messages were given up for lost", r.Stalls)
	}
}

func benchScenario(c load.Config) string {
	s := fmt.Sprintf("%s, %d connections", c.Scenario, c.Connections)
	switch c.Scenario {
	case load.Storm:
		return fmt.Sprintf("storm, %d at a time", c.Parallel)
	case load.Idle:
		return string(c.Scenario)
	case load.Pairs:
		s = fmt.Sprintf("%d pairs", c.Connections)
	case load.FanOut:
		s = fmt.Sprintf("fan-out 1 to %d", c.Connections)
	case load.FanIn:
		s = fmt.Sprintf("fan-in %d to 1", c.Connections)
	case load.Retained:
		return fmt.Sprintf("retained, %d B, QoS %d", c.PayloadBytes, c.QoS)
	}
	s += fmt.Sprintf(", %d B, QoS %d", c.PayloadBytes, c.QoS)
	if c.Rate > 0 {
		return s + fmt.Sprintf(", open loop at %s/s", thousands(int64(c.Rate)))
	}
	return s + fmt.Sprintf(", %d in flight each", c.Window)
}

const (
	// bottleneckShare is how busy the generator's thread may be before its figures are no longer the broker's.
	bottleneckShare = 0.95
	// rateShare is the part of an open loop's rate below which it was missed.
	rateShare = 0.98
)

// bottleneck says that figures are the generator's rather than the broker's. An open loop spins to send on time, so
// there only a missed rate tells.
func bottleneck(r load.Result) string {
	busy := r.GeneratorShare() >= bottleneckShare && (r.Config.PID == 0 || r.TargetShare() < bottleneckShare)
	published := r.Config.Rate * float64(max(1, r.Expected)) / float64(max(1, r.Published)) // deliveries that the rate asks for
	if !busy || r.Config.Rate > 0 && r.PerSecond >= rateShare*published {
		return ""
	}
	return ": the load may have been the limit, not the broker"
}

// short rounds a duration to three or four digits.
func short(d time.Duration) string {
	for _, unit := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		if d >= unit {
			return d.Round(unit / 100).String()
		}
	}
	return d.String()
}

// thousands writes a number with its thousands apart.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	first := 0
	if n < 0 {
		first = 1
	}
	for at := len(s) - 3; at > first; at -= 3 {
		s = s[:at] + "," + s[at:]
	}
	return s
}
