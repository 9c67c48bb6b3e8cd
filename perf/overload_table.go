package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ringmq/ringmq/perf/load"
	"github.com/ringmq/ringmq/perf/overload"
)

// What the victims are promised.
const (
	// keptMin: a rate counts as kept from here on; the rest is where the measured part begins and ends.
	keptMin = 0.99
	// ratioMax is what an attack may make of the control's p99.
	ratioMax = 2.0
	// noiseFloor: a p99 below it is good whatever the control's, for it is what the scheduler makes of two threads on the
	// load's processor, the victims' and the aggressor's, of which either may have to wait for the other's time slice.
	noiseFloor = time.Millisecond
)

// verdict is what became of one scenario: medians over the rounds.
type verdict struct {
	keptControl, kept float64
	lost              float64
	p50Control, p50   time.Duration
	p99Control, p99   time.Duration
	ratio             float64
	// machineControl and machine are the part of all processors that was busy.
	machineControl, machine float64
	peak, planned           int64
	moved                   map[string]int64
	outcome                 overload.Outcome
	wrong                   []string
}

// print writes the table and says how many scenarios are not as promised.
func (o *overloader) print(w io.Writer) (bad int) {
	fmt.Fprintf(w, "\n%s mode: victims are %d pairs at %.0f messages/s, QoS %d, which alone take %s; %d rounds of %g s\n", o.mode,
		victimPairs, o.rate, o.qos, takes(&o.half), o.rounds, o.seconds)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "scenario\tkept, control\tattack\tlost\tp50, control\tattack\tp99, control\tattack\tratio\tmachine, control\tattack\tpeak of plan\tverdict\t")
	verdicts := map[string]*verdict{}
	for _, s := range o.scenarios {
		v := o.verdict(s)
		verdicts[s.Name] = v
		says := "good"
		if len(v.wrong) > 0 {
			says, bad = "bad", bad+1
		}
		fmt.Fprintf(table, "%s\t%.3f\t%.3f\t%.0f\t%s\t%s\t%s\t%s\t%.2f\t%.0f %%\t%.0f %%\t%d of %d MiB\t%s\t\n", s.Name, v.keptControl, v.kept, v.lost,
			milliseconds(v.p50Control), milliseconds(v.p50), milliseconds(v.p99Control), milliseconds(v.p99), v.ratio, 100*v.machineControl, 100*v.machine,
			v.peak>>20, v.planned>>20, says)
	}
	_ = table.Flush()
	for _, s := range o.scenarios {
		v := verdicts[s.Name]
		fmt.Fprintf(w, "\n%s: %s\n  policy: %s\n  the aggressor saw: %s\n  counters: %s\n", s.Name, s.Says, s.Policy, &v.outcome, tellingOf(s, v.moved))
		for _, says := range v.wrong {
			fmt.Fprintf(w, "  NOT AS PROMISED: %s\n", says)
		}
	}
	return bad
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.3f ms", d.Seconds()*1000) }

// verdict takes medians of the figures; a failure or a broken promise in any round counts.
func (o *overloader) verdict(s *overload.Scenario) *verdict {
	v := &verdict{moved: map[string]int64{}}
	var control, attack []load.Result
	var ratios []float64
	for i := range o.done {
		t := &o.done[i]
		if t.Scenario != s.Name {
			continue
		}
		v.peak, v.planned = max(v.peak, t.Peak), t.Planned
		for _, says := range t.Wrong {
			v.wrong = append(v.wrong, fmt.Sprintf("round %d: %s", t.Round+1, says))
		}
		if t.Failure != "" {
			v.wrong = append(v.wrong, fmt.Sprintf("round %d: %s", t.Round+1, t.Failure))
		}
		if !t.Attacked {
			control = append(control, t.Victims)
			continue
		}
		attack = append(attack, t.Victims)
		v.moved, v.outcome = t.Moved, t.Outcome
		if n := len(control); n > 0 && control[n-1].Latency.P99 > 0 {
			ratios = append(ratios, float64(t.Victims.Latency.P99)/float64(control[n-1].Latency.P99))
		}
	}
	o.medians(v, control, attack, ratios)
	v.judge()
	return v
}

func (o *overloader) medians(v *verdict, control, attack []load.Result, ratios []float64) {
	rate := func(r load.Result) float64 { return r.PerSecond / o.rate }
	p50 := func(r load.Result) float64 { return float64(r.Latency.P50) }
	p99 := func(r load.Result) float64 { return float64(r.Latency.P99) }
	v.machine = medianOf(attack, load.Result.MachineShare)
	if len(control) > 0 {
		v.machineControl = medianOf(control, load.Result.MachineShare)
		v.keptControl, v.p50Control, v.p99Control = medianOf(control, rate), time.Duration(medianOf(control, p50)), time.Duration(medianOf(control, p99))
	}
	v.kept, v.p50, v.p99 = medianOf(attack, rate), time.Duration(medianOf(attack, p50)), time.Duration(medianOf(attack, p99))
	v.lost = sumOf(attack, func(r load.Result) int64 { return r.Lost + r.Duplicated + r.Reordered + r.Corrupt })
	if len(ratios) > 0 {
		v.ratio = median(ratios)
	}
}

// judge adds what the figures say against the promises.
func (v *verdict) judge() {
	for _, rule := range []struct {
		broken bool
		says   string
	}{
		{v.kept < keptMin, fmt.Sprintf("the victims kept %.3f of their rate, want %.2f", v.kept, keptMin)},
		{v.lost > 0, fmt.Sprintf("%.0f of the victims' messages were lost, doubled, out of order or corrupt", v.lost)},
		{v.ratio > ratioMax && v.p99 > noiseFloor, fmt.Sprintf("p99 is %.2f times the control's, want %.1f, or %v at most", v.ratio, ratioMax, noiseFloor)},
		{v.peak > v.planned, fmt.Sprintf("the broker took %d bytes and planned %d", v.peak, v.planned)},
	} {
		if rule.broken {
			v.wrong = append(v.wrong, rule.says)
		}
	}
}

// tellingOf are the counters that a scenario is about, and others than those of any traffic.
func tellingOf(s *overload.Scenario, moved map[string]int64) string {
	common := strings.Fields("bytes_received bytes_sent connects disconnects packets_received packets_sent publish_bytes_received " +
		"publish_bytes_sent publish_received publish_sent sockets_accepted topic_cache_hits nobody_to_deliver_to")
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(moved)) {
		if slices.Contains(s.Counters, name) || !slices.Contains(common, name) {
			parts = append(parts, fmt.Sprintf("%s +%d", name, moved[name]))
		}
	}
	return strings.Join(parts, ", ")
}
