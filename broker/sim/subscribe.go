package sim

import (
	"strings"

	"github.com/ringmq/ringmq/broker/packet"
)

// unsubscribing is one Topic Filter of an UNSUBSCRIBE.
type unsubscribing struct {
	filter string
	ends   []*interest // what it ends
	none   bool        // there surely was nothing to end
}

// subscribe asks for Topic Filters, whose names have commas between them; each asks for another QoS than the one before.
func (c *client) subscribe(o *Op) {
	l := c.link
	if !l.open() || o.Name == "" {
		return
	}
	var asked []*interest
	var list []packet.Subscription
	for k, name := range strings.Split(o.Name, ",") {
		i := c.interestIn(name, o, k)
		options := packet.Options{QoS: i.qos, NoLocal: i.noLocal, RetainAsPublished: i.asIs}
		if l.version == packet.V50 {
			options.RetainHandling = uint8(i.handling)
		}
		asked, list = append(asked, i), append(list, packet.Subscription{Filter: []byte(name), Options: options})
	}
	pid := c.freePID()
	l.subs[pid] = asked
	l.out = packet.AppendSubscribe(l.out, &packet.Subscribe{PacketID: pid, SubscriptionID: uint32(asked[0].id)}, list, l.version)
}

// interestIn is what the Op's k-th Topic Filter asks for, and replaces what was there.
func (c *client) interestIn(name string, o *Op, k int) *interest {
	i := &interest{qos: uint8((o.get("qos", 0) + k) % 3), asked: c.w.step}
	i.low = i.qos
	i.share, i.filter = splitShare(name)
	if c.link.version == packet.V50 {
		i.noLocal, i.asIs, i.id, i.handling = o.is("nl") && i.share == "", o.is("rap"), o.get("id", 0), o.get("rh", 0)%3
	}
	for _, old := range c.session.interests {
		if old.filter != i.filter || old.share != i.share || old.ended != 0 {
			continue
		}
		if old.granted != 0 && old.leaving == 0 && !old.noLocal && !i.noLocal {
			i.since, i.low = old.granted, min(i.qos, old.low) // [MQTT-3.8.4-4]: nothing is lost when it is replaced.
			if old.since != 0 {
				i.since = old.since
			}
		}
		i.again = i.again || old.granted != 0 && old.leaving == 0
		i.inherits = i.inherits || old.replays()
		if old.leaving == 0 {
			old.leaving = c.w.step
		}
	}
	c.session.interests = append(c.session.interests, i)
	c.w.noteInterest(c.session, i)
	if i.share != "" {
		key := i.share + "/" + i.filter
		c.w.groups[key] = append(c.w.groups[key], &member{i, c.session})
	}
	return i
}

// unsubscribe ends subscriptions to Topic Filters, whose names have commas between them.
func (c *client) unsubscribe(names string) {
	l := c.link
	if !l.open() || names == "" {
		return
	}
	pid := c.freePID()
	var filters [][]byte
	for name := range strings.SplitSeq(names, ",") {
		share, rest := splitShare(name)
		u := unsubscribing{filter: name, none: true}
		for _, i := range c.session.interests {
			if i.filter != rest || i.share != share || i.ended != 0 {
				continue
			}
			if u.none = false; i.leaving == 0 {
				i.leaving = c.w.step
				u.ends = append(u.ends, i)
			}
		}
		l.unsubs[pid] = append(l.unsubs[pid], u)
		filters = append(filters, []byte(name))
	}
	l.out = packet.AppendUnsubscribe(l.out, &packet.Unsubscribe{PacketID: pid}, filters, l.version)
}

// onUnsuback ends what was to end, and checks the Reason Code for each Topic Filter [MQTT-3.11.3-1] [MQTT-3.11.3-2].
func (l *link) onUnsuback(body []byte) packet.Reason {
	var in packet.Unsuback
	if r := in.Decode(body, l.version); r != packet.Success {
		return r
	}
	list, ok := l.unsubs[in.PacketID]
	if !ok || l.version == packet.V50 && len(in.Codes) != len(list) {
		l.w.violate("answer", "c%d got an UNSUBACK of %d codes for %d Topic Filters", l.c.index, len(in.Codes), len(list))
		return packet.Success
	}
	delete(l.unsubs, in.PacketID)
	for k := range list {
		u, had := &list[k], false
		for _, i := range u.ends {
			if i.ended == 0 {
				i.ended = l.w.step
			}
			had = had || i.granted != 0
		}
		if l.version != packet.V50 {
			continue
		}
		switch code := in.Code(k); {
		case code == packet.NoSubscriptionExisted && had, code == packet.Success && u.none, code != packet.Success && code != packet.NoSubscriptionExisted:
			l.w.violate("unsubscribe", "c%d was told %v of %s; it had a subscription: %v", l.c.index, code, u.filter, had)
		}
	}
	return packet.Success
}
