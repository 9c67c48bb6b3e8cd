package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/ringmq/ringmq/bpf"
	"github.com/ringmq/ringmq/cmd/admin"
	"github.com/urfave/cli/v2"
)

const xdpDescription = `Examples:
  ringmq xdp status                       what each queue's program, rings and TCP have done
  ringmq xdp drain -i eth0                new connections go to the kernel, those that are there stay
  ringmq xdp drain -i eth0 --queue 3      the same for one queue
  ringmq xdp drain -i eth0 --off          end of it
  ringmq xdp detach -i eth0               take the program off until the broker's next start
  ringmq xdp deny 203.0.113.0/24          drop what these sources send
  ringmq xdp allow 203.0.113.7            but not what this one sends
  ringmq xdp deny --remove 203.0.113.0/24
  ringmq xdp limit --source 20/s --source-burst 40 --all 20000/s --all-burst 20000
  ringmq xdp exempt 198.51.100.0/24       these may open connections as they like

Changes hold until the broker stops; the configuration's table [xdp] has the same for good.
When no broker runs, status tells what is attached to interfaces.`

func xdpCommand() *cli.Command {
	interfaceFlag := &cli.StringFlag{Name: "interface", Aliases: []string{"i"}, Usage: "only `IF`", DefaultText: "all"}
	jsonFlag := &cli.BoolFlag{Name: "json", Usage: "print JSON"}
	list := func(name, usage string) *cli.Command {
		return &cli.Command{Name: name, Usage: usage, UsageText: "ringmq xdp " + name + " [--remove] PREFIX…", OnUsageError: usageError,
			Flags:  []cli.Flag{adminFlag(), &cli.BoolFlag{Name: "remove", Usage: "take the prefixes off the list"}},
			Action: func(c *cli.Context) error { return changeList(c, name) }}
	}
	return &cli.Command{
		Name:        "xdp",
		Usage:       "show and steer XDP mode of a running broker",
		UsageText:   "ringmq xdp status|drain|detach|deny|allow|exempt|limit [flags]",
		Description: xdpDescription,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return fmt.Errorf("xdp: no command %q; ringmq xdp --help lists them", c.Args().First())
			}
			return cli.ShowSubcommandHelp(c)
		},
		Subcommands: []*cli.Command{
			{Name: "status", Usage: "counters of program, rings and TCP, by queue", OnUsageError: usageError,
				Flags: []cli.Flag{adminFlag(), interfaceFlag, jsonFlag}, Action: showXDP},
			{Name: "drain", Usage: "send new connections to the kernel's TCP", OnUsageError: usageError,
				Flags: []cli.Flag{adminFlag(), interfaceFlag,
					&cli.IntFlag{Name: "queue", Value: bpf.AllQueues, Usage: "only queue `N`", DefaultText: "all"},
					&cli.BoolFlag{Name: "off", Usage: "end the drain"}}, Action: drainXDP},
			{Name: "detach", Usage: "take the program off for good", OnUsageError: usageError,
				Flags: []cli.Flag{adminFlag(), interfaceFlag,
					&cli.BoolFlag{Name: "force", Usage: "although that resets the connections that are there"}}, Action: detachXDP},
			list("deny", "drop what sources send"),
			list("allow", "let sources in that a deny prefix covers"),
			list("exempt", "spare sources the limits on new connections"),
			limitCommand(),
		},
	}
}

func limitCommand() *cli.Command {
	return &cli.Command{Name: "limit", Usage: "limit new connections per second; without flags: no limit", OnUsageError: usageError,
		Flags: []cli.Flag{adminFlag(),
			&cli.StringFlag{Name: "source", Usage: "`N/s` of each source (IPv4 address, IPv6 /64)", DefaultText: "no limit"},
			&cli.IntFlag{Name: "source-burst", Usage: "`N` at once", DefaultText: "one second's"},
			&cli.StringFlag{Name: "all", Usage: "`N/s` of all sources together", DefaultText: "no limit"},
			&cli.IntFlag{Name: "all-burst", Usage: "`N` at once", DefaultText: "one second's"}},
		Action: limitXDP}
}

// askXDP is one question to the broker's bypass; an answer is the state of the interfaces.
func askXDP(c *cli.Context, ask func(context.Context, *admin.Client, *[]laneStatus) error) ([]laneStatus, error) {
	path, err := admin.Find(c.String("admin"))
	if err != nil {
		return nil, fmt.Errorf("xdp %s: %w", c.Command.Name, err)
	}
	var lanes []laneStatus
	if err := ask(c.Context, admin.NewClient(path), &lanes); err != nil {
		return nil, fmt.Errorf("xdp %s: %w", c.Command.Name, err)
	}
	return lanes, nil
}

func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return fmt.Errorf("xdp %s: unexpected argument %q", c.Command.Name, c.Args().First())
	}
	return nil
}

