package broker

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/ringmq/ringmq/broker/record"
)

// retainedLog gathers the records of Retained Messages from all shards, in the order in which the store of them changed; whoever
// hands over next takes them. So the last change of a topic is the last on disk.
type retainedLog struct {
	mu    sync.Mutex // guards ops, and is held while they are handed over
	ops   []byte
	dirty atomic.Bool
	size  atomic.Int64

	// late are topics whose Retained Message has changed while the log was full, by messages of QoS 0, which nothing can be made to wait for: there is room
	// for their names. What they have then is logged when the log has room again.
	late      []string
	isLate    map[string]bool
	lateBytes int
	lates     atomic.Bool
	// underWay is how many batches of all shards have records of it and are not durable; they change it.
	underWay atomic.Int32
}

// lateName is what a name takes beside its bytes in both places, in bytes.
const lateName = 64

// postpone notes a topic; false when there is no room.
func (l *retainedLog) postpone(name string, bound int) bool {
	if l.isLate[name] {
		return true
	}
	if l.lateBytes+len(name)+lateName > bound {
		return false
	}
	if l.isLate == nil {
		l.isLate = make(map[string]bool)
	}
	l.late, l.isLate[name] = append(l.late, name), true
	l.lateBytes += len(name) + lateName
	l.lates.Store(true)
	return true
}

// takeLate takes the topic that has waited for longest; "" when there is none.
func (l *retainedLog) takeLate() (name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.late) == 0 {
		return ""
	}
	name = l.late[0]
	l.late = l.late[1:]
	delete(l.isLate, name)
	l.lateBytes -= len(name) + lateName
	if len(l.late) == 0 {
		l.late, l.isLate = nil, nil
		l.lates.Store(false)
	}
	return name
}

// logLate logs what topics have that were late, as far as there is room.
func (s *Shard) logLate() {
	log := s.retainedLog
	for log.lates.Load() && s.streamRoom() && log.size.Load() < int64(s.limits.streamBytes()) {
		name := log.takeLate()
		if name == "" {
			return
		}
		part := s.retained.part([]byte(name))
		part.mu.Lock()
		has, _ := part.topics.Get(name)
		s.logRetained(name, has.msg, false)
		part.mu.Unlock()
	}
}

// keepFirst has the store record a connection's Session before CONNECT is answered, or that an earlier one has ended; false when
// there is nothing to record.
func (s *Shard) keepFirst(id uint32, sess *Session) bool {
	c := &s.conns[id]
	ended := sess.discarded
	if s.stream == nil || sess.kept == nil && c.sessionExpiry == 0 && ended == 0 {
		return false
	}
	if sess.kept == nil && c.sessionExpiry == 0 {
		s.behindEnd(ended) // A client that is told that its Session is gone never finds it again [MQTT-3.1.2-4].
		s.attachLater(id, sess)
		return true
	}
	s.wheel.stop(s.expiryTimer(sess))
	s.releaseWill(sess, false)
	if sess.kept == nil {
		s.beginKeeping(sess)
	}
	k := sess.kept
	if !s.renewContent(sess) && !sess.unsure.Load() && k.expiry == c.sessionExpiry && (k.offline == 0 || k.expiry == neverExpires) && !k.hasWill && c.will == 0 && k.expiry != 0 {
		return false
	}
	sess.unsure.Store(true)
	s.recordSession(sess, c.sessionExpiry, c.will, c.willDelay, 0)
	s.attachLater(id, sess)
	return true
}

// attachLater has a connection wait until all records so far are durable.
func (s *Shard) attachLater(id uint32, sess *Session) {
	c := &s.conns[id]
	c.state = connClaim
	w := s.refs[id].connect
	if w == nil {
		w = &connecting{clientID: sess.clientID}
		s.refs[id].connect = w
	}
	w.waits = sess
	s.claimants[sess] = claimant{token: token(id, c.generation), claim: sess.tenure, storing: true}
	s.then(action{kind: attachAction, conn: token(id, c.generation), session: sess})
}

