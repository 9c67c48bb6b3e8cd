package probe

import (
	"strings"
	"testing"
)

// findingRow changes good facts, and says which finding comes of it and with which remedy. Everything else must stay ok.
type findingRow struct {
	name     string
	change   func(h *HostFacts, i *InterfaceFacts, p *Plan)
	severity Severity
	topic    string
	words    string // of what it says, each must be there
	remedy   string
}

func hostRows() []findingRow {
	return []findingRow{
		{"another system", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) { *h = HostFacts{System: "darwin"} },
			Problem, "kernel", "needs Linux|darwin", ""},
		{"old kernel", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) { h.Kernel = "5.10.0-33-amd64" },
			Problem, "kernel", "5.10.0-33-amd64|5.15", ""},
		{"old kernel on arm64", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) { h.Kernel, h.Architecture = "5.15.1", "arm64" },
			Problem, "kernel", "5.15.1|5.18", ""},
		{"another processor", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) { h.Architecture = "riscv64" },
			Problem, "kernel", "riscv64|amd64", ""},
		{"a release that nobody understands", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) { h.Kernel = "next" },
			Note, "kernel", "next|unknown", ""},
		{"no AF_XDP", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) {
			h.Socket = Trial{Error: "address family not supported by protocol"}
		}, Problem, "kernel", "AF_XDP socket|address family|CONFIG_XDP_SOCKETS=y", ""},
		{"no BPF", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) { h.Program = Trial{Error: "function not implemented"} },
			Problem, "kernel", "XDP program|CONFIG_BPF_SYSCALL=y", ""},
		{"no XSKMAP", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) { h.Map = Trial{Error: "invalid argument"} },
			Problem, "kernel", "XSKMAP|CONFIG_XDP_SOCKETS=y", ""},
		{"denied in spite of the capability", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) {
			h.Program = Trial{Denied: true, Error: "operation not permitted"}
		}, Problem, "privileges", "XDP program|in spite of CAP_BPF|container", ""},
		{"CAP_NET_ADMIN", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) { lose(h, "CAP_NET_ADMIN") },
			Problem, "privileges", "CAP_NET_ADMIN is missing|attached", "sudo setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon,cap_ipc_lock+ep /usr/bin/ringmq"},
		{"CAP_NET_RAW", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) {
			lose(h, "CAP_NET_RAW")
			h.Socket = Trial{Denied: true, Error: "operation not permitted"}
			h.Executable = "/opt/my broker/ringmq"
		}, Problem, "privileges", "CAP_NET_RAW is missing|socket", "sudo setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon,cap_ipc_lock+ep '/opt/my broker/ringmq'"},
		{"CAP_BPF", func(h *HostFacts, _ *InterfaceFacts, p *Plan) {
			lose(h, "CAP_BPF")
			h.Program, h.Map = Trial{Denied: true, Error: "operation not permitted"}, Trial{Denied: true, Error: "operation not permitted"}
			h.Executable = ""
		}, Problem, "privileges", "CAP_BPF is missing|loaded", `sudo setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon,cap_ipc_lock+ep "$(command -v ringmq)"`},
		{"CAP_PERFMON", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) { lose(h, "CAP_PERFMON") },
			Problem, "privileges", "CAP_PERFMON is missing|verifier", "sudo setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon,cap_ipc_lock+ep /usr/bin/ringmq"},
		{"CAP_SYS_ADMIN stands in for CAP_BPF and CAP_PERFMON", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) {
			lose(h, "CAP_BPF")
			lose(h, "CAP_PERFMON")
			gain(h, "CAP_SYS_ADMIN")
		}, OK, "privileges", "has the capabilities", ""},
		{"user namespace", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) { h.UserNamespace = true },
			Note, "privileges", "user namespace|not the host's", ""},
		{"locked memory, raised by anybody", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) {
			lose(h, "CAP_IPC_LOCK")
			h.LockedMemory.Hard = Unlimited
		}, Problem, "locked memory", "4 queues takes 161 MiB|8 MiB|LimitMEMLOCK", "ulimit -l 164864"},
		{"locked memory, raised by root", func(h *HostFacts, _ *InterfaceFacts, p *Plan) {
			lose(h, "CAP_IPC_LOCK")
			p.Queues, p.AllowUnbound, p.FrameSizeBytes = []int{0, 1, 2, 3}, true, 4096
		}, Problem, "locked memory", "4 queues takes 321 MiB|8 MiB", "sudo prlimit --pid $$ --memlock=unlimited:unlimited"},
		{"locked memory is enough", func(h *HostFacts, _ *InterfaceFacts, p *Plan) {
			lose(h, "CAP_IPC_LOCK")
			p.UmemBytes = 1 << 20
		}, OK, "privileges", "has the capabilities", ""},
		{"no compiler", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) { h.Settings.BPFJIT = known(0) },
			Warning, "kernel", "bpf_jit_enable is 0", "sudo sysctl -w net.core.bpf_jit_enable=1"},
		{"irqbalance", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) { h.CPU.IRQBalance = known(true) },
			Note, "cpu", "irqbalance", "sudo systemctl stop irqbalance"},
		{"governor", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) {
			h.CPU.Governors = known([]string{"performance", "powersave"})
		}, Note, "cpu", "powersave", "sudo cpupower frequency-set -g performance"},
		{"few files", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) { h.Descriptors = Limit{1024, 1 << 20} },
			Note, "descriptors", "1024 files", "ulimit -n 65536"},
		{"few files, raised by root", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) { h.Descriptors = Limit{1024, 4096} },
			Note, "descriptors", "1024 files", "sudo prlimit --pid $$ --nofile=65536:65536"},
		{"fewer files than wanted", func(h *HostFacts, _ *InterfaceFacts, p *Plan) { p.Descriptors = 100000 },
			Warning, "descriptors", "65536 files|wants 100000", "ulimit -n 100000"},
		{"privileged port", func(h *HostFacts, _ *InterfaceFacts, p *Plan) { p.Port = 883 },
			Warning, "privileges", "CAP_NET_BIND_SERVICE is missing|port 883", "sudo sysctl -w net.ipv4.ip_unprivileged_port_start=883"},
		{"huge pages always", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) { h.Memory.THP = known("always") },
			Note, "memory", "2 MiB", "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"},
		{"huge pages always, as root", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) { h.Memory.THP, h.UserID = known("always"), 0 },
			Note, "memory", "2 MiB", "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"},
	}
}

