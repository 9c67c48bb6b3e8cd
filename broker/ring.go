package broker

import "sync/atomic"

// messageKind is what a shardMessage asks of the shard it goes to.
type messageKind uint8

const (
	routeMessage      messageKind = iota // deliver msg to your own receivers; matched at epoch
	directMessage                        // deliver msg to member sub of a Shared Subscription
	forwardMessage                       // deliver msg to sub, whose Session moved from me to you
	takeMessage                          // give me session, for claim
	handOverMessage                      // session is yours, for claim
	markRequest                          // send a mark behind all you have sent me
	markMessage                          // that mark
	arrivedMessage                       // nothing more will be forwarded for session
	contributeMessage                    // my part of your ticket
	durableMessage                       // tickets of mine are durable, or something that session waited for is; or about a loss: see onDurable
)

// shardMessage is what shards send each other.
type shardMessage struct {
	session *Session
	sub     *subscription
	leaving *departure
	epoch   uint64
	ticket  uint64 // of the publication, 0 for none
	kept    *kept
	// contribution belongs to contributeMessage.
	contribution *contribution
	mid          uint64 // of the publication's message, 0 for none
	weight       uint32 // what the receiver must give back to the ticket's shard
	msg          uint32
	claim        uint32
	kind         messageKind
	clean        bool
}

// ring is the bounded queue from one shard to another: one writer, one reader, no lock.
type ring struct {
	slots []shardMessage
	_     [40]byte
	head  atomic.Uint64 // next to read; written by the reader
	_     [56]byte
	tail  atomic.Uint64 // next to write; written by the writer, and what orders the slots
	_     [56]byte
	// waiting says that the writer found the ring full: the reader wakes it after reading. Both write it.
	waiting atomic.Bool
}

func (r *ring) free() int { return len(r.slots) - int(r.tail.Load()-r.head.Load()) }

// put appends a message; the caller has checked that there is room.
func (r *ring) put(m shardMessage) {
	t := r.tail.Load()
	r.slots[t%uint64(len(r.slots))] = m
	r.tail.Store(t + 1)
}

// outbox is what one shard has for another: the ring, and behind it messages that could not wait for room there.
// The overflow is bounded by what makes it: hand-overs by connections, forwarded messages by the Session's own limit,
// Wills and $SYS by isOverflowing, messages of ended Sessions that others get by those Sessions' queues. A client's PUBLISH never goes there.
type outbox struct {
	ring     *ring
	overflow []shardMessage
	wake     bool // something was put since the last wake-up
}

// hasRoom says whether n more publications fit into the queue to another shard. If not, that shard will wake us.
func (s *Shard) hasRoom(to, n int) bool {
	o := &s.out[to]
	if len(o.overflow) == 0 && o.ring.free() >= n {
		return true
	}
	o.ring.waiting.Store(true)
	// The reader may have made room between the two looks without seeing the flag.
	return len(o.overflow) == 0 && o.ring.free() >= n
}

// push sends a message to another shard, by the overflow list when the ring is full.
func (s *Shard) push(to int, m shardMessage) {
	o := &s.out[to]
	o.wake = true
	if len(o.overflow) > 0 || o.ring.free() == 0 {
		o.overflow = append(o.overflow, m)
		s.awaitRoom(o)
		s.counters[CounterOverflowed]++
		return
	}
	o.ring.put(m)
}

// flushOverflow moves overflowed messages into the rings as far as there is room.
func (s *Shard) flushOverflow() {
	for to := range s.out {
		o := &s.out[to]
		if len(o.overflow) == 0 {
			continue
		}
		n := 0
		for n < len(o.overflow) && o.ring.free() > 0 {
			o.ring.put(o.overflow[n])
			o.wake = true
			n++
		}
		left := copy(o.overflow, o.overflow[n:])
		clear(o.overflow[left:])
		o.overflow = o.overflow[:left]
		if left > 0 {
			s.awaitRoom(o)
		}
	}
}

// isOverflowing says whether more has overflowed than a queue holds: what can wait waits, what can be missed is.
func (s *Shard) isOverflowing() bool {
	for to := range s.out {
		if len(s.out[to].overflow) > ringSlots {
			return true
		}
	}
	return false
}

// awaitRoom has the reader of a queue wake us when it has made room, or ourselves if it just did.
func (s *Shard) awaitRoom(o *outbox) {
	o.ring.waiting.Store(true)
	if o.ring.free() > 0 {
		s.roomMade.Store(true)
	}
}

