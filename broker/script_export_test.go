package broker

import "slices"

// InUse is what a broker holds at the moment, for tests that prove that everything came back. Whoever asks must own all
// loops.
type InUse struct {
	Conns, Sessions, Messages, Deliveries, Pages int64
	Registered, Subscriptions, Retained          int64
	Connected, Promised                          int64
}

// InUse counts slots and pages that are neither free nor kept in stock by a shard.
func (b *Broker) InUse() (n InUse) {
	w := b.world
	for _, s := range w.peers {
		s.pool.collect()
	}
	for _, s := range w.peers {
		n.Conns += s.connSlots.taken
		n.Sessions += s.sessionSlots.taken
		n.Messages += s.ms.slots.taken
		n.Deliveries += s.entrySlots.taken
		n.Pages += s.pool.cache.taken - int64(len(s.pool.emergency)+len(s.pool.spare)) - s.pool.keptPages()
	}
	for i := range w.registry.parts {
		n.Registered += int64(len(w.registry.parts[i].sessions))
	}
	n.Subscriptions, n.Retained = w.subscribed.Load(), w.retained.count.Load()
	n.Connected, n.Promised = w.connected.Load(), w.arena.committed.Load()
	return n
}

// keptPages counts the pages without a block in use that a pool keeps for the next block.
func (p *pool) keptPages() (n int64) {
	for _, pg := range slices.Concat(p.partial[forMessages][:], p.partial[forInput][:]) {
		for ; pg != 0; pg = p.a.pages[pg].next {
			if p.a.pages[pg].end == 0 {
				n++
			}
		}
	}
	return n
}

// Live adds up a counter over all shards as of now. Whoever asks must own all loops.
func (b *Broker) Live() (sum Counters) {
	for _, s := range b.world.peers {
		for i, v := range s.counters {
			sum[i] += v
		}
	}
	return sum
}
