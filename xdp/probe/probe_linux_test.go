package probe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// insideVariable in the environment tells a test that it is the child in namespaces of its own.
const insideVariable = "RINGMQ_PROBE_TEST_INSIDE"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inside runs the rest of a test in a child with its own network and mount namespaces, where sysfs shows its own
// interfaces. It returns true there and false in the parent.
func inside(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideVariable) != "" {
		if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
			t.Fatalf("mount sysfs: %v", err)
		}
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: CAP_SYS_ADMIN and CAP_NET_ADMIN for namespaces and veth pairs")
	}
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	child.Env = append(os.Environ(), insideVariable+"=1")
	child.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	out, err := child.CombinedOutput()
	if reason, skipped := bytes.CutPrefix(out, []byte("=== RUN")); skipped && err == nil && bytes.Contains(reason, []byte("--- SKIP: "+t.Name())) {
		t.Skipf("%s", reason)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("inside: %v\n%s", err, out)
	}
	return false
}

// shell runs a command of the kind that remedies are; as root they have no sudo.
func shell(t *testing.T, command string) {
	t.Helper()
	if out, err := exec.Command("sh", "-ec", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// makeVeth makes the pair doctora and doctorb, four queues each, with everything as XDP wants it.
func makeVeth(t *testing.T) {
	t.Helper()
	shell(t, `ip link set lo up
ip link add doctora numrxqueues 4 numtxqueues 4 type veth peer name doctorb numrxqueues 4 numtxqueues 4
ip address add 198.18.0.1/24 dev doctora
ip link set doctora up
ip link set doctorb up
ethtool -K doctorb tx off`)
}

func facts(t *testing.T, name string) (HostFacts, InterfaceFacts) {
	t.Helper()
	h, err := Host()
	if err != nil {
		t.Fatal(err)
	}
	h.Firewall = Firewall()
	i, err := Interface(name)
	if err != nil {
		t.Fatal(err)
	}
	return h, i
}

// about gives the findings of a topic that are more than ok.
func concerning(findings []Finding, topic string) []Finding {
	return slices.DeleteFunc(slices.Clone(findings), func(f Finding) bool { return f.Topic != topic || f.Severity == OK })
}

// TestVeth: the facts of a veth pair.
func TestVeth(t *testing.T) {
	if !inside(t) {
		return
	}
	makeVeth(t)
	h, i := facts(t, "doctora")
	if h.System != "linux" || h.Kernel == "" || !h.Socket.Works || !h.Program.Works || !h.Map.Works {
		t.Errorf("%+v", h)
	}
	for _, c := range h.Capabilities {
		if !c.Held {
			t.Errorf("root without %s", c.Name)
		}
	}
	if !i.Up || !i.Carrier || i.Kind != "veth" || i.Driver != "veth" || i.Peer != "doctorb" || i.MTU != 1500 || !slices.Contains(i.Addresses, "198.18.0.1/24") {
		t.Errorf("%+v", i)
	}
	if n := i.ReceiveQueues(); n != known(4) || len(i.Queues.Value) != 4 {
		t.Errorf("%v queues: %v", n, i.Queues)
	}
	if c := i.Channels.Value; c.Receive != 4 || c.Transmit != 4 || c.MaxReceive != 4 {
		t.Errorf("channels %+v", i.Channels)
	}
	if len(i.Programs) != 0 || i.Ingress != known(0) || i.PeerChecksums != known(false) || i.RSS.Known() {
		t.Errorf("programs %v, ingress %v, peer checksums %v, RSS %v", i.Programs, i.Ingress, i.PeerChecksums, i.RSS)
	}
	if f := i.Features; f.Known() && (!f.Value.Basic || !f.Value.Redirect || f.Value.ZeroCopy) {
		t.Errorf("features %+v", f)
	}
	names, err := Interfaces()
	if err != nil || !slices.Contains(names, "doctora") || !slices.Contains(names, "doctorb") || slices.Contains(names, "lo") {
		t.Errorf("%q, %v", names, err)
	}
	c := Choose(h, []InterfaceFacts{i}, Plan{Wish: WishXDP})
	if i.Features.Known() && (c.Mode != Native || c.Trial) {
		t.Errorf("%+v", c)
	}
}

func TestInterfaceMissing(t *testing.T) {
	for _, name := range []string{"missing0", "", "a name that is much longer than any"} {
		_, err := Interface(name)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", name)) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestRemedies: each trouble is found, and the command that stands beside it takes it away.
func TestRemedies(t *testing.T) {
	if !inside(t) {
		return
	}
	makeVeth(t)
	for _, c := range []struct {
		name    string
		trouble string
		plan    Plan
		topic   string
		says    string
	}{
		{"MTU", "ip link set dev doctora mtu 9000", Plan{Wish: WishXDP}, "mtu", "9000"},
		{"down", "ip link set dev doctora down", Plan{Wish: WishXDP}, "link", "down"},
		{"unbound queues", "true", Plan{Wish: WishXDP, Queues: []int{0, 1}}, "queues", "queues 2-3"},
		{"fewer queues than the peer's", "ethtool -L doctora rx 1", Plan{Wish: WishXDP}, "driver", "its peer doctorb has 2 TX queues, and itself 1 RX queue"},
		{"partial checksums", "ethtool -K doctorb tx on", Plan{Wish: WishXDP}, "offloads", "doctorb"},
	} {
		shell(t, c.trouble)
		h, i := facts(t, "doctora")
		found := concerning(Findings(h, []InterfaceFacts{i}, c.plan), c.topic)
		if len(found) != 1 || !strings.Contains(found[0].Says, c.says) || found[0].Remedy == "" {
			t.Errorf("%s: found %+v", c.name, found)
			continue
		}
		if choice := Choose(h, []InterfaceFacts{i}, c.plan); found[0].Severity == Problem && (choice.Mode != None || choice.Remedy != found[0].Remedy) {
			t.Errorf("%s: %+v", c.name, choice)
		}
		shell(t, found[0].Remedy)
		h, i = facts(t, "doctora")
		left := slices.DeleteFunc(concerning(Findings(h, []InterfaceFacts{i}, c.plan), c.topic), func(f Finding) bool { return f.Severity == Note })
		if len(left) != 0 {
			t.Errorf("%s: after %q there is %+v", c.name, found[0].Remedy, left)
		}
	}
	h, i := facts(t, "doctora")
	if choice := Choose(h, []InterfaceFacts{i}, Plan{Wish: WishXDP}); choice.Mode < Native {
		t.Errorf("in the end: %+v", choice)
	}
}

// TestForeignPrograms: a program is named by its id, and the remedy detaches it, however it was attached.
func TestForeignPrograms(t *testing.T) {
	if !inside(t) {
		return
	}
	makeVeth(t)
	for _, c := range []struct {
		mode  string
		flags link.XDPAttachFlags
	}{{"native", link.XDPDriverMode}, {"generic", link.XDPGenericMode}} {
		program := passing(t, "doctor_pass")
		_, i := facts(t, "doctora")
		attached, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: i.Index, Flags: c.flags})
		if err != nil {
			t.Fatal(err)
		}
		h, i := facts(t, "doctora")
		info, err := attached.Info()
		if err != nil {
			t.Fatal(err)
		}
		want := Program{ID: uint32(info.Program), Mode: c.mode, Name: known("doctor_pass"), LinkID: known(uint32(info.ID)),
			Holder: known(Process{ID: os.Getpid(), Command: "probe.test"})}
		for n := range i.Programs { // The machine's, not the test's.
			i.Programs[n].Holder.Value.Unit, i.Programs[n].Holder.Value.UnixSockets = "", nil
		}
		if len(i.Programs) != 1 || !reflect.DeepEqual(i.Programs[0], want) {
			t.Errorf("programs %+v, not %+v", i.Programs, want)
		}
		found := concerning(Findings(h, []InterfaceFacts{i}, Plan{Wish: WishXDP}), "xdp program")
		if len(found) != 1 || !strings.Contains(found[0].Says, fmt.Sprintf("program %d (doctor_pass", want.ID)) ||
			found[0].Remedy != fmt.Sprintf("bpftool link detach id %d", info.ID) {
			t.Errorf("%+v", found)
		}
		if err := errors.Join(attached.Close(), program.Close()); err != nil {
			t.Fatal(err)
		}
	}
	shell(t, "ip link set dev doctora down; ip link set dev doctora up")
	if _, i := facts(t, "doctora"); len(i.Programs) != 0 {
		t.Errorf("left: %+v", i.Programs)
	}
}

// TestForeignProgramOfNetlink: the kind that ip link attaches, which stays when its loader ends.
func TestForeignProgramOfNetlink(t *testing.T) {
	if !inside(t) {
		return
	}
	makeVeth(t)
	program := passing(t, "doctor_pass")
	defer program.Close()
	pin := t.TempDir()
	if err := unix.Mount("bpf", pin, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(pin, 0)
	if err := program.Pin(pin + "/pass"); err != nil {
		t.Fatal(err)
	}
	shell(t, "ip link set dev doctora xdpgeneric pinned "+pin+"/pass")
	h, i := facts(t, "doctora")
	found := concerning(Findings(h, []InterfaceFacts{i}, Plan{Wish: WishXDP}), "xdp program")
	if len(found) != 1 || found[0].Remedy != "ip link set dev doctora xdpgeneric off" {
		t.Fatalf("%+v", found)
	}
	shell(t, found[0].Remedy)
	if _, i := facts(t, "doctora"); len(i.Programs) != 0 {
		t.Errorf("left: %+v", i.Programs)
	}
}

func passing(t *testing.T, name string) *ebpf.Program {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.XDP, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// TestTakenQueue: a queue that another process has bound is known (Linux 6.15), and is a trouble.
func TestTakenQueue(t *testing.T) {
	if !inside(t) {
		return
	}
	makeVeth(t)
	_, i := facts(t, "doctora")
	bindQueue(t, i.Index, 2)
	h, i := facts(t, "doctora")
	if major, minor, _ := kernelVersion(h.Kernel); !i.Queues.Value[2].Socket && (major < 6 || major == 6 && minor < 15) {
		t.Skip("needs Linux 6.15: this one does not tell which queues are bound")
	}
	for _, q := range i.Queues.Value {
		if q.Socket != (q.Index == 2) {
			t.Errorf("queue %d: %v", q.Index, q)
		}
	}
	found := concerning(Findings(h, []InterfaceFacts{i}, Plan{Wish: WishXDP}), "queues")
	if len(found) == 0 || found[0].Severity != Problem || !strings.Contains(found[0].Says, "has queue 2: stop that one") {
		t.Fatalf("%+v", found)
	}
	// Where the kernel does not tell whose it is, the remedy lists who it can be.
	if self := fmt.Sprintf("/proc/%d/maps\n", os.Getpid()); i.Queues.Value[2].Holder.Value.ID == 0 {
		out, _ := exec.Command("sh", "-c", found[0].Remedy).Output() // Processes end meanwhile, which grep complains of.
		if !strings.Contains(string(out), self) {
			t.Errorf("%s: no %s in %s", found[0].Remedy, self, out)
		}
	} else if i.Queues.Value[2].Holder.Value.ID != os.Getpid() {
		t.Errorf("queue 2 is said to be of %v", i.Queues.Value[2].Holder)
	}
}

// bindQueue binds an AF_XDP socket with the smallest rings until the test ends.
func bindQueue(t *testing.T, index, queue int) {
	t.Helper()
	const frames, frameBytes = 64, 4096
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	umem, err := unix.Mmap(-1, 0, frames*frameBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	var register []byte // struct xdp_umem_reg
	for _, word := range []uint64{uint64(reflect.ValueOf(umem).Pointer()), frames * frameBytes, frameBytes, 0} {
		register = binary.NativeEndian.AppendUint64(register, word)
	}
	err = unix.SetsockoptString(fd, unix.SOL_XDP, unix.XDP_UMEM_REG, string(register))
	for _, ring := range []int{unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_RX_RING, unix.XDP_TX_RING} {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_XDP, ring, frames))
	}
	err = errors.Join(err, unix.Bind(fd, &unix.SockaddrXDP{Flags: unix.XDP_COPY, Ifindex: uint32(index), QueueID: uint32(queue)}))
	if err != nil {
		t.Fatal(err)
	}
	rx, err := unix.Mmap(fd, unix.XDP_PGOFF_RX_RING, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED) // as who reads it must
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(rx) })
}

// TestCompounds: bonds, bridges and VLANs name what they are made of.
func TestCompounds(t *testing.T) {
	if !inside(t) {
		return
	}
	makeVeth(t)
	shell(t, `ip link add link doctora name doctormv type macvlan
ip link add doctorbr type bridge
ip link set doctorb master doctorbr`)
	for name, lower := range map[string]string{"doctormv": "doctora", "doctorbr": "doctorb"} {
		h, i := facts(t, name)
		if !slices.Equal(i.Lower, []string{lower}) {
			t.Errorf("%s: below it %q, not %s", name, i.Lower, lower)
		}
		found := concerning(Findings(h, []InterfaceFacts{i}, Plan{Wish: WishXDP}), "interface")
		if len(found) != 1 || found[0].Remedy != "ringmq serve --mode xdp --interface "+lower+" --listen :1883" {
			t.Errorf("%s: %+v", name, found)
		}
	}
	if _, i := facts(t, "doctorb"); i.Master != "doctorbr" || len(i.Lower) != 0 {
		t.Errorf("%+v", i)
	}
	if _, i := facts(t, "doctora"); i.Peer != "doctorb" || len(i.Lower) != 0 {
		t.Errorf("%+v", i)
	}
}

// TestVLAN: an interface knows the VLANs above it, and the remedy leaves their tags on.
func TestVLAN(t *testing.T) {
	if !inside(t) {
		return
	}
	makeVeth(t)
	if out, err := exec.Command("ip", "link", "add", "link", "doctora", "name", "doctora.7", "type", "vlan", "id", "7").CombinedOutput(); err != nil {
		if strings.Contains(string(out), "Unknown device type") {
			t.Skip("needs VLAN interfaces in the kernel (CONFIG_VLAN_8021Q)")
		}
		t.Fatalf("%v: %s", err, out)
	}
	h, i := facts(t, "doctora")
	found := concerning(Findings(h, []InterfaceFacts{i}, Plan{Wish: WishXDP}), "offloads")
	if !slices.Equal(i.VLANs, []string{"doctora.7"}) || len(found) != 1 || !strings.Contains(found[0].Says, "doctora.7") {
		t.Fatalf("%+v, %+v", i.VLANs, found)
	}
	shell(t, found[0].Remedy)
	h, i = facts(t, "doctora")
	if left := concerning(Findings(h, []InterfaceFacts{i}, Plan{Wish: WishXDP}), "offloads"); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
	h, i = facts(t, "doctora.7")
	if found := concerning(Findings(h, []InterfaceFacts{i}, Plan{Wish: WishXDP}), "interface"); len(found) != 1 || !slices.Equal(i.Lower, []string{"doctora"}) {
		t.Errorf("%+v, %+v", i.Lower, found)
	}
}

// TestFirewallOfThisHost: nft is run and read.
func TestFirewallOfThisHost(t *testing.T) {
	if !inside(t) {
		return
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs the program nft (Debian package nftables)")
	}
	makeVeth(t)
	shell(t, `nft 'add table inet doctor; add chain inet doctor in { type filter hook input priority 0; policy drop; }; add rule inet doctor in tcp dport { 1883, 8883 } accept'
ip xfrm policy add src 198.18.0.0/24 dst 198.18.0.1/32 dir in action block
tc qdisc add dev doctora clsact
tc filter add dev doctora ingress u32 match u32 0 0 flowid 1:1`)
	h, i := facts(t, "doctora")
	findings := Findings(h, []InterfaceFacts{i}, Plan{Wish: WishXDP})
	text := fmt.Sprint(findings)
	for _, want := range []string{"chain inet doctor in has 1 rule about port 1883 (handle ", "drops by policy", "1 IPsec policy", "1 filter or program on received"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %+v", want, findings)
		}
	}
	if text := fmt.Sprint(Findings(h, []InterfaceFacts{i}, Plan{Wish: WishXDP, Port: 22})); strings.Contains(text, "about port 22 (") {
		t.Errorf("port 22: %s", text)
	}
	shell(t, "nft flush ruleset; tc qdisc del dev doctora clsact; ip xfrm policy flush")
	h, i = facts(t, "doctora")
	if left := concerning(Findings(h, []InterfaceFacts{i}, Plan{Wish: WishXDP}), "firewall"); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
}

