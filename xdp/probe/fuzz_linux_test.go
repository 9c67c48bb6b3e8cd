package probe

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzKernelAnswers reads any bytes as what the kernel answers: a flow rule of ethtool's, netlink attributes, a listening socket, the
// features of a virtio device, a process's capabilities.
func FuzzKernelAnswers(f *testing.F) {
	rule := make([]byte, 4*flowWords)
	rule[flowTypeBytes], rule[flowCookie] = flowTCP4, 3
	copy(rule[flowValueBytes+flowPortOf4:], "\x07\x5b")
	copy(rule[flowMaskBytes+flowPortOf4:], "\xff\xff")
	f.Add(slices.Clone(rule))
	rule[flowTypeBytes] = flowTCP6
	binary.NativeEndian.PutUint64(rule[flowCookie:], math.MaxUint64)
	f.Add(rule)
	f.Add([]byte{8, 0, napiIRQ, 0, 41, 0, 0, 0, 12, 0, napiID, 0x80, 1, 0, 0, 0, 0, 0, 0, 0})
	f.Add(append([]byte{unix.AF_INET, 0, 0, 0, 7, 0x5b}, make([]byte, 70)...))
	f.Add([]byte("0000000111"))
	f.Add([]byte("CapEff:\t000001ffffffffff\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		whole := make([]byte, 4*flowWords)
		copy(whole, data)
		if r := parseFlowRule(whole); r.Queue < -1 || r.Location < 0 || len(r.Ports) > 1 || r.String() == "" {
			t.Errorf("%+v", r)
		}
		if found, err := parseAttributes(data[:len(data):len(data)]); err == nil {
			for kind := range found {
				if _, ok := found.number(kind); ok && len(found[kind].Value) < 4 {
					t.Errorf("attribute %d of %d bytes is a number", kind, len(found[kind].Value))
				}
			}
		}
		if a, _, ok := parseListener(data[:len(data):len(data)]); ok && !a.IsValid() {
			t.Errorf("a socket listens on %v", a)
		}
		if list, err := parseCapabilities(string(data)); err == nil && len(list) != len(capabilities) {
			t.Errorf("capabilities: %v", list)
		}
		virtioRefusal(string(data))
		_ = lastError(data)
	})
}
