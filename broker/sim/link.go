package sim

import (
	"errors"
	"os"
	"slices"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/memnet"
	"github.com/ringmq/ringmq/broker/packet"
)

// link is one Network Connection as its client knows it.
type link struct {
	w       *world
	c       *client
	serial  int
	peer    *memnet.Peer
	session *session // once CONNACK has come
	version packet.Version
	in, out []byte

	clean     bool
	expiry    int64 // ms that its CONNECT asked for
	priorMin  int64 // Session Expiry Intervals that may have held before
	priorMax  int64
	keep      int64 // seconds, 0: none
	recv      int
	aliasMax  int
	packetMax int

	accepted bool       // CONNACK with Success came
	since    int        // step at which it came
	flowing  int        // step of the first PUBLISH, 0: none came
	quick    []*message // of QoS 0 that it sent, and that may not have been read yet
	dialled  moment
	turns    int             // that each shard had had by then
	pushed   moment          // last byte written
	said     int64           // ms at which the last packet was whole that the broker has read
	drained  moment          // last time there was nothing to read, and no end
	heard    moment          // when that byte had surely been read
	overdue  int64           // when it was first seen to live too long, in ms; 0: it does not
	large    int             // step of the first packet that takes several reads and may not be whole, 0: none
	doomed   int             // bytes until it is reset; negative: never
	halved   bool            // its client has closed its side
	leaving  bool            // DISCONNECT is in out, or sent
	keepWill bool            // with Reason Code 0x04
	silent   bool            // was so for longer than its Keep Alive allows
	late     bool            // wrote nothing for longer than a large packet may wait
	sound    bool            // the broker had no reason to end it when it was given one
	bad      bool            // something malformed is in out, or sent
	rivalled bool            // an earlier CONNECT may be handled later
	ghost    bool            // another connection took its Session over
	badAs    []packet.Reason // that say so
	told     bool            // DISCONNECT came
	reason   packet.Reason   // with this Reason Code
	excused  int64           // ms of the first turn in which the broker may have decided to end it; 0: none

	readAfter  int // turns of every shard after which what was written has surely been read
	knownAfter int // the same, after which its end is known
	gone       moment

	aliases    map[uint16]string // the broker's
	ours       map[uint16]string
	unacked    map[uint16]bool // Packet Identifiers of PUBLISH that we have not acknowledged
	held       []ack
	given      []*message // of which PUBACK was said, and may not have been read yet
	subs       map[uint16][]*interest
	unsubs     map[uint16][]unsubscribing
	pings      int
	pubacks    []uint16 // what must be acknowledged, in this order
	pubrecs    []uint16
	pubrels    []uint16 // what we sent PUBREC for
	serverRecv int
	aliasOut   int
	unsent     []*outgoing // that wait for the broker's Receive Maximum
	will       *will
	exchange   exchanging
	fate       fate
	starved    bool    // its end is explained by a lack of memory only
	before     promise // what its Session was promised before its CONNECT
}

// ack is an acknowledgement of a delivery.
type ack struct {
	b    []byte
	pid  uint16
	ends bool     // the Packet Identifier is free again
	of   *message // what PUBACK is of; nil: it is none, or nobody knows
}

// open says whether the client may still say something.
func (l *link) open() bool { return l != nil && l.accepted && !l.leaving && !l.bad && !l.halved }

// push writes up to most bytes of what there is to write, and up to where the connection is doomed.
func (l *link) push(most int) {
	b := l.out[:min(len(l.out), most)]
	if l.doomed >= 0 {
		b = b[:min(len(b), l.doomed)]
	}
	if len(b) > 0 && !l.halved {
		n, err := l.peer.Write(b)
		l.out = l.out[n:]
		if n > 0 {
			l.noteRead()
			l.silent = l.isSilent()
			l.late = l.late || l.large != 0 && l.pushed.step >= l.large && l.silentFor(int64(l.w.limits.PacketTimeout/time.Second))
			l.pushed, l.readAfter = l.w.moment(), slices.Max(l.w.turns)+l.w.rivalTurns()
		}
		if l.doomed >= 0 {
			l.doomed -= n
		}
		if err != nil && !waits(err) {
			l.hear(1 << 30) // what was said before the end
			return
		}
	}
	if l.doomed == 0 {
		l.c.cut(true)
	}
}

func waits(err error) bool {
	return errors.Is(err, broker.ErrWouldBlock) || errors.Is(err, os.ErrDeadlineExceeded)
}

