package sim

import (
	"math"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/packet"
)

// meets says which limits a Script lets be met. Where one may be, what it does must be explained by it: a refusal by what there may have
// been by then, a message that was dropped by what may have waited.
type meets struct{ queue, subs, retained, conns, memory, rate bool }

// What ends a connection, or refuses it, because of a limit.
const (
	outOfMemory = "memory"
	crowded     = "connections"
	rated       = "connect rate"
)

// holding is a subscription, and whose it is.
type holding struct {
	session *session
	*interest
}

// noteInterest keeps a subscription in mind, where they are counted.
func (w *world) noteInterest(s *session, i *interest) {
	if w.meets.subs {
		w.asked = append(w.asked, holding{s, i})
	}
}

// noteCrowd notes that there may be more connections than the broker takes: their number only grows when one is opened.
func (w *world) noteCrowd() {
	if w.network.Open() > w.limits.MaxConnections {
		w.crowdedAt = w.step
	}
}

// checkSubscriptions counts the subscriptions that are surely there.
func (w *world) checkSubscriptions() {
	n := 0
	for _, h := range w.asked {
		if l := h.session.link; l != nil && l == l.c.link && l.excuse() == "" && h.must(w.step, w.step) {
			n++
		}
	}
	if n > w.limits.MaxSubscriptions {
		w.violate("maximum subscriptions", "there are %d; the broker takes %d", n, w.limits.MaxSubscriptions)
	}
}

// mayRefuseSubscription says whether there may have been as many as the broker takes since this one was asked for, which replaces none.
func (w *world) mayRefuseSubscription(l *link, by *interest, code packet.Reason) bool {
	if l.version == packet.V50 && code != packet.QuotaExceeded || by.since != 0 {
		return false
	}
	type key struct {
		*session
		share, filter string
	}
	there := map[key]bool{}
	for _, h := range w.asked {
		if h.interest != by && h.may(by.asked, w.step) {
			there[key{h.session, h.share, h.filter}] = true
		}
	}
	return w.meets.subs && len(there) >= w.limits.MaxSubscriptions
}

// mayRefuseMessage says whether a message may be refused for a limit: one to be retained if there may have been as many others, and none
// of its topic.
func (w *world) mayRefuseMessage(m *message) bool {
	if w.meets.memory || !w.meets.retained || !m.retain || m.clears {
		return w.meets.memory
	}
	names, has := map[string]bool{}, false
	for _, o := range w.streams[m.topic] {
		if o == m {
			break
		}
		has = (has || o.stored) && !o.clears && o.expiry == 0
	}
	for _, o := range w.messages {
		if o.retain && !o.clears && o.topic != m.topic {
			names[o.topic] = true
		}
	}
	return !has && len(names) >= w.limits.MaxRetained
}

// checkRefusal checks that there is a reason to refuse a CONNECT, and that the one that was told is one that there is.
func (l *link) checkRefusal(r packet.Reason) {
	why, may := l.excuse(), false
	switch r {
	case packet.QuotaExceeded:
		may = l.mayLackMemory() || l.inCrowd()
	case packet.ConnectionRateExceeded:
		may = l.mayBeRated()
	case packet.ServerUnavailable:
		may = l.w.stopping
	case packet.NotAuthorized:
		may = l.exchange.method && l.isLate()
	case packet.ServerBusy: // Section 3.1.4: a later CONNECT came, or the broker had no time.
		may = why != outOfMemory && why != crowded && why != rated
	}
	switch {
	case why == "":
		l.w.violate("refused", "c%d was refused for nothing: %v", l.c.index, r)
	case l.version == packet.V50 && !may, l.version != packet.V50 && (r != packet.ServerUnavailable || (why == rated || why == outOfMemory) && !l.mayBeRated() && !l.mayLackMemory()):
		l.w.violate("refused", "c%d was refused with %v; the broker may have had another reason (%s)", l.c.index, r, why)
	}
}

