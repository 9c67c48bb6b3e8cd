package broker

import (
	"math"

	"github.com/ringmq/ringmq/broker/record"
)

// With a store, Sessions that outlive their connections are kept: they, their subscriptions and their messages survive the
// process, and nothing is acknowledged before it is durable.
//
// Each shard has a stream to the store: records that belong to no publication (ops), tickets, and deletions. At the end of a
// turn in which no batch of its is under way, a shard hands over what has gathered (handOver) and goes on; when the store has
// made it durable (committed), the shard acts: it acknowledges, answers SUBSCRIBE and CONNECT, releases.
//
// A ticket is the durable part of one publication: the deliveries to kept Sessions on all shards and, for QoS 2, the
// Packet Identifier of a kept publisher. It is written whole or not at all. The publisher's shard numbers its tickets; shards
// with kept receivers are told the number and send their records back (contribute). Tickets are handed over in
// order, each when all shards have sent theirs, so that watermark, the last ticket committed, says of every older one that
// it is durable, and acknowledgements leave a connection in the order of its packets.
//
// A delivery of QoS 1 may reach its client before it is durable. A publication of QoS 2 goes to nobody before (hold), as the publisher
// would send it again after a crash. A delivery that was acknowledged before its ticket was handed over is not written.
//
// The queue of a kept Session has three parts: wait, in memory; then positions on disk (disk); then tail, in memory.
// Only what is durable leaves memory, so the disk part can always be loaded. While the client is away all of the queue goes to
// disk; when it is back it is loaded by and by.

// kept is what a Session has more when a store keeps it. Only the Session's home touches it.
type kept struct {
	sid     uint64
	next    uint64 // position of the next delivery
	forward uint64 // while it arrives: position of the next delivery that the old home forwards, before all that come directly
	jumped  uint64 // what next was when the Session began to arrive
	sentTo  uint64 // deliveries up to this position were sent at least once

	disk    diskPart
	lives   *lifetimes // when what is on disk expires; nil: nothing that counts has been there yet that does
	tail    queue
	loading bool
	// counting says that the store was asked which deliveries of earlier runs wait.
	counting bool
	serial   uint32 // of the load under way

	promised int // PUBRECs and SUBSCRIBEs that are answered when their records are durable
	trim     trim
	// undeleted is how many entries are done with, but not deleted: their tickets are not durable, as far as this shard has heard. undeletedTo is
	// the last of their positions. A load that comes so far would bring them back.
	undeleted   int
	undeletedTo uint64
	dirty       bool // on the stream's list of Sessions with something to write
	sentDirty   bool
	// blocked says that the next delivery waits for its Packet Identifier; freeing, that its last use is over and that this is on its
	// way to the disk: before it is there, a crash would bring both uses back.
	blocked, freeing bool

	// doubtful says that the store has lost something, and that since then no connection has ended on which the Session's client had sent again what it
	// had to: a QoS 2 message that comes again may have been received and delivered.
	doubtful bool
	resent   bool   // the client has shown that it has, see showsResent
	doubt    uint32 // the last loss that makes no difference to it, as its record says
	written  uint32 // the last loss since which all that belongs to it, and is not in its queue, was written
	// restored are the QoS 2 Packet Identifiers that such a store had, in order, until they come again, on whatever connection.
	restored []uint16

	forgetting []forgetting // whose PUBCOMP waits, in the order in which it goes out

	// What its record says; of an expiry of 0, that there is none yet, or that the Session ends.
	expiry  uint32
	offline int64
	hasWill bool
}

// diskPart is a range of positions, both included, that are on disk only. Not every position in it has a delivery: a Session that moves
// leaves some free, and what an earlier run of the broker has left is not known before it is loaded.
type diskPart struct {
	from, to uint64
	any      bool
	// What counts against the Session's limit: deliveries that waited when they went there and, up to position counted, those that earlier runs
	// have left. The steps of lifetimes say which of them do no more.
	waiting   uint64
	counted   uint64
	uncounted bool  // there may be more behind counted that an earlier run has left
	bytes     int64 // of waiting, without those that earlier runs have left
}

// trim is a range of positions, without to, whose entries are done with and still to be deleted.
type trim struct{ from, to uint64 }