// TestIptablesOfThisHost: rules of both kinds of iptables are read, whichever of them iptables-save is, and the sets that they match.
func TestIptablesOfThisHost(t *testing.T) {
	for _, program := range []string{"iptables-nft", "iptables-legacy", "ip6tables-legacy", "ipset"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs the program %s (Debian packages iptables and ipset)", program)
		}
	}
	if !inside(t) {
		return
	}
	makeVeth(t)
	shell(t, `ipset create mqtt bitmap:port range 0-65535; ipset add mqtt 1883
iptables-nft -A INPUT -p tcp -m multiport --dports 1880:1890 -j DROP
iptables-legacy -A INPUT -p tcp -m set --match-set mqtt dst -j REJECT
ip6tables-legacy -t raw -A PREROUTING -p tcp --dport 1883 -j ACCEPT`)
	h, i := facts(t, "doctora")
	findings := concerning(Findings(h, []InterfaceFacts{i}, Plan{Wish: WishXDP}), "firewall")
	text := fmt.Sprint(findings)
	for _, want := range []string{"iptables chain filter INPUT has 1 rule about port 1883 (drop)", "iptables chain filter INPUT has 1 rule about port 1883 (reject)",
		"ip6tables chain raw PREROUTING has 1 rule about port 1883 (accept)"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %+v", want, findings)
		}
	}
	if len(findings) != 3 {
		t.Errorf("%d findings, not 3: %+v", len(findings), findings)
	}
}

