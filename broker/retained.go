package broker

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tidwall/btree"

	"github.com/ringmq/ringmq/broker/topic"
)

// retainedParts is the number of independently locked parts of the retained store.
const retainedParts = 16

// retainedStore holds the Retained Message of each Topic Name (section 3.3.1.3), ordered by name, for all shards. Its
// locks are held for a few steps of a tree.
type retainedStore struct {
	parts [retainedParts]retainedPart
	count atomic.Int64
	seq   atomic.Uint64 // counts the changes
}

type retainedPart struct {
	mu     sync.Mutex
	topics btree.Map[string, retainedMessage]
	_      [64]byte
}

type retainedMessage struct {
	msg uint32 // one reference is the store's
	seq uint64
}

func (rs *retainedStore) part(name []byte) *retainedPart {
	return &rs.parts[fnv(name)%retainedParts]
}

// retain keeps the publication as its topic's Retained Message, or forgets that when the payload is empty
// [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7]. False when the store is full. It comes before route, see retainFirst.
func (s *Shard) retain(p *publication) bool {
	if p.size == 0 {
		s.clearRetained(p)
		return true
	}
	rs := s.retained
	part := rs.part(p.topic)
	s.ms.retain(p.msg, 1)
	part.mu.Lock()
	if _, had := part.topics.Get(string(p.topic)); !had && !s.admitRetained(len(p.topic)) {
		part.mu.Unlock()
		s.ms.release(p.msg)
		s.counters[CounterRetainedRefused]++
		return false
	}
	old, had := part.topics.Set(string(p.topic), retainedMessage{msg: p.msg, seq: rs.seq.Add(1)})
	s.logRetained(string(p.topic), p.msg, p.qos == 0)
	part.mu.Unlock()
	if had {
		s.ms.release(old.msg)
	}
	return true
}

// clearRetained forgets what the publication's topic has [MQTT-3.3.1-6].
func (s *Shard) clearRetained(p *publication) {
	rs := s.retained
	part := rs.part(p.topic)
	part.mu.Lock()
	old, had := part.topics.Delete(string(p.topic))
	rs.seq.Add(1)
	if had || p.qos > 0 { // The disk may have what an earlier one of QoS 0 has cleared: see retainedLog.late.
		s.logRetained(string(p.topic), 0, p.qos == 0)
	}
	part.mu.Unlock()
	if had {
		rs.count.Add(-1)
		s.dischargeName(len(p.topic))
		s.ms.release(old.msg)
	}
}

// makesRoom has an empty message for which there is no memory clear what its topic has, whatever becomes of the message itself: otherwise
// memory that Retained Messages have used up would never be free again.
func (s *Shard) makesRoom(p *publication) bool {
	if !p.retain || p.size > 0 || !s.retained.has(p.topic) {
		return false
	}
	s.clearRetained(p)
	return true
}

// admitRetained counts a new Retained Message with a topic of n bytes; false when there is no room for it.
func (s *Shard) admitRetained(n int) bool {
	if s.retained.count.Add(1) > int64(s.limits.MaxRetained) || !s.chargeName(n) {
		s.retained.count.Add(-1)
		return false
	}
	return true
}

// retainedFull says whether a message for a topic that has none yet finds no place.
func (s *Shard) retainedFull(name []byte) bool {
	if s.retained.count.Load() < int64(s.limits.MaxRetained) && s.longNames.Load()+int64(len(name)) < s.limits.longTopics() {
		return false
	}
	return !s.retained.has(name)
}

// has says whether a topic has a Retained Message.
func (rs *retainedStore) has(name []byte) bool {
	part := rs.part(name)
	part.mu.Lock()
	defer part.mu.Unlock()
	_, has := part.topics.Get(string(name))
	return has
}

// cursor is the delivery of Retained Messages to one new subscription. It remembers a Topic Name and not a message: it
// reads each topic's current message when it is about to send it, so it needs no memory per message, is never cut by a
// queue's limit, and never sends an old message after a newer one.
type cursor struct {
	sub  *subscription
	next *cursor
	prev *cursor
	position
	done position // how far it was on earlier connections
	sent uint64   // ticket of the last delivery that is to be kept; 0: there was none
	seen uint64   // the change of the topic at hand that was too young in the last turn; 0: none
}

