package sim

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/ringmq/ringmq/broker/packet"
)

// onPublish checks a delivery by everything that is known when it comes, and acknowledges it.
func (l *link) onPublish(flags uint8, body []byte) packet.Reason {
	var in packet.Publish
	if r := in.DecodeFromServer(flags, body, l.version); r != packet.Success {
		return r
	}
	if l.flowing == 0 {
		l.flowing = l.w.step
	}
	name := l.topicOf(&in)
	m := l.w.identify(l, name, &in)
	if l.w.violation != nil {
		return packet.Success
	}
	if in.Retain && len(in.Payload) == 0 && !l.c.session.asPublished(name) {
		l.w.violate("retain", "c%d got %v on %s, an empty Retained Message", l.c.index, m, name) // [MQTT-3.3.1-6]
	}
	l.checkIdentifier(&in, m)
	again := in.QoS == 2 && (l.known(in.PacketID) || in.Dup && m != nil && l.c.session.denied[in.PacketID] == m)
	if in.QoS == 2 {
		l.c.session.taken[in.PacketID] = m
	}
	if m != nil {
		l.w.stats.Delivered++
		l.checkMatch(&in, m)
		if !again {
			l.count(&in, m)
		}
	}
	l.answer(&in, m)
	return packet.Success
}

func (l *link) known(pid uint16) bool {
	_, ok := l.c.session.taken[pid]
	return ok
}

// topicOf is the Topic Name, with the broker's Topic Aliases resolved.
func (l *link) topicOf(in *packet.Publish) string {
	name := string(in.Topic)
	if in.Alias == 0 {
		return name
	}
	if int(in.Alias) > l.aliasMax {
		l.w.violate("topic alias", "c%d got Topic Alias %d; it takes %d", l.c.index, in.Alias, l.aliasMax) // [MQTT-3.1.2-26]
	}
	if name == "" {
		name = l.aliases[in.Alias]
	}
	l.aliases[in.Alias] = name
	return name
}

// identify finds the message that a payload names, and compares every byte; nil for an empty payload that nothing else names.
func (w *world) identify(l *link, name string, in *packet.Publish) *message {
	payload := in.Payload
	if len(payload) == 0 {
		return w.clearing(l, name, in)
	}
	head, rest, _ := bytes.Cut(payload, []byte("\n"))
	var serial, size int
	var topic string
	if _, err := fmt.Sscanf(string(head), "m%d %s %d", &serial, &topic, &size); err != nil || serial < 1 || serial > len(w.messages) {
		w.violate("content", "c%d got on %s what nobody sent: %q", l.c.index, name, head)
		return nil
	}
	m := w.messages[serial-1]
	if m.topic != name || !bytes.Equal(m.payload(), payload) {
		w.violate("content", "c%d got on %s other than what was sent on %s: %q and %d bytes", l.c.index, name, m.topic, head, len(rest))
	}
	return m
}

// checkIdentifier checks the Packet Identifier, DUP and the client's Receive Maximum.
func (l *link) checkIdentifier(in *packet.Publish, m *message) {
	c, s := l.c, l.c.session
	if in.Dup && (in.QoS == 0 || s.links == 1 || m != nil && m.will == nil && m.sent.step > l.since) {
		l.w.violate("DUP", "c%d got %v of QoS %d with DUP; no connection before can have had it", c.index, m, in.QoS) // [MQTT-3.3.1-1] [MQTT-3.3.1-2]
	}
	if in.QoS == 0 {
		return
	}
	if l.unacked[in.PacketID] {
		l.w.violate("packet identifier", "c%d got Packet Identifier %d twice before it was acknowledged", c.index, in.PacketID) // [MQTT-2.2.1-4]
	}
	if first, ok := s.taken[in.PacketID]; ok && (in.QoS != 2 || !first.maySame(m) || !in.Dup) {
		l.w.violate("packet identifier", "c%d got Packet Identifier %d for another message before PUBREL", c.index, in.PacketID)
	}
	if l.unacked[in.PacketID] = true; len(l.unacked) > l.recv {
		l.w.violate("receive maximum", "c%d has %d messages under way; it takes %d", c.index, len(l.unacked), l.recv) // [MQTT-3.3.4-9]
	}
}

