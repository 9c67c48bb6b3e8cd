package netstack

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// flow is one connection as frames see it: how to reach the remote, and what was last sent. It begins with a SYN.
type flow struct {
	key  flowKey
	link linkAddr

	// conn is the connection that came of the handshake; nil while it is one.
	conn *conn

	// held is a pure ACK that waits to be superseded; nil: none. It is sent when it is due. When the last was that nothing had
	// superseded, zero once data has come since, tells in judge whether the remote waits for them; so do calm and relapses.
	held       *heldACK
	due        time.Duration
	releasedAt time.Duration
	calm       uint32
	relapses   uint8
	unacked    uint8         // segments of data since anything was sent, up to heldMessages
	handshake  time.Duration // how long it took; before that, when it began

	start   uint32 // the sequence number of the first byte that was or will be written
	peerAck uint32 // the highest acknowledgement number that came
	wanted  uint32 // the one that waiter waits for
	waiter  *conn  // nil: nobody waits

	// What the peer has not acknowledged, in bytes and in bytes of heap; see budget, and sweep for the others.
	unacknowledged uint32
	sweptAck       uint32
	pinnedBytes    int64
	stuckSweeps    uint8
	probedAck      uint32 // the acknowledgement number last sent when silent connections were last looked for

	unread unread // the plane's owner's

	acked  uint32 // the acknowledgement number last sent
	sent   uint32 // the sequence number behind the last byte sent
	window uint16 // last sent, unscaled

	isV6       bool
	isLive     bool // a connection that was accepted; otherwise a handshake
	isListed   bool // in the table
	isReborn   bool // a SYN has come since it was live
	isPoisoned bool // processing one of its frames has panicked
	answered   bool // acked, sent and window are known
}

// acceptable tells whether a segment could be the remote's: only it, and who reads along, knows these numbers. It may
// be a window behind: when a router fails, what comes first by another one is what the failed one lost the answer to.
func (f *flow) acceptable(r *received, windowBytes int) bool {
	window := uint32(windowBytes)
	return f.answered && r.flags&tcpAck != 0 && r.flags&tcpSyn == 0 &&
		r.seq-f.acked+window <= 2*window && f.sent-r.ack <= sentWindowMax
}

// hear notes what a segment acknowledges. Who forges it makes a connection take more memory for a while, no more.
func (f *flow) hear(r *received, b *budget) {
	if r.flags&tcpAck == 0 || !f.answered || f.sent-r.ack > sentWindowMax || int32(r.ack-f.peerAck) <= 0 {
		return
	}
	b.unpin(f, r.ack-f.peerAck)
	f.peerAck = r.ack
	if c := f.waiter; c != nil && int32(f.wanted-r.ack) <= 0 {
		f.waiter = nil
		c.NotifyEvent(waiter.WritableEvents)
	}
}

// plausible tells whether an ICMP error can be about something that was sent.
func (f *flow) plausible(r *received) bool { return f.answered && f.sent-r.seq <= sentWindowMax }

// sentWindowMax is how far behind the last byte sent the oldest one under way can be: no send buffer is larger.
const sentWindowMax = bufferBytesMax

// flowTable holds the flows of one plane. The link's mutex guards it.
type flowTable struct {
	flows map[flowKey]*flow
	free  []*flow // given back; bounded by what was once in use

	// handshakes are the keys of flows that were not live when they came, oldest first, as a ring. Beyond its size the
	// oldest is forgotten: then the remote's address on the link is known from its last segment only.
	handshakes []flowKey
	next       int
	halfOpen   int // flows that are not live; changed by the plane's owner only, who may read it without the mutex
}

func newFlowTable(handshakesMax int) flowTable {
	return flowTable{flows: map[flowKey]*flow{}, handshakes: make([]flowKey, handshakesMax)}
}

func (t *flowTable) find(key *flowKey) *flow { return t.flows[*key] }

// mayTrack tells whether one more handshake is to be tracked now, and finds a place for it. One that has begun lately keeps
// its place: in a flood of SYNs the later ones are answered with SYN cookies, which every plane knows, while those that the
// stack keeps must be found when their next segment arrives on another queue.
func (t *flowTable) mayTrack(now time.Duration) bool {
	for range placesMax {
		old := t.flows[t.handshakes[t.next]]
		if old == nil || old.isLive || now-old.handshake > trackedMin {
			return true
		}
		t.next = (t.next + 1) % len(t.handshakes)
	}
	return false
}

const (
	// trackedMin is how long a handshake keeps its place: a SYN and an acknowledgement may each be sent again once.
	trackedMin = 3 * time.Second

	// placesMax bounds the search for a place among those of handshakes that have begun lately.
	placesMax = 8
)

// add makes a flow of a handshake; evicted is the key of the one it displaced.
func (t *flowTable) add(key *flowKey, isV6 bool, to linkAddr) (f *flow, evicted flowKey, hasEvicted bool) {
	if old := t.flows[t.handshakes[t.next]]; old != nil && !old.isLive && old.held == nil {
		evicted, hasEvicted = old.key, true
		t.remove(old)
	}
	t.handshakes[t.next] = *key
	t.next = (t.next + 1) % len(t.handshakes)
	f = t.take()
	*f = flow{key: *key, isV6: isV6, link: to, isListed: true}
	t.flows[*key] = f
	t.halfOpen++
	return f, evicted, hasEvicted
}

func (t *flowTable) take() *flow {
	if n := len(t.free); n > 0 {
		f := t.free[n-1]
		t.free = t.free[:n-1]
		return f
	}
	return new(flow)
}

// promote says that the handshake has become a connection.
func (t *flowTable) promote(f *flow) {
	if !f.isLive {
		f.isLive = true
		t.halfOpen--
	}
}

// remove forgets a flow.
func (t *flowTable) remove(f *flow) {
	if !f.isListed {
		return
	}
	t.abandon(f)
	t.free = append(t.free, f)
}

// abandon takes a flow out of the table that somebody still has, so that it is not reused.
func (t *flowTable) abandon(f *flow) {
	delete(t.flows, f.key)
	f.isListed = false
	if !f.isLive {
		t.halfOpen--
	}
}

func (t *flowTable) each(do func(*flow)) {
	for _, f := range t.flows {
		do(f)
	}
}

// KUID and KGID implement tcpip.PacketOwner, which is how the link gets the flow of a packet without a search.
func (f *flow) KUID() uint32 { return 0 }
func (f *flow) KGID() uint32 { return 0 }

var _ tcpip.PacketOwner = (*flow)(nil)
