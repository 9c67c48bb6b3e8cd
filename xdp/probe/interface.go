package probe

import "slices"

// InterfaceFacts is what is true of one network interface.
type InterfaceFacts struct {
	Name      string   `json:"name"`
	Index     int      `json:"index"`
	Kind      string   `json:"kind"` // device for hardware, else as ip-link says it: veth, bond, vlan, bridge …
	Up        bool     `json:"up"`
	Carrier   bool     `json:"carrier"`
	MTU       int      `json:"mtu_bytes"`
	Address   string   `json:"link_address"`
	Addresses []string `json:"addresses"`                  // IP addresses with prefix length
	Master    string   `json:"master,omitempty"`           // the bond or bridge that it belongs to
	Inherited []string `json:"master_addresses,omitempty"` // IP addresses of that one
	Lower     []string `json:"lower,omitempty"`            // the interfaces below a bond, bridge or VLAN; the peer of a veth is none
	VLANs     []string `json:"vlans,omitempty"`            // VLAN interfaces above this one
	Peer      string   `json:"peer,omitempty"`             // of a veth, when it is in this namespace
	Driver    string   `json:"driver"`                     // empty when it has none
	Bus       string   `json:"bus,omitempty"`              // address of the device
	Version   string   `json:"version,omitempty"`          // of the driver

	Features Fact[Features] `json:"xdp_features"`
	// NativeRefused is why the driver refuses native XDP on this device, whatever its features; empty when we know of nothing.
	NativeRefused string `json:"native_xdp_refused,omitempty"`

	Programs []Program        `json:"xdp_programs"`
	Channels Fact[Channels]   `json:"channels"`
	Rings    Fact[Rings]      `json:"rings"`
	RSS      Fact[RSS]        `json:"rss"`
	Rules    Fact[[]FlowRule] `json:"flow_rules"`
	Offloads Fact[Offloads]   `json:"offloads"`
	Ingress  Fact[int]        `json:"tc_ingress"` // filters and programs of traffic control on received packets

	// PeerTransmitQueues is how many TX queues the veth's peer has: with more than our RX queues, veth refuses native XDP.
	PeerTransmitQueues Fact[int] `json:"peer_tx_queues"`

	// PeerChecksums says that the veth's peer leaves checksums to be filled in later (transmit checksum offload).
	PeerChecksums Fact[bool] `json:"peer_tx_checksum"`

	NUMANode Fact[int]     `json:"numa_node"` // -1 when the device has none
	NodeCPUs Fact[CPUList] `json:"numa_node_cpus"`
	Queues   Fact[[]Queue] `json:"queues"` // RX queues
}

// Features are the driver's abilities, as the kernel's netdev family lists them.
type Features struct {
	Basic            bool `json:"basic"`     // native XDP
	Redirect         bool `json:"redirect"`  // XDP_REDIRECT, without which there is no AF_XDP
	ZeroCopy         bool `json:"zero_copy"` // AF_XDP in zero-copy mode
	Offload          bool `json:"offload"`
	ReceiveScatter   bool `json:"receive_scatter"`    // packets of several frames
	ZeroCopySegments int  `json:"zero_copy_segments"` // most frames of a packet sent in zero-copy mode
}

// Program is an XDP program on an interface.
type Program struct {
	ID     uint32       `json:"id"`
	Mode   string       `json:"mode"`    // native, generic or offload
	Name   Fact[string] `json:"name"`    // as its loader gave it, at most 15 bytes
	LinkID Fact[uint32] `json:"link_id"` // of the bpf_link that holds it, 0 when it was attached by netlink

	// Holder has the bpf_link; none when no process has it, or there is no link.
	Holder Fact[Process] `json:"holder,omitzero"`
}

// ProgramName is that of our own steering program.
const ProgramName = "ringmq_steer"

// isOurs says that a ringmq has loaded it.
func (p Program) isOurs() bool { return p.Name.Value == ProgramName }

// isLeft says that nobody has it any more, as far as we may look: a ringmq's program goes with its process.
func (p Program) isLeft() bool { return p.Holder.Known() && p.Holder.Value.ID == 0 }

// steeredBy is the program of a ringmq that runs, and whether there is one.
func (i InterfaceFacts) steeredBy() (Program, bool) {
	at := slices.IndexFunc(i.Programs, func(p Program) bool { return p.isOurs() && !p.isLeft() })
	if at < 0 {
		return Program{}, false
	}
	return i.Programs[at], true
}

// Channels are numbers of queues, as ethtool -l gives them.
type Channels struct {
	Combined    int `json:"combined"`
	Receive     int `json:"rx"`
	Transmit    int `json:"tx"`
	MaxCombined int `json:"max_combined"`
	MaxReceive  int `json:"max_rx"`
	MaxTransmit int `json:"max_tx"`
}

