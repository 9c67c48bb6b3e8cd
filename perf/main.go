// Command perf measures RingMQ beside other brokers: `go run ./perf compare`; `go run ./perf conform` tries them against the
// standards.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage: go run ./perf COMMAND [flags]

  compare  start brokers in turn, load each alike, print a table
  durable  acknowledged QoS 1 messages to Sessions that are kept, beside what the disk can do
  store    what kept Sessions and messages take on disk and in memory, and how soon the broker is back
  lab      compare over a veth pair, XDP mode included (root)
  echo     the limit of XDP mode over a veth pair: frames through two bare AF_XDP sockets (root)
  conform  start brokers in turn, and try each against the normative statements of MQTT
  overload what victims suffer from clients that take more than their part
  soak     churn that leaves nothing behind
  relay    the floor: pass PUBLISH bytes on and do nothing else
  sink     answer over XDP mode's plane and do nothing else: what stands for the broker in overload's control runs (root)

go run ./perf COMMAND -h lists the flags. One load against one broker: ringmq bench.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := dispatch(ctx, os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "perf:", err)
		stop()
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return errors.New("no command")
	}
	switch args[0] {
	case "compare":
		return runCompare(ctx, args[1:])
	case "durable":
		return runDurable(ctx, args[1:])
	case "store":
		return runStore(ctx, args[1:])
	case "lab":
		return runLab(ctx, args[1:])
	case "echo":
		return runEcho(ctx, args[1:])
	case "conform":
		return runConform(ctx, args[1:])
	case "overload":
		return runOverload(ctx, args[1:])
	case "soak":
		return runSoak(ctx, args[1:])
	case "relay":
		return runRelay(ctx, args[1:])
	case "sink":
		return runSink(ctx, args[1:])
	}
	return fmt.Errorf("unknown command %q; the commands are compare, durable, store, lab, echo, conform, overload, soak, relay, sink", args[0])
}
