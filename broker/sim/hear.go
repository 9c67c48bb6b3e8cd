package sim

import (
	"slices"

	"github.com/ringmq/ringmq/broker/packet"
)

// packets takes the whole packets off what has come.
func (l *link) packets() {
	for l.c.link == l && l.w.violation == nil {
		h, r := packet.ParseHeader(l.in)
		if r != packet.Success {
			l.w.violate("garbage", "c%d: %v", l.c.index, r)
			return
		}
		n := h.Size + h.Remaining
		if h.Size == 0 || len(l.in) < n {
			return
		}
		body := l.in[h.Size:n:n]
		l.in = l.in[n:]
		if l.packetMax > 0 && n > l.packetMax {
			l.w.violate("maximum packet size", "c%d got %v of %d bytes; it takes %d", l.c.index, h.Kind, n, l.packetMax)
		}
		l.checkLast(h.Kind)
		if !l.accepted && h.Kind != packet.CONNACK && !(h.Kind == packet.AUTH && l.exchange.method) {
			l.w.violate("CONNACK first", "c%d got %v before CONNACK", l.c.index, h.Kind)
			return
		}
		if r := l.on(h, body); r != packet.Success {
			l.w.violate("garbage", "c%d: %v does not decode: %v: % x", l.c.index, h.Kind, r, body[:min(len(body), 60)])
		}
	}
}

func (l *link) on(h packet.Header, body []byte) packet.Reason {
	switch h.Kind {
	case packet.CONNACK:
		return l.onConnack(body)
	case packet.PUBLISH:
		return l.onPublish(h.Flags, body)
	case packet.PUBACK, packet.PUBREC, packet.PUBREL, packet.PUBCOMP:
		return l.onAck(h.Kind, body)
	case packet.SUBACK:
		return l.onSuback(body)
	case packet.UNSUBACK:
		return l.onUnsuback(body)
	case packet.PINGRESP:
		if l.pings--; l.pings < 0 {
			l.w.violate("answer", "c%d got a PINGRESP that it did not ask for", l.c.index)
		}
	case packet.AUTH:
		return l.onAuth(body)
	case packet.DISCONNECT:
		return l.onDisconnect(body)
	default:
		l.w.violate("garbage", "c%d got %v", l.c.index, h.Kind)
	}
	return packet.Success
}

func (l *link) onConnack(body []byte) packet.Reason {
	var in packet.Connack
	if r := in.Decode(body, l.version); r != packet.Success {
		return r
	}
	l.noteAnswer(in.Reason)
	if in.Reason != packet.Success {
		l.w.stats.Refused++
		l.checkRefusal(in.Reason)
		if in.Reason == packet.ConnectionRateExceeded {
			l.w.stats.Rated++
			l.c.takeBack(l)
		}
		_ = l.peer.Close()
		l.c.endLink(l, false)
		return packet.Success
	}
	if l.accepted {
		l.w.violate("CONNACK once", "c%d got a second CONNACK", l.c.index)
	}
	if string(in.AuthMethod) != l.methodName() {
		l.w.violate("exchange", "c%d got a CONNACK with the method %q", l.c.index, in.AuthMethod) // [MQTT-4.12.0-5]
	} else if l.exchange.method {
		l.checkWelcome(in.AuthData)
		l.w.stats.Exchanges++
	}
	l.accepted, l.since = true, l.w.step
	l.serverRecv, l.aliasOut = int(in.ReceiveMaximum), int(in.TopicAliasMaximum)
	if l.version != packet.V50 {
		l.serverRecv = 65535
	}
	if in.HasKeepAlive {
		l.keep = int64(in.ServerKeepAlive)
	}
	if in.HasSessionExpiry && int64(in.SessionExpiry)*1000 != l.expiry {
		l.w.violate("session expiry", "c%d was told a Session Expiry Interval of %d s; it asked for %d ms", l.c.index, in.SessionExpiry, l.expiry)
	}
	l.c.resume(l, in.SessionPresent)
	return packet.Success
}

