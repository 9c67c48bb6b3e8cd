package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/ringmq/ringmq/perf/load"
)

// print writes one table per row, with a line for each target: medians over the rounds.
func (c *comparer) print(w io.Writer) {
	for _, t := range c.targets {
		fmt.Fprintf(w, "%s: %s\n", t.name, t.version)
	}
	for _, row := range c.rows {
		fmt.Fprintf(w, "\n%s (%d rounds of %g s, %d B)\n", row.says, c.rounds, c.seconds, c.payload)
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(table, c.header(row)+"\t")
		for _, t := range c.targets {
			fmt.Fprintln(table, c.line(row, t)+"\t")
		}
		_ = table.Flush()
		for _, m := range c.done {
			if m.Scenario == row.name && m.Failure != "" {
				fmt.Fprintf(w, "%s failed in round %d: %s\n", m.Target, m.Round+1, m.Failure)
			}
		}
	}
}

func (c *comparer) header(row comparison) string {
	switch row.cfg.Scenario {
	case load.Idle:
		return "target\tPSS bytes/connection\tRSS bytes/connection\tconnect time"
	case load.Retained:
		return "target\tmessages/s\tk/broker-CPU-s\tcomplete\tp50\tmax"
	}
	if c.machine {
		return "target\tmessages/s\tµs of machine CPU\tof ringmq\tp50\tp99\tp99.9\tbroker\tload\tlost\tdoubled\tout of order"
	}
	return "target\tmessages/s\tk/broker-CPU-s\tof relay\tp50\tp99\tp99.9\tbroker\tload\tlost\tdoubled\tout of order"
}

// line is one target's medians.
func (c *comparer) line(row comparison, t target) string {
	results := c.results(row, t)
	if len(results) == 0 {
		return t.name + "\t–"
	}
	number := func(of func(load.Result) float64) float64 { return medianOf(results, of) }
	latency := func(of func(load.Latency) time.Duration) string {
		d := time.Duration(number(func(r load.Result) float64 { return float64(of(r.Latency)) }))
		return fmt.Sprintf("%.3f ms", d.Seconds()*1000)
	}
	perSecond := number(func(r load.Result) float64 { return r.PerSecond })
	perCPU := number(func(r load.Result) float64 { return r.PerTargetCPUSecond }) / 1000
	p50 := latency(func(l load.Latency) time.Duration { return l.P50 })
	switch row.cfg.Scenario {
	case load.Idle:
		return fmt.Sprintf("%s\t%.0f\t%.0f\t%.2f s", t.name,
			number(func(r load.Result) float64 { return r.PSSBytesPerConnection }),
			number(func(r load.Result) float64 { return r.RSSBytesPerConnection }),
			number(func(r load.Result) float64 { return r.ConnectTime.Seconds() }))
	case load.Retained:
		return fmt.Sprintf("%s\t%.0f\t%.1f\t%.0f of %.0f\t%s\t%s", t.name, perSecond, perCPU,
			sumOf(results, func(r load.Result) int64 { return r.FetchesComplete }),
			sumOf(results, func(r load.Result) int64 { return r.Fetches }),
			p50, latency(func(l load.Latency) time.Duration { return l.Max }))
	}
	cost, reference := perCPU, "relay"
	if c.machine {
		cost, reference = number(machineMicroseconds), "ringmq"
	}
	return fmt.Sprintf("%s\t%.0f\t%.2f\t%s\t%s\t%s\t%s\t%.0f %%\t%.0f %%\t%.0f\t%.0f\t%.0f", t.name, perSecond, cost,
		c.ratio(row, t, reference), p50,
		latency(func(l load.Latency) time.Duration { return l.P99 }),
		latency(func(l load.Latency) time.Duration { return l.P999 }),
		number(func(r load.Result) float64 { return 100 * r.TargetShare() }),
		number(func(r load.Result) float64 { return 100 * r.GeneratorShare() }),
		sumOf(results, func(r load.Result) int64 { return r.Lost }),
		sumOf(results, func(r load.Result) int64 { return r.Duplicated }),
		sumOf(results, func(r load.Result) int64 { return r.Reordered }))
}

func (c *comparer) results(row comparison, t target) []load.Result {
	var found []load.Result
	for _, m := range c.done {
		if m.Scenario == row.name && m.Target == t.name && m.Result != nil {
			found = append(found, *m.Result)
		}
	}
	return found
}

// machineMicroseconds is what a message costs the whole machine.
func machineMicroseconds(r load.Result) float64 {
	return r.MachineCPU.Seconds() * 1e6 / float64(max(1, r.Delivered))
}

// ratio is the median of the ratios to another target, round by round: a machine's drift falls out of a ratio, not of a
// figure. In a lab it is one of messages per second, elsewhere of messages per second of the broker's processor time.
func (c *comparer) ratio(row comparison, t target, reference string) string {
	speed := func(r *load.Result) float64 { return r.PerTargetCPUSecond }
	if c.machine {
		speed = func(r *load.Result) float64 { return r.PerSecond }
	}
	var ratios []float64
	for _, m := range c.done {
		if m.Scenario != row.name || m.Target != t.name || m.Result == nil {
			continue
		}
		for _, floor := range c.done {
			if floor.Round == m.Round && floor.Scenario == row.name && floor.Target == reference && floor.Result != nil {
				ratios = append(ratios, speed(m.Result)/speed(floor.Result))
			}
		}
	}
	if len(ratios) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", median(ratios))
}

func medianOf(results []load.Result, of func(load.Result) float64) float64 {
	var values []float64
	for _, r := range results {
		values = append(values, of(r))
	}
	return median(values)
}

func sumOf(results []load.Result, of func(load.Result) int64) float64 {
	sum := int64(0)
	for _, r := range results {
		sum += of(r)
	}
	return float64(sum)
}

// median needs at least one value.
func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	middle := len(values) / 2
	if len(values)%2 == 1 {
		return values[middle]
	}
	return (values[middle-1] + values[middle]) / 2
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
