package netstack

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const (
	// heldMax bounds the ACKs that are held at a time, per plane: 3 MiB of memory at the most. Beyond it they are sent at once.
	heldMax = 32 << 10

	// duesMax bounds the notes of when held ACKs are due, most of which outlive their ACK.
	duesMax = 64 << 10

	// heldBytes is the room for one: the longest frame that mayHold lets through.
	heldBytes = linkHeaderMax + ipv6HeaderBytes + tcpHeaderBytes + timestampOptionBytes

	// heldSegments is from how many full segments on an ACK is not held (RFC 5681, section 4.2).
	heldSegments = 2

	// heldMessages is from how many segments of any size on it is not held: far less than the ten that a sender's congestion
	// window begins with, which counts segments.
	heldMessages = 4

	// patientDelay is how long the ACKs of patient flows are held while the plane is busy: what Linux takes (TCP_DELACK_MIN).
	patientDelay = 40 * time.Millisecond

	// A plane is busy if it rests for less than 1/busyShare of busyWindow.
	busyWindow, busyShare = 10 * time.Millisecond, 4

	// promptTime is how soon after an ACK a segment must come for it to seem that the remote waited for that ACK. Handshakes
	// that took longer lengthen it.
	promptTime = 4 * time.Millisecond

	// unknownHandshake stands for the length of a handshake that was not seen: a remote that may be anywhere.
	unknownHandshake = time.Second

	// calmMin is how often a remote must not have waited for a flow to be patient; each time it did after all doubles that.
	calmMin, relapsesMax = 4, 12
)

// heldACK is a pure ACK that waits to be superseded.
type heldACK struct {
	frame [heldBytes]byte
	bytes int
	ack   uint32
}

// holder has the ACKs of one plane that are held back, and knows when each is due. The link's mutex guards it.
//
// An ACK waits for TCPConfig.AckDelay. That is short, because a remote whose Nagle's algorithm or congestion window is at its
// limit sends nothing before it comes. A flow is patient if its remote was seen not to wait: several times in a row nothing came
// promptly after an ACK that nothing had superseded. While the plane is busy, and sending is what it does not get done, ACKs of
// patient flows wait for up to patientDelay. At the first sign that the remote does wait, the flow has to prove itself for twice
// as long as before.
type holder struct {
	short, long dueQueue
	free        []*heldACK
	count       int // that are held
}

// dueQueue lists ACKs in the order in which they are due. An entry whose ACK was superseded stays until it comes first: flow.due
// tells.
type dueQueue struct {
	entries []due // a ring
	first   int
	count   int
}

type due struct {
	at   time.Duration // of the plane's clock
	flow *flow
}

func (q *dueQueue) push(d due) {
	if q.count == len(q.entries) {
		grown := make([]due, max(64, 2*q.count))
		for i := range q.count {
			grown[i] = q.entries[(q.first+i)%q.count]
		}
		q.entries, q.first = grown, 0
	}
	q.entries[(q.first+q.count)%len(q.entries)] = d
	q.count++
}

// next forgets the entries whose ACKs are gone, and returns the first of the others.
func (q *dueQueue) next() (due, bool) {
	for q.count > 0 {
		if d := q.entries[q.first]; d.flow.held != nil && d.flow.due == d.at {
			return d, true
		}
		q.pop()
	}
	return due{}, false
}

func (q *dueQueue) pop() {
	q.entries[q.first] = due{}
	q.first = (q.first + 1) % len(q.entries)
	q.count--
}

// mayHold tells whether a packet is a pure ACK of an established flow that says no more than that bytes have come in
// order, and that may wait for data to carry it, or for another that says more. Duplicate ACKs, SACK blocks and window
// updates never wait.
func (l *link) mayHold(f *flow, o *outgoing) bool {
	if f == nil || !f.isLive || !f.answered || !l.isTurn || f.unacked >= heldMessages {
		return false
	}
	t := o.tcp
	if o.payload != 0 || uint8(t.Flags()) != tcpAck || len(t) > tcpHeaderBytes+timestampOptionBytes {
		return false
	}
	if f.held == nil && (l.holder.count >= heldMax || l.holder.short.count >= duesMax || l.holder.long.count >= duesMax) {
		return false
	}
	news := t.AckNumber() - f.acked
	return int32(news) > 0 && int(news) < heldSegments*(l.device.MTU()-ipv6HeaderBytes-tcpHeaderBytes) && f.window != 0
}

// hold keeps a packet back. One that is held already gives its place and the time when it is due.
func (l *link) hold(f *flow, to linkAddr, o *outgoing) {
	h := &l.holder
	l.counters.held.Add(1)
	if f.held != nil {
		l.counters.superseded.Add(1)
	} else {
		f.held = h.take()
		now, queue, delay := l.clock.elapsed(), &h.short, l.ackDelay
		if l.isBusy && f.isPatient() {
			queue, delay = &h.long, max(l.ackDelay, patientDelay)
		}
		f.due = now + max(0, delay)
		queue.push(due{f.due, f})
	}
	f.held.bytes, f.held.ack = o.write(f.held.frame[:], to, l.device.HardwareAddr()), o.tcp.AckNumber()
}

func (h *holder) take() *heldACK {
	h.count++
	if n := len(h.free); n > 0 {
		a := h.free[n-1]
		h.free = h.free[:n-1]
		return a
	}
	return new(heldACK)
}

// discardHeld forgets the ACK that a flow holds.
func (l *link) discardHeld(f *flow) {
	if f.held != nil {
		l.holder.free = append(l.holder.free, f.held)
		l.holder.count--
		f.held = nil
	}
}

// supersede makes way for a packet of a flow that holds an ACK. The ACK is not needed any more, unless the packet knows less: an
// old segment that is sent again.
func (l *link) supersede(f *flow, o *outgoing) {
	if int32(o.tcp.AckNumber()-f.held.ack) < 0 && o.tcp.Flags()&header.TCPFlagRst == 0 {
		l.release(f)
		return
	}
	l.counters.superseded.Add(1)
	l.discardHeld(f)
}

// release sends the ACK that a flow holds.
func (l *link) release(f *flow) {
	f.acked, f.unacked = f.held.ack, 0
	l.put(f.held.frame[:f.held.bytes])
	l.discardHeld(f)
}

// releaseDue sends the ACKs that have waited long enough, and says how long the others may, from now on; negative: there are none.
func (l *link) releaseDue(now time.Duration) (rest time.Duration) {
	rest = -1
	for _, q := range []*dueQueue{&l.holder.short, &l.holder.long} {
		d, ok := q.next()
		for ; ok && d.at <= now; d, ok = q.next() {
			q.pop()
			d.flow.releasedAt = now
			l.release(d.flow)
		}
		if ok {
			rest = sooner(rest, d.at-now)
		}
	}
	return rest
}

// isPatient tells whether the remote goes on sending when it is not acknowledged.
func (f *flow) isPatient() bool { return f.calm >= calmMin<<f.relapses }

// judge looks whether the segment of data in hand came because an ACK was sent.
func (f *flow) judge(now time.Duration) {
	if f.releasedAt == 0 {
		return
	}
	if now-f.releasedAt > max(promptTime, 2*f.handshake) {
		f.calm = min(f.calm+1, calmMin<<relapsesMax)
	} else {
		if f.isPatient() && f.relapses < relapsesMax {
			f.relapses++
		}
		f.calm = 0
	}
	f.releasedAt = 0
}
