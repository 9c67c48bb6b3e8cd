//go:build amd64 || arm64

package bpf

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/asavie/xdp"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// cable moves the test into a network namespace of its own, which ends with the test's thread, and makes a veth pair in
// it, of four queues unless said otherwise. It gives the interface whose frames the program is to judge, and the one at the other end.
func cable(t *testing.T) (near, far netlink.Link) {
	t.Helper()
	return cableOf(t, 4)
}

func cableOf(t *testing.T, queues int) (near, far netlink.Link) {
	t.Helper()
	needPrivileges(t)
	runtime.LockOSThread() // And never unlock: the thread ends with this goroutine.
	must(t, unix.Unshare(unix.CLONE_NEWNET))
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.NumRxQueues, attributes.NumTxQueues = "bpf-near", queues, queues
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attributes, PeerName: "bpf-far", PeerNumRxQueues: uint32(queues), PeerNumTxQueues: uint32(queues)}))
	near, err := netlink.LinkByName("bpf-near")
	must(t, err)
	far, err = netlink.LinkByName("bpf-far")
	must(t, err)
	for _, end := range []netlink.Link{near, far} {
		must(t, netlink.LinkSetIP6AddrGenMode(end, nl.IN6_ADDR_GEN_MODE_NONE)) // With an address the kernel sends reports (MLD), which the program counts.
		must(t, netlink.LinkSetUp(end))
	}
	return near, far
}

func inspect(t *testing.T, device netlink.Link) Attachment {
	t.Helper()
	there, err := Inspect(device.Attrs().Index)
	must(t, err)
	return there
}

func TestAttach(t *testing.T) {
	for _, mode := range []Mode{Native, Generic} {
		t.Run(mode.String(), func(t *testing.T) {
			near, _ := cable(t)
			index := near.Attrs().Index
			p := served(t, false)
			if none := inspect(t, near); none != (Attachment{}) {
				t.Fatalf("a new interface has %+v", none)
			}
			must(t, p.Attach(index, mode))
			there := inspect(t, near)
			if !there.Ours || there.Name != ProgramName || there.Mode != mode || there.LinkID == 0 || len(there.Tag) != 16 {
				t.Errorf("attached, and there is %+v", there)
			}
			held, err := p.Attachment()
			must(t, err)
			if held != there {
				t.Errorf("we hold %+v, and there is %+v", held, there)
			}
			if err := p.Attach(index, mode); !errors.Is(err, ErrAttached) {
				t.Errorf("attached twice: %v", err)
			}
			must(t, p.Detach())
			must(t, p.Detach())
			if none := inspect(t, near); none != (Attachment{}) {
				t.Errorf("detached, and there is %+v", none)
			}
			must(t, p.Attach(index, mode)) // As good as new.
			must(t, netlink.LinkDel(near))
			if gone, err := p.Attachment(); err != nil || gone != (Attachment{}) {
				t.Errorf("the interface is gone, and we hold %+v, %v", gone, err)
			}
			must(t, p.Detach())
		})
	}
}

// foreign loads a program that is not ours and passes everything.
func foreign(t testing.TB) *ebpf.Program {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "not_ours", Type: ebpf.XDP, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.LoadImm(asm.R0, xdpPass, asm.DWord), asm.Return()},
	})
	must(t, err)
	t.Cleanup(func() { must(t, program.Close()) })
	return program
}

// TestForeignProgramStays tries all ways in which another program may be attached, against both of our modes.
func TestForeignProgramStays(t *testing.T) {
	netlinkly := func(flag int) func(*testing.T, netlink.Link, *ebpf.Program) {
		return func(t *testing.T, device netlink.Link, program *ebpf.Program) {
			must(t, netlink.LinkSetXdpFdWithFlags(device, program.FD(), flag))
		}
	}
	linkly := func(flag link.XDPAttachFlags) func(*testing.T, netlink.Link, *ebpf.Program) {
		return func(t *testing.T, device netlink.Link, program *ebpf.Program) {
			held, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: device.Attrs().Index, Flags: flag})
			must(t, err)
			t.Cleanup(func() { must(t, held.Close()) })
		}
	}
	for _, row := range []struct {
		name   string
		attach func(*testing.T, netlink.Link, *ebpf.Program)
		mode   Mode
		advice string
	}{
		{"netlink, native", netlinkly(int(link.XDPDriverMode)), Native, "ip link set dev bpf-near xdpdrv off"},
		{"netlink, generic", netlinkly(int(link.XDPGenericMode)), Generic, "ip link set dev bpf-near xdpgeneric off"},
		{"bpf_link, native", linkly(link.XDPDriverMode), Native, "bpftool link detach id"},
		{"bpf_link, generic", linkly(link.XDPGenericMode), Generic, "bpftool link detach id"},
	} {
		for _, mode := range []Mode{Native, Generic} {
			t.Run(fmt.Sprintf("%s, we come %s", row.name, mode), func(t *testing.T) {
				near, _ := cable(t)
				program := foreign(t)
				row.attach(t, near, program)
				before := inspect(t, near)
				if before.Name != "not_ours" || before.Ours || before.Mode != row.mode || (before.LinkID != 0) != strings.HasPrefix(row.name, "bpf_link") {
					t.Fatalf("there is %+v", before)
				}
				err := served(t, false).Attach(near.Attrs().Index, mode)
				var refused *ForeignProgramError
				if !errors.As(err, &refused) || refused.Attachment != before || !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EEXIST) {
					t.Fatalf("got %v, want a ForeignProgramError with %+v", err, before)
				}
				for _, word := range []string{"bpf-near", strconv.Itoa(int(before.ProgramID)), "not_ours", before.Tag, row.advice} {
					if !strings.Contains(err.Error(), word) {
						t.Errorf("%q does not say %q", err, word)
					}
				}
				if after := inspect(t, near); after != before {
					t.Errorf("there was %+v, now there is %+v", before, after)
				}
			})
		}
	}
}

