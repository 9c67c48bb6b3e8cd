package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/credentials"
	"github.com/ringmq/ringmq/broker/kernel"
	"github.com/ringmq/ringmq/cmd/admin"
	"github.com/ringmq/ringmq/xdp/probe"
	"github.com/urfave/cli/v2"
)

// drainGrace is how long clients get to take their DISCONNECT when the broker stops.
const drainGrace = 3 * time.Second

// adminDescriptors is how many clients leave to those who ask what is the matter, and to a password file that is read again.
const adminDescriptors = 8

const serveDescription = `Without --listen it serves loopback (127.0.0.1 and ::1) and lets anonymous clients in.
A declared listener denies them unless --allow-anonymous says otherwise.

Examples:
  ringmq serve                                             loopback, port 1883
  ringmq serve --listen :1883 --passwords users            all addresses, users of a password file
  ringmq serve --listen 192.0.2.1:1883 --allow-anonymous   one address, everybody
  ringmq serve -c ringmq.toml --test-config                check a configuration
  ringmq serve --memory 256MiB --max-connections 10000 --plan   what that takes`

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:        "serve",
		Usage:       "run the broker",
		UsageText:   "ringmq serve [flags]",
		Description: serveDescription,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "c", Aliases: []string{"config"}, Usage: "read the configuration from `FILE` (TOML)"},
			&cli.IntFlag{Name: "port", Aliases: []string{"p"}, Usage: "`PORT` of the loopback listeners", DefaultText: "1883"},
			&cli.StringSliceFlag{Name: "listen", Usage: "listen on `ADDR:PORT` (may be repeated)"},
			&cli.BoolFlag{Name: "allow-anonymous", Usage: "let clients in that give no User Name"},
			&cli.StringFlag{Name: "passwords", Usage: "verify users against `FILE` (see ringmq passwd)"},
			&cli.StringFlag{Name: "data", Usage: "keep Sessions, queued and Retained Messages in `DIR`", DefaultText: "they end with the process"},
			&cli.StringFlag{Name: "durability", Usage: "what an acknowledged message survives: fsync (loss of power), os (a crash of the broker) or none", DefaultText: "fsync"},
			&cli.StringFlag{Name: "mode", Usage: "data plane: auto, standard or xdp", DefaultText: "auto"},
			&cli.IntFlag{Name: "shards", Usage: "`N` event loops", DefaultText: "the number of CPUs"},
			&cli.IntFlag{Name: "max-connections", Usage: "serve at most `N` clients at a time", DefaultText: "by memory and file descriptors"},
			&cli.StringFlag{Name: "memory", Usage: "take at most `SIZE` of memory", DefaultText: "a quarter of RAM, at most 1GiB"},
			&cli.StringFlag{Name: "admin", Usage: "`SOCKET` for ringmq status and others; none: no socket", DefaultText: filepath.Join(admin.Directory(), "PID.sock")},
			&cli.BoolFlag{Name: "prefault", Usage: "touch all memory at start"},
			&cli.BoolFlag{Name: "plan", Usage: "print what the limits add up to, and exit"},
			&cli.BoolFlag{Name: "test-config", Usage: "check the configuration, and exit"},
			&cli.BoolFlag{Name: "v", Aliases: []string{"verbose"}, Usage: "log refused clients and more"},
			&cli.BoolFlag{Name: "q", Aliases: []string{"quiet"}, Usage: "log warnings and errors only"},
		}, xdpFlags()...),
		Action: func(c *cli.Context) error { return serve(c, probe.Interface) },
	}
}

// examine looks at an interface: probe.Interface.
type examine func(name string) (probe.InterfaceFacts, error)

// serve checks everything before it opens anything, so that nothing is half-started.
func serve(c *cli.Context, look examine) error {
	if c.Args().Present() {
		return fmt.Errorf("serve: unexpected argument %q; ringmq serve --help lists the flags", c.Args().First())
	}
	if c.IsSet("c") && c.String("c") == "" {
		return fmt.Errorf("-c: %w", errNoFile)
	}
	file, err := readConfiguration(c.String("c"))
	if err != nil {
		return err
	}
	s := file
	if err := s.fromFlags(c); err != nil {
		return err
	}
	var users *credentials.File
	if s.Passwords != "" {
		if users, err = credentials.Load(s.Passwords); err != nil {
			return err
		}
	}
	plane, err := s.chooseDataPlane(look)
	if err != nil {
		return err
	}
	p := &process{settings: s, path: c.String("c"), file: file, users: users, log: newLogger(s.LogLevel), version: c.App.Version}
	if err := p.take(plane); err != nil {
		return err
	}
	addresses, loopback, err := s.addresses()
	if err != nil {
		return err
	}
	switch {
	case c.Bool("plan"):
		plan, err := p.limits.Plan()
		fmt.Fprint(c.App.Writer, plan)
		return err
	case c.Bool("test-config"):
		fmt.Fprintln(c.App.Writer, "configuration is good")
		return nil
	}
	return p.run(addresses, loopback)
}

