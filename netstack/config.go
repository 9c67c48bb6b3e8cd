// Unsafe: unsafe.Sizeof, for the plan of memory.

package netstack

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unsafe"
)

// Config says where to listen, as which host, and how TCP is to behave. It holds for every plane of a Group.
type Config struct {
	// Addresses are what to listen on; an address's place in the list is broker.Event.Listener. An unspecified
	// address stands for all host addresses of its family. Ports are needed: no one else could tell the steering
	// program which port was chosen.
	Addresses []netip.AddrPort

	// HostAddresses are the interface's own addresses. Group.SetAddresses changes them later.
	HostAddresses []netip.Prefix

	// Neighbour asks the kernel's neighbour table for the MAC address of an address on the link; false when it does
	// not know, as for every remote behind a router. It is called by planes and by the stacks' processors, several at a
	// time, with a lock held: it must be quick and must not call into this package. Nil: nobody is asked.
	Neighbour func(netip.Addr) (mac [6]byte, ok bool)

	// MaxConnections bounds what one plane holds at a time, with those that are being closed. Beyond it, the oldest of
	// the latter are cut off, then new ones are reset. Zero means 131072.
	MaxConnections int

	// Backlog is how many handshakes may be under way, and how many finished ones may wait to be accepted, per
	// listening port and plane. When it is full, SYN cookies take over. Zero means 4096.
	Backlog int

	// OverflowBytes bounds the frames that wait, per plane, while the device has no transmit frame. Zero means 512 KiB.
	OverflowBytes int

	// SendMemoryBytes bounds the heap that the peers of one plane pin all together by not acknowledging what was written to
	// them, beside 1.5 KiB for each. Zero means 64 MiB: room for hundreds of the slowest.
	SendMemoryBytes int64

	// ReceiveMemoryBytes bounds the heap that the connections of one plane take all together for what they have received and
	// the broker has not read. Zero means 64 MiB.
	ReceiveMemoryBytes int64

	// TCP is how the stacks' TCP behaves.
	TCP TCPConfig
}

// TCPConfig are options of the stacks' TCP. The zero value of each means its default.
type TCPConfig struct {
	// ReceiveBufferBytes and SendBufferBytes are the size of each connection's buffers. They are fixed: with
	// autotuning, a slow consumer would cost megabytes. Small segments are charged about 0.7 KB each to the former.
	// Zero means 64 KiB.
	ReceiveBufferBytes int
	SendBufferBytes    int

	// CongestionControl is Reno or Cubic. Empty means Reno: its state is smaller, and on the short queues of MQTT
	// traffic the two behave alike. Cubic is for long fat networks.
	CongestionControl string

	// MinRTO is the least retransmission timeout. Zero means 200 ms, as Linux has it. Cellular networks, whose delay
	// jumps, want a second; a data centre may want less.
	MinRTO time.Duration

	// TimeWait is how long a connection that we closed first stays in TIME-WAIT. Zero means 5 s: enough for what is
	// still under way on real paths, little enough that a storm of reconnects does not fill the memory.
	TimeWait time.Duration

	// HandshakeTimeout is how long a client may take to answer our SYN. Zero means 20 s: what was sent after 1, 3, 7 and 15 s
	// again can be answered.
	HandshakeTimeout time.Duration

	// Lifetime of a connection after Close, while the peer does not acknowledge what was written: beyond it the
	// connection is reset. Zero means 20 s: a few retransmissions on a bad link.
	CloseTimeout time.Duration

	// AckDelay bounds how long an acknowledgement waits for more segments to acknowledge, or for data to go with: never two
	// full segments, RFC 9293 section 3.8.6.3. Zero means 2 ms: some turns of a busy queue, and far less than the 40 ms that
	// Linux may take. A busy plane takes 40 ms, too, with clients that were seen not to wait. Negative means until the end of
	// the turn, for clients that send small segments one by one because Nagle's algorithm has them wait for each
	// acknowledgement.
	AckDelay time.Duration

	// NoSACK turns selective acknowledgements off, and with them RACK. They are on by default: without them every
	// second loss in a window costs a timeout.
	NoSACK bool

	// RACK has losses detected by time (RFC 8985), not by duplicate acknowledgements. It is off by default: the stack's sender
	// then arms its tail loss probe instead of the retransmission timer, and after the probe neither of them if its count of
	// outstanding packets has come to zero too early, which reordering and losses make it do. What is under way is then never
	// sent again unless more is written. One in a hundred runs of TestFaults stood still for minutes.
	RACK bool
}

// The congestion controls.
const (
	Reno  = "reno"
	Cubic = "cubic"
)

const (
	maxConnectionsDefault = 128 << 10 // beyond the 100,000 that one process is to hold
	backlogDefault        = 4096      // a fleet that reconnects at once must not be refused
	sendMemoryDefault     = 64 << 20
	receiveMemoryDefault  = 64 << 20  // 700 full receive buffers
	overflowBytesDefault  = 512 << 10 // 340 full frames: what one turn of a large fan-out may have too many
	bufferBytesDefault    = 64 << 10  // what a window without scaling can use, and a slow consumer may cost
	minRTODefault         = 200 * time.Millisecond
	timeWaitDefault       = 5 * time.Second
	closeTimeoutDefault   = 20 * time.Second
	handshakeTimeDefault  = 20 * time.Second
	ackDelayDefault       = 2 * time.Millisecond
	ackDelayMax           = 40 * time.Millisecond // what Linux calls a delayed ACK

	bufferBytesMin = 8 << 10 // two full segments, counted with their overhead
	bufferBytesMax = 4 << 20
	listenersMax   = 255 // as in broker/kernel: nobody needs more, and a number fits a byte
)

