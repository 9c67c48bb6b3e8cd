//go:build linux

package lab

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// laneReport is what ringmq xdp status --json says of an interface, as far as the tests look.
type laneReport struct {
	Interface   string         `json:"interface"`
	Mode        string         `json:"mode"`
	Attached    bool           `json:"attached"`
	ProgramID   uint32         `json:"program_id"`
	LinkID      uint32         `json:"link_id"`
	KernelFlows int            `json:"kernel_flows"`
	Addresses   []string       `json:"addresses"`
	Queues      []queueReport  `json:"queues"`
	Unbound     verdictReport  `json:"unbound"`
	Beyond      verdictReport  `json:"beyond"`
	SYNLimit    map[string]any `json:"syn_limit"`

	Lists map[string][]string `json:"lists"`
}

type verdictReport map[string]struct{ Packets, Bytes uint64 }

type queueReport struct {
	Queue    int           `json:"queue"`
	Verdicts verdictReport `json:"verdicts"`
	Rings    struct {
		FramesReceived, FramesSent, TransmitExhausted, DroppedDown, BadDescriptors, Reopened, Stalled uint64
		Kernel                                                                                        struct {
			ReceiveDropped, ReceiveInvalidDescriptors, TransmitInvalid, ReceiveRingFull, FillRingEmpty uint64
		}
	} `json:"rings"`
	Frames struct {
		Receive  struct{ Frames, FillRing, RXRing, Held, Lost int }
		Transmit struct{ Frames, Free, Reserved, TXRing, Held, CompletionRing, Lost int }
	} `json:"frames"`
	TCP struct {
		Established, HalfOpen, Connections, Accepted, AcceptRefused, Retransmits, ResetsSent, ResetsReceived uint64
		CookiesSent, CookiesReturned, CookiesRefused                                                         uint64
		SendLimited, StuckReset, PinnedBytes, ReceiveLimited, UnreadBytes                                    uint64
		HandedOver, TakenOver, Malformed, NotOurs, ChecksumErrors, Panics, Poisoned, OverflowDropped         uint64
	} `json:"tcp"`
}

// lane asks for the state of the one interface.
func (b *process) lane() laneReport {
	b.t.Helper()
	var lanes []laneReport
	if err := json.Unmarshal([]byte(b.must("xdp", "status", "--json")), &lanes); err != nil || len(lanes) != 1 {
		b.t.Fatalf("%d interfaces in ringmq xdp status (%v)", len(lanes), err)
	}
	return lanes[0]
}

// verdict sums one verdict over the queues.
func (l laneReport) verdict(name string) (n uint64) {
	for _, q := range l.Queues {
		n += q.Verdicts[name].Packets
	}
	return n + l.Unbound[name].Packets + l.Beyond[name].Packets
}

// frames sums all verdicts over all queues: every frame that the interface has received.
func (l laneReport) frames() (n uint64) {
	for _, name := range l.verdicts() {
		n += l.verdict(name)
	}
	return n
}

// verdicts are the names of those that have been made.
func (l laneReport) verdicts() []string {
	names := map[string]bool{}
	for _, q := range l.Queues {
		for name := range q.Verdicts {
			names[name] = true
		}
	}
	for _, more := range []verdictReport{l.Unbound, l.Beyond} {
		for name := range more {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// sum adds a figure of the queues up.
func (l laneReport) sum(figure func(queueReport) uint64) (n uint64) {
	for _, q := range l.Queues {
		n += figure(q)
	}
	return n
}

func (l laneReport) established() uint64 {
	return l.sum(func(q queueReport) uint64 { return q.TCP.Established })
}

func (l laneReport) resetsSent() uint64 {
	return l.sum(func(q queueReport) uint64 { return q.TCP.ResetsSent })
}

// brokerReport is what ringmq status --json says, as far as the tests look.
type brokerReport struct {
	Mode        string            `json:"mode"`
	Connections int               `json:"connections"`
	MemoryBytes uint64            `json:"memory_planned_bytes"`
	HeapBytes   uint64            `json:"heap_bytes"`
	Counters    map[string]uint64 `json:"counters"`
}

func (b *process) status() (r brokerReport) {
	b.t.Helper()
	if err := json.Unmarshal([]byte(b.must("status", "--json")), &r); err != nil {
		b.t.Fatal(err)
	}
	return r
}

// kernelTCP are counters of the kernel's TCP in a namespace: the line Tcp of /proc/net/snmp, and TcpExt of netstat.
type kernelTCP map[string]string

func kernelCounters(t *testing.T, namespace string) kernelTCP {
	t.Helper()
	counters := kernelTCP{}
	for _, name := range []string{"snmp", "netstat"} {
		var keys []string
		for line := range strings.Lines(read(t, namespace, "/proc/thread-self/net/"+name)) {
			words := strings.Fields(line)
			switch {
			case len(words) == 0 || words[0] != "Tcp:" && words[0] != "TcpExt:":
			case keys == nil:
				keys = words
			default:
				for i, key := range keys[1:] {
					counters[key] = words[i+1]
				}
				keys = nil
			}
		}
	}
	if counters["InSegs"] == "" || counters["SyncookiesSent"] == "" {
		t.Fatalf("no counters of the kernel's TCP: %v", counters)
	}
	return counters
}

// moved names the counters that differ.
func (k kernelTCP) moved(after kernelTCP) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(k)) {
		if k[name] != after[name] {
			names = append(names, name+" "+k[name]+" → "+after[name])
		}
	}
	return names
}

// framesSent is the driver's count of the frames that an interface has sent.
func framesSent(t *testing.T, namespace, name string) uint64 {
	t.Helper()
	n, err := within(namespace, func() (uint64, error) {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return 0, err
		}
		return link.Attrs().Statistics.TxPackets, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// memory is the resident memory of the broker, in bytes.
func (b *process) memory() uint64 {
	b.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", b.cmd.Process.Pid))
	if err != nil {
		b.t.Fatal(err)
	}
	var pages [2]uint64
	if err := json.Unmarshal([]byte("["+strings.Join(strings.Fields(string(data))[:2], ",")+"]"), &pages); err != nil {
		b.t.Fatal(err)
	}
	return pages[1] * uint64(os.Getpagesize())
}
