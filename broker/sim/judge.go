package sim

import (
	"maps"
	"slices"

	"github.com/ringmq/ringmq/broker"
)

// judge compares what was acknowledged with what has come, when nothing more comes.
func (w *world) judge() {
	lost := 0
	for _, m := range w.messages {
		w.judgeQuick(m)
		if m.acked.step == 0 || m.refused || m.clears || m.qos == 0 || m.topic[0] == '$' || m.will != nil && !m.will.due {
			continue
		}
		if m.expiry > 0 && w.now.Load() >= m.sent.ms+int64(m.expiry)*1000 {
			continue
		}
		n := w.judgeMessage(m)
		if m.will != nil {
			n = min(n, 1) // A Will for which there was no memory has come to nobody.
		}
		lost += n
	}
	w.judgeShared()
	w.judgeReplays()
	w.judgeLiving()
	n := w.counters()
	w.judgeCounters(&n, lost)
}

// counters are the broker's, once they are published, that is once a second, and those of its earlier runs.
func (w *world) counters() broker.Counters {
	w.pass(1500)
	w.quiet()
	n := w.broker.Counters()
	for i := range n {
		n[i] += w.past[i]
	}
	return n
}

// judgeMessage looks for a message at everybody who was promised it, and counts the Sessions that did not get it.
func (w *world) judgeMessage(m *message) (lost int) {
	for _, c := range w.clients {
		s := c.session
		i := s.promised(m, w.step)
		if i == nil || i.low == 0 || c.smallest > 0 && c.smallest < m.sizeMax() {
			continue
		}
		w.stats.Promised++
		if t := s.got[m]; t != nil {
			if t.qos < min(m.qos, i.low) && !w.meets.memory && !w.mayBeFull(s, m) {
				w.violate("qos", "c%d got m%d of QoS %d with QoS %d; it is subscribed to %s with QoS %d", c.index, m.serial, m.qos, t.qos, i.filter, i.low) // [MQTT-3.3.4-2]
			}
			continue
		}
		if lost++; !w.meets.memory && !w.mayBeFull(s, m) {
			what := "message"
			if m.will != nil {
				what = "the Will"
			}
			w.violate("lost", "c%d did not get %s m%d of c%d on %s, QoS %d, sent at step %d and acknowledged at step %d; it is subscribed to %s since step %d",
				c.index, what, m.serial, m.from.index, m.topic, m.qos, m.sent.step, m.acked.step, i.filter, i.granted)
		}
	}
	return lost
}

// judgeShared looks for the messages that a Shared Subscription must have got, and got only once: those for which one who is a member was one
// all the time. At QoS 1 others may have gone: what they had not acknowledged moves on.
func (w *world) judgeShared() {
	for _, name := range slices.Sorted(maps.Keys(w.groups)) {
		members := w.groups[name]
		if w.violation != nil || w.meets.queue || w.meets.memory {
			return
		}
		for _, m := range w.messages {
			if m.acked.step != 0 && !m.refused && !m.clears && m.qos > 0 && m.will == nil && m.expiry == 0 && matches(members[0].filter, m.topic) {
				w.judgeGroup(name, members, m)
				w.judgeCopies(name, members, m)
			}
		}
	}
}

func (w *world) judgeGroup(name string, members []*member, m *message) {
	low, high, copies, others, sure, gone := uint8(2), uint8(0), 0, false, 0, 0
	for _, one := range members {
		s := one.session
		if !one.may(m.sent.step, w.step) {
			continue
		}
		if s.owner.smallest > 0 {
			return
		}
		if one.must(m.sent.step, w.step) && s.owner.session == s {
			sure++
		} else {
			gone++
		}
		low, high = min(low, one.low), max(high, min(m.qos, one.qos))
		s.possible(m, w.step, func(i *interest) { others = others || i.share != one.share || i.filter != one.filter })
		if t := s.got[m]; t != nil {
			copies += t.live + t.again + t.kept
		}
	}
	if sure == 0 || low == 0 || gone > 0 && (high > 1 || w.crashesSince(m.sent.step) > 0) {
		return // Of QoS 2 what one was given moves to no other [MQTT-4.8.2-5], and a crash loses what one had that was not kept.
	}
	w.stats.SharedPromised++
	if copies == 0 {
		w.violate("lost", "the Shared Subscription %s did not get m%d of c%d on %s, QoS %d", name, m.serial, m.from.index, m.topic, m.qos)
	}
	if copies > 1 && gone == 0 && low == 2 && m.qos == 2 && !others {
		w.violate("twice", "the Shared Subscription %s got m%d of QoS 2 %d times", name, m.serial, copies)
	}
}

// judgeCopies counts the Sessions that a Shared Subscription gave a message to: one, but for those that have ended since, from which a
// QoS 1 message moves on, and one more for each time that it was published or that a crash may have come between the moving and its
// record.
func (w *world) judgeCopies(name string, members []*member, m *message) {
	copies, seen := 0, map[*session]bool{}
	for _, one := range members {
		s := one.session
		if seen[s] {
			continue
		}
		seen[s] = true
		others := false
		s.possible(m, w.step, func(i *interest) { others = others || i.share != one.share || i.filter != one.filter })
		if others {
			return
		}
		if t := s.got[m]; t != nil && s.owner.session == s {
			copies += t.live
		}
	}
	most := 1
	if m.qos == 1 {
		most = max(1, m.tries)
	}
	most += w.crashesSince(m.sent.step)
	if copies > most {
		w.violate("twice", "the Shared Subscription %s gave m%d of QoS %d to %d Sessions that are there; %d would do", name, m.serial, m.qos, copies, most)
	}
}
