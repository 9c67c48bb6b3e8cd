package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"github.com/ringmq/ringmq/bpf"
	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/netstack"
	"github.com/ringmq/ringmq/netstack/capture"
	"github.com/ringmq/ringmq/xdp"
	"github.com/ringmq/ringmq/xdp/probe"
)

// bypass is the part of the broker that the kernel's TCP does not carry: interfaces whose queues feed stacks of our own.
type bypass struct {
	log   *slog.Logger
	lanes []*lane
	loops []*broker.Loop // queue by queue, then those of the kernel's TCP
	tap   capture.Tap
}

// lane is one interface with the stacks behind its queues.
type lane struct {
	*xdp.Interface
	restore func() // the queues' interrupts

	mu     sync.Mutex      // taken to write stacks, and by the interface's watcher to read them
	stacks *netstack.Group // fixed once the lane is open
}

var _ netstack.Device = (*xdp.Queue)(nil)

// closingShare is the part of a plane's connections that may be on their way out while others come: what the peer has not
// acknowledged yet, and TIME-WAIT.
const closingShare = 4

// openBypass attaches the steering program to each interface, with nothing steered yet, and builds the stacks, each of which
// may have all of the broker's sockets, and its part of the memory for slow clients and for what is not read.
func openBypass(s *settings, listeners []netip.AddrPort, limits *broker.Limits, queues int, log *slog.Logger) (*bypass, error) {
	b := &bypass{log: log}
	sockets := limits.Sockets()
	config := netstack.Config{Addresses: listeners, MaxConnections: sockets + sockets/closingShare,
		SendMemoryBytes: limits.PlaneSendBytes / int64(queues), ReceiveMemoryBytes: limits.PlaneReceiveBytes / int64(queues),
		TCP: s.XDP.tcp()}
	for _, name := range s.XDP.Interfaces {
		if err := b.openLane(s, name, config, programOptions(limits)); err != nil {
			return nil, errors.Join(err, b.close())
		}
	}
	return b, nil
}

// programOptions sizes the program's tables: when somebody takes it off, all of the broker's clients may come by the kernel, and it
// must know them to be attached again.
func programOptions(limits *broker.Limits) bpf.Options {
	return bpf.Options{KernelFlows: max(bpf.DefaultKernelFlows, limits.Sockets())}
}

func (b *bypass) openLane(s *settings, name string, stacks netstack.Config, program bpf.Options) error {
	l := &lane{}
	config := s.xdpConfig(name)
	config.Program = program
	config.Events = func(e xdp.Event) { b.onEvent(l, e) }
	var err error
	if l.Interface, err = xdp.Open(config); err != nil {
		return &openError{name, err}
	}
	b.lanes = append(b.lanes, l)
	if err := configureProgram(l.Program(), &s.XDP); err != nil {
		return fmt.Errorf("XDP on interface %q: %w", name, err)
	}
	var devices []netstack.Device
	for _, q := range l.Queues() {
		devices = append(devices, b.tap.Wrap(q, name))
	}
	stacks.Neighbour = neighbours(name)
	if err := l.openStacks(stacks, devices, l.Addresses); err != nil {
		return fmt.Errorf("TCP on interface %q: %w", name, err)
	}
	if cpus, _ := s.XDP.cpus(); len(cpus) > 0 {
		var queues []int
		for _, q := range l.Queues() {
			queues = append(queues, q.Number())
		}
		if l.restore, err = pinInterrupts(name, queues, cpus); err != nil {
			return err
		}
	}
	for _, reason := range l.FallbackReasons() {
		b.log.Warn("weaker XDP mode", "interface", name, "reason", reason)
	}
	return nil
}

// openStacks builds the stacks. The watcher runs already: addresses that it tells of before are in what is asked here, and those that it
// tells of meanwhile wait.
func (l *lane) openStacks(config netstack.Config, devices []netstack.Device, addresses func() []netip.Prefix) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	config.HostAddresses = addresses()
	l.stacks, err = netstack.Open(config, devices)
	return err
}