func TestSecondInstanceIsRefused(t *testing.T) {
	near, _ := cable(t)
	first, second := served(t, false), served(t, false)
	must(t, first.Attach(near.Attrs().Index, Native))
	err := second.Attach(near.Attrs().Index, Native)
	var refused *ForeignProgramError
	if !errors.As(err, &refused) || !refused.Ours || !strings.Contains(err.Error(), "another ringmq") {
		t.Fatalf("got %v", err)
	}
	must(t, first.Close())
	must(t, second.Attach(near.Attrs().Index, Native))
}

func TestAttachErrors(t *testing.T) {
	near, far := cable(t)
	p := served(t, false)
	if err := p.Attach(99999, Native); !errors.Is(err, ErrNoInterface) {
		t.Errorf("no interface: %v", err)
	}
	if _, err := Inspect(99999); !errors.Is(err, ErrNoInterface) {
		t.Errorf("inspect no interface: %v", err)
	}
	if err := p.Attach(near.Attrs().Index, Offload); err == nil {
		t.Error("attached in offload mode")
	}
	loopback, err := netlink.LinkByName("lo")
	must(t, err)
	if err := p.Attach(loopback.Attrs().Index, Native); !errors.Is(err, ErrNoNative) {
		t.Errorf("native on loopback: %v", err)
	}
	must(t, netlink.LinkSetMTU(far, 9000))
	if err := p.Attach(near.Attrs().Index, Native); err == nil || !strings.Contains(err.Error(), "MTU") {
		t.Errorf("MTU of 9000 at the other end: %v", err)
	}
}

// sendFrames puts frames on the cable at its far end.
func sendFrames(t *testing.T, far netlink.Link, frames ...[]byte) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	for _, frame := range frames {
		must(t, unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: far.Attrs().Index}))
	}
}

// await asks until it is so. There is no event to wait for: the kernel does it on its own time.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !so() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestTraffic sends frames over the cable: what the driver hands us is what the test-run takes for it.
func TestTraffic(t *testing.T) {
	for _, mode := range []Mode{Native, Generic} {
		t.Run(mode.String(), func(t *testing.T) {
			near, far := cable(t)
			p := loaded(t, Options{Queues: 4})
			must(t, p.SetAddresses(open().addresses))
			must(t, p.SetPorts([]uint16{port}))
			must(t, p.SetPrefixes(Deny, parsePrefixes(t, "198.18.0.9/32")))
			must(t, p.Attach(near.Attrs().Index, mode))
			sent := map[Verdict][][]byte{
				PassedNoSocket:  {data().over4().frame(), data().over6().frame(), syn().over4().frame()},
				PassedOtherPort: {tcp{clientPort, otherPort, flagSYN, nil, nil}.over6().frame()},
				DroppedDenied:   {synFrom("198.18.0.9"), synFrom("198.18.0.9")},
			}
			want := Counts{}
			for verdict, frames := range sent {
				for _, frame := range frames {
					want[verdict].Packets++
					want[verdict].Bytes += uint64(len(frame))
				}
				sendFrames(t, far, frames...)
			}
			await(t, "all frames are counted", func() bool {
				got := total(t, p)
				for verdict := range sent {
					if got[verdict] != want[verdict] {
						return false
					}
				}
				return true
			})
		})
	}
}