// mark is what a delivery has more when there is a store; it stands beside the entry of the same number.
type mark struct {
	sid    uint64
	pos    uint64 // 0: not kept
	ticket uint64 // 0: durable
	mid    uint64 // shared message on disk
	next   uint32 // in the ticket's list
	hold   bool   // not to be sent before the ticket is durable
	doubt  bool   // an earlier run of the broker may have sent it without a trace
}

// A ticket's name is its shard and its number on that shard.
const ticketNumberBits = 56

func ticketName(shard int, number uint64) uint64 { return uint64(shard)<<ticketNumberBits | number }
func ticketShard(name uint64) int                { return int(name >> ticketNumberBits) }
func ticketNumber(name uint64) uint64            { return name & (1<<ticketNumberBits - 1) }

// durable says whether a ticket is committed.
func (w *shared) durable(ticket uint64) bool {
	return ticket == 0 || w.watermarks[ticketShard(ticket)].Load() >= ticketNumber(ticket)
}

// newNumber is a sid or mid that was never used.
func (w *shared) newNumber() uint64 { return w.numbers.Add(1) }

// stream is what a shard has for the store.
type stream struct {
	ops     []byte   // records that belong to no ticket, in order
	actions []action // to be done when they are durable

	tickets []*ticket // from the first one not committed on
	first   uint64    // number of tickets[0]
	ready   uint64    // tickets below have all their records
	handed  uint64    // tickets below were handed over
	free    []*ticket

	batches   []batch // handed over, not committed
	spare     [][]byte
	inTickets int // bytes of those that were not handed over
	underWay  int // bytes of the batches
	answers   int // bytes of actions, in the batches too
	touched   []*Session
	awaiting  [][]awaited // by shard of the ticket
	due       []awaited   // scratch of settleAwaiting
	settling  bool
	told      []bool // shards to be told of the next watermark
	loads     int    // that the store was asked for and has not answered
	later     []Load // that it is still to be asked for, in order: see Limits.loadsAtOnce
	// passed are the places in the queues of ended Sessions, by sid, of what was given to others from memory: see passedFromDisk.
	passed  map[uint64][]uint64
	renewal renewal
	held    batch // what is durable and not completed, see completeWhole
	holds   bool  // there is something in held
}

// batch is what was handed over together.
type batch struct {
	until   uint64 // tickets below are in it
	actions []action
	bytes   int
	// retained says that records of Retained Messages are in it, which may be other shards'.
	retained bool
	renewed  uint32 // the last loss since which all Sessions of the shard are written with it
}

// awaited is what happens when a ticket becomes durable: a Session can go on, or an entry can be deleted.
type awaited struct {
	ticket  uint64
	session *Session
	kept    *kept  // whose position it is
	pos     uint64 // of the entry to be deleted; 0: the Session can go on
	mid     uint64
}

// forgetting is a QoS 2 Packet Identifier that was received, until the store has forgotten it.
type forgetting struct {
	pid  uint16
	conn uint64 // token of the connection that sent PUBREL last
}

// The bounds of a stream: beyond them PUBLISH, SUBSCRIBE and UNSUBSCRIBE wait, as they do for a full queue, and CONNECT is refused.
// Acknowledgements are taken: they are of something that was.
const (
	ticketsMax     = 32 << 10
	streamBytesMax = 16 << 20 // and of all that waits in bytes, by memory: see Limits.streamBytes
	streamBytesMin = 256 << 10
	// sharedBodyMin is the payload size in bytes from which a message that several Sessions need is written once. Each then has two records, its entry
	// and its reference, and a part in the message. For two Sessions that is 34 bytes in tables for each, instead of 23 with a copy in the entry, where
	// the payload has 64, and 45 instead of 47 where it has 128. For ten Sessions it would save a quarter of 37 at 64 already, and take 24 µs of
	// processor for each delivery, until it is acknowledged, instead of 6.5.
	sharedBodyMin = 128
	// loadsMax is how many loads of a shard wait, and are under way, before a client's queue waits: those of connections that are gone are among them.
	loadsMax = 8 << 10
	// trimRangeMin is how many positions are deleted as one range: a range costs more than some keys, and reading past
	// many ranges costs more still.
	trimRangeMin = 64
	// loadsFewest is the least that Limits.loadsAtOnce may be: enough for those who read.
	loadsFewest = 8
)

