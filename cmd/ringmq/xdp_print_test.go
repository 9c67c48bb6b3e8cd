package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ringmq/ringmq/bpf"
	"github.com/ringmq/ringmq/netstack"
	"github.com/ringmq/ringmq/xdp"
	"github.com/ringmq/ringmq/xdp/probe"
)

// restingLane is an interface where nothing goes wrong.
func restingLane() laneStatus {
	return laneStatus{Interface: "eth0", Mode: "native", Attached: true, ProgramID: 17, LinkID: 5, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")},
		Queues: []queueStatus{{Queue: 2, Shard: 1,
			Verdicts: map[string]bpf.Count{"redirected": {Packets: 12345, Bytes: 1234567}},
			Rings:    xdp.Stats{FramesReceived: 12345, FramesSent: 9, Kicks: 8, Waits: 7},
			Frames:   xdp.Conservation{Receive: xdp.ReceiveFrames{Frames: 16384, FillRing: 16384}, Transmit: xdp.TransmitFrames{Frames: 4096, Free: 4096}},
			TCP:      netstack.Counters{Established: 3, Accepted: 4, HeldACKs: 6, SupersededACKs: 5}}}}
}

func printed(l laneStatus) string {
	var b bytes.Buffer
	printLane(&b, l)
	return b.String()
}