// PlaneFixedBytes is what a plane takes of the heap under the default Config with no connection: SYNs and handshakes that wait, and the
// frames that wait for the device.
const PlaneFixedBytes = int64(attemptsMax*unsafe.Sizeof(attempt{})+backlogDefault*unsafe.Sizeof(flowKey{})) + overflowBytesDefault

func (c Config) withDefaults() (Config, error) {
	setDefault(&c.MaxConnections, maxConnectionsDefault)
	setDefault(&c.Backlog, backlogDefault)
	setDefault(&c.OverflowBytes, overflowBytesDefault)
	setDefault(&c.SendMemoryBytes, sendMemoryDefault)
	setDefault(&c.ReceiveMemoryBytes, receiveMemoryDefault)
	c.TCP = c.TCP.withDefaults()
	return c, errors.Join(c.checkAddresses(), c.checkBounds(), c.TCP.check())
}

// setDefault replaces the zero value.
func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c Config) checkAddresses() error {
	switch {
	case len(c.Addresses) == 0:
		return errors.New("no address to listen on")
	case len(c.Addresses) > listenersMax:
		return fmt.Errorf("%d addresses to listen on: at most %d", len(c.Addresses), listenersMax)
	}
	seen := map[netip.AddrPort]bool{}
	for _, a := range c.Addresses {
		switch {
		case !a.IsValid() || a.Addr().Zone() != "" || a.Addr().Is4In6():
			return fmt.Errorf("address %v: need an IPv4 or IPv6 address without zone", a)
		case a.Port() == 0:
			return fmt.Errorf("address %v: a port is needed", a)
		case seen[a]:
			return fmt.Errorf("address %v is there twice", a)
		}
		seen[a] = true
	}
	return checkHostAddresses(c.HostAddresses)
}

func checkHostAddresses(prefixes []netip.Prefix) error {
	for _, p := range prefixes {
		if a := p.Addr(); !p.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() {
			return fmt.Errorf("host address %v: need a unicast address", p)
		}
	}
	return nil
}

func (c Config) checkBounds() error {
	switch {
	case c.MaxConnections < 1:
		return fmt.Errorf("at most %d connections: at least 1", c.MaxConnections)
	case c.Backlog < 1:
		return fmt.Errorf("backlog of %d: at least 1", c.Backlog)
	case c.SendMemoryBytes < SendMemoryMinBytes:
		return fmt.Errorf("%d bytes for what clients do not acknowledge: at least %d", c.SendMemoryBytes, SendMemoryMinBytes)
	case c.ReceiveMemoryBytes < ReceiveMemoryMinBytes:
		return fmt.Errorf("%d bytes for what is not read yet: at least %d", c.ReceiveMemoryBytes, ReceiveMemoryMinBytes)
	case c.OverflowBytes < 0:
		return fmt.Errorf("overflow of %d bytes: not negative", c.OverflowBytes)
	}
	return nil
}

func (t TCPConfig) withDefaults() TCPConfig {
	setDefault(&t.ReceiveBufferBytes, bufferBytesDefault)
	setDefault(&t.SendBufferBytes, bufferBytesDefault)
	setDefault(&t.CongestionControl, Reno)
	setDefault(&t.MinRTO, minRTODefault)
	setDefault(&t.TimeWait, timeWaitDefault)
	setDefault(&t.CloseTimeout, closeTimeoutDefault)
	setDefault(&t.HandshakeTimeout, handshakeTimeDefault)
	setDefault(&t.AckDelay, ackDelayDefault)
	return t
}

// Check says which option is out of its bounds, before anything is opened.
func (t TCPConfig) Check() error { return t.withDefaults().check() }

func (t TCPConfig) check() error {
	for _, n := range []int{t.ReceiveBufferBytes, t.SendBufferBytes} {
		if n < bufferBytesMin || n > bufferBytesMax {
			return fmt.Errorf("TCP buffer of %d bytes: from %d to %d", n, bufferBytesMin, bufferBytesMax)
		}
	}
	switch {
	case t.CongestionControl != Reno && t.CongestionControl != Cubic:
		return fmt.Errorf("congestion control %q: %s or %s", t.CongestionControl, Reno, Cubic)
	case t.MinRTO < time.Millisecond || t.MinRTO > time.Minute:
		return fmt.Errorf("least retransmission timeout of %v: from 1ms to 1m", t.MinRTO)
	case t.AckDelay > ackDelayMax:
		return fmt.Errorf("acknowledgement delay of %v: at most %v", t.AckDelay, ackDelayMax)
	case t.HandshakeTimeout < time.Second:
		return fmt.Errorf("handshake timeout of %v: at least 1s", t.HandshakeTimeout)
	case t.TimeWait < 0 || t.CloseTimeout < 0:
		return fmt.Errorf("TIME-WAIT of %v, close timeout of %v: not negative", t.TimeWait, t.CloseTimeout)
	}
	return nil
}
