//go:build amd64 || arm64

package bpf

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// childEnvironment makes the test binary the broker that TestKilledProcessLeavesNothing kills.
const childEnvironment = "RINGMQ_BPF_TEST_ATTACH_TO"

func TestMain(m *testing.M) {
	if ifindex := os.Getenv(childEnvironment); ifindex != "" {
		os.Exit(attachAndWait(ifindex))
	}
	goleak.VerifyTestMain(m)
}

// needPrivileges skips, naming what is missing. With all of them, nothing that fails afterwards is an excuse.
func needPrivileges(t testing.TB) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		t.Fatal(err)
	}
	for capability, name := range map[int]string{
		unix.CAP_BPF: "CAP_BPF", unix.CAP_PERFMON: "CAP_PERFMON", unix.CAP_NET_ADMIN: "CAP_NET_ADMIN", unix.CAP_NET_RAW: "CAP_NET_RAW", unix.CAP_SYS_ADMIN: "CAP_SYS_ADMIN",
	} {
		if sets[capability/32].Effective>>(capability%32)&1 == 0 {
			t.Skipf("this test needs %s: run it as root", name)
		}
	}
}

// loaded gives a program that ends with the test.
func loaded(t testing.TB, options Options) *Program {
	t.Helper()
	needPrivileges(t)
	if options.Queues == 0 {
		options.Queues = 1
	}
	p, err := Load(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, p.Close()) })
	return p
}

// served gives a program that steers to the machines of frame_test.go; socket says whether queue 0 has one.
func served(t testing.TB, socket bool) *Program {
	t.Helper()
	p := loaded(t, Options{})
	must(t, p.SetAddresses([]netip.Addr{server4, server6}))
	must(t, p.SetPorts([]uint16{port}))
	if socket {
		must(t, p.SetSocket(0, newSocket(t)))
	}
	return p
}

// newSocket opens an AF_XDP socket with an RX ring, all that the XSKMAP asks for. It takes part in no traffic.
func newSocket(t testing.TB) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { must(t, unix.Close(fd)) })
	must(t, unix.SetsockoptInt(fd, unix.SOL_XDP, unix.XDP_RX_RING, 64))
	return fd
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// xdpContext is struct xdp_md of linux/bpf.h, as the test-run takes it.
type xdpContext struct {
	Data, DataEnd, DataMeta, IngressIfindex, RXQueueIndex, EgressIfindex uint32
}

// What the program returns, of enum xdp_action in linux/bpf.h.
const (
	xdpDrop     = 1
	xdpPass     = 2
	xdpRedirect = 4
)

// action is what a verdict makes the program return.
func action(v Verdict) uint32 {
	switch {
	case v <= RedirectedICMP:
		return xdpRedirect
	case v < DroppedDenied:
		return xdpPass
	}
	return xdpDrop
}

// run gives the verdict on one frame: exactly one counter has moved, and the program returned what it means.
func run(t testing.TB, p *Program, frame []byte) Verdict {
	t.Helper()
	return runOn(t, p, frame, 0, 0)
}

// runOn lets the frame come from a queue of an interface that has it.
func runOn(t testing.TB, p *Program, frame []byte, ifindex, queue int) Verdict {
	t.Helper()
	before := total(t, p)
	returned, err := p.objects.RingmqSteer.Run(&ebpf.RunOptions{
		Data:    frame,
		Context: xdpContext{DataEnd: uint32(len(frame)), IngressIfindex: uint32(ifindex), RXQueueIndex: uint32(queue)},
	})
	must(t, err)
	verdict := Verdict(Verdicts)
	for v, after := range total(t, p) {
		switch after.Packets - before[v].Packets {
		case 0:
		case 1:
			if verdict != Verdicts {
				t.Fatalf("one frame counted as %s and %s", verdict, Verdict(v))
			}
			verdict = Verdict(v)
			if bytes := after.Bytes - before[v].Bytes; bytes != uint64(len(frame)) {
				t.Fatalf("a frame of %d bytes counted as %d", len(frame), bytes)
			}
		default:
			t.Fatalf("one frame counted %d times as %s", after.Packets-before[v].Packets, Verdict(v))
		}
	}
	if verdict == Verdicts {
		t.Fatal("the frame was not counted")
	}
	if returned != action(verdict) {
		t.Fatalf("%s, but the program returned %d", verdict, returned)
	}
	return verdict
}

func total(t testing.TB, p *Program) Counts {
	t.Helper()
	counters, err := p.Counters()
	must(t, err)
	return counters.Total()
}

// expect runs a frame for its verdict.
func expect(t testing.TB, p *Program, frame []byte, want Verdict) {
	t.Helper()
	if got := run(t, p, frame); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
}

// remembers says whether the program itself has recorded a connection attempt.
func remembers(t testing.TB, p *Program, flow Flow) bool {
	t.Helper()
	key, err := flowKey(flow)
	must(t, err)
	var seen uint64
	err = p.objects.KernelSyns.Lookup(key, &seen)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Fatal(err)
	}
	return err == nil
}
