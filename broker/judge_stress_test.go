package broker_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/topic"
)

// judge compares what was acknowledged with what arrived.
func (s *simulation) judge() {
	shared := map[string]int{}
	for _, a := range s.actors {
		if a.loose {
			continue
		}
		counts := map[string]int{}
		for _, g := range a.log {
			if !strings.HasPrefix(g.from, "will ") {
				counts[fmt.Sprint(g.from, g.topic, g.seq)]++
				if a.group != "" && strings.HasPrefix(g.topic, "t/") {
					shared[fmt.Sprint(g.from, g.topic, g.seq)]++
				}
			}
		}
		s.judgeOrder(a)
		s.judgeArrived(a, counts)
	}
	for _, m := range s.acked {
		key := fmt.Sprint(m.from, m.topic, m.seq)
		if n := shared[key]; m.topic[0] == 't' && (n == 0 || n > 1 && m.qos == 2) {
			s.fail("the Shared Subscription got message %d of %s on %s, QoS %d, %d times", m.seq, m.from, m.topic, m.qos, n)
		}
	}
	s.judgeWills()
	n := s.counters()
	for _, c := range []broker.Counter{broker.CounterNoMemory, broker.CounterDroppedQueue, broker.CounterDroppedNoMemory, broker.CounterClosedNoMemory,
		broker.CounterDroppedTooLarge, broker.CounterDroppedExpired, broker.CounterViolations} {
		if n.Of(c) != 0 {
			s.fail("%s: %d", c, n.Of(c))
		}
	}
}

func (s *simulation) counters() broker.Counters {
	if !s.thread {
		return s.broker.Live()
	}
	s.now.Add(int64(2 * time.Second)) // they are published once a second
	s.quiet()
	return s.broker.Counters()
}

// judgeArrived looks for every acknowledged message that a is subscribed to.
func (s *simulation) judgeArrived(a *actor, counts map[string]int) {
	for _, m := range s.acked {
		for _, f := range a.filters {
			if a.group != "" || !topic.Match(string(f.Filter), m.topic) {
				continue
			}
			n := counts[fmt.Sprint(m.from, m.topic, m.seq)]
			if n == 0 {
				s.fail("%s did not get message %d of %s on %s, QoS %d, which was acknowledged", a.id, m.seq, m.from, m.topic, m.qos)
			}
			if n > 1 && m.qos == 2 && f.Options.QoS == 2 {
				s.fail("%s got message %d of %s on %s, QoS 2, %d times", a.id, m.seq, m.from, m.topic, n)
			}
		}
	}
}

// skipQoS0Order is a switch for looking at other faults: QoS 0 messages that came while a Session was on its way wait behind its window, and younger ones
// pass them.
const skipQoS0Order = false

// judgeOrder checks the order of each publisher's messages by topic and QoS: a message that comes for the first time is
// younger than all before it. Filters that come and go, and Shared Subscriptions, promise less.
func (s *simulation) judgeOrder(a *actor) {
	if a.group != "" {
		return
	}
	newest, seen := map[string]int{}, map[string]bool{}
	for _, g := range a.log {
		stays := false
		for _, f := range a.filters {
			stays = stays || topic.Match(string(f.Filter), g.topic)
		}
		if !stays || strings.HasPrefix(g.from, "will ") {
			continue
		}
		key, one := fmt.Sprint(g.from, g.topic, g.qos), fmt.Sprint(g.from, g.topic, g.seq)
		if g.qos == 0 && seen[one] {
			s.fail("%s got message %d of %s on %s, QoS 0, twice", a.id, g.seq, g.from, g.topic)
		}
		if !seen[one] && g.seq < newest[key] && (g.qos > 0 || !skipQoS0Order) {
			s.fail("%s got message %d of %s on %s, QoS %d, after %d", a.id, g.seq, g.from, g.topic, g.qos, newest[key])
		}
		seen[one] = true
		newest[key] = max(newest[key], g.seq)
	}
}

// judgeWills looks for the Wills of the loose clients in the log of the one that watches them.
func (s *simulation) judgeWills() {
	n := map[string]int{}
	for _, g := range s.actors[1].log {
		if strings.HasPrefix(g.from, "will ") {
			n[g.from]++
		}
	}
	for will, w := range s.wills {
		if n[will] > 1 && w.qos != 1 || n[will] == 0 && w.qos > 0 && w.due {
			s.fail("%s of QoS %d came %d times; the connection broke: %v", will, w.qos, n[will], w.due)
		}
	}
}

// farewell ends all Sessions and clears the retained messages.
func (s *simulation) farewell() {
	s.judgeRetained()
	for _, a := range s.actors {
		if a.peer != nil {
			a.cut()
		}
		a.clean, a.filters, a.churn, a.over = true, nil, []string{"#"}, a.loose
	}
	if !s.until("a clean connection for all", func() bool { return s.all(func(a *actor) bool { return a.loose || a.live && len(a.out) == 0 }) }) {
		return
	}
	for _, a := range s.actors {
		if a.over = true; a.peer != nil {
			a.out = packet.AppendDisconnect(a.out, &packet.Disconnect{}, a.version)
		}
	}
	if s.until("the end of all connections", func() bool { return s.all(func(a *actor) bool { return a.peer == nil }) && s.network.Open() == 0 }) {
		s.quiet()
	}
}

// judgeRetained reads the retained messages as a new client does, and clears them.
func (s *simulation) judgeRetained() {
	a := s.actor("reader")
	a.filters = []packet.Subscription{{Filter: []byte("r/+"), Options: packet.Options{QoS: 1}}}
	a.churn = []string{"#"}
	kept := map[string]int{}
	if !s.until("the reader", func() bool { return a.settled() }) {
		return
	}
	a.onRetained = func(g got) { kept[g.topic] = g.seq }
	a.out = packet.AppendSubscribe(a.out, &packet.Subscribe{PacketID: 8}, a.filters, a.version)
	s.quiet()
	for name, m := range s.last {
		if kept[name] < m.seq {
			s.fail("the retained message of %s is number %d; %d was acknowledged", name, kept[name], m.seq)
		}
	}
	for i := range 3 {
		h := &packet.PublishHead{Flags: packet.PublishFlags(false, 0, true), Topic: fmt.Append(nil, "r/", i)}
		a.out = packet.AppendPublish(a.out, h, nil, a.version)
	}
	s.quiet()
}
