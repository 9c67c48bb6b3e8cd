package xdp

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/ringmq/ringmq/bpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	tcpTimeWait = 6 // Of linux/tcp_states.h, as those that follow: sockets without a peer.
	tcpClose    = 7
	tcpListen   = 10
)

// flows lists the connections that the kernel's own TCP has on these local ports, by netlink's sock_diag: those of the
// broker's kernel path, and whatever else. Their segments must go on to the kernel. Those in TIME-WAIT are left out: both sides have
// closed, and a broker that was restarted has as many as it had clients, more than the program's table may hold.
func (k *kernel) flows(ports []uint16) ([]bpf.Flow, error) {
	var flows []bpf.Flow
	for _, family := range [...]uint8{unix.AF_INET, unix.AF_INET6} {
		sockets, err := k.sockets(family)
		if err != nil {
			return nil, fmt.Errorf("list the kernel's TCP connections: %w", err)
		}
		for _, s := range sockets {
			isOver := s.State == tcpTimeWait || s.State == tcpClose
			if isOver || s.State == tcpListen || !slices.Contains(ports, s.ID.SourcePort) {
				continue
			}
			local, localOK := addrPort(s.ID.Source, s.ID.SourcePort)
			remote, remoteOK := addrPort(s.ID.Destination, s.ID.DestinationPort)
			if localOK && remoteOK && !local.Addr().IsLoopback() {
				flows = append(flows, bpf.Flow{Local: local, Remote: remote})
			}
		}
	}
	return flows, nil
}

func (k *kernel) sockets(family uint8) ([]*netlink.Socket, error) {
	return dump(func() ([]*netlink.Socket, error) { return k.handle.SocketDiagTCP(family) })
}

func addrPort(ip net.IP, port uint16) (netip.AddrPort, bool) {
	address, ok := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(address.Unmap(), port), ok
}

// passKernelFlows has the program pass the connections that the kernel has now.
func (i *Interface) passKernelFlows() error {
	flows, err := i.KernelFlows()
	if err != nil {
		return err
	}
	return i.pass(flows)
}

func (i *Interface) pass(flows []bpf.Flow) error {
	if i.passed == nil {
		i.passed = map[bpf.Flow]struct{}{}
	}
	for _, f := range flows {
		i.passed[f] = struct{}{}
	}
	return i.program.AddKernelFlows(flows...)
}

// followKernelFlows takes connections that the kernel no longer has from those that the program passes, so that a client which
// has the same port again is steered like others. Those that it has lately left to the kernel itself are told to it: what it remembers
// on its own, later attempts push out.
func (i *Interface) followKernelFlows() error {
	left, err := i.leavesLately()
	if err != nil || !left && len(i.passed) == 0 {
		return err
	}
	flows, err := i.KernelFlows()
	if err != nil {
		return err
	}
	alive := make(map[bpf.Flow]struct{}, len(flows))
	for _, f := range flows {
		alive[f] = struct{}{}
	}
	var ended []bpf.Flow
	for f := range i.passed {
		if _, ok := alive[f]; !ok {
			ended = append(ended, f)
			delete(i.passed, f)
		}
	}
	if len(ended) > 0 {
		if err := i.program.RemoveKernelFlows(ended...); err != nil {
			return err
		}
	}
	if !left {
		return nil
	}
	return i.pass(slices.DeleteFunc(flows, func(f bpf.Flow) bool { _, ok := i.passed[f]; return ok }))
}

// leavesLately tells whether the program has left connections to the kernel (a queue that drains or has no socket) since the call
// before last: the kernel lists them when their handshake is done.
func (i *Interface) leavesLately() (bool, error) {
	counters, err := i.program.Counters()
	if err != nil {
		return false, err
	}
	total := counters.Total()
	left := total[bpf.PassedDrain].Packets + total[bpf.PassedNoSocket].Packets
	before := i.left
	i.left = [2]uint64{before[1], left}
	return left != before[0], nil
}
