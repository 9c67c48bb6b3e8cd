package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/cmd/admin"
	"github.com/urfave/cli/v2"
)

const statusDescription = `Examples:
  ringmq status                            the broker of this machine: what it serves, and what it has counted
  ringmq status --connections              who is connected, from where, on which shard
  ringmq status --connections --client d7  where one client is
  ringmq status --json | jq .counters      for programs
  ringmq status --ready                    exit 1, and why, when it refuses messages because its store fails
  ringmq status --admin 4711               of several brokers, the one with this process id`

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:        "status",
		Usage:       "show a running broker of this machine: its counters, its connections",
		UsageText:   "ringmq status [flags]",
		Description: statusDescription,
		Flags: []cli.Flag{
			adminFlag(),
			&cli.BoolFlag{Name: "connections", Aliases: []string{"c"}, Usage: "list the connections"},
			&cli.StringFlag{Name: "client", Usage: "only the connection of this Client `ID`"},
			&cli.IntFlag{Name: "limit", Usage: "at most `N` connections", DefaultText: "all"},
			&cli.BoolFlag{Name: "ready", Usage: "only say whether it takes all messages; exit 1 when not"},
			&cli.BoolFlag{Name: "collect", Usage: "have the broker collect garbage first, so that its heap is what is in use"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON, one object a line for connections"},
		},
		Action: showStatus,
	}
}

// adminFlag names the broker that a command is about.
func adminFlag() cli.Flag {
	return &cli.StringFlag{Name: "admin", Usage: "the broker with this admin `SOCKET` or process id", DefaultText: "the only one there is"}
}

// dialAdmin finds the broker that the command's flags mean; the context ends with the user's patience.
func dialAdmin(c *cli.Context) (*admin.Client, context.Context, context.CancelFunc, error) {
	if c.Args().Present() {
		return nil, nil, nil, fmt.Errorf("%s: unexpected argument %q", c.Command.Name, c.Args().First())
	}
	path, err := admin.Find(c.String("admin"))
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%s: %w", c.Command.Name, err)
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	return admin.NewClient(path), ctx, stop, nil
}

func showStatus(c *cli.Context) error {
	client, ctx, stop, err := dialAdmin(c)
	if err != nil {
		return err
	}
	defer stop()
	if c.IsSet("limit") && c.Int("limit") < 1 {
		return errors.New("status: --limit: want at least 1")
	}
	if c.Bool("ready") {
		return showReady(ctx, c, client)
	}
	if c.Bool("connections") || c.IsSet("client") || c.IsSet("limit") {
		return showConnections(ctx, c, client)
	}
	var s status
	resource := "/v1/status"
	if c.Bool("collect") {
		resource += "?collect=true"
	}
	if err := client.Get(ctx, resource, &s); err != nil {
		return fmt.Errorf("status: %w", err)
	}
	if c.Bool("json") {
		encoder := json.NewEncoder(c.App.Writer)
		encoder.SetIndent("", "  ")
		return encoder.Encode(s)
	}
	return printStatus(c.App.Writer, s)
}

func showReady(ctx context.Context, c *cli.Context, client *admin.Client) error {
	var r readiness
	if err := client.Get(ctx, "/v1/ready", &r); err != nil {
		return fmt.Errorf("status: %w", err)
	}
	_, err := fmt.Fprintln(c.App.Writer, "ready")
	return err
}

func printStatus(to io.Writer, s status) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "ringmq %s\tpid %d, mode %s, %d shards, up %v\n", s.Version, s.PID, s.Mode, s.Shards,
		(time.Duration(s.UptimeSeconds * float64(time.Second))).Round(time.Second))
	for _, a := range s.Listening {
		fmt.Fprintf(w, "listening\t%s\n", a)
	}
	fmt.Fprintf(w, "connected\t%s\n", thousands(s.Connections))
	fmt.Fprintf(w, "memory\t%s bytes planned, %s of them in use by the Go heap, %d collections\n", thousands(s.MemoryBytes), thousands(int64(s.HeapBytes)), s.Collections)
	fmt.Fprintf(w, "in use\t%s sessions, %s subscriptions, %s retained messages, %s messages stored for %s deliveries, %s pages\n",
		thousands(s.InUse.Sessions), thousands(s.InUse.Subscriptions), thousands(s.InUse.Retained), thousands(s.InUse.Messages),
		thousands(s.InUse.Deliveries), thousands(s.InUse.Pages))
	switch {
	case s.Store == nil:
	case s.Store.Refusing:
		fmt.Fprintf(w, "store\tREFUSES messages that are to be kept, for %v: %s\n", time.Since(s.Store.Since).Round(time.Second), s.Store.Why)
	default:
		fmt.Fprintf(w, "store\tworks\n")
	}
	names := make([]string, 0, len(s.Counters))
	for name, n := range s.Counters {
		if n != 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(w, "%s\t%s\n", name, thousands(int64(s.Counters[name])))
	}
	return w.Flush()
}

// showConnections passes lines on as they come, so that a hundred thousand need no memory.
func showConnections(ctx context.Context, c *cli.Context, client *admin.Client) error {
	query := url.Values{}
	if id := c.String("client"); id != "" {
		query.Set("client", id)
	}
	if n := c.Int("limit"); n > 0 {
		query.Set("limit", strconv.Itoa(n))
	}
	stream, err := client.Stream(ctx, "/v1/connections?"+query.Encode())
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	defer stream.Close()
	if c.Bool("json") {
		_, err = io.Copy(c.App.Writer, stream)
		return err
	}
	return printConnections(c.App.Writer, stream)
}

func printConnections(to io.Writer, stream io.Reader) (err error) {
	out := bufio.NewWriter(to) // keeps the first error
	defer func() { err = cmp.Or(err, out.Flush()) }()
	lines := json.NewDecoder(stream)
	fmt.Fprintf(out, "%-24s %-46s %5s %7s %10s %9s %9s %9s\n", "client", "remote", "shard", "version", "keep alive", "silent", "outbound", "queued")
	for {
		var i broker.ConnectionInfo
		err := lines.Decode(&i)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("status: %w", err)
		}
		silent := (time.Duration(i.SilentMilliseconds) * time.Millisecond).Round(time.Second / 10)
		fmt.Fprintf(out, "%-24q %-46s %5d %7d %9ds %9v %9d %9d\n", i.ClientID, i.Remote, i.Shard, i.Version, i.KeepAliveSeconds, silent, i.OutboundBytes, i.QueuedBytes)
	}
}
