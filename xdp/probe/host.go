package probe

// HostFacts is what is true of the whole host, and of this process.
type HostFacts struct {
	System       string `json:"system"`       // as GOOS
	Kernel       string `json:"kernel"`       // release, as uname -r gives it
	Architecture string `json:"architecture"` // as GOARCH

	Executable    string       `json:"executable"` // path of this program, for remedies
	UserID        int          `json:"user_id"`    // effective
	UserNamespace bool         `json:"user_namespace"`
	Capabilities  []Capability `json:"capabilities"`

	LockedMemory Limit `json:"locked_memory_bytes"` // RLIMIT_MEMLOCK
	Descriptors  Limit `json:"descriptors"`         // RLIMIT_NOFILE

	Socket  Trial `json:"xdp_socket_trial"`  // socket(AF_XDP)
	Program Trial `json:"xdp_program_trial"` // load an XDP program of two instructions
	Map     Trial `json:"xskmap_trial"`      // create an XSKMAP

	Settings Settings      `json:"settings"`
	CPU      CPUFacts      `json:"cpu"`
	Memory   MemoryFacts   `json:"memory"`
	Firewall FirewallFacts `json:"firewall"` // as Firewall gives it

	Listeners Fact[[]Listener] `json:"listeners"` // on the broker's port, as Listeners gives them
}

// Capability is one that a mode of ours wants, and whether this process has it in its effective set.
type Capability struct {
	Name string `json:"name"` // as capabilities(7) writes it
	Held bool   `json:"held"`
}

// Limit is a resource limit; -1 is no limit.
type Limit struct {
	Soft int64 `json:"soft"`
	Hard int64 `json:"hard"`
}

// Unlimited is the value of a Limit that does not limit.
const Unlimited = -1

// covers says that n fits under the soft limit.
func (l Limit) covers(n int64) bool { return l.Soft == Unlimited || l.Soft >= n }

// Trial is something that was tried and undone.
type Trial struct {
	Works  bool   `json:"works"`
	Denied bool   `json:"denied"`          // the kernel said EPERM or EACCES
	Error  string `json:"error,omitempty"` // why not
}

// Settings are values of sysctl.
type Settings struct {
	BPFJIT                Fact[int] `json:"bpf_jit_enable"`
	BPFJITHarden          Fact[int] `json:"bpf_jit_harden"`
	UnprivilegedBPF       Fact[int] `json:"unprivileged_bpf_disabled"`
	BusyPoll              Fact[int] `json:"busy_poll_us"`
	BusyRead              Fact[int] `json:"busy_read_us"`
	FirstUnprivilegedPort Fact[int] `json:"ip_unprivileged_port_start"`
}

// CPUFacts names processors by their numbers.
type CPUFacts struct {
	Online     Fact[CPUList]  `json:"online"`
	Allowed    Fact[CPUList]  `json:"allowed"` // to this process
	Isolated   Fact[CPUList]  `json:"isolated"`
	SMT        Fact[bool]     `json:"smt"`
	Governors  Fact[[]string] `json:"governors"` // each once
	NUMANodes  Fact[CPUList]  `json:"numa_nodes"`
	IRQBalance Fact[bool]     `json:"irqbalance"` // the daemon runs
}

// MemoryFacts is about the memory of the host.
type MemoryFacts struct {
	TotalBytes     Fact[Bytes]       `json:"total_bytes"`
	AvailableBytes Fact[Bytes]       `json:"available_bytes"`
	HugePages      Fact[[]HugePages] `json:"huge_pages"`
	THP            Fact[string]      `json:"transparent_huge_pages"` // always, madvise or never
}

// HugePages is the pool of one size.
type HugePages struct {
	SizeBytes Bytes `json:"size_bytes"`
	Total     int   `json:"total"`
	Free      int   `json:"free"`
}

// FirewallFacts is what stands between the NIC and the host's TCP, and what segments that XDP takes never meet.
type FirewallFacts struct {
	Chains        Fact[[]Chain] `json:"chains"`         // of nftables and iptables together
	Conntrack     Fact[int]     `json:"conntrack"`      // connections tracked; 0 where conntrack is not loaded
	IPsecPolicies Fact[int]     `json:"ipsec_policies"` // XFRM policies for what comes in
}

// Chain is one chain of a packet filter that sees received packets, or may be jumped to by one that does.
type Chain struct {
	Tool   string `json:"tool"`             // nftables, iptables or ip6tables
	Name   string `json:"name"`             // family, table and chain, as the tool writes them
	Hook   string `json:"hook,omitempty"`   // ingress, prerouting or input; empty for a chain that others jump to
	Policy string `json:"policy,omitempty"` // accept or drop; empty where Hook is
	Rules  []Rule `json:"rules,omitempty"`  // those that name TCP destination ports
	Blocks int    `json:"blocks,omitempty"` // rules that drop or reject without naming a port or a protocol other than TCP
}

// Rule is a rule about TCP destination ports.
type Rule struct {
	Handle  int         `json:"handle,omitempty"` // of nftables
	Ports   []PortRange `json:"ports"`
	Verdict string      `json:"verdict,omitempty"` // the tool's word: accept, drop, reject, jump …
}

// PortRange is both ends included.
type PortRange struct {
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
}

// names says that the rule is about the port.
func (r Rule) names(port uint16) bool {
	for _, p := range r.Ports {
		if p.First <= port && port <= p.Last {
			return true
		}
	}
	return false
}