// position is how far a cursor has come.
type position struct {
	part   int    // part of the store; 0..retainedParts
	from   string // names below it have been dealt with in this part
	behind bool   // and so has from itself
}

// has says whether a name in that part of the store has been dealt with.
func (p position) has(part int, name string) bool {
	return part < p.part || part == p.part && (name < p.from || name == p.from && p.behind)
}

// restart makes the cursor begin anew, on another connection: what was sent with QoS 0 may be lost and is sent again, so
// that a topic may come twice. What was sent with QoS 1 or 2 is in flight, or was acknowledged, and must not be [MQTT-4.4.0-1].
func (c *cursor) restart() {
	if !c.done.has(c.part, c.from) {
		c.done = c.position
	}
	c.position, c.seen = position{}, 0
}

func (s *Shard) startCursor(sess *Session, sub *subscription) {
	if s.retained.count.Load() == 0 || !topic.HasWildcard(sub.filter) && !s.retained.has([]byte(sub.filter)) {
		return // What is stored from here on is matched afterwards, and then the subscription is in the index.
	}
	s.addCursor(sess, sub)
}

func (s *Shard) addCursor(sess *Session, sub *subscription) {
	s.cursorCount.Add(1)
	sub.cursor = &cursor{sub: sub, next: sess.cursors}
	if sess.cursors != nil {
		sess.cursors.prev = sub.cursor
	}
	sess.cursors = sub.cursor
}

func (s *Shard) stopCursor(sess *Session, sub *subscription) {
	c := sub.cursor
	if c == nil {
		return
	}
	sub.cursor = nil
	s.cursorCount.Add(-1)
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		sess.cursors = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
}

// unpump takes a Session off the list of those whose cursors are stepped.
func (s *Shard) unpump(sess *Session) {
	if sess.pumpAt == 0 {
		return
	}
	last := len(s.pumping) - 1
	s.pumping[sess.pumpAt-1] = s.pumping[last]
	s.pumping[last].pumpAt = sess.pumpAt
	s.pumping[last] = nil
	s.pumping = s.pumping[:last]
	sess.pumpAt = 0
}

const (
	pumpsPerTurn  = 16   // Sessions with cursors that one turn serves, in rotation
	stepsPerLock  = 64   // names looked at while a part of the store is locked
	cursorBatch   = 32   // retained messages one Session gets per turn, before others get theirs
	cursorScanMax = 2048 // names all cursors look at per turn, some 0.5 µs each
)

// Pump gives the Sessions with cursors their next retained messages, after acknowledgements and live messages. It says
// whether more can be sent without waiting for a client.
func (s *Shard) Pump() bool {
	budget := cursorScanMax
	for n := min(len(s.pumping), pumpsPerTurn); n > 0 && len(s.pumping) > 0 && budget > 0; n-- {
		s.pumpNext = (s.pumpNext + 1) % len(s.pumping)
		if sess := s.pumping[s.pumpNext]; !s.pumpCursors(sess, &budget) {
			s.unpump(sess)
		}
	}
	return len(s.pumping) > 0
}

// pumpCursors sends one batch; false when nothing is left or the client must act first, upon which pump is called.
func (s *Shard) pumpCursors(sess *Session, budget *int) bool {
	for n := 0; n < cursorBatch && sess.cursors != nil; n++ {
		if sess.conn == 0 || sess.kept != nil && sess.kept.promised > 0 || !sess.idle() && !s.mayQueueRetained(sess) || !s.canSend(sess) || int(s.conns[sess.conn].outBytes) > s.limits.MaxOutboundBytes/2 {
			return false
		}
		switch s.stepCursor(sess, sess.cursors, budget) {
		case cursorDone:
			if !s.endCursor(sess, sess.cursors) {
				return false
			}
		case cursorLater:
			return true
		case cursorBlocked:
			s.wantMemory(sess)
			return false
		}
	}
	return sess.cursors != nil
}

