package broker

import "github.com/ringmq/ringmq/broker/packet"

// pump sends a Session what it waits for, as far as its window and its outbound buffer go: first what an earlier
// connection left unacknowledged, then live messages, then retained ones.
func (s *Shard) pump(sess *Session) {
	if sess.conn == 0 || sess.arriving || s.conns[sess.conn].state != connLive {
		return
	}
	if !s.pumpResend(sess) {
		return
	}
	p := &s.replay
	for sess.wait.head != 0 && s.canSend(sess) {
		id := sess.wait.head
		if s.isRefused(id) {
			s.unwait(sess, s.dequeue(&sess.wait))
			s.discard(sess, id)
			continue
		}
		if !s.sendable(sess, id) {
			return
		}
		e := &s.entries[id]
		if m := s.ms.at(e.msg); m.expires != 0 && m.expires <= s.now {
			s.unwait(sess, s.dequeue(&sess.wait))
			s.counters[CounterDroppedExpired]++
			if !s.inDoubt(id) {
				s.discard(sess, id)
				continue
			}
			if s.forsake(sess, id); !s.pumpResend(sess) {
				return
			}
			continue
		}
		s.load(p, e.msg)
		r := s.entryReceiver(sess, e)
		s.unwait(sess, s.dequeue(&sess.wait))
		if !s.sendEntry(p, sess, id, &r) {
			s.requeueFirst(sess, id)
			return
		}
	}
	if k := sess.kept; k != nil && s.wantsMore(sess) && !s.refill(sess) {
		return
	}
	if sess.wait.n == 0 {
		s.caughtUp(sess)
		if sess.cursors != nil && sess.pumpAt == 0 && (sess.kept == nil || sess.kept.promised == 0) {
			s.pumping = append(s.pumping, sess)
			sess.pumpAt = uint32(len(s.pumping))
		}
	}
}

// requeueFirst puts an entry that could not be sent back before all others.
func (s *Shard) requeueFirst(sess *Session, id uint32) {
	e := &s.entries[id]
	sess.waitBytes += s.cost(id)
	if e.next = sess.wait.head; e.next == 0 {
		sess.wait.tail = id
	}
	sess.wait.head = id
	sess.wait.n++
	s.wantMemory(sess)
}

// pumpResend sends again, in order, what was in flight when the last connection ended [MQTT-4.4.0-1]; false while some
// of it is left.
func (s *Shard) pumpResend(sess *Session) bool {
	for sess.resend != 0 {
		id := sess.resend
		e := &s.entries[id]
		if e.flags&entryReleased == 0 && sess.inflight >= sess.window {
			break // [MQTT-3.3.4-9]
		}
		if e.flags&entryReleased != 0 {
			if sess.kept != nil && sess.kept.promised > 0 {
				return false // its PUBREC is not durable yet
			}
			s.ack(sess.conn, packet.PUBREL, e.pid, packet.Success)
		} else {
			s.load(&s.replay, e.msg)
			r := s.entryReceiver(sess, e)
			flags := packet.PublishFlags(true, e.qos(), e.flags&entryRetain != 0) // [MQTT-3.3.1-1]
			next := e.next
			switch s.sendPublish(&s.replay, sess, &s.conns[sess.conn], flags, &r, e.pid) {
			case sendNoMemory:
				s.wantMemory(sess)
				return false
			case sendTooLarge:
				if e.qos() == 2 {
					s.passOver(sess, id)
				} else {
					s.dropSent(sess, id)
					sess.resend = next
				}
				continue
			}
		}
		if s.conns[sess.conn].state != connLive {
			return false
		}
		sess.inflight++
		sess.resend = e.next
	}
	return sess.resend == 0
}

// releasedFirst puts what waits for PUBCOMP before the messages that this connection has not seen yet, if its Receive Maximum does not let
// all of those be sent at once: PUBREL does not wait for that [MQTT-3.3.4-10].
func (s *Shard) releasedFirst(sess *Session) {
	if sess.sent.n <= uint32(sess.window) {
		return
	}
	var seen, released, rest queue
	isSeen := true
	for id, next := sess.sent.head, uint32(0); id != 0; id = next {
		next = s.entries[id].next
		isSeen = isSeen && id != sess.resend
		switch {
		case isSeen:
			s.enqueue(&seen, id)
		case s.entries[id].flags&entryReleased != 0:
			s.enqueue(&released, id)
			sess.lapped = sess.lapped || rest.n > 0 // The first of the list has not the oldest Packet Identifier any more.
		default:
			s.enqueue(&rest, id)
		}
	}
	s.concat(&released, &rest)
	sess.resend = released.head
	s.concat(&seen, &released)
	sess.sent = seen
}

// passOver goes on with a QoS 2 message that was sent, and that this connection's Maximum Packet Size does not let be sent again, as
// if it had been [MQTT-3.1.2-25] and PUBREC had come. The client may have received it and then holds on to its Packet Identifier
// until PUBREL comes: given to another message without that, it would have the client take that one for this one [MQTT-4.3.3-10]. A
// client that knows nothing of it answers PUBREL with 0x92, which is no error when a Session goes on (section 3.7.2.1).
func (s *Shard) passOver(sess *Session, id uint32) {
	s.entries[id].flags |= entryReleased
	if sess.kept != nil && s.marks[id].pos != 0 {
		s.recordReleased(id)
		s.promiseThat(action{kind: promiseAction, session: sess})
	}
}

// dropSent takes an entry off the list of those in flight.
func (s *Shard) dropSent(sess *Session, id uint32) {
	prev := uint32(0)
	for at := sess.sent.head; at != id; at = s.entries[at].next {
		prev = at
	}
	s.unqueue(&sess.sent, prev, id)
	s.discard(sess, id)
}

// entryReceiver is what an entry kept of the subscriptions it came through.
func (s *Shard) entryReceiver(sess *Session, e *entry) receiver {
	r := receiver{session: sess, qos: e.qos(), asIs: true}
	if e.flags&entryManyIDs == 0 {
		r.id = e.id
		return r
	}
	n := int(le16(s.pool.a.block(e.id, 2)))
	b := s.pool.a.block(e.id, 2+4*n)
	s.ids = s.ids[:0]
	for i := range n {
		s.ids = append(s.ids, le32(b[2+4*i:]))
	}
	r.more = s.ids
	return r
}
