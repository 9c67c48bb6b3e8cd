package probe

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"runtime"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Interfaces gives the names of all interfaces but loopback, in the kernel's order.
func Interfaces() ([]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the network interfaces: %w", err)
	}
	var names []string
	for _, l := range links {
		if l.Attrs().Flags&net.FlagLoopback == 0 {
			names = append(names, l.Attrs().Name)
		}
	}
	return names, nil
}

// Interface reads the facts of an interface. What needs a privilege that is missing is unknown; an error means that there
// is no such interface, or that the kernel does not talk to us at all.
func Interface(name string) (InterfaceFacts, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	found, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return InterfaceFacts{}, fmt.Errorf("interface %q does not exist here: ip link shows those that do", name)
	}
	if err != nil {
		return InterfaceFacts{}, fmt.Errorf("interface %q: %w", name, err)
	}
	f := linkFacts(found)
	if f.Addresses, err = addresses(found); err != nil {
		return f, fmt.Errorf("interface %q: list its addresses: %w", name, err)
	}
	if err := f.neighbours(found); err != nil {
		return f, err
	}
	if f.Programs, err = readPrograms(f.Index); err != nil {
		return f, fmt.Errorf("interface %q: look for XDP programs: %w", name, err)
	}
	f.Features = readFeatures(f.Index)
	f.Ingress = readIngress(found)
	root := files{os.DirFS("/")}
	f.fromSysfs(root, readNetdevQueues(f.Index))
	f.findHolders(root)
	return f, f.fromEthtool()
}

func linkFacts(l netlink.Link) InterfaceFacts {
	a := l.Attrs()
	return InterfaceFacts{
		Name: a.Name, Index: a.Index, Kind: l.Type(), MTU: a.MTU, Address: a.HardwareAddr.String(),
		Up: a.RawFlags&unix.IFF_UP != 0, Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0,
	}
}

func addresses(l netlink.Link) ([]string, error) {
	list, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	texts := []string{}
	for _, a := range list {
		texts = append(texts, a.IPNet.String())
	}
	return texts, err
}

// neighbours finds what is above, below and beside the interface.
func (f *InterfaceFacts) neighbours(self netlink.Link) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list the network interfaces: %w", err)
	}
	a := self.Attrs()
	foreign := a.NetNsID >= 0 // ParentIndex counts in another namespace.
	reason := "it is no veth"
	if f.Kind == "veth" {
		reason = "its peer is in another network namespace"
	}
	f.PeerChecksums, f.PeerTransmitQueues = unknown[bool](reason), unknown[int](reason)
	for _, l := range links {
		b := l.Attrs()
		switch {
		case b.Index == a.MasterIndex:
			f.Master = b.Name
			if f.Inherited, err = addresses(l); err != nil {
				return fmt.Errorf("list the addresses of %q: %w", b.Name, err)
			}
		case b.MasterIndex == a.Index:
			f.Lower = append(f.Lower, b.Name)
		case b.Index == a.ParentIndex && !foreign && f.Kind == "veth":
			f.Peer = b.Name
		case b.Index == a.ParentIndex && !foreign && b.Index != a.Index:
			f.Lower = append(f.Lower, b.Name)
		case l.Type() == "vlan" && b.ParentIndex == a.Index:
			f.VLANs = append(f.VLANs, b.Name)
		}
	}
	return nil
}

// readPrograms asks rtnetlink, which tells ids to everybody; names and links need privileges.
func readPrograms(index int) ([]Program, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	head := nl.NewIfInfomsg(unix.AF_UNSPEC)
	head.Index = int32(index)
	request.AddData(head)
	messages, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil || len(messages) == 0 {
		return nil, err
	}
	linkAttributes, err := parseAttributes(messages[0][unix.SizeofIfInfomsg:])
	if err != nil {
		return nil, err
	}
	of, err := parseAttributes(linkAttributes[unix.IFLA_XDP].Value)
	if err != nil {
		return nil, err
	}
	programs := []Program{}
	for _, mode := range [...]struct {
		kind uint16
		name string
	}{{unix.IFLA_XDP_DRV_PROG_ID, "native"}, {unix.IFLA_XDP_SKB_PROG_ID, "generic"}, {unix.IFLA_XDP_HW_PROG_ID, "offload"}} {
		if id, found := of.number(mode.kind); found && id != 0 {
			programs = append(programs, program(uint32(id), mode.name, index))
		}
	}
	return programs, nil
}