// follow tells the stacks, if there are any yet, of new addresses.
func (l *lane) follow(addresses []netip.Prefix) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stacks == nil {
		return nil
	}
	return l.stacks.SetAddresses(addresses)
}

// openError is why an interface cannot be opened, for which mode auto has an answer.
type openError struct {
	name string
	error
}

func (e *openError) Unwrap() error { return e.error }

// standard is what mode auto takes instead.
func (e *openError) standard() dataPlane {
	d := dataPlane{mode: probe.Standard, reason: e.Error(), remedy: "ringmq doctor --mode xdp --interface " + e.name}
	if weak, ok := errors.AsType[*xdp.WeakDriverError](e.error); ok {
		d.reason = fmt.Sprintf("interface %q has no zero-copy, and mode auto takes no less: %v", e.name, weak.Err)
		d.remedy = "--mode xdp takes native copy mode"
	}
	return d
}

// configureProgram sets what the configuration says about sources.
func configureProgram(p *bpf.Program, x *xdpSettings) error {
	lists, err := x.lists()
	if err != nil {
		return err
	}
	for list, prefixes := range lists {
		if err := p.SetPrefixes(list, prefixes); err != nil {
			return err
		}
	}
	return p.SetSYNLimit(x.synLimit())
}

// onEvent logs what has happened to an interface, and tells its stacks of new addresses.
func (b *bypass) onEvent(l *lane, e xdp.Event) {
	level := slog.LevelWarn
	switch e.Kind {
	case xdp.LinkUp, xdp.Reopened, xdp.AddressesChanged, xdp.HardwareAddrChanged:
		level = slog.LevelInfo
	case xdp.QueuesChanged:
		if len(e.Unbound) == 0 {
			level = slog.LevelInfo
		}
	case xdp.Failed:
		level = slog.LevelError
	}
	b.log.Log(context.Background(), level, e.String())
	if e.Kind == xdp.AddressesChanged {
		if err := l.follow(e.Addresses); err != nil {
			b.log.Error("addresses not followed", "interface", e.Interface, "error", err)
		}
	}
}

// planes are one per queue, in the order of interfaces and queues.
func (b *bypass) planes() (planes []broker.Plane) {
	for _, l := range b.lanes {
		for _, p := range l.stacks.Planes() {
			planes = append(planes, p)
		}
	}
	return planes
}

// start lets traffic in: from here on the steering program gives segments to the stacks.
func (b *bypass) start() error {
	for _, l := range b.lanes {
		if err := l.Start(); err != nil {
			return err
		}
	}
	return nil
}

// announce says what is steered: what comes for the listeners' addresses that the interface has.
func (b *bypass) announce(listeners []netip.AddrPort) {
	for _, l := range b.lanes {
		b.log.Info("steering", "interface", l.Name(), "mode", l.Mode().String(), "queues", len(l.Queues()))
		if !delivers(l.Addresses(), listeners) {
			b.log.Warn("the interface has none of the listeners' addresses: until it gets one, the kernel's TCP serves alone",
				"interface", l.Name(), "remedy", "--listen with an address of "+l.Name()+", or without one")
		}
	}
}

// delivers tells whether an interface with these addresses has one that is listened on.
func delivers(addresses []netip.Prefix, listeners []netip.AddrPort) bool {
	return slices.ContainsFunc(listeners, func(l netip.AddrPort) bool {
		return slices.ContainsFunc(addresses, func(p netip.Prefix) bool {
			return p.Addr() == l.Addr() || l.Addr().IsUnspecified() && l.Addr().Is4() == p.Addr().Is4()
		})
	})
}

// close ends the stacks, then detaches the program and gives the umems back. No loop may run any more.
func (b *bypass) close() error {
	var errs []error
	for _, l := range b.lanes {
		if l.stacks != nil {
			errs = append(errs, l.stacks.Close())
		}
		if l.restore != nil {
			l.restore()
		}
		errs = append(errs, l.Interface.Close())
	}
	b.lanes = nil
	return errors.Join(errs...)
}
