package bpf

import (
	"fmt"
	"net/netip"
	"strconv"
)

// ProgramName is the name of our program in the kernel, by which Inspect and other instances of ringmq know it.
const ProgramName = "ringmq_steer"

// The bounds of a Program's maps unless Options says otherwise, and the kernel memory that the full map takes on amd64.
const (
	DefaultPrefixes    = 16384 // deny, allow and exempt prefixes together; about 100 bytes for each that is there
	DefaultKernelFlows = 65536 // 7 MiB, taken at Load
	DefaultKernelSYNs  = 65536 // 7 MiB, taken at Load
	DefaultSYNSources  = 65536 // 6 MiB, taken at Load
	MaxAddresses       = 1024
	MaxQueues          = 1024
	entriesMax         = 1 << 24 // of any other map
)

// Options sizes a Program. Zero means the default in every field but Queues.
type Options struct {
	Queues      int // RX queues of the interface, 1 to MaxQueues; frames of a queue beyond are passed and counted apart
	Prefixes    int // most prefixes in the three source lists together, each counted once: DefaultPrefixes
	KernelFlows int // most flows that AddKernelFlows holds at a time: DefaultKernelFlows
	KernelSYNs  int // most connection attempts on the kernel's path that are remembered, oldest forgotten: DefaultKernelSYNs
	SYNSources  int // most sources with a SYN bucket of their own, oldest forgotten: DefaultSYNSources
}

// complete checks, and fills in what zero means.
func (o Options) complete() (Options, error) {
	if o.Queues < 1 || o.Queues > MaxQueues {
		return o, fmt.Errorf("%d queues: give 1 to %d", o.Queues, MaxQueues)
	}
	for _, field := range []struct {
		name     string
		value    *int
		standard int
	}{
		{"prefixes", &o.Prefixes, DefaultPrefixes},
		{"kernel flows", &o.KernelFlows, DefaultKernelFlows},
		{"kernel SYNs", &o.KernelSYNs, DefaultKernelSYNs},
		{"SYN sources", &o.SYNSources, DefaultSYNSources},
	} {
		if *field.value == 0 {
			*field.value = field.standard
		}
		if *field.value < 1 || *field.value > entriesMax {
			return o, fmt.Errorf("room for %d %s: give 1 to %d", *field.value, field.name, entriesMax)
		}
	}
	return o, nil
}

// Mode is where in the receive path of an interface the program runs.
type Mode uint8

// The modes. Native needs the driver's support; generic runs on every interface, after the kernel has made an skb.
const (
	Native Mode = iota + 1
	Generic
	Offload // in the card's own processor: never asked for by us, but Inspect may find it
)

// AllQueues stands for every queue in SetDrain and SetHold.
const AllQueues = -1

// String gives native, generic or offload.
func (m Mode) String() string {
	switch m {
	case Native:
		return "native"
	case Generic:
		return "generic"
	case Offload:
		return "offload"
	}
	return "mode " + strconv.Itoa(int(m))
}

// Flow is a TCP connection as the program sees its segments: from Remote to Local. IPv4 addresses may be 4-in-6.
type Flow struct {
	Local, Remote netip.AddrPort
}

// Attachment is the XDP program on an interface. The zero Attachment is none.
type Attachment struct {
	ProgramID uint32
	Name      string // as its loader gave it, at most 15 bytes; empty if the kernel does not tell us
	Tag       string // the kernel's hash of its instructions, 16 hexadecimal digits; empty if the kernel does not tell us
	Ours      bool   // Name is ProgramName: this process, another ringmq, or a version of it
	Mode      Mode
	LinkID    uint32 // of the bpf_link that holds it, 0 when it was attached by netlink (ip link set dev … xdp) or we may not look
}

// Objects are what is ours in the kernel, of every running ringmq: nothing of it is pinned, so that it ends with its process.
type Objects struct {
	Programs []uint32 // ids of programs named ProgramName
	Maps     []uint32 // ids of their maps
}

// Count is packets and bytes of whole frames, from the Ethernet header, without the checksum at the end.
type Count struct {
	Packets, Bytes uint64
}

// Counts has one Count for each Verdict.
type Counts [Verdicts]Count

// Counters is what the program has decided since Load, summed over CPUs.
type Counters struct {
	Queues []Counts // by queue
	Beyond Counts   // frames of queues beyond Options.Queues
}

// Total sums all queues.
func (c Counters) Total() Counts {
	total := c.Beyond
	for _, queue := range c.Queues {
		for verdict, count := range queue {
			total[verdict].Packets += count.Packets
			total[verdict].Bytes += count.Bytes
		}
	}
	return total
}