// resume is what CONNACK means for the Session: the one before goes on, or another one begins.
func (c *client) resume(l *link, present bool) {
	s, now := c.session, c.w.now.Load()
	sure := true
	if l.version == packet.V31 { // 3.1 does not say: the client takes it for what it was promised.
		present = s.mustBe(l, now)
		sure = present || l.clean || s.attempts <= 1 && s.mustNotBe(l) // An attempt in between may have kept it.
	}
	if !sure || present && s.attempts > 1 && !s.mustBe(l, now) && !l.clean {
		s.doubt = true // Which Session it is, the client cannot know: it begins another one [MQTT-3.2.2-4].
		c.pending = nil
		c.cut(false)
		return
	}
	if present && s.mustNotBe(l) {
		c.w.violate("session present", "c%d was told that its Session is there, which has ended", c.index)
	}
	if !present && s.mustBe(l, now) {
		c.w.violate("session lost", "c%d was told that its Session is not there, which it was promised for another %d ms", c.index, s.alive.ms+l.priorMin-now)
	}
	c.decideWills(l, present)
	if s.exists {
		c.w.stats.Reconnections++
	}
	if present {
		c.w.stats.SessionsKept++
	} else {
		for _, i := range s.interests {
			i.ended, i.leaving = max(1, c.w.step), max(1, i.leaving)
		}
		s = newSession(c)
		c.session, c.flight = s, nil
	}
	s.exists, s.doubt, s.maybe, s.attempts, s.link, s.gone = true, false, false, 0, l, moment{}
	s.expiryMin, s.expiryMax, s.alive = l.expiry, l.expiry, l.dialled
	s.links++
	l.session = s
	c.findRivals(l)
	for _, o := range c.flight {
		if o.released > 0 {
			o.released++
			l.out = packet.AppendAck(l.out, packet.PUBREL, o.pid, packet.Success, l.version)
		} else {
			l.unsent = append(l.unsent, o)
		}
	}
	l.sendAgain()
}

// sendAgain sends what the last connection left unacknowledged, as far as the broker's Receive Maximum goes [MQTT-3.3.4-7].
func (l *link) sendAgain() {
	for l.open() && len(l.unsent) > 0 && len(l.c.flight)-len(l.unsent) < l.serverRecv {
		o := l.unsent[0]
		l.unsent = l.unsent[1:]
		l.send(o, 0)
	}
}

func (l *link) onSuback(body []byte) packet.Reason {
	var in packet.Suback
	if r := in.Decode(body, l.version); r != packet.Success {
		return r
	}
	asked, ok := l.subs[in.PacketID]
	if !ok || len(in.Codes) != len(asked) {
		l.w.violate("answer", "c%d got a SUBACK of %d codes for %d subscriptions", l.c.index, len(in.Codes), len(asked))
		return packet.Success
	}
	delete(l.subs, in.PacketID)
	for k, i := range asked {
		switch code := in.Code(k); {
		case code.Failed():
			i.ended, i.leaving = l.w.step, max(1, i.leaving)
			if !l.w.mayRefuseSubscription(l, i, code) {
				l.w.violate("subscribe", "c%d may not subscribe to %s: %v", l.c.index, i.filter, code)
			}
		case code != packet.GrantedQoS0+packet.Reason(i.qos):
			l.w.violate("subscribe", "c%d asked for QoS %d of %s and was granted %v", l.c.index, i.qos, i.filter, code)
		default:
			i.granted = l.w.step
			l.replaced(i)
			l.w.checkSubscriptions()
		}
	}
	return packet.Success
}

// replaced ends what a subscription that is granted has replaced.
func (l *link) replaced(by *interest) {
	for _, i := range l.c.session.interests {
		if i != by && i.filter == by.filter && i.share == by.share && i.asked < by.asked && i.ended == 0 {
			i.ended = l.w.step
		}
	}
}