func interfaceRows() []findingRow {
	program := Program{ID: 17, Mode: "native", Name: known("xdp_filter"), LinkID: known(uint32(0))}
	return []findingRow{
		{"bond", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.Kind, i.Lower = "bond", []string{"eth0", "eth1"} },
			Problem, "interface", "a bond is made of eth0 and eth1", "ringmq serve --mode xdp --interface eth0 --interface eth1 --listen :1883"},
		{"VLAN", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.Kind, i.Lower = "vlan", []string{"eth0"} },
			Problem, "interface", "a vlan is made of eth0", "ringmq serve --mode xdp --interface eth0 --listen :1883"},
		{"bridge of nothing", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.Kind = "bridge" },
			Problem, "interface", "a bridge has no queues of its own", ""},
		{"down", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.Up = false },
			Problem, "link", "down", "sudo ip link set dev eth0 up"},
		{"no carrier", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.Carrier = false },
			Warning, "link", "no carrier", ""},
		{"no carrier, the peer is down", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.Carrier, i.Peer = false, "eth1" },
			Warning, "link", "no carrier", "sudo ip link set dev eth1 up"},
		{"no address", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.Addresses = nil },
			Warning, "addresses", "no IP address on eth0", "sudo ip address add ADDRESS/LENGTH dev eth0"},
		{"member of a bond", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) {
			i.Addresses, i.Master, i.Inherited = nil, "bond0", []string{"192.0.2.7/24", "2001:db8::7/64", "fe80::7/64"}
		}, Warning, "addresses", "belongs to bond0|--listen", "ringmq serve --mode xdp --interface eth0 --listen 192.0.2.7:1883 --listen [2001:db8::7]:1883"},
		{"member of a bond without an address", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.Addresses, i.Master = nil, "bond0" },
			Warning, "addresses", "no IP address on bond0", "sudo ip address add ADDRESS/LENGTH dev bond0"},
		{"foreign program", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.Programs = []Program{program} },
			Problem, "xdp program", "17|xdp_filter|native|not ours", "sudo ip link set dev eth0 xdpdrv off"},
		{"foreign program, generic", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) {
			p := program
			p.Mode, p.Name = "generic", known("")
			i.Programs = []Program{p}
		}, Problem, "xdp program", "17|without a name|generic", "sudo ip link set dev eth0 xdpgeneric off"},
		{"foreign program, offloaded and nameless to us", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) {
			p := program
			p.Mode, p.Name, p.LinkID = "offload", unknown[string]("not permitted to this user"), unknown[uint32]("not permitted to this user")
			i.Programs = []Program{p}
		}, Problem, "xdp program", "17|name unknown: not permitted|offload", "sudo ip link set dev eth0 xdpoffload off"},
		{"foreign program of a link", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) {
			p := program
			p.LinkID = known(uint32(5))
			i.Programs = []Program{p}
		}, Problem, "xdp program", "17|xdp_filter", "sudo bpftool link detach id 5"},
		{"foreign program of a process", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) {
			p := program
			p.LinkID, p.Holder = known(uint32(5)), known(Process{ID: 812, Command: "xdp-loader"})
			i.Programs = []Program{p}
			i.Queues.Value[0].Socket, i.Queues.Value[0].Holder = true, p.Holder
		}, Problem, "xdp program", "17|of process 812 (xdp-loader)|not ours", "sudo bpftool link detach id 5"},
		{"what a ringmq has left", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) {
			p := program
			p.Name, p.LinkID = known("ringmq_steer"), known(uint32(5))
			i.Programs = []Program{p}
		}, Warning, "xdp program", "17|was a ringmq's|no process", "sudo bpftool link detach id 5"},
		{"zero-copy unknown", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.Features = unknown[Features]("before Linux 6.3") },
			Note, "driver", "eth0 (ice)|unknown|before Linux 6.3|only opening it", ""},
		{"no zero-copy, enough", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.Features.Value.ZeroCopy = false },
			Note, "driver", "eth0 (ice) has no zero-copy|xdp native copy", ""},
		{"no zero-copy, required", func(_ *HostFacts, i *InterfaceFacts, p *Plan) { i.Features.Value.ZeroCopy, p.Require = false, ZeroCopy },
			Problem, "driver", "has no zero-copy|--xdp-require zerocopy", "ringmq serve --mode xdp --interface eth0 --listen :1883"},
		{"no zero-copy, auto", func(_ *HostFacts, i *InterfaceFacts, p *Plan) { i.Features.Value.ZeroCopy, p.Wish = false, WishAuto },
			Warning, "driver", "has no zero-copy|native copy mode needs --mode xdp", "ringmq serve --mode xdp --interface eth0 --listen :1883"},
		{"no native", func(_ *HostFacts, i *InterfaceFacts, p *Plan) { i.Features, p.Port = known(Features{}), 8883 },
			Problem, "driver", "has no native XDP|only generic", "ringmq serve --mode xdp --xdp-require any --interface eth0 --listen :8883"},
		{"no native, auto", func(_ *HostFacts, i *InterfaceFacts, p *Plan) { i.Features, p.Wish = known(Features{}), WishAuto },
			Warning, "driver", "has no native XDP|generic mode needs", "ringmq serve --mode xdp --xdp-require any --interface eth0 --listen :1883"},
		{"no native, nothing required", func(_ *HostFacts, i *InterfaceFacts, p *Plan) { i.Features, p.Require = known(Features{}), Generic },
			Note, "driver", "has no native XDP|xdp generic is what is left", ""},
		{"no redirect", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.Features.Value.Redirect = false },
			Problem, "driver", "has no native XDP", "ringmq serve --mode xdp --xdp-require any --interface eth0 --listen :1883"},
		{"native refused", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.NativeRefused = "the hypervisor merges" },
			Problem, "driver", "refuses native XDP: the hypervisor merges", "ringmq serve --mode xdp --xdp-require any --interface eth0 --listen :1883"},
		{"limited by ourselves", func(_ *HostFacts, _ *InterfaceFacts, p *Plan) { p.Limit = Native },
			Note, "driver", "is limited to xdp native copy by --xdp-limit", ""},
		{"no driver", func(_ *HostFacts, i *InterfaceFacts, p *Plan) { i.Driver, i.Features = "", known(Features{}) },
			Problem, "driver", "eth0 (no driver)", "ringmq serve --mode xdp --xdp-require any --interface eth0 --listen :1883"},
		{"MTU that larger frames hold", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.MTU = 3818 },
			Problem, "mtu", "3818|2048|1770", "sudo ip link set dev eth0 mtu 1500"},
		{"MTU", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.MTU = 9000 },
			Problem, "mtu", "9000|2048|1770", "sudo ip link set dev eth0 mtu 1500"},
		{"MTU of one too many", func(_ *HostFacts, i *InterfaceFacts, p *Plan) { i.MTU, p.FrameSizeBytes = 3819, 4096 },
			Problem, "mtu", "3819|4096|3818", "sudo ip link set dev eth0 mtu 1500"},
		{"MTU of just enough", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.MTU = 1770 },
			OK, "mtu", "1770 bytes fit", ""},
	}
}

