package broker

import "github.com/ringmq/ringmq/broker/packet"

// violate ends a connection for something its client did or is: with the Reason Code where the version has a way to
// say it [MQTT-4.13.1-1], by closing otherwise [MQTT-4.8.0-1].
func (s *Shard) violate(id uint32, r packet.Reason) verdict {
	c := &s.conns[id]
	switch c.state {
	case connLive:
		s.counters[CounterViolations]++
		s.event(LogEvent{Kind: EventRefused, ClientID: s.refs[id].session.clientID, Address: s.remote(id), Reason: r, Version: c.version})
		s.endSessionAs(id, false, r, r.String())
	case connAuth, connClaim, connExchange:
		s.forgetClaim(id)
		s.refuse(id, r)
	case connOpen:
		s.counters[CounterViolations]++
		s.event(LogEvent{Kind: EventRefused, Address: s.remote(id), Reason: r, Version: c.version})
		if c.version == packet.V50 && r == packet.PacketTooLarge {
			s.refuse(id, r)
		} else {
			s.close(id)
		}
	default:
		s.close(id)
	}
	return gone
}

// endSessionAs is endSession with the reason told to the client, which is then disconnected.
func (s *Shard) endSessionAs(id uint32, clean bool, r packet.Reason, why string) {
	s.sendDisconnect(id, r)
	if s.conns[id].state != connLive {
		return // no memory even for that: it is closed already
	}
	s.endSession(id, clean, why)
	s.close(id)
}

// sendDisconnect tells a 5.0 client why its connection ends; 3.x has no such packet.
func (s *Shard) sendDisconnect(id uint32, r packet.Reason) {
	c := &s.conns[id]
	if c.version != packet.V50 {
		return
	}
	out := &s.outDisconnect
	*out = packet.Disconnect{Reason: r}
	if c.is(connProblemInfo) {
		out.ReasonString = []byte(r.String())
	}
	if r == packet.UseAnotherServer || r == packet.ServerMoved {
		out.ServerReference = []byte(s.config.ServerReference)
	}
	b := packet.AppendDisconnectFromServer(s.small[:0], out)
	if len(b) > int(c.maxPacket) {
		out.ReasonString, out.ServerReference = nil, nil // [MQTT-3.14.2-3]
		b = packet.AppendDisconnectFromServer(s.small[:0], out)
	}
	if len(b) <= int(c.maxPacket) {
		s.counters[CounterMessagesSent]++
		s.send(id, b)
	}
}

// endSession detaches the Session from its connection. clean says that the client said DISCONNECT properly, which
// deletes its Will [MQTT-3.14.4-3]; otherwise the Will is due now or after its delay [MQTT-3.1.2-8].
func (s *Shard) endSession(id uint32, clean bool, why string) {
	s.abandonAuth(id)
	c := &s.conns[id]
	sess := s.refs[id].session
	if sess == nil {
		s.forgetClaim(id)
		return
	}
	clean = s.saysGoodbye(c, sess) || clean
	s.refs[id].session = nil
	s.counters[CounterDisconnects]++
	s.event(LogEvent{Kind: EventDisconnected, ClientID: sess.clientID, User: sess.user, Address: s.remote(id), Text: why, Clean: clean})
	sess.conn = 0
	sess.online.Store(false)
	s.unpump(sess)
	for cur := sess.cursors; cur != nil; cur = cur.next {
		cur.restart()
	}
	if c.will != 0 {
		if clean {
			s.ms.release(c.will)
		} else {
			sess.will, sess.willDelay = c.will, c.willDelay
			if c.willDelay == 0 {
				s.releaseWill(sess, true)
			}
		}
		c.will = 0
	}
	if !sess.arriving {
		s.goOffline(sess)
	}
}

// forgetClaim takes a connection that waits for a Session off the list.
func (s *Shard) forgetClaim(id uint32) {
	if cn := s.refs[id].connect; cn != nil && cn.waits != nil {
		if w := s.claimants[cn.waits]; w.token == token(id, s.conns[id].generation) {
			delete(s.claimants, cn.waits)
			if w.storing && !cn.waits.arriving {
				s.goOffline(cn.waits)
			}
		}
	}
}

// goOffline decides what becomes of a Session without a connection: it ends now, or when its Session Expiry Interval
// has passed [MQTT-3.1.2-23]; a Will waits for its delay or for that end, whichever comes first.
func (s *Shard) goOffline(sess *Session) {
	if sess.expiry == 0 {
		s.expire(sess)
		return
	}
	if sess.kept != nil {
		s.offlineKept(sess)
	}
	if sess.expiry != neverExpires {
		s.wheel.start(s.expiryTimer(sess), s.tickAfter(int64(sess.expiry)*1000))
	}
	if sess.will != 0 {
		if sess.willDelay == 0 {
			s.releaseWill(sess, true)
		} else {
			s.wheel.start(s.willTimer(sess), s.tickAfter(int64(sess.willDelay)*1000))
		}
	}
}

