package netstack

// unreadBudget bounds what the connections of one plane have received and the broker has not read, in bytes of the Go heap. A
// broker that is told to wait (its receivers are slow, its memory is used up) pauses the publishers, and each of thousands may
// fill its receive buffer.
//
// While there is plenty, the receive buffers are the only bounds. When room gets scarce, segments are dropped, as Linux does above
// tcp_mem, once a connection has its share of what is left; its peer sends them again. The last part of the room is kept for
// connections that are not paused: what they send in a few turns fits. And the segment that the reader of such a connection waits
// for is always taken: so acknowledgements, PINGREQ and everybody who is not paused get through even when others have filled the
// room with what nobody can read, because there is a gap in front of it or it is damaged.
//
// What is not counted fits a turn: that segment, which is read at once, and those of connections that were not accepted yet, which
// the next turns are.
//
// All of it is the plane's owner's.
type unreadBudget struct {
	maxBytes    int64
	scarceBelow int64 // bytes left, below which room is scarce
	connMax     int64 // what one connection can hold at most
	bytes       int64
}

// unread is what a connection has received and nobody has read. A segment is counted when it goes to the stack, whatever the stack
// makes of it, and leaves the count when everything up to its end was read: so the count is never less than what is there. To need
// no list of segments, there are two generations: what came until mark, and what came since.
type unread struct {
	bytes   int64 // of the heap, of both generations
	older   int64 // of these, what came first
	mark    uint32
	end     uint32 // the sequence number behind the last byte that came
	read    uint32 // the one behind the last byte that was read
	isKnown bool   // read is right
	hasCome bool   // end is right
}

const (
	// unreadKept is the part of scarceBelow that is kept for connections that are not paused: 1 MiB with default buffers holds the
	// longest segments of five turns.
	unreadKept = 2

	// ReceiveMemoryMinBytes is the least Config.ReceiveMemoryBytes.
	ReceiveMemoryMinBytes = 1 << 20
)

func newUnreadBudget(c *Config, mtu int) unreadBudget {
	// The stack counts the bytes of segments, and their chunks may be almost twice as large.
	most := 2*int64(c.TCP.ReceiveBufferBytes) + heapOfSegment(mtu)
	return unreadBudget{maxBytes: c.ReceiveMemoryBytes, scarceBelow: min(c.ReceiveMemoryBytes/2, scarceShare*most), connMax: most}
}

// heapOfSegment is what the stack takes for a received packet of n bytes.
func heapOfSegment(n int) int64 { return chunkOf(n) + segmentBytes }

// mayTake tells whether a segment with payload may go to the stack, and counts it.
func (p *Plane) mayTake(f *flow, r *received) bool {
	isPaused := false
	if c := f.conn; c != nil {
		if c.state != open && c.state != lingering {
			return true // The stack keeps nothing for it.
		}
		isPaused = c.state == open && c.flags&paused != 0
	}
	last, isAnswered := f.lastAck()
	if past := r.seq + uint32(r.payload) - last; isAnswered && past-1 >= uint32(p.config.TCP.ReceiveBufferBytes) {
		return true // The stack has these bytes already, or they are beyond its window: it keeps nothing.
	}
	b, u := &p.unread, &f.unread
	cost := min(heapOfSegment(r.end-r.network), b.connMax-u.bytes)
	if f.isLive && !b.hasRoom(u.bytes, cost, isPaused) {
		return !isPaused && (!isAnswered || int32(r.seq-last) <= 0)
	}
	if end := r.seq + uint32(r.payload); !u.hasCome || int32(end-u.end) > 0 {
		u.end, u.hasCome = end, true
	}
	u.bytes += cost
	if f.isLive {
		b.bytes += cost
	}
	return true
}

// hasRoom tells whether a connection that holds so many bytes may hold more.
func (b *unreadBudget) hasRoom(held, more int64, isPaused bool) bool {
	left := b.maxBytes - b.bytes
	if left >= b.scarceBelow {
		return true
	}
	if isPaused {
		left -= b.scarceBelow / unreadKept
	}
	return held+more <= left/scarceShare
}

// adopt counts what a connection has received before it was accepted.
func (b *unreadBudget) adopt(f *flow) { b.bytes += f.unread.bytes }

// took takes away what a Read of n bytes sets free.
func (b *unreadBudget) took(f *flow, n int) {
	u := &f.unread
	if !u.isKnown {
		return
	}
	u.read += uint32(n)
	switch {
	case int32(u.read-u.end) >= 0: // More with the number of a FIN.
		b.forget(f)
	case int32(u.read-u.mark) >= 0:
		b.bytes -= u.older
		u.bytes -= u.older
		u.older, u.mark = u.bytes, u.end
	}
}

// learn finds out how far a connection was read: nothing is left of it, and the acknowledgement that was the last before that was
// seen is the last one still. Every segment in order is acknowledged as it comes.
func (b *unreadBudget) learn(f *flow, acked uint32) {
	u := &f.unread
	u.read, u.mark, u.isKnown = acked, acked, true
	if !u.hasCome {
		u.end, u.hasCome = acked, true
	}
	b.took(f, 0)
}

// forget takes away all that a connection holds.
func (b *unreadBudget) forget(f *flow) {
	b.bytes -= f.unread.bytes
	f.unread.bytes, f.unread.older, f.unread.mark = 0, 0, f.unread.end
}

// lastAck is the last acknowledgement number that the stack has sent, or believes to have.
func (f *flow) lastAck() (ack uint32, ok bool) {
	if f.held != nil {
		return f.held.ack, true
	}
	return f.acked, f.answered
}

// lastAck is flow.lastAck for who does not hold the link's mutex.
func (p *Plane) lastAck(f *flow) (ack uint32, ok bool) {
	p.link.mu.Lock()
	defer p.link.mu.Unlock()
	return f.lastAck()
}
