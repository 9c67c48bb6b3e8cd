package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ringmq/ringmq/perf/load"
	"github.com/ringmq/ringmq/perf/overload"
)

const (
	// soakWarmUp is the part of a soak that comes first: what a broker touches once and keeps, it has touched then.
	soakWarmUp    = 0.2
	soakWarmUpMin = 10 * time.Second
	// soakSettle is how long a broker is left alone before it is looked at: closed connections have waited for their last
	// segments (TIME-WAIT in XDP mode), and the shards have published what they have in use.
	soakSettle = 15 * time.Second
	// soakStart is how long a broker needs until it has published $SYS, which it retains, and has told what it has in use.
	soakStart = 4 * time.Second
	// soakSettlings is how often it gets that time, at most: the runtime gives memory back when it likes.
	soakSettlings = 6
	// soakEnd is what a soak takes at its end, until the last Session has expired and everything is cleared.
	soakEnd = 2 * time.Minute

	// What a broker may have more of afterwards than before. Resident memory and heap vary by what the runtime keeps; pages of
	// the arena by one for each size of block, and by one for each Retained Message: those of $SYS, which lay side by side at first.
	soakMemoryMargin = 8 << 20
	soakHeapMargin   = 1 << 20
	soakPagesMargin  = 18       // of each shard
	soakStoreMargin  = 64 << 20 // logs are as large as the memtables they are for, and kept to be used again
)

// soaker is one call of `perf soak` in one mode.
type soaker struct {
	assault
	minutes float64
}

// footprint is what a broker holds.
type footprint map[string]int64

// footprints are those before the first client, after the warm-up and at the end.
type footprints [3]footprint

// allowed is how much there may be of something at the end. What the runtime keeps is compared with the warm broker, within a
// margin; all else with the broker before its first client.
func (f *footprints) allowed(name string) int64 {
	switch name {
	case "heap bytes":
		return f[1][name] + soakHeapMargin
	case "resident bytes":
		return f[1][name] + f[1][name]/20 + soakMemoryMargin
	case "stored bytes":
		return f[1][name] + soakStoreMargin
	case "stored time":
		return 1
	case "descriptors":
		return f[0][name] + 1 // the connection that has asked for all this may not be closed yet
	case "pages in use":
		return f[0][name] + soakPagesMargin*f[0]["shards"] + f[0]["retained in use"]
	}
	return f[0][name]
}

// more names what there is too much of.
func (f *footprints) more() (names []string) {
	for _, name := range slices.Sorted(maps.Keys(f[2])) {
		if f[2][name] > f.allowed(name) {
			names = append(names, name)
		}
	}
	return names
}

// runSoak is `perf soak`.
func runSoak(ctx context.Context, args []string) error {
	var s soaker
	flags := flag.NewFlagSet("perf soak", flag.ContinueOnError)
	s.flags(flags)
	kept := flags.Bool("data", false, "with a store, which must be empty again at the end")
	flags.Float64Var(&s.minutes, "minutes", 10, "length of the churn, its warm-up apart")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if s.minutes <= 0 {
		return errors.New("soak: want --minutes above zero")
	}
	if elsewhere, err := s.elsewhere(ctx, "soak", args); elsewhere {
		return err
	}
	tidy, err := s.prepare(ctx)
	if err != nil {
		return err
	}
	defer tidy()
	if *kept {
		if s.data, err = os.MkdirTemp(s.dir, "data"); err != nil {
			return err
		}
	}
	return s.run(ctx)
}

// run has the broker churn twice, shortly and at length, and compares what it holds after the one and after the other; what
// it deals out must be back where it was before the first client.
func (s *soaker) run(ctx context.Context) error {
	server, address, err := s.startBroker(ctx, overload.SoakSettings)
	if err != nil {
		return err
	}
	defer server.stop()
	time.Sleep(soakStart)
	pid := server.command.Process.Pid
	var looks footprints
	if looks[0], err = s.look(ctx, pid); err != nil {
		return err
	}
	length := time.Duration(s.minutes * float64(time.Minute))
	cfg := s.aggressor(address)
	var last overload.Outcome
	for i, long := range []time.Duration{max(soakWarmUpMin, time.Duration(soakWarmUp*float64(length))), length} {
		cfg.Seed, cfg.Long = uint64(i+1), long
		if last, err = s.churn(ctx, cfg); err != nil {
			return err
		}
		if looks[i+1], err = s.look(ctx, pid); err != nil {
			return err
		}
	}
	for range soakSettlings - 1 {
		if len(looks.more()) == 0 {
			break
		}
		settle(ctx)
		if looks[2], err = s.look(ctx, pid); err != nil {
			return err
		}
	}
	if err := writeJSON(s.jsonFile, looks); err != nil {
		return err
	}
	return s.verdict(&looks, &last)
}