// TestRedirectedFramesArrive has a whole AF_XDP socket, and the frames in it.
func TestRedirectedFramesArrive(t *testing.T) {
	near, far := cableOf(t, 1)
	p := served(t, false)
	must(t, p.Attach(near.Attrs().Index, Native))
	socket, err := xdp.NewSocket(near.Attrs().Index, 0, nil)
	must(t, err)
	defer socket.Close()
	socket.Fill(socket.GetDescs(socket.NumFreeFillSlots(), true))
	must(t, p.SetSocket(0, socket.FD()))
	sent := [][]byte{syn().over4().frame(), tagged(data().over6().frame(), tag8021Q), tooBig4(sent4()).frame()}
	sendFrames(t, far, sent[0], ethernet(etherARP, make([]byte, 46)), sent[1], tcp{clientPort, otherPort, flagSYN, nil, nil}.over4().frame(), sent[2])
	var got [][]byte
	await(t, "three frames in the socket", func() bool {
		n, _, err := socket.Poll(0)
		must(t, err)
		for _, descriptor := range socket.Receive(n) {
			got = append(got, slices.Clone(socket.GetFrame(descriptor)))
		}
		return len(got) >= len(sent)
	})
	if !slices.EqualFunc(got, sent, slices.Equal) {
		t.Errorf("got %x, want %x", got, sent)
	}
}

// TestQueues runs frames as of different queues.
func TestQueues(t *testing.T) {
	near, _ := cableOf(t, 5)
	index := near.Attrs().Index
	p := loaded(t, Options{Queues: 3})
	must(t, p.SetAddresses(open().addresses))
	must(t, p.SetPorts([]uint16{port}))
	must(t, p.Attach(index, Native)) // The interface has RX queues of XDP only while it has a program.
	must(t, p.SetSocket(0, newSocket(t)))
	must(t, p.SetSocket(2, newSocket(t)))
	must(t, p.SetDrain(2, true))
	must(t, p.SetHold(1, true))
	for queue, want := range []Verdict{Redirected, DroppedHeld, Redirected, PassedNoSocket, PassedNoSocket} {
		if got := runOn(t, p, data().over4().frame(), index, queue); got != want {
			t.Errorf("data on queue %d: %s, want %s", queue, got, want)
		}
	}
	for queue, want := range []Verdict{Redirected, PassedNoSocket, PassedDrain, PassedNoSocket, PassedNoSocket} {
		from := tcp{clientPort + 1 + queue, port, flagSYN, nil, nil} // Each a connection of its own: most are remembered.
		if got := runOn(t, p, from.over4().frame(), index, queue); got != want {
			t.Errorf("SYN on queue %d: %s, want %s", queue, got, want)
		}
	}
	counters, err := p.Counters()
	must(t, err)
	if counters.Queues[1][DroppedHeld].Packets != 1 || counters.Queues[2][PassedDrain].Packets != 1 || counters.Beyond[PassedNoSocket].Packets != 4 {
		t.Errorf("counters %+v", counters)
	}
	for _, err := range []error{p.SetSocket(3, 0), p.SetSocket(-1, 0), p.ClearSocket(3), p.SetDrain(3, true), p.SetHold(-2, true)} {
		if err == nil || !strings.Contains(err.Error(), "no queue") {
			t.Errorf("a queue that is not there: %v", err)
		}
	}
	if p.SetSocket(0, 0) == nil {
		t.Error("standard input was taken for an AF_XDP socket")
	}
}

// TestClosedSocketLeavesTheMap: the kernel takes it out, and new connections go to the kernel.
func TestClosedSocketLeavesTheMap(t *testing.T) {
	p := served(t, false)
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	must(t, unix.SetsockoptInt(fd, unix.SOL_XDP, unix.XDP_RX_RING, 64))
	must(t, p.SetSocket(0, fd))
	expect(t, p, syn().over4().frame(), Redirected)
	must(t, unix.Close(fd))
	expect(t, p, syn().over4().frame(), PassedNoSocket)
}

// attachAndWait is the broker that is to be killed: it loads, attaches, says what it has, and waits.
func attachAndWait(ifindex string) int {
	index, err := strconv.Atoi(ifindex)
	if err != nil {
		return 2
	}
	p, err := Load(Options{Queues: 4})
	if err == nil {
		err = p.Attach(index, Native)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	mine, err := p.Attachment()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if err := json.NewEncoder(os.Stdout).Encode(mine); err != nil {
		return 1
	}
	_, _ = bufio.NewReader(os.Stdin).ReadByte() // Until we are killed, or our parent is.
	return 0
}

func TestKilledProcessLeavesNothing(t *testing.T) {
	near, _ := cable(t)
	before, err := Installed()
	must(t, err)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childEnvironment+"="+strconv.Itoa(near.Attrs().Index))
	input, err := child.StdinPipe()
	must(t, err)
	defer input.Close()
	output, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start()) // In our namespace: it is forked by this thread.
	line, err := bufio.NewReader(output).ReadBytes('\n')
	must(t, err)
	var its Attachment
	if err := json.Unmarshal(line, &its); err != nil {
		t.Fatalf("the child says %q", line)
	}
	if there := inspect(t, near); there != its {
		t.Errorf("there is %+v, want %+v", there, its)
	}
	during, err := Installed()
	must(t, err)
	maps := mapsOf(t, its.ProgramID)
	for _, id := range maps {
		if !slices.Contains(during.Maps, id) || slices.Contains(before.Maps, id) {
			t.Errorf("map %d of the child is not among what is installed", id)
		}
	}
	if !slices.Contains(during.Programs, its.ProgramID) || len(maps) < 10 {
		t.Errorf("program %d of the child with its %d maps is not among what is installed", its.ProgramID, len(maps))
	}
	must(t, child.Process.Kill())
	_ = child.Wait() // It was killed: that is its error.
	await(t, "the program leaves the interface", func() bool { return inspect(t, near) == Attachment{} })
	await(t, "the program and its maps leave the kernel", func() bool {
		after, err := Installed()
		must(t, err)
		return !slices.Contains(after.Programs, its.ProgramID) &&
			!slices.ContainsFunc(maps, func(id uint32) bool { return slices.Contains(after.Maps, id) })
	})
	must(t, served(t, false).Attach(near.Attrs().Index, Native))
}