func program(id uint32, mode string, index int) Program {
	p := Program{ID: id, Mode: mode}
	loaded, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		p.Name, p.LinkID = unknown[string](why(err)), unknown[uint32](why(err))
		return p
	}
	defer loaded.Close()
	info, err := loaded.Info()
	if err == nil {
		p.Name = known(info.Name)
	} else {
		p.Name = unknown[string](why(err))
	}
	p.LinkID = linkOf(id, index)
	return p
}

// linkOf looks through all bpf_links for the one that holds a program on an interface.
func linkOf(id uint32, index int) Fact[uint32] {
	links := link.Iterator{}
	defer links.Close()
	for links.Next() {
		info, err := links.Link.Info()
		if err != nil || uint32(info.Program) != id {
			continue
		}
		if x := info.XDP(); x != nil && int(x.Ifindex) == index {
			return known(uint32(info.ID))
		}
	}
	return factOf(uint32(0), links.Err())
}

// readIngress counts traffic control's filters and tcx programs on received packets.
func readIngress(l netlink.Link) Fact[int] {
	qdiscs, err := netlink.QdiscList(l)
	if err != nil {
		return unknown[int](why(err))
	}
	count := 0
	if slices.ContainsFunc(qdiscs, func(q netlink.Qdisc) bool { return q.Type() == "clsact" || q.Type() == "ingress" }) {
		filters, err := netlink.FilterList(l, netlink.HANDLE_MIN_INGRESS)
		if err != nil {
			return unknown[int](why(err))
		}
		count = len(filters)
	}
	tcx, err := link.QueryPrograms(link.QueryOptions{Target: l.Attrs().Index, Attach: ebpf.AttachTCXIngress})
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) {
		return known(count) // Before Linux 6.6 there is no tcx.
	}
	if err != nil {
		return unknown[int](why(err))
	}
	return known(count + len(tcx.Programs))
}

func (f *InterfaceFacts) fromEthtool() error {
	e, err := openEthtool(f.Name)
	if err != nil {
		return err
	}
	defer e.close()
	f.Driver, f.Version, f.Bus = e.driver()
	if f.Driver != "virtio_net" {
		f.NativeRefused = "" // Other virtio devices have other features.
	}
	f.Channels, f.Rings, f.Rules, f.Offloads = e.channels(), e.rings(), e.flowRules(), e.offloads()
	f.RSS = e.rss(f.ReceiveQueues().Value)
	if f.Peer == "" {
		return nil
	}
	peer, err := openEthtool(f.Peer)
	if err != nil {
		return err
	}
	defer peer.close()
	offloads, channels := peer.offloads(), peer.channels()
	f.PeerTransmitQueues = Fact[int]{channels.Value.Combined + channels.Value.Transmit, channels.Unknown}
	f.PeerChecksums = Fact[bool]{offloads.Value.TransmitCheck.On, offloads.Unknown}
	return nil
}

