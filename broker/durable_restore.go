package broker

import (
	"bytes"
	"fmt"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/record"
)

// restoring reads a store into a broker whose loops do not run yet: Sessions, subscriptions, received identifiers and Retained
// Messages. Queues stay where they are until their clients come.
type restoring struct {
	w      *shared
	bySID  map[uint64]*Session
	wall   int64 // now, unix milliseconds
	last   int64 // when the last run was last heard of
	passed int64 // records that could not be read
	ended  []uint64
	beyond
}

// restore fills the broker from its store.
func (w *shared) restore(now time.Time) error {
	if w.store == nil {
		return nil
	}
	w.startWall.Store(now.UnixMilli())
	w.numbers.Store(record.FirstOf(w.store.Boot()))
	r := &restoring{w: w, bySID: make(map[uint64]*Session), wall: now.UnixMilli(), last: w.store.LastCommit()}
	r.beyond = beyond{given: w.limits, leftOut: make(map[string]uint64)}
	defer w.allowMore()()
	if r.last == 0 || r.last > r.wall {
		r.last = r.wall // a clock that was set back must not keep Sessions for longer than one interval
	}
	written := w.store.Doubt() // What is lost while it is read is written anew.
	if err := r.readAll(); err != nil {
		return err
	}
	doubt := w.store.Doubt() // not before all is read
	for _, sess := range r.bySID {
		sess.kept.written = written
		if sess.kept.doubtful = sess.kept.doubt < doubt; !sess.kept.doubtful {
			sess.kept.restored = nil
		}
	}
	w.peers[0].counters[CounterDroppedDamaged] += uint64(r.passed)
	r.tellLeftOut()
	w.handOverRestored()
	for _, sid := range r.ended {
		w.peers[sid%uint64(len(w.peers))].fetchPassing(sid, 0)
	}
	return nil
}

// readAll reads the store. A Session is claimed first, gets what makes it large, and is completed when none can be left out any more.
func (r *restoring) readAll() error {
	for _, step := range [...]struct {
		kind record.Kind
		f    func(key, value []byte) error
	}{
		{record.KindSession, r.claim}, {record.KindSubscription, r.subscription}, {record.KindReceived, r.received}, {record.KindSession, r.session},
		{record.KindSent, r.sent}, {record.KindRetained, r.retained},
	} {
		if err := r.w.store.Each(step.kind, step.f); err != nil {
			return fmt.Errorf("read the store: %w", err)
		}
	}
	r.giveUp()
	return nil
}

// allowMore raises the limits of what the store may have more of than memory had, until what it returns is called: Retained Messages and
// subscriptions whose end was not written yet when another shard's new one was. What they take more is of the heap that is kept free.
func (w *shared) allowMore() (again func()) {
	given, l := w.limits, &w.limits
	more := l.headroom() / 2
	l.MaxRetained += int(more / retainedBytes)
	l.MaxSubscriptions += int(more / subscriptionBytes)
	return func() {
		w.limits = given
		w.warnBeyond("Retained Messages", "max_retained", w.retained.count.Load(), given.MaxRetained)
		w.warnBeyond("subscriptions", "max_subscriptions", w.subscribed.Load(), given.MaxSubscriptions)
	}
}

func (w *shared) warnBeyond(what, name string, n int64, most int) {
	if n > int64(most) {
		text := fmt.Sprintf("the store has %d %s, more than %s (%d): new ones are refused until there are fewer", n, what, name, most)
		w.peers[0].event(LogEvent{Kind: EventBeyondLimit, Text: text})
	}
}

// handOverRestored makes the corrections of all shards one batch, the first of this run. Any batch brings the time with it: before
// the corrections it would make of a Session that is still recorded as connected one whose client was there until then.
func (w *shared) handOverRestored() {
	first := w.peers[0]
	for _, s := range w.peers[1:] {
		first.stream.ops = append(first.stream.ops, s.stream.ops...)
		s.stream.ops = s.stream.ops[:0]
	}
	first.handOver()
}

