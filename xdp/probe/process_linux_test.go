package probe

import (
	"io/fs"
	"maps"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/vishvananda/netlink"
)

// TestSocketsOf: of what kernels with CONFIG_XDP_SOCKETS_DIAG tell, the sockets of the interface are taken.
func TestSocketsOf(t *testing.T) {
	socket := func(index, queue, inode uint32) *netlink.XDPDiagInfoResp {
		return &netlink.XDPDiagInfoResp{XDPDiagMsg: &netlink.XDPSocket{Ino: inode}, XDPInfo: &netlink.XDPInfo{Ifindex: index, QueueID: queue}}
	}
	got := socketsOf([]*netlink.XDPDiagInfoResp{socket(2, 0, 70), socket(3, 0, 71), socket(2, 5, 72), socket(0, 0, 73)}, 2)
	if want := map[int]uint32{0: 70, 5: 72}; !maps.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
}

// proc is a host with a broker, another program, and a process that is about to end.
func proc() fstest.MapFS {
	link := func(target string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink | 0o777}
	}
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	return fstest.MapFS{
		"proc/7/comm":       file("ringmq\n"),
		"proc/7/cgroup":     file("0::/system.slice/ringmq.service\n"),
		"proc/7/fd/3":       link("anon_inode:bpf_link"),
		"proc/7/fd/4":       link("socket:[40]"),
		"proc/7/fd/5":       link("socket:[50]"),
		"proc/7/fd/6":       link("socket:[60]"),
		"proc/7/fdinfo/3":   file("pos:\t0\nlink_type:\txdp\nlink_id:\t9\nprog_id:\t17\n"),
		"proc/7/net/unix":   file("Num RefCount Protocol Flags Type St Inode Path\n0: 00000002 00000000 00010000 0001 01 50 /run/ringmq/7.sock\n0: 00000002 00000000 00000000 0001 03 60 /run/ringmq/7.sock\n0: 00000002 00000000 00010000 0001 01 70 /run/other.sock\n"),
		"proc/8/comm":       file("other\n"),
		"proc/8/fd/3":       link("anon_inode:bpf_link"),
		"proc/8/fdinfo/3":   file("link_id:\t99\n"),
		"proc/9/fd/0":       link("anon_inode:bpf_link"),
		"proc/self/fd/0":    link("socket:[40]"),
		"proc/sys/fd/other": file(""),
	}
}

// TestHolders: links and sockets lead to their processes, a process to the sockets at which it listens.
func TestHolders(t *testing.T) {
	found := holders(files{proc()}, []string{linkName(9), socketName(40), linkName(1)})
	if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, []string{"bpf_link:9", "socket:[40]"}) {
		t.Errorf("found %q", got)
	}
	for name, holder := range found {
		p := holder.Value
		if !holder.Known() || p.ID != 7 || p.String() != "process 7 (ringmq, ringmq.service)" || p.Stop() != "systemctl stop ringmq.service" ||
			!slices.Equal(p.UnixSockets, []string{"/run/ringmq/7.sock"}) {
			t.Errorf("%s: %+v", name, holder)
		}
	}
	if found := holders(files{fstest.MapFS{}}, []string{linkName(9)}); found["bpf_link:9"].Known() {
		t.Errorf("without /proc: %v", found)
	}
}
