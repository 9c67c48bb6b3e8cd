//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package kernel

import (
	"errors"
	"math"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Group is a set of planes that share listening sockets.
type Group struct {
	config    Config
	planes    []*Plane // fixed after Open
	addresses []netip.AddrPort
}

// Open opens every listening socket and then the planes. If anything fails, nothing stays open.
func Open(config Config) (*Group, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	listeners, err := listenAll(config)
	if err != nil {
		return nil, err
	}
	g := &Group{config: config}
	for _, l := range listeners {
		g.addresses = append(g.addresses, l.address)
	}
	err = g.openPlanes(config, listeners)
	if err != nil {
		closeListeners(listeners)
		_ = g.Close() // The planes' error is the one to report.
		return nil, err
	}
	return g, nil
}

// openPlanes spreads the listeners over the planes, so that accepting many connections is no single plane's burden.
func (g *Group) openPlanes(config Config, listeners []*listener) error {
	for range config.Planes {
		p, err := newPlane(config, len(listeners))
		if err != nil {
			return err
		}
		g.planes = append(g.planes, p)
	}
	for i, l := range listeners {
		if config.Later {
			break
		}
		if err := g.planes[i%len(g.planes)].poller.addListener(l); err != nil {
			return err
		}
	}
	// Only now may Close of a plane close listeners: until here they are the caller's.
	for i, l := range listeners {
		p := g.planes[i%len(g.planes)]
		p.listeners = append(p.listeners, l)
	}
	for _, p := range g.planes {
		p.siblings = g.planes
	}
	return nil
}

// Listen lets clients connect, where Config.Later has put that off.
func (g *Group) Listen() error {
	if !g.config.Later {
		return nil
	}
	for _, p := range g.planes {
		for _, l := range p.listeners {
			if err := p.listenNow(l, g.config.Backlog); err != nil {
				return err
			}
		}
	}
	return nil
}

// Planes returns the planes; each is for one goroutine.
func (g *Group) Planes() []*Plane { return g.planes }

// Addresses returns where the listeners listen, in the order of Config.Addresses, with the real ports.
func (g *Group) Addresses() []netip.AddrPort { return g.addresses }

// Close closes every plane. It may be called only when no goroutine uses any of them, or after they have closed
// them, when it does nothing.
func (g *Group) Close() error {
	var errs []error
	for _, p := range g.planes {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// MaxDescriptors returns how many descriptors this process may have open: the bound on its connections. Go raises
// the soft limit to the hard one by itself when the program starts.
func MaxDescriptors() (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	// The field is signed on FreeBSD, where "unlimited" is the largest number.
	if uint64(limit.Cur) > math.MaxInt {
		return math.MaxInt, nil
	}
	return int(limit.Cur), nil
}
