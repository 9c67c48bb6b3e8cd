package netstack

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

const (
	ownerStripes = 64

	// inboxMax bounds the frames that wait for a plane to take them over. Beyond it they are dropped; TCP sends again.
	inboxMax = 256
)

// ownerTable says which plane owns a connection, for frames that arrive on another queue: a NIC's queues are chosen by
// a hash that ethtool changes, and on veth by the sender's, which Linux redraws after a retransmission timeout. It is
// asked only for frames whose flow the receiving plane does not know.
type ownerTable struct {
	seed    maphash.Seed
	stripes [ownerStripes]ownerStripe
	isAlone bool // there is one plane: nothing to keep
}

type ownerStripe struct {
	mu     sync.RWMutex // guards owners
	owners map[flowKey]*Plane
	_      [32]byte // stripes do not share a cache line
}

func newOwnerTable(planes int) *ownerTable {
	t := &ownerTable{seed: maphash.MakeSeed(), isAlone: planes == 1}
	for i := range t.stripes {
		t.stripes[i].owners = map[flowKey]*Plane{}
	}
	return t
}

func (t *ownerTable) stripe(key *flowKey) *ownerStripe {
	return &t.stripes[maphash.Comparable(t.seed, *key)%ownerStripes]
}

func (t *ownerTable) add(key *flowKey, p *Plane) {
	if t.isAlone {
		return
	}
	s := t.stripe(key)
	s.mu.Lock()
	s.owners[*key] = p
	s.mu.Unlock()
}

// remove forgets a key, unless another plane has taken it meanwhile.
func (t *ownerTable) remove(key *flowKey, p *Plane) {
	if t.isAlone {
		return
	}
	s := t.stripe(key)
	s.mu.Lock()
	if s.owners[*key] == p {
		delete(s.owners, *key)
	}
	s.mu.Unlock()
}

func (t *ownerTable) find(key *flowKey) *Plane {
	if t.isAlone {
		return nil
	}
	s := t.stripe(key)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.owners[*key]
}

// inbox is where planes put copies of frames that belong to this one.
type inbox struct {
	mu     sync.Mutex
	frames [][]byte // waiting, oldest first
	spare  [][]byte // buffers for more; with frames never more than inboxMax

	// filled is written under mu and read by the owner without it, in every turn.
	filled atomic.Bool
	taken  [][]byte // the owner's
}

// put copies a frame; false means that there is no room.
func (b *inbox) put(frame []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.frames) == inboxMax {
		return false
	}
	var room []byte
	if n := len(b.spare); n > 0 {
		room, b.spare = b.spare[n-1], b.spare[:n-1]
	}
	b.frames = append(b.frames, append(room[:0], frame...))
	b.filled.Store(true)
	return true
}

// take returns the waiting frames, which are the owner's until giveBack.
func (b *inbox) take() [][]byte {
	if !b.filled.Load() {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.frames, b.taken = b.taken[:0], b.frames
	b.filled.Store(false)
	return b.taken
}

// giveBack makes the taken frames' memory available again.
func (b *inbox) giveBack() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, frame := range b.taken {
		if len(b.spare) < inboxMax {
			b.spare = append(b.spare, frame)
		}
		b.taken[i] = nil
	}
	b.taken = b.taken[:0]
}

// handOver gives a frame of another plane's connection to that plane; done is false when it is nobody else's.
func (p *Plane) handOver(r *received, frame []byte, mayHandOver bool) (why dropReason, done bool) {
	owner := p.group.owners.find(&r.key)
	if owner == nil || owner == p {
		return keep, false
	}
	// A frame that was handed over already, whose connection is neither here any more: somebody let go of it just now.
	if !mayHandOver || !owner.inbox.put(frame) {
		return inboxFull, true
	}
	p.counters.handedOver.Add(1)
	owner.stir()
	return keep, true
}
