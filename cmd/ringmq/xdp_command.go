package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

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
When no broker answers, the exit status is 1, and what is said first is which XDP programs are on interfaces, whose they are,
and which command takes them off. A ringmq's own goes with its process, however that ends.`

func xdpCommand() *cli.Command {
	interfaceFlag := &cli.StringFlag{Name: "interface", Aliases: []string{"i"}, Usage: "only `IF`", DefaultText: "all"}
	jsonFlag := &cli.BoolFlag{Name: "json", Usage: "print JSON"}
	list := func(name, usage string) *cli.Command {
		return &cli.Command{Name: name, Usage: usage, UsageText: "ringmq xdp " + name + " [--remove] PREFIX…",
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
			{Name: "status", Usage: "counters of program, rings and TCP, by queue",
				Flags: []cli.Flag{adminFlag(), interfaceFlag, jsonFlag}, Action: showXDP},
			{Name: "drain", Usage: "send new connections to the kernel's TCP",
				Flags: []cli.Flag{adminFlag(), interfaceFlag,
					&cli.IntFlag{Name: "queue", Value: bpf.AllQueues, Usage: "only queue `N`", DefaultText: "all"},
					&cli.BoolFlag{Name: "off", Usage: "end the drain"}}, Action: drainXDP},
			{Name: "detach", Usage: "take the program off for good",
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
	return &cli.Command{Name: "limit", Usage: "limit new connections per second; without flags: no limit",
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
		to := c.App.Writer
		if c.Bool("json") {
			to = c.App.ErrWriter // Programs that read the answer get none.
		}
		showLeft(to)
		return nil, fmt.Errorf("xdp %s: %w", c.Command.Name, err)
	}
	var lanes []laneStatus
	if err := ask(c.Context, admin.NewClient(path), &lanes); err != nil {
		return nil, fmt.Errorf("xdp %s: %w", c.Command.Name, err)
	}
	return lanes, nil
}

// changeXDP is askXDP for what changes something: a broker that steers no interface must not seem to have done it.
func changeXDP(c *cli.Context, resource string, request any) ([]laneStatus, error) {
	lanes, err := askXDP(c, func(ctx context.Context, a *admin.Client, lanes *[]laneStatus) error {
		return a.Post(ctx, resource, request, lanes)
	})
	if err == nil && len(lanes) == 0 {
		err = fmt.Errorf("xdp %s: this broker runs in standard mode and steers no interface: nothing has changed", c.Command.Name)
	}
	return lanes, err
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
		return err
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
	return printLanes(c.App.Writer, lanes)
}

func printLanes(to io.Writer, lanes []laneStatus) error {
	out := bufio.NewWriter(to) // keeps the first error
	if len(lanes) == 0 {
		fmt.Fprintln(out, "this broker runs in standard mode; ringmq doctor says what XDP mode would need")
	}
	for _, l := range lanes {
		printLane(out, l)
	}
	return out.Flush()
}

func drainXDP(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	where := "the kernel's TCP"
	if c.Bool("off") {
		where = "XDP again"
	}
	lanes, err := changeXDP(c, "/v1/xdp/drain", drainRequest{Interface: c.String("interface"), Queue: c.Int("queue"), On: !c.Bool("off")})
	for _, l := range lanes {
		if err == nil && (c.String("interface") == "" || c.String("interface") == l.Interface) {
			fmt.Fprintln(c.App.Writer, drained(l, c.Int("queue"), where))
		}
	}
	return err
}

// drained says what a drain of one queue, or of all, has done.
func drained(l laneStatus, queue int, where string) string {
	name, established := "interface "+l.Interface, uint64(0)
	if queue != bpf.AllQueues {
		name = fmt.Sprintf("%s, queue %d", name, queue)
	}
	for _, q := range l.Queues {
		if queue == bpf.AllQueues || queue == q.Queue {
			established += q.TCP.Established
		}
	}
	return fmt.Sprintf("%s: new connections go to %s; %d that XDP carries are still there", name, where, established)
}

func detachXDP(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	lanes, err := changeXDP(c, "/v1/xdp/detach", detachRequest{Interface: c.String("interface"), Force: c.Bool("force")})
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
	_, err := changeXDP(c, "/v1/xdp/list", request)
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
		var err error
		if to.PerSecond, err = strconv.ParseFloat(strings.TrimSuffix(text, "/s"), 64); err != nil || !(to.PerSecond > 0 && to.PerSecond <= math.MaxInt32) {
			return fmt.Errorf("xdp limit: --%s %q: want connections per second, such as 20/s", name, text)
		}
		if to.Burst = c.Int(name + "-burst"); to.Burst == 0 {
			to.Burst = max(1, int(to.PerSecond))
		}
	}
	_, err := changeXDP(c, "/v1/xdp/syn-limit", limit)
	return err
}
