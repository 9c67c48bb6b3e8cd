package sim

import (
	"maps"
	"slices"

	"github.com/ringmq/ringmq/broker"
)

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
	asked := w.step
	reader.subscribe(&Op{Name: "+/+", Args: []Arg{{"qos", 2}}})
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
	if !w.meets.retained && !w.meets.subs && !w.meets.memory {
		w.judgeRetainedWills(reader.kept, asked)
	}
	return w.violation == nil
}

// judgeRetainedWills looks for a Retained Message where a Will with RETAIN was surely published before the reader asked, since the last stop
// that left nothing.
func (w *world) judgeRetainedWills(kept map[string]*message, asked int) {
	for _, m := range w.messages {
		if m.will != nil && m.retain && m.expiry > 0 {
			kept[m.topic] = m // It may have replaced another one, and expired.
		}
	}
	for _, m := range w.messages {
		if m.will == nil || !m.will.due || m.acked.step >= asked || m.qos == 0 && w.crashesSince(m.sent.step) > 0 { // Of QoS 0 a crash may lose it.
			continue
		}
		if m.retain && m.sent.step > w.emptied && kept[m.topic] == nil {
			w.violate("retained", "there is no Retained Message of %s; the Will m%d was published", m.topic, m.serial)
		}
	}
}

// judgeReplays looks for the Retained Messages that a subscription must have been sent when it was made [MQTT-3.3.1-9] [MQTT-3.3.1-10]: the last one that was
// acknowledged before, or one that replaced it, in the Session of somebody who is still subscribed.
func (w *world) judgeReplays() {
	if w.meets.queue || w.meets.retained || w.meets.memory {
		return // What is refused, or dropped, may be the one.
	}
	for _, c := range w.clients {
		for _, i := range c.session.interests {
			if !i.surelyReplays(c.session) || c.smallest > 0 {
				continue
			}
			for _, name := range slices.Sorted(maps.Keys(w.streams)) {
				if matches(i.filter, name) {
					w.judgeReplay(c, i, w.streams[name])
				}
			}
		}
	}
}

// surelyReplays says whether a subscription that is there surely had Retained Messages sent: with QoS 0, on a connection that is there still.
func (i *interest) surelyReplays(s *session) bool {
	fresh := !slices.ContainsFunc(s.interests, func(o *interest) bool {
		return o != i && o.filter == i.filter && o.share == "" && o.asked <= i.asked && (o.ended == 0 || o.ended >= i.asked)
	})
	return i.granted != 0 && i.leaving == 0 && i.share == "" && !i.noLocal && (i.qos > 0 || s.owner.link == s.link && s.link.since <= i.asked) && (i.handling == 0 || i.handling == 1 && fresh)
}

func (w *world) judgeReplay(c *client, i *interest, list []*message) {
	last := -1
	for at, m := range list {
		if m.acked.step != 0 && m.acked.step < i.asked && !m.refused {
			last = at
		}
	}
	if last < 0 {
		return
	}
	for _, m := range list[last:] {
		t := c.session.got[m]
		if m.clears || m.expiry > 0 || t != nil && t.last >= i.asked {
			return
		}
	}
	switch {
	case slices.ContainsFunc(list[:last], func(m *message) bool { return m.refusalLost() }):
	case i.qos == 0: // It may have been replaced, and what came instead been dropped for a client that did not read: that is counted.
		w.quickLost++
	default:
		w.violate("retained", "c%d subscribed to %s at step %d and did not get %v, the Retained Message of %s", c.index, i.filter, i.asked, list[last], list[last].topic)
	}
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