// churn is one run of the clients.
func (s *soaker) churn(ctx context.Context, cfg overload.Config) (overload.Outcome, error) {
	scenario := overload.Soak()
	attack, err := overload.Start(ctx, scenario, cfg)
	if err != nil {
		return overload.Outcome{}, err
	}
	outcome, err := attack.Stop(cfg.Long + soakEnd)
	if err == nil {
		err = ctx.Err()
	}
	if wrong := scenario.Wrong(&outcome, nil); err == nil && len(wrong) > 0 {
		err = fmt.Errorf("soak: %v (%s)", wrong, &outcome)
	}
	fmt.Fprintf(os.Stderr, "%v of churn: %s, %d received\n", cfg.Long.Round(time.Second), &outcome, outcome.Received)
	settle(ctx)
	return outcome, err
}

// settle leaves the broker alone.
func settle(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(soakSettle):
	}
}

// look takes a footprint.
func (s *soaker) look(ctx context.Context, pid int) (footprint, error) {
	var r report
	if err := s.askFor(ctx, "/v1/status?collect=true", &r); err != nil {
		return nil, err
	}
	f := footprint{"shards": r.Shards, "heap bytes": r.HeapBytes, "goroutines": r.Goroutines, "connected": r.Connections}
	for name, n := range r.InUse {
		f[name+" in use"] = n
	}
	var err error
	if f["descriptors"], err = s.descriptors(pid); err != nil {
		return nil, err
	}
	if err := s.lookAtStore(ctx, f); err != nil {
		return nil, err
	}
	if f["resident bytes"], err = load.ResidentMemory(pid); err != nil || s.mode != modeXDP {
		return f, err
	}
	return f, s.lookAtQueues(ctx, f)
}

// descriptors counts what a process has open, but for a store's files: those that Pebble has made tables of are as many as it has tables, and
// what they take is counted.
func (s *soaker) descriptors(pid int) (n int64, err error) {
	folder := fmt.Sprintf("/proc/%d/fd", pid)
	list, err := os.ReadDir(folder)
	for _, fd := range list {
		target, _ := os.Readlink(filepath.Join(folder, fd.Name())) // gone again: it does not count either way
		if s.data == "" || !strings.HasPrefix(target, s.data) {
			n++
		}
	}
	return n, err
}

// lookAtStore adds what the store holds: records by kind, and what they take on disk.
func (s *soaker) lookAtStore(ctx context.Context, f footprint) error {
	if s.data == "" {
		return nil
	}
	var stats struct {
		Records map[string]struct{ Count int64 } `json:"records"`
	}
	if err := s.askFor(ctx, "/v1/store?records=true", &stats); err != nil {
		return err
	}
	for name, kind := range stats.Records {
		f["stored "+name] = kind.Count
	}
	var err error
	f["stored bytes"], err = allocatedBelow(filepath.Join(s.data, "db"))
	return err
}

// lookAtQueues adds what XDP mode holds.
func (s *soaker) lookAtQueues(ctx context.Context, f footprint) error {
	var lanes []struct {
		KernelFlows int64 `json:"kernel_flows"`
		Queues      []struct {
			Frames struct {
				Receive  struct{ Frames, FillRing, RXRing, Held, Lost int64 }
				Transmit struct{ Frames, Free, Reserved, TXRing, Held, CompletionRing, Lost int64 }
			} `json:"frames"`
			TCP struct{ Established, HalfOpen, Connections, Panics, Poisoned int64 } `json:"tcp"`
		} `json:"queues"`
	}
	if err := s.askFor(ctx, "/v1/xdp", &lanes); err != nil {
		return err
	}
	for _, l := range lanes {
		f["kernel flows"] += l.KernelFlows
		for _, q := range l.Queues {
			r, t := q.Frames.Receive, q.Frames.Transmit
			f["receive frames lost"] += r.Frames - r.FillRing - r.RXRing - r.Held
			f["transmit frames in use"] += t.Frames - t.Free - t.CompletionRing
			f["TCP connections"] += q.TCP.Connections
			f["TCP established"] += q.TCP.Established
			f["TCP half open"] += q.TCP.HalfOpen
			f["TCP panics"] += q.TCP.Panics + q.TCP.Poisoned
		}
	}
	return nil
}

// verdict prints the footprints side by side.
func (s *soaker) verdict(looks *footprints, last *overload.Outcome) error {
	fmt.Printf("%s mode: %.3g minutes of churn: %d connections, %d messages sent, %d received\n", s.mode, s.minutes, last.Opened, last.Sent, last.Received)
	more := looks.more()
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "what\tat first\tafter warm-up\tat the end\tallowed\t\t")
	for _, name := range slices.Sorted(maps.Keys(looks[2])) {
		says := ""
		if slices.Contains(more, name) {
			says = "MORE"
		}
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%s\t\n", name, looks[0][name], looks[1][name], looks[2][name], looks.allowed(name), says)
	}
	_ = table.Flush()
	if len(more) > 0 {
		return fmt.Errorf("soak in %s mode: the broker holds more than it did: %s", s.mode, strings.Join(more, ", "))
	}
	return nil
}