func queueRows() []findingRow {
	return []findingRow{
		{"queues unknown", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) {
			i.Queues, i.Channels = unknown[[]Queue]("sysfs shows another network namespace"), unknown[Channels]("the driver does not tell")
		}, Note, "queues", "unknown|sysfs shows another", ""},
		{"no such queue", func(_ *HostFacts, _ *InterfaceFacts, p *Plan) { p.Queues = []int{0, 4} },
			Problem, "queues", "queue 4 does not exist|4 queues", "ringmq serve --mode xdp --interface eth0 --listen :1883"},
		{"unbound, the first are bound", func(_ *HostFacts, _ *InterfaceFacts, p *Plan) { p.Queues = []int{1, 0} },
			Problem, "queues", "queues 2-3, not bound", "sudo ethtool -X eth0 equal 2"},
		{"unbound, others are bound", func(_ *HostFacts, _ *InterfaceFacts, p *Plan) { p.Queues = []int{1, 2, 3} },
			Problem, "queues", "queue 0, not bound", "sudo ethtool -X eth0 weight 0 1 1 1"},
		{"unbound, by the number of queues", func(_ *HostFacts, i *InterfaceFacts, p *Plan) {
			i.RSS, p.Queues = unknown[RSS]("the driver does not tell"), []int{0, 1}
		}, Problem, "queues", "queues 2-3, not bound", "sudo ethtool -L eth0 combined 2"},
		{"unbound, by the number of RX queues", func(_ *HostFacts, i *InterfaceFacts, p *Plan) {
			i.RSS, p.Queues = unknown[RSS]("the driver does not tell"), []int{0}
			i.Channels = known(Channels{Receive: 4, MaxReceive: 4})
		}, Problem, "queues", "queues 1-3, not bound", "sudo ethtool -L eth0 rx 1"},
		{"unbound, and the driver takes no orders", func(_ *HostFacts, i *InterfaceFacts, p *Plan) {
			i.RSS, i.Channels, p.Queues = unknown[RSS]("no"), unknown[Channels]("no"), []int{0}
		}, Problem, "queues", "queues 1-3, not bound", "ringmq serve --mode xdp --queues 0 --allow-unbound-queues --interface eth0 --listen :1883"},
		{"unbound, others are bound, and RSS cannot be told", func(_ *HostFacts, i *InterfaceFacts, p *Plan) {
			i.RSS, p.Queues = unknown[RSS]("no"), []int{1, 2, 3}
		}, Problem, "queues", "queue 0, not bound", "ringmq serve --mode xdp --queues 1-3 --allow-unbound-queues --interface eth0 --listen :1883"},
		{"unbound and allowed", func(_ *HostFacts, _ *InterfaceFacts, p *Plan) { p.Queues, p.AllowUnbound = []int{0, 1}, true },
			Warning, "queues", "queues 2-3, not bound|host's TCP", "sudo ethtool -X eth0 equal 2"},
		{"RSS leaves the others out", func(_ *HostFacts, i *InterfaceFacts, p *Plan) {
			i.RSS.Value.Slots, p.Queues = []int{64, 64, 0, 0}, []int{0, 1}
		}, OK, "queues", "is bound", ""},
		{"more queues than CPUs", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) { h.CPU.Allowed = known(CPUList{0, 1}) },
			Note, "queues", "4 queues share 2 CPUs", "sudo ethtool -L eth0 combined 2"},
		{"flow rule to a queue not bound", func(_ *HostFacts, i *InterfaceFacts, p *Plan) {
			i.Rules = known([]FlowRule{{Location: 7, Ports: []PortRange{{1883, 1883}}, Queue: 3}, {Location: 8, Ports: []PortRange{{80, 80}}, Queue: 3}})
			i.RSS.Value.Slots, p.Queues = []int{128, 0, 0, 0}, []int{0}
		}, Warning, "flow rules", "rule 7|TCP port 1883|queue 3", "sudo ethtool -N eth0 delete 7"},
		{"flow rule about everything", func(_ *HostFacts, i *InterfaceFacts, p *Plan) {
			i.Rules = known([]FlowRule{{Location: 9, Queue: 1}})
			i.RSS.Value.Slots, p.Queues = []int{128, 0, 0, 0}, []int{0}
		}, Warning, "flow rules", "rule 9|segments to queue 1", "sudo ethtool -N eth0 delete 9"},
		{"flow rule that drops", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) {
			i.Rules = known([]FlowRule{{Location: 3, Ports: []PortRange{{1883, 1883}}, Queue: -1}})
		}, Warning, "flow rules", "rule 3|drops TCP port 1883", "sudo ethtool -N eth0 delete 3"},
		{"LRO", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.Offloads.Value.LRO.On = true },
			Warning, "offloads", "large receive offload", "sudo ethtool -K eth0 lro off"},
		{"GRO in hardware", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.Offloads.Value.GROHardware.On = true },
			Warning, "offloads", "rx-gro-hw", "sudo ethtool -K eth0 rx-gro-hw off"},
		{"GRO in hardware, for ever", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.Offloads.Value.GROHardware = Offload{true, true} },
			Warning, "offloads", "rx-gro-hw", ""},
		{"checksums of frames", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.Offloads.Value.ReceiveFCS.On = true },
			Warning, "offloads", "rx-fcs|four bytes", "sudo ethtool -K eth0 rx-fcs off"},
		{"VLAN tags", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) {
			i.Offloads.Value.VLANReceive.On, i.VLANs = true, []string{"eth0.5", "eth0.6"}
		}, Warning, "offloads", "rx-vlan-offload|eth0.5 and eth0.6", "sudo ethtool -K eth0 rxvlan off"},
		{"NUMA", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.Queues.Value[1].CPUs = known(CPUList{1, 5}) },
			Warning, "numa", "interrupt 41 of queue 1|CPUs 1,5|NUMA node 0|CPUs 0-3", "echo 0-3 | sudo tee /proc/irq/41/smp_affinity_list"},
		{"two queues on one CPU", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.Queues.Value[2].CPUs = known(CPUList{0}) },
			Note, "interrupts", "queues 0 and 2|CPU 0", "echo 2 | sudo tee /proc/irq/42/smp_affinity_list"},
		{"two queues on one CPU, and none is free", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) {
			i.NodeCPUs, i.Queues.Value = known(CPUList{0, 1}), i.Queues.Value[:3]
			i.Queues.Value[2].CPUs = known(CPUList{0})
		}, Note, "interrupts", "queues 0 and 2|CPU 0", ""},
		{"traffic control", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.Ingress = known(2) },
			Warning, "firewall", "2 filters or programs", "sudo tc filter show dev eth0 ingress"},
	}
}

