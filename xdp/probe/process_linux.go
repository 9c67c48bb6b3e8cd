package probe

import (
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The kernel has no call that says who holds a socket or a bpf_link: what has is the descriptors of all processes.

// What a descriptor is named after here: socket:[INODE] as the kernel does it, and a bpf_link by its id.
func socketName(inode uint32) string { return fmt.Sprintf("socket:[%d]", inode) }
func linkName(id uint32) string      { return fmt.Sprintf("bpf_link:%d", id) }

// holders finds the processes with descriptors of these names. Whoever may not look at all processes gets unknown for what
// was not found; whoever may gets the Process 0.
func holders(root files, wanted []string) map[string]Fact[Process] {
	found := map[string]Fact[Process]{}
	processes, _ := fs.Glob(root, "proc/[0-9]*")
	hidden := len(processes) == 0
	for _, process := range processes {
		descriptors, err := root.list(process + "/fd")
		hidden = hidden || err != nil && why(err) == why(fs.ErrPermission)
		for _, d := range descriptors {
			if name := descriptorName(root, process, d); slices.Contains(wanted, name) {
				found[name] = known(readProcess(root, process))
			}
		}
	}
	for _, name := range wanted {
		if _, isFound := found[name]; !isFound && hidden {
			found[name] = unknown[Process](why(fs.ErrPermission))
		}
	}
	return found
}

func descriptorName(root files, process, descriptor string) string {
	target, err := root.readLink(process + "/fd/" + descriptor)
	if err != nil || target != "anon_inode:bpf_link" && target != "anon_inode:bpf-link" {
		return target
	}
	info, err := root.text(process + "/fdinfo/" + descriptor)
	if err != nil {
		return ""
	}
	id, _ := field(info, "link_id")
	return "bpf_link:" + id
}

func readProcess(root files, process string) Process {
	id, _ := strconv.Atoi(path.Base(process))
	command, _ := root.text(process + "/comm")
	cgroup, _ := root.text(process + "/cgroup")
	p := Process{ID: id, Command: command, Unit: unitOf(cgroup)}
	table, _ := root.text(process + "/net/unix")
	listeners := unixListeners(table)
	descriptors, _ := root.list(process + "/fd")
	for _, d := range descriptors {
		target, _ := root.readLink(process + "/fd/" + d)
		if at, is := listeners[strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]")]; is {
			p.UnixSockets = append(p.UnixSockets, at)
		}
	}
	return p
}

// findHolders says whose the programs and the queues' sockets are. It walks through all processes only if there are any.
func (f *InterfaceFacts) findHolders(root files) {
	var wanted []string
	for _, p := range f.Programs {
		if p.LinkID.Value != 0 {
			wanted = append(wanted, linkName(p.LinkID.Value))
		}
	}
	sockets := map[int]uint32{}
	if slices.ContainsFunc(f.Queues.Value, func(q Queue) bool { return q.Socket }) || !f.Queues.Known() {
		sockets = readSockets(f.Index)
	}
	for _, inode := range sockets {
		wanted = append(wanted, socketName(inode))
	}
	found := map[string]Fact[Process]{}
	if len(wanted) > 0 {
		found = holders(root, wanted)
	}
	for i := range f.Programs {
		f.Programs[i].Holder = f.Programs[i].holder(found)
	}
	for i := range f.Queues.Value {
		q := &f.Queues.Value[i]
		if inode, is := sockets[q.Index]; is {
			q.Socket, q.Holder = true, found[socketName(inode)]
		}
	}
}

// holder is of a program that a bpf_link holds; one that was attached by netlink stays without a process.
func (p Program) holder(found map[string]Fact[Process]) Fact[Process] {
	if !p.LinkID.Known() {
		return unknown[Process](p.LinkID.Unknown)
	}
	return found[linkName(p.LinkID.Value)]
}

// readSockets gives the inodes of AF_XDP sockets by the queue that they are bound to. Kernels without
// CONFIG_XDP_SOCKETS_DIAG tell none.
func readSockets(index int) map[int]uint32 {
	list, err := netlink.SocketDiagXDP()
	if err != nil {
		return nil
	}
	return socketsOf(list, index)
}

func socketsOf(list []*netlink.XDPDiagInfoResp, index int) map[int]uint32 {
	sockets := map[int]uint32{}
	for _, s := range list {
		if int(s.XDPInfo.Ifindex) == index {
			sockets[int(s.XDPInfo.QueueID)] = s.XDPDiagMsg.Ino
		}
	}
	return sockets
}

// Listeners gives the sockets that listen on a TCP port, at whatever address, in the network namespace of the calling thread.
func Listeners(port uint16) Fact[[]Listener] {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var list []Listener
	var names []string
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		messages, err := listening(family)
		if err != nil {
			return unknown[[]Listener](why(err))
		}
		for _, m := range messages {
			if address, inode, ok := parseListener(m); ok && address.Port() == port {
				list = append(list, Listener{Address: address.String()})
				names = append(names, socketName(inode))
			}
		}
	}
	if len(list) == 0 {
		return known(list)
	}
	found := holders(files{os.DirFS("/")}, names)
	for i := range list {
		list[i].Holder = found[names[i]]
	}
	return known(list)
}

// listeningRequest is struct inet_diag_req_v2 (include/uapi/linux/inet_diag.h) for all TCP sockets that listen.
type listeningRequest uint8 // address family

func (listeningRequest) Len() int { return 56 }

func (family listeningRequest) Serialize() []byte {
	const listen = 10 // TCP_LISTEN
	data := make([]byte, family.Len())
	data[0], data[1] = uint8(family), unix.IPPROTO_TCP
	nl.NativeEndian().PutUint32(data[4:], 1<<listen)
	return data
}

// listening gives struct inet_diag_msg for each socket.
func listening(family uint8) ([][]byte, error) {
	request := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	request.AddData(listeningRequest(family))
	return request.Execute(unix.NETLINK_INET_DIAG, 0)
}

// parseListener reads address, port and inode of a struct inet_diag_msg.
func parseListener(m []byte) (address netip.AddrPort, inode uint32, ok bool) {
	const portAt, addressAt, inodeAt, messageBytes = 4, 8, 68, 72
	if len(m) < messageBytes {
		return address, 0, false
	}
	bytes := m[addressAt : addressAt+16]
	if m[0] == unix.AF_INET {
		bytes = bytes[:4]
	}
	a, ok := netip.AddrFromSlice(bytes)
	return netip.AddrPortFrom(a, uint16(m[portAt])<<8|uint16(m[portAt+1])), nl.NativeEndian().Uint32(m[inodeAt:]), ok
}