func newStream(shards int) *stream {
	return &stream{first: 1, ready: 1, handed: 1, awaiting: make([][]awaited, shards), told: make([]bool, shards), passed: map[uint64][]uint64{}}
}

// next is the number of the next ticket.
func (st *stream) next() uint64 { return st.first + uint64(len(st.tickets)) }

func (st *stream) at(number uint64) *ticket { return st.tickets[number-st.first] }

// streamRoom says whether the stream takes another publication or request.
func (s *Shard) streamRoom() bool {
	return len(s.stream.tickets)+len(s.stream.actions) < ticketsMax && s.stream.size() < s.limits.streamBytes()
}

// willRoom says whether there is room for another Will, for which nothing waits: as much again as for what can wait.
func (s *Shard) willRoom() bool {
	st, bound := s.stream, 2*s.limits.streamBytes()
	return len(st.tickets) < 2*ticketsMax && st.size() < bound && s.retainedLog.size.Load() < int64(bound)
}

// size is how many bytes wait: for the hand-over, and for the store.
func (st *stream) size() int { return len(st.ops) + st.inTickets + st.underWay + st.answers }

// awaitTicket has the Session looked at when a ticket is durable. It waits for one at a time, as then all of its queue is looked at: with
// a place on the list for each delivery, a queue that is never quite durable would be looked at for each of them, at every commit.
func (s *Shard) awaitTicket(name uint64, sess *Session) {
	if sess.awaits == 0 && !s.durable(name) {
		sess.awaits = name
		s.addAwaited(awaited{ticket: name, session: sess})
	}
}

func (s *Shard) addAwaited(a awaited) {
	list := &s.stream.awaiting[ticketShard(a.ticket)]
	*list = append(*list, a)
}

// settleAwaiting does what waited for tickets that have become durable. What it does may make more of them durable.
func (s *Shard) settleAwaiting() {
	st := s.stream
	if st.settling {
		return
	}
	st.settling = true
	for again := true; again; {
		again = false
		for shard := range st.awaiting {
			due := st.takeDue(shard, s.watermarks[shard].Load())
			for i := range due {
				s.onAwaited(&due[i])
			}
			again = again || len(due) > 0
		}
	}
	st.settling = false
}

// takeDue takes what waited for a shard's tickets up to a number off the list; valid until the next call. The list is in no order: a
// Session that goes on may wait for a younger ticket than the next one that does.
func (st *stream) takeDue(shard int, number uint64) []awaited {
	clear(st.due)
	st.due = st.due[:0]
	list := st.awaiting[shard]
	left := list[:0]
	for i := range list {
		if ticketNumber(list[i].ticket) <= number {
			st.due = append(st.due, list[i])
		} else if len(st.due) > 0 {
			left = append(left, list[i])
		} else {
			left = list[:i+1]
		}
	}
	clear(list[len(left):])
	st.awaiting[shard] = left
	return st.due
}

func (s *Shard) onAwaited(a *awaited) {
	switch home := int(a.session.home.Load()); {
	case home != s.id:
		s.push(home, shardMessage{kind: durableMessage, session: a.session, kept: a.kept, epoch: a.pos, ticket: a.ticket, mid: a.mid})
	case a.pos == 0:
		if a.session.awaits == a.ticket {
			a.session.awaits = 0
		}
		s.wakeSession(a.session)
	case a.kept == a.session.kept: // and not one that came after the Session was emptied
		s.deleteEntry(a.session, a.pos, a.mid)
		k := a.kept
		if k.undeleted--; k.undeleted == 0 {
			if k.undeletedTo = 0; k.mayLoad() {
				s.wakeSession(a.session)
			}
		}
	}
}

// onDurable is onAwaited for a Session that has moved here, or, without one, the news that another shard's watermark rose, or that the store has lost
// something, or that another shard has written it anew.
func (s *Shard) onDurable(m *shardMessage) {
	if m.session == nil {
		s.settleAwaiting()
		s.completeHeld()
		return
	}
	s.onAwaited(&awaited{ticket: m.ticket, session: m.session, kept: m.kept, pos: m.epoch, mid: m.mid})
}