// turnMessagesMax is how many messages of each other shard one turn takes in, so that connections are not starved, if they do not cause more
// than a connection's input may.
const turnMessagesMax = 256

// Exchange takes in what the other shards have sent, and says whether some is left for the next turn.
func (s *Shard) Exchange() (more bool) {
	s.flushOverflow()
	ending := s.endSome()
	if s.lingering.any() {
		s.endLingerers()
	}
	seen := s.retained.seq.Load()
	for from := range s.in {
		r := s.in[from]
		if r == nil {
			continue
		}
		h, t := r.head.Load(), r.tail.Load()
		if h == t {
			continue
		}
		if t-h > turnMessagesMax {
			t, more = h+turnMessagesMax, true
		}
		for s.work = 0; h < t; h++ {
			if s.work >= s.limits.InputWork {
				more = true
				break
			}
			slot := &r.slots[h%uint64(len(r.slots))]
			m := *slot
			*slot = shardMessage{}
			s.onMessage(from, &m)
		}
		r.head.Store(h)
		if r.waiting.Load() && r.waiting.CompareAndSwap(true, false) {
			s.out[from].wake = true
			s.peers[from].roomMade.Store(true)
		}
		s.settle()
	}
	if s.roomMade.Load() && s.roomMade.CompareAndSwap(true, false) {
		s.roomAgain = true
	}
	if !more {
		s.retainedSeen = seen
	}
	return more || ending
}

// Pending says whether a message of another shard waits: the Loop looks before it sleeps.
func (s *Shard) Pending() bool {
	for _, r := range s.in {
		if r != nil && r.head.Load() != r.tail.Load() {
			return true
		}
	}
	return s.roomMade.Load()
}

// Wakes calls wake for each shard that was sent something since the last call.
func (s *Shard) Wakes(wake func(shard int)) {
	for to := range s.out {
		if s.out[to].wake {
			s.out[to].wake = false
			wake(to)
		}
	}
}

func (s *Shard) onMessage(from int, m *shardMessage) {
	switch m.kind {
	case routeMessage:
		s.onRoute(from, m)
	case directMessage:
		s.onDirect(m)
	case forwardMessage:
		s.onForward(m)
	case takeMessage:
		s.onTake(from, m)
	case handOverMessage:
		s.onHandOver(m)
	case markRequest:
		s.push(from, shardMessage{kind: markMessage, leaving: m.leaving})
	case markMessage:
		s.onMark(from, m.leaving)
	case arrivedMessage:
		s.onArrived(m.session)
	case contributeMessage:
		s.onContribute(m)
	case durableMessage:
		s.onDurable(m)
	}
}

// lateMS is how long after its time a message is still delivered that was on its way from another shard: one that expires in 0
// seconds goes to whoever is there, as from the same shard, and intervals are in seconds.
const lateMS = 1000

// onRoute delivers another shard's publication to this shard's receivers.
func (s *Shard) onRoute(from int, m *shardMessage) {
	p := &s.pub
	s.load(p, m.msg)
	s.borrow(p, m)
	e := s.lookup(p.topic)
	if p.expires != 0 && p.expires+lateMS <= s.now { // On the way, for this shard stood still: [MQTT-3.3.2-5].
		s.counters[CounterDroppedExpired] += uint64(len(e.local))
		e = &cached{}
	}
	s.work += len(e.local)
	for i := range e.local {
		// A Session that came here after the publication was matched gets it from its old home, which got it too.
		if e.local[i].session.movedAt.Load() <= m.epoch {
			s.deliver(p, &e.local[i])
		}
	}
	if m.epoch < s.departed {
		s.forward(from, p, m.epoch)
	}
	s.finish(p)
}

// onDirect delivers to a member of a Shared Subscription.
func (s *Shard) onDirect(m *shardMessage) {
	home := int(m.sub.session.home.Load())
	if home != s.id {
		s.push(home, shardMessage{kind: forwardMessage, msg: m.msg, sub: m.sub, ticket: m.ticket, mid: m.mid, weight: m.weight})
		return
	}
	s.load(&s.pub, m.msg)
	s.borrow(&s.pub, m)
	if m.sub.isOver() || m.sub.state&subLeft != 0 { // What is over is another shard's, maybe, to take off the index.
		s.redirect(&s.pub, m.sub.group)
	} else {
		s.deliverMember(&s.pub, m.sub)
	}
	s.finish(&s.pub)
}
