package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/ringmq/ringmq/xdp/probe"
	"github.com/urfave/cli/v2"
)

// The exit statuses of ringmq doctor, beside 0 and 1.
const (
	doctorWarns   = 2
	doctorRefuses = 3
	doctorRunning = 4
)

const doctorDescription = `Reads what this host and its network interfaces can carry, says what stands in the way of each mode and which command
changes that, and which mode "ringmq serve" would choose. It changes nothing. Run it as the user who runs the broker: it
judges its own privileges; as root it can read the firewall's rules and the names of XDP programs too.

Examples:
  ringmq doctor                                     this host, all interfaces in short
  ringmq doctor --interface eth0                    would mode auto take XDP on eth0? why not?
  ringmq doctor --interface eth0,eth1 --mode xdp    would mode xdp start on both?
  ringmq doctor --interface eth0 --mode xdp --xdp-require any --queues 0-3
  ringmq doctor --mode standard --port 8883         the host's TCP only
  ringmq doctor --interface eth0 --json | jq -r '.findings[].remedy // empty'

Exit status: 0 when the wanted mode would work and there is no warning; 2 when the broker would start, with warnings or, under
mode auto, without XDP on the interfaces named; 3 when it would not start; 4 when another would not start beside a ringmq that
runs here already, and nothing else is in the way; 1 when it could not be examined.`

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:        "doctor",
		Usage:       "examine host and interfaces: which mode would be chosen, why, and what to change",
		UsageText:   "ringmq doctor [flags]",
		Description: doctorDescription,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "interface", Aliases: []string{"i"}, Usage: "examine interface `NAME` (may be repeated, or a list: eth0,eth1)", DefaultText: "all but loopback, in short"},
			&cli.StringFlag{Name: "mode", Value: string(probe.WishAuto), Usage: "the wanted `MODE`: auto, xdp or standard"},
			&cli.StringFlag{Name: "xdp-require", Usage: "the weakest `MODE` to accept in mode xdp: any, native or zerocopy", DefaultText: "native"},
			&cli.StringFlag{Name: "xdp-limit", Usage: "the strongest `MODE` to try: generic, native or zerocopy", DefaultText: "zerocopy"},
			&cli.StringFlag{Name: "queues", Usage: "the RX queues to bind, a `LIST` such as 0,2-3", DefaultText: allQueues},
			&cli.BoolFlag{Name: "allow-unbound-queues", Usage: "connections may come by other queues"},
			&cli.IntFlag{Name: "frame-size", Value: 2048, Usage: "`BYTES` of an XDP frame: 2048 or 4096"},
			&cli.IntFlag{Name: "port", Aliases: []string{"p"}, Value: 1883, Usage: "the broker's `PORT`, which firewall rules are searched for"},
			&cli.BoolFlag{Name: "json", Usage: "print facts, findings and choice as JSON"},
		},
		Action: doctor,
	}
}

// doctorReport is everything that ringmq doctor has found.
type doctorReport struct {
	Plan       probe.Plan             `json:"plan"`
	Host       probe.HostFacts        `json:"host"`
	Interfaces []probe.InterfaceFacts `json:"interfaces"`
	Findings   []probe.Finding        `json:"findings"`
	Choice     probe.Choice           `json:"choice"`
	ExitStatus int                    `json:"exit_status"`

	named bool // the interfaces were, and are judged
}

func doctor(c *cli.Context) error {
	report := doctorReport{}
	names, err := report.fromFlags(c)
	if err != nil {
		return fmt.Errorf("doctor: %w; ringmq doctor --help lists the flags", err)
	}
	if err := report.examine(names); err != nil {
		return fmt.Errorf("doctor: %w", err)
	}
	if c.Bool("json") {
		encoder := json.NewEncoder(c.App.Writer)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(report)
	} else {
		printer := doctorPrinter{to: c.App.Writer, colour: isTerminal(c.App.Writer)}
		err = printer.print(report)
	}
	if err == nil && report.ExitStatus != 0 {
		err = cli.Exit("", report.ExitStatus)
	}
	return err
}

