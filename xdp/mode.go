package xdp

import "fmt"

// Mode is how frames travel between the driver and the umem. The zero Mode means no preference.
type Mode uint8

// The modes, weakest first.
const (
	// Generic runs the program after the kernel has built its sk_buff: any driver, one copy, no gain.
	Generic Mode = iota + 1
	// Native runs the program in the driver and copies each frame between the driver's memory and the umem.
	Native
	// ZeroCopy runs the program in the driver, and the NIC reads and writes the umem itself.
	ZeroCopy
)

// String gives the names of --xdp-require, which ParseMode reads.
func (m Mode) String() string {
	switch m {
	case 0:
		return "any"
	case Generic:
		return "generic"
	case Native:
		return "native"
	case ZeroCopy:
		return "zerocopy"
	}
	return fmt.Sprintf("Mode(%d)", uint8(m))
}

// ParseMode reads any, generic, native or zerocopy.
func ParseMode(name string) (Mode, error) {
	for _, m := range [...]Mode{0, Generic, Native, ZeroCopy} {
		if name == m.String() {
			return m, nil
		}
	}
	return 0, fmt.Errorf("XDP mode %q: use any, generic, native or zerocopy", name)
}
