package broker

import (
	"sync"

	"github.com/ringmq/ringmq/broker/topic"
)

// registryParts is the number of independently locked parts of the registry.
const registryParts = 64

// registry maps Client Identifiers to Sessions, on whatever shard they live. Its locks are held for a map access only.
// Which part an identifier falls to nobody can choose: a map of Go keeps its largest room, and each part could be made to hold all Sessions
// in its turn.
type registry struct {
	index *topic.Index[*subscription] // for its hash
	parts [registryParts]registryPart
}

type registryPart struct {
	mu       sync.Mutex
	sessions map[string]*Session
	_        [48]byte // a cache line each
}

func newRegistry(index *topic.Index[*subscription]) *registry {
	r := &registry{index: index}
	for i := range r.parts {
		r.parts[i].sessions = make(map[string]*Session)
	}
	return r
}

func (r *registry) part(clientID string) *registryPart {
	return &r.parts[r.index.Hash([]byte(clientID))%registryParts]
}

// claimSession makes shard the owner-to-be of the client's Session and returns the Session, the number of the claim and
// the shard that owned it before; create makes a new one, or nil where there is no room, when there is none.
func (r *registry) claimSession(clientID string, shard int, create func() *Session) (sess *Session, claim uint32, from int) {
	p := r.part(clientID)
	p.mu.Lock()
	defer p.mu.Unlock()
	sess = p.sessions[clientID]
	if sess == nil {
		if sess = create(); sess != nil {
			p.sessions[clientID] = sess
		}
		return sess, 0, shard
	}
	from = int(sess.owner)
	if from != shard {
		sess.owner = int32(shard)
		sess.claim++
	}
	return sess, sess.claim, from
}

// find is a client's Session; nil when it has none.
func (r *registry) find(clientID string) *Session {
	p := r.part(clientID)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sessions[clientID]
}

// isKept says whether a client has a Session that is kept, and whether it has one of which the store may not know all yet.
func (r *registry) isKept(clientID string) (kept, unsure bool) {
	p := r.part(clientID)
	p.mu.Lock()
	defer p.mu.Unlock()
	sess := p.sessions[clientID]
	return sess != nil && sess.durable.Load(), sess != nil && sess.unsure.Load()
}

// remove forgets a Session that ended on shard, its home; false when it was claimed in the meantime, and the claimant
// gets it.
func (r *registry) remove(sess *Session, shard int) bool {
	p := r.part(sess.clientID)
	p.mu.Lock()
	defer p.mu.Unlock()
	if int(sess.owner) != shard || sess.claim != sess.tenure {
		return false
	}
	delete(p.sessions, sess.clientID)
	return true
}
