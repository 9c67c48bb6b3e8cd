package probe

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

func (j *judge) judgeInterface(i InterfaceFacts) {
	j.at = i.Name
	if !j.isLowest(i) {
		return // Nothing of what follows would be about the interface that XDP goes to.
	}
	j.state(i)
	j.addresses(i)
	j.programs(i)
	j.sockets(i)
	if _, isSteered := i.steeredBy(); !isSteered {
		j.driver(i) // Else the driver has shown what it can do.
	}
	j.mtu(i)
	j.queues(i)
	j.flowRules(i)
	j.offloads(i)
	j.interrupts(i)
	j.ingress(i)
}

// isLowest refuses interfaces that are made of others, where neither native XDP nor its queues are.
func (j *judge) isLowest(i InterfaceFacts) bool {
	compound := []string{"bond", "bridge", "vlan", "team", "macvlan", "macvtap", "ipvlan", "openvswitch", "vxlan", "geneve", "wireguard"}
	if !slices.Contains(compound, i.Kind) {
		return true
	}
	if len(i.Lower) == 0 {
		j.add(Problem, "interface", "", "a %s has no queues of its own: XDP belongs on the interface of the NIC", i.Kind).
			without("it is made of no interface here")
		return false
	}
	j.add(Problem, "interface", serveCommand("--mode "+string(j.plan.Wish), i.Lower, j.plan),
		"a %s is made of %s: XDP belongs there", i.Kind, and(i.Lower))
	return false
}

func (j *judge) state(i InterfaceFacts) {
	switch {
	case !i.Up:
		j.add(Problem, "link", j.as("ip link set dev "+i.Name+" up"), "the interface is down")
	case !i.Carrier:
		remedy := ""
		if i.Peer != "" {
			remedy = j.as("ip link set dev " + i.Peer + " up")
		}
		j.add(Warning, "link", remedy, "the interface is up and has no carrier: look at the cable, the switch port, or the peer").
			without("the cable, the switch port or the peer is not this host's to change")
	}
}

func (j *judge) addresses(i InterfaceFacts) {
	switch {
	case len(i.Addresses) > 0:
	case len(i.Inherited) > 0:
		remedy := fmt.Sprintf("ringmq serve --mode %s --interface %s", j.plan.Wish, i.Name)
		for _, prefix := range i.Inherited {
			if p, err := netip.ParsePrefix(prefix); err == nil && !p.Addr().IsLinkLocalUnicast() {
				remedy += " --listen " + netip.AddrPortFrom(p.Addr(), j.plan.Port).String()
			}
		}
		j.add(Warning, "addresses", remedy, "the interface belongs to %s and has no address of its own: name the addresses of %s with --listen", i.Master, i.Master)
	default:
		name := i.Name
		if i.Master != "" {
			name = i.Master // where its own would not be asked for
		}
		j.add(Warning, "addresses", j.as("ip address add ADDRESS/LENGTH dev "+name), "there is no IP address on %s, so that there is nothing to steer", name)
	}
}

// offered is the strongest mode of an interface that the plan lets us try.
func (p Plan) offered(i InterfaceFacts) Fact[Mode] {
	f := i.Strongest()
	f.Value = min(f.Value, p.Limit)
	return f
}

// driver compares what the driver offers with what is asked for.
func (j *judge) driver(i InterfaceFacts) {
	strongest := j.plan.offered(i)
	auto := j.plan.Wish == WishAuto
	why := i.shortcoming(j.plan)
	generic := j.serve("--mode xdp --xdp-require any")
	switch {
	case !strongest.Known():
		j.add(Note, "driver", "", "whether %s has zero-copy is unknown (%s): only opening it tells", i.title(), strongest.Unknown).
			without("the broker's log says which mode it got")
	case strongest.Value == ZeroCopy:
		j.add(OK, "driver", "", "%s offers %v", i.title(), strongest.Value)
	case strongest.Value >= j.plan.Require:
		j.add(Note, "driver", "", "%s: %v is what is left", why, strongest.Value).without("a driver has it or not; that mode is enough for what is asked")
	case auto && strongest.Value == Native:
		j.add(Warning, "driver", j.serve("--mode xdp"), "%s, and mode auto takes no less: native copy mode needs --mode xdp", why)
	case auto:
		j.add(Warning, "driver", generic, "%s: generic mode needs --mode xdp --xdp-require any, and gains nothing", why)
	case i.isOutnumbered():
		j.add(Problem, "driver", j.as(fmt.Sprintf("ethtool -L %s tx %d", i.Peer, i.ReceiveQueues().Value)), "%s", why)
	case strongest.Value == Native:
		j.add(Problem, "driver", j.serve("--mode xdp"), "%s, and --xdp-require zerocopy takes no less", why)
	default:
		j.add(Problem, "driver", generic, "%s: only generic mode works on it, which gains nothing", why)
	}
}

