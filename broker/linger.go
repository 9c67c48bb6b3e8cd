package broker

// A Session that ends leaves the registry, and a CONNECT that comes to another shard afterwards begins at once, with nothing to
// hand over. What its client had published may still lie in queues to third shards, which read the queues by number: what
// the client publishes on its new connection could be delivered before that. The standard promises the order of what
// comes from a Client, however many Network Connections it uses for it [MQTT-4.6.0-5]. So a Session that has ended stays in the
// registry, empty, until the other shards have read everything that this one had for them: who connects before that
// goes through a hand-over, whose marks keep the order.

// lingerers are the Sessions of a shard that have ended and still are in the registry.
type lingerers struct {
	leaving []lingerer // until the other shards have read up to fence
	later   []lingerer // those that ended after that was taken
	fence   []uint64   // by shard, positions in the queues
	last    uint32     // number that was given
}

// lingerer is a Session and the number of its end: a connection may have had it since, and it may have ended again.
type lingerer struct {
	session *Session
	number  uint32
}

// number marks a Session that has ended.
func (l *lingerers) number(sess *Session) uint32 {
	l.last = max(1, l.last+1)
	sess.lingers = l.last
	return l.last
}

func (l *lingerers) any() bool { return len(l.leaving)+len(l.later) > 0 }

// linger keeps a Session that has ended in the registry for a while; false when there is no need to.
func (s *Shard) linger(sess *Session) bool {
	unread := false
	for to := range s.out {
		o := &s.out[to]
		unread = unread || len(o.overflow) > 0 || o.ring.head.Load() != o.ring.tail.Load()
	}
	if !unread {
		return false
	}
	s.lingering.later = append(s.lingering.later, lingerer{sess, s.lingering.number(sess)})
	return true
}

// endLingerers lets go of the Sessions whose messages the other shards have read, unless a connection has them by now.
func (s *Shard) endLingerers() {
	l := &s.lingering
	if len(l.leaving) > 0 {
		for to := range s.out {
			if s.out[to].ring.head.Load() < l.fence[to] {
				return
			}
		}
		for i, it := range l.leaving {
			// The home decides: of a Session that is another shard's nothing else may be read.
			if s.present(it.session) && it.session.lingers == it.number {
				s.remove(it.session)
			}
			l.leaving[i] = lingerer{}
		}
		l.leaving = l.leaving[:0]
	}
	if len(l.later) == 0 {
		return
	}
	l.leaving, l.later = l.later, l.leaving
	l.fence = l.fence[:0]
	for to := range s.out {
		o := &s.out[to]
		l.fence = append(l.fence, o.ring.tail.Load()+uint64(len(o.overflow)))
	}
}