// inCrowd says whether there may have been more connections than the broker takes when it handled CONNECT.
func (l *link) inCrowd() bool { return l.w.meets.conns && l.w.crowdedAt >= l.dialled.step }

// mayBeFull says whether the queue of a Session may have been full when it should have taken a message.
func (w *world) mayBeFull(s *session, m *message) bool {
	if !w.meets.queue {
		return false
	}
	n, bytes := w.waiting(s, m)
	return n >= w.limits.MaxQueuedMessages || bytes+m.costMax() > int(w.limits.MaxQueuedBytes)
}

// costMax is more than what a message takes of a Session's queue, in bytes: of memory, where small messages are cut from a page and
// large ones take whole pages, those of the packet and others for a copy of its topic and properties, and of a disk.
func (m *message) costMax() int {
	const (
		pageBytes  = 4096
		smallBytes = 2048
		ownBytes   = 64
	)
	meta := len(m.topic) + len(m.props)
	n := m.size + len(m.topic) + meta + 32
	if n <= smallBytes {
		return 2*n + 2*ownBytes
	}
	return n + meta + 2*pageBytes + 4*ownBytes
}

// waiting is how many messages may have waited in a Session's queue at once while the broker handled m, and their bytes: those sent until then that came
// later, or have no name, and those that may have expired in it. What else its client did not get was never there, but for what it may have with QoS 0
// where there is a disk: that waits in memory behind what is loaded, and is gone with the connection, see quickSince; and for what nobody was told of before a crash.
// What came shortly before a crash may wait again, and nobody knows before its client is there.
// Of m itself another copy may wait, one by another subscription.
func (w *world) waiting(s *session, m *message) (n, bytes int) {
	until := m.acked.step
	if m.will != nil {
		until = w.step // It came when the broker knew that its connection was gone.
	}
	if others := s.copies(m, w.step) - 1; others > 0 {
		n, bytes = others, others*m.costMax()
	}
	moves, quick, crash := w.moving(s, m, until), w.quickSince(s, until), w.crashesSince(m.sent.step) > 0
	for _, o := range w.messages {
		if o == m || o.sent.step > until {
			continue
		}
		t := s.got[o]
		switch {
		case t != nil && (t.last >= m.sent.step || o.qos > 0 && w.forgotten(s, t.last, until)), t == nil && (o.clears || o.expiry > 0 || s.owner.smallest > 0), t == nil && (moves || o.sent.step >= quick && s.mayGetQuick(o) || crash && o.qos > 0 && (o.acked.step == 0 || o.acked.step > until)):
			k := s.copies(o, w.step)
			n, bytes = n+k, bytes+k*o.costMax()
		}
	}
	return n, bytes
}

// forgotten says whether a crash until a step may have undone that a client has got something at another one, on the connection that it had
// then: what it acknowledged may not have been durable.
func (w *world) forgotten(s *session, got, until int) bool {
	for _, at := range w.crashes {
		dialled := 0
		for _, l := range s.owner.dials {
			if l.dialled.step <= at {
				dialled = l.dialled.step
			}
		}
		if dialled <= got && got <= at && at <= until {
			return true
		}
	}
	return false
}

// quickSince is from when on what is sent to a Session with QoS 0 may wait at until, and be gone since: from the CONNECT before on, where another one
// came later.
func (w *world) quickSince(s *session, until int) int {
	last := math.MaxInt
	for _, l := range s.owner.dials {
		if w.disk != nil && l.dialled.step > until {
			return last
		}
		last = l.dialled.step
	}
	return math.MaxInt
}

// mayGetQuick says whether a message may come to a Session with QoS 0.
func (s *session) mayGetQuick(m *message) (quick bool) {
	s.possible(m, s.owner.w.step, func(i *interest) { quick = quick || min(m.qos, i.qos) == 0 })
	return quick
}

// ringTurns are turns of a shard in which it takes in what stands between it and another one.
const ringTurns = 8