// maySame says whether two deliveries may be of one message: what an empty payload is of, a client of 3.x cannot know.
func (m *message) maySame(o *message) bool {
	return m == o || (m == nil || m.clears) && (o == nil || o.clears)
}

// checkMatch checks that a subscription accounts for the delivery and for everything in it.
func (l *link) checkMatch(in *packet.Publish, m *message) {
	c, s := l.c, l.c.session
	n, qosFits, asIsFits, anyBare, mayKeep := 0, false, false, false, false
	ids := map[uint32]int{}
	s.possible(m, l.w.step, func(i *interest) {
		n++
		qosFits = qosFits || in.QoS == min(m.qos, i.qos)
		asIsFits = asIsFits || i.asIs == in.Retain
		anyBare = anyBare || i.id == 0
		mayKeep = mayKeep || i.asIs || in.Dup || i.mayReplay(l.w)
		ids[uint32(i.id)]++
	})
	switch {
	case n == 0:
		l.w.violate("not matched", "c%d got m%d on %s of c%d, for which it has no subscription", c.index, m.serial, m.topic, m.from.index)
	case m.refused && m.tries == 1, m.topic[0] == '$': // Section 4.7.2: such names are the broker's.
		l.w.violate("not allowed", "c%d got m%d on %s, which was refused, or is to be", c.index, m.serial, m.topic)
	case !qosFits:
		l.w.violate("qos", "c%d got m%d of QoS %d with QoS %d, which no subscription asks for", c.index, m.serial, m.qos, in.QoS) // Section 3.8.4.
	case in.Retain && (!m.retain || !mayKeep), !in.Retain && m.retain && !asIsFits:
		l.w.violate("retain", "c%d got m%d, published with RETAIN %v, with %v", c.index, m.serial, m.retain, in.Retain) // [MQTT-3.3.1-12]
	case in.HasExpiry && !l.mayBeLeft(int64(in.Expiry)*1000, m), !in.HasExpiry && m.expiry > 0 && !m.bare && l.version == packet.V50:
		l.w.violate("expiry", "c%d got m%d, which expires after %d s, with %v, %d s", c.index, m.serial, m.expiry, in.HasExpiry, in.Expiry) // [MQTT-3.3.2-6]
	case m.expiry > 0 && !m.bare && m.acked.step != 0 && m.will == nil && !in.Dup && l.dialled.ms > m.acked.ms+int64(m.expiry)*1000+slackMS:
		l.w.violate("expiry", "c%d connected when m%d had expired, and got it", c.index, m.serial) // [MQTT-3.3.2-5]
	}
	l.checkProperties(in, m)
	l.checkIDs(in, m, ids, anyBare)
	l.checkMerged(in, m)
}

// mayReplay says whether Retained Messages may come for the subscription: not when it is shared (section 4.8.2), nor when its Retain Handling says so
// [MQTT-3.3.1-10] [MQTT-3.3.1-11]. What has come behind the SUBACK or UNSUBACK that ended it is another's, unless it waited on a disk.
func (i *interest) mayReplay(w *world) bool {
	return i.replays() && (i.ended == 0 || i.ended >= w.step || w.disk != nil)
}

// replays says whether the subscription may have Retained Messages to bring, be it what one that it replaced had still to bring [MQTT-3.8.4-4].
func (i *interest) replays() bool {
	return i.share == "" && (i.handling == 0 || i.handling == 1 && !i.again || i.inherits)
}

// mayBeLeft says whether so much of a message's interval may be left, in ms: what the time has taken that it has surely waited in the broker is not,
// and no more has been taken than went by since it was sent [MQTT-3.3.2-6]; a Will is sent when its connection has ended (section 3.1.3.2.4).
func (l *link) mayBeLeft(ms int64, m *message) bool {
	const rounding = 1000
	whole, most, sent := int64(m.expiry)*1000, int64(m.expiry)*1000, m.sent.ms
	switch {
	case m.will != nil && m.will.ended.step != 0:
		sent = m.will.ended.ms
	case m.will == nil && m.acked.step != 0 && l.dialled.ms > m.acked.ms:
		most = max(rounding, whole-(l.dialled.ms-m.acked.ms)+rounding)
	}
	return m.expiry > 0 && ms <= min(most, whole) && ms >= whole-(l.w.now.Load()-sent)-rounding
}