func showXDP(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	lanes, err := askXDP(c, func(ctx context.Context, a *admin.Client, lanes *[]laneStatus) error {
		return a.Get(ctx, "/v1/xdp", lanes)
	})
	if err != nil {
		return errors.Join(err, showAttached(c.App.Writer))
	}
	if name := c.String("interface"); name != "" {
		lanes = slices.DeleteFunc(lanes, func(l laneStatus) bool { return l.Interface != name })
		if len(lanes) == 0 {
			return fmt.Errorf("xdp status: interface %q is not steered by this broker", name)
		}
	}
	if c.Bool("json") {
		encoder := json.NewEncoder(c.App.Writer)
		encoder.SetIndent("", "  ")
		return encoder.Encode(lanes)
	}
	if len(lanes) == 0 {
		fmt.Fprintln(c.App.Writer, "this broker runs in standard mode; ringmq doctor says what XDP mode would need")
	}
	for _, l := range lanes {
		printLane(c.App.Writer, l)
	}
	return nil
}

func printLane(to io.Writer, l laneStatus) {
	state := fmt.Sprintf("program %d", l.ProgramID)
	if !l.Attached {
		state = "no program attached"
	}
	fmt.Fprintf(to, "interface %s: mode %s, %s, %d connections left to the kernel\n", l.Interface, l.Mode, state, l.KernelFlows)
	for _, name := range slices.Sorted(maps.Keys(l.Lists)) {
		if prefixes := l.Lists[name]; len(prefixes) > 0 {
			fmt.Fprintf(to, "  %s: %s\n", name, strings.Join(prefixes, " "))
		}
	}
	if s := l.SYNLimit; s.PerSource.Burst+s.Gate.Burst > 0 {
		fmt.Fprintf(to, "  new connections: %s per source, %s in all\n", rate(s.PerSource), rate(s.Gate))
	}
	for _, q := range l.Queues {
		printQueue(to, q)
	}
	for _, name := range slices.Sorted(maps.Keys(l.Unbound)) {
		fmt.Fprintf(to, "  queues that are not bound: %s %s\n", name, thousands(int64(l.Unbound[name].Packets)))
	}
	for _, name := range slices.Sorted(maps.Keys(l.Beyond)) {
		fmt.Fprintf(to, "  queues that came after start: %s %d\n", name, l.Beyond[name].Packets)
	}
}

func rate(r bpf.Rate) string {
	if r.PerSecond == 0 {
		return "no limit"
	}
	return fmt.Sprintf("%g/s (%d at once)", r.PerSecond, r.Burst)
}

func printQueue(to io.Writer, q queueStatus) {
	fmt.Fprintf(to, "queue %d (shard %d)\n", q.Queue, q.Shard)
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	line := func(name, format string, values ...any) {
		fmt.Fprintf(w, "  %s\t%s\n", name, fmt.Sprintf(format, values...))
	}
	for _, name := range slices.Sorted(maps.Keys(q.Verdicts)) {
		n := q.Verdicts[name]
		line("program: "+name, "%s packets, %s bytes", thousands(int64(n.Packets)), thousands(int64(n.Bytes)))
	}
	r, k, t := q.Rings, q.Rings.Kernel, q.TCP
	line("rings", "%s frames in, %s out, %s sends, %d without a frame, %d while down, %d reopened",
		thousands(int64(r.FramesReceived)), thousands(int64(r.FramesSent)), thousands(int64(r.Kicks)), r.TransmitExhausted, r.DroppedDown, r.Reopened)
	line("rings, dropped by the kernel", "%d fill ring empty, %d RX ring full, %d other, %d bad descriptors",
		k.FillRingEmpty, k.ReceiveRingFull, k.ReceiveDropped, k.ReceiveInvalidDescriptors+k.TransmitInvalid)
	f, s := q.Frames.Receive, q.Frames.Transmit
	line("frames, receive", "%d: %d fill ring, %d RX ring, %d driver, %d lost", f.Frames, f.FillRing, f.RXRing, f.Held, f.Lost)
	line("frames, transmit", "%d: %d free, %d reserved, %d TX ring, %d driver, %d completion ring, %d lost",
		s.Frames, s.Free, s.Reserved, s.TXRing, s.Held, s.CompletionRing, s.Lost)
	line("TCP", "%s established, %d half open, %s accepted, %d refused, %s retransmits, %d resets sent",
		thousands(int64(t.Established)), t.HalfOpen, thousands(int64(t.Accepted)), t.AcceptRefused, thousands(int64(t.Retransmits)), t.ResetsSent)
	line("TCP, SYN cookies", "%s sent, %s returned, %s refused", thousands(int64(t.CookiesSent)), thousands(int64(t.CookiesReturned)), thousands(int64(t.CookiesRefused)))
	line("TCP, slow clients", "%s bytes not acknowledged, %s writes limited, %d connections reset", thousands(int64(t.PinnedBytes)), thousands(int64(t.SendLimited)), t.StuckReset)
	line("TCP, unread", "%s bytes, %s segments dropped because they found no room", thousands(int64(t.UnreadBytes)), thousands(int64(t.ReceiveLimited)))
	line("TCP, dropped", "%d malformed, %d not ours, %d checksum, %d no link address, %d overflow, %d between queues",
		t.Malformed, t.NotOurs, t.ChecksumErrors, t.NoLinkAddress, t.OverflowDropped, t.HandoverDropped)
	line("TCP, acknowledgements", "%s held back, %s of them never needed", thousands(int64(t.HeldACKs)), thousands(int64(t.SupersededACKs)))
	_ = w.Flush()
}