// beginKeeping makes a Session one that is kept, with all it has.
func (s *Shard) beginKeeping(sess *Session) {
	k := &kept{sid: s.newNumber(), next: s.firstPosition(), doubt: s.store.Doubt()}
	sess.kept = k
	for _, q := range [...]*queue{&sess.sent, &sess.wait, &sess.held} {
		for id := q.head; id != 0; id = s.entries[id].next {
			if s.entries[id].qos() == 0 {
				continue
			}
			s.marks[id] = mark{sid: k.sid, pos: k.next}
			s.stream.ops = s.appendEntry(s.stream.ops, id, 0)
			sess.lapped = sess.lapped || s.entries[id].pid != record.PacketID(k.next)
			k.next++
		}
	}
	s.recordContent(sess)
	s.update(sess, func(uint64) { sess.durable.Store(true) })
}

// firstPosition is where a queue of this run of the broker begins. Each run begins with another Packet Identifier, far from those that an
// earlier one may have in flight.
func (w *shared) firstPosition() uint64 {
	boot := w.store.Boot()
	return record.FirstOf(boot) + record.PacketIDs + uint64(boot-1)*4099%record.PacketIDs
}

// filters yields the Topic Filters of a Session that are in the index under its name.
func (sess *Session) filters(yield func(string) bool) {
	for sub := sess.subs; sub != nil; sub = sub.next {
		if sub.group == nil && !yield(sub.filter) {
			return
		}
	}
}

// receivedIDs yields the QoS 2 Packet Identifiers that are received and not released.
func (sess *Session) receivedIDs(s *Shard) func(func(uint16) bool) {
	return func(yield func(uint16) bool) {
		if sess.receivedLen == 0 {
			return
		}
		for pid := 0; pid < 1<<16; pid++ {
			if pid%idsPerMap == 0 && s.idMap(sess, uint16(pid)) == nil {
				pid += idsPerMap - 1
			} else if s.receivedHas(sess, uint16(pid)) && !yield(uint16(pid)) {
				return
			}
		}
	}
}

// recordSession writes the Session's record.
func (s *Shard) recordSession(sess *Session, expiry, will, delay uint32, offline int64) {
	s.stream.ops = s.appendSession(s.stream.ops, sess, expiry, will, delay, offline)
}

func (s *Shard) appendSession(ops []byte, sess *Session, expiry, will, delay uint32, offline int64) []byte {
	k := sess.kept
	k.expiry, k.offline, k.hasWill = expiry, offline, will != 0
	if doubt := s.store.Doubt(); !k.doubtful && k.written == doubt {
		k.doubt = doubt
	}
	out := record.Session{ClientID: sess.clientID, User: sess.user, Expiry: expiry, Offline: offline, WillDelay: delay, Doubt: k.doubt}
	if will != 0 {
		out.Will = s.appendMessage(nil, will)
	}
	s.value = out.Append(s.value[:0])
	return record.AppendSet(ops, record.SessionKey(s.keyRoom(), k.sid), s.value)
}

// offlineKept records that a kept Session has no connection any more, where that makes a difference, and lets its queue go to disk.
func (s *Shard) offlineKept(sess *Session) {
	k := sess.kept
	k.loading = false
	ends := k.doubtful && k.resent
	if ends {
		s.endDoubt(sess)
	}
	same := k.expiry == sess.expiry && !k.hasWill && sess.will == 0
	if renewed := s.renewContent(sess); renewed || ends || !same || sess.expiry != neverExpires && k.offline != s.wall(s.now) {
		s.recordSession(sess, sess.expiry, sess.will, sess.willDelay, s.wall(s.now))
	}
	s.spill(sess)
}

// showsResent notes that a client has sent a new message of QoS 2, which comes behind all that it sends again: there is no doubt any more when this
// connection has ended [MQTT-4.4.0-1, MQTT-4.6.0-1]. Nothing else comes in that order.
func (sess *Session) showsResent() {
	if k := sess.kept; k != nil && k.doubtful {
		k.resent = true
	}
}

// endDoubt forgets the Packet Identifiers that the store had and that the client did not send again: it knows nothing of them.
func (s *Shard) endDoubt(sess *Session) {
	k := sess.kept
	for _, pid := range k.restored {
		if s.receivedRemove(sess, pid) {
			s.stream.ops = record.AppendDelete(s.stream.ops, record.ReceivedKey(s.keyRoom(), k.sid, pid))
		}
	}
	k.doubtful, k.restored = false, nil
}

