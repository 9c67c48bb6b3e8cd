package sim

import (
	"slices"

	"github.com/ringmq/ringmq/broker/packet"
)

// rates judge what max_connect_rate does: each shard has a bucket of its part of a second's CONNECT packets, at least one, that fills with
// time. When a shard handled a CONNECT is known only from when to when.
type rates struct {
	perSecond int
	dialled   int       // connections since the broker started
	attempts  [][]*link // of each shard, without those that were surely refused
	heard     int       // clients that were told that they were
}

// fate is what is known of a CONNECT where there is a limit to their rate.
type fate struct {
	shard    int
	answered bool
	admitted bool // surely
	at       int64
}

// begin is for another broker.
func (r *rates) begin(shards int) {
	*r = rates{perSecond: r.perSecond, attempts: make([][]*link, shards)}
}

// note notes a new connection: the shards take turns.
func (r *rates) note(l *link) {
	l.fate.shard = r.dialled % len(r.attempts)
	r.dialled++
	if r.perSecond > 0 {
		r.attempts[l.fate.shard] = append(r.attempts[l.fate.shard], l)
	}
}

// refill is what the bucket of one shard gets in a second, and the most that it holds.
func (r *rates) refill() (rate, most float64) {
	rate = float64(r.perSecond) / float64(len(r.attempts))
	return rate, max(rate, 1)
}

// rounding is more than what sums of floating-point numbers may be out by.
const rounding = 1e-6

// noteAnswer notes what CONNACK says of the rate, and finds more connections than it allows.
func (l *link) noteAnswer(reason packet.Reason) {
	r, now := &l.w.rates, l.w.now.Load()
	if r.perSecond == 0 || l.w.options.Threaded || l.fate.answered {
		return
	}
	l.fate.answered, l.fate.at = true, now
	list := r.attempts[l.fate.shard]
	switch reason {
	case packet.ConnectionRateExceeded:
		r.heard++
		r.attempts[l.fate.shard] = slices.DeleteFunc(list, func(o *link) bool { return o == l })
		return
	case packet.ServerUnavailable: // In 3.x that may be all reasons.
		return
	}
	l.fate.admitted = true
	rate, most := r.refill()
	n := 0
	for _, o := range slices.Backward(list) {
		if !o.fate.admitted {
			continue
		}
		if n++; float64(n) > most+rate*float64(now-o.dialled.ms)/1000+rounding {
			l.w.violate("connect rate", "%d CONNECT packets were let through by shard %d within %d ms; the rate is %d a second for %d shards",
				n, l.fate.shard, now-o.dialled.ms, r.perSecond, len(r.attempts))
			return
		}
	}
}

// mayBeRated says whether the bucket may have been empty when its shard handled CONNECT: after so many others since it may have been full.
func (l *link) mayBeRated() bool {
	r, now := &l.w.rates, l.w.now.Load()
	if r.perSecond == 0 || l.w.options.Threaded {
		return r.perSecond > 0
	}
	list := r.attempts[l.fate.shard]
	if r.allows(list, l, l.dialled.ms) {
		return true
	}
	for _, o := range list {
		if at := o.dialled.ms; o != l && at > l.dialled.ms && at <= now && r.allows(list, l, at) {
			return true
		}
	}
	return false
}

// allows says whether that may be so at one moment.
func (r *rates) allows(list []*link, l *link, at int64) bool {
	var ends []int64
	for _, o := range list {
		if o != l && o.dialled.ms <= at {
			ends = append(ends, min(o.handledBy(), at))
		}
	}
	slices.Sort(ends)
	rate, most := r.refill()
	for n, end := range slices.Backward(ends) {
		if taken := len(ends) - n; float64(taken) > most-1+rate*float64(at-end)/1000-rounding {
			return true
		}
	}
	return false
}

// handledBy is when CONNECT had surely been handled, if ever.
func (l *link) handledBy() int64 {
	switch {
	case l.fate.answered:
		return l.fate.at
	case l.gone.step != 0:
		return l.gone.ms
	}
	return forever
}

// judgeRate compares the counter with who was told.
func (w *world) judgeRate(counted int) {
	r := &w.rates
	open := 0
	for _, list := range r.attempts {
		for _, l := range list {
			if !l.fate.admitted {
				open++
			}
		}
	}
	if !w.options.Threaded && (counted < r.heard || counted > r.heard+open) {
		w.violate("counters", "%d CONNECT packets were refused by their rate, of %d more that is not known; the broker has counted %d", r.heard, open, counted)
	}
}

// promise is what a Session is promised as far as CONNECT packets bear on it.
type promise struct {
	session              *session
	attempts             int
	maybe, doubt         bool
	expiryMin, expiryMax int64
}

func (s *session) promise() promise {
	return promise{s, s.attempts, s.maybe, s.doubt, s.expiryMin, s.expiryMax}
}

// takeBack undoes what the CONNECT of a connection might have done to the Session and to Wills that wait: it was refused before anybody
// looked at whose it was.
func (c *client) takeBack(l *link) {
	if s, p := c.session, l.before; s == p.session {
		s.attempts, s.maybe, s.doubt, s.expiryMin, s.expiryMax = p.attempts, p.maybe, p.doubt, p.expiryMin, p.expiryMax
	}
	for _, w := range c.pending {
		w.touched--
	}
}
