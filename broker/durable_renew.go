package broker

import (
	"github.com/ringmq/ringmq/broker/record"
)

// renewal is the writing anew of all that memory has and that the store may have lost while it was in use: otherwise what is acknowledged from
// then on would belong to Sessions that the next run does not know. Queues are not part of it: what was in them is lost, or still there.
type renewal struct {
	doubt    uint32 // the last loss for which it was begun
	part     int    // of the registry, and then of the Retained Messages; registryParts + retainedParts: all is done
	sessions []*Session
	names    []string
}

// done says that all is written.
func (r *renewal) done() bool {
	return r.part == registryParts+retainedParts && len(r.sessions)+len(r.names) == 0
}

// renews says whether there is something to write anew, or that a loss was not seen before.
func (s *Shard) renews() bool {
	r := &s.stream.renewal
	return r.doubt != s.store.Doubt() || !r.done()
}

// renew writes anew, as far as there is room.
func (s *Shard) renew() {
	r := &s.stream.renewal
	if d := s.store.Doubt(); d != r.doubt {
		*r = renewal{doubt: d}
	}
	for !r.done() && s.streamRoom() && s.retainedLog.size.Load() < int64(s.limits.streamBytes()) {
		switch {
		case len(r.sessions) > 0:
			sess := r.sessions[len(r.sessions)-1]
			r.sessions = r.sessions[:len(r.sessions)-1]
			s.renewSession(sess)
		case len(r.names) > 0:
			s.renewRetained(r.names[len(r.names)-1])
			r.names = r.names[:len(r.names)-1]
		case r.part < registryParts:
			r.sessions = s.registry.of(r.part, s.present, r.sessions[:0])
			r.part++
		case s.id != 0: // One shard does it for all.
			r.part = registryParts + retainedParts
		default:
			r.names = s.retained.parts[r.part-registryParts].names(r.names[:0])
			r.part++
		}
	}
	if r.done() {
		r.sessions, r.names = nil, nil
	}
}

// renewSession writes a Session's records anew. One that a connection is about to have is written when that has it, see keepFirst.
func (s *Shard) renewSession(sess *Session) {
	k := sess.kept
	if _, claimed := s.claimants[sess]; claimed || !s.present(sess) || sess.arriving || k == nil {
		return
	}
	expiry, will, delay, offline := k.expiry, sess.will, sess.willDelay, s.offlineSince(sess)
	if expiry == neverExpires {
		offline = k.offline
	}
	if sess.conn != 0 {
		c := &s.conns[sess.conn]
		expiry, will, delay = c.sessionExpiry, c.will, c.willDelay
	}
	s.recordSession(sess, expiry, will, delay, offline)
	s.recordContent(sess)
}

// renewRetained logs what a topic has, if it still has something.
func (s *Shard) renewRetained(name string) {
	part := s.retained.part([]byte(name))
	part.mu.Lock()
	defer part.mu.Unlock()
	if has, ok := part.topics.Get(name); ok {
		s.logRetained(name, has.msg, false)
	}
}

// recordContent writes what belongs to a Session and is not in its queue.
func (s *Shard) recordContent(sess *Session) {
	for sub := sess.subs; sub != nil; sub = sub.next {
		s.recordSubscription(sess, sub, sub.cursor != nil)
	}
	for pid := range sess.receivedIDs(s) {
		s.stream.ops = record.AppendSet(s.stream.ops, record.ReceivedKey(s.keyRoom(), sess.kept.sid, pid), nil)
	}
}

// of appends the Sessions of a part for which is holds.
func (r *registry) of(part int, is func(*Session) bool, to []*Session) []*Session {
	p := &r.parts[part]
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, sess := range p.sessions {
		if is(sess) {
			to = append(to, sess)
		}
	}
	return to
}

// names appends the Topic Names of a part.
func (p *retainedPart) names(to []string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.topics.Scan(func(name string, _ retainedMessage) bool {
		to = append(to, name)
		return true
	})
	return to
}
