//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd)

package kernel

import (
	"fmt"
	"net/netip"
	"runtime"

	"github.com/ringmq/ringmq/broker"
)

// Group is a set of planes; this system has none.
type Group struct{}

// Plane is never made on this system.
type Plane struct{ broker.Plane }

// Open says that this system is not supported.
func Open(Config) (*Group, error) {
	return nil, fmt.Errorf("standard mode needs epoll or kqueue, which %s does not have: use Linux, macOS or a BSD",
		runtime.GOOS)
}

// Listen does nothing.
func (*Group) Listen() error { return nil }

// Planes returns nothing.
func (*Group) Planes() []*Plane { return nil }

// Addresses returns nothing.
func (*Group) Addresses() []netip.AddrPort { return nil }

// Close does nothing.
func (*Group) Close() error { return nil }

// MaxDescriptors returns zero.
func MaxDescriptors() (int, error) { return 0, nil }