// TestListeners: who listens on the port is named, in both families, and nobody else.
func TestListeners(t *testing.T) {
	if !inside(t) {
		return
	}
	shell(t, "ip link set lo up")
	if l := Listeners(1883); !l.Known() || len(l.Value) != 0 {
		t.Errorf("before: %v", l)
	}
	for _, address := range []string{"127.0.0.1:1883", "[::1]:1883", "127.0.0.1:1884"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	c, err := net.Dial("tcp", "127.0.0.1:1883") // Connections do not count.
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var addresses []string
	for _, l := range Listeners(1883).Value {
		addresses = append(addresses, l.Address)
		if l.Holder.Value.ID != os.Getpid() || l.Holder.Value.Command != "probe.test" {
			t.Errorf("%s is said to be of %v", l.Address, l.Holder)
		}
	}
	if want := []string{"127.0.0.1:1883", "[::1]:1883"}; !slices.Equal(addresses, want) {
		t.Errorf("listeners at %q, not %q", addresses, want)
	}
	h := goodHost()
	h.Listeners = Listeners(1883)
	if got := Choose(h, nil, Plan{}); got.Mode != None || got.Remedy != fmt.Sprintf("sudo kill %d", os.Getpid()) && h.Listeners.Value[0].Holder.Value.Unit == "" {
		t.Errorf("%+v", got)
	}
}

// TestUnprivileged: nobody gets facts too, and what nobody may not know is unknown.
func TestUnprivileged(t *testing.T) {
	if !inside(t) {
		return
	}
	makeVeth(t)
	program := passing(t, "doctor_pass")
	defer program.Close()
	_, i := facts(t, "doctora")
	attached, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: i.Index})
	if err != nil {
		t.Fatal(err)
	}
	defer attached.Close()
	const nobody = 65534
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody)); err != nil {
		t.Fatal(err)
	}
	h, i := facts(t, "doctora")
	if h.UserID != nobody || !h.Socket.Denied || !h.Program.Denied || !h.Map.Denied || h.Socket.Works {
		t.Errorf("%+v", h)
	}
	if len(i.Programs) != 1 || i.Programs[0].ID == 0 || i.Programs[0].Name.Known() || i.Programs[0].LinkID.Known() || i.Programs[0].Holder.Known() {
		t.Errorf("%+v", i.Programs)
	}
	if i.ReceiveQueues() != known(4) || !i.Channels.Known() || !i.Offloads.Known() || i.MTU != 1500 {
		t.Errorf("%+v", i)
	}
	findings := Findings(h, []InterfaceFacts{i}, Plan{Wish: WishXDP})
	text := fmt.Sprint(findings)
	for _, want := range []string{"CAP_NET_ADMIN is missing", "CAP_NET_RAW is missing", "CAP_BPF is missing", "name unknown: not permitted", "sudo setcap", "sudo ip link set dev doctora xdpdrv off"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %+v", want, findings)
		}
	}
	if h.Firewall.Chains.Known() && len(h.Firewall.Chains.Value) > 0 {
		t.Errorf("nobody reads %+v", h.Firewall.Chains)
	}
}

