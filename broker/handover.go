package broker

import (
	"slices"

	"github.com/ringmq/ringmq/broker/packet"
)

// A Session moves from its old home A to the shard B where its client has connected anew. No message may be lost,
// doubled or overtaken on the way, and no shard may stop. The steps:
//
//  1. B claims the Session in the registry and asks A for it (take).
//  2. A reads the old connection once more, closes it (0x8E), lets go of the Session, and in one change of the index makes B
//     its home from epoch M on. From here on A touches nothing of it. A sends it to B (hand-over) and asks every shard
//     for a mark.
//  3. B attaches the connection and answers CONNECT, but sends no application message yet: what comes directly is held.
//  4. A shard that matched a publication at an epoch before M has sent it to A, which forwards it to B if the
//     Session's subscriptions match; one that matched at M or later has sent it to B, which ignores it for this Session
//     if it was matched before M. What was matched before A became the home itself went to the home before, and A forwards none of it: it
//     may reach A still, for other Sessions there. So each publication reaches the Session once. Publications carry their epoch.
//  5. A shard's mark comes behind all it had sent to A. When A has all marks it tells B (arrived), behind all that it
//     forwarded. B puts what it held behind what was forwarded, and sends.
//
// A matcher that loaded an epoch before M may read the home after A changed it: homeAt answers with the old one then.
// B does not give the Session away again before it has arrived, so two moves never overlap.

// departure is a Session that this shard gave away and may still have to forward for.
type departure struct {
	session *Session
	since   uint64 // the epoch from which on this shard was the home
	epoch   uint64 // and from which on it is not
	to      int
	seen    []bool // shards whose mark has come
	missing int
	sent    int // forwarded; bounded like the Session's queue
}

// claimant is a connection that waits for a Session.
type claimant struct {
	token   uint64
	claim   uint32
	storing bool // the Session is here, and its record is on its way to the store
}

// takeRequest is another shard's claim that must wait until the Session has arrived here.
type takeRequest struct {
	from  int
	claim uint32
	clean bool
}

// parting is a Session that leaves in the next turn, or some time later: see Part. With an heir it leaves its connection only,
// for another one of this shard.
type parting struct {
	session *Session
	request takeRequest
	heir    uint64 // the token of that connection; 0: the Session is another shard's
	until   int64  // milliseconds, when it leaves at the soonest if its connection lives; 0: Part has not seen it yet
	calm    int    // turns since then in which the plane had nothing more
	behind  int    // turns in which its connection had yielded
	after   uint64 // tickets below must have been handed over; 0: not looked at yet
}

// present says whether the Session is this shard's to touch.
func (s *Shard) present(sess *Session) bool { return int(sess.home.Load()) == s.id }

// awaitSession makes connection id wait for a Session that is on its way, and asks for it when that is its turn.
func (s *Shard) awaitSession(id uint32, sess *Session, claim uint32, from int) {
	if old, ok := s.claimants[sess]; ok {
		s.supersede(old)
	}
	s.claimants[sess] = claimant{token: token(id, s.conns[id].generation), claim: claim}
	if from != s.id {
		s.push(from, shardMessage{kind: takeMessage, session: sess, claim: claim, clean: s.conns[id].is(connClean)})
	}
}

// supersede refuses a connection that waits for a Session which a later connection has claimed.
func (s *Shard) supersede(old claimant) {
	if id := s.connOf(old.token); id != 0 && s.conns[id].state == connClaim {
		s.counters[CounterTakeovers]++
		s.refuse(id, packet.ServerBusy) // Section 3.1.4: a later connection has the Client Identifier.
	}
}

// onTake gives a Session away, now or when it has arrived here itself.
func (s *Shard) onTake(from int, m *shardMessage) {
	r := takeRequest{from: from, claim: m.claim, clean: m.clean}
	if !s.present(m.session) || m.session.arriving || m.claim != m.session.tenure+1 {
		s.takes[m.session] = append(s.takes[m.session], r)
		return
	}
	s.part(m.session, r)
}

// part gives a Session away, but not before its connection has been read once more: what the client had sent before it
// connected anew counts, a DISCONNECT above all, which deletes its Will [MQTT-3.1.2-10]. CONNECT and DISCONNECT came to
// two shards, and nothing but this orders them.
func (s *Shard) part(sess *Session, r takeRequest) {
	if sess.conn == 0 && sess.kept == nil && !sess.succeeded { // otherwise an heir of this shard comes first
		s.give(sess, r)
		return
	}
	s.partings = append(s.partings, parting{session: sess, request: r})
}

