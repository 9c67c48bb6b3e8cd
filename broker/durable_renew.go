package broker

import (
	"github.com/ringmq/ringmq/broker/record"
)

// renewBytes is how much one batch has of what is written anew, however much else waits: some thousand Sessions.
const renewBytes = 256 << 10

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

// renewed is the last loss since which all Sessions are written; 0 while some are not.
func (r *renewal) renewed() uint32 {
	if r.part < registryParts || len(r.sessions) > 0 {
		return 0
	}
	return r.doubt
}

// renews says whether there is something to write anew, or that a loss was not seen before.
func (s *Shard) renews() bool {
	r := &s.stream.renewal
	return r.doubt != s.store.Doubt() || !r.done()
}

// renew writes anew what one batch takes of it. That is not what clients send, so there is room for it when there is none for them: whatever they
// have acknowledged meanwhile needs it.
func (s *Shard) renew() {
	r := &s.stream.renewal
	if d := s.store.Doubt(); d != r.doubt {
		*r = renewal{doubt: d}
		s.tellLoss()
	}
	written := func() int { return len(s.stream.ops) + int(s.retainedLog.size.Load()) }
	for most := written() + min(renewBytes, s.limits.streamBytes()/4); !r.done() && written() < most; {
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

// tellLoss has the other shards look at what the store has lost, and at who has written it anew.
func (s *Shard) tellLoss() {
	for to := range s.peers {
		if to != s.id {
			s.push(to, shardMessage{kind: durableMessage})
		}
	}
}

// isWhole says whether the store has all Sessions, of all shards, whatever it has lost.
func (s *Shard) isWhole() bool {
	doubt := s.store.Doubt()
	for i := range s.renewed {
		if s.renewed[i].Load() < doubt {
			return false
		}
	}
	return true
}

// completeWhole completes a batch that is durable, or keeps it back while Sessions that the store has lost are not written anew, on whatever shard: what it
// acknowledges may be theirs. Batches go on meanwhile, for they bring them.
func (s *Shard) completeWhole(b *batch) {
	st := s.stream
	if b.renewed > s.renewed[s.id].Load() {
		s.renewed[s.id].Store(b.renewed)
		s.tellLoss()
	}
	if !st.holds && s.isWhole() {
		s.complete(b)
		return
	}
	st.held.until, st.held.actions, st.holds = b.until, append(st.held.actions, b.actions...), true
	s.completeHeld()
}

// completeHeld completes what completeWhole has kept back, when it can.
func (s *Shard) completeHeld() {
	st := s.stream
	if !st.holds || !s.isWhole() {
		return
	}
	b := st.held
	st.held, st.holds = batch{}, false
	s.complete(&b)
	s.roomAgain = true
}

// renewSession writes a Session's records anew, if they were not since the last loss. One that moves is written before it leaves, and by its new home from
// then on.
func (s *Shard) renewSession(sess *Session) {
	if !s.present(sess) || sess.kept == nil || !s.renewContent(sess) {
		return
	}
	k := sess.kept
	if w, ok := s.claimants[sess]; ok && w.storing {
		if id := s.connOf(w.token); id != 0 { // see keepFirst
			c := &s.conns[id]
			s.recordSession(sess, c.sessionExpiry, c.will, c.willDelay, 0)
			return
		}
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
}

// renewContent writes what belongs to a Session anew, if it was not since the last loss; false: it was. What is there goes first, for the store may have
// brought back what had ended. The Session's own record must follow in the same batch.
func (s *Shard) renewContent(sess *Session) bool {
	k := sess.kept
	if k.written == s.store.Doubt() {
		return false
	}
	for _, kind := range [...]record.Kind{record.KindSubscription, record.KindReceived} {
		from, to := record.Bounds(kind, k.sid)
		s.stream.ops = record.AppendDeleteRange(s.stream.ops, from, to)
	}
	s.recordContent(sess)
	if k.sentTo > 0 {
		s.recordSent(k)
	}
	return true
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

// recordContent writes what belongs to a Session and is not in its queue, but for what publications bring that are still to be handed over.
func (s *Shard) recordContent(sess *Session) {
	k := sess.kept
	k.written = s.store.Doubt()
	for sub := sess.subs; sub != nil; sub = sub.next {
		s.recordSubscription(sess, sub, sub.cursor != nil)
	}
	coming := s.stream.receiving(sess)
	for pid := range sess.receivedIDs(s) {
		if t := coming[pid]; t != nil {
			if t.kept == nil { // which is kept since it was begun
				t.kept = k
				t.ops = record.AppendSet(t.ops, record.ReceivedKey(s.keyRoom(), k.sid, pid), nil)
			}
			continue
		}
		s.stream.ops = record.AppendSet(s.stream.ops, record.ReceivedKey(s.keyRoom(), k.sid, pid), nil)
	}
}

// receiving are the tickets of a Session's PUBLISH packets of QoS 2 that are still to be handed over, by Packet Identifier.
func (st *stream) receiving(sess *Session) (by map[uint16]*ticket) {
	if sess.receivedLen == 0 {
		return nil
	}
	for _, t := range st.tickets[st.handed-st.first:] {
		if t.sess == sess && !t.again {
			if by == nil {
				by = make(map[uint16]*ticket)
			}
			by[t.pid] = t
		}
	}
	return by
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