// TestSysfsOfAnotherNamespace: where sysfs shows other interfaces, what only it tells is unknown, and ioctl still counts queues.
func TestSysfsOfAnotherNamespace(t *testing.T) {
	if os.Getenv(insideVariable) == "" {
		inside(t)
		return
	}
	makeVeth(t)
	_, i := facts(t, "doctora")
	if i.Queues.Known() || i.NUMANode.Known() || !strings.Contains(i.Queues.Unknown, "namespace") || i.ReceiveQueues() != known(4) {
		t.Errorf("%v, %v, %v", i.Queues, i.NUMANode, i.ReceiveQueues())
	}
}

// TestRealInterfaces: the real interfaces can be read, whatever they are, and nothing of it is attached or changed.
func TestRealInterfaces(t *testing.T) {
	names, err := Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		i, err := Interface(name)
		if err != nil || i.Name != name || i.MTU == 0 || !i.ReceiveQueues().Known() {
			t.Errorf("%s: %+v, %v", name, i, err)
		}
	}
	if h, err := Host(); err != nil || !h.CPU.Online.Known() || !h.Memory.TotalBytes.Known() || len(h.Capabilities) != len(capabilities) {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestVirtioRefusal(t *testing.T) {
	bits := func(set ...int) string {
		text := bytes.Repeat([]byte("0"), 64)
		for _, n := range set {
			text[n] = '1'
		}
		return string(text)
	}
	for name, c := range map[string]struct {
		bits    string
		refused bool
	}{
		"merges":                         {bits(0, 1, 5, 7, 8), true},
		"merges UDP":                     {bits(54), true},
		"merges, and may be told not to": {bits(2, 7, 8), false},
		"does not merge":                 {bits(0, 1, 5, 15), false},
		"nothing":                        {"", false},
	} {
		if got := virtioRefusal(c.bits); (got != "") != c.refused {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestFlowRule(t *testing.T) {
	rule := func(kind uint32, portAt int, port, mask uint16, cookie uint64) FlowRule {
		data := make([]byte, 4*flowWords)
		put32 := func(at int, v uint32) { binary.NativeEndian.PutUint32(data[at:], v) }
		put32(flowTypeBytes, kind)
		put32(flowLocation, 12)
		binary.NativeEndian.PutUint64(data[flowCookie:], cookie)
		data[flowValueBytes+portAt], data[flowValueBytes+portAt+1] = byte(port>>8), byte(port)
		data[flowMaskBytes+portAt], data[flowMaskBytes+portAt+1] = byte(mask>>8), byte(mask)
		return parseFlowRule(data)
	}
	const ext = 1 << 31
	for _, c := range []struct {
		got, want FlowRule
	}{
		{rule(1, 10, 1883, 0xffff, 3), FlowRule{12, []PortRange{{1883, 1883}}, 3}},
		{rule(5|ext, 34, 1883, 0xffff, 0), FlowRule{12, []PortRange{{1883, 1883}}, 0}},
		{rule(1, 10, 1883, 0, 3), FlowRule{12, nil, 3}},
		{rule(2, 10, 1883, 0xffff, 3), FlowRule{12, nil, 3}},
		{rule(1, 10, 1883, 0xffff, 1<<64-1), FlowRule{12, []PortRange{{1883, 1883}}, -1}},
		{rule(1, 10, 1883, 0xffff, 1<<64-2), FlowRule{12, []PortRange{{1883, 1883}}, -1}},
		{rule(1, 10, 1883, 0xffff, 1<<32|2), FlowRule{12, []PortRange{{1883, 1883}}, 2}}, // of a virtual function
	} {
		if fmt.Sprint(c.got) != fmt.Sprint(c.want) || c.got.Queue != c.want.Queue {
			t.Errorf("%+v, not %+v", c.got, c.want)
		}
	}
}

func TestCountSlots(t *testing.T) {
	for want, table := range map[string][]uint32{"[2 2 0 0]": {0, 1, 0, 1}, "[0 0 0 0 0 1]": {5}, "[0 0 0 0]": {1 << 31}} {
		if got := fmt.Sprint(countSlots(table, 4)); got != want {
			t.Errorf("%v: %s, not %s", table, got, want)
		}
	}
}

func TestRun(t *testing.T) {
	if out, err := run("sh", "-c", "echo rules"); string(out) != "rules\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	for want, command := range map[string]string{
		"to root only": "echo 'Operation not permitted (you must be root)' >&2; exit 1",
		"no such":      "echo no such thing >&2; echo more >&2; exit 1",
		"too much":     "head -c 40000000 /dev/zero",
	} {
		_, err := run("sh", "-c", command)
		if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), want) && want != "too much" {
			t.Errorf("%s: %v", command, err)
		}
	}
	if _, err := run("no-such-program"); !errors.Is(err, exec.ErrNotFound) {
		t.Error(err)
	}
}
