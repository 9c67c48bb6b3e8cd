package broker

import (
	"encoding/hex"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/topic"
)

// clientIDMax is the longest Client Identifier in bytes that is accepted (section 3.1.3.1 leaves the bound to the
// server): it stands in every log line and twice in memory.
const clientIDMax = 1024

// connecting is a CONNECT that waits for the authenticator, or the AUTH exchange of a connection that used one.
type connecting struct {
	clientID string
	user     string
	method   string
	data     []byte // Authentication Data for CONNACK
	asked    bool   // the authenticator has not answered the client's last step
	claim    uint32
	waits    *Session // being handed over
}

// onConnect handles CONNECT [MQTT-3.1.0-1].
func (s *Shard) onConnect(id uint32, c *conn, flags uint8, body []byte) verdict {
	in := &s.inConnect
	if r := in.Decode(body); r != packet.Success {
		return s.refuseUndecoded(id, c, body, r)
	}
	c.version = in.Version
	if in.MaximumPacketSize != 0 {
		c.maxPacket = in.MaximumPacketSize
	}
	if in.RequestProblemInfo {
		c.set(connProblemInfo)
	}
	// 3.1 gives the flags of CONNECT no meaning, so they are judged once the version is known.
	if r := packet.CheckFlags(packet.CONNECT, flags, c.version); r != packet.Success {
		return s.refuseMalformed(id, c, r)
	}
	if r := s.admit(c); r != packet.Success {
		return s.refuse(id, r)
	}
	clientID, r := s.clientID(c, in)
	if r == packet.Success {
		r = s.checkWill(in)
	}
	if r == packet.Success {
		r = s.noteConnect(c, in, clientID)
	}
	if r != packet.Success {
		return s.refuse(id, r)
	}
	return s.authenticate(id, c, in, clientID)
}

// refuseUndecoded answers a CONNECT that does not decode. In 3.x only some errors have a return code.
func (s *Shard) refuseUndecoded(id uint32, c *conn, body []byte, r packet.Reason) verdict {
	c.version = s.inConnect.Version
	if r == packet.UnsupportedProtocolVersion {
		// An answer in the form that the client most likely reads (section 3.1.2.2 of 5.0).
		c.version = packet.V311
		if len(body) > 6 && string(body[2:6]) == "MQTT" && body[6] > 5 {
			c.version = packet.V50
		}
		return s.refuse(id, r) // [MQTT-3.1.2-2]
	}
	return s.refuseMalformed(id, c, r)
}

// refuseMalformed answers a CONNECT that is not as section 3.1 wants it: 5.0 has a Reason Code for that, 3.x closes without
// CONNACK [MQTT-3.1.4-1].
func (s *Shard) refuseMalformed(id uint32, c *conn, r packet.Reason) verdict {
	if c.version == packet.V50 {
		return s.refuse(id, r)
	}
	return s.violate(id, r)
}

// admit applies the limits that do not depend on who connects.
func (s *Shard) admit(c *conn) packet.Reason {
	if s.draining {
		return s.stopping()
	}
	if !s.rate.take(s.now, s.limits.MaxConnectRate, s.limits.Shards) {
		s.counters[CounterRefusedRate]++
		return packet.ConnectionRateExceeded // Limit: MaxConnectRate.
	}
	c.set(connLimited)
	if s.connected.Add(1) > int64(s.limits.MaxConnections) {
		s.counters[CounterRefusedLimit]++
		return s.elsewhere(packet.QuotaExceeded) // Limit: MaxConnections.
	}
	return packet.Success
}

// stopping is what a CONNECT hears when the broker stops.
func (s *Shard) stopping() packet.Reason {
	return s.elsewhere(packet.ServerUnavailable) // [MQTT-3.2.2-8]: 0x8B is a code of DISCONNECT only.
}

// elsewhere is the Reason Code for clients that had better go to another broker, where they are told of one.
func (s *Shard) elsewhere(r packet.Reason) packet.Reason {
	if s.config.ServerReference != "" {
		return packet.UseAnotherServer // Section 4.11.
	}
	return r
}

// clientID is the Client Identifier, made up where the protocol lets the client leave it out.
func (s *Shard) clientID(c *conn, in *packet.Connect) (string, packet.Reason) {
	if len(in.User) > clientIDMax {
		return "", packet.BadUserNameOrPassword // Limit: clientIDMax, of a User Name.
	}
	if len(in.ClientID) > clientIDMax {
		return "", packet.ClientIdentifierNotValid // Section 3.1.3.1 leaves the bound to the server.
	}
	if len(in.ClientID) > 0 {
		return string(in.ClientID), packet.Success
	}
	if in.Version == packet.V31 || in.Version == packet.V311 && !in.CleanStart {
		return "", packet.ClientIdentifierNotValid // [MQTT-3.1.3-8] of 3.1.1
	}
	c.set(connAssigned)
	return s.newClientID(), packet.Success // [MQTT-3.1.3-6]
}

