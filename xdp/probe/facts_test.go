package probe

// The facts of a host and an interface where everything is as XDP wants it; tests change what they are about.

func goodHost() HostFacts {
	h := HostFacts{
		System: "linux", Kernel: "6.12.3", Architecture: "amd64", Executable: "/usr/bin/ringmq", UserID: 990,
		LockedMemory: Limit{8 << 20, 8 << 20}, Descriptors: Limit{65536, 1 << 20},
		Socket: Trial{Works: true}, Program: Trial{Works: true}, Map: Trial{Works: true},
		Settings: Settings{BPFJIT: known(1), FirstUnprivilegedPort: known(1024)},
		CPU: CPUFacts{
			Online: known(CPUList{0, 1, 2, 3, 4, 5, 6, 7}), Allowed: known(CPUList{0, 1, 2, 3, 4, 5, 6, 7}),
			Governors: known([]string{"performance"}),
		},
		Memory: MemoryFacts{THP: known("madvise")},
	}
	for _, name := range []string{"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON", "CAP_IPC_LOCK"} {
		h.Capabilities = append(h.Capabilities, Capability{name, true})
	}
	for _, name := range []string{"CAP_SYS_ADMIN", "CAP_NET_BIND_SERVICE"} {
		h.Capabilities = append(h.Capabilities, Capability{name, false})
	}
	return h
}

func goodInterface() InterfaceFacts {
	i := InterfaceFacts{
		Name: "eth0", Index: 2, Kind: "device", Up: true, Carrier: true, MTU: 1500, Driver: "ice",
		Addresses: []string{"192.0.2.1/24"},
		Features:  known(Features{Basic: true, Redirect: true, ZeroCopy: true}),
		Channels:  known(Channels{Combined: 4, MaxCombined: 8}),
		RSS:       known(RSS{Slots: []int{32, 32, 32, 32}, HashKeyBytes: 40, HashFunction: "toeplitz"}),
		NUMANode:  known(0), NodeCPUs: known(CPUList{0, 1, 2, 3}),
		PeerChecksums: unknown[bool]("it is no veth"),
	}
	var queues []Queue
	for n := range 4 {
		queues = append(queues, Queue{Index: n, IRQ: known(40 + n), CPUs: known(CPUList{n})})
	}
	i.Queues = known(queues)
	return i
}

func goodVeth() InterfaceFacts {
	i := goodInterface()
	i.Name, i.Kind, i.Driver, i.Peer = "veth0", "veth", "veth", "veth1"
	i.Features = known(Features{Basic: true, Redirect: true})
	i.Channels = known(Channels{Receive: 4, Transmit: 4, MaxReceive: 4, MaxTransmit: 4})
	i.RSS = unknown[RSS]("the driver does not tell")
	i.NUMANode, i.NodeCPUs = unknown[int]("no device"), unknown[CPUList]("no device")
	i.PeerChecksums, i.PeerTransmitQueues = known(false), known(4)
	for n := range i.Queues.Value {
		i.Queues.Value[n].IRQ, i.Queues.Value[n].CPUs = unknown[int]("no interrupts"), unknown[CPUList]("no interrupts")
	}
	return i
}

// lose takes a capability away.
func lose(h *HostFacts, name string) {
	for n := range h.Capabilities {
		if h.Capabilities[n].Name == name {
			h.Capabilities[n].Held = false
		}
	}
}

func gain(h *HostFacts, name string) {
	for n := range h.Capabilities {
		if h.Capabilities[n].Name == name {
			h.Capabilities[n].Held = true
		}
	}
}
