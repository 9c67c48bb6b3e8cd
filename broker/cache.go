package broker

import (
	"bytes"

	"github.com/ringmq/ringmq/broker/topic"
)

// cacheWays is how many topics share one set of the cache.
const cacheWays = 4

// topicCache is a shard's memory of Topic Name → receivers: a fixed number of entries whose slices are reused, so that
// neither a hit nor, in the long run, a miss allocates.
type topicCache struct {
	index *topic.Index[*subscription]
	sets  [][cacheWays]cached
	found []*subscription // scratch
	marks map[*Session]int
	odd   cached // for names that are too long to be remembered
	bytes int    // what the slices of all entries take
	most  int    // and may take
	hand  int    // the entry at which eviction goes on
	// warmth is what warm has read, so that it is read.
	warmth uint32
}

// cachedNameMax is the longest Topic Name in bytes that is remembered.
const cachedNameMax = 512

// cached is one topic. It is fresh while no counter that the topic depends on has moved; see topic.Index.
type cached struct {
	hash  uint64
	epoch uint64
	stamp uint64
	bytes int // what the slices take
	used  bool
	// maxQoS is the highest QoS that a local receiver asked for.
	maxQoS  uint8
	kept    bool // a receiver that asked for QoS 1 or 2 is kept, on whatever shard, or its end is not durable yet
	several bool // two or more such receivers are kept
	plain   bool // all receivers are local and none is a Shared Subscription
	topic   []byte
	local   []receiver
	groups  []*group
	remote  []remoteShard
}

// remoteShard is another shard with at least one receiver.
type remoteShard struct {
	shard uint8
	kept  bool // a receiver there that asked for QoS 1 or 2 is kept
}

// receiver is one Session of this shard that gets the messages of a topic.
type receiver struct {
	session *Session
	id      uint32   // Subscription Identifier; 0 none
	more    []uint32 // all identifiers, when there are several
	qos     uint8
	noLocal bool
	asIs    bool // Retain As Published
}

// receiver is who gets what a subscription alone matches.
func (sub *subscription) receiver() receiver {
	return receiver{session: sub.session, id: sub.id, qos: sub.options.qos(), noLocal: sub.options.noLocal(), asIs: sub.options.asIs()}
}

// lookup finds the receivers of a Topic Name; nil when the name is not valid. The entry is valid until the next lookup.
func (s *Shard) lookup(name []byte) *cached {
	c := &s.cache
	h := c.index.Hash(name)
	epoch := c.index.Epoch()
	set := &c.sets[h&uint64(len(c.sets)-1)]
	for i := range set {
		e := &set[i]
		if e.hash == h && e.used && bytes.Equal(e.topic, name) {
			if e.epoch != epoch {
				s.revalidate(e, epoch)
			} else {
				s.counters[CounterCacheHits]++
			}
			return e
		}
	}
	if !topic.ValidName(name) || topic.Levels(name) > s.limits.MaxTopicLevels {
		return nil
	}
	if len(name) > cachedNameMax {
		c.odd.topic = name
		s.fill(&c.odd)
		c.odd.topic = nil
		return &c.odd
	}
	victim := &set[s.counters[CounterCacheMisses]%cacheWays]
	for i := range set {
		if !set[i].used {
			victim = &set[i]
			break
		}
	}
	victim.used, victim.hash = true, h
	victim.topic = append(victim.topic[:0], name...)
	s.fill(victim)
	return victim
}

// revalidate brings an entry to the given epoch: for nothing when no change concerned its topic.
func (s *Shard) revalidate(e *cached, epoch uint64) {
	if s.cache.index.Stamp(e.topic) == e.stamp {
		e.epoch = epoch
		s.counters[CounterCacheHits]++
		return
	}
	s.fill(e)
}

// nodesPerDelivery is how many nodes of the index, at most two to the number of levels, are looked at in the time of a delivery.
const nodesPerDelivery = 4

