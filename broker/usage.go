package broker

import "sync/atomic"

// Usage is how much of what a broker deals out is in use. When every client is gone, every Session has ended and no
// message is retained, all of it is back at zero, but for pages: each shard keeps some for emergencies, and one page of
// each size of block that it has cut.
type Usage struct {
	Connections   int64 `json:"connections"`   // slots, those that are closing included
	Sessions      int64 `json:"sessions"`      // slots
	Messages      int64 `json:"messages"`      // message slots: queued, in flight, retained, Wills
	Deliveries    int64 `json:"deliveries"`    // slots for what is queued for a Session or in flight to it
	Pages         int64 `json:"pages"`         // of the arena
	Promised      int64 `json:"promised"`      // pages promised to large packets that are arriving
	Subscriptions int64 `json:"subscriptions"` // of all Sessions
	Retained      int64 `json:"retained"`      // Retained Messages
}

// taken are one shard's parts of the sums of Usage: what it has taken less what it has returned. Its Loop writes them
// once a second; any goroutine reads them.
type taken struct{ connections, sessions, messages, deliveries, pages atomic.Int64 }

// publishTaken tells other goroutines what this shard has taken.
func (s *Shard) publishTaken() {
	s.taken.connections.Store(s.connSlots.taken)
	s.taken.sessions.Store(s.sessionSlots.taken)
	s.taken.messages.Store(s.ms.slots.taken)
	s.taken.deliveries.Store(s.entrySlots.taken)
	s.taken.pages.Store(s.pool.cache.taken)
}

// Usage adds up what is in use, as of the shards' last second.
func (b *Broker) Usage() Usage {
	w := b.world
	u := Usage{Promised: w.arena.committed.Load(), Subscriptions: w.subscribed.Load(), Retained: w.retained.count.Load()}
	for _, s := range w.peers {
		u.Connections += s.taken.connections.Load()
		u.Sessions += s.taken.sessions.Load()
		u.Messages += s.taken.messages.Load()
		u.Deliveries += s.taken.deliveries.Load()
		u.Pages += s.taken.pages.Load()
	}
	return u
}