func drainXDP(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	where := "the kernel's TCP"
	if c.Bool("off") {
		where = "XDP again"
	}
	lanes, err := askXDP(c, func(ctx context.Context, a *admin.Client, lanes *[]laneStatus) error {
		return a.Post(ctx, "/v1/xdp/drain", drainRequest{Interface: c.String("interface"), Queue: c.Int("queue"), On: !c.Bool("off")}, lanes)
	})
	for _, l := range lanes {
		established := uint64(0)
		for _, q := range l.Queues {
			established += q.TCP.Established
		}
		if err == nil && (c.String("interface") == "" || c.String("interface") == l.Interface) {
			fmt.Fprintf(c.App.Writer, "interface %s: new connections go to %s; %d that XDP carries are still there\n", l.Interface, where, established)
		}
	}
	return err
}

func detachXDP(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	lanes, err := askXDP(c, func(ctx context.Context, a *admin.Client, lanes *[]laneStatus) error {
		return a.Post(ctx, "/v1/xdp/detach", detachRequest{Interface: c.String("interface"), Force: c.Bool("force")}, lanes)
	})
	for _, l := range lanes {
		if err == nil && (c.String("interface") == "" || c.String("interface") == l.Interface) {
			fmt.Fprintf(c.App.Writer, "interface %s: detached for good, all connections are the kernel's from now on\n", l.Interface)
		}
	}
	return err
}

// changeList sends the prefixes of the command line.
func changeList(c *cli.Context, name string) error {
	var prefixes []netip.Prefix
	for _, text := range c.Args().Slice() {
		p, err := parsePrefix(text)
		switch {
		case strings.HasPrefix(text, "-"):
			return fmt.Errorf("xdp %s: %s stands behind the prefixes: flags come first", name, text)
		case err != nil:
			return fmt.Errorf("xdp %s: %w", name, err)
		}
		prefixes = append(prefixes, p)
	}
	if len(prefixes) == 0 {
		return fmt.Errorf("xdp %s: want at least one prefix, such as 192.0.2.0/24", name)
	}
	request := listRequest{List: name, Add: prefixes}
	if c.Bool("remove") {
		request = listRequest{List: name, Remove: prefixes}
	}
	_, err := askXDP(c, func(ctx context.Context, a *admin.Client, lanes *[]laneStatus) error {
		return a.Post(ctx, "/v1/xdp/list", request, lanes)
	})
	return err
}

func limitXDP(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	var limit bpf.SYNLimit
	for name, to := range map[string]*bpf.Rate{"source": &limit.PerSource, "all": &limit.Gate} {
		text := c.String(name)
		if text == "" {
			if c.IsSet(name + "-burst") {
				return fmt.Errorf("xdp limit: --%s-burst needs --%s", name, name)
			}
			continue
		}
		if _, err := fmt.Sscanf(strings.TrimSuffix(text, "/s"), "%g", &to.PerSecond); err != nil || to.PerSecond <= 0 {
			return fmt.Errorf("xdp limit: --%s %q: want connections per second, such as 20/s", name, text)
		}
		if to.Burst = c.Int(name + "-burst"); to.Burst == 0 {
			to.Burst = max(1, int(to.PerSecond))
		}
	}
	_, err := askXDP(c, func(ctx context.Context, a *admin.Client, lanes *[]laneStatus) error {
		return a.Post(ctx, "/v1/xdp/syn-limit", limit, lanes)
	})
	return err
}

// showAttached tells, when no broker answers, what of ours is in the kernel: with bpf_links all of it ends with its process.
func showAttached(to io.Writer) error {
	objects, err := bpf.Installed()
	if err != nil {
		return nil //nolint:nilerr // without the privilege to look there is nothing to add to the first error
	}
	if len(objects.Programs)+len(objects.Maps) == 0 {
		fmt.Fprintln(to, "nothing of ringmq's is in this kernel: no program, no map")
		return nil
	}
	fmt.Fprintf(to, "in this kernel: programs %v, maps %v, of processes that this user's admin sockets do not show\n", objects.Programs, objects.Maps)
	return nil
}
