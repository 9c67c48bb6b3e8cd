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
		if i == nil || i.low == 0 || c.smallest > 0 && c.smallest < m.size+headRoom {
			continue
		}
		w.stats.Promised++
		if t := s.got[m]; t != nil {
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

// judgeShared looks for the messages that a Shared Subscription must have got, and got only once: those for which all who
// were members at any time were members all the time, and still are.
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
	low, copies, others, sure := uint8(2), 0, false, 0
	for _, one := range members {
		s := one.session
		if !one.may(m.sent.step, w.step) {
			continue
		}
		if !one.must(m.sent.step, w.step) || s.owner.session != s || s.owner.smallest > 0 {
			return
		}
		sure++
		low = min(low, one.low)
		s.possible(m, w.step, func(i *interest) { others = others || i.share != one.share || i.filter != one.filter })
		if t := s.got[m]; t != nil {
			copies += t.live + t.again + t.kept
		}
	}
	if sure == 0 || low == 0 {
		return
	}
	w.stats.SharedPromised++
	if copies == 0 {
		w.violate("lost", "the Shared Subscription %s did not get m%d of c%d on %s, QoS %d", name, m.serial, m.from.index, m.topic, m.qos)
	}
	if copies > 1 && low == 2 && m.qos == 2 && !others {
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

// judgeRetained reads the Retained Messages as a new client does: each must be the last that was acknowledged, or one behind it.
func (w *world) judgeRetained() bool {
	reader := w.client(len(w.clients))
	reader.dialClean()
	if !w.until("a connection for the reader", func() bool {
		if reader.link == nil && w.patient(reader) {
			reader.dialClean()
		}
		return reader.link != nil && reader.link.accepted
	}) {
		return false
	}
	reader.kept = map[string]*message{}
	reader.subscribe(&Op{Name: "r/+", Args: []Arg{{"qos", 2}}})
	if !w.quiet() {
		return false
	}
	n := w.broker.Counters()
	for _, name := range slices.Sorted(maps.Keys(w.streams)) {
		list := w.streams[name]
		last := len(list) - 1
		for last > 0 && (list[last].acked.step == 0 || list[last].refused) {
			last--
		}
		if n.Of(broker.CounterRetainedRefused) == 0 && !w.mayBeKept(reader.kept[name], list[last:]) && !w.keptLate(reader.kept[name], list[:last]) {
			w.violate("retained", "the Retained Message of %s is %v; the last that was acknowledged is %v", name, reader.kept[name], list[last])
		}
	}
	return w.violation == nil
}

// mayBeKept says whether one of the messages may have left got, or nothing, in the store.
func (w *world) mayBeKept(got *message, list []*message) bool {
	for i, m := range list {
		switch {
		case got == m, got == nil && (m.clears || m.expiry > 0 || m.refused || w.meets.retained || w.meets.memory):
			return true
		case i == 0 && m.acked.step == 0 && got == nil:
			return true // nothing of it was ever acknowledged
		}
	}
	return false
}

// keptLate says whether an older message may have come after the last one: its client sent it again, for the refusal was lost.
func (w *world) keptLate(got *message, older []*message) bool {
	return slices.ContainsFunc(older, func(m *message) bool {
		return m.refusalLost() && (got == m || got == nil && m.clears)
	})
}
