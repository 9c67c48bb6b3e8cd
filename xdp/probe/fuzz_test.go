package probe

import (
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

// seedFiles adds recorded output.
func seedFiles(f *testing.F, names ...string) {
	for _, name := range names {
		data, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
}

// FuzzIptables: whatever iptables-save and ipset save print, in one, the port ranges that come out begin before they end, and what
// is outside of them is outside.
func FuzzIptables(f *testing.F) {
	seedFiles(f, "iptables-save.txt", "iptables-legacy-save.txt", "ipset-save.txt")
	f.Add("create s hash:ip,port\nadd s 192.0.2.1,tcp:20-10\n*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -m set ! --match-set s dst,dst -j DROP\n")
	f.Add("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp ! --dport 1883:1800 -j DROP\n:INPUT -\n-A INPUT -g x\n")
	f.Fuzz(func(t *testing.T, text string) {
		sets := parseIPSets(text)
		for name := range sets {
			ports, _ := ipsetPorts(sets, name, "dst,dst,dst")
			inOrder(t, ports)
		}
		for _, c := range parseIptables("iptables", text, sets) {
			for _, r := range c.Rules {
				inOrder(t, r.Ports)
				outside := complement(slices.Clone(r.Ports))
				inOrder(t, outside)
				for _, port := range []uint16{0, 1883, math.MaxUint16, r.Ports[0].First, r.Ports[0].Last} {
					if r.names(port) == (Rule{Ports: outside}).names(port) {
						t.Errorf("port %d is both or neither in %v and outside, in %v", port, r.Ports, outside)
					}
				}
			}
		}
	})
}

func inOrder(t *testing.T, ports []PortRange) {
	t.Helper()
	for _, p := range ports {
		if p.First > p.Last {
			t.Errorf("%v ends before it begins", p)
		}
	}
}

// FuzzHostText reads any text as each of the kernel's files: a list of CPUs comes back from its own words, none is out of bounds, and
// an interrupt belongs to one queue only.
func FuzzHostText(f *testing.F) {
	seedFiles(f, "interrupts-mixed.txt")
	for _, text := range []string{"0-3,8", "80000000,00000003\n", "always [madvise] never", "MemTotal: 24641536 kB\nCapEff:\t000001ffffffffff\n",
		"6.18.44-fc", "0-65535,0-65535", " CPU0\n -1: 5 PCI-MSI eth0-rx-0\n", "MemTotal: -1 kB", "6.-1", "0::/system.slice/ringmq.service\n",
		"Num RefCount Protocol Flags Type St Inode Path\n0: 00000002 00000000 00010000 0001 01 17 /run/ringmq/9.sock\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseCPUList(text)
		mask, err2 := parseCPUMask(text)
		for _, cpus := range []CPUList{list, mask} {
			if again, err := parseCPUList(cpus.String()); len(cpus) > 0 && (err != nil || !slices.Equal(again, cpus)) {
				t.Errorf("%v comes back as %v, %v", cpus, again, err)
			}
			if len(cpus) > cpusMax || len(cpus) > 0 && (slices.Min(cpus) < 0 || slices.Max(cpus) >= cpusMax) {
				t.Errorf("%d CPUs, the last %d", len(cpus), slices.Max(cpus))
			}
		}
		if err != nil && list != nil || err2 != nil && mask != nil {
			t.Errorf("%v and %v beside %v and %v", list, mask, err, err2)
		}
		owners := strings.Fields(text)
		interrupts := parseInterrupts(text)
		queues := queueInterrupts(interrupts, owners[:min(len(owners), 20)])
		for queue, number := range queues {
			if queue < 0 || number < 0 || !slices.ContainsFunc(interrupts, func(i interrupt) bool { return i.number == number }) {
				t.Errorf("queue %d has interrupt %d", queue, number)
			}
		}
		if word, err := chosenWord(text); err == nil && !strings.Contains(text, "["+word+"]") {
			t.Errorf("%q is chosen", word)
		}
		if b := kibibytes(text, "MemTotal"); b.Known() && (b.Value < 0 || b.Value%1024 != 0) {
			t.Errorf("%d bytes", int64(b.Value))
		}
		if major, minor, ok := kernelVersion(text); ok && (major < 0 || minor < 0) {
			t.Errorf("kernel %d.%d", major, minor)
		}
		unitOf(text)
		unixListeners(text)
	})
}
