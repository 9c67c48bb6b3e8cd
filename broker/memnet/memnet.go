// Package memnet is the in-memory plane: a broker.Plane without sockets, for scripted tests and for simulation from a
// seed. It is not fast and not bounded in the number of connections, and no program that users run contains it.
//
// A Network is planes and the Peers that dial them. Everything that a real network decides by chance is either fixed
// (connections are dealt out in turn, readiness is reported in the order in which it came about) or a function that
// the test supplies: how much a read or a write moves, and in which order readiness is reported.
//
// # Stepping and threaded
//
// By default a Network is for one goroutine, has no clock, and nothing in it ever blocks: Wait returns at once with
// what is ready, whatever its timeout; a Peer's Read that finds nothing returns broker.ErrWouldBlock, and so does a
// Write that finds no room. Two runs of the same steps give the same results, byte for byte.
//
// With Config.Threaded, Wait and the Peers' Read and Write block as those of a real network do, and each plane and
// each Peer may have a goroutine of its own. Both ways the state is under the one mutex of the Network; the package
// starts no goroutine.
//
// # What it models
//
// A direction holds as many bytes as its window, and the writer finds it full beyond. A Peer that closes is answered
// as TCP does: what it wrote is still read, then the end; the first Write towards it is taken, and breaks the
// connection. A reset destroys what is under way in both directions. Conn.Close delivers what was written; what the
// Peer still writes then goes nowhere.
package memnet

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/ringmq/ringmq/broker"
)

// ErrReset is what a connection that was reset says to both ends.
var ErrReset = errors.New("connection reset")

// ErrRefused is what Dial says when no plane accepts any more.
var ErrRefused = errors.New("connection refused")

// Config shapes a Network. The zero value is one plane with one listener and generous windows.
type Config struct {
	Planes    int // zero means one
	Listeners int // zero means one; they are numbered from zero

	// BufferBytes is the size of each plane's read buffer. Zero means 64 KiB.
	BufferBytes int

	// SendWindowBytes is what a plane may write before its Peer reads; ReceiveWindowBytes is what a Peer may write
	// before the plane reads. Zero means 1 MiB. Peer.SetSendWindow changes the former for one connection.
	SendWindowBytes    int
	ReceiveWindowBytes int

	// Threaded makes waiting real; see the package's documentation.
	Threaded bool

	// ReadSize and WriteSize, if not nil, choose how many of the most bytes that could move do: 1 to most, and 0 to
	// most. A write cut short so becomes Writable in the next Wait.
	ReadSize  func(most int) int
	WriteSize func(most int) int

	// Shuffle, if not nil, puts the n events of a Wait into another order: rand.Rand's method of that name fits.
	Shuffle func(n int, swap func(i, j int))
}

const (
	bufferBytesDefault = 64 << 10 // the least that broker.Plane promises
	windowBytesDefault = 1 << 20  // more than a test that is not about windows writes
	portBase           = 1883     // the first listener's port
	peersPerAddress    = 50_000   // source ports that one address of a Peer has
	peerPortBase       = 10_000   // the first of them
)

// Network is a set of planes and the Peers that dial them.
type Network struct {
	mu      sync.Mutex // guards everything in the Network, its planes, connections and Peers
	config  Config
	planes  []*Plane
	dialled int // connections ever made
	open    int // connections that neither side's plane has closed
}

// New returns a Network.
func New(config Config) *Network {
	config.Planes = max(config.Planes, 1)
	config.Listeners = max(config.Listeners, 1)
	if config.BufferBytes == 0 {
		config.BufferBytes = bufferBytesDefault
	}
	if config.SendWindowBytes == 0 {
		config.SendWindowBytes = windowBytesDefault
	}
	if config.ReceiveWindowBytes == 0 {
		config.ReceiveWindowBytes = windowBytesDefault
	}
	n := &Network{config: config}
	for range config.Planes {
		n.planes = append(n.planes, &Plane{
			network: n, buffer: make([]byte, config.BufferBytes), stirred: make(chan struct{}, 1), accepting: true,
		})
	}
	return n
}

// Planes returns the planes.
func (n *Network) Planes() []*Plane { return n.planes }

// Open returns how many connections the planes have not closed: zero when nothing was left behind.
func (n *Network) Open() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.open
}

// Dial connects to a listener. The plane whose turn it is reports the connection in a later Wait; the Peer may write
// before that.
func (n *Network) Dial(listener int) (*Peer, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if listener < 0 || listener >= n.config.Listeners {
		return nil, fmt.Errorf("dial listener %d of %d: %w", listener, n.config.Listeners, ErrRefused)
	}
	for range n.planes {
		p := n.planes[n.dialled%len(n.planes)]
		n.dialled++
		if p.accepting {
			return p.dial(listener), nil
		}
	}
	return nil, fmt.Errorf("dial listener %d: %w", listener, ErrRefused)
}

// FailAccept makes a plane report broker.AcceptFailed with this error in its next Wait.
func (n *Network) FailAccept(plane, listener int, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.planes[plane]
	p.failures = append(p.failures, broker.Event{Kind: broker.AcceptFailed, Listener: listener, Err: err})
	p.stir()
}

func localAddress(listener int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 1}), uint16(portBase+listener))
}

// peerAddress gives each connection an address of its own, from the range for benchmarks (RFC 2544) on.
func peerAddress(dialled int) netip.AddrPort {
	high := dialled / peersPerAddress
	address := netip.AddrFrom4([4]byte{198, 18, byte(high >> 8), byte(high)})
	return netip.AddrPortFrom(address, uint16(peerPortBase+dialled%peersPerAddress))
}
