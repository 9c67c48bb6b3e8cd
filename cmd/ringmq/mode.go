package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/netstack"
	"github.com/ringmq/ringmq/xdp"
	"github.com/ringmq/ringmq/xdp/probe"
)

const (
	// connectionBytes is what a connection that netstack carries takes of the Go heap: its endpoint, its queues' bookkeeping
	// and our own slot, about 5.2 KiB by TestIdleConnections of package netstack; and what it may always write.
	connectionBytes = 6<<10 + 512

	// sendShare is the part of the memory that may wait for clients to acknowledge it, if send_memory does not say
	// otherwise: a thousand of the slowest in a gigabyte, before the memory is shared out.
	sendShare = 8

	// receiveShare is the same of what is received and not read, as long as publishers are held up: receive_memory.
	receiveShare = 16

	// umemShare is the part of the memory that all umems may take, if receive_frames does not say otherwise. Where the usual
	// number of frames does not fit, there are fewer, down to receiveFramesFewest: a segment of a thousand clients at once.
	umemShare           = 4
	receiveFramesFewest = 2048
)

// dataPlane is what carries the clients, decided before anything is opened.
type dataPlane struct {
	mode   probe.Mode
	queues int    // of all interfaces
	reason string // why auto did not take XDP; empty when nobody named an interface
	remedy string
}

func (d dataPlane) isXDP() bool { return d.mode > probe.Standard }

// wish is what the user asks for.
func (s *settings) wish() probe.Wish {
	if s.Mode == "" {
		return probe.WishAuto
	}
	return probe.Wish(s.Mode)
}

// chooseDataPlane judges mode and interfaces. Mode standard looks at no interface.
func (s *settings) chooseDataPlane(look examine) (dataPlane, error) {
	wish := s.wish()
	switch {
	case wish == probe.WishStandard || wish == probe.WishAuto && len(s.XDP.Interfaces) == 0:
		return dataPlane{mode: probe.Standard}, nil
	case len(s.XDP.Interfaces) == 0:
		return dataPlane{}, errors.New("mode xdp: name the interface to steer, --interface IF; ringmq doctor shows which there are")
	}
	plan, err := s.probePlan(wish)
	if err != nil {
		return dataPlane{}, err
	}
	host, err := probe.Host()
	if err != nil {
		return dataPlane{}, fmt.Errorf("look at this host: %w", err)
	}
	interfaces, err := s.examineAll(look)
	switch {
	case err != nil && wish == probe.WishAuto && host.System != "linux":
		return dataPlane{mode: probe.Standard, reason: err.Error(), remedy: "leave --interface out"}, nil
	case err != nil:
		return dataPlane{}, err
	}
	d := dataPlane{}
	choice := probe.Choose(host, interfaces, plan)
	if len(s.steered()) == 0 && choice.Mode != probe.None {
		choice = probe.Choice{Reason: "all listeners are on loopback, where no interface delivers", Remedy: "add --listen ADDR:PORT"}
		if wish == probe.WishAuto {
			choice.Mode = probe.Standard
		}
	}
	d.mode, d.reason, d.remedy = choice.Mode, choice.Reason, choice.Remedy
	switch {
	case d.mode == probe.None && choice.Remedy != "":
		return d, fmt.Errorf("mode xdp: %s; remedy: %s", choice.Reason, choice.Remedy)
	case d.mode == probe.None:
		return d, fmt.Errorf("mode xdp: %s", choice.Reason)
	case d.isXDP():
		d.queues = bound(interfaces, plan)
	}
	return d, nil
}

// examineAll looks at the interfaces.
func (s *settings) examineAll(look examine) ([]probe.InterfaceFacts, error) {
	var interfaces []probe.InterfaceFacts
	for _, name := range s.XDP.Interfaces {
		if found, err := net.InterfaceByName(name); err == nil && found.Flags&net.FlagLoopback != 0 {
			return nil, fmt.Errorf("mode %s: %s is loopback, which no client on another machine reaches, and the host's TCP serves those of this one: name another interface; ringmq doctor shows which there are", s.wish(), name)
		}
		facts, err := look(name)
		if err != nil {
			return nil, err
		}
		for i := range facts.Queues.Value {
			// The kernel lets go of a queue some time after its process has ended: opening it waits for that and tells.
			facts.Queues.Value[i].Socket = false
		}
		interfaces = append(interfaces, facts)
	}
	return interfaces, nil
}

// bound is how many queues are to be bound.
func bound(interfaces []probe.InterfaceFacts, plan probe.Plan) (queues int) {
	for _, i := range interfaces {
		if len(plan.Queues) > 0 {
			queues += len(plan.Queues)
		} else {
			queues += i.ReceiveQueues().Value
		}
	}
	return queues
}