// Parting appends the connections whose Sessions are about to leave: the Loop reads each once more and then calls Part.
func (s *Shard) Parting(ids []uint32) []uint32 {
	for i := range s.partings {
		if p := &s.partings[i]; s.isToBeRead(p) {
			ids = append(ids, p.session.conn)
		}
	}
	return ids
}

// isToBeRead says whether a Session that leaves has a connection that is read first. One with an heir may have left for another shard
// meanwhile, and have a connection there.
func (s *Shard) isToBeRead(p *parting) bool { return s.present(p.session) && p.session.conn != 0 }

// IsParting says whether Part has yet to see a Session that leaves: the next turn must not wait.
func (s *Shard) IsParting() bool {
	n := len(s.partings)
	return n > 0 && s.partings[n-1].until == 0
}

const (
	// calmTurns: what a plane has taken in one turn may show in the next only.
	calmTurns = 2

	// partLags bounds the wait for a plane that never has nothing more, in lags.
	partLags = 10

	// partTurns bounds the wait for a connection whose input yields, and never is all handled, in turns.
	partTurns = 1000
)

// Part gives away the Sessions of Parting. Bytes that came before the request may be on their way through a plane for lag
// milliseconds; is it late, the plane had more than it could take in this turn, and they may be among that. A Session
// whose connection has ended need not wait.
func (s *Shard) Part(lag int64, isLate bool) {
	later := s.partings[:0]
	for _, p := range s.partings {
		if p.until == 0 {
			p.until = max(s.now, 1) + lag
		}
		if s.now >= p.until && !isLate {
			p.calm++
		}
		if s.isToBeRead(&p) {
			waits := lag > 0 && p.calm < calmTurns && s.now < p.until+partLags*lag
			if s.conns[p.session.conn].isBehind() {
				p.behind++
				waits = waits || p.behind < partTurns
			}
			if waits {
				later = append(later, p)
				continue
			}
		}
		if p.heir != 0 {
			s.succeed(p)
			continue
		}
		if !s.mayGive(&p) {
			later = append(later, p)
			continue
		}
		s.give(p.session, p.request)
	}
	clear(s.partings[len(later):])
	s.partings = later
	s.settle()
}

// awaitLocal makes connection id wait until the Session's connection on this very shard has been read to what came before it:
// on a plane that is late, a CONNECT can show before a DISCONNECT that was sent before it.
func (s *Shard) awaitLocal(id uint32, sess *Session, claim uint32) {
	heir := token(id, s.conns[id].generation)
	s.claimants[sess] = claimant{token: heir, claim: claim}
	sess.succeeded = true // It does not end with its connection.
	s.partings = append(s.partings, parting{session: sess, heir: heir})
}

// succeed lets the heir have the Session, unless a later connection waits for it.
func (s *Shard) succeed(p parting) {
	sess := p.session
	if !s.present(sess) {
		return
	}
	w, ok := s.claimants[sess]
	if !sess.succeeded || ok && w.token != p.heir {
		return
	}
	delete(s.claimants, sess)
	if id := s.connOf(w.token); ok && id != 0 && s.conns[id].state == connClaim {
		s.setUser(sess, s.refs[id].connect.user)
		s.takeOverLocal(sess, id)
		s.attach(id, sess)
		s.resumeInput(id)
		return
	}
	// The heir is gone, but it was there [MQTT-3.1.4-3].
	sess.succeeded = false
	if sess.conn != 0 {
		s.endForTake(sess)
	} else if sess.expiry == 0 && !sess.arriving {
		s.expire(sess)
	}
}

// partDeadline is when Part has something to do again.
func (s *Shard) partDeadline(at int64) int64 {
	for i := range s.partings {
		switch p := &s.partings[i]; {
		case s.isToBeRead(p):
			at = min(at, p.until)
		case p.after == 0 || s.mayGive(p): // otherwise the store, or another shard, wakes the Loop
			return s.now
		}
	}
	return at
}

