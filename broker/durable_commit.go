package broker

import (
	"slices"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/record"
)

// actionKind is what an action does.
type actionKind uint8

const (
	promiseAction   actionKind = iota // send bytes, upon which the Session goes on
	freeAction                        // the same for a Packet Identifier that is free again
	forgottenAction                   // a QoS 2 Packet Identifier is forgotten
	endedAction                       // a Session's end is durable
	leaveAction                       // the same, for one that stays in the registry until then
	attachAction                      // go on with a CONNECT: its Session is durable
)

// action is done when the records before it are durable. It belongs to a connection; when that is gone there is nothing to do,
// but for what concerns the Session.
type action struct {
	kind    actionKind
	conn    uint64
	session *Session
	kept    *kept         // the Session's, when it was promised
	end     uint32        // the number of its end, when it leaves
	ended   *subscription // what its subscriptions were
	bytes   []byte
}

// then has an action done when all records written so far are durable.
func (s *Shard) then(a action) {
	s.stream.answers += a.size()
	s.stream.actions = append(s.stream.actions, a)
}

// size is what an action takes while it waits, in bytes.
func (a *action) size() int { return int(sizeOf[action]()) + len(a.bytes) }

// hasWork says whether there is anything to hand over.
func (s *Shard) hasWork() bool {
	st := s.stream
	return st.ready > st.handed || len(st.ops)+len(st.actions)+len(st.touched) > 0 || s.retainedLog.dirty.Load() || s.retainedLog.lates.Load() || s.renews()
}

// Persist hands over what has gathered, unless a batch is under way: what comes meanwhile goes with the next one, by one sync. The
// Loop calls it at the end of a turn.
func (s *Shard) Persist() {
	s.settle() // what feeding and pumping Sessions has left to route
	for range persistPasses {
		if !s.mayPersist() {
			break
		}
		s.handOver()
		s.settle()
	}
}

// persistPasses is how often one turn hands over, where what it does at once, because nothing had to be written, makes more.
const persistPasses = 4

// mayPersist says whether there is something to hand over and no batch under way.
func (s *Shard) mayPersist() bool {
	return s.stream != nil && len(s.stream.batches) == 0 && s.hasWork()
}

// handOver gives the store everything that is complete.
func (s *Shard) handOver() {
	st := s.stream
	s.flushTouched()
	s.logLate()
	s.renew()
	ops := st.takeSpare(st.inTickets + len(st.ops))
	ops = append(ops, st.ops...)
	st.ops = st.ops[:0]
	before := st.handed
	for ; st.handed < st.ready; st.handed++ {
		t := st.at(st.handed)
		st.inTickets -= t.bytes
		s.forgetFailed(t)
		s.refuseHeld(t)
		ops = s.appendTicket(ops, t)
	}
	actions := st.actions
	st.actions = nil
	// Nobody takes the log of retained messages between our taking it and our handing it over: its records stay in order.
	log := s.retainedLog
	log.mu.Lock()
	retained := len(log.ops) > 0
	if retained {
		log.underWay.Add(1)
	}
	ops = append(ops, log.ops...)
	log.ops = log.ops[:0]
	log.dirty.Store(false)
	log.size.Store(0)
	// What a ticket has retained may be in the batch of another shard: a batch of its own, with nothing in it, is durable behind that.
	behind := log.underWay.Load() > 0 && st.handed > before
	if len(ops) > 0 || behind {
		s.store.Commit(s.id, ops)
	}
	log.mu.Unlock()
	b := batch{until: st.handed, actions: actions, bytes: len(ops), retained: retained, renewed: st.renewal.renewed()}
	st.underWay += b.bytes
	if len(ops) == 0 && !behind {
		st.keepSpare(ops, s.limits.streamBytes())
	}
	switch n := len(st.batches); {
	case len(ops) > 0 || behind:
		st.batches = append(st.batches, b)
	case n > 0: // there is nothing to write, but others were first
		last := &st.batches[n-1]
		last.until, last.actions, last.renewed = b.until, append(last.actions, b.actions...), b.renewed
	default:
		s.completeWhole(&b)
	}
}