// TestPrintLaneAtRest: the whole text, of which nobody has to read what has not happened.
func TestPrintLaneAtRest(t *testing.T) {
	const want = `interface eth0: mode native, program 17 held by link 5, 0 connections left to the kernel
  addresses: 192.0.2.1/24
eth0 queue 2 (shard 1)
  program: redirected           12,345 packets, 1,234,567 bytes
  rings                         12,345 frames in, 9 out, 8 sends, 7 waits
  rings, dropped by the kernel  0 fill ring empty, 0 RX ring full, 0 other, 0 bad descriptors
  frames, receive               16,384 in all: 16,384 fill ring, 0 RX ring, 0 driver, 0 lost
  frames, transmit              4,096 in all: 4,096 free, 0 reserved, 0 TX ring, 0 driver, 0 completion ring, 0 lost
  TCP                           3 established, 0 half open, 4 accepted, 0 retransmits
  TCP, waiting                  0 bytes not acknowledged, 0 bytes not read
  TCP, acknowledgements         6 held back, 5 of them never needed
`
	if got := printed(restingLane()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestPrintLaneInTrouble: every counter of trouble is shown when it is not zero, by a line that says what of, and no line is wider than
// a terminal.
func TestPrintLaneInTrouble(t *testing.T) {
	const n = 1234567890123 // is nowhere else in the text
	for want, change := range map[string]func(*xdp.Stats, *netstack.Counters){
		"rings, troubles|times stalled":               func(s *xdp.Stats, _ *netstack.Counters) { s.Stalled = n },
		"rings, troubles|times reopened":              func(s *xdp.Stats, _ *netstack.Counters) { s.Reopened = n },
		"rings, troubles|bad descriptors":             func(s *xdp.Stats, _ *netstack.Counters) { s.BadDescriptors = n },
		"rings, troubles|without a transmit frame":    func(s *xdp.Stats, _ *netstack.Counters) { s.TransmitExhausted = n },
		"rings, troubles|while down":                  func(s *xdp.Stats, _ *netstack.Counters) { s.DroppedDown = n },
		"rings, sends refused|EBUSY":                  func(s *xdp.Stats, _ *netstack.Counters) { s.KickErrors.Busy = n },
		"rings, sends refused|ENXIO":                  func(s *xdp.Stats, _ *netstack.Counters) { s.KickErrors.Unbound = n },
		"rings, dropped by the kernel|fill ring":      func(s *xdp.Stats, _ *netstack.Counters) { s.Kernel.FillRingEmpty = n },
		"TCP, panics|report":                          func(_ *xdp.Stats, c *netstack.Counters) { c.Panics = n },
		"TCP, dropped when received|poisoned flows":   func(_ *xdp.Stats, c *netstack.Counters) { c.Poisoned = n },
		"TCP, dropped when received|address that":     func(_ *xdp.Stats, c *netstack.Counters) { c.AddressGone = n },
		"TCP, dropped when received|wrong checksum":   func(_ *xdp.Stats, c *netstack.Counters) { c.ChecksumErrors = n },
		"TCP, dropped when received|between queues":   func(_ *xdp.Stats, c *netstack.Counters) { c.HandoverDropped = n },
		"TCP, dropped when sent|overflow queue full":  func(_ *xdp.Stats, c *netstack.Counters) { c.OverflowDropped = n },
		"TCP, dropped when sent|too long":             func(_ *xdp.Stats, c *netstack.Counters) { c.TooLong = n },
		"TCP, ended|refused":                          func(_ *xdp.Stats, c *netstack.Counters) { c.AcceptRefused = n },
		"TCP, ended|acknowledging nothing":            func(_ *xdp.Stats, c *netstack.Counters) { c.StuckReset = n },
		"TCP, ended|handshakes given up":              func(_ *xdp.Stats, c *netstack.Counters) { c.HandshakesExpired = n },
		"TCP, SYN cookies|sent":                       func(_ *xdp.Stats, c *netstack.Counters) { c.CookiesSent = n },
		"TCP, out of memory|writes limited":           func(_ *xdp.Stats, c *netstack.Counters) { c.SendLimited = n },
		"TCP, out of memory|segments dropped":         func(_ *xdp.Stats, c *netstack.Counters) { c.ReceiveLimited = n },
		"TCP, overflow queue|frames have waited":      func(_ *xdp.Stats, c *netstack.Counters) { c.OverflowQueued = n },
		"TCP, between queues|handed over":             func(_ *xdp.Stats, c *netstack.Counters) { c.HandedOver = n },
		"TCP, waiting|bytes not acknowledged":         func(_ *xdp.Stats, c *netstack.Counters) { c.PinnedBytes = n },
		"TCP, dropped when received|not believed":     func(_ *xdp.Stats, c *netstack.Counters) { c.LinkRefused = n },
		"TCP, dropped when received|ICMP errors":      func(_ *xdp.Stats, c *netstack.Counters) { c.ICMPRefused = n },
		"TCP, dropped when received|malformed":        func(_ *xdp.Stats, c *netstack.Counters) { c.Malformed = n },
		"TCP, dropped when received|not ours":         func(_ *xdp.Stats, c *netstack.Counters) { c.NotOurs = n },
		"TCP, dropped when sent|no link address":      func(_ *xdp.Stats, c *netstack.Counters) { c.NoLinkAddress = n },
		"TCP, dropped when sent|not TCP":              func(_ *xdp.Stats, c *netstack.Counters) { c.NotTCP = n },
		"TCP, ended|resets sent":                      func(_ *xdp.Stats, c *netstack.Counters) { c.ResetsSent = n },
		"rings, dropped by the kernel|other":          func(s *xdp.Stats, _ *netstack.Counters) { s.Kernel.ReceiveDropped = n },
		"rings, dropped by the kernel|bad descriptor": func(s *xdp.Stats, _ *netstack.Counters) { s.Kernel.TransmitInvalid = n },
	} {
		l := restingLane()
		change(&l.Queues[0].Rings, &l.Queues[0].TCP)
		name, what, _ := strings.Cut(want, "|")
		found := false
		for line := range strings.Lines(printed(l)) {
			before, after, is := strings.Cut(line, "1,234,567,890,123 ")
			found = found || is && strings.HasPrefix(before, "  "+name+" ") && strings.HasPrefix(after[max(0, strings.Index(after, what)):], what)
		}
		if !found {
			t.Errorf("no line %q in\n%s", want, printed(l))
		}
	}
}

// TestPrintLaneWithEverything: also with every counter as large as it gets in years, lines stay within 120 columns.
func TestPrintLaneWithEverything(t *testing.T) {
	l := restingLane()
	q := &l.Queues[0]
	q.Rings = xdp.Stats{FramesReceived: 1e15, FramesSent: 1e15, TransmitExhausted: 1e9, DroppedDown: 1e9, BadDescriptors: 1e9, Reopened: 1e9, Stalled: 1e9, Waits: 1e15,
		Kicks: 1e15, KickErrors: xdp.KickErrors{Again: 1e9, Busy: 1e9, NoBuffers: 1e9, Down: 1e9, Unbound: 1e9, Interrupted: 1e9, Other: 1e9},
		Kernel: xdp.KernelStats{ReceiveDropped: 1e12, ReceiveInvalidDescriptors: 1e12, TransmitInvalid: 1e12, ReceiveRingFull: 1e12, FillRingEmpty: 1e12}}
	q.TCP = netstack.Counters{Malformed: 1e9, NotOurs: 1e9, AddressGone: 1e9, ICMPRefused: 1e9, HandoverDropped: 1e9, Poisoned: 1e9, ChecksumErrors: 1e9, LinkRefused: 1e9,
		Established: 1e6, HalfOpen: 1e6, Accepted: 1e12, Retransmits: 1e12, PinnedBytes: 1e12, UnreadBytes: 1e12}
	l.Attached, l.Addresses = false, nil
	l.Lists = map[string][]string{"deny": {"203.0.113.0/24"}}
	l.SYNLimit.PerSource = bpf.Rate{PerSecond: 20, Burst: 40}
	l.Unbound, l.Beyond = map[string]bpf.Count{"passed_arp": {Packets: 7}}, map[string]bpf.Count{"passed_arp": {Packets: 8}}
	l.Queues = append(l.Queues, queueStatus{Queue: 3})
	text := printed(l)
	for line := range strings.Lines(text) {
		if utf8.RuneCountInString(line) > 121 {
			t.Errorf("%d columns: %s", utf8.RuneCountInString(line)-1, line)
		}
	}
	for _, want := range []string{"no program attached", "addresses: none", "  deny: 203.0.113.0/24\n", "20/s (40 at once) per source, no limit in all", "not counted: the queue's loop",
		"eth0, queues that are not bound: passed_arp 7\n", "eth0, queues that came after start: passed_arp 8\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// TestDrained: what is said is about the queues that are drained.
func TestDrained(t *testing.T) {
	l := restingLane()
	l.Queues = append(l.Queues, queueStatus{Queue: 3, TCP: netstack.Counters{Established: 40}})
	for queue, want := range map[int]string{
		bpf.AllQueues: "interface eth0: new connections go to the moon; 43 that XDP carries are still there",
		2:             "interface eth0, queue 2: new connections go to the moon; 3 that XDP carries are still there",
		3:             "interface eth0, queue 3: new connections go to the moon; 40 that XDP carries are still there",
	} {
		if got := drained(l, queue, "the moon"); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}

// TestDescribeAttached: whoever has the program, its interface is named and the command that takes it off.
func TestDescribeAttached(t *testing.T) {
	program := func(name string, holder probe.Fact[probe.Process]) probe.Program {
		return probe.Program{ID: 17, Mode: "native", Name: probe.Fact[string]{Value: name}, LinkID: probe.Fact[uint32]{Value: 5}, Holder: holder}
	}
	of := func(p probe.Process) probe.Fact[probe.Process] { return probe.Fact[probe.Process]{Value: p} }
	netlinked := program("filter", of(probe.Process{}))
	netlinked.LinkID.Value = 0
	unseen := program("", probe.Fact[probe.Process]{Unknown: "not permitted to this user"})
	unseen.Name = probe.Fact[string]{Unknown: "not permitted to this user"}
	for _, c := range []struct {
		probe.Attached
		says, remedy string
	}{
		{probe.Attached{Interface: "eth0", Index: 2, Program: program(probe.ProgramName, of(probe.Process{}))}, "interface eth0, native mode: XDP program 17 (ringmq_steer) of a ringmq that has ended", "bpftool link detach id 5"},
		{probe.Attached{Index: 0, Program: program(probe.ProgramName, of(probe.Process{}))}, "no interface any more", "bpftool --bpffs link show id 5"},
		{probe.Attached{Interface: "eth0", Index: 2, Program: program(probe.ProgramName, of(probe.Process{ID: 7, Command: "ringmq"}))}, "of process 7 (ringmq), which runs and has no admin socket", "kill 7"},
		{probe.Attached{Index: 2, Program: program(probe.ProgramName, of(probe.Process{ID: 7, Unit: "ringmq.service"}))}, "interface number 2 of another network namespace", "systemctl stop ringmq.service"},
		{probe.Attached{Interface: "eth0", Index: 2, Program: program(probe.ProgramName, unseen.Holder)}, "process that is unknown (not permitted", "sudo ringmq xdp status"},
		{probe.Attached{Interface: "eth0", Index: 2, Program: program("filter", of(probe.Process{ID: 9, Command: "loader"}))}, "XDP program 17 (filter) of process 9 (loader), not ringmq's", "bpftool link detach id 5"},
		{probe.Attached{Interface: "eth0", Index: 2, Program: netlinked}, "interface eth0, native mode: XDP program 17 (filter), not ringmq's", "ip link set dev eth0 xdpdrv off"},
		{probe.Attached{Interface: "eth0", Index: 2, Program: unseen}, "unknown (not permitted to this user)", "bpftool link detach id 5"},
	} {
		says, remedy := describeAttached(c.Attached)
		if !strings.Contains(says, c.says) || !strings.HasPrefix(remedy, c.remedy) {
			t.Errorf("%+v: %q -> %q", c.Attached, says, remedy)
		}
	}
}

// TestShowObjects: nothing may stay in the kernel that a user cannot see and remove.
func TestShowObjects(t *testing.T) {
	on := []probe.Attached{{Interface: "eth0", Program: probe.Program{ID: 17}}}
	for _, c := range []struct {
		left
		want string
	}{
		{left{}, "nothing of ringmq's is in this kernel: no program, no map\n"},
		{left{attached: on, objects: bpf.Objects{Programs: []uint32{17}, Maps: []uint32{1, 2}}}, "in this kernel: programs [17], maps [1 2] of ringmq\n"},
		{left{objects: bpf.Objects{Programs: []uint32{17}, Maps: []uint32{1}}},
			"program 17 is on no interface\n  -> bpftool --bpffs prog show id 17 names who has it, or the file that pins it and that rm takes away\n"},
		{left{objects: bpf.Objects{Maps: []uint32{3, 4}}}, "-> bpftool --bpffs map show id 3 names"},
		{left{hides: bpf.ErrPermission}, fmt.Sprintf("is unknown: %v\n  -> sudo ringmq xdp status\n", bpf.ErrPermission)},
	} {
		var b bytes.Buffer
		c.showObjects(&b)
		if !strings.Contains(b.String(), c.want) {
			t.Errorf("no %q in %q", c.want, b.String())
		}
		if settled := c.isSettled(); settled != (len(c.objects.Maps) == 0 || len(c.attached) > 0) {
			t.Errorf("%q: settled %v", c.want, settled)
		}
	}
}
