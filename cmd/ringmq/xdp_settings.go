package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringmq/ringmq/bpf"
	"github.com/ringmq/ringmq/netstack"
	"github.com/ringmq/ringmq/xdp"
	"github.com/ringmq/ringmq/xdp/probe"
	"github.com/urfave/cli/v2"
)

// allQueues is the value of queues for every RX queue, and the default.
const allQueues = "all"

// xdpSettings are the keys of the configuration's table [xdp]; zero values take the defaults of packages xdp and netstack.
type xdpSettings struct {
	Interfaces    []string `toml:"interfaces"`
	Queues        string   `toml:"queues"`               // all, or a list such as 0,2-3
	AllowUnbound  bool     `toml:"allow_unbound_queues"` // RSS may deliver to queues that we do not bind: those connections stay with the kernel
	CPUs          string   `toml:"cpus"`                 // a list such as 0,2-3
	LockThreads   bool     `toml:"lock_threads"`
	Require       string   `toml:"require"` // any, native or zerocopy: the weakest mode to accept
	Limit         string   `toml:"limit"`   // the strongest mode to try
	BusyPoll      bool     `toml:"busy_poll"`
	FrameSize     int      `toml:"frame_size"`
	ReceiveFrames int      `toml:"receive_frames"`
	SendFrames    int      `toml:"transmit_frames"`

	Deny           []string `toml:"deny"`
	Allow          []string `toml:"allow"`
	SYNExempt      []string `toml:"syn_exempt"`
	SYNRate        float64  `toml:"syn_rate"` // per second and source
	SYNBurst       int      `toml:"syn_burst"`
	SYNGlobalRate  float64  `toml:"syn_global_rate"`
	SYNGlobalBurst int      `toml:"syn_global_burst"`

	CongestionControl string `toml:"congestion_control"`
	MinRTO            span   `toml:"min_rto"`
	TimeWait          span   `toml:"time_wait"`
	CloseTimeout      span   `toml:"close_timeout"`
	HandshakeTimeout  span   `toml:"handshake_timeout"`
	AckDelay          *span  `toml:"ack_delay"` // 0s: until the end of the turn
	SACK              *bool  `toml:"sack"`      // on, if not given
	RACK              bool   `toml:"rack"`
	ReceiveBuffer     size   `toml:"receive_buffer"`
	SendBuffer        size   `toml:"send_buffer"`
	SendMemory        size   `toml:"send_memory"`    // of all queues, for what clients do not acknowledge
	ReceiveMemory     size   `toml:"receive_memory"` // of all queues, for what the broker has not read
}

// busyPollMicroseconds is how long --busy-poll lets a system call poll the NIC: the kernel's documented recommendation
// (Documentation/networking/napi.rst) is tens of microseconds.
const busyPollMicroseconds = 50

func xdpFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "interface", Aliases: []string{"i"}, Usage: "steer the traffic of `IF` past the kernel's TCP (may be repeated; see ringmq doctor)"},
		&cli.StringFlag{Name: "queues", Usage: "bind the RX queues of `LIST`, such as 0,2-3", DefaultText: allQueues},
		&cli.BoolFlag{Name: "allow-unbound-queues", Usage: "start although connections may come by queues outside --queues; they stay with the kernel"},
		&cli.StringFlag{Name: "cpus", Usage: "run on the processors of `LIST`, such as 0,2-3, and let them take the queues' interrupts", DefaultText: "all"},
		&cli.StringFlag{Name: "xdp-require", Usage: "`MODE` that --mode xdp must reach: any, native or zerocopy", DefaultText: "native"},
		&cli.StringFlag{Name: "xdp-limit", Usage: "strongest `MODE` to try: generic, native or zerocopy", DefaultText: "zerocopy"},
		&cli.BoolFlag{Name: "busy-poll", Usage: "poll NIC queues instead of waiting for interrupts: less latency, more processor time"},
	}
}

// fromFlags lays the flags over what the file says.
func (x *xdpSettings) fromFlags(c *cli.Context) {
	if c.IsSet("interface") {
		x.Interfaces = nil
		for _, names := range c.StringSlice("interface") {
			x.Interfaces = append(x.Interfaces, strings.Split(names, ",")...)
		}
	}
	for name, to := range map[string]*string{"queues": &x.Queues, "cpus": &x.CPUs, "xdp-require": &x.Require, "xdp-limit": &x.Limit} {
		if c.IsSet(name) {
			*to = c.String(name)
		}
	}
	x.AllowUnbound = x.AllowUnbound || c.Bool("allow-unbound-queues")
	x.BusyPoll = x.BusyPoll || c.Bool("busy-poll")
}