// mapsOf asks the kernel which maps a program uses.
func mapsOf(t *testing.T, id uint32) []uint32 {
	t.Helper()
	program, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	must(t, err)
	defer program.Close()
	info, err := program.Info()
	must(t, err)
	ids, _ := info.MapIDs()
	var maps []uint32
	for _, id := range ids {
		maps = append(maps, uint32(id))
	}
	return maps
}

// keepCapabilities leaves these alone to the test's thread, which must be locked and end with the test.
func keepCapabilities(t *testing.T, capabilities ...int) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	for _, capability := range capabilities {
		sets[capability/32].Effective |= 1 << (capability % 32)
		sets[capability/32].Permitted |= 1 << (capability % 32)
	}
	must(t, unix.Capset(&header, &sets[0]))
}

// TestLeastPrivilege: three capabilities load the program, and without any it can be attached and changed.
func TestLeastPrivilege(t *testing.T) {
	near, _ := cable(t)
	other := served(t, false)
	keepCapabilities(t, unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON)
	p, err := Load(Options{Queues: 4})
	must(t, err)
	defer p.Close()
	keepCapabilities(t)
	must(t, p.Attach(near.Attrs().Index, Native))
	must(t, p.SetAddresses(open().addresses))
	must(t, p.SetPorts([]uint16{port}))
	must(t, p.SetPrefixes(Deny, parsePrefixes(t, "198.18.0.0/24")))
	must(t, p.SetSYNLimit(SYNLimit{Gate: Rate{1, 1}}))
	must(t, p.AddKernelFlows(flow4))
	must(t, p.RemoveKernelFlows(flow4))
	must(t, p.SetDrain(AllQueues, true))
	total(t, p)
	if there := inspect(t, near); there.ProgramID == 0 || there.Name != "" || there.LinkID != 0 {
		t.Errorf("there is %+v, want a program that we may not look at", there)
	}
	err = other.Attach(near.Attrs().Index, Native)
	var refused *ForeignProgramError
	if !errors.As(err, &refused) || refused.ProgramID == 0 || !strings.Contains(err.Error(), "bpftool prog show id") {
		t.Errorf("a second program: %v", err)
	}
	if _, err := Installed(); !errors.Is(err, ErrPermission) {
		t.Errorf("list what is installed: %v", err)
	}
	must(t, p.Detach())
}

func TestMissingPrivilege(t *testing.T) {
	for name, capabilities := range map[string][]int{
		"all":           nil,
		"CAP_BPF":       {unix.CAP_NET_ADMIN, unix.CAP_PERFMON},
		"CAP_NET_ADMIN": {unix.CAP_BPF, unix.CAP_PERFMON},
		"CAP_PERFMON":   {unix.CAP_BPF, unix.CAP_NET_ADMIN},
	} {
		t.Run(name, func(t *testing.T) {
			needPrivileges(t)
			runtime.LockOSThread() // And never unlock: the thread ends with this goroutine.
			keepCapabilities(t, capabilities...)
			_, err := Load(Options{Queues: 1})
			if !errors.Is(err, ErrPermission) || !strings.Contains(err.Error(), "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON") {
				t.Errorf("load: %v, want ErrPermission", err)
			}
		})
	}
}

func TestLoadErrors(t *testing.T) {
	for _, options := range []Options{
		{}, {Queues: -1}, {Queues: MaxQueues + 1}, {Queues: 1, Prefixes: -1}, {Queues: 1, KernelFlows: 1 << 25}, {Queues: 1, SYNSources: -5},
	} {
		if _, err := Load(options); err == nil || !strings.Contains(err.Error(), "give 1 to") {
			t.Errorf("%+v: %v", options, err)
		}
	}
}