// endCursor ends a cursor that has come to the end; false when its last delivery is to become durable first. That waits in a ticket, and the
// record of the end does not: a crash between them would leave neither.
func (s *Shard) endCursor(sess *Session, c *cursor) bool {
	if sess.kept != nil && c.sent != 0 && !s.durable(c.sent) {
		s.awaitTicket(c.sent, sess)
		return false
	}
	s.stopCursor(sess, c.sub)
	s.recordSubscription(sess, c.sub, false)
	return true
}

type cursorState uint8

const (
	cursorSent cursorState = iota
	cursorDone
	cursorLater   // go on in the next turn
	cursorBlocked // no memory
)

// stepCursor sends the next retained message that matches.
//
// An older live message must not follow: a publisher's shard has handed the topic's earlier message to the receivers'
// queues before it stores the next, and this shard noted the store's sequence number before it drained its queues in
// this turn. So what the same publisher sent before the store's content has been delivered, and a younger message waits
// for the next turn. If it has changed again by then, the change was made with the subscription in the index: it comes live.
func (s *Shard) stepCursor(sess *Session, c *cursor, budget *int) cursorState {
	name, rm, state := s.seekCursor(c, budget)
	if state != cursorSent {
		return state
	}
	if rm.seq > s.retainedSeen {
		s.ms.release(rm.msg)
		if c.seen == 0 || c.seen == rm.seq {
			c.seen = rm.seq
			return cursorLater
		}
		c.from, c.behind, c.seen = name, true, 0
		return cursorSent
	}
	c.seen = 0
	p := &s.replay
	s.load(p, rm.msg)
	r := receiver{session: sess, id: c.sub.id, qos: c.sub.options.qos(), asIs: true}
	qos := min(p.qos, r.qos)
	if p.expires != 0 && p.expires <= s.now {
		s.expireRetained(name, rm)
	} else if c.sub.options.noLocal() && p.from == sess.serial || qos > 0 && c.done.has(c.part, name) {
		// [MQTT-3.8.3-3] makes no exception for retained messages. What has changed since it was sent has come live.
	} else if !s.sendRetained(p, sess, &r, qos) {
		s.finish(p)
		return cursorBlocked
	}
	if p.ticket != 0 {
		c.sent = p.ticket
	}
	s.finish(p)
	c.from, c.behind = name, true
	return cursorSent
}

// sendRetained sends a retained message with RETAIN set [MQTT-3.3.1-8]; false when memory is used up.
func (s *Shard) sendRetained(p *publication, sess *Session, r *receiver, qos uint8) bool {
	id := s.newEntry(p.msg, qos|entryRetain, r)
	if id == 0 {
		return false
	}
	s.counters[CounterRetainedSent]++
	if s.stream != nil {
		s.markEntry(p, sess, id, false)
		// At QoS 0 a live message passes what waits for the store by, and must not come before the retained one, which is older.
		if qos > 0 && (!sess.idle() || !s.sendable(sess, id)) {
			if s.mayWait(sess, id) {
				s.queueEntry(sess, id)
			}
			return true
		}
	}
	if s.sendEntry(p, sess, id, r) {
		return true
	}
	s.discard(sess, id)
	return false
}

// seekCursor finds the cursor's next matching topic and takes a reference to its message.
func (s *Shard) seekCursor(c *cursor, budget *int) (string, retainedMessage, cursorState) {
	filter := c.sub.filter
	if !topic.HasWildcard(filter) {
		if c.behind {
			return "", retainedMessage{}, cursorDone
		}
		part := s.retained.part([]byte(filter))
		part.mu.Lock()
		rm, ok := part.topics.Get(filter)
		if ok {
			s.ms.retain(rm.msg, 1)
		}
		part.mu.Unlock()
		if !ok {
			return "", rm, cursorDone
		}
		return filter, rm, cursorSent
	}
	for c.part < retainedParts {
		name, rm, end := s.seekPart(&s.retained.parts[c.part], c, budget)
		if name != "" {
			return name, rm, cursorSent
		}
		if end {
			c.part++
			c.from, c.behind = "", false
		} else if *budget <= 0 {
			return "", rm, cursorLater
		}
	}
	return "", retainedMessage{}, cursorDone
}