// claim gives the Client Identifier of a Session its place. Where two records have the same one, a store that was damaged has brought the older
// Session's back, and the younger one is the client's.
func (r *restoring) claim(key, value []byte) error {
	var in record.Session
	if in.Decode(value) != nil {
		return nil // session counts it
	}
	since, left := r.left(&in)
	if in.ClientID == "" || in.Expiry == 0 || left <= 0 && !r.isDamaged() {
		return nil
	}
	if in.Offline == 0 {
		since = r.wall // Its client was there until the end: nobody is away for less, whenever that was.
	}
	w, sid := r.w, record.Number(key, 0)
	sess := w.registry.find(in.ClientID)
	if sess == nil {
		var err error
		if sess, err = r.place(w.peers[sid%uint64(len(w.peers))], &in, away{since, sid}); sess == nil {
			return err
		}
	}
	if sess.kept != nil {
		if sess.kept.sid > sid {
			return nil
		}
		delete(r.bySID, sess.kept.sid)
	}
	sess.kept = &kept{sid: sid, doubt: in.Doubt, offline: since}
	r.bySID[sid] = sess
	r.note(sess)
	return nil
}

// left is since when a Session's client is away, and how long the Session has left, in milliseconds.
func (r *restoring) left(in *record.Session) (since, left int64) {
	if since = min(in.Offline, r.wall); since == 0 { // The clock may have been set back since: see restore.
		since = r.last
	}
	if in.Expiry == neverExpires {
		return since, int64(neverExpires) * 1000
	}
	return since, int64(in.Expiry)*1000 - (r.wall - since)
}

// session brings a Session back, or ends it when its time has passed. Where the store was damaged what says that its client came back may be lost, or when
// the last run was last heard of: then its time begins anew.
func (r *restoring) session(key, value []byte) error {
	var in record.Session
	if in.Decode(value) != nil {
		r.passed++
		return nil
	}
	w := r.w
	sid := record.Number(key, 0)
	s := w.peers[sid%uint64(len(w.peers))]
	since, left := r.left(&in)
	will := r.will(s, &in)
	if in.ClientID == "" && will != 0 { // see recordDue
		s.orphans = append(s.orphans, orphan{msg: will, record: sid})
		return nil
	}
	sess := r.bySID[sid]
	if sess == nil {
		r.without(s, sid, &in, left > 0, will)
		return nil
	}
	s = w.peers[sess.home.Load()]
	s.setUser(sess, in.User)
	sess.expiry, sess.fresh = in.Expiry, false
	k := sess.kept // which claim has made
	*k = kept{sid: sid, next: w.firstPosition(), expiry: in.Expiry, offline: in.Offline, hasWill: will != 0,
		doubtful: true, doubt: in.Doubt, restored: k.restored} // until all is read
	k.disk = diskPart{from: 1, to: record.FirstOf(w.store.Boot()), any: true, uncounted: true}
	sess.durable.Store(true)
	anew := left <= 0
	if anew {
		since, left = r.wall, int64(in.Expiry)*1000
	}
	if in.Expiry != neverExpires {
		s.wheel.start(s.expiryTimer(sess), s.tickAfter(left))
	}
	if anew || in.Offline > r.wall || in.Offline == 0 && (in.Expiry != neverExpires || will != 0) {
		s.recordSession(sess, in.Expiry, will, in.WillDelay, since)
	}
	if will != 0 {
		sess.will, sess.willDelay = will, in.WillDelay
		if wait := int64(in.WillDelay)*1000 - (r.wall - since); wait > 0 {
			s.wheel.start(s.willTimer(sess), s.tickAfter(wait))
		} else {
			s.releaseWill(sess, true) // a client that is back at once cancels nothing any more [MQTT-3.1.2-8]
		}
	}
	return nil
}

// without ends what was not claimed: a Session that was left out, one whose client has a younger one, or one whose time has passed.
func (r *restoring) without(s *Shard, sid uint64, in *record.Session, lives bool, will uint32) {
	if r.leftOut[in.ClientID] == sid {
		delete(r.leftOut, in.ClientID)
		r.sessionsOut++
		r.end(s, sid, will, CounterSessionsLeftOut)
		return
	}
	if in.Expiry > 0 && lives && will != 0 { // It ended before the younger one began, and so did its Will's wait.
		s.ms.release(will)
		will = 0
	}
	r.end(s, sid, will, CounterSessionsExpired)
}

