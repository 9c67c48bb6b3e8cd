//go:build linux

package lab

import (
	"fmt"
	"os/exec"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// foreign is an XDP program of somebody else: it passes everything.
type foreign struct {
	*ebpf.Program
	id uint32
}

func newForeign(t *testing.T) foreign {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "somebody_else", Type: ebpf.XDP, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}}) // XDP_PASS
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return foreign{p, uint32(id)}
}

// attach puts the program on an interface of the broker's namespace: by netlink, as ip link does, or by a bpf_link.
func (f foreign) attach(s *scene, byLink bool) error {
	_, err := within(s.Broker, func() (struct{}, error) {
		device, err := netlink.LinkByName(s.BrokerIf)
		if err != nil {
			return struct{}{}, err
		}
		if !byLink {
			return struct{}{}, netlink.LinkSetXdpFdWithFlags(device, f.FD(), 1|4) // XDP_FLAGS_UPDATE_IF_NOEXIST, _DRV_MODE
		}
		held, err := link.AttachXDP(link.XDPOptions{Program: f.Program, Interface: device.Attrs().Index, Flags: link.XDPDriverMode})
		if err == nil {
			s.t.Cleanup(func() { held.Close() })
		}
		return struct{}{}, err
	})
	return err
}

// TestForeignAtStart: another XDP program is on the interface. The broker does not start, names it in one line with what to
// do, and leaves it where it is, however it was attached.
func TestForeignAtStart(t *testing.T) {
	for _, byLink := range []bool{false, true} {
		t.Run(fmt.Sprintf("link=%v", byLink), func(t *testing.T) {
			s := newScene(t, 1)
			f := newForeign(t)
			if err := f.attach(s, byLink); err != nil {
				t.Fatal(err)
			}
			remedy := "ip link set dev " + s.BrokerIf + " xdp"
			if byLink {
				remedy = "bpftool link detach id "
			}
			s.refused(s.InBroker(s.serveLine()...), s.BrokerIf, fmt.Sprintf("program %d", f.id), remedy)
			if id := s.programOn(s.BrokerIf); id != f.id {
				t.Errorf("program %d is on the interface, it was %d", id, f.id)
			}
		})
	}
}

// TestForeignWhileRunning: somebody takes our program off and puts another in its place. The broker says so, leaves it there,
// and serves new clients over the kernel's path. When the other has gone ours is back, and new clients are on the rings.
func TestForeignWhileRunning(t *testing.T) {
	s := newScene(t, 1)
	b := s.serve()
	f := newForeign(t)
	if err := f.attach(s, false); err == nil {
		t.Error("a program was put on the interface beside our bpf_link")
	}
	detach(t, b)
	if err := f.attach(s, false); err != nil {
		t.Fatal(err)
	}
	b.await(fmt.Sprintf("XDP program %d has taken the place of ours", f.id))
	if lane := b.lane(); lane.Attached {
		t.Errorf("status says that our program is attached: %+v", lane)
	}
	kernel := s.connect(s.Broker4, "kernel")
	if n := b.lane().established(); n != 0 {
		t.Errorf("%d connections are on the rings", n)
	}
	s.broker("ip link set dev %s xdpdrv off", s.BrokerIf)
	b.await("was removed by somebody and is attached again")
	kernel.alive()
	s.connect(s.Broker4, "rings").alive()
	kernel.alive()
	if n := b.lane().established(); n != 1 {
		t.Errorf("%d connections are on the rings, want 1", n)
	}
}

// detach takes our program off the interface from outside.
func detach(t *testing.T, b *process) {
	t.Helper()
	if out, err := exec.Command("bpftool", "link", "detach", "id", fmt.Sprint(b.lane().LinkID)).CombinedOutput(); err != nil {
		t.Fatalf("bpftool link detach: %v: %s", err, out)
	}
}

// TestProgramRemoved: somebody takes our program off. It is attached again, which is logged. Meanwhile new clients are served
// over the kernel's path, and stay there; idle connections of the rings outlive it, and later clients are on the rings. The
// program forgets connections of the kernel's path once they have ended.
func TestProgramRemoved(t *testing.T) {
	s := newScene(t, 2)
	b := s.serve()
	idle := s.connect(s.Broker4, "idle")
	detach(t, b)
	between := s.connect(s.Broker4, "between")
	b.await("was removed by somebody and is attached again")
	if lane := b.lane(); !lane.Attached || lane.ProgramID != b.program {
		t.Errorf("status: %+v", lane)
	}
	idle.alive()
	between.alive()
	s.connect(s.Broker4, "later").alive()
	lane := b.lane()
	if n := lane.established(); n != 2 || lane.KernelFlows != 1 {
		t.Errorf("%d connections are on the rings, and the program passes %d, want 2 and 1", n, lane.KernelFlows)
	}
	_ = between.conn.Close()
	for deadline := time.Now().Add(20 * time.Second); b.lane().KernelFlows != 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the program still passes a connection that has ended")
		}
	}
}