// shortcoming is what keeps the interface from zero-copy.
func (i InterfaceFacts) shortcoming(plan Plan) string {
	switch {
	case plan.Limit < i.Strongest().Value:
		return fmt.Sprintf("%s is limited to %v by --xdp-limit", i.title(), plan.Limit)
	case i.NativeRefused != "":
		return i.title() + " refuses native XDP: " + i.NativeRefused
	case i.isOutnumbered():
		return fmt.Sprintf("%s refuses native XDP: its peer %s has %s, and itself %s", i.title(), i.Peer,
			count(i.PeerTransmitQueues.Value, "TX queue"), count(i.ReceiveQueues().Value, "RX queue"))
	case i.Strongest().Value < Native && i.Kind == "veth":
		return i.title() + " has no native XDP: its peer has more TX queues than itself RX queues"
	case i.Strongest().Value < Native:
		return i.title() + " has no native XDP"
	}
	return i.title() + " has no zero-copy"
}

const (
	ethernetMTU  = 1500
	largestFrame = 4096 // of package xdp: a page

	// vethMTU is the largest that veth takes with a program which wants packets in one piece: a page without headroom,
	// struct skb_shared_info and the Ethernet header (veth_xdp_set, drivers/net/veth.c).
	vethMTU = 4096 - frameHeadroomBytes - 320 - 14
)

func (j *judge) mtu(i InterfaceFacts) {
	largest := j.plan.MaxMTU()
	if i.MTU <= largest {
		j.add(OK, "mtu", "", "packets of %d bytes fit into frames of %d", i.MTU, j.plan.FrameSizeBytes)
		return
	}
	f := j.add(Problem, "mtu", j.as(fmt.Sprintf("ip link set dev %s mtu %d", i.Name, ethernetMTU)),
		"the MTU is %d, and a frame of %d bytes holds an IP packet of at most %d", i.MTU, j.plan.FrameSizeBytes, largest)
	larger := Plan{FrameSizeBytes: largestFrame}
	if i.MTU <= larger.MaxMTU() && !(i.Kind == "veth" && i.MTU > vethMTU) {
		f.or("frame_size = %d in the table [xdp] of the configuration, for packets of up to %d", largestFrame, larger.MaxMTU())
	}
}

func (j *judge) queues(i InterfaceFacts) {
	queues := i.ReceiveQueues()
	if !queues.Known() {
		j.add(Note, "queues", "", "how many queues there are is unknown: %s", queues.Unknown).
			without("opening the interface tells")
		return
	}
	for _, bound := range j.plan.Queues {
		if bound >= queues.Value {
			f := j.add(Problem, "queues", j.serve("--mode "+string(j.plan.Wish)), "queue %d does not exist: there are %s, counted from 0; leave --queues out to bind all",
				bound, count(queues.Value, "queue"))
			if more := j.channelsRemedy(i, slices.Max(j.plan.Queues)+1); more != "" {
				f.or("%s", more)
			}
			return
		}
	}
	unbound := i.Unbound(j.plan.Queues)
	switch {
	case len(unbound) == 0:
		j.add(OK, "queues", "", "every queue that RSS delivers to is bound")
	case j.plan.AllowUnbound:
		j.add(Warning, "queues", j.rssRemedy(i, j.plan.Queues), "RSS delivers to %s, not bound: the host's TCP serves what arrives there", queueList(unbound))
	default:
		remedy := j.rssRemedy(i, j.plan.Queues)
		if remedy == "" {
			remedy = j.serve(fmt.Sprintf("--mode xdp --queues %v --allow-unbound-queues", CPUList(j.plan.Queues)))
		}
		j.add(Problem, "queues", remedy, "RSS delivers to %s, not bound: part of the clients would miss XDP", queueList(unbound))
	}
	j.crowd(i, queues.Value)
}