// checkMerged checks that a message that comes once for several subscriptions has the highest QoS and all the Subscription Identifiers
// [MQTT-3.3.4-2] [MQTT-3.3.4-4].
func (l *link) checkMerged(in *packet.Publish, m *message) {
	until := m.acked.step
	if until == 0 {
		until = l.w.step
	}
	if in.Retain && m.retain || l.w.moving(l.c.session, m, until) {
		return // The Retained Message comes for one of them; while the Session moves there is a copy for each.
	}
	for _, i := range l.c.session.merged(m, l.w.step) {
		if in.QoS < min(m.qos, i.qos) {
			l.w.violate("qos", "c%d got m%d of QoS %d with QoS %d; it is subscribed to %s with QoS %d", l.c.index, m.serial, m.qos, in.QoS, i.filter, i.qos)
		}
		if l.version == packet.V50 && i.id != 0 && !slices.Contains(idsOf(in), uint32(i.id)) {
			l.w.violate("subscription identifier", "c%d got m%d without the Subscription Identifier %d of %s", l.c.index, m.serial, i.id, i.filter)
		}
	}
}

func idsOf(in *packet.Publish) (ids []uint32) {
	list := in.SubscriptionIDs()
	for id, ok := list.Next(); ok; id, ok = list.Next() {
		ids = append(ids, id)
	}
	return ids
}

// checkIDs checks the Subscription Identifiers [MQTT-3.3.4-3].
func (l *link) checkIDs(in *packet.Publish, m *message, ids map[uint32]int, anyBare bool) {
	if l.version != packet.V50 {
		return
	}
	list := idsOf(in)
	for _, id := range list {
		if ids[id]--; ids[id] < 0 {
			l.w.violate("subscription identifier", "c%d got m%d with Subscription Identifier %d, which it did not give for it, or not as often", l.c.index, m.serial, id)
		}
	}
	if len(list) == 0 && !anyBare {
		l.w.violate("subscription identifier", "c%d got m%d without a Subscription Identifier", l.c.index, m.serial)
	}
}

// count adds a delivery up: whether it is one too many, and whether it is in order.
func (l *link) count(in *packet.Publish, m *message) {
	s := l.c.session
	t := s.tally(m)
	t.last, t.qos = l.w.step, max(t.qos, in.QoS)
	key := stream{m.from, m.topic, in.QoS, l.w.disk != nil && in.QoS == 0 && m.qos < 2}
	first := t.live+t.again+t.kept == 0 && !(m.clears && in.Dup) // It may have come to a client of 3.x, nameless.
	// A Retained Message may come again, but not when a younger one has come [MQTT-4.6.0-6]. What is sent again is as old as it is.
	if at := s.newest[key]; m.seq < at && (first || in.Retain && !in.Dup && !s.sentAgain(m, l.w.step)) && s.ordered(m, l.w.step) {
		l.w.violate("order", "c%d got message %d of c%d on %s, QoS %d, after %d (m%d, RETAIN %v, DUP %v)", l.c.index, m.seq, m.from.index, m.topic, in.QoS, at, m.serial, in.Retain, in.Dup)
	}
	s.newest[key] = max(s.newest[key], m.seq)
	switch {
	case in.Retain:
		t.kept++
		if l.c.kept != nil {
			l.c.kept[m.topic] = m
		}
	case in.Dup && in.QoS == 1:
		if t.again++; t.done > 0 && l.w.crashesSince(t.done) == 0 && t.live < 2 && t.kept == 0 && m.tries == 1 && s.copies(m, l.w.step) == 1 {
			l.w.violate("twice", "c%d got m%d with DUP, which it had acknowledged", l.c.index, m.serial) // [MQTT-4.4.0-1]
		}
	default:
		t.live++
	}
	if most := s.copies(m, l.w.step); t.live > most {
		l.w.violate("twice", "c%d got m%d of QoS %d with QoS %d %d times; %d would do", l.c.index, m.serial, m.qos, in.QoS, t.live, most)
	}
	if m.will != nil {
		m.will.hear(l)
	}
}

// asPublished says whether a subscription to a Topic Name ever had Retain As Published.
func (s *session) asPublished(name string) bool {
	return slices.ContainsFunc(s.interests, func(i *interest) bool { return i.asIs && matches(i.filter, name) })
}

