package probe

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestCPUList(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0", "0-3": "0-3", "0-1,4,6-7": "0-1,4,6-7", "": "none", " 2 , 5 ": "2,5", "3-3": "3", "0,1,2": "0-2",
	} {
		if got, err := parseCPUList(text); got.String() != want || err != nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"a", "1-", "-1", "3-1", "0-99999999", "99999999999999999999", "1-2-3"} {
		if got, err := parseCPUList(text); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func TestCPUMask(t *testing.T) {
	for text, want := range map[string]string{"0": "none", "f": "0-3", "00000001,00000000": "32", "80000000,00000003\n": "0-1,63", "0,0,3": "0-1"} {
		if got, err := parseCPUMask(text); got.String() != want || err != nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "xyz", "1ffffffff"} {
		if got, err := parseCPUMask(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestKernelVersion(t *testing.T) {
	for text, want := range map[string][2]int{"6.18.44-fc": {6, 18}, "5.15": {5, 15}, "6.1.0-28-amd64": {6, 1}} {
		if major, minor, ok := kernelVersion(text); !ok || major != want[0] || minor != want[1] {
			t.Errorf("%q: %d.%d, %v", text, major, minor, ok)
		}
	}
	for _, text := range []string{"", "next", "6", "6.x"} {
		if _, _, ok := kernelVersion(text); ok {
			t.Errorf("%q is understood", text)
		}
	}
}

// TestQueueInterrupts reads the names that several drivers give to their interrupts.
func TestQueueInterrupts(t *testing.T) {
	text, err := os.ReadFile("testdata/interrupts-mixed.txt")
	if err != nil {
		t.Fatal(err)
	}
	all := parseInterrupts(string(text))
	for _, c := range []struct {
		owners string
		want   map[int]int
	}{
		{"virtio2", map[int]int{0: 41, 1: 43}},
		{"eth7 0000:03:00.0", map[int]int{0: 51, 1: 52}},
		{"eth1", map[int]int{0: 61, 1: 62}},
		{"eth10", map[int]int{0: 63}},
		{"enp129s0f0 0000:81:00.0", map[int]int{0: 70, 1: 71}},
		{"ens5", map[int]int{0: 80, 1: 81}},
		{"eth2", map[int]int{0: 90}},
		{"eth3", map[int]int{}},
		{"", map[int]int{}},
	} {
		if got := queueInterrupts(all, strings.Fields(c.owners)); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, not %v", c.owners, got, c.want)
		}
	}
	if got := parseInterrupts(""); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

// TestQueueInterruptsInDoubt: two candidates are none.
func TestQueueInterruptsInDoubt(t *testing.T) {
	all := []interrupt{{1, "PCI-MSI eth0-rx-0"}, {2, "PCI-MSI eth0-rx-0"}, {3, "PCI-MSI eth0-rx-1"}}
	if got := queueInterrupts(all, []string{"eth0"}); len(got) != 1 || got[1] != 3 {
		t.Errorf("%v", got)
	}
}

func TestMemoryText(t *testing.T) {
	const info = "MemTotal:       24641536 kB\nMemAvailable:   22000000 kB\nHugePages_Total:       0\nBroken: many kB\n"
	if got := kibibytes(info, "MemTotal"); !got.Known() || got.Value != 24641536<<10 || got.String() != "23.5 GiB" {
		t.Errorf("%v", got)
	}
	for _, name := range []string{"MemFree", "Broken"} {
		if got := kibibytes(info, name); got.Known() {
			t.Errorf("%s: %v", name, got)
		}
	}
	for text, want := range map[string]string{"always [madvise] never": "madvise", "[always] madvise never": "always"} {
		if got, err := chosenWord(text); got != want || err != nil {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "always", "[always"} {
		if got, err := chosenWord(text); err == nil {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestBytesText(t *testing.T) {
	for n, want := range map[Bytes]string{0: "0 bytes", 1023: "1023 bytes", 1024: "1 KiB", 1536: "1.5 KiB", 8 << 20: "8 MiB", 3 << 30: "3 GiB"} {
		if got := n.String(); got != want {
			t.Errorf("%d: %s", int64(n), got)
		}
	}
}

// TestSettings: what is not there is unknown, not zero.
func TestSettings(t *testing.T) {
	root := files{fstest.MapFS{"proc/sys/net/core/bpf_jit_enable": {Data: []byte("1\n")}, "proc/sys/net/core/busy_poll": {Data: []byte("many\n")}}}
	if got := root.setting("net.core.bpf_jit_enable"); got != known(1) {
		t.Errorf("%v", got)
	}
	for name, words := range map[string]string{"net.core.busy_poll": "many", "net.core.busy_read": "namespace"} {
		if got := root.setting(name); got.Known() || !strings.Contains(got.Unknown, words) {
			t.Errorf("%s: %v", name, got)
		}
	}
	text := Settings{BPFJIT: known(1), BusyRead: unknown[int]("no")}.String()
	if !strings.Contains(text, "bpf_jit_enable 1") || !strings.HasSuffix(text, "unknown here: busy_read") {
		t.Error(text)
	}
}

// TestWords: how facts read.
func TestWords(t *testing.T) {
	good := goodInterface()
	for want, got := range map[string]fmt.Stringer{
		"unknown (the driver does not tell)":                        unknown[Rings]("the driver does not tell"),
		"native, redirect, zero-copy":                               good.Features,
		"native, redirect, no zero-copy, packets of several frames": Features{Basic: true, Redirect: true, ReceiveScatter: true},
		"none":                                  Features{},
		"combined 4 of 8":                       good.Channels,
		"rx 256 of 4096, tx 0 of 0 descriptors": Rings{Receive: 256, MaxReceive: 4096},
		"128 slots: 32 to queue 0, 32 to queue 1, 32 to queue 2, 32 to queue 3; key of 40 bytes, toeplitz": good.RSS,
		"interrupt 41, CPUs 1, RPS to 0-1, XPS from 2, an AF_XDP socket is bound":                          Queue{Index: 1, IRQ: known(41), CPUs: known(CPUList{1}), RPS: CPUList{0, 1}, XPS: CPUList{2}, Socket: true},
		"interrupt unknown (no)":                            Queue{IRQ: unknown[int]("no")},
		"lro, rx-gro-hw (fixed)":                            Offloads{LRO: Offload{On: true}, GROHardware: Offload{true, true}, ReceiveFCS: Offload{Fixed: true}},
		"rule 4: TCP port 1883 to queue 2":                  FlowRule{Location: 4, Ports: []PortRange{{1883, 1883}}, Queue: 2},
		"rule 5: dropped":                                   FlowRule{Location: 5, Queue: -1},
		"id 3, native mode, x, held by link 9":              Program{ID: 3, Mode: "native", Name: known("x"), LinkID: known(uint32(9))},
		"id 3, generic mode, name unknown: no":              Program{ID: 3, Mode: "generic", Name: unknown[string]("no")},
		"2 of 2 MiB, 1 free":                                HugePages{2 << 20, 2, 1},
		"80-90":                                             PortRange{80, 90},
		"operation not permitted":                           Trial{Error: "operation not permitted"},
		"0-7 online; NUMA nodes none; governor performance": goodHost().CPU,
		"0-1 online; 1 allowed; 1 isolated; SMT; NUMA nodes 0; irqbalance": CPUFacts{Online: known(CPUList{0, 1}), Allowed: known(CPUList{1}), Isolated: known(CPUList{1}),
			SMT: known(true), NUMANodes: known(CPUList{0}), Governors: unknown[[]string]("no"), IRQBalance: known(true)},
	} {
		if got.String() != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}

// chainNamed finds a chain that must be there.
func chainNamed(t *testing.T, chains []Chain, name string) Chain {
	t.Helper()
	at := slices.IndexFunc(chains, func(c Chain) bool { return c.Name == name })
	if at < 0 {
		t.Fatalf("no chain %q in %+v", name, chains)
	}
	return chains[at]
}
