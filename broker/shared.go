package broker

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ringmq/ringmq/broker/topic"
)

// Strategy is how a Shared Subscription chooses the member that gets a message. Members that are connected always come
// before members that are not.
type Strategy uint8

// The strategies.
const (
	RoundRobin Strategy = iota // one after the other; the default
	Random
	Sticky     // the same member until it goes away
	HashClient // by the publisher
	HashTopic  // by the Topic Name
	Local      // members on the publisher's shard first, then one after the other
)

// strategyNames are the words of the configuration, by Strategy.
var strategyNames = [...]string{"round_robin", "random", "sticky", "hash_client", "hash_topic", "local"}

// String is the strategy's word in the configuration.
func (s Strategy) String() string { return strategyNames[s] }

// ParseStrategy reads a Strategy's name.
func ParseStrategy(name string) (Strategy, error) {
	for i, n := range strategyNames {
		if n == name {
			return Strategy(i), nil
		}
	}
	return 0, fmt.Errorf("shared_strategy: %q is none of %v", name, strategyNames)
}

// group is one Shared Subscription (section 4.8.2): a ShareName, a Topic Filter and its members, on any shards.
type group struct {
	name    string
	record  *subscription // what the index holds
	number  uint32        // names the group in entries; see newNumber
	members atomic.Pointer[[]*subscription]
	cursor  atomic.Uint32
	sticky  atomic.Pointer[subscription] // the member that Sticky stays with
}

// groups holds all Shared Subscriptions. Members join and leave under the lock; publishers read members without it.
type groups struct {
	mu       sync.Mutex
	all      map[groupKey]*group
	byNumber map[uint32]*group
	last     uint32
	count    atomic.Int64 // of all: written under the lock, read by any shard
}

type groupKey struct{ name, filter string }

func newGroups() *groups {
	return &groups{all: make(map[groupKey]*group), byNumber: make(map[uint32]*group)}
}

// join makes sub a member, founding the group if it is the first.
func (gs *groups) join(x *topic.Index[*subscription], name, filter string, sub *subscription) *group {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	key := groupKey{name, filter}
	g := gs.all[key]
	founded := g == nil
	if founded {
		g = &group{name: name, number: gs.newNumber()}
		g.record = &subscription{group: g, filter: filter}
		g.members.Store(&[]*subscription{})
		gs.all[key], gs.byNumber[g.number] = g, g
		gs.count.Add(1)
	}
	sub.group = g
	old := *g.members.Load()
	list := append(append(make([]*subscription, 0, len(old)+1), old...), sub)
	g.members.Store(&list)
	if founded {
		x.Add(filter, g.record)
	}
	return g
}

// newNumber is one that no group has; 0 is none's. Where groups come and go all the time, their numbers have come round within days, and one
// that a delivery still names may be another group's: see passOn.
func (gs *groups) newNumber() uint32 {
	for gs.last++; gs.last == 0 || gs.byNumber[gs.last] != nil; gs.last++ {
	}
	return gs.last
}

// leave takes sub off its group, and the group off the index with its last member.
func (gs *groups) leave(x *topic.Index[*subscription], sub *subscription) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	g := sub.group
	old := *g.members.Load()
	list := make([]*subscription, 0, len(old))
	for _, m := range old {
		if m != sub {
			list = append(list, m)
		}
	}
	g.members.Store(&list)
	if len(list) == 0 {
		x.Remove(sub.filter, g.record)
		delete(gs.all, groupKey{g.name, sub.filter})
		delete(gs.byNumber, g.number)
		gs.count.Add(-1)
	}
}

// named is the group of that name; nil when there is none.
func (gs *groups) named(name, filter string) *group {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	return gs.all[groupKey{name, filter}]
}

func (gs *groups) find(number uint32) *group {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	return gs.byNumber[number]
}

// membersPerDelivery is how many members are looked at, or copied, in the time of a delivery.
const membersPerDelivery = 16

// choose picks the member that gets a message: online before offline.
func (s *Shard) choose(p *publication, g *group) *subscription {
	members := *g.members.Load()
	if len(members) == 0 {
		return nil
	}
	if m := g.sticky.Load(); m != nil && m.isOnline() && slices.Contains(members, m) {
		return m
	}
	n := uint32(len(members))
	start := s.startAt(p, g, n)
	if s.strategy == Local {
		for i := range n {
			if m := members[(start+i)%n]; m.isOnline() && int(m.session.home.Load()) == s.id {
				return m
			}
		}
	}
	for i := range n + 1 {
		// Behind an offline member look somewhere else, so that its share does not all fall to its neighbour.
		at := start
		if i > 0 {
			at = (start*2654435761 + i) % n
		}
		if m := members[at]; m.isOnline() {
			if s.strategy == Sticky {
				g.sticky.Store(m)
			}
			return m
		}
	}
	s.work += int(n) / membersPerDelivery
	for i := range n {
		if m := members[(start+i)%n]; !m.session.ended.Load() && !m.isOver() {
			return m
		}
	}
	return nil
}