func firewallRows() []findingRow {
	const standard = "ringmq serve --mode standard --listen :1883"
	with := func(c Chain) func(*HostFacts, *InterfaceFacts, *Plan) {
		return func(h *HostFacts, _ *InterfaceFacts, _ *Plan) { h.Firewall.Chains = known([]Chain{c}) }
	}
	mqtt := []PortRange{{1880, 1890}}
	return []findingRow{
		{"rule", with(Chain{Tool: "nftables", Name: "inet filter input", Hook: "input", Policy: "accept", Rules: []Rule{{7, mqtt, "drop"}}}),
			Warning, "firewall", "nftables chain inet filter input has 1 rule about port 1883 (handle 7: drop)|does not meet", standard},
		{"rules and policy", with(Chain{Tool: "iptables", Name: "filter INPUT", Hook: "input", Policy: "drop", Rules: []Rule{{0, mqtt, "accept"}, {0, mqtt, ""}}}),
			Warning, "firewall", "iptables chain filter INPUT has 2 rules about port 1883 (accept and no verdict) and drops by policy", standard},
		{"policy", with(Chain{Tool: "nftables", Name: "inet filter input", Hook: "input", Policy: "drop", Blocks: 1}),
			Warning, "firewall", "drops by policy and 1 rule that block", standard},
		{"blocks of every port", with(Chain{Tool: "nftables", Name: "ip raw pre", Hook: "prerouting", Policy: "accept", Blocks: 3}),
			Note, "firewall", "3 rules that block whatever the port", "sudo nft list chain ip raw pre"},
		{"blocks of every port, by iptables", with(Chain{Tool: "ip6tables", Name: "raw PREROUTING", Hook: "prerouting", Policy: "accept", Blocks: 3}),
			Note, "firewall", "3 rules that block whatever the port", "sudo ip6tables -t raw -S PREROUTING"},
		{"another port", with(Chain{Tool: "nftables", Name: "inet filter input", Hook: "input", Policy: "accept", Rules: []Rule{{7, []PortRange{{22, 22}}, "accept"}}}),
			OK, "firewall", "no rule", ""},
		{"unreadable", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) {
			h.Firewall.Chains = unknown[[]Chain]("nft shows its rules to root only")
		},
			Note, "firewall", "port 1883 is unknown: nft shows", "sudo ringmq doctor --mode xdp --port 1883 --interface eth0"},
		{"unreadable to root", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) {
			h.Firewall.Chains, h.UserID = unknown[[]Chain]("neither nft nor iptables-save is installed"), 0
		}, Note, "firewall", "neither nft", "apt-get install nftables"},
		{"unreadable without iptables", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) {
			h.Firewall.Chains = unknown[[]Chain]("there may be rules made by iptables, and iptables-legacy-save is not installed: …")
		}, Note, "firewall", "iptables-legacy-save", "sudo apt-get install iptables"},
		{"unreadable without ipset", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) {
			h.Firewall.Chains = unknown[[]Chain]("there are rules that match sets, and ipset is not installed: …")
		}, Note, "firewall", "match sets", "sudo apt-get install ipset"},
		{"unreadable to root for another reason", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) {
			h.Firewall.Chains, h.UserID = unknown[[]Chain]("nft: exit status 1"), 0
		}, Note, "firewall", "nft: exit", "nft list ruleset"},
		{"IPsec", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) { h.Firewall.IPsecPolicies = known(1) },
			Warning, "ipsec", "1 IPsec policy for incoming", standard},
	}
}