// process is one running broker.
type process struct {
	settings settings
	path     string   // of the configuration file; empty: none
	file     settings // what was last read there
	plane    dataPlane
	limits   broker.Limits
	users    *credentials.File
	version  string
	log      *slog.Logger
	group    *kernel.Group
	bypass   *bypass
	broker   *broker.Broker
	auth     *authenticator
	journal  *journal
	admin    *admin.Server // nil: none
	durable  *durable      // nil: nothing outlives the process

	descriptors int // that the store leaves
	listeners   int // of the configuration; the kernel may have fewer, where it has no IPv6
}

// take decides for a data plane, and computes the limits that go with it.
func (p *process) take(plane dataPlane) error {
	descriptors, err := kernel.MaxDescriptors()
	if err != nil {
		return err
	}
	p.descriptors = descriptors - p.settings.Store.descriptors(descriptors)
	limits, err := p.settings.limits(memoryBytes(), p.descriptors, p.users, plane)
	p.plane, p.limits = plane, limits
	return err
}

func (p *process) run(addresses []netip.AddrPort, loopback bool) error {
	stops, wishes, deaf := hearSignals()
	defer deaf()
	signal.Ignore(syscall.SIGPIPE) // of a log that nobody reads any more, through a pipe to what Ctrl-C has ended as well
	if err := p.pin(); err != nil {
		return err
	}
	// Queues that another process has just left may take seconds to come free, and a large memory some time to be had. Who came
	// before the steering would be the kernel's for life: a fleet that reconnects at once after a restart. So the kernel does
	// not listen until the queues take new connections.
	p.listeners = len(addresses)
	if err := p.openBypass(addresses); err != nil {
		return err
	}
	defer p.closeBypass()
	if err := p.bind(addresses, loopback); err != nil {
		return err
	}
	defer p.group.Close()
	if err := p.openStore(); err != nil { // behind what may be in use by another broker: then nothing on disk has changed
		return err
	}
	if err := p.open(loopback); err != nil {
		return errors.Join(err, p.durable.close())
	}
	if err := p.control(); err != nil {
		return errors.Join(err, p.durable.close())
	}
	if err := p.letIn(); err != nil {
		return errors.Join(err, p.durable.close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.broker.Run(ctx, drainGrace) }()
	if p.admin != nil {
		p.admin.Start()
		defer p.admin.Close()
	}
	for {
		select {
		case err := <-done:
			p.auth.close()
			p.journal.close()
			return errors.Join(err, p.durable.close())
		case sig := <-stops:
			p.log.Info("stopping", "signal", sig.String())
			cancel()
		case sig := <-wishes:
			p.onWish(sig)
		}
	}
}

// hearSignals gives those that stop the broker a channel of their own: what finds none of its places free is lost, and while a broker
// starts nobody takes any.
func hearSignals() (stops, wishes chan os.Signal, deaf func()) {
	stops, wishes = make(chan os.Signal, 1), make(chan os.Signal, 8)
	signal.Notify(stops, os.Interrupt, syscall.SIGTERM)
	signal.Notify(wishes, syscall.SIGHUP, syscall.SIGUSR2)
	return stops, wishes, func() {
		signal.Stop(stops)
		signal.Stop(wishes)
	}
}

// letIn opens the doors. What comes in waits for the loops, which are about to run.
func (p *process) letIn() error {
	if err := p.bypass.start(); err != nil {
		return err
	}
	if err := p.group.Listen(); err != nil {
		return err
	}
	for _, a := range p.group.Addresses() {
		p.log.Info("listening", "address", a.String())
	}
	p.bypass.announce(p.settings.steered())
	return nil
}

// pin is --cpus: the process's threads; the queues' interrupts follow when the queues are known.
func (p *process) pin() error {
	cpus, err := p.settings.XDP.cpus()
	if err != nil || len(cpus) == 0 {
		return err
	}
	return pinProcess(cpus)
}

func (p *process) onWish(sig os.Signal) {
	switch sig {
	case syscall.SIGHUP:
		p.reload()
	case syscall.SIGUSR2:
		p.dump()
	}
}

// mode is the data plane that is used.
func (p *process) mode() string { return p.plane.mode.String() }

// openBypass is for XDP mode. Where auto did not choose it, or opening shows that it cannot be, the log says why.
func (p *process) openBypass(addresses []netip.AddrPort) error {
	if p.plane.isXDP() {
		bypass, err := openBypass(&p.settings, addresses, &p.limits, p.plane.queues, p.log)
		p.bypass = bypass
		refusal, refused := errors.AsType[*openError](err)
		if !refused || p.settings.wish() != probe.WishAuto {
			return err
		}
		if err := p.take(refusal.standard()); err != nil {
			return err
		}
	}
	p.bypass = &bypass{log: p.log} // of no interface
	if p.plane.reason != "" {
		p.log.Warn("mode standard", "reason", p.plane.reason, "remedy", p.plane.remedy)
	}
	return nil
}

func (p *process) closeBypass() {
	if err := p.bypass.close(); err != nil {
		p.log.Error("XDP not closed cleanly", "error", err)
	}
}

// bind opens the sockets, which listen when everything else is there. Where the machine has no IPv6, listeners on IPv6 addresses are left out.
func (p *process) bind(addresses []netip.AddrPort, loopback bool) error {
	config := kernel.Config{Addresses: addresses, Planes: p.limits.Shards - p.plane.queues, Park: p.parks(), Later: true,
		DescriptorsMax: p.descriptors - adminDescriptors}
	group, err := kernel.Open(config)
	if loopback && errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) {
		four := slices.DeleteFunc(slices.Clone(addresses), func(a netip.AddrPort) bool { return a.Addr().Is6() })
		if len(four) > 0 {
			config.Addresses = four
			group, err = kernel.Open(config)
		}
	}
	p.group = group
	return err
}