// check judges what needs no interface.
func (x *xdpSettings) check() error {
	for i, name := range x.Interfaces {
		if name == "" || slices.Contains(x.Interfaces[:i], name) {
			return fmt.Errorf("interface: %q is empty or named twice", name)
		}
	}
	var errs []error
	try := func(_ any, err error) { errs = append(errs, err) }
	try(x.queues())
	try(x.cpus())
	try(x.require())
	try(x.limit())
	try(x.lists())
	if err := x.tcp().Check(); err != nil {
		errs = append(errs, fmt.Errorf("xdp: %w", err))
	}
	for name, r := range map[string]bpf.Rate{"syn_rate and syn_burst": x.synLimit().PerSource, "syn_global_rate and syn_global_burst": x.synLimit().Gate} {
		if (r.PerSecond == 0) != (r.Burst == 0) {
			errs = append(errs, fmt.Errorf("xdp: %s: give both or neither", name))
		}
	}
	if len(x.Interfaces) > 1 && x.Queues != "" && x.Queues != allQueues {
		errs = append(errs, errors.New("queues: a list is for one interface; leave it out, or name one interface"))
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// queues are the queue numbers to bind; none means all.
func (x *xdpSettings) queues() ([]int, error) {
	if x.Queues == "" || x.Queues == allQueues {
		return nil, nil
	}
	list, err := parseNumbers(x.Queues)
	if err != nil {
		return nil, fmt.Errorf("queues: %w", err)
	}
	return list, nil
}

func (x *xdpSettings) cpus() ([]int, error) {
	if x.CPUs == "" {
		return nil, nil
	}
	list, err := parseNumbers(x.CPUs)
	if err != nil {
		return nil, fmt.Errorf("cpus: %w", err)
	}
	return list, nil
}

// require is the weakest mode to accept under --mode xdp.
func (x *xdpSettings) require() (probe.Mode, error) {
	if x.Require == "" {
		return probe.Native, nil
	}
	mode, err := probe.ParseRequire(x.Require)
	if err != nil {
		return mode, fmt.Errorf("xdp-require: %w", err)
	}
	return mode, nil
}

// limit is the strongest mode to try; 0 is the strongest there is.
func (x *xdpSettings) limit() (xdp.Mode, error) {
	if x.Limit == "" {
		return 0, nil
	}
	mode, err := xdp.ParseMode(x.Limit)
	if err != nil {
		return mode, fmt.Errorf("xdp-limit: %w", err)
	}
	return mode, nil
}

// lists are the source prefixes of each list.
func (x *xdpSettings) lists() (map[bpf.List][]netip.Prefix, error) {
	lists := map[bpf.List][]netip.Prefix{}
	for list, texts := range map[bpf.List][]string{bpf.Deny: x.Deny, bpf.Allow: x.Allow, bpf.Exempt: x.SYNExempt} {
		for _, text := range texts {
			prefix, err := parsePrefix(text)
			if err != nil {
				return nil, fmt.Errorf("xdp: %v: %w", list, err)
			}
			lists[list] = append(lists[list], prefix)
		}
	}
	return lists, nil
}

func (x *xdpSettings) synLimit() bpf.SYNLimit {
	return bpf.SYNLimit{PerSource: bpf.Rate{PerSecond: x.SYNRate, Burst: x.SYNBurst},
		Gate: bpf.Rate{PerSecond: x.SYNGlobalRate, Burst: x.SYNGlobalBurst}}
}

func (x *xdpSettings) tcp() netstack.TCPConfig {
	c := netstack.TCPConfig{ReceiveBufferBytes: int(x.ReceiveBuffer), SendBufferBytes: int(x.SendBuffer),
		CongestionControl: x.CongestionControl, MinRTO: time.Duration(x.MinRTO), TimeWait: time.Duration(x.TimeWait),
		CloseTimeout: time.Duration(x.CloseTimeout), HandshakeTimeout: time.Duration(x.HandshakeTimeout),
		NoSACK: x.SACK != nil && !*x.SACK, RACK: x.RACK}
	switch {
	case x.AckDelay == nil:
	case *x.AckDelay == 0:
		c.AckDelay = -1
	default:
		c.AckDelay = time.Duration(*x.AckDelay)
	}
	return c
}

// parsePrefix reads 192.0.2.0/24, or one address. One of IPv4 within IPv6 is what comes as IPv4: no frame has it otherwise.
func parsePrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		a = a.Unmap()
		return a.Prefix(a.BitLen())
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, fmt.Errorf("%q is no prefix, such as 192.0.2.0/24 or 2001:db8::/32", text)
	}
	if bits := p.Bits() - 96; p.Addr().Is4In6() && bits >= 0 {
		p = netip.PrefixFrom(p.Addr().Unmap(), bits)
	}
	return p.Masked(), nil
}

// numberMax bounds queue and processor numbers, so that a slip of the pen asks for no memory.
const numberMax = 4095

// parseNumbers reads a list of numbers and ranges, such as 0,2-3, as taskset and ethtool write it.
func parseNumbers(text string) ([]int, error) {
	var list []int
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil || from < 0 || to < from || to > numberMax {
			return nil, fmt.Errorf("%q is no list of numbers, such as 0,2-3", text)
		}
		for n := from; n <= to; n++ {
			if slices.Contains(list, n) {
				return nil, fmt.Errorf("%q has %d twice", text, n)
			}
			list = append(list, n)
		}
	}
	return list, nil
}