// Rings are descriptors per queue, as ethtool -g gives them.
type Rings struct {
	Receive     int `json:"rx"`
	Transmit    int `json:"tx"`
	MaxReceive  int `json:"max_rx"`
	MaxTransmit int `json:"max_tx"`
}

// RSS is the default context of receive-side scaling.
type RSS struct {
	Slots        []int  `json:"slots_per_queue"` // by queue: how many slots of the indirection table name it
	HashKeyBytes int    `json:"hash_key_bytes"`
	HashFunction string `json:"hash_function,omitempty"` // toeplitz, xor or crc32
}

// FlowRule is a rule of the NIC that overrides RSS, as ethtool -n gives it.
type FlowRule struct {
	Location int         `json:"location"`
	Ports    []PortRange `json:"ports,omitempty"` // TCP destination ports; none means that it is not about these alone
	Queue    int         `json:"queue"`           // where it sends, -1 when it drops or wakes
}

// Offloads are features of the NIC that concern us.
type Offloads struct {
	LRO           Offload `json:"large_receive_offload"`
	GROHardware   Offload `json:"rx_gro_hw"`
	VLANReceive   Offload `json:"rx_vlan_offload"` // the NIC takes VLAN tags off before XDP sees them
	ReceiveFCS    Offload `json:"rx_fcs"`
	TransmitCheck Offload `json:"tx_checksum"`
}

// Offload is one feature of the NIC.
type Offload struct {
	On    bool `json:"on"`
	Fixed bool `json:"fixed"` // the driver does not let anybody change it
}

// Queue is one RX queue.
type Queue struct {
	Index  int           `json:"index"`
	IRQ    Fact[int]     `json:"irq"`
	CPUs   Fact[CPUList] `json:"cpus"` // that may take its interrupt
	RPS    CPUList       `json:"rps_cpus,omitempty"`
	XPS    CPUList       `json:"xps_cpus,omitempty"` // of the TX queue of the same number
	Socket bool          `json:"xdp_socket"`         // an AF_XDP socket is bound to it, as far as the kernel tells (Linux 6.15)

	Holder Fact[Process] `json:"xdp_socket_holder,omitzero"` // has that socket, as far as the kernel tells (CONFIG_XDP_SOCKETS_DIAG)
}

// ReceiveQueues is how many RX queues there are; it is unknown only when neither sysfs nor the driver tells.
func (i InterfaceFacts) ReceiveQueues() Fact[int] {
	switch {
	case i.Queues.Known():
		return known(len(i.Queues.Value))
	case i.Channels.Known():
		return known(i.Channels.Value.Combined + i.Channels.Value.Receive)
	}
	return unknown[int](i.Queues.Unknown)
}

// Unbound are the queues outside the given ones that RSS can deliver to; none given means all, so that nothing is unbound.
// Where the driver does not tell its indirection table, RSS can deliver to every queue.
func (i InterfaceFacts) Unbound(bound []int) []int {
	if len(bound) == 0 {
		return nil
	}
	var unbound []int
	if i.RSS.Known() && len(i.RSS.Value.Slots) > 0 {
		for queue, slots := range i.RSS.Value.Slots {
			if slots > 0 && !slices.Contains(bound, queue) {
				unbound = append(unbound, queue)
			}
		}
		return unbound
	}
	for queue := range i.ReceiveQueues().Value {
		if !slices.Contains(bound, queue) {
			unbound = append(unbound, queue)
		}
	}
	return unbound
}

// Strongest is the strongest mode that the driver offers. It is unknown where the kernel does not list a driver's
// abilities (before Linux 6.3): there only a bind tells.
func (i InterfaceFacts) Strongest() Fact[Mode] {
	switch f := i.Features; {
	case i.NativeRefused != "" || i.isOutnumbered():
		return known(Generic)
	case !f.Known():
		return unknown[Mode](f.Unknown)
	case !f.Value.Basic || !f.Value.Redirect:
		return known(Generic)
	case !f.Value.ZeroCopy:
		return known(Native)
	}
	return known(ZeroCopy)
}

// isOutnumbered says that a veth's peer has more TX queues than it has RX queues (veth_xdp_set, drivers/net/veth.c).
func (i InterfaceFacts) isOutnumbered() bool {
	peer, own := i.PeerTransmitQueues, i.ReceiveQueues()
	return i.Kind == "veth" && peer.Known() && own.Known() && peer.Value > own.Value
}

// title is the interface with its driver, for sentences.
func (i InterfaceFacts) title() string {
	if i.Driver == "" {
		return i.Name + " (no driver)"
	}
	return i.Name + " (" + i.Driver + ")"
}
