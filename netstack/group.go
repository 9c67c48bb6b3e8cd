package netstack

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/log"
)

// Group is a set of planes that listen on the same addresses, each with a device and a stack of its own.
type Group struct {
	config  Config
	planes  []*Plane // fixed after Open
	owners  *ownerTable
	secrets secrets

	// hosts are the host addresses, as flowKey has them. SetAddresses replaces the map, planes read it.
	hosts atomic.Pointer[map[[16]byte]bool]

	// What is listened on; fixed after Open. anywhere is for unspecified addresses.
	exactly  map[listenKey]int
	anywhere map[listenPort]int

	mu sync.Mutex // held by SetAddresses, one at a time
}

type listenKey struct {
	addr [16]byte
	port uint16
}

type listenPort struct {
	port uint16
	isV6 bool
}

// Open builds a stack on each device and listens. It sets GOMAXPROCS to one for a moment, so that each stack has one
// processor goroutine: call it at start only. The devices stay the caller's; the planes use them until they are closed.
func Open(config Config, devices []Device) (*Group, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	if len(devices) == 0 {
		return nil, errors.New("no device")
	}
	config.HostAddresses = distinct(config.HostAddresses)
	g := &Group{config: config, owners: newOwnerTable(len(devices)), secrets: newSecrets()}
	g.indexListeners()
	g.setHosts(config.HostAddresses)
	log.SetTarget(silence{})
	before := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(before)
	for i, device := range devices {
		p, err := newPlane(g, device)
		if err != nil {
			_ = g.Close() // This error is the one to report.
			return nil, fmt.Errorf("queue %d: %w", i, err)
		}
		g.planes = append(g.planes, p)
	}
	return g, nil
}

// silence is where the stacks' log lines go: remotes can provoke them, and Counters says the same.
type silence struct{}

// Emit implements log.Emitter.
func (silence) Emit(int, log.Level, time.Time, string, ...any) {}

func (g *Group) indexListeners() {
	g.exactly, g.anywhere = map[listenKey]int{}, map[listenPort]int{}
	for i, a := range g.config.Addresses {
		if a.Addr().IsUnspecified() {
			g.anywhere[listenPort{a.Port(), a.Addr().Is6()}] = i
		} else {
			g.exactly[listenKey{a.Addr().As16(), a.Port()}] = i
		}
	}
}

// numberedPort is a port with the place in Config.Addresses of the first address that has it.
type numberedPort struct {
	listenPort
	number int
}

// ports are the ports and families that a stack listens on. It takes every address on them: what is not listened on
// never reaches it.
func (g *Group) ports() []numberedPort {
	seen := map[listenPort]bool{}
	var ports []numberedPort
	for i, a := range g.config.Addresses {
		if k := (listenPort{a.Port(), a.Addr().Is6()}); !seen[k] {
			seen[k] = true
			ports = append(ports, numberedPort{k, i})
		}
	}
	return ports
}

// listenerOf tells which listener a connection belongs to.
func (g *Group) listenerOf(key *flowKey) (number int, ok bool) {
	if number, ok = g.exactly[listenKey{key.local, key.localPort}]; ok {
		return number, true
	}
	isV6 := !netip.AddrFrom16(key.local).Is4In6()
	number, ok = g.anywhere[listenPort{key.localPort, isV6}]
	return number, ok
}

// hears tells whether something listens on a local address, and whether the host has that address.
func (g *Group) hears(key *flowKey) (isListening, isHost bool) {
	_, isListening = g.listenerOf(key)
	return isListening, g.isHost(key.local)
}

func (g *Group) isHost(addr [16]byte) bool { return (*g.hosts.Load())[addr] }

func (g *Group) setHosts(prefixes []netip.Prefix) {
	hosts := map[[16]byte]bool{}
	for _, p := range prefixes {
		hosts[p.Addr().WithZone("").As16()] = true
	}
	g.hosts.Store(&hosts)
}

// Planes returns the planes, in the order of the devices; each is for one goroutine.
func (g *Group) Planes() []*Plane { return g.planes }

// Addresses returns Config.Addresses.
func (g *Group) Addresses() []netip.AddrPort { return g.config.Addresses }

// SetAddresses replaces the host addresses. As on Linux, connections on an address that is gone stay until they fail
// or end; new ones are refused by silence. Any goroutine may call it.
func (g *Group) SetAddresses(prefixes []netip.Prefix) error {
	if err := checkHostAddresses(prefixes); err != nil {
		return err
	}
	prefixes = distinct(prefixes)
	g.mu.Lock()
	defer g.mu.Unlock()
	var errs []error
	for i, p := range g.planes {
		if err := p.setAddresses(g.config.HostAddresses, prefixes); err != nil {
			errs = append(errs, fmt.Errorf("queue %d: %w", i, err))
		}
	}
	g.config.HostAddresses = prefixes
	g.setHosts(prefixes)
	return errors.Join(errs...)
}

// distinct has each address once, as the stack wants it: an interface may have one with several peers, or lengths of its prefix.
func distinct(prefixes []netip.Prefix) []netip.Prefix {
	sorted := slices.SortedFunc(slices.Values(prefixes), netip.Prefix.Compare)
	return slices.CompactFunc(sorted, func(a, b netip.Prefix) bool { return a.Addr() == b.Addr() })
}

// Counters returns the sum over the planes. Any goroutine may call it.
func (g *Group) Counters() Counters {
	var sum Counters
	for _, p := range g.planes {
		sum.Add(p.Counters())
	}
	return sum
}

// Close closes every plane. It may be called only when no goroutine uses any of them, or after they have closed them,
// when it does nothing.
func (g *Group) Close() error {
	var errs []error
	for _, p := range g.planes {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}