// probePlan is what package probe has to know of the settings.
func (s *settings) probePlan(wish probe.Wish) (probe.Plan, error) {
	queues, err := s.XDP.queues()
	if err != nil {
		return probe.Plan{}, err
	}
	require, err := s.XDP.require()
	if err != nil {
		return probe.Plan{}, err
	}
	umem, err := s.xdpConfig("").UmemBytes()
	if err != nil {
		return probe.Plan{}, err
	}
	limit, err := s.XDP.limit()
	if err != nil {
		return probe.Plan{}, err
	}
	strongest := map[xdp.Mode]probe.Mode{xdp.Generic: probe.Generic, xdp.Native: probe.Native, xdp.ZeroCopy: probe.ZeroCopy}[limit]
	plan := probe.Plan{Wish: wish, Require: require, Limit: strongest, FrameSizeBytes: s.XDP.FrameSize, Queues: queues,
		AllowUnbound: s.XDP.AllowUnbound, UmemBytes: int64(umem)}
	if steered := s.steered(); len(steered) > 0 {
		plan.Port = steered[0].Port()
	}
	return plan, nil
}

// steered are the listeners that an interface can deliver to.
func (s *settings) steered() (list []netip.AddrPort) {
	addresses, _, err := s.addresses()
	if err != nil {
		return nil
	}
	for _, a := range addresses {
		if !a.Addr().IsLoopback() {
			list = append(list, a)
		}
	}
	return list
}

// xdpConfig is how to open one interface.
func (s *settings) xdpConfig(name string) xdp.Config {
	c := xdp.Config{Interface: name, ReceiveFrames: s.XDP.ReceiveFrames, TransmitFrames: s.XDP.SendFrames, FrameSize: s.XDP.FrameSize}
	if c.Interface == "" {
		c.Interface = "any" // for sums
	}
	if s.XDP.BusyPoll {
		c.BusyPoll = busyPollMicroseconds
	}
	c.Queues, _ = s.XDP.queues()
	c.Limit, _ = s.XDP.limit()
	everywhere := false
	ports := map[uint16]bool{}
	for _, a := range s.steered() {
		if !ports[a.Port()] {
			ports[a.Port()] = true
			c.Ports = append(c.Ports, a.Port())
		}
		everywhere = everywhere || a.Addr().IsUnspecified()
		c.Addresses = append(c.Addresses, a.Addr())
	}
	if everywhere {
		c.Addresses = nil // all that the interface has, and as they change
	}
	if len(c.Ports) == 0 {
		c.Ports = []uint16{defaultPort}
	}
	switch require, _ := s.XDP.require(); {
	case s.wish() == probe.WishAuto && c.Limit == 0: // with a limit it takes nothing
		c.Require = xdp.ZeroCopy
	case require == probe.ZeroCopy:
		c.Require = xdp.ZeroCopy
	case require == probe.Native:
		c.Require = xdp.Native
	default:
		c.Require = xdp.Generic
	}
	return c
}

// applyDataPlane adds to the limits what XDP mode takes: a shard per queue, beside those for the kernel's TCP, of which there
// is one unless shards says otherwise; netstack's share of each connection; the umems. Its connections need no descriptors.
func (s *settings) applyDataPlane(l *broker.Limits, d dataPlane) error {
	if !d.isXDP() {
		return nil
	}
	umem, err := s.fitUmem(l.Memory / umemShare / int64(d.queues))
	if err != nil {
		return err
	}
	l.Shards, l.Descriptors = d.queues+max(1, l.Shards), 0
	l.PlaneConnectionBytes, l.PlaneBytes = connectionBytes, int64(umem)*int64(d.queues)
	l.PlaneFixedBytes = netstack.PlaneFixedBytes * int64(d.queues)
	sendMin, receiveMin := netstack.SendMemoryMinBytes*int64(d.queues), netstack.ReceiveMemoryMinBytes*int64(d.queues)
	if l.PlaneSendBytes = int64(s.XDP.SendMemory); l.PlaneSendBytes == 0 {
		l.PlaneSendBytes = max(l.Memory/sendShare, sendMin)
	}
	if l.PlaneReceiveBytes = int64(s.XDP.ReceiveMemory); l.PlaneReceiveBytes == 0 {
		l.PlaneReceiveBytes = max(l.Memory/receiveShare, receiveMin)
	}
	switch {
	case l.PlaneSendBytes < sendMin:
		return fmt.Errorf("xdp: send_memory: %d bytes are less than 1 MiB for each of %d queues", l.PlaneSendBytes, d.queues)
	case l.PlaneReceiveBytes < receiveMin:
		return fmt.Errorf("xdp: receive_memory: %d bytes are less than 1 MiB for each of %d queues", l.PlaneReceiveBytes, d.queues)
	}
	return nil
}

// fitUmem chooses the number of receive frames, if the configuration does not, so that a queue's umem takes at most so many bytes,
// or as little more as can be. It returns how many bytes the umem takes.
func (s *settings) fitUmem(most int64) (int, error) {
	if s.XDP.ReceiveFrames != 0 {
		return s.xdpConfig("").UmemBytes()
	}
	for frames := xdp.ReceiveFramesDefault; ; frames /= 2 {
		s.XDP.ReceiveFrames = frames
		umem, err := s.xdpConfig("").UmemBytes()
		if err != nil || int64(umem) <= most || frames == receiveFramesFewest {
			return umem, err
		}
	}
}
