package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/ringmq/ringmq/perf/overload"
)

// dataPlanes are RingMQ's two, and what --mode takes beside them.
const (
	modeStandard = "standard"
	modeXDP      = "xdp"
	modeBoth     = "both"
)

// assault is what `perf overload` and `perf soak` share: one broker of ours in one mode, and an aggressor.
type assault struct {
	place
	mode      string
	brokerCPU int
	loadCPU   int
	built     string
	jsonFile  string
	data      string // the broker's --data; empty: none
	broker    target
	sink      target
	dir       string
}

// flags are those of both commands.
func (a *assault) flags(flags *flag.FlagSet) {
	flags.StringVar(&a.mode, "mode", modeStandard, "standard, xdp (root: makes a veth lab) or both")
	flags.IntVar(&a.brokerCPU, "broker-cpu", 0, "processor for the broker and for the sink that stands for it (-1: any)")
	flags.IntVar(&a.loadCPU, "load-cpu", 1, "processor for victims and aggressors (-1: any)")
	flags.StringVar(&a.built, "ringmq", "", "a ringmq program to measure instead of building this checkout's")
	flags.StringVar(&a.jsonFile, "json", "", "write all results to this file")
	a.flag(flags)
}

// elsewhere runs the command where its mode must run: true when that was not here.
func (a *assault) elsewhere(ctx context.Context, name string, args []string) (bool, error) {
	switch {
	case a.mode != modeStandard && a.mode != modeXDP && a.mode != modeBoth:
		return true, fmt.Errorf("--mode %s: want standard, xdp or both", a.mode)
	case a.bench != nil || a.mode == modeStandard:
		return false, nil
	case a.mode == modeXDP:
		return true, inLab(ctx, name, args)
	}
	err := dispatch(ctx, append(append([]string{name}, args...), "--mode", modeStandard, "--json", suffixed(a.jsonFile, modeStandard)))
	if ctx.Err() != nil {
		return true, err
	}
	return true, errors.Join(err, inLab(ctx, name, append(args, "--mode", modeXDP, "--json", suffixed(a.jsonFile, modeXDP))))
}

// suffixed names one mode's results of two: results.json becomes results-xdp.json.
func suffixed(file, mode string) string {
	if file == "" {
		return ""
	}
	extension := filepath.Ext(file)
	return strings.TrimSuffix(file, extension) + "-" + mode + extension
}

// prepare builds the broker; the caller calls tidy when it is done.
func (a *assault) prepare(ctx context.Context) (tidy func(), err error) {
	if a.dir, err = os.MkdirTemp("", "ringmq-perf"); err != nil {
		return nil, err
	}
	tidy = func() { _ = os.RemoveAll(a.dir) }
	name := "ringmq"
	if a.mode == modeXDP {
		name = "xdp"
	}
	targets, err := prepare(ctx, []string{name, "relay"}, sources{dir: a.dir, ringmq: a.built, bench: a.bench, admin: true})
	if err != nil {
		tidy()
		return nil, err
	}
	a.broker, a.sink = targets[0], targets[1]
	return tidy, nil
}

// startBroker starts our broker with these lines of configuration.
func (a *assault) startBroker(ctx context.Context, settings string) (*server, netip.AddrPort, error) {
	address, err := a.nextAddress()
	if err != nil {
		return nil, address, err
	}
	argv := a.broker.command(int(address.Port()), comparison{})
	if settings != "" {
		file := filepath.Join(a.dir, "ringmq.toml")
		if err := os.WriteFile(file, []byte(settings+"\n"), 0o600); err != nil {
			return nil, address, err
		}
		argv = append(argv, "-c", file)
	}
	if a.data != "" {
		argv = append(argv, "--data", a.data)
	}
	s, err := a.start(ctx, argv, a.brokerCPU, address, a.broker.socket)
	return s, address, err
}

// startSink starts what stands for the broker in a control run, on a data plane of the broker's kind: a control whose aggressor
// talked to the kernel's TCP would compare that with ours, not the attack with its absence.
func (a *assault) startSink(ctx context.Context) (*server, netip.AddrPort, error) {
	if a.mode == modeXDP {
		return a.startPlaneSink(ctx)
	}
	address, err := a.nextAddress()
	if err != nil {
		return nil, address, err
	}
	argv := a.sink.command(int(address.Port()), comparison{relayMode: "pairs"})
	argv = append(argv[:len(argv)-2:len(argv)-2], append([]string{"--listen", address.Addr().String()}, argv[len(argv)-2:]...)...)
	s, err := a.start(ctx, argv, a.brokerCPU, address, "")
	return s, address, err
}

// startPlaneSink starts a sink on the lab's second interface.
func (a *assault) startPlaneSink(ctx context.Context) (*server, netip.AddrPort, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	address := netip.AddrPortFrom(a.bench.second.address, portFirst)
	s, err := a.start(ctx, []string{self, "sink", "--interface", a.bench.second.iface, address.String()}, a.brokerCPU, address, "")
	return s, address, err
}

// aggressor is how scenarios reach an address.
func (a *assault) aggressor(at netip.AddrPort) overload.Config {
	cfg := overload.Config{Target: at, CPU: a.loadCPU, Seed: 1}
	switch {
	case a.bench != nil && at.Addr() == a.bench.second.address:
		cfg.Sources = a.bench.second.sources()
		return cfg
	case a.bench != nil:
		cfg.Sources = a.bench.sources()
		return cfg
	}
	host := loopback()
	for range 1 + addressesMore {
		cfg.Sources = append(cfg.Sources, host)
		host = host.Next()
	}
	return cfg
}

// report is what the broker says of itself (ringmq status --json), as far as it matters here.
type report struct {
	PlannedBytes int64            `json:"memory_planned_bytes"`
	HeapBytes    int64            `json:"heap_bytes"`
	Goroutines   int64            `json:"goroutines"`
	Connections  int64            `json:"connections"`
	Shards       int64            `json:"shards"`
	InUse        map[string]int64 `json:"in_use"`
	Counters     map[string]int64 `json:"counters"`
}

// ask asks the broker's admin socket, which is a file and so the same from every network namespace.
func (a *assault) ask(ctx context.Context) (r report, err error) {
	err = a.askFor(ctx, "/v1/status", &r)
	return r, err
}

func (a *assault) askFor(ctx context.Context, resource string, v any) error {
	response, err := getUnix(ctx, a.broker.socket, resource)
	if err != nil {
		return fmt.Errorf("ask the broker for %s: %w", resource, err)
	}
	defer response.Body.Close()
	return json.NewDecoder(response.Body).Decode(v)
}