// fromSysfs reads queues, interrupts and the NUMA node. The interface in sysfs must be ours and not its namesake in the
// namespace where sysfs was mounted.
func (f *InterfaceFacts) fromSysfs(root files, told map[int]netdevQueue) {
	folder := "sys/class/net/" + f.Name
	if index, err := root.integer(folder + "/ifindex"); err != nil || index != f.Index {
		const reason = "sysfs shows another network namespace"
		f.Queues, f.NUMANode, f.NodeCPUs = unknown[[]Queue](reason), unknown[int](reason), unknown[CPUList](reason)
		return
	}
	if bits, err := root.text(folder + "/device/features"); err == nil {
		f.NativeRefused = virtioRefusal(bits)
	}
	f.NUMANode, f.NodeCPUs = readNUMANode(root, folder)
	f.Queues = readQueues(root, folder, told)
	if !f.Queues.Known() {
		return
	}
	named := map[int]int{}
	if text, err := root.text("proc/interrupts"); err == nil {
		named = queueInterrupts(parseInterrupts(text), interruptOwners(root, folder, f.Name))
	}
	for i := range f.Queues.Value {
		q := &f.Queues.Value[i]
		irq, found := named[q.Index]
		if t, isTold := told[q.Index]; isTold && t.irq >= 0 {
			irq, found = t.irq, true
		}
		q.interrupt(root, irq, found, f.Kind)
	}
}

// virtioRefusal reads a virtio network device's features, a digit for each from number 0 on (section 5.1.3 of the virtio
// specification), and says why its driver refuses native XDP: the host merges segments for this guest, and gives no way to
// stop that (virtnet_xdp_set, drivers/net/virtio_net.c).
func virtioRefusal(bits string) string {
	has := func(feature int) bool { return feature < len(bits) && bits[feature] == '1' }
	const controlGuestOffloads = 2
	merging := [...]int{7, 8, 9, 10, 54, 55} // VIRTIO_NET_F_GUEST_TSO4, TSO6, ECN, UFO, USO4, USO6
	if has(controlGuestOffloads) || !slices.ContainsFunc(merging[:], has) {
		return ""
	}
	return "the hypervisor merges segments for this guest and offers no way to turn it off (ctrl_guest_offloads)"
}

func (q *Queue) interrupt(root files, irq int, found bool, kind string) {
	if !found {
		reason := "no interrupt is named after it"
		if kind != "device" {
			reason = "a " + kind + " has no interrupts"
		}
		q.IRQ, q.CPUs = unknown[int](reason), unknown[CPUList](reason)
		return
	}
	q.IRQ = known(irq)
	q.CPUs = root.cpuList(fmt.Sprintf("proc/irq/%d/smp_affinity_list", irq))
}

// interruptOwners are the names under which the interface's interrupts may go.
func interruptOwners(root files, folder, name string) []string {
	owners := []string{name}
	device, err := root.readLink(folder + "/device")
	if err != nil {
		return owners
	}
	owners = append(owners, path.Base(device)) // virtio2, or the PCI address
	return owners
}

// readNUMANode looks at the device and what carries it: a virtio device's node stands at its PCI device.
func readNUMANode(root files, folder string) (Fact[int], Fact[CPUList]) {
	target, err := root.readLink(folder)
	for at := path.Join(path.Dir(folder), target); err == nil && at != "sys/devices" && at != "."; at = path.Dir(at) {
		node, readErr := root.integer(at + "/numa_node")
		switch {
		case readErr != nil:
		case node < 0:
			return known(node), unknown[CPUList]("the device is at no NUMA node")
		default:
			return known(node), root.cpuList(fmt.Sprintf("sys/devices/system/node/node%d/cpulist", node))
		}
	}
	return unknown[int]("it belongs to no device that has one"), unknown[CPUList]("it belongs to no device that has a NUMA node")
}

func readQueues(root files, folder string, told map[int]netdevQueue) Fact[[]Queue] {
	entries, err := root.list(folder + "/queues")
	if err != nil {
		return unknown[[]Queue](why(err))
	}
	var queues []Queue
	for _, entry := range entries {
		var index int
		if _, err := fmt.Sscanf(entry, "rx-%d", &index); err != nil {
			continue
		}
		q := Queue{Index: index, Socket: told[index].socket}
		q.RPS = root.cpuMask(fmt.Sprintf("%s/queues/rx-%d/rps_cpus", folder, index))
		q.XPS = root.cpuMask(fmt.Sprintf("%s/queues/tx-%d/xps_cpus", folder, index))
		queues = append(queues, q)
	}
	slices.SortFunc(queues, func(a, b Queue) int { return a.Index - b.Index })
	return known(queues)
}