// fill matches anew.
func (s *Shard) fill(e *cached) {
	c := &s.cache
	s.counters[CounterCacheMisses]++
	c.found, e.epoch, e.stamp = c.index.MatchStamped(e.topic, c.found[:0])
	s.work += len(c.found) + int(min(c.index.Nodes(), 1<<min(topic.Levels(e.topic), 30))/nodesPerDelivery)
	clear(e.local)
	e.local, e.groups, e.remote, e.maxQoS = e.local[:0], e.groups[:0], e.remote[:0], 0
	e.kept, e.several = false, false
	moving, guess := false, 0
	var one *Session // that is kept
	for i, sub := range c.found {
		if i%warmed == 0 {
			c.warm(c.found[i:min(i+warmed, len(c.found))])
		}
		if sub.session == nil {
			e.groups = append(e.groups, sub.group)
			continue
		}
		if sub.isOver() {
			e.kept = e.kept || sub.options.qos() > 0 // Its end may not be durable yet, see announceEnd.
			continue
		}
		home := int(sub.session.homeAt(e.epoch))
		moving = moving || sub.session.movedAt.Load() > e.epoch
		keep := sub.options.qos() > 0 && sub.session.durable.Load()
		e.kept = e.kept || keep
		if keep {
			e.several = e.several || one != nil && one != sub.session
			one = sub.session
		}
		if home == s.id {
			guess = e.add(sub, guess, c.marks, len(c.found) > 1)
		} else {
			e.addRemote(uint8(home), keep)
		}
	}
	if moving {
		// The counters may have moved already and the epoch not yet: with the next epoch the Session's new home counts,
		// so this entry must not be taken for fresh then. Counters only grow: one less never comes again.
		e.stamp--
	}
	e.plain = len(e.remote)+len(e.groups) == 0
	clear(c.marks)
	clear(c.found)
	c.account(e)
}

// warmed is how many subscriptions are read into the caches at once, where each would otherwise be waited for alone.
const warmed = 64

// warm reads subscriptions that may be far apart in memory, with nothing to do but that: the processor waits for many at a time.
func (c *topicCache) warm(found []*subscription) {
	sum := uint32(0)
	for _, sub := range found {
		sum += sub.id
	}
	c.warmth = sum
}

// account keeps the sum of what entries take, and makes room when it is too much.
func (c *topicCache) account(e *cached) {
	now := cap(e.local)*int(sizeOf[receiver]()) + cap(e.topic) + cap(e.groups)*8 + cap(e.remote)*int(sizeOf[remoteShard]())
	for i := range e.local {
		now += cap(e.local[i].more) * 4
	}
	c.bytes += now - e.bytes
	e.bytes = now
	if c.bytes > c.most {
		c.evict(e)
	}
}

// evict forgets entries, one after the other but for keep, until enough is free or all were seen. When keep alone is too much it is
// forgotten too, once it has been used.
func (c *topicCache) evict(keep *cached) {
	if keep != &c.odd {
		c.bytes -= c.odd.bytes
		c.odd = cached{}
	}
	for n := len(c.sets) * cacheWays; n > 0 && c.bytes > c.most; n-- {
		c.hand = (c.hand + 1) % (len(c.sets) * cacheWays)
		if e := &c.sets[c.hand/cacheWays][c.hand%cacheWays]; e != keep && e.bytes > 0 {
			c.bytes -= e.bytes
			*e = cached{}
		}
	}
	keep.used = keep.used && c.bytes <= c.most
}

// add takes a subscription in. A Session whose filters overlap gets one delivery with the highest QoS and all the
// Subscription Identifiers [MQTT-3.3.4-2] [MQTT-3.3.4-4]; the one without No Local and the one with it stay apart, and what is beyond idsMax
// gets another. guess is the receiver to look at before marks, and the next one is returned: where filters have the same Sessions, they
// have them in the same order.
func (e *cached) add(sub *subscription, guess int, marks map[*Session]int, several bool) int {
	e.maxQoS = max(e.maxQoS, sub.options.qos())
	i, ok := guess, guess < len(e.local) && e.local[guess].takes(sub)
	if !ok {
		i, ok = marks[sub.session]
	}
	if ok && e.local[i].takes(sub) {
		r := &e.local[i]
		r.qos = max(r.qos, sub.options.qos()) // [MQTT-3.3.4-3]
		r.asIs = r.asIs || sub.options.asIs()
		r.addID(sub.id)
		return (i + 1) % len(e.local)
	}
	if several {
		marks[sub.session] = len(e.local)
	}
	e.local = append(e.local, sub.receiver())
	return 0
}

// idsMax is how many Subscription Identifiers one message carries at most: as many as an entry's block holds.
const idsMax = (pageSize - 2) / 4

// takes says whether the subscription goes into the same delivery.
func (r *receiver) takes(sub *subscription) bool {
	return r.session == sub.session && r.noLocal == sub.options.noLocal() && (sub.id == 0 || len(r.more) < idsMax)
}

func (r *receiver) addID(id uint32) {
	switch {
	case id == 0:
	case r.id == 0:
		r.id = id
	case r.more == nil:
		r.more = []uint32{r.id, id}
	default:
		r.more = append(r.more, id)
	}
}

func (e *cached) addRemote(shard uint8, keep bool) {
	for i := range e.remote {
		if to := &e.remote[i]; to.shard == shard {
			to.kept = to.kept || keep
			return
		}
	}
	e.remote = append(e.remote, remoteShard{shard, keep})
}
