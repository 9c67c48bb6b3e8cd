package xdp

// Stats are counters of one Queue since Open, over all its reopens.
type Stats struct {
	FramesReceived uint64
	BytesReceived  uint64
	FramesSent     uint64 // Given to the kernel.
	BytesSent      uint64

	TransmitExhausted uint64 // Reserve had no frame.
	DroppedDown       uint64 // Committed while the link was down or the interface gone.
	BadDescriptors    uint64 // The kernel named a frame that was not its own; each is a frame lost until the next reopen.
	Reopened          uint64
	Stalled           uint64
	Waits             uint64 // Waits that parked.
	Wakes             uint64

	Kicks      uint64 // Send system calls.
	KickErrors KickErrors

	Kernel KernelStats
}

// KickErrors counts what the send system call answered; transmit.go says what each means.
type KickErrors struct {
	Again       uint64 // EAGAIN
	Busy        uint64 // EBUSY
	NoBuffers   uint64 // ENOBUFS, ENOMEM
	Down        uint64 // ENETDOWN
	Unbound     uint64 // ENXIO
	Interrupted uint64 // EINTR
	Other       uint64
}

// KernelStats are struct xdp_statistics of linux/if_xdp.h.
type KernelStats struct {
	ReceiveDropped            uint64 // rx_dropped: too long for a frame, or no memory.
	ReceiveInvalidDescriptors uint64 // rx_invalid_descs: of the fill ring.
	TransmitInvalid           uint64 // tx_invalid_descs
	ReceiveRingFull           uint64 // rx_ring_full
	FillRingEmpty             uint64 // rx_fill_ring_empty_descs
	TransmitRingEmpty         uint64 // tx_ring_empty_descs: often, and harmless.
}

func (s KernelStats) plus(o KernelStats) KernelStats {
	s.ReceiveDropped += o.ReceiveDropped
	s.ReceiveInvalidDescriptors += o.ReceiveInvalidDescriptors
	s.TransmitInvalid += o.TransmitInvalid
	s.ReceiveRingFull += o.ReceiveRingFull
	s.FillRingEmpty += o.FillRingEmpty
	s.TransmitRingEmpty += o.TransmitRingEmpty
	return s
}

// Conservation says where the frames of a Queue are: Receive and Transmit each add up to their Frames at every time, and to
// nothing else. It is exact while no other goroutine uses the Queue.
type Conservation struct {
	Receive  ReceiveFrames
	Transmit TransmitFrames
}

// ReceiveFrames says where the frames of the receive region are.
type ReceiveFrames struct {
	Frames   int
	FillRing int // Published, and not taken by the kernel.
	RXRing   int // Received, and not taken by us.
	Held     int // Taken from the fill ring, and not on the RX ring yet: with the driver.
	Lost     int // Bad descriptors.
}

// Sum is equal to Frames.
func (f ReceiveFrames) Sum() int { return f.FillRing + f.RXRing + f.Held + f.Lost }

// TransmitFrames says where the frames of the transmit region are.
type TransmitFrames struct {
	Frames         int
	Free           int
	Reserved       int // With the caller.
	TXRing         int // Committed, and not taken by the kernel.
	Held           int // Taken from the TX ring, and not completed yet: with the driver.
	CompletionRing int // Completed, and not taken by us.
	Lost           int // Bad descriptors.
}

// Sum is equal to Frames.
func (f TransmitFrames) Sum() int {
	return f.Free + f.Reserved + f.TXRing + f.Held + f.CompletionRing + f.Lost
}
