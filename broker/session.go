package broker

import "sync/atomic"

// neverExpires is the Session Expiry Interval that means: keep for ever (section 3.1.2.11.2 of 5.0).
const neverExpires = ^uint32(0)

// Session is the state of one client that outlives its Network Connections (section 4.1). It belongs to its home
// shard, which alone touches the fields without an atomic type; other shards read home, movedAt and online.
type Session struct {
	clientID string
	user     string
	id       uint32 // slot number, the name of its timers
	serial   uint64 // hash of the Client Identifier: the publisher in messages, for No Local

	home    atomic.Int32  // shard; written by the shard that gives the Session away
	prev    int32         // home before that; read by matchers that still see the older index, ordered by movedAt
	movedAt atomic.Uint64 // index epoch from which home counts; see homeAt
	durable atomic.Bool   // it is kept: read by matchers; written by the home, see kept
	online  atomic.Bool   // a connection is attached; for Shared Subscriptions
	ended   atomic.Bool   // gone for good; members of Shared Subscriptions that ended get nothing
	era     atomic.Uint32 // how often it has lost all its subscriptions at once; written by the home: see subscription.isOver

	// Under the lock of the registry's part.
	owner int32  // the shard that will own it when all requested hand-overs are done
	claim uint32 // how many times it was claimed

	tenure    uint32 // the claim by which its home has it; of the home's, and read under the lock by none but it
	conn      uint32 // attached connection, 0 when offline
	succeeded bool   // its connection is being closed for another one of this shard: it does not end with it
	arriving  bool   // handed over, but the old home still forwards: nothing is sent yet
	lingers   uint32 // not 0: it has ended, but for its place in the registry; the home's number for that, see linger
	hungry    bool   // on the shard's list of Sessions that lack memory
	pumpAt    uint32 // place + 1 in the shard's list of Sessions with retained cursors to step; 0: not on it
	emptyMap  uint8  // number + 1 of the map of received identifiers that is kept although it is empty
	lapped    bool   // Packet Identifiers have come round to the oldest one in flight
	lastPID   uint16
	window    uint16 // how many QoS 1 and 2 messages may be in flight on this connection
	inflight  uint16 // how many are, sent or resent on this connection
	expiry    uint32 // Session Expiry Interval in seconds
	willDelay uint32
	will      uint32 // message waiting for its Will Delay Interval
	dropped   uint32 // messages dropped for it since the last log line

	sent   queue  // sent at least once, unacknowledged, in order
	resend uint32 // first of sent that this connection has not seen; 0 when all were
	wait   queue  // not yet sent, in order
	held   queue  // arrived directly while arriving: goes behind what the old home forwards

	waitBytes   int64  // pinned by wait and held
	nextExpiry  int64  // no message of wait expires before it, in ms; 0: none expires
	received    uint32 // block: table of QoS 2 Packet Identifiers received and not released
	receivedLen uint32

	subs      *subscription // list
	names     names         // the same by name, once there are many; see shrinkNames
	subsLen   int32
	young     int32   // how many of them are
	namesMost int32   // how many names has had room for
	cursors   *cursor // list
	kept      *kept   // nil: it does not outlive the process
	awaits    uint64  // ticket at which the Session is looked at; see awaitTicket
	// discarded is what the store called it before it was emptied, until the next connection has it: that this is durable is what its
	// CONNACK waits for, or its leaving the registry.
	discarded uint64
	// unsure says that the end of what it was, or a record that a connection of its had written, may not be durable yet. Written by its home, read by any
	// shard that it connects to.
	unsure atomic.Bool
	fresh  bool // nothing of it is older than the hand-over or the connection at hand: Session Present is 0
}

// entry is one delivery: a message on its way to one Session. It lives in a reserved mapping.
type entry struct {
	next  uint32
	msg   uint32
	id    uint32 // Subscription Identifier, or a block with several when entryManyIDs
	group uint32 // Shared Subscription it came through, 0 for none
	pid   uint16
	flags uint8
}

// The bits of entry.flags; the lowest two are the QoS of the delivery.
const (
	entryQoS      = 0x03
	entryRetain   = 0x04 // RETAIN of the PUBLISH
	entryReleased = 0x08 // PUBREC came: PUBREL is what is sent (again)
	entryManyIDs  = 0x10
	entrySent     = 0x20 // was sent at least once: DUP from now on, and never expires
	entryTicket   = 0x40 // a ticket holds it as well, until that is handed over
	entryDone     = 0x80 // and the Session does not any more
)

func (e *entry) qos() uint8 { return e.flags & entryQoS }

// queue is a list of entries.
type queue struct {
	head, tail uint32
	n          uint32
}

func (s *Shard) enqueue(q *queue, id uint32) {
	s.entries[id].next = 0
	if q.tail == 0 {
		q.head = id
	} else {
		s.entries[q.tail].next = id
	}
	q.tail = id
	q.n++
}

// dequeue takes the first entry off.
func (s *Shard) dequeue(q *queue) uint32 {
	id := q.head
	if id == 0 {
		return 0
	}
	if q.head = s.entries[id].next; q.head == 0 {
		q.tail = 0
	}
	q.n--
	return id
}

// unqueue takes entry id, whose predecessor is prev (0 when it is the first), off.
func (s *Shard) unqueue(q *queue, prev, id uint32) {
	next := s.entries[id].next
	if prev == 0 {
		q.head = next
	} else {
		s.entries[prev].next = next
	}
	if q.tail == id {
		q.tail = prev
	}
	q.n--
}

// concat moves all entries of b behind those of a.
func (s *Shard) concat(a, b *queue) {
	if b.head == 0 {
		return
	}
	if a.tail == 0 {
		a.head = b.head
	} else {
		s.entries[a.tail].next = b.head
	}
	a.tail = b.tail
	a.n += b.n
	*b = queue{}
}