func vethRows() []findingRow {
	return []findingRow{
		{"partial checksums", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { *i = goodVeth(); i.PeerChecksums = known(true) },
			Warning, "offloads", "peer veth1|without a checksum", "sudo ethtool -K veth1 tx off"},
		{"unbound queues, with the peer's", func(_ *HostFacts, i *InterfaceFacts, p *Plan) { *i, p.Queues = goodVeth(), []int{0, 1} },
			Problem, "queues", "queues 2-3", "sudo ethtool -L veth1 tx 2 && sudo ethtool -L veth0 rx 2"},
		{"unbound queues, the peer's are few", func(_ *HostFacts, i *InterfaceFacts, p *Plan) {
			*i, p.Queues = goodVeth(), []int{0, 1}
			i.PeerTransmitQueues = known(1)
		}, Problem, "queues", "queues 2-3", "sudo ethtool -L veth0 rx 2"},
		{"unbound queues, peer elsewhere", func(_ *HostFacts, i *InterfaceFacts, p *Plan) {
			*i, p.Queues = goodVeth(), []int{0, 1}
			i.Peer, i.PeerTransmitQueues = "", unknown[int]("elsewhere")
		}, Problem, "queues", "queues 2-3", "ringmq serve --mode xdp --queues 0-1 --allow-unbound-queues --interface veth0 --listen :1883"},
		{"peer elsewhere", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) {
			*i = goodVeth()
			i.Peer, i.PeerChecksums = "", unknown[bool]("its peer is in another network namespace")
		}, Note, "offloads", "unknown (its peer is in another|without a checksum", ""},
		{"peer down", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { *i = goodVeth(); i.Carrier = false },
			Warning, "link", "no carrier", "sudo ip link set dev veth1 up"},
	}
}