// give is step 2.
func (s *Shard) give(sess *Session, r takeRequest) {
	s.catchUp(sess)
	s.endForTake(sess)
	if w, ok := s.claimants[sess]; ok && w.storing {
		delete(s.claimants, sess)
		s.supersede(w)
	}
	if r.clean {
		s.cleanSession(sess)
	}
	s.releaseWill(sess, false)
	s.wheel.stop(s.expiryTimer(sess))
	s.unpump(sess)
	sess.hungry, sess.succeeded, sess.lingers = false, false, 0 // the new home sends what it can when it has arrived
	d := &departure{session: sess, to: r.from, seen: make([]bool, len(s.peers)), missing: len(s.peers) - 1}
	sess.arriving, sess.tenure = true, r.claim
	if k := sess.kept; k != nil {
		s.renewSession(sess)
		s.handOver() // what this shard has for the store comes before what the new home will have
		if k.dirty {
			s.handOver() // there was nothing to write, and what was durable with that has let go of entries of this Session
		}
		k.nextLoad()
		k.forward, k.jumped = k.next, k.next+forwardPositions
		k.next = k.jumped
	}
	s.update(sess, func(next uint64) {
		d.since, d.epoch = sess.movedAt.Load(), next
		sess.prev = int32(s.id)
		sess.movedAt.Store(next)
		s.peers[r.from].arriving.Add(1)
		sess.home.Store(int32(r.from)) // From here on the Session is the other shard's.
	})
	d.seen[s.id] = true
	s.departures[sess], s.departed = d, d.epoch
	s.push(r.from, shardMessage{kind: handOverMessage, session: sess, claim: r.claim})
	for to := range s.peers {
		if to != s.id {
			s.push(to, shardMessage{kind: markRequest, leaving: d})
		}
	}
}

// forward is step 4 at the old home, for what another shard matched at an epoch: one copy for each subscription that matches, whatever it is by
// now. The new home knows which of them count.
func (s *Shard) forward(from int, p *publication, epoch uint64) {
	c := &s.cache
	c.found = c.index.MatchSnapshot(p.topic, c.found[:0])
	s.work += len(c.found)
	for _, sub := range c.found {
		if sub.session == nil || sub.session.movedAt.Load() <= epoch {
			continue
		}
		d := s.departures[sub.session]
		if d == nil || d.seen[from] || epoch < d.since || d.epoch <= epoch ||
			sub.isOver() || sub.options.noLocal() && p.from == sub.session.serial {
			continue
		}
		name := forwardKey{sub.session, sub.filter}
		if _, again := s.forwarded[name]; again {
			continue // what replaces it is there already, and it is there still
		}
		s.forwarded[name] = struct{}{}
		if d.sent >= s.forwardMax(d.session) {
			s.counters[CounterDroppedQueue]++
			continue
		}
		d.sent++
		s.ms.retain(p.msg, 1)
		m := shardMessage{kind: forwardMessage, msg: p.msg, sub: sub}
		if p.ticket != 0 {
			s.share(p, d.to, &m, true)
		}
		s.push(d.to, m)
	}
	clear(s.forwarded)
	clear(c.found)
}

// forwardKey names a subscription of a Session that has left.
type forwardKey struct {
	session *Session
	filter  string
}

// onForward is step 4 at the new home.
func (s *Shard) onForward(m *shardMessage) {
	p := &s.pub
	s.load(p, m.msg)
	s.borrow(p, m)
	sess := m.sub.session
	share := ""
	if m.sub.group != nil {
		share = m.sub.group.name
	}
	var sub *subscription
	if s.present(sess) && !sess.ended.Load() {
		sub = s.findSubscription(sess, share, m.sub.filter)
	}
	if sub != nil && sub.state&subYoung == 0 {
		r := sub.receiver()
		flags := min(p.qos, r.qos)
		if p.retain && r.asIs {
			flags |= entryRetain
		}
		if m.sub.group != nil {
			s.viaGroup = m.sub.group.number
		}
		if id := s.newEntry(p.msg, flags, &r); id == 0 {
			s.noMemory(p, sess, flags&entryQoS)
		} else {
			arriving := sess.arriving
			sess.arriving = false // behind what was forwarded before, not among what is held
			if s.mayWait(sess, id) {
				if s.stream != nil {
					s.markEntry(p, sess, id, true)
				}
				s.queueEntry(sess, id)
			}
			sess.arriving = arriving
		}
		s.viaGroup = 0
	} else if m.sub.group != nil {
		s.redirect(p, m.sub.group)
	}
	s.finish(p)
}

// onHandOver is step 3.
func (s *Shard) onHandOver(m *shardMessage) {
	sess := m.session
	w, ok := s.claimants[sess]
	if !ok || w.claim != m.claim {
		return
	}
	delete(s.claimants, sess)
	id := s.connOf(w.token)
	if id == 0 || s.conns[id].state != connClaim {
		return
	}
	if sess.conn != 0 {
		// A later connection of this shard found the Session here before the hand-over was read.
		s.supersede(w)
		return
	}
	s.setUser(sess, s.refs[id].connect.user)
	if s.conns[id].is(connClean) {
		s.cleanSession(sess) // the claim may have been another connection's, without Clean Start
	}
	s.attach(id, sess)
	s.resumeInput(id)
}

// onMark is step 5 at the old home.
func (s *Shard) onMark(from int, d *departure) {
	d.seen[from] = true
	if d.missing--; d.missing > 0 {
		return
	}
	delete(s.departures, d.session)
	s.push(d.to, shardMessage{kind: arrivedMessage, session: d.session})
}

