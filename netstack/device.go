package netstack

import "time"

// Device carries the Ethernet frames of one NIC queue: an AF_XDP socket (package xdp), or memory in tests.
//
// Receive, Wait and Buffer belong to the goroutine of the queue's Plane. Reserve, Commit, Discard and Kick are called by
// whoever sends, one at a time: the stack's processor sends, too, and the caller holds a lock around them. Wake is for
// any goroutine. Every frame given out comes back: Device never grows.
type Device interface {
	// Receive hands at most max received frames to deliver, oldest first, and returns how many. A frame starts at the
	// Ethernet header and is valid, and the device's own, until deliver returns.
	Receive(max int, deliver func(frame []byte)) int

	// Reserve gives an empty transmit frame, of at least MTU()+22 bytes (Ethernet and two VLAN tags), or nil when all are
	// under way. It is the caller's until Commit or Discard.
	Reserve() []byte

	// Commit queues the first n bytes of a reserved frame for sending.
	Commit(frame []byte, n int)

	// Discard gives a reserved frame back unsent.
	Discard(frame []byte)

	// Kick starts the sending of everything committed, as far as the kernel takes it. What it does not take now is sent
	// by a later Kick; a device that is down drops and counts. It never blocks.
	Kick()

	// Wait returns when Receive would return something, when Wake was called since the last Wait, or when timeout has
	// passed (negative: no timeout). It may return early. An error means that the device is gone for good.
	Wait(timeout time.Duration) error

	// Wake makes the current or else the next Wait return at once. Any goroutine may call it.
	Wake()

	// Buffer is the broker's part of the umem, the same memory at every call: at least 64 KiB.
	Buffer() []byte

	// MTU is the largest IP packet, in bytes, that a frame of this device carries now.
	MTU() int

	// HardwareAddr is the interface's own MAC address.
	HardwareAddr() [6]byte
}
