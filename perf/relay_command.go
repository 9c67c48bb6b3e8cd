package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/ringmq/ringmq/perf/relay"
)

// runRelay is `perf relay`.
func runRelay(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("perf relay", flag.ContinueOnError)
	fault := flags.String("fault", "", "drop, double or swap messages on purpose")
	every := flags.Int("every", 1000, "one message in so many gets the fault")
	host := loopback()
	flags.Func("listen", "`ADDRESS` to listen on (default loopback)", func(text string) (err error) {
		host, err = netip.ParseAddr(text)
		return err
	})
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: perf relay [flags] PORT pairs|all")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	port, err := strconv.ParseUint(flags.Arg(0), 10, 16)
	mode := flags.Arg(1)
	if err != nil || flags.NArg() != 2 || mode != "pairs" && mode != "all" {
		return fmt.Errorf("relay: want PORT and pairs or all, got %q", flags.Args())
	}
	switch relay.Fault(*fault) {
	case "", relay.Drop, relay.Double, relay.Swap:
	default:
		return fmt.Errorf("relay: --fault %s: want drop, double or swap", *fault)
	}
	r, err := relay.New(relay.Config{
		Listen: netip.AddrPortFrom(host, uint16(port)), All: mode == "all",
		Fault: relay.Fault(*fault), FaultEvery: max(*every, 1),
	})
	if err != nil {
		return err
	}
	return r.Run(ctx)
}
