package xdp

// region is a part of a umem: count frames of size bytes each, from address on.
type region struct {
	umem    []byte
	address uint64
	count   uint32
	size    uint64
}

// at gives the frame's address.
func (r *region) at(frame uint32) uint64 { return r.address + uint64(frame)*r.size }

// frame is the index of the frame that an address lies in; false if that is not in the region.
func (r *region) frame(address uint64) (uint32, bool) {
	if address < r.address {
		return 0, false
	}
	frame := (address - r.address) / r.size
	return uint32(frame), frame < uint64(r.count)
}

// receiver is the receive half of a socket. The life of a receive frame: on the fill ring from the start; the driver takes it
// (held) and writes a packet into it; on the RX ring; delivered, and at once on the fill ring again. It is never anywhere else,
// so that a slow reader of packets cannot keep one.
type receiver struct {
	region
	fill     producing[uint64]
	rx       consuming[descriptor]
	given    uint32 // Frames that the kernel has: put on the fill ring and not taken from the RX ring.
	lost     uint32
	counters *receiveCounters
}

// prime gives all frames to the kernel: before the socket is seen by anybody.
func (r *receiver) prime() {
	for frame := range r.count {
		r.fill.put(r.at(frame))
	}
	r.given = r.count
	r.fill.publish()
}

// receive is Queue.Receive on this socket.
func (r *receiver) receive(most int, deliver func(frame []byte)) int {
	n := int(min(uint32(max(most, 0)), r.rx.available()))
	if n == 0 {
		return 0
	}
	bytes, good := uint64(0), uint64(0)
	for range n {
		d := r.rx.take()
		frame, ok := r.frame(d.address)
		if !ok || d.address+uint64(d.length) > r.at(frame)+r.size {
			r.lost++
			r.given--
			r.counters.bad.Add(1)
			continue
		}
		// On the fill ring before deliver sees it, but published after: should deliver panic, the frame is not lost.
		r.fill.put(r.at(frame))
		good++
		bytes += uint64(d.length)
		deliver(r.umem[d.address : d.address+uint64(d.length) : d.address+uint64(d.length)])
	}
	r.rx.release()
	r.fill.publish()
	r.counters.frames.Add(good)
	r.counters.bytes.Add(bytes)
	return n
}

// where says where the frames are. Between receives only the kernel moves them.
func (r *receiver) where() ReceiveFrames {
	fill, rx := r.fill.untaken(), r.rx.available()
	return ReceiveFrames{
		Frames:   int(r.count),
		FillRing: int(fill),
		RXRing:   int(rx),
		Held:     int(r.given) - int(fill) - int(rx),
		Lost:     int(r.lost),
	}
}
