package load

import "time"

// publisher is the sending end of one connection: what it has sent and what it may send.
type publisher struct {
	conn     *conn
	template template
	sent     uint64 // the next sequence number
	limit    uint64 // it sends only sequence numbers below this
	// arrivedBelow: every subscriber has had, or has been given up for, all sequence numbers below this.
	arrivedBelow uint64
	acknowledged uint64 // QoS 1 and 2: exchanges that have ended
	unackedMax   uint64
	// arrivals counts, for FanOut in a closed loop, the subscribers that have had a sequence number, at its
	// remainder by the window.
	arrivals []uint32

	// For the stall check: what arrivedBelow was, and since when.
	seenBelow uint64
	seenAt    int64
}

// arrivedUpTo is told that the only subscriber has had everything below sequence.
func (p *publisher) arrivedUpTo(sequence uint64) {
	p.arrivedBelow = max(p.arrivedBelow, sequence)
}

// arrivedAtOne is told that one of fan subscribers has gone from one sequence number to another.
func (p *publisher) arrivedAtOne(from, to uint64, fan int) {
	window := uint64(len(p.arrivals))
	for s := max(from, p.arrivedBelow); s < to; s++ {
		p.arrivals[s%window]++
	}
	for p.arrivedBelow < p.sent && p.arrivals[p.arrivedBelow%window] == uint32(fan) {
		p.arrivals[p.arrivedBelow%window] = 0
		p.arrivedBelow++
	}
}

// allowance is how many messages may be sent now in a closed loop.
func (p *publisher) allowance(window int, qos byte) uint64 {
	allowed := min(uint64(window)-(p.sent-p.arrivedBelow), p.limit-p.sent)
	if qos > 0 {
		allowed = min(allowed, p.unackedMax-(p.sent-p.acknowledged))
	}
	return allowed
}

// stalled says whether messages are under way and none has arrived for a while.
func (p *publisher) stalled(now int64, timeout time.Duration) bool {
	if p.arrivedBelow != p.seenBelow || p.arrivedBelow == p.sent || p.seenAt == 0 {
		p.seenBelow, p.seenAt = p.arrivedBelow, now
		return false
	}
	return now-p.seenAt >= int64(timeout)
}

// giveUp opens the window again; what arrives late is still counted as arrived.
func (p *publisher) giveUp() {
	p.arrivedBelow = p.sent
	clear(p.arrivals)
}

// spinBelow is the distance to the next message below which the loop looks again at once: setting a timer and
// waking by it takes a good part of that, and would show as the broker's latency.
const spinBelow = 100 * time.Microsecond

// napMin is the shortest that an unhurried loop sleeps: at 10,000 messages per second and more it wakes for several at once.
const napMin = 100 * time.Microsecond

// pacer says when messages fall due in an open loop: at even distances, the publishers in turn.
type pacer struct {
	base     int64
	interval float64 // nanoseconds between two messages of the whole run
	next     int64   // the run's next message that is not due yet
	armedFor int64
	wakesAt  int64 // unhurried: what the timer is set to
}

func (a *pacer) start(t *traffic) {
	a.base = t.now
	if t.cfg.Rate > 0 {
		a.interval = float64(time.Second) / t.cfg.Rate
	}
}

// at is when the run's n-th message is due.
func (a *pacer) at(n int64) int64 { return a.base + int64(float64(n)*a.interval) }

// due marks the publishers whose turn has come and sets the timer for the next.
func (a *pacer) due(t *traffic) error {
	if !t.publishing {
		t.spin = false
		return nil
	}
	publishers := int64(len(t.publishers))
	dueBelow := int64(float64(t.now-a.base)/a.interval) + 1
	for n := max(a.next, dueBelow-publishers); n < dueBelow; n++ {
		t.mark(t.publishers[n%publishers].conn)
	}
	a.next = max(a.next, dueBelow)
	if t.cfg.Unhurried {
		return a.nap(t)
	}
	gap := time.Duration(a.at(a.next) - t.clock())
	if t.spin = gap < spinBelow; t.spin || a.armedFor == a.next {
		return nil
	}
	a.armedFor = a.next
	return t.poll.Arm(gap)
}

// nap sets the timer for the next message, but not to less than napMin. A timer that is under way stays.
func (a *pacer) nap(t *traffic) error {
	now := t.clock()
	if a.wakesAt > now {
		return nil
	}
	a.wakesAt = max(a.at(a.next), now+int64(napMin))
	return t.poll.Arm(time.Duration(a.wakesAt - now))
}

// allowance is how many messages publisher number may send now.
func (a *pacer) allowance(p *publisher, number, publishers int, qos byte) uint64 {
	// Message n of the run is message n/publishers of publisher n%publishers.
	dueBelow := uint64((a.next - int64(number) + int64(publishers) - 1) / int64(publishers))
	allowed := min(dueBelow, p.limit) - min(p.sent, min(dueBelow, p.limit))
	if qos > 0 {
		allowed = min(allowed, p.unackedMax-(p.sent-p.acknowledged))
	}
	return allowed
}