// moving says whether a Session may have been on its way to another shard when the broker handled m, at the latest at until: that is from a
// CONNECT till its client gets something on that connection or a later one. Meanwhile what its old home forwards is counted, too, of any QoS.
// Without a disk its old home may read m some turns after it was acknowledged, behind what stands between two shards. A CONNECT on a plane that
// is late may be handled behind one that was sent after it.
func (w *world) moving(s *session, m *message, until int) (moves bool) {
	overtaken := false
	for _, l := range s.owner.dials {
		if l.dialled.step > until && (w.disk != nil || l.turns >= m.acked.turns+ringTurns) || len(w.turns) == 1 {
			break
		}
		moves = l.flowing == 0 || l.flowing >= m.sent.step
		overtaken = overtaken || w.lag > 0 && l.flowing == 0 && (l.gone.step == 0 || l.gone.step >= m.sent.step)
	}
	return moves || overtaken
}

// judgeCounters compares what has been lost, and was not to be, with what the broker has counted.
func (w *world) judgeCounters(n *broker.Counters, lost int) {
	counted := 0
	if w.meets.queue {
		counted += int(n.Of(broker.CounterDroppedQueue))
	}
	if w.meets.memory {
		counted += int(n.Of(broker.CounterDroppedNoMemory))
	}
	if lost > counted {
		w.violate("lost uncounted", "%d promised messages did not come; the broker has counted %d", lost, counted)
	}
	quick := int(n.Of(broker.CounterDroppedSlow) + n.Of(broker.CounterDroppedNoMemory))
	if w.meets.queue { // A Session on its way to another shard has no more forwarded than its queue holds, of any QoS.
		quick += int(n.Of(broker.CounterDroppedQueue))
	}
	if w.quickLost > quick {
		w.violate("lost uncounted", "%d messages of QoS 0 did not come; the broker has counted %d", w.quickLost, quick)
	}
	w.judgeRefused()
	w.judgeMemory(n)
	for _, c := range []broker.Counter{broker.CounterNoMemory, broker.CounterDroppedQueue, broker.CounterDroppedNoMemory, broker.CounterClosedNoMemory} {
		if n.Of(c) != 0 && !w.meets.memory && !(w.meets.queue && c == broker.CounterDroppedQueue) {
			w.violate("limits", "%d times %s, although no limit was near", n.Of(c), c)
		}
	}
}

// judgeRefused compares what the broker that runs has counted with what clients have heard.
func (w *world) judgeRefused() {
	present := w.broker.Counters()
	if n := int(present.Of(broker.CounterAuthRefused)); n < w.unproved || n > w.authenticator.refused {
		w.violate("counters", "%d clients could not prove who they are, %d were told so; the broker has counted %d", w.authenticator.refused, w.unproved, n)
	}
	w.judgeRate(int(present.Of(broker.CounterRefusedRate)))
}

// handled notes what an acknowledgement of m says of QoS 0: what its client had sent before it, on the same connection, was read, too.
func (l *link) handled(m *message) {
	for len(l.quick) > 0 && l.quick[0].serial < m.serial {
		l.quick[0].acked = l.w.moment()
		l.quick = l.quick[1:]
	}
}

// judgeQuick looks for a message of QoS 0 that was surely handled at everybody who has been connected since before it was sent.
func (w *world) judgeQuick(m *message) {
	if m.qos > 0 || m.acked.step == 0 || m.will != nil || m.clears || m.expiry > 0 || m.topic[0] == '$' {
		return
	}
	for _, c := range w.clients {
		s, l := c.session, c.link
		if l == nil || l.session != s || !l.accepted || l.since >= m.sent.step || c.smallest > 0 || s.got[m] != nil || s.promised(m, w.step) == nil {
			continue
		}
		if w.quickLost++; w.meets.memory {
			return // It was not taken at all, for nobody, and that is counted once.
		}
	}
}
