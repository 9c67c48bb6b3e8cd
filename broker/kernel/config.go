package kernel

import (
	"errors"
	"fmt"
	"net/netip"
)

// Config says where to listen and how to divide the connections.
type Config struct {
	// Addresses are the listening sockets to open; an address's place in the list is broker.Event.Listener. Port 0
	// asks for any free port. An IPv6 address, the unspecified one included, takes IPv6 connections only.
	Addresses []netip.AddrPort

	// Planes is how many event loops share the connections. Zero means one.
	Planes int

	// BufferBytes is the size of each plane's read buffer. Zero means 256 KiB.
	BufferBytes int

	// Backlog is how many finished handshakes may wait to be accepted, per address; the kernel caps it (on Linux at
	// net.core.somaxconn). Zero means 4096.
	Backlog int

	// SendBufferBytes and ReceiveBufferBytes fix the kernel's buffers of every connection. Zero leaves them to the
	// kernel, which adapts them to each connection.
	SendBufferBytes    int
	ReceiveBufferBytes int

	// DescriptorsMax leaves descriptors to the rest of the process: a new one has the lowest number that is free, and a connection whose
	// number is not below this is closed, as if there were no descriptor for it. Zero: connections may take them all.
	DescriptorsMax int

	// Later has Open only bind the addresses: nobody can connect before Group.Listen, which is then to be called, by one goroutine,
	// before any plane is used.
	Later bool

	// Park has Wait sleep as any goroutine does, and not in a system call, where that is possible (Linux). It is for planes that
	// are often idle and have no thread of their own: each call that blocks takes its thread's processor away from the scheduler
	// until it notices, for which it looks around every 20 µs.
	Park bool
}

const (
	// bufferBytesMin is what broker.Plane promises.
	bufferBytesMin = 64 << 10

	// bufferBytesDefault takes in one call what a busy connection gathers during one turn (Linux starts a receive
	// buffer at 128 KiB), and still leaves most of a core's second-level cache, 1 MiB and more, to the engine.
	bufferBytesDefault = 256 << 10

	// backlogDefault is Linux's default cap: a fleet of devices that reconnects at once must not be refused.
	backlogDefault = 4096

	// listenersMax keeps listener numbers clear of the numbers of connection slots in a poller's event.
	listenersMax = 255
)

func (c Config) withDefaults() (Config, error) {
	if c.Planes == 0 {
		c.Planes = 1
	}
	if c.BufferBytes == 0 {
		c.BufferBytes = bufferBytesDefault
	}
	if c.Backlog == 0 {
		c.Backlog = backlogDefault
	}
	switch {
	case len(c.Addresses) == 0:
		return c, errors.New("no address to listen on")
	case len(c.Addresses) > listenersMax:
		return c, fmt.Errorf("%d addresses to listen on: at most %d", len(c.Addresses), listenersMax)
	case c.Planes < 0:
		return c, fmt.Errorf("%d planes: at least 1", c.Planes)
	case c.BufferBytes < bufferBytesMin:
		return c, fmt.Errorf("read buffer of %d bytes: at least %d", c.BufferBytes, bufferBytesMin)
	}
	return c, nil
}