// TestFindingsOutnumbered: a veth refuses native XDP when its peer has more TX queues.
func TestFindingsOutnumbered(t *testing.T) {
	seen, unseen := goodVeth(), goodVeth()
	seen.PeerTransmitQueues = known(8)
	unseen.Peer, unseen.PeerTransmitQueues, unseen.Features = "", unknown[int]("elsewhere"), known(Features{})
	for _, c := range []struct {
		i             InterfaceFacts
		words, remedy string
	}{
		{seen, "its peer veth1 has 8 TX queues, and itself 4 RX queues", "sudo ethtool -L veth1 tx 4"},
		{unseen, "its peer has more TX queues", "ringmq serve --mode xdp --xdp-require any --interface veth0 --listen :1883"},
	} {
		got := Choose(goodHost(), []InterfaceFacts{c.i}, Plan{Wish: WishXDP})
		if got.Mode != None || !strings.Contains(got.Reason, c.words) || got.Remedy != c.remedy {
			t.Errorf("%+v", got)
		}
		if got := Choose(goodHost(), []InterfaceFacts{c.i}, Plan{Wish: WishXDP, Require: Generic}); got.Mode != Generic {
			t.Errorf("%+v", got)
		}
	}
}

func TestFindings(t *testing.T) {
	var rows []findingRow
	for _, more := range [][]findingRow{hostRows(), interfaceRows(), queueRows(), takenRows(), firewallRows(), vethRows()} {
		rows = append(rows, more...)
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			h, i, p := goodHost(), goodInterface(), Plan{Wish: WishXDP}
			r.change(&h, &i, &p)
			found := Findings(h, []InterfaceFacts{i}, p)
			matched := 0
			for _, f := range found {
				switch {
				case f.Severity == r.severity && f.Topic == r.topic:
					matched++
					checkFinding(t, r, f)
				case f.Severity != OK && i.Kind == "veth" && f.Topic == "driver":
				case f.Severity != OK:
					t.Errorf("unexpected: %+v", f)
				}
			}
			if matched != 1 {
				t.Errorf("%d findings of severity %s about %s, not one, in %+v", matched, r.severity, r.topic, found)
			}
		})
	}
}