// crowd compares the queues, each with a shard of its own, with the CPUs.
func (j *judge) crowd(i InterfaceFacts, queues int) {
	allowed := len(j.host.CPU.Allowed.Value)
	if allowed > 0 && len(j.plan.Queues) == 0 && queues > allowed {
		j.add(Note, "queues", j.channelsRemedy(i, allowed), "%s share %s: fewer queues save switches between their shards", count(queues, "queue"), count(allowed, "CPU")).
			without("the driver does not change how many there are, or not from here")
	}
}

func queueList(queues []int) string {
	if len(queues) == 1 {
		return fmt.Sprintf("queue %d", queues[0])
	}
	return "queues " + CPUList(queues).String()
}

// rssRemedy keeps RSS to the bound queues: by its indirection table where there is one, else by the number of queues.
func (j *judge) rssRemedy(i InterfaceFacts, bound []int) string {
	bound = slices.Clone(bound)
	slices.Sort(bound)
	isPrefix := len(bound) > 0 && bound[len(bound)-1] == len(bound)-1
	switch {
	case i.RSS.Known() && isPrefix:
		return j.as(fmt.Sprintf("ethtool -X %s equal %d", i.Name, len(bound)))
	case i.RSS.Known():
		var weights strings.Builder
		for queue := range i.ReceiveQueues().Value {
			weight := 0
			if slices.Contains(bound, queue) {
				weight = 1
			}
			fmt.Fprintf(&weights, " %d", weight)
		}
		return j.as(fmt.Sprintf("ethtool -X %s weight%s", i.Name, weights.String()))
	case isPrefix:
		return j.channelsRemedy(i, len(bound))
	}
	return ""
}

// channelsRemedy sets the number of queues in the driver's own words. A veth may have no fewer than its peer sends to.
func (j *judge) channelsRemedy(i InterfaceFacts, queues int) string {
	c := i.Channels
	switch {
	case !c.Known() || i.Kind == "veth" && i.Peer == "":
		return ""
	case c.Value.MaxCombined >= queues && c.Value.Combined > 0:
		return j.as(fmt.Sprintf("ethtool -L %s combined %d", i.Name, queues))
	case c.Value.MaxReceive >= queues:
		command := j.as(fmt.Sprintf("ethtool -L %s rx %d", i.Name, queues))
		if i.Kind == "veth" && !(i.PeerTransmitQueues.Known() && i.PeerTransmitQueues.Value <= queues) {
			command = j.as(fmt.Sprintf("ethtool -L %s tx %d", i.Peer, queues)) + " && " + command
		}
		return command
	}
	return ""
}

// flowRules finds rules of the NIC that lead past RSS.
func (j *judge) flowRules(i InterfaceFacts) {
	for _, r := range i.Rules.Value {
		remedy := j.as(fmt.Sprintf("ethtool -N %s delete %d", i.Name, r.Location))
		about := "segments"
		if len(r.Ports) > 0 {
			if !(Rule{Ports: r.Ports}).names(j.plan.Port) {
				continue
			}
			about = fmt.Sprintf("TCP port %d", j.plan.Port)
		}
		switch {
		case r.Queue < 0 && len(r.Ports) > 0:
			j.add(Warning, "flow rules", remedy, "rule %d of the NIC drops %s", r.Location, about)
		case r.Queue >= 0 && len(j.plan.Queues) > 0 && !slices.Contains(j.plan.Queues, r.Queue):
			j.add(Warning, "flow rules", remedy, "rule %d of the NIC sends %s to queue %d, which is not bound", r.Location, about, r.Queue)
		}
	}
}

