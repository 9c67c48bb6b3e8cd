package netstack

import (
	"errors"
	"math/bits"
	"slices"
	"time"
)

// budget bounds what the peers of one plane have not acknowledged, in bytes of the Go heap: thousands of slow readers must
// not take more than was planned, and must leave room for the others.
//
// While there is plenty, a connection's own bounds are all there is: its send buffer and writesMax. When room gets scarce,
// each may pin a share of what is left, so that the first to come cannot take everything, and something is always left; who
// has more already gets no more until its peer acknowledges. Whose peer owes nothing may always write writeMin bytes, which
// its own planned memory holds: acknowledgements and PINGRESP get through. Peers that acknowledge nothing for
// stuckSweepsMax sweeps while room is scarce have their connections reset, those that pin most first, until there is room.
//
// All of it is the plane's owner's.
type budget struct {
	maxBytes    int64
	scarceBelow int64 // bytes left, below which room is scarce
	pinnedBytes int64
	isScarce    bool      // it was found scarce, and sweeps go on until it is not
	sweepAt     time.Time // the next sweep
	counters    *counterSet
}

const (
	// scarceShare: while room is scarce, a connection may pin this part of what is left.
	scarceShare = 16

	// roomShare is the part of the budget that resets make free beyond what is scarce, so that it is not scarce at once.
	roomShare = 8

	// writeMin is what may be written when nothing is unacknowledged, however scarce room is.
	writeMin = 512

	// sweepEvery and stuckSweepsMax: a peer that acknowledges nothing for five seconds has no retransmissions to blame.
	sweepEvery     = time.Second
	stuckSweepsMax = 5

	// SendMemoryMinBytes is the least Config.SendMemoryBytes: some connections with default buffers have room to be slow.
	SendMemoryMinBytes = 1 << 20

	// segmentBytes is what the stack takes for a segment beside its payload, and segmentPayload how little that may be when
	// a Write is cut into segments.
	segmentBytes   = 800
	segmentPayload = 1400
)

// errStuck is what a connection says that was reset for the sake of others.
var errStuck = errors.New("reset: the client acknowledged nothing for seconds while memory for slow clients was used up")

func newBudget(c *Config, counters *counterSet) budget {
	full := heapOf(c.TCP.SendBufferBytes) + writesMax*segmentBytes
	return budget{maxBytes: c.SendMemoryBytes, scarceBelow: min(c.SendMemoryBytes/2, scarceShare*full), counters: counters}
}

// heapOf is what a Write of n bytes takes of the heap at most.
func heapOf(n int) int64 { return chunkOf(n) + int64(1+n/segmentPayload)*segmentBytes }

// chunkOf is the size of the stack's chunk for n bytes: a power of two.
func chunkOf(n int) int64 { return int64(1) << bits.Len(uint(max(n, 64)-1)) }

// room is how many of n bytes may be written to a flow now.
func (b *budget) room(f *flow, n int) int {
	left := b.maxBytes - b.pinnedBytes
	if left >= b.scarceBelow {
		return n
	}
	if !b.isScarce {
		b.isScarce, b.sweepAt = true, time.Now().Add(sweepEvery)
	}
	// Half of a share is payload, for what a Write takes can be twice its bytes.
	share := (left/scarceShare-f.pinnedBytes)/2 - segmentBytes
	if f.unacknowledged == 0 {
		share = max(share, writeMin)
	}
	if share < int64(n) {
		b.counters.sendLimited.Add(1)
	}
	return int(max(0, min(int64(n), share)))
}

// pin adds a Write to what a flow pins.
func (b *budget) pin(f *flow, n int) {
	heap := heapOf(n)
	f.unacknowledged += uint32(n)
	f.pinnedBytes += heap
	b.pinnedBytes += heap
}

// unpin takes away what an acknowledgement of n bytes sets free: their part of all that the flow pins.
func (b *budget) unpin(f *flow, n uint32) {
	freed := f.pinnedBytes
	if n < f.unacknowledged {
		freed = freed * int64(n) / int64(f.unacknowledged)
		f.unacknowledged -= n
	} else {
		f.unacknowledged = 0
	}
	f.pinnedBytes -= freed
	b.pinnedBytes -= freed
}

// forget takes away all that a flow pins.
func (b *budget) forget(f *flow) { b.unpin(f, f.unacknowledged) }

// sweep looks for peers that acknowledge nothing, and resets their connections while room is scarce.
func (p *Plane) sweep(now time.Time) {
	b := &p.budget
	if !b.isScarce || now.Before(b.sweepAt) {
		return
	}
	b.sweepAt = now.Add(sweepEvery)
	b.isScarce = b.maxBytes-b.pinnedBytes < b.scarceBelow
	if !b.isScarce {
		return
	}
	var stuck []*conn
	p.slab.each(func(c *conn) {
		f := c.flow
		if f.unacknowledged == 0 || f.peerAck != f.sweptAck {
			f.sweptAck, f.stuckSweeps = f.peerAck, 0
			return
		}
		if f.stuckSweeps++; f.stuckSweeps >= stuckSweepsMax && c.flags&untouchable == 0 {
			stuck = append(stuck, c)
		}
	})
	slices.SortFunc(stuck, func(a, b *conn) int { return int(b.flow.pinnedBytes - a.flow.pinnedBytes) })
	for _, c := range stuck {
		if b.maxBytes-b.pinnedBytes >= b.scarceBelow+b.maxBytes/roomShare {
			return
		}
		p.reset(c)
	}
}

// reset ends a connection whose peer is stuck.
func (p *Plane) reset(c *conn) {
	p.counters.stuckReset.Add(1)
	p.budget.forget(c.flow)
	c.endpoint.Abort()
	switch c.state {
	case open:
		c.cause = errStuck
		p.review(c)
		p.hasMore = true
	case lingering:
		p.closeEndpoint(c)
		p.finish(c)
	default:
		p.release(c)
	}
}