// sentAgain says whether a message with RETAIN may be one that its publisher sent again, and not one that was kept.
func (s *session) sentAgain(m *message, now int) bool {
	asIs := false
	s.possible(m, now, func(i *interest) { asIs = asIs || i.asIs })
	return asIs && m.qos == 1 && m.tries > 1
}

// sizeMax is more than what a PUBLISH of the message has, in bytes.
func (m *message) sizeMax() int { return m.size + len(m.props) + 200 }

// ordered says whether the message must come before younger ones: not a Will, which comes when it is due, not through a Shared
// Subscription, not when a crash has undone that it was too large, and not when the publisher sent it again and only the second PUBLISH
// may have matched, found room, fitted the connection's Maximum Packet Size, or not expired.
func (s *session) ordered(m *message, now int) bool {
	shared := false
	s.possible(m, now, func(i *interest) { shared = shared || i.share != "" })
	if m.will != nil || shared {
		return false
	}
	if small := s.owner.smallest; small > 0 && small < m.sizeMax() && (m.tries > 1 || s.owner.w.crashesSince(m.sent.step) > 0) {
		return false // It was left out for a connection that did not take it, others went on, and it came again, or a crash has undone that.
	}
	if m.refusalLost() {
		return false
	}
	if m.qos != 1 || m.tries == 1 {
		return true
	}
	i := s.promised(m, now)
	return i != nil && i.low > 0 && m.expiry == 0
}

// refusalLost says whether the store, the memory, a queue or what Retained Messages have may have been full for the first PUBLISH, and the
// Reason Code that said so lost: then the second one counts, which younger messages may have passed.
func (m *message) refusalLost() bool {
	w := m.from.w
	return m.tries > 1 && (w.meets.queue || w.meets.retained || w.meets.memory || m.sent.step <= w.fullAt)
}

// copies is how often a message may come for the first time: once by each Topic Filter (section 3.3.4), at QoS 1 for each time it
// was sent, and with each crash again from another member of a Shared Subscription, whose Session ended.
func (s *session) copies(m *message, now int) int {
	filters := map[string]bool{}
	passed := 0
	s.possible(m, now, func(i *interest) {
		filters[i.share+"\x00"+i.filter] = true
		if i.share != "" && min(m.qos, i.qos) == 1 {
			passed = s.owner.w.crashesSince(m.sent.step)
		}
	})
	n := len(filters)
	if m.qos == 1 || m.qos == 0 && m.will != nil {
		n *= max(1, m.tries)
	}
	return n + passed
}

// answer acknowledges a delivery; a client that is told to denies one.
func (l *link) answer(in *packet.Publish, m *message) {
	c := l.c
	reason := packet.Success
	if in.QoS > 0 && c.deny && l.version == packet.V50 && !in.Dup {
		c.deny, reason = false, packet.ImplementationSpecificError
	}
	switch in.QoS {
	case 1:
		c.reply(ack{packet.AppendAck(nil, packet.PUBACK, in.PacketID, reason, l.version), in.PacketID, true, m})
	case 2:
		if delete(c.session.denied, in.PacketID); reason.Failed() { // [MQTT-4.3.3-4]: that ends it, for both
			c.session.denied[in.PacketID] = c.session.taken[in.PacketID]
			delete(c.session.taken, in.PacketID)
		} else if l.open() && !c.hold {
			l.pubrels = append(l.pubrels, in.PacketID)
		}
		c.reply(ack{packet.AppendAck(nil, packet.PUBREC, in.PacketID, reason, l.version), in.PacketID, reason.Failed(), nil})
	}
}

// checkAccepted checks what an acknowledgement of Success says of the subscriptions.
func (l *link) checkAccepted(m *message, r packet.Reason) {
	if m.topic[0] == '$' && l.version == packet.V50 && m.tries == 1 {
		l.w.violate("not allowed", "c%d published to %s, which is the broker's, and was told %v", l.c.index, m.topic, r)
	}
	if r != packet.NoMatchingSubscribers || m.tries > 1 {
		return
	}
	for _, c := range l.w.clients {
		s := c.session
		if c.link == nil || !c.link.accepted || s.doubt || s.expiryMin < 50_000_000 {
			continue
		}
		if i := s.promised(m, l.w.step); i != nil {
			l.w.violate("no matching subscribers", "c%d was told so of m%d; c%d is subscribed to %s", l.c.index, m.serial, c.index, i.filter)
		}
	}
}