// newClientID makes up a Client Identifier that no Session has [MQTT-3.2.2-16] and that nobody else can know: who does may take the
// Session over.
func (s *Shard) newClientID() string {
	for {
		var b [16]byte
		_, _ = s.identifiers.Read(b[:]) // It never fails.
		if id := "ringmq-" + hex.EncodeToString(b[:]); s.registry.find(id) == nil {
			return id
		}
	}
}

// checkWill judges the Will as a PUBLISH would be.
func (s *Shard) checkWill(in *packet.Connect) packet.Reason {
	if !in.HasWill {
		return packet.Success
	}
	w := &in.Will
	if !topic.ValidName(w.Topic) || w.Topic[0] == '$' || topic.Levels(w.Topic) > s.limits.MaxTopicLevels {
		return packet.TopicNameInvalid // Section 3.1.3.3: it is a Topic Name like that of PUBLISH.
	}
	if w.PayloadFormat == 1 {
		return textReason(w.Payload)
	}
	return packet.Success
}

// textReason judges a payload whose Payload Format Indicator says that it is text.
func textReason(payload []byte) packet.Reason {
	if !utf8.Valid(payload) {
		return packet.PayloadFormatInvalid // Section 3.3.2.3.2; for a Will 3.1.3.2.3.
	}
	return packet.Success
}

// noteConnect keeps what CONNECT says about the connection.
func (s *Shard) noteConnect(c *conn, in *packet.Connect, clientID string) packet.Reason {
	c.keepAlive = in.KeepAlive
	if m := s.limits.MaxKeepAlive; m > 0 && in.Version == packet.V50 && (in.KeepAlive == 0 || seconds(in.KeepAlive) > m) {
		c.keepAlive = uint16(m / time.Second)
	}
	c.receiveMax = in.ReceiveMaximum
	if in.Version != packet.V50 {
		c.receiveMax = math.MaxUint16
	}
	c.aliasMax = uint8(min(int(in.TopicAliasMaximum), s.limits.TopicAliasMaximum)) // [MQTT-3.1.2-26]
	c.sessionExpiry = s.expiryOf(in)
	if in.CleanStart {
		c.set(connClean)
	}
	if in.RequestResponseInfo {
		c.set(connWantsInfo)
	}
	if !in.HasWill {
		return packet.Success
	}
	w := &in.Will
	s.props = packet.AppendForwarded(s.props[:0], w.Properties)
	o := origin{flags: packet.PublishFlags(false, w.QoS, w.Retain), from: fnv(clientID)}
	if w.HasExpiry {
		o.expires = -1 - int64(w.Expiry) // counts from publication, see releaseWill
	}
	if c.will = s.ms.store(w.Topic, s.props, w.Payload, o); c.will == 0 {
		return packet.QuotaExceeded // Limit: memory for a Will.
	}
	c.willDelay = w.DelayInterval
	return packet.Success
}

func seconds(n uint16) time.Duration { return time.Duration(n) * time.Second }

// expiryOf is the Session Expiry Interval that the broker grants. 3.x knows only "with the connection" and "for ever".
func (s *Shard) expiryOf(in *packet.Connect) uint32 {
	expiry := in.SessionExpiry
	if in.Version != packet.V50 {
		if in.CleanStart {
			return 0
		}
		expiry = neverExpires
	}
	return s.cutExpiry(expiry)
}

func (s *Shard) cutExpiry(expiry uint32) uint32 {
	if m := s.limits.MaxSessionExpiry; m > 0 {
		return min(expiry, uint32(m/time.Second))
	}
	return expiry
}

// authorised goes on with a CONNECT whose client may connect: it claims the Session.
func (s *Shard) authorised(id uint32, clientID, user string) verdict {
	c := &s.conns[id]
	if len(s.accept(id, c, clientID, false)) > int(c.maxPacket) {
		return s.refuse(id, packet.PacketTooLarge) // [MQTT-3.1.2-24], before the Session knows of it
	}
	if r := s.refusesSession(c, clientID); r != packet.Success {
		s.counters[CounterStoreRefusedSessions]++
		return s.refuse(id, r)
	}
	sess, claim, from := s.registry.claimSession(clientID, s.id, func() *Session { return s.newSession(clientID) })
	if sess == nil {
		s.counters[CounterRefusedSessions]++
		return s.refuse(id, packet.QuotaExceeded) // Limit: MaxSessions.
	}
	if from == s.id && s.present(sess) && claim == sess.tenure { // Otherwise it has still to go to another shard, and to come back.
		if w, ok := s.claimants[sess]; ok {
			delete(s.claimants, sess)
			s.supersede(w)
		}
		if sess.conn == 0 || !s.isLate && !s.conns[sess.conn].isBehind() {
			s.setUser(sess, user)
			s.takeOverLocal(sess, id)
			s.attach(id, sess)
			return liveVerdict(c)
		}
		s.await(id, clientID, user, sess, claim)
		s.awaitLocal(id, sess, claim)
		return consumed
	}
	s.await(id, clientID, user, sess, claim)
	s.awaitSession(id, sess, claim, from)
	return consumed
}