// next checks that an acknowledgement is the one whose turn it is [MQTT-4.6.0-2].
func (l *link) next(list *[]uint16, kind packet.Kind, pid uint16) {
	if len(*list) == 0 || (*list)[0] != pid {
		l.w.violate("order of acknowledgements", "c%d got %v %d; due are %v", l.c.index, kind, pid, *list)
		return
	}
	*list = (*list)[1:]
}

func (l *link) onAck(kind packet.Kind, body []byte) packet.Reason {
	var in packet.Ack
	if r := in.Decode(kind, body, l.version); r != packet.Success {
		return r
	}
	if kind == packet.PUBREL {
		l.onPubrel(in.PacketID, in.Reason)
		return packet.Success
	}
	at := slices.IndexFunc(l.c.flight, func(o *outgoing) bool { return o.pid == in.PacketID })
	if at < 0 {
		l.w.violate("acknowledged", "c%d got %v %d, of which nothing is under way", l.c.index, kind, in.PacketID)
		return packet.Success
	}
	o := l.c.flight[at]
	switch {
	case kind == packet.PUBACK && o.m.qos == 1:
		l.next(&l.pubacks, kind, o.pid)
	case kind == packet.PUBREC && o.m.qos == 2:
		l.next(&l.pubrecs, kind, o.pid)
	case kind == packet.PUBCOMP && o.released > 0:
		if in.Reason.Failed() && o.released == 1 {
			l.w.violate("acknowledged", "c%d got PUBCOMP %d with %v for its first PUBREL", l.c.index, o.pid, in.Reason)
		}
	default:
		l.w.violate("acknowledged", "c%d got %v for a message of QoS %d", l.c.index, kind, o.m.qos)
		return packet.Success
	}
	l.acknowledged(kind, at, in.Reason)
	return packet.Success
}

// acknowledged is what an acknowledgement means for the message.
func (l *link) acknowledged(kind packet.Kind, at int, r packet.Reason) {
	c, o := l.c, l.c.flight[at]
	switch {
	case kind == packet.PUBCOMP:
	case r.Failed():
		o.m.refused = true
		if r == packet.QuotaExceeded && l.w.fullAt >= o.m.sent.step && l.w.disk != nil {
			l.w.stats.RefusedByStore++
		} else if o.m.topic[0] != '$' && !(r == packet.QuotaExceeded && l.w.mayRefuseMessage(o.m)) {
			l.w.violate("refused", "c%d may not publish to %s: %v", c.index, o.m.topic, r)
		}
	default:
		l.checkAccepted(o.m, r)
		l.handled(o.m)
		if o.m.acked.step == 0 {
			o.m.acked = l.w.moment()
			l.w.stats.Acknowledged++
			o.m.stored = l.version == packet.V50 && o.m.retain && !o.m.clears && o.m.expiry == 0 && o.m.tries == 1
		}
		if kind == packet.PUBREC {
			o.released++
			l.c.sayPubrel(o.pid)
			return
		}
	}
	c.flight = slices.Delete(c.flight, at, at+1)
	l.sendAgain()
}

// sayPubrel sends PUBREL unless the client has said its last.
func (c *client) sayPubrel(pid uint16) {
	if l := c.link; !l.leaving && !l.bad && !l.halved {
		l.out = packet.AppendAck(l.out, packet.PUBREL, pid, packet.Success, l.version)
	}
}

// onPubrel ends the client's half of a QoS 2 delivery.
func (l *link) onPubrel(pid uint16, r packet.Reason) {
	if at := slices.Index(l.pubrels, pid); at > 0 {
		l.w.violate("order of acknowledgements", "c%d got PUBREL %d; it sent PUBREC for %v", l.c.index, pid, l.pubrels) // [MQTT-4.6.0-4]
	} else if at == 0 {
		l.pubrels = l.pubrels[1:]
		if r.Failed() {
			l.w.violate("acknowledged", "c%d got PUBREL %d with %v for what it had just received", l.c.index, pid, r)
		}
	}
	delete(l.c.session.taken, pid)
	l.c.reply(ack{packet.AppendAck(nil, packet.PUBCOMP, pid, packet.Success, l.version), pid, true, nil})
}