// hear reads up to most bytes and handles the packets in them.
func (l *link) hear(most int) {
	for most > 0 && l.c.link == l && l.w.violation == nil {
		n, err := l.peer.Read(l.w.scratch[:min(most, len(l.w.scratch))])
		l.in = append(l.in, l.w.scratch[:n]...)
		l.w.record(l, n)
		most -= n
		l.packets()
		switch {
		case l.c.link != l:
			return
		case waits(err):
			l.quiet()
			return
		case err != nil:
			l.over()
			return
		}
	}
}

// record adds what was read to the trace.
func (w *world) record(l *link, n int) {
	if n > 0 {
		w.stats.Bytes += n
		w.trace.Write([]byte{byte(w.step), byte(w.step >> 8), byte(l.c.index), byte(l.serial)})
		w.trace.Write(w.scratch[:n])
	}
}

// quiet notes that the connection is there, and that everything that was said has been read.
func (l *link) quiet() {
	l.checkKeepAlive()
	isTaken := len(l.out)+l.peer.Unread() == 0
	if isTaken { // Of a connection that it ends for a packet that does not come on the broker would read nothing more.
		l.large, l.late = 0, false
	}
	why := l.excuse()
	if why != "" && why != outOfMemory && why != crowded && why != rated {
		return // It may be ending, and its last bytes on their way.
	}
	l.drained = l.w.moment()
	if l.session != nil {
		l.session.alive = l.drained
		if isTaken && why == "" {
			l.noteDone()
		}
	}
	if l.will != nil && l.will.heard.step != 0 && l.accepted && !l.w.meets.memory {
		l.w.violate("will of the living", "c%d is connected, and its Will was published", l.c.index)
	}
}

// noteDone notes which deliveries are done with: the broker has read that they were acknowledged.
func (l *link) noteDone() {
	for _, m := range l.given {
		l.session.tally(m).done = l.w.step
	}
	l.given = nil
}

// noteRead notes that the broker has read all that was written, in whatever pieces.
func (l *link) noteRead() {
	if slices.Min(l.w.turns) <= l.readAfter {
		return
	}
	if l.heard.step <= l.pushed.step {
		l.heard = l.w.moment()
	}
	if len(l.out) == 0 {
		l.said = l.pushed.ms
	}
}

// checkKeepAlive finds a connection that lives on although its client says nothing [MQTT-3.1.2-22].
func (l *link) checkKeepAlive() {
	least := slices.Min(l.w.turns)
	l.noteRead()
	if l.keep == 0 || !l.accepted || l.halved || l.heard.step <= l.pushed.step || l.w.now.Load()-l.heard.ms <= l.keep*1500+1000 {
		l.overdue = 0
		return
	}
	if l.w.limits.InputWork < workMany && l.w.isBusy() {
		l.overdue = 0 // What it has said waits for another turn, or for what does.
		return
	}
	if least <= l.w.looked+resetTurns || !l.w.calm || l.w.meets.memory && l.version != packet.V50 {
		return // A PUBLISH of 3.x may wait for memory, and the broker not look for what comes behind it.
	}
	// The broker may have ended it when it first could, and still be sending what comes before the end, to a client that reads slowly.
	if l.overdue == 0 {
		l.overdue = l.w.now.Load()
	}
	if l.w.now.Load()-l.overdue > closingMax {
		l.w.violate("keep alive", "c%d was silent for more than 1.5 times its Keep Alive of %d s, and is connected", l.c.index, l.keep)
	}
}

func (l *link) silentFor(seconds int64) bool { return l.w.now.Load()-l.pushed.ms >= seconds*1000 }

// excuse is why the broker may have ended the connection; empty when it may not.
func (l *link) excuse() string {
	switch {
	case l.w.stopping:
		return "broker stops"
	case l.ghost:
		return "taken over"
	case l.rivalled:
		return "taken over by an earlier CONNECT"
	case l.bad:
		return "malformed"
	case l.leaving:
		return "DISCONNECT"
	case l.halved:
		return "closed its side"
	case l.isSilent():
		return "silent"
	case l.isLate():
		return "no CONNECT in time"
	case l.isBusy():
		return "busy"
	case l.isStuck():
		return "large packet without progress"
	case !l.accepted && l.inCrowd():
		return crowded
	case !l.accepted && l.w.meets.rate:
		return rated
	case l.w.meets.memory: // Last: what else explains an end is not put down to it.
		return outOfMemory
	}
	return ""
}

// over is the end that the broker made.
func (l *link) over() {
	excuse := l.excuse()
	switch {
	case excuse == "":
		l.w.violate("closed", "c%d was disconnected for nothing: %v", l.c.index, l.reason)
	case excuse == outOfMemory && !(l.told && l.starvesAliases()):
		l.starve()
	}
	l.checkTold()
	l.w.stats.ExpectedCloses++
	_ = l.peer.Close()
	l.c.endLink(l, false)
}