// open makes the broker on its planes.
func (p *process) open(loopback bool) error {
	anonymous := loopback
	if a := p.settings.AllowAnonymous; a != nil {
		anonymous = *a
	}
	if !anonymous && p.users == nil {
		p.log.Warn("nobody can connect: anonymous clients are denied and there is no password file",
			"remedy", "--allow-anonymous or --passwords FILE")
	}
	strategy, err := p.settings.strategy()
	if err != nil {
		return err
	}
	config := broker.Config{SharedStrategy: strategy, ServerReference: p.settings.ServerReference, Version: p.version,
		ResponseInformation: p.settings.ResponseInformation, SysIntervalSeconds: 10, Seed: seed()}
	if v := p.settings.SysInterval; v != nil {
		config.SysIntervalSeconds = int(time.Duration(*v) / time.Second)
	}
	for range max(len(p.group.Addresses()), p.listeners) {
		config.Listeners = append(config.Listeners, broker.ListenerConfig{AllowAnonymous: anonymous})
	}
	if p.users != nil {
		config.Passwords, config.Methods = true, []string{scramMethod}
		for _, w := range p.users.Warnings() {
			p.log.Warn(w)
		}
	}
	planes := p.bypass.planes() // shard i is queue i
	for _, plane := range p.group.Planes() {
		planes = append(planes, plane)
	}
	p.journal = newJournal(p.log)
	p.auth = newAuthenticator(p.users, p.limits.ConnectTimeout/2)
	p.tuneRuntime()
	start := time.Now()
	p.broker, err = broker.New(broker.Options{Limits: p.limits, Config: config, Host: p, Store: p.durable.asStore(), Prefault: p.settings.Prefault, LockThread: p.locks()}, planes)
	if err != nil {
		return err
	}
	p.auth.start(p.broker.Loops())
	p.journal.start()
	p.durable.start(p.broker, time.Since(start))
	return nil
}

// locks tells whether loops keep an OS thread of their own: in standard mode, where Wait blocks in the kernel. A queue's loop shares
// its thread with its stack's goroutine: each hand-over between two threads would be a futex.
func (p *process) locks() bool {
	return !p.plane.isXDP() || p.settings.XDP.LockThreads
}

// parks tells whether the loops of the kernel's TCP wait without a thread. Beside queues they have few clients; but one that is
// busy in a loop that blocks in the kernel takes half of what 5000 pairs get from a queue.
func (p *process) parks() bool { return !p.locks() }

// tuneRuntime leaves collections to the memory limit: the hot path makes no garbage, and administrative calls make
// little. Two Ps beside the loops' let the scheduler's own work run while every loop holds its thread.
func (p *process) tuneRuntime() {
	plan, err := p.limits.Plan()
	if err != nil {
		return
	}
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(plan.Heap)
	runtime.GOMAXPROCS(p.processors())
}

// processors is how many Ps there are to be.
func (p *process) processors() int {
	cpus, _ := p.settings.XDP.cpus()
	switch {
	case len(cpus) > 0:
		return len(cpus)
	case p.plane.isXDP():
		return min(runtime.NumCPU(), p.limits.Shards)
	}
	return p.limits.Shards + 2
}

// Authenticate is part of broker.Host.
func (p *process) Authenticate(r broker.AuthRequest) bool { return p.auth.ask(r) }

// Log is part of broker.Host.
func (p *process) Log(e broker.LogEvent) bool { return p.journal.put(e) }

// dump logs the counters.
func (p *process) dump() {
	n := p.broker.Counters()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	p.log.Info("state", "collections", m.NumGC, "heap_bytes", m.HeapAlloc, "counters", n.String())
}

func seed() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: see crypto/rand
	return binary.LittleEndian.Uint64(b[:])
}