func checkFinding(t *testing.T, r findingRow, f Finding) {
	t.Helper()
	for word := range strings.SplitSeq(r.words, "|") {
		if !strings.Contains(f.Says, word) {
			t.Errorf("no %q in %q", word, f.Says)
		}
	}
	if f.Remedy != r.remedy {
		t.Errorf("remedy %q, not %q", f.Remedy, r.remedy)
	}
	if (f.Remedy == "") != (f.Severity == OK || f.NoCommand != "") {
		t.Errorf("want either a command or why there is none: %+v", f)
	}
}

// TestFindingsOfAGoodHost: nothing but ok, and each topic once.
func TestFindingsOfAGoodHost(t *testing.T) {
	found := Findings(goodHost(), []InterfaceFacts{goodInterface()}, Plan{Wish: WishAuto})
	topics := map[string]bool{}
	for _, f := range found {
		if f.Severity != OK || topics[f.Topic] || f.Remedy != "" {
			t.Errorf("unexpected: %+v", f)
		}
		topics[f.Topic] = true
	}
	for _, topic := range []string{"kernel", "privileges", "driver", "mtu", "queues", "firewall"} {
		if !topics[topic] {
			t.Errorf("nothing about %s", topic)
		}
	}
}

// TestFindingsWithoutXDP: where nobody asks for XDP, nothing is said about it.
func TestFindingsWithoutXDP(t *testing.T) {
	bad := goodInterface()
	bad.MTU, bad.Up = 9000, false
	h := goodHost()
	h.Capabilities, h.Socket = nil, Trial{Denied: true}
	for name, found := range map[string][]Finding{
		"standard":         Findings(h, []InterfaceFacts{bad}, Plan{Wish: WishStandard}),
		"auto, none named": Findings(h, nil, Plan{}),
	} {
		if len(found) != 0 || found == nil {
			t.Errorf("%s: %+v", name, found)
		}
	}
}