// await makes a connection one that waits for its Session.
func (s *Shard) await(id uint32, clientID, user string, sess *Session, claim uint32) {
	w := s.refs[id].connect
	if w == nil {
		w = &connecting{clientID: clientID}
		s.refs[id].connect = w
	}
	w.user, w.claim, w.waits = user, claim, sess
	s.conns[id].state = connClaim
}

func liveVerdict(c *conn) verdict {
	if c.state != connLive && c.state != connClaim {
		return gone
	}
	return consumed
}

// newSession makes a Session on this shard, or nil when there is no slot. Called under the registry's lock.
func (s *Shard) newSession(clientID string) *Session {
	if s.sessionCount.Add(1) > int64(s.limits.MaxSessions) {
		s.sessionCount.Add(-1)
		return nil
	}
	slot := s.sessionSlots.get()
	if slot == 0 || !s.chargeClientID(len(clientID)) {
		s.sessionSlots.putIf(slot)
		s.sessionCount.Add(-1)
		return nil
	}
	sess := &Session{clientID: clientID, id: slot, serial: fnv(clientID), owner: int32(s.id), prev: int32(s.id), fresh: true}
	sess.home.Store(int32(s.id))
	s.sessions[slot].Store(sess)
	return sess
}

// setUser notes whose the Session is. A long name for which there is no room is left out: it is for logs and lists only.
func (s *Shard) setUser(sess *Session, user string) {
	if sess.user == user {
		return
	}
	s.dischargeName(len(sess.user))
	if sess.user = ""; s.chargeName(len(user)) {
		sess.user = user
	}
}

// takeOverLocal ends the Session's old connection and, where Clean Start asks for it, its state.
func (s *Shard) takeOverLocal(sess *Session, id uint32) {
	s.catchUp(sess)
	sess.lingers = 0
	if sess.conn != 0 {
		sess.succeeded = true
		s.endForTake(sess)
	}
	sess.succeeded = false // The connection that was to be closed may have ended by itself.
	// While a Session arrives it does not end with its connection: what was to end with that ends here [MQTT-3.1.2-6].
	if s.conns[id].is(connClean) || sess.arriving && sess.expiry == 0 {
		s.cleanSession(sess)
	}
}

// cleanSession discards all state: the next connection finds a new Session [MQTT-3.1.2-4].
func (s *Shard) cleanSession(sess *Session) {
	s.releaseWill(sess, true)
	s.announceEnd(sess)
	s.endSubscriptions(sess)
	s.passOn(sess, &sess.sent)
	s.passOn(sess, &sess.wait)
	s.passOn(sess, &sess.held)
	s.dropQueue(&sess.sent)
	s.dropQueue(&sess.wait)
	s.dropQueue(&sess.held)
	sess.waitBytes, sess.resend, sess.inflight, sess.dropped = 0, 0, 0, 0
	s.dropReceived(sess)
	s.endKept(sess)
	sess.fresh, sess.expiry = true, 0 // Nobody has it: it ends unless the connection that comes gives it another interval.
	s.wheel.stop(s.expiryTimer(sess))
}

// attach joins a connection and a Session that is here; a Session that is to be kept must be durable first.
func (s *Shard) attach(id uint32, sess *Session) {
	if !s.keepFirst(id, sess) {
		s.attachNow(id, sess)
	}
}

// attachNow joins a connection and a Session and says so with CONNACK.
func (s *Shard) attachNow(id uint32, sess *Session) {
	c := &s.conns[id]
	s.wheel.stop(s.expiryTimer(sess))
	s.releaseWill(sess, false) // [MQTT-3.1.3-9]: a new connection in time cancels the delayed Will.
	present := !sess.fresh
	sess.fresh = false
	if c.sessionExpiry == 0 && c.version != packet.V50 {
		present = false // [MQTT-3.2.2-1] of 3.1.1: Clean Session 1 always says 0.
	}
	sess.conn, sess.expiry, sess.succeeded, sess.discarded = id, c.sessionExpiry, false, 0
	sess.window = uint16(min(int(c.receiveMax), s.limits.MaxInflight))
	// The send quota starts anew with each Network Connection (section 4.9).
	sess.inflight, sess.resend = 0, sess.sent.head
	s.releasedFirst(sess)
	sess.online.Store(true)
	sess.unsure.Store(false)
	s.refs[id].session = sess
	c.state, c.heard = connLive, s.now
	s.counters[CounterConnects]++
	s.counters[CounterMessagesSent]++
	s.send(id, s.accept(id, c, sess.clientID, present)) // [MQTT-3.2.0-1]
	if c.state != connLive {
		return // no memory even for that
	}
	s.armKeepAlive(id)
	s.event(LogEvent{Kind: EventConnected, ClientID: sess.clientID, User: sess.user, Address: s.remote(id), Version: c.version,
		KeepAlive: c.keepAlive, Clean: c.is(connClean)})
	if cn := s.refs[id].connect; cn != nil && cn.method == "" {
		s.refs[id].connect = nil
	}
	s.pump(sess)
}