// offlineSince is when a kept Session's connection ended, as its record has it; 0 while it has one.
func (s *Shard) offlineSince(sess *Session) int64 {
	switch k := sess.kept; {
	case sess.conn != 0:
		return 0
	case k.offline != 0:
		return k.offline
	}
	return s.wall(s.now)
}

// recordDue gives a Will that is due a record of its own, until its publication is durable, and says what that is called. To the next run
// it is a Session that has ended, and has nothing but that Will. So the record of the Session whose Will it was depends on
// its publication no more, which may take longer than the next connection does.
func (s *Shard) recordDue(will uint32) uint64 {
	sid := s.newNumber()
	due := record.Session{Offline: 1, Will: s.appendMessage(nil, will), Doubt: s.store.Doubt()}
	s.value = due.Append(s.value[:0])
	s.stream.ops = record.AppendSet(s.stream.ops, record.SessionKey(s.keyRoom(), sid), s.value)
	return sid
}

// forgetDue makes the end of a due Will's record a part of its publication.
func (s *Shard) forgetDue(p *publication, sid uint64) {
	if p.own != nil {
		p.own.ops = record.AppendDelete(p.own.ops, record.SessionKey(s.keyRoom(), sid))
		return
	}
	s.stream.ops = record.AppendDelete(s.stream.ops, record.SessionKey(s.keyRoom(), sid))
}

// endKept has the store forget a Session.
func (s *Shard) endKept(sess *Session) {
	k := sess.kept
	if k == nil {
		return
	}
	s.passOn(sess, &k.tail)
	s.dropQueue(&k.tail)
	s.passedUndeleted(k)
	s.fetchPassing(k.sid, 0)
	sess.kept, sess.discarded = nil, k.sid
	sess.unsure.Store(true)
	sess.durable.Store(false)
}

// recordSubscription writes a subscription's record; retained says that its Retained Messages are still to be delivered.
func (s *Shard) recordSubscription(sess *Session, sub *subscription, retained bool) {
	if sess.kept == nil {
		return
	}
	out := record.Subscription{ID: sub.id, QoS: sub.options.qos(), NoLocal: sub.options.noLocal(), AsIs: sub.options.asIs(), Retained: retained}
	key := record.SubscriptionKey(s.keyRoom(), sess.kept.sid, sub.share(), sub.filter)
	s.stream.ops = record.AppendSet(s.stream.ops, key, out.Append(s.small[:0]))
}

// forgetSubscription removes a subscription's record.
func (s *Shard) forgetSubscription(sess *Session, share, filter string) {
	if sess.kept != nil {
		s.stream.ops = record.AppendDelete(s.stream.ops, record.SubscriptionKey(s.keyRoom(), sess.kept.sid, share, filter))
	}
}

// answerLater sends bytes to a connection when all records so far are durable, at once when the Session is not kept.
func (s *Shard) answerLater(id uint32, sess *Session, b []byte) {
	if sess.kept == nil {
		s.counters[CounterMessagesSent]++
		s.send(id, b)
		return
	}
	s.promiseBytes(id, sess, append([]byte(nil), b...))
}

// logRetained records a change of the store of Retained Messages, within the lock of its part; one that may be late is only noted where the log is
// full. $SYS is made anew by each run.
func (s *Shard) logRetained(name string, msg uint32, mayBeLate bool) {
	if s.stream == nil || strings.HasPrefix(name, "$") {
		return
	}
	if msg != 0 {
		s.value = s.appendMessage(s.value[:0], msg)
	}
	log := s.retainedLog
	log.mu.Lock()
	defer log.mu.Unlock()
	if bound := s.limits.streamBytes(); mayBeLate && len(log.ops) >= bound {
		if !log.postpone(name, bound) {
			s.counters[CounterStoreRefused]++ // Memory has it, the next run will not.
		}
		return
	}
	if msg == 0 {
		log.ops = record.AppendDelete(log.ops, record.RetainedKey(s.keyRoom(), name))
	} else {
		log.ops = record.AppendSet(log.ops, record.RetainedKey(s.keyRoom(), name), s.value)
	}
	log.size.Store(int64(len(log.ops)))
	log.dirty.Store(true)
}