// will stores a Session's Will; 0 when there is none. One of QoS 2 that may have been published before the store was damaged is one of QoS 1 now, for then
// it may come twice.
func (r *restoring) will(s *Shard, in *record.Session) uint32 {
	var m record.Message
	if len(in.Will) == 0 || m.Decode(in.Will) != nil {
		return 0
	}
	if m.Flags>>1 == 2 && in.Doubt < r.w.store.Doubt() && r.isDamaged() {
		m.Flags = packet.PublishFlags(false, 1, m.Flags&1 != 0)
	}
	return s.ms.store(m.Topic, m.Props, m.Payload, origin{flags: m.Flags, from: m.From, expires: r.w.clockOf(m.Expires)})
}

// end ends a Session that the broker does not have, as its time passed while it was down, for instance: its Will is due, its records go.
func (r *restoring) end(s *Shard, sid uint64, will uint32, counter Counter) {
	r.ended = append(r.ended, sid)
	s.recordEnded(sid, "") // in one batch with what becomes of its Will
	s.counters[counter]++
	if will != 0 {
		if m := s.ms.at(will); m.expires < 0 {
			m.expires = s.now + (-1-m.expires)*1000
		}
		s.orphans = append(s.orphans, orphan{msg: will, record: s.recordDue(will)})
	}
}

// subscription brings a subscription back.
func (r *restoring) subscription(key, value []byte) error {
	sid := record.Number(key, 0)
	sess := r.bySID[sid]
	share, filter, ok := bytes.Cut(record.Rest(key, 1), []byte{0})
	var in record.Subscription
	if sess == nil {
		return nil // its Session ended, or is left out
	}
	if in.Decode(value) != nil || !ok {
		r.passed++
		return nil
	}
	s, name := r.w.peers[sess.home.Load()], string(filter)
	o := packet.Options{QoS: in.QoS, NoLocal: in.NoLocal, RetainAsPublished: in.AsIs, RetainHandling: 2}
	for s.addSubscription(sess, string(share), name, in.ID, o).Failed() {
		if !r.makeRoom(r.subscriptionLimit(sid)) {
			return fmt.Errorf("the store has more subscriptions than the %d that there is room for; raise max_subscriptions or --memory", r.w.limits.MaxSubscriptions)
		}
		if r.bySID[sid] == nil {
			return nil
		}
	}
	if in.Retained { // which are read later
		s.addCursor(sess, s.findSubscription(sess, string(share), name))
	}
	return nil
}

// received brings a QoS 2 Packet Identifier back.
func (r *restoring) received(key, _ []byte) error {
	sid, rest := record.Number(key, 0), record.Rest(key, 1)
	sess := r.bySID[sid]
	if sess == nil || len(rest) != 2 {
		return nil
	}
	pid := uint16(rest[0])<<8 | uint16(rest[1])
	for !r.w.peers[sess.home.Load()].receivedAdd(sess, pid) {
		if !r.makeRoom(r.memoryLimit(), nil) {
			return fmt.Errorf("the store needs more memory than --memory (%d bytes) allows; raise it", r.w.limits.Memory)
		}
		if r.bySID[sid] == nil {
			return nil
		}
	}
	sess.kept.restored = append(sess.kept.restored, pid)
	return nil
}

// sent brings back up to where a queue was sent.
func (r *restoring) sent(key, value []byte) error {
	if sess := r.bySID[record.Number(key, 0)]; sess != nil {
		sess.kept.sentTo = record.ReadNumber(value)
	}
	return nil
}

// retained brings a Retained Message back, unless it has expired, or there is no room for it in a store that has lost something.
func (r *restoring) retained(key, value []byte) error {
	var in record.Message
	if in.Decode(value) != nil {
		r.passed++
		return nil
	}
	s := r.w.peers[0]
	if in.Expires != 0 && in.Expires <= r.wall {
		s.stream.ops = record.AppendDelete(s.stream.ops, key)
		s.counters[CounterRetainedExpired]++
		return nil
	}
	msg := s.ms.store(in.Topic, in.Props, in.Payload, origin{flags: in.Flags, from: in.From, expires: r.w.clockOf(in.Expires)})
	if msg == 0 || !s.admitRetained(len(in.Topic)) {
		if r.leaveRetained(s, key, msg) {
			return nil
		}
		return fmt.Errorf("the store has more Retained Messages than the %d or the --memory (%d bytes) that there is room for; raise max_retained or --memory",
			r.w.limits.MaxRetained, r.w.limits.Memory)
	}
	r.w.retained.part(in.Topic).topics.Set(string(in.Topic), retainedMessage{msg: msg, seq: r.w.retained.seq.Add(1)})
	return nil
}