// takeSpare is memory for a batch of about so many bytes. Growing by and by would copy, and leave behind, several times as much.
func (st *stream) takeSpare(size int) (b []byte) {
	if n := len(st.spare); n > 0 {
		b = st.spare[n-1]
		st.spare = st.spare[:n-1]
	}
	return slices.Grow(b[:0], size)
}

// keepSpare keeps a batch's memory for later ones. The largest batch is a stream's bound and one message. Of twice the bound, which the plan
// has for what is kept, the rest is the contributions'.
func (st *stream) keepSpare(b []byte, bound int) {
	kept := cap(b)
	for _, other := range st.spare {
		kept += cap(other)
	}
	if len(st.spare) < 2 && kept <= bound+bound/2 {
		st.spare = append(st.spare, b)
	}
}

// appendTicket writes a ticket: those of its entries that are not done with yet, and what other shards have contributed.
func (s *Shard) appendTicket(ops []byte, t *ticket) []byte {
	if !t.failed {
		ops = append(ops, t.ops...)
	}
	before := len(ops)
	ops = s.appendContributions(ops, t)
	mid := uint64(0)
	switch {
	case t.failed:
	case t.mid != 0 && len(ops) > before: // they refer to it
		mid = t.mid
	case s.liveEntries(t) > 1 && int(s.ms.at(t.msg).payloadSize) >= sharedBodyMin:
		mid = s.newNumber()
	}
	if mid != 0 {
		s.value = s.appendMessage(s.value[:0], t.msg)
		ops = record.AppendSet(ops, record.MessageKey(s.keyRoom(), mid), s.value)
	}
	for id := t.head; id != 0; {
		e, m := &s.entries[id], &s.marks[id]
		next := m.next
		done := e.flags&entryDone != 0
		if !done && !t.failed {
			ops = s.appendEntry(ops, id, mid)
		}
		e.flags &^= entryTicket | entryDone
		if done {
			s.freeEntry(id)
		}
		id = next
	}
	if t.msg != 0 {
		s.ms.release(t.msg)
	}
	t.head, t.tail, t.msg = 0, 0, 0
	return ops
}

// appendContributions writes what other shards have contributed to a ticket, whose memory goes back.
func (s *Shard) appendContributions(ops []byte, t *ticket) []byte {
	for c := t.first; c != nil; {
		next := c.next
		if !t.failed {
			ops = append(ops, c.ops...)
		}
		s.contributions.give(c)
		c = next
	}
	t.first, t.last = nil, nil
	return ops
}

func (s *Shard) liveEntries(t *ticket) (n int) {
	for id := t.head; id != 0; id = s.marks[id].next {
		if s.entries[id].flags&entryDone == 0 {
			n++
		}
	}
	return n
}

// Committed says that the store has made the shard's oldest batch durable; ops is the batch, whose memory is used again.
func (s *Shard) Committed(ops []byte) {
	st := s.stream
	b := st.batches[0]
	n := copy(st.batches, st.batches[1:])
	st.batches[n] = batch{}
	st.batches = st.batches[:n]
	st.underWay -= b.bytes
	if b.retained {
		s.retainedLog.underWay.Add(-1)
	}
	st.keepSpare(ops, s.limits.streamBytes())
	s.completeWhole(&b)
	s.settle()
	s.roomAgain = true
}

// complete acts on what has become durable.
func (s *Shard) complete(b *batch) {
	st := s.stream
	n := int(b.until - st.first)
	if n > 0 {
		s.watermarks[s.id].Store(b.until - 1)
	}
	for _, t := range st.tickets[:n] {
		s.completeTicket(t)
		st.free = append(st.free, t)
	}
	left := copy(st.tickets, st.tickets[n:])
	clear(st.tickets[left:])
	st.tickets, st.first = st.tickets[:left], b.until
	for i := range b.actions {
		st.answers -= b.actions[i].size()
		s.act(&b.actions[i])
	}
	for to, tell := range st.told {
		if tell && n > 0 {
			st.told[to] = len(st.tickets) > 0 // a later ticket may concern it
			s.push(to, shardMessage{kind: durableMessage})
		}
	}
	s.settleAwaiting()
}

