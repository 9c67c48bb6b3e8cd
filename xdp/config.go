package xdp

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/ringmq/ringmq/bpf"
)

const (
	frameHeadroomBytes = 256 // XDP_PACKET_HEADROOM: the kernel leaves so much free before a received packet.
	linkHeaderBytes    = 22  // Ethernet and two VLAN tags.
	bufferMinBytes     = 64 << 10
	framesMin          = 64      // Two copy-mode kicks; fewer frames only exhaust.
	framesMax          = 1 << 20 // 2 GiB of 2048-byte frames in one queue: a slip of the pen.

	// ReceiveFramesDefault takes a segment of each of 10,000 connections at once, and its acknowledgement in half of the
	// cases: with 4096, 5000 clients that answered together lost a tenth of their segments, and waited seconds for retransmissions.
	ReceiveFramesDefault  = 16384
	transmitFramesDefault = 4096
)

// Config says what to open. Zero values mean what each field says.
type Config struct {
	// Interface is the name of the network interface, in the network namespace of the calling thread.
	Interface string

	// Queues are the NIC queues to open, each once; none means all RX queues.
	Queues []int

	// ReceiveFrames and TransmitFrames are the frames of a queue's two regions, from 64 to 1,048,576; zero means 16384 and 4096. Each
	// ring is the next power of two of its region, so that no ring can be full.
	ReceiveFrames  int
	TransmitFrames int

	// BufferBytes is the size of the broker's region of a queue's umem, at least 64 KiB and rounded up to whole frames;
	// zero means 256 KiB.
	BufferBytes int

	// FrameSize is 2048 (packets of up to 1770 bytes) or 4096 (3818); zero means 2048. It must not exceed the page size.
	FrameSize int

	// Limit is the strongest mode to try, zero for ZeroCopy. Require is the weakest to accept, zero for Generic.
	Limit   Mode
	Require Mode

	// Ports are the TCP ports to steer; at least one.
	Ports []uint16

	// Addresses are those to steer, as long as the interface has them; none means all that it has.
	Addresses []netip.Addr

	// Program sizes the steering program's maps. Its Queues is set by Open.
	Program bpf.Options

	// BusyPoll is how long a system call of ours may poll the NIC instead of waiting for its interrupt, in microseconds
	// (SO_BUSY_POLL, with SO_PREFER_BUSY_POLL); zero means not at all. BusyPollBudget is how many packets it may take, zero for 64.
	BusyPoll       int
	BusyPollBudget int

	// Events is told what happens, one Event at a time, from the watcher's goroutine. While it has not returned nothing is
	// repaired; changes meanwhile are merged. It must not call Start or Close. Nil means that nobody wants to know.
	Events func(Event)
}

// complete gives the configuration with its defaults, or says which field is wrong.
func (c Config) complete() (Config, error) {
	setDefault(&c.ReceiveFrames, ReceiveFramesDefault)
	setDefault(&c.TransmitFrames, transmitFramesDefault)
	setDefault(&c.BufferBytes, 256<<10)
	setDefault(&c.FrameSize, 2048)
	setDefault(&c.BusyPollBudget, 64)
	if c.Limit == 0 {
		c.Limit = ZeroCopy
	}
	if c.Require == 0 {
		c.Require = Generic
	}
	if c.Events == nil {
		c.Events = func(Event) {}
	}
	if err := c.check(); err != nil {
		return c, fmt.Errorf("XDP on interface %q: %w", c.Interface, err)
	}
	c.BufferBytes = (c.BufferBytes + c.FrameSize - 1) / c.FrameSize * c.FrameSize
	c.Queues = slices.Clone(c.Queues)
	slices.Sort(c.Queues)
	return c, nil
}

func setDefault(field *int, value int) {
	if *field == 0 {
		*field = value
	}
}

func (c Config) check() error {
	switch {
	case c.Interface == "":
		return errors.New("no interface is named: name one, such as eth0")
	case c.FrameSize != 2048 && c.FrameSize != 4096:
		return fmt.Errorf("frames of %d bytes: use 2048 or 4096", c.FrameSize)
	case c.ReceiveFrames < framesMin || c.ReceiveFrames > framesMax:
		return fmt.Errorf("%d receive frames: use %d to %d", c.ReceiveFrames, framesMin, framesMax)
	case c.TransmitFrames < framesMin || c.TransmitFrames > framesMax:
		return fmt.Errorf("%d transmit frames: use %d to %d", c.TransmitFrames, framesMin, framesMax)
	case c.BufferBytes < bufferMinBytes:
		return fmt.Errorf("a broker buffer of %d bytes: use at least %d", c.BufferBytes, bufferMinBytes)
	case c.Limit > ZeroCopy || c.Require > c.Limit:
		return fmt.Errorf("mode %v is required and %v is the limit: require no more than the limit", c.Require, c.Limit)
	case len(c.Ports) == 0:
		return errors.New("no TCP port is to be steered: give at least one")
	case c.BusyPoll < 0 || c.BusyPollBudget < 0:
		return errors.New("busy polling for less than no time: use 0 microseconds or more")
	}
	return c.checkQueues()
}

func (c Config) checkQueues() error {
	for i, queue := range c.Queues {
		if queue < 0 || slices.Contains(c.Queues[:i], queue) {
			return fmt.Errorf("queue %d: name each queue once, from 0", queue)
		}
	}
	return nil
}

// maxMTU is the largest IP packet that one receive frame holds, behind the kernel's headroom and the link header.
func (c Config) maxMTU() int { return c.FrameSize - frameHeadroomBytes - linkHeaderBytes }

// umemBytes is the memory of one queue's socket.
func (c Config) umemBytes() int {
	return (c.ReceiveFrames+c.TransmitFrames)*c.FrameSize + c.BufferBytes
}

// UmemBytes is the umem of one queue under this configuration, in bytes, for plans of memory. During a reopen a queue has two.
func (c Config) UmemBytes() (int, error) {
	c, err := c.complete()
	return c.umemBytes(), err
}

// ringSize is the number of descriptors of a ring that all frames of a region fit into.
func ringSize(frames int) int { return 1 << bits.Len(uint(frames-1)) }