// fromFlags fills the plan and gives the names of interfaces.
func (r *doctorReport) fromFlags(c *cli.Context) (names []string, err error) {
	if c.Args().Present() {
		return nil, fmt.Errorf("unexpected argument %q", c.Args().First())
	}
	if r.Plan.Wish, err = probe.ParseWish(c.String("mode")); err != nil {
		return nil, fmt.Errorf("--mode: %w", err)
	}
	for name, mode := range map[string]*probe.Mode{"xdp-require": &r.Plan.Require, "xdp-limit": &r.Plan.Limit} {
		if !c.IsSet(name) {
			continue
		}
		if *mode, err = probe.ParseRequire(c.String(name)); err != nil {
			return nil, fmt.Errorf("--%s: %w", name, err)
		}
	}
	if c.IsSet("xdp-require") && r.Plan.Wish != probe.WishXDP {
		return nil, fmt.Errorf("--xdp-require has no effect with --mode %s: add --mode xdp", r.Plan.Wish)
	}
	if list := c.String("queues"); list != "" && list != allQueues {
		if r.Plan.Queues, err = parseNumbers(list); err != nil {
			return nil, fmt.Errorf("--queues: %w", err)
		}
	}
	r.Plan.AllowUnbound = c.Bool("allow-unbound-queues")
	if r.Plan.FrameSizeBytes = c.Int("frame-size"); r.Plan.FrameSizeBytes != 2048 && r.Plan.FrameSizeBytes != 4096 {
		return nil, fmt.Errorf("--frame-size %d: use 2048 or 4096", r.Plan.FrameSizeBytes)
	}
	port := c.Int("port")
	if port < 1 || port > 65535 {
		return nil, fmt.Errorf("--port %d: want 1 to 65535", port)
	}
	r.Plan.Port = uint16(port)
	r.Plan = r.Plan.Complete()
	for _, name := range c.StringSlice("interface") {
		if name = strings.TrimSpace(name); name == "" {
			return nil, errors.New("--interface: want the name of an interface")
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// examine reads the facts and judges them. Interfaces that nobody named are read and not judged.
func (r *doctorReport) examine(names []string) error {
	if len(names) > 0 && runtime.GOOS != "linux" {
		return fmt.Errorf("interface %q: XDP needs Linux, and this is %s: leave --interface out", names[0], runtime.GOOS)
	}
	var err error
	if r.Host, err = probe.Host(); err != nil {
		return err
	}
	r.Host.Firewall, r.Host.Listeners = probe.Firewall(), probe.Listeners(r.Plan.Port)
	r.named = len(names) > 0
	if !r.named {
		if names, err = probe.Interfaces(); err != nil {
			return err
		}
	}
	r.Interfaces = []probe.InterfaceFacts{} // [] for programs that read it, not null
	for _, name := range names {
		facts, err := probe.Interface(name)
		if err != nil && !r.named {
			continue // It is gone since it was listed.
		}
		if err != nil {
			return err
		}
		r.Interfaces = append(r.Interfaces, facts)
	}
	r.findBrokers()
	judged := r.Interfaces
	if !r.named {
		judged = nil
	}
	r.Findings = probe.Findings(r.Host, judged, r.Plan)
	r.Choice = probe.Choose(r.Host, judged, r.Plan)
	r.ExitStatus = r.status()
	return nil
}

func (r *doctorReport) status() int {
	switch {
	case r.Choice.Running:
		return doctorRunning
	case r.Choice.Mode == probe.None:
		return doctorRefuses
	}
	for _, f := range r.Findings {
		if f.Severity != probe.Note && f.Severity != probe.OK {
			return doctorWarns
		}
	}
	return 0
}

// isTerminal says that somebody looks at it, who may want colours.
func isTerminal(w any) bool {
	file, isFile := w.(*os.File)
	if !isFile || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