// dropEntry frees an entry and its reference, when its ticket does not need it any more.
func (s *Shard) dropEntry(id uint32) {
	e := &s.entries[id]
	if e.flags&entryTicket != 0 {
		e.flags |= entryDone
		return
	}
	s.freeEntry(id)
}

func (s *Shard) freeEntry(id uint32) {
	e := &s.entries[id]
	if e.msg != 0 {
		s.ms.release(e.msg)
	}
	if e.flags&entryManyIDs != 0 {
		s.pool.free(e.id)
	}
	s.entrySlots.put(id)
}

func (s *Shard) dropQueue(q *queue) {
	for id := q.head; id != 0; {
		next := s.entries[id].next
		s.dropEntry(id)
		id = next
	}
	*q = queue{}
}

// newPID chooses the Packet Identifier of the next message to sess: they follow each other, so one is in use only
// after a whole round, and that is when they are looked up one by one.
func (s *Shard) newPID(sess *Session) uint16 {
	for {
		sess.lastPID++
		if sess.lastPID == 0 {
			sess.lastPID = 1 // [MQTT-2.2.1-3]
		}
		if sess.sent.head == 0 {
			sess.lapped = false
			return sess.lastPID
		}
		if sess.lastPID == s.entries[sess.sent.head].pid {
			sess.lapped = true
		}
		if !sess.lapped || !s.pidInUse(sess, sess.lastPID) {
			return sess.lastPID
		}
	}
}

func (s *Shard) pidInUse(sess *Session, pid uint16) bool {
	for id := sess.sent.head; id != 0; id = s.entries[id].next {
		if s.entries[id].pid == pid {
			return true
		}
	}
	return false
}

// homeAt is the home of the Session as an index of the given epoch shows it. A matcher that loaded an older epoch must
// keep seeing the old home, so that every message has exactly one shard that delivers it; see handover.go.
func (sess *Session) homeAt(epoch uint64) int32 {
	home := sess.home.Load()
	if sess.movedAt.Load() > epoch {
		return sess.prev
	}
	return home
}

// The table of QoS 2 Packet Identifiers received: one block of references to bitmaps of idsPerMap identifiers each,
// made and dropped as identifiers come and go, so that a client pays for what it has under way.
const (
	idsPerMap   = 4096
	idMapBytes  = idsPerMap/8 + 2 // bits, and how many are set
	idMapsTotal = 65536 / idsPerMap
)

// receivedHas says whether the Packet Identifier waits for PUBREL.
func (s *Shard) receivedHas(sess *Session, pid uint16) bool {
	m := s.idMap(sess, pid)
	return m != nil && m[pid%idsPerMap/8]&(1<<(pid%8)) != 0
}

func (s *Shard) idMap(sess *Session, pid uint16) []byte {
	if sess.received == 0 {
		return nil
	}
	table := s.pool.a.block(sess.received, 4*idMapsTotal)
	if ref := le32(table[4*(pid/idsPerMap):]); ref != 0 {
		return s.pool.a.block(ref, idMapBytes)
	}
	return nil
}

// receivedAdd notes a Packet Identifier; false when memory is used up.
func (s *Shard) receivedAdd(sess *Session, pid uint16) bool {
	if sess.received == 0 {
		if sess.received = s.pool.alloc(4 * idMapsTotal); sess.received == 0 {
			return false
		}
		clear(s.pool.a.block(sess.received, 4*idMapsTotal))
	}
	m := s.idMap(sess, pid)
	if m == nil {
		if sess.emptyMap != 0 && sess.receivedLen == 0 {
			s.dropIDMap(sess, uint16(sess.emptyMap)-1)
		}
		sess.emptyMap = 0
		ref := s.pool.alloc(idMapBytes)
		if ref == 0 {
			return false
		}
		putLE32(s.pool.a.block(sess.received, 4*idMapsTotal)[4*(pid/idsPerMap):], ref)
		m = s.pool.a.block(ref, idMapBytes)
		clear(m)
	}
	m[pid%idsPerMap/8] |= 1 << (pid % 8)
	putLE16(m[idsPerMap/8:], le16(m[idsPerMap/8:])+1)
	sess.receivedLen++
	return true
}

// receivedRemove forgets a Packet Identifier and says whether it was known.
func (s *Shard) receivedRemove(sess *Session, pid uint16) bool {
	if !s.receivedHas(sess, pid) {
		return false
	}
	m := s.idMap(sess, pid)
	m[pid%idsPerMap/8] &^= 1 << (pid % 8)
	n := le16(m[idsPerMap/8:]) - 1
	putLE16(m[idsPerMap/8:], n)
	sess.receivedLen--
	switch {
	case n > 0:
	case sess.receivedLen > 0:
		s.dropIDMap(sess, pid/idsPerMap)
	default:
		// The last map is kept until another one is needed: a window of identifiers opens and closes all the time.
		sess.emptyMap = uint8(pid/idsPerMap) + 1
	}
	return true
}

func (s *Shard) dropIDMap(sess *Session, i uint16) {
	table := s.pool.a.block(sess.received, 4*idMapsTotal)[4*i:]
	s.pool.free(le32(table))
	putLE32(table, 0)
}

func (s *Shard) dropReceived(sess *Session) {
	if sess.received == 0 {
		return
	}
	table := s.pool.a.block(sess.received, 4*idMapsTotal)
	for i := range idMapsTotal {
		if ref := le32(table[4*i:]); ref != 0 {
			s.pool.free(ref)
		}
	}
	s.pool.free(sess.received)
	sess.received, sess.receivedLen, sess.emptyMap = 0, 0, 0
}