// onArrived is step 5 at the new home.
func (s *Shard) onArrived(sess *Session) {
	s.arriving.Add(-1)
	sess.arriving = false
	sess.grown()
	s.roomAgain = true // what its connection publishes may go on
	s.sendQoS0(sess, &sess.wait)
	s.sendQoS0(sess, &sess.held)
	s.joinHeld(sess)
	if !sess.ended.Load() {
		s.renewSession(sess)
		switch w := s.claimants[sess]; {
		case sess.conn != 0:
			s.pump(sess)
		case !w.storing: // otherwise its connection waits until the store has it
			s.goOffline(sess)
		}
	}
	// Claims come by different queues: the one that follows ours is next, however many overtook it.
	takes := s.takes[sess]
	i := slices.IndexFunc(takes, func(r takeRequest) bool { return r.claim == sess.tenure+1 })
	if i < 0 {
		return
	}
	next := takes[i]
	if len(takes) == 1 {
		delete(s.takes, sess)
	} else {
		s.takes[sess] = slices.Delete(takes, i, i+1)
	}
	s.part(sess, next)
}

// sendQoS0 sends the QoS 0 messages that came while the Session was on its way, or drops them where nobody is connected:
// behind messages that wait for the client's window they would be passed by younger ones, which wait for nothing
// [MQTT-4.6.0-6]. Those that were published with QoS 2 wait until they are durable.
func (s *Shard) sendQoS0(sess *Session, q *queue) {
	prev := uint32(0)
	n := q.n
	for id := q.head; n > 0; n-- {
		e := &s.entries[id]
		next := e.next
		switch {
		case e.qos() != 0:
			prev = id
		case s.isRefused(id):
			s.unqueue(q, prev, id)
			s.unwait(sess, id)
			s.dropEntry(id)
		case s.sendable(sess, id):
			s.unqueue(q, prev, id)
			s.unwait(sess, id)
			s.sendOnce(sess, e)
			s.dropEntry(id)
		case q == &sess.wait:
			prev = id
		default:
			s.unqueue(q, prev, id)
			s.enqueue(&sess.wait, id)
		}
		id = next
	}
}

// sendOnce is deliver for a QoS 0 message that was queued.
func (s *Shard) sendOnce(sess *Session, e *entry) {
	if sess.conn == 0 {
		return
	}
	c := &s.conns[sess.conn]
	if int(c.outBytes) > s.limits.MaxOutboundBytes {
		s.drop(sess, CounterDroppedSlow)
		return
	}
	if m := s.ms.at(e.msg); m.expires != 0 && m.expires <= s.now {
		s.counters[CounterDroppedExpired]++
		return
	}
	s.load(&s.replay, e.msg)
	r := s.entryReceiver(sess, e)
	s.sendPublish(&s.replay, sess, c, packet.PublishFlags(false, 0, e.flags&entryRetain != 0), &r, 0)
}

// forwardPositions are the positions that a kept Session leaves free, when it moves, for what its old home still forwards.
const forwardPositions = 1 << 20

// forwardMax is how many publications the old home forwards at most.
func (s *Shard) forwardMax(sess *Session) int {
	if sess.durable.Load() {
		return forwardPositions
	}
	return s.limits.MaxQueuedMessages
}

// endForTake ends the Session's connection, because another is to have it.
func (s *Shard) endForTake(sess *Session) {
	if sess.conn != 0 {
		s.counters[CounterTakeovers]++
		s.endSessionAs(sess.conn, false, packet.SessionTakenOver, "session taken over") // [MQTT-3.1.4-3]
	}
}

// mayGive says whether everything that the client of a kept Session has sent here is on its way to the store, in order: what it sends
// to the new home must come behind. Nothing more comes, for its connection is ended.
func (s *Shard) mayGive(p *parting) bool {
	if p.session.kept == nil {
		return true
	}
	if p.after == 0 {
		s.endForTake(p.session)
		p.after = s.stream.next()
	}
	k := p.session.kept
	if k == nil || s.stream.ready >= p.after && k.promised == 0 && len(k.forgetting) == 0 {
		return true
	}
	return false
}

// joinHeld puts what came directly behind what was forwarded.
func (s *Shard) joinHeld(sess *Session) {
	k := sess.kept
	if k == nil {
		s.concat(&sess.wait, &sess.held)
		return
	}
	if k.next == k.jumped {
		k.next = k.forward // nothing came directly
	}
	k.forward = 0
	s.concat(s.queueFor(sess, 1), &sess.held)
	s.spill(sess)
}