// isOnline says whether a subscription's client is connected.
func (sub *subscription) isOnline() bool { return sub.session.online.Load() && !sub.isOver() }

func (s *Shard) startAt(p *publication, g *group, n uint32) uint32 {
	switch s.strategy {
	case Random:
		return uint32(s.draw()) % n
	case Sticky:
		return g.number % n
	case HashClient:
		return uint32(p.from>>32) % n
	case HashTopic:
		return uint32(fnv(p.topic)>>32) % n
	}
	return (g.cursor.Add(1) - 1) % n
}

// deliverShared gives a publication to one member of a group and says whether there was one.
func (s *Shard) deliverShared(p *publication, g *group) bool {
	sub := s.choose(p, g)
	if sub == nil {
		return false
	}
	if home := int(sub.session.home.Load()); home != s.id {
		s.ms.retain(p.msg, 1)
		m := shardMessage{kind: directMessage, msg: p.msg, sub: sub}
		if p.ticket != 0 {
			s.share(p, home, &m, sub.options.qos() > 0)
		}
		s.push(home, m)
		return true
	}
	s.deliverMember(p, sub)
	return true
}

// redirect gives a publication to another member than the one it was chosen for, which has unsubscribed or whose Session
// ended before it got there: nothing more is added for that one [MQTT-3.10.4-2], and no delivery has begun that [MQTT-4.8.2-5]
// would bind to it.
func (s *Shard) redirect(p *publication, g *group) {
	if !s.deliverShared(p, g) {
		s.counters[CounterDroppedOffline]++
	}
}

// deliverMember gives a publication to a member whose home is this shard.
func (s *Shard) deliverMember(p *publication, sub *subscription) {
	r := sub.receiver()
	if min(p.qos, r.qos) == 0 && !sub.session.arriving && !p.hold {
		s.deliver(p, &r)
		return
	}
	s.viaGroup = sub.group.number
	s.deliver(p, &r)
	s.viaGroup = 0
}

// passOn gives the QoS 1 messages of an ended Session that came through Shared Subscriptions to other members. QoS 2
// messages never move [MQTT-4.8.2-5]. Those that are on disk come from there.
func (s *Shard) passOn(sess *Session, q *queue) {
	for id := q.head; id != 0; id = s.entries[id].next {
		e := &s.entries[id]
		if e.group == 0 || e.qos() != 1 || s.passedFromDisk(sess, id) {
			continue
		}
		name, _ := s.ms.meta(s.ms.at(e.msg))
		if g := s.groups.find(e.group); g != nil && topic.Match(g.record.filter, string(name)) {
			s.ms.retain(e.msg, 1)
			s.orphans = append(s.orphans, orphan{msg: e.msg, group: g})
		}
	}
}

// orphan is a message that looks for another member of its Shared Subscription, or, without a group, a Will or another
// message of the broker's own: it is routed when the packet at hand is done.
type orphan struct {
	msg    uint32
	group  *group
	record uint64 // of a Will that the store has, see recordDue
}

// settle routes what the handling of a packet, a timer or a shard message has left to route.
// Where more than a queue between shards holds waits for room there already, the rest waits here: a Will may go to any number of Shared
// Subscriptions.
func (s *Shard) settle() {
	n := 0
	for ; n < len(s.orphans) && !s.isOverflowing(); n++ {
		o := s.orphans[n]
		s.load(&s.own, o.msg)
		if o.group == nil {
			s.publishOwn(&s.own, o.record)
			continue
		}
		if s.stream != nil && s.own.qos > 0 {
			s.openTicket(&s.own)
		}
		switch {
		case s.own.expires != 0 && s.own.expires <= s.now:
			s.counters[CounterDroppedExpired]++ // [MQTT-3.3.2-5]
		case !s.deliverShared(&s.own, o.group):
			s.counters[CounterDroppedOffline]++
		}
		s.finish(&s.own)
	}
	left := copy(s.orphans, s.orphans[n:])
	clear(s.orphans[left:])
	s.orphans = s.orphans[:left]
}