// catchUp does what a Session without a connection is due, before another connection gets it. A turn takes input before it looks
// at the timers, so that a process that stood still does not take its clients for silent: the Session that a
// CONNECT finds may have expired meanwhile [MQTT-4.1.0-2], and its Will may be due.
func (s *Shard) catchUp(sess *Session) {
	tick := uint64(s.now / tickMS)
	if sess.conn != 0 {
		return
	}
	if s.wheel.isDue(s.willTimer(sess), tick) {
		s.releaseWill(sess, true)
	}
	if s.wheel.isDue(s.expiryTimer(sess), tick) {
		s.counters[CounterSessionsExpired]++
		s.cleanSession(sess)
	}
}

// expire ends a Session for good, unless another shard has claimed it: then that shard gets it empty.
func (s *Shard) expire(sess *Session) {
	s.cleanSession(sess)
	if !sess.succeeded && !s.lingerUntilDurable(sess) && !s.linger(sess) {
		s.remove(sess)
	}
}

// remove takes a Session that is empty off the registry, unless another shard has claimed it.
func (s *Shard) remove(sess *Session) {
	if !s.registry.remove(sess, s.id) {
		return
	}
	sess.lingers = 0
	sess.ended.Store(true)
	s.sessions[sess.id].Store(nil)
	s.sessionSlots.put(sess.id)
	s.sessionCount.Add(-1)
	s.dischargeName(len(sess.clientID))
	s.dischargeName(len(sess.user))
}

// releaseWill publishes or deletes a Will that waits.
func (s *Shard) releaseWill(sess *Session, publish bool) {
	if sess.will == 0 {
		return
	}
	s.wheel.stop(s.willTimer(sess))
	will := sess.will
	sess.will = 0
	if !publish {
		s.ms.release(will)
		return
	}
	m := s.ms.at(will)
	if m.expires < 0 {
		m.expires = s.now + (-1-m.expires)*1000
	}
	o := orphan{msg: will}
	if sess.kept != nil && sess.kept.hasWill {
		if s.willRoom() || !s.refuses(RefuseMessages) { // otherwise see keepOwn
			o.record = s.recordDue(will)
		}
		s.recordSession(sess, sess.expiry, 0, 0, s.offlineSince(sess))
	}
	s.orphans = append(s.orphans, o)
}

// onDisconnect handles the client's DISCONNECT.
func (s *Shard) onDisconnect(id uint32, c *conn, body []byte) verdict {
	in := &s.inDisconnect
	if r := in.Decode(body, c.version); r != packet.Success {
		return s.violate(id, r)
	}
	sess := s.refs[id].session
	if prolongs(sess, in) {
		return s.violate(id, packet.ProtocolError) // Section 3.14.2.2.2.
	}
	s.endSession(id, s.takeGoodbye(sess, in), "by client")
	s.close(id)
	return gone
}

// prolongs tells a DISCONNECT that gives a Session that was to end with its connection another interval.
func prolongs(sess *Session, in *packet.Disconnect) bool {
	return in.HasSessionExpiry && in.SessionExpiry != 0 && sess.expiry == 0
}

// takeGoodbye gives a Session the interval that a DISCONNECT sets, and says whether that discards the Will [MQTT-3.1.2-10].
func (s *Shard) takeGoodbye(sess *Session, in *packet.Disconnect) bool {
	if in.HasSessionExpiry {
		sess.expiry = s.cutExpiry(in.SessionExpiry)
	}
	return in.Reason == packet.NormalDisconnection
}

// saysGoodbye looks through what a connection that ends has left over, behind a PUBLISH that waits for room, for a DISCONNECT, and says whether
// that discards the Will: it has been received, though nobody will come to it [MQTT-3.14.4-3]. What stands before it is not looked at.
func (s *Shard) saysGoodbye(c *conn, sess *Session) bool {
	s.leftOver = s.appendCarry(s.leftOver[:0], c)
	for rest := s.leftOver; ; {
		h, r := packet.ParseHeader(rest)
		n := h.Size + h.Remaining
		if r != packet.Success || h.Size == 0 || n > len(rest) {
			return false
		}
		if h.Kind == packet.DISCONNECT {
			in := &s.inDisconnect
			return packet.CheckFlags(h.Kind, h.Flags, c.version) == packet.Success &&
				in.Decode(rest[h.Size:n:n], c.version) == packet.Success && !prolongs(sess, in) && s.takeGoodbye(sess, in)
		}
		rest = rest[n:]
	}
}

// expiryTimer and willTimer are the numbers of a Session's timers; connections' timers have their own numbers.
func (s *Shard) expiryTimer(sess *Session) uint32 {
	return uint32(len(s.conns)) + 2*sess.id
}

func (s *Shard) willTimer(sess *Session) uint32 { return s.expiryTimer(sess) + 1 }

