package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ringmq/ringmq/perf/load"
)

// comparison is one row of the table: a load with a name.
type comparison struct {
	name string
	says string
	cfg  load.Config
	// relayMode is how the relay joins clients; empty when a relay cannot play the broker.
	relayMode string
}

// comparisons are the rows of the table, in its order.
func comparisons() []comparison {
	return []comparison{
		{"pairs", "pairs ×100, QoS 0, 16 in flight", load.Config{}, "pairs"},
		{"pairs-w1", "pairs ×100, QoS 0, 1 in flight", load.Config{Window: 1}, "pairs"},
		{"pairs-1000-w1", "pairs ×1000, QoS 0, 1 in flight", load.Config{Connections: 1000, Window: 1}, "pairs"},
		{"pairs-10000-w1", "pairs ×5000 (10,000 connections), QoS 0, 1 in flight", load.Config{Connections: 5000, Window: 1}, "pairs"},
		{"pairs-1000", "pairs ×1000, QoS 0", load.Config{Connections: 1000}, "pairs"},
		{"fanout-100", "fan-out 1→100, QoS 0", load.Config{Scenario: load.FanOut}, "all"},
		{"fanout-1000", "fan-out 1→1000, QoS 0", load.Config{Scenario: load.FanOut, Connections: 1000}, "all"},
		{"fanin-100", "fan-in 100→1, QoS 0", load.Config{Scenario: load.FanIn}, "all"},
		{"pairs-q1", "pairs ×100, QoS 1", load.Config{QoS: 1}, "pairs"},
		{"pairs-q2", "pairs ×100, QoS 2", load.Config{QoS: 2}, "pairs"},
		{"rate", "20,000 messages/s, pairs ×100, open loop", load.Config{Rate: 20000}, "pairs"},
		{"storm", "connect, CONNACK, DISCONNECT", load.Config{Scenario: load.Storm}, "pairs"},
		{"retained", "10,000 retained, wildcard fetch", load.Config{Scenario: load.Retained}, ""},
		{"idle", "idle connections", load.Config{Scenario: load.Idle, Connections: 5000}, "pairs"},
	}
}

// chosen picks comparisons by comma-separated names; "all" is all of them.
func chosen(names string) ([]comparison, error) {
	return pick(names, comparisons(), func(c comparison) string { return c.name })
}

func comparisonNames() string {
	return namesOf(comparisons(), func(c comparison) string { return c.name })
}

// pick finds scenarios by comma-separated names; "all" is all of them.
func pick[T any](names string, all []T, name func(T) string) ([]T, error) {
	if names == "all" {
		return all, nil
	}
	var picked []T
	for wanted := range strings.SplitSeq(names, ",") {
		at := slices.IndexFunc(all, func(s T) bool { return name(s) == wanted })
		if at < 0 {
			return nil, fmt.Errorf("scenario %q: want all, or some of %s", wanted, namesOf(all, name))
		}
		picked = append(picked, all[at])
	}
	return picked, nil
}

func namesOf[T any](all []T, name func(T) string) string {
	var names []string
	for _, s := range all {
		names = append(names, name(s))
	}
	return strings.Join(names, ",")
}

// overrides are the flags of compare that apply to every row.
type overrides struct {
	seconds float64
	payload int
	version int
	loadCPU int
	machine bool // measure the whole machine's processor time
}

func (o overrides) apply(cfg load.Config) load.Config {
	cfg.Duration = time.Duration(o.seconds * float64(time.Second))
	cfg.WholeMachine = o.machine
	cfg.PayloadBytes, cfg.Version = o.payload, byte(o.version)
	if o.loadCPU >= 0 {
		cfg.CPUs = []int{o.loadCPU}
	}
	return cfg
}
