package sim

import "github.com/ringmq/ringmq/broker/packet"

// will is the Will Message of one connection.
type will struct {
	m       *message
	link    *link
	delay   int64  // ms
	ended   moment // last moment at which the connection was surely there, once it is not
	touched int    // CONNECT packets since, of which each may have cancelled it
	heard   moment // when a client first got it; step 0: none yet
	due     bool   // it must come
	never   bool   // it must not
}

// newWill is the Will that the Op of a CONNECT asks for; nil for none.
func (c *client) newWill(o *Op, in *packet.Connect) *will {
	qos := o.get("will", 0) - 1
	if qos < 0 {
		return nil
	}
	name := "w/" + c.id
	c.seq[name]++
	m := &message{from: c, topic: name, seq: c.seq[name], qos: uint8(qos % 3), retain: o.is("wretain"), sent: c.w.moment(), tries: 1}
	c.w.add(m)
	w := &will{m: m}
	if in.Version == packet.V50 {
		w.delay = int64(o.get("delay", 0)) * 1000
		m.props, m.expiry = propertiesOf(m, o.get("wprops", 0)), o.get("wexpiry", 0)
	}
	m.will = w
	in.HasWill = true
	in.Will = packet.Will{QoS: m.qos, Retain: m.retain, Topic: []byte(name), Payload: m.payload(), Properties: m.props, DelayInterval: uint32(w.delay / 1000),
		HasExpiry: m.expiry > 0, Expiry: uint32(m.expiry)}
	return w
}

// hear notes that a client got the Will, which must not be too early.
func (w *will) hear(l *link) {
	if w.heard.step == 0 {
		w.heard = l.w.moment()
	}
	if w.never {
		l.w.violate("will", "c%d got the Will m%d of c%d, which was deleted", l.c.index, w.m.serial, w.m.from.index)
	}
	if w.ended.step != 0 && w.link.accepted && w.touched == 0 && w.delay > 0 && w.m.from.link == nil {
		s := w.m.from.session
		if at := w.ended.ms + min(w.delay, s.expiryMin); l.w.now.Load() < at-slackMS && s == w.link.session && s.exists && !s.doubt {
			l.w.violate("will delay", "c%d got the Will m%d of c%d %d ms early", l.c.index, w.m.serial, w.m.from.index, at-l.w.now.Load())
		}
	}
}

// endWill is what the end of a connection means for its Will. A DISCONNECT that was written, on a connection that nothing
// else ended, deletes it [MQTT-3.14.4-3]; without one it is due [MQTT-3.1.2-8].
func (l *link) endWill(reset bool) {
	w := l.will
	if w == nil {
		return
	}
	w.ended = l.drained
	switch {
	case !l.accepted:
		return
	case l.leaving && !l.keepWill:
		if len(l.out) == 0 && !reset && !l.ghost {
			switch l.mightHaveEnded() {
			case "":
				w.decide(false)
			case outOfMemory:
				l.w.starvation.deleted = append(l.w.starvation.deleted, w)
			}
		}
		w.touched++ // It may come, and who knows what the Session's Expiry Interval was by then.
		return
	case w.delay == 0:
		w.decide(true)
		return
	}
	if l.rivalled {
		w.touched++ // An earlier CONNECT that is read only now takes the Session over, and cancels it too [MQTT-3.1.3-9].
	}
	l.c.pending = append(l.c.pending, w)
}

// mightHaveEnded is why the broker may have ended the connection before it read DISCONNECT; empty when it may not.
func (l *link) mightHaveEnded() string {
	l.leaving = false
	defer func() { l.leaving = true }()
	return l.excuse()
}

// decide says what the Will must do.
func (w *will) decide(due bool) {
	world := w.m.from.w
	if w.due = due; due {
		w.m.sent, w.m.acked = w.ended, world.moment()
		world.stats.WillsDue++
		return
	}
	w.never = true
	world.stats.WillsNever++
	if w.heard.step != 0 {
		world.violate("will", "the Will m%d of c%d came, which was deleted", w.m.serial, w.m.from.index)
	}
}

// decideWills is what a CONNACK means for Wills that wait: the Session went on in time, which cancels them
// [MQTT-3.1.3-9], or it had ended, or the delay had passed.
func (c *client) decideWills(l *link, present bool) {
	for _, w := range c.pending {
		switch gone := w.link.gone; {
		case gone.step != 0 && l.dialled.ms > gone.ms+w.delay+slackMS && w.touched == 1:
			w.decide(true)
		case w.touched != 1 || l.w.meets.memory:
		case !present:
			w.decide(true)
		case c.w.now.Load() < w.ended.ms+min(w.delay, l.priorMin)-slackMS:
			w.decide(false)
		}
	}
	c.pending = nil
}