func (j *judge) offloads(i InterfaceFacts) {
	const fixed = "the driver lets nobody change it"
	o := i.Offloads.Value
	off := func(feature string, o Offload) string {
		if o.Fixed {
			return ""
		}
		return j.as(fmt.Sprintf("ethtool -K %s %s off", i.Name, feature))
	}
	if o.LRO.On {
		j.add(Warning, "offloads", off("lro", o.LRO), "large receive offload is on: drivers refuse XDP with it or merge segments into more than a frame").
			without(fixed)
	}
	if o.GROHardware.On {
		j.add(Warning, "offloads", off("rx-gro-hw", o.GROHardware), "the NIC merges segments (rx-gro-hw): drivers refuse XDP with it or merge into more than a frame").
			without(fixed)
	}
	if o.ReceiveFCS.On {
		j.add(Warning, "offloads", off("rx-fcs", o.ReceiveFCS), "the NIC leaves the frame check sequence on packets (rx-fcs): each is four bytes longer than its frame may be").
			without(fixed)
	}
	if o.VLANReceive.On && len(i.VLANs) > 0 {
		j.add(Warning, "offloads", off("rxvlan", o.VLANReceive), "the NIC takes VLAN tags off before XDP sees them (rx-vlan-offload), and there is %s: "+
			"segments of that VLAN look untagged", and(i.VLANs)).without(fixed)
	}
	j.peerChecksums(i)
}

// peerChecksums is about veth, where the peer's TCP leaves checksums to a NIC that never comes.
func (j *judge) peerChecksums(i InterfaceFacts) {
	if i.Kind != "veth" {
		return
	}
	const consequence = "over a veth its segments arrive without a checksum, and netstack drops them"
	switch {
	case !i.PeerChecksums.Known():
		j.add(Note, "offloads", "", "whether the peer leaves checksums to its NIC is unknown (%s): if so, %s", i.PeerChecksums.Unknown, consequence).
			without("it is the peer's side that prevents it, with ethtool -K NAME tx off there")
	case i.PeerChecksums.Value:
		j.add(Warning, "offloads", j.as(fmt.Sprintf("ethtool -K %s tx off", i.Peer)), "the peer %s leaves checksums to its NIC: %s", i.Peer, consequence)
	}
}

// interrupts compares the CPUs that take each queue's interrupt with the NUMA node and with each other.
func (j *judge) interrupts(i InterfaceFacts) {
	taken := map[int]int{} // CPU that takes a queue's interrupt alone → queue
	for _, q := range i.Queues.Value {
		if !q.IRQ.Known() || !q.CPUs.Known() || len(q.CPUs.Value) == 0 {
			continue
		}
		if node := i.NodeCPUs; node.Known() && len(node.Value) > 0 && !contains(node.Value, q.CPUs.Value) {
			j.add(Warning, "numa", j.affinity(q, node.Value.String()), "the interrupt %d of queue %d goes to CPUs %v, and the NIC is at NUMA node %d with CPUs %v",
				q.IRQ.Value, q.Index, q.CPUs.Value, i.NUMANode.Value, node.Value)
		}
		if len(q.CPUs.Value) != 1 {
			continue
		}
		cpu := q.CPUs.Value[0]
		if first, shared := taken[cpu]; shared {
			j.add(Note, "interrupts", j.affinity(q, j.freeCPU(i)), "queues %d and %d both interrupt CPU %d", first, q.Index, cpu).
				without("every other CPU of the node takes a queue's interrupt already")
			continue
		}
		taken[cpu] = q.Index
	}
}

func (j *judge) affinity(q Queue, cpus string) string {
	if cpus == "" {
		return ""
	}
	return j.write(cpus, fmt.Sprintf("/proc/irq/%d/smp_affinity_list", q.IRQ.Value))
}

// freeCPU is one that takes no queue's interrupt alone, at the NIC's node if there is one; empty when none is left.
func (j *judge) freeCPU(i InterfaceFacts) string {
	candidates := j.host.CPU.Online.Value
	if i.NodeCPUs.Known() && len(i.NodeCPUs.Value) > 0 {
		candidates = i.NodeCPUs.Value
	}
	for _, cpu := range candidates {
		used := slices.ContainsFunc(i.Queues.Value, func(q Queue) bool { return slices.Equal(q.CPUs.Value, CPUList{cpu}) })
		if !used {
			return fmt.Sprint(cpu)
		}
	}
	return ""
}

// contains says that every one of the parts is in the whole.
func contains(whole, parts []int) bool {
	return !slices.ContainsFunc(parts, func(n int) bool { return !slices.Contains(whole, n) })
}

func (j *judge) ingress(i InterfaceFacts) {
	if n := i.Ingress.Value; i.Ingress.Known() && n > 0 {
		j.add(Warning, "firewall", j.as(fmt.Sprintf("tc filter show dev %s ingress", i.Name)), "traffic control has %s on received packets: what XDP takes does not meet them (look at them)",
			plural(n, "filter or program", "filters or programs"))
	}
}