// forgetFailed forgets the Packet Identifier of a QoS 2 PUBLISH that is not acknowledged, as a shard had no memory for it: the client sends it
// again, maybe on another connection, and then it is a new one. Has it been sent again already, that is not acknowledged either: PUBREC
// says that the message is the broker's now [MQTT-4.3.3-8]. Its Session does not leave before this.
func (s *Shard) forgetFailed(t *ticket) {
	if !t.failed || t.sess == nil || !s.present(t.sess) || t.sess.kept != t.kept {
		return
	}
	t.forgotten = s.receivedRemove(t.sess, t.pid)
	for _, again := range s.stream.tickets[t.number+1-s.stream.first:] {
		again.failed = again.failed || again.sess == t.sess && again.pid == t.pid
	}
}

// refuseHeld has nobody get a PUBLISH of QoS 2 that is not acknowledged, as a shard had no memory for it: the client sends it again, and those
// that had memory would get it twice [MQTT-4.3.3-1]. All deliveries of it wait for the ticket. What nobody is told about is not sent again,
// and goes to whom it can.
func (s *Shard) refuseHeld(t *ticket) {
	if t.failed && t.conn != 0 && t.kind == packet.PUBREC && t.msg != 0 {
		s.ms.at(t.msg).refused.Store(true)
	}
}

// isRefused says whether a delivery is of a PUBLISH that is not acknowledged.
func (s *Shard) isRefused(id uint32) bool {
	return s.stream != nil && s.marks[id].hold && s.ms.at(s.entries[id].msg).refused.Load()
}

// completeTicket is the second step of a PUBLISH that had to be durable: its acknowledgement.
func (s *Shard) completeTicket(t *ticket) {
	id := s.connOf(t.conn)
	if id == 0 || s.conns[id].state != connLive {
		return
	}
	c := &s.conns[id]
	c.unacked--
	if !t.failed {
		s.ack(id, t.kind, t.pid, t.reason) // [MQTT-4.3.2-4] [MQTT-4.3.3-8]
		return
	}
	s.counters[CounterNoMemory]++
	if c.version != packet.V50 {
		s.violate(id, packet.QuotaExceeded) // Limit: memory behind the store. The client sends it again when it is back.
		return
	}
	if t.forgotten && c.inbound > 0 {
		c.inbound--
	}
	s.ack(id, t.kind, t.pid, packet.QuotaExceeded) // Limit: memory behind the store.
}

// act does one action.
func (s *Shard) act(a *action) {
	id := s.connOf(a.conn)
	switch a.kind {
	case promiseAction, freeAction:
		s.keepPromise(a, id)
	case forgottenAction:
		s.forgotten(a.kept)
	case endedAction:
		s.endedDurably(a.ended)
	case leaveAction:
		s.leave(a.session, a.end)
	case attachAction:
		if w, ok := s.claimants[a.session]; ok && w.storing && w.token == a.conn {
			delete(s.claimants, a.session)
			a.session.unsure.Store(false)
			if id != 0 && s.conns[id].state == connClaim {
				s.attachNow(id, a.session)
				s.resumeInput(id)
			}
		}
	}
}

// keepPromise sends PUBREL for a PUBREC that is durable, or SUBACK, on the connection that it came by; on a later one PUBREL is sent
// with what is resent.
func (s *Shard) keepPromise(a *action, id uint32) {
	sess, k := a.session, a.kept
	if !s.present(sess) || sess.kept == nil || sess.kept != k {
		return
	}
	k.promised--
	if a.kind == freeAction {
		k.freeing, k.blocked = false, false
	}
	if id != 0 && s.refs[id].session == sess && len(a.bytes) > 0 {
		s.counters[CounterMessagesSent]++
		s.send(id, a.bytes) // Too large for the client, or without memory for it, this ends the connection, and the Session may end with that.
	}
	if sess.kept == k && k.promised == 0 {
		s.wakeSession(sess)
	}
}