// tickMS is the length of a timer tick in milliseconds.
const tickMS = 50

// tickAfter is the first tick at least ms milliseconds from now.
func (s *Shard) tickAfter(ms int64) uint64 {
	return uint64((s.now + max(ms, 0) + tickMS - 1) / tickMS)
}

// Tick moves the shard's clock to now, milliseconds since the broker started, and does what has become due.
func (s *Shard) Tick(now int64) {
	s.now = max(s.now, now)
	tick := uint64(s.now / tickMS)
	if tick == s.wheel.now && !s.wheel.isFiring() || s.now == s.tickedAt {
		return
	}
	left := timerWork * int(min(s.now-s.tickedAt, timerTurns))
	for s.tickedAt = s.now; left > 0; {
		s.due = s.wheel.advance(tick, s.due[:0], timersAtOnce)
		if len(s.due) == 0 {
			break
		}
		for _, id := range s.due {
			left -= s.onTimer(id)
		}
	}
	s.housekeep()
	s.settle()
}

const (
	// timerWork is what timers may take of one millisecond, in checks of a Keep Alive, some 20 ns each: where thousands of
	// connections reach their timeout in the same tick, others get their turn between them. All that the ends cause counts, the
	// peers' attempts to come again above all, 50 to 100 µs each in XDP mode: those of a tick come spread over it.
	timerWork = 128
	// timerTurns is how many milliseconds a turn that comes late makes good.
	timerTurns = 4
	// endingWork is the work of ending a connection or a Session, in the same unit.
	endingWork = 32
	// timersAtOnce is how many timers are taken from the wheel at a time.
	timersAtOnce = timerWork / endingWork
)

// onTimer handles one timer and tells how much work it was.
func (s *Shard) onTimer(id uint32) int {
	n := uint32(len(s.conns))
	if id >= n {
		s.onSessionTimer((id-n)/2, (id-n)%2 == 1)
		return endingWork
	}
	s.onConnTimer(id)
	if s.conns[id].state == connLive {
		return 1
	}
	return endingWork
}

// onConnTimer handles a connection's timer, whose meaning depends on its state.
func (s *Shard) onConnTimer(id uint32) {
	c := &s.conns[id]
	switch c.state {
	case connAuth, connClaim:
		s.counters[CounterAuthBusy]++
		s.forgetClaim(id)
		s.refuse(id, packet.ServerBusy) // Limit: ConnectTimeout, for what the client does not decide.
	case connExchange:
		// The client has said nothing to the last AUTH; it is told as somebody who may not connect.
		s.counters[CounterConnectTimeouts]++
		s.refuse(id, packet.NotAuthorized) // Limit: ConnectTimeout, in an exchange.
	case connOpen:
		s.counters[CounterConnectTimeouts]++
		s.event(LogEvent{Kind: EventRefused, Address: s.remote(id), Text: "no CONNECT in time"})
		s.Closed(id, "no CONNECT in time")
	case connClosing:
		s.release(id)
	case connLive:
		s.onKeepAlive(id, c)
	}
}

// onKeepAlive ends a connection on which no packet was whole for one and a half times its Keep Alive, or whose large packet makes no
// progress: such a one may take its time. Input since the timer was armed only moved c.heard, so that a packet costs one store.
func (s *Shard) onKeepAlive(id uint32, c *conn) {
	limit := int64(c.keepAlive) * 1500
	if c.asmNeed != 0 && c.asmGot < c.asmNeed {
		// A page each time is progress; a byte now and then is an attack on the pages that were promised.
		timeout := s.limits.PacketTimeout.Milliseconds()
		if c.asmGot < c.asmMark+min(pageSize, c.asmNeed-c.asmMark) {
			s.counters[CounterPacketTimeouts]++
			s.endSessionAs(id, false, packet.KeepAliveTimeout, "large packet without progress") // Limit: PacketTimeout.
			return
		}
		c.asmMark = c.asmGot
		s.wheel.start(id, s.tickAfter(timeout))
		if limit == 0 || s.now-c.heard < limit {
			return
		}
	}
	if limit == 0 {
		return
	}
	if c.is(connPaused) || c.is(connStalled) {
		c.heard = s.now // while we do not read, silence is our doing
	}
	if silent := s.now - c.heard; silent < limit {
		s.wheel.start(id, s.tickAfter(limit-silent))
		return
	}
	s.counters[CounterKeepAliveTimeouts]++
	s.endSessionAs(id, false, packet.KeepAliveTimeout, "exceeded timeout") // [MQTT-3.1.2-22]
}

func (s *Shard) onSessionTimer(slot uint32, will bool) {
	sess := s.sessions[slot].Load()
	if sess == nil || !s.present(sess) {
		return
	}
	if will {
		s.releaseWill(sess, true)
		return
	}
	s.counters[CounterSessionsExpired]++
	s.expire(sess)
}
