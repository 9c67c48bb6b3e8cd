package main

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
)

// neighboursMaxAge is how old an answer may be. A stack asks once for every SYN from a remote that it does not know: under a
// flood, a question to the kernel each would take 60 µs and most of a processor.
const neighboursMaxAge = 100 * time.Millisecond

// neighbourTable is the kernel's neighbour table of an interface as it was a moment ago.
type neighbourTable struct {
	name string
	seen atomic.Pointer[neighboursSeen]
	mu   sync.Mutex // held by the one who asks the kernel; others take what is there
}

type neighboursSeen struct {
	macs map[netip.Addr][6]byte
	at   time.Time
}

// neighbours answers which link address an address of an interface's links has.
func neighbours(name string) func(netip.Addr) (mac [6]byte, ok bool) {
	t := &neighbourTable{name: name}
	t.seen.Store(&neighboursSeen{})
	return t.find
}

func (t *neighbourTable) find(a netip.Addr) (mac [6]byte, ok bool) {
	if time.Since(t.seen.Load().at) > neighboursMaxAge && t.mu.TryLock() {
		t.seen.Store(&neighboursSeen{macs: neighboursNow(t.name), at: time.Now()})
		t.mu.Unlock()
	}
	mac, ok = t.seen.Load().macs[a]
	return mac, ok
}

// neighboursNow asks the kernel. Without an answer nobody is a neighbour: the stacks then believe what frames tell.
func neighboursNow(name string) map[netip.Addr][6]byte {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil
	}
	table, err := netlink.NeighList(link.Attrs().Index, netlink.FAMILY_ALL)
	if err != nil {
		return nil
	}
	const usable = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_PERMANENT
	macs := make(map[netip.Addr][6]byte, len(table))
	for _, n := range table {
		a, ok := netip.AddrFromSlice(n.IP)
		if ok && n.State&usable != 0 && len(n.HardwareAddr) == 6 {
			macs[a.Unmap()] = [6]byte(n.HardwareAddr)
		}
	}
	return macs
}