// wakeSession goes on with a Session of this shard some of whose deliveries have become durable.
func (s *Shard) wakeSession(sess *Session) {
	if sess.ended.Load() {
		return
	}
	s.spill(sess)
	s.pump(sess)
}

// touchKept puts a Session on the list of those with deletions or marks to write.
func (s *Shard) touchKept(sess *Session) {
	if !sess.kept.dirty {
		sess.kept.dirty = true
		s.stream.touched = append(s.stream.touched, sess)
	}
}

// deleteEntry notes that the entry at a position is done with. Positions that follow each other are deleted together.
func (s *Shard) deleteEntry(sess *Session, pos, mid uint64) {
	k := sess.kept
	if k == nil {
		return
	}
	if mid != 0 {
		s.stream.ops = record.AppendDelete(s.stream.ops, record.ReferenceKey(s.keyRoom(), mid, k.sid, pos))
	}
	s.touchKept(sess)
	switch {
	case k.trim.to == pos && pos != 0:
		k.trim.to++
	default:
		s.flushTrim(k)
		k.trim = trim{pos, pos + 1}
	}
}

// flushTrim writes the deletions of a Session's entries.
func (s *Shard) flushTrim(k *kept) {
	t := k.trim
	k.trim = trim{}
	if t.to-t.from >= trimRangeMin {
		to := record.EntryKey(s.value[:0], k.sid, t.to)
		s.stream.ops = record.AppendDeleteRange(s.stream.ops, record.EntryKey(s.keyRoom(), k.sid, t.from), to)
		return
	}
	for pos := t.from; pos < t.to; pos++ {
		s.stream.ops = record.AppendDelete(s.stream.ops, record.EntryKey(s.keyRoom(), k.sid, pos))
	}
}

// keyRoom is scratch for one key.
func (s *Shard) keyRoom() []byte { return s.keyBytes[:0] }

// flushTouched writes what Sessions have gathered since the last batch.
func (s *Shard) flushTouched() {
	for i, sess := range s.stream.touched {
		s.stream.touched[i] = nil
		if s.present(sess) && sess.kept != nil && sess.kept.dirty {
			s.flushKept(sess.kept)
		}
	}
	s.stream.touched = s.stream.touched[:0]
}

// flushKept writes what one Session has gathered.
func (s *Shard) flushKept(k *kept) {
	k.dirty = false
	s.flushTrim(k)
	if k.sentDirty {
		k.sentDirty = false
		s.recordSent(k)
	}
}

// recordSent writes up to where a queue was sent.
func (s *Shard) recordSent(k *kept) {
	s.stream.ops = record.AppendSet(s.stream.ops, record.SentKey(s.keyRoom(), k.sid), record.AppendNumber(s.small[:0], k.sentTo))
}

// wallSlack is by how many milliseconds the wall's clock may differ from what the broker takes it for.
const wallSlack = 1000

// follow takes what the wall's clock says now of when the broker's stood at 0. That one stands while the machine is suspended, and the
// wall's may be set; what is on disk has the wall's time, by which the store removes it.
func (w *shared) follow(start int64) {
	if d := start - w.startWall.Load(); d > wallSlack || d < -wallSlack {
		w.startWall.Store(start)
	}
}

// wall turns a time of the broker's clock into unix milliseconds; 0, which is never, and a Will's relative times stay.
func (w *shared) wall(ms int64) int64 {
	if ms <= 0 {
		return ms
	}
	return w.startWall.Load() + ms
}

// clockOf turns unix milliseconds into the broker's clock. What is long past is 1, for 0 means never, and no shard's clock is less.
func (w *shared) clockOf(wall int64) int64 {
	if wall <= 0 {
		return wall
	}
	return max(1, wall-w.startWall.Load())
}

// noPosition is larger than any position.
const noPosition = math.MaxUint64

// waits says whether something waits for tickets: those of other shards are looked at with each tick, as nobody tells a shard to
// which a Session has moved.
func (st *stream) waits() bool {
	if st == nil {
		return false
	}
	for _, list := range st.awaiting {
		if len(list) > 0 {
			return true
		}
	}
	return false
}