// TestFindingsOrder: what stops comes first.
func TestFindingsOrder(t *testing.T) {
	h, i := goodHost(), goodInterface()
	h.Memory.THP, i.Carrier, i.MTU = known("always"), false, 9000
	var order []string
	for _, f := range Findings(h, []InterfaceFacts{i}, Plan{Wish: WishXDP}) {
		if len(order) == 0 || order[len(order)-1] != string(f.Severity) {
			order = append(order, string(f.Severity))
		}
	}
	if got := strings.Join(order, " "); got != "problem warning note ok" {
		t.Errorf("order %s", got)
	}
}

func TestConntrackIsMentionedBesideRules(t *testing.T) {
	h := goodHost()
	h.Firewall.Conntrack = known(12)
	count := func() (n int) {
		for _, f := range Findings(h, []InterfaceFacts{goodInterface()}, Plan{Wish: WishXDP}) {
			if strings.Contains(f.Says, "conntrack follows 12 connections") {
				n++
			}
		}
		return n
	}
	if n := count(); n != 0 {
		t.Errorf("%d times without a rule", n)
	}
	h.Firewall.Chains = known([]Chain{{Tool: "nftables", Name: "inet filter input", Hook: "input", Policy: "drop"}})
	if n := count(); n != 1 {
		t.Errorf("%d times beside a rule", n)
	}
}