// seekPart looks in one part for the next match behind c.from. Instead of looking at every name it jumps over those that
// cannot match. No name and not the end: there is more to look at.
func (s *Shard) seekPart(part *retainedPart, c *cursor, budget *int) (match string, rm retainedMessage, end bool) {
	if c.from == "" {
		c.from = topic.LiteralPrefix(c.sub.filter)
	}
	part.mu.Lock()
	defer part.mu.Unlock()
	it := part.topics.Iter()
	ok := it.Seek(c.from)
	for steps := 0; ok && *budget > 0 && steps < stepsPerLock; steps, *budget = steps+1, *budget-1 {
		name := it.Key()
		if c.behind && name == c.from {
			ok = it.Next()
			continue
		}
		if topic.Match(c.sub.filter, name) {
			rm = it.Value()
			s.ms.retain(rm.msg, 1)
			c.from, c.behind = name, false // until it is sent
			return name, rm, false
		}
		if c.from, c.behind = nextCandidate(c.sub.filter, name); c.from == "" {
			return "", rm, true
		}
		if c.behind {
			ok = it.Next()
		} else {
			ok = it.Seek(c.from)
		}
	}
	return "", rm, !ok
}

// nextCandidate is the smallest name from which on the filter may match again (behind: from just after it on), judged
// by the first level of name that differs; empty when there is none.
func nextCandidate(filter, name string) (next string, behind bool) {
	rest, at := filter, 0
	for {
		want, more, hasMore := strings.Cut(rest, "/")
		end := strings.IndexByte(name[at:], '/')
		level := name[at:]
		if end >= 0 {
			level = name[at : at+end]
		}
		if want != "+" && want != "#" && want != level {
			prefix := name[:at]
			if name < prefix+want {
				return prefix + want, false
			}
			if hasMore && name < prefix+want+"/" {
				return prefix + want + "/", false
			}
			return past(prefix), false
		}
		switch {
		case end < 0:
			return name, true // the name ends before the filter
		case !hasMore:
			return past(name[:at+end+1]), false // the filter ends before the name
		}
		rest, at = more, at+end+1
	}
}

// past is the smallest string behind all that begin with prefix, which is empty or ends in '/'.
func past(prefix string) string {
	if prefix == "" {
		return ""
	}
	return prefix[:len(prefix)-1] + "0" // '/' + 1
}

// expireRetained removes a Retained Message whose Message Expiry Interval has passed.
func (s *Shard) expireRetained(name string, rm retainedMessage) {
	part := s.retained.part([]byte(name))
	part.mu.Lock()
	now, ok := part.topics.Get(name)
	if ok = ok && now.seq == rm.seq; ok {
		part.topics.Delete(name)
		s.logRetained(name, 0, true)
	}
	part.mu.Unlock()
	if ok {
		s.retained.count.Add(-1)
		s.dischargeName(len(name))
		s.ms.release(rm.msg)
		s.counters[CounterRetainedExpired]++
	}
}

// sweepRetained removes Retained Messages that have expired, a part of the store in turn, so that those nobody asks for
// do not fill it.
func (s *Shard) sweepRetained() {
	part := &s.retained.parts[s.sweep%retainedParts]
	s.expired = s.expired[:0]
	part.mu.Lock()
	it := part.topics.Iter()
	n := 0
	for ok := it.Seek(s.sweepFrom); ok && n < sweepMax; ok = it.Next() {
		n++
		s.sweepFrom = it.Key() + "\x00"
		if m := s.ms.at(it.Value().msg); m.expires != 0 && m.expires <= s.now {
			s.expired = append(s.expired, sweptMessage{it.Key(), it.Value()})
		}
	}
	part.mu.Unlock()
	if n < sweepMax {
		s.sweep, s.sweepFrom = s.sweep+1, ""
	}
	for _, e := range s.expired {
		s.expireRetained(e.name, e.rm)
	}
	clear(s.expired)
}

// sweepMax is how many names one sweep looks at; a shard sweeps once per tick.
const sweepMax = 64

type sweptMessage struct {
	name string
	rm   retainedMessage
}

// mayQueueRetained says whether Retained Messages may queue although others wait: those of QoS 2 wait for the store anyway.
func (s *Shard) mayQueueRetained(sess *Session) bool {
	k := sess.kept
	return k != nil && !k.disk.any && k.tail.n == 0 && sess.wait.n < cursorBatch
}