// accept is the CONNACK that accepts a connection, with what the client must know of the broker's limits. It is larger than the client's
// Maximum Packet Size if it cannot be otherwise.
func (s *Shard) accept(id uint32, c *conn, clientID string, present bool) []byte {
	out := &s.outConnack
	*out = packet.Connack{SessionPresent: present} // [MQTT-3.2.2-2] [MQTT-3.2.2-3]
	if c.version == packet.V50 {
		out.ReceiveMaximum = uint16(s.limits.ReceiveMaximum)
		out.MaximumPacketSize = uint32(s.limits.MaxPacketSize)
		out.TopicAliasMaximum = uint16(s.limits.TopicAliasMaximum)
		s.connackSession(c, clientID, out)
		if cn := s.refs[id].connect; cn != nil && cn.method != "" {
			out.AuthMethod, out.AuthData = []byte(cn.method), cn.data
			out.HasAuthData = cn.data != nil
		}
	}
	b := packet.AppendConnack(s.small[:0], out, c.version)
	if len(b) > int(c.maxPacket) {
		out.ResponseInformation = nil // the one thing the client can do without
		b = packet.AppendConnack(s.small[:0], out, c.version)
	}
	return b
}

func (s *Shard) connackSession(c *conn, clientID string, out *packet.Connack) {
	if m := s.limits.MaxSessionExpiry; m > 0 && c.sessionExpiry == uint32(m/time.Second) {
		out.HasSessionExpiry, out.SessionExpiry = true, c.sessionExpiry
	}
	if m := s.limits.MaxKeepAlive; m > 0 && seconds(c.keepAlive) == m {
		out.HasKeepAlive, out.ServerKeepAlive = true, c.keepAlive // [MQTT-3.1.2-21]
	}
	if c.is(connAssigned) {
		out.AssignedClientID = []byte(clientID) // [MQTT-3.2.2-16]
	}
	if c.is(connWantsInfo) && s.config.ResponseInformation != "" {
		out.ResponseInformation = []byte(strings.ReplaceAll(s.config.ResponseInformation, "%c", clientID))
	}
}

// refuse answers CONNECT with a failure and closes [MQTT-3.1.4-5] [MQTT-3.2.2-7].
func (s *Shard) refuse(id uint32, r packet.Reason) verdict {
	s.abandonAuth(id)
	c := &s.conns[id]
	s.counters[CounterConnectRefused]++
	s.event(LogEvent{Kind: EventRefused, Address: s.remote(id), Reason: r, Version: c.version, ClientID: s.connectingID(id)})
	out := &s.outConnack
	*out = packet.Connack{Reason: r}
	if c.version == packet.V50 {
		if r == packet.UseAnotherServer || r == packet.ServerMoved {
			out.ServerReference = []byte(s.config.ServerReference)
		}
		if c.is(connProblemInfo) {
			out.ReasonString = []byte(r.String())
		}
	}
	b := packet.AppendConnack(s.small[:0], out, c.version)
	if len(b) > int(c.maxPacket) {
		out.ReasonString, out.ServerReference = nil, nil // [MQTT-3.2.2-19]
		b = packet.AppendConnack(s.small[:0], out, c.version)
	}
	if len(b) <= int(c.maxPacket) {
		s.send(id, b)
	}
	if c.will != 0 {
		s.ms.release(c.will) // A Will is the Session's only once it is connected.
		c.will = 0
	}
	s.close(id)
	return gone
}

func (s *Shard) connectingID(id uint32) string {
	if cn := s.refs[id].connect; cn != nil {
		return cn.clientID
	}
	return ""
}

// armKeepAlive starts the timer for one and a half times Keep Alive [MQTT-3.1.2-22], in 64 bits: 65535 × 1.5 does not
// fit 16.
func (s *Shard) armKeepAlive(id uint32) {
	c := &s.conns[id]
	if c.keepAlive == 0 {
		s.wheel.stop(id)
		return
	}
	s.wheel.start(id, s.tickAfter(c.heard+int64(c.keepAlive)*1500-s.now))
}
