package broker

import (
	"container/heap"
	"fmt"
	"slices"
	"strings"

	"github.com/ringmq/ringmq/broker/record"
)

// A store that was damaged may have Sessions that had ended, and Retained Messages that were cleared, as what said so is lost: more than the limits
// allow. Then Sessions in doubt are left out, those whose clients are away longest, each with all it has: its client learns of it by Session Present 0,
// as of no subscription that is missing. Of Retained Messages, which are read last, those are left out that find no room. What has lost nothing is never
// left out: there is more of it than a limit allows because somebody has lowered that.

// beyond is what a start leaves out.
type beyond struct {
	given   Limits // before allowMore
	ranked  uint32 // the loss before which Sessions are in doubted; 0: there was none
	doubted [2]awayHeap
	useless []away            // those that were taken out, as to leave them out gives no room for subscriptions
	leftOut map[string]uint64 // the last Session of each client that has none

	sessionsOut, retainedOut      int
	sessionLimits, retainedLimits []string // that there was more than
}

// The Sessions in beyond.doubted: leaving one out gives room to other names, or does not.
const (
	shortNames = iota
	longNames
)

// away is a Session in doubt.
type away struct {
	since int64 // when its client's connection ended, as far as is known, in unix milliseconds
	sid   uint64
}

func (a away) longerThan(b away) bool {
	return a.since < b.since || a.since == b.since && a.sid < b.sid
}

// awayHeap has the Session that is away longest at its top.
type awayHeap []away

// Len is part of heap.Interface, as are the others.
func (h awayHeap) Len() int           { return len(h) }
func (h awayHeap) Less(i, j int) bool { return h[i].longerThan(h[j]) }
func (h awayHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push adds one at the end.
func (h *awayHeap) Push(x any) { *h = append(*h, x.(away)) }

// Pop takes the last one off.
func (h *awayHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}

// kindOf says where in doubted a client's Session belongs.
func kindOf(clientID string) int {
	if len(clientID) > plannedName {
		return longNames
	}
	return shortNames
}

// isDamaged says whether the store was damaged since a broker last began to serve: what an earlier one served with has had room.
func (r *restoring) isDamaged() bool { return r.w.store.Doubt() > r.w.store.Accepted() }

// rank finds the Sessions in doubt among those that are there, unless they are known.
func (r *restoring) rank() {
	doubt := r.w.store.Doubt()
	if doubt == r.ranked || !r.isDamaged() {
		return
	}
	r.ranked, r.doubted, r.useless = doubt, [2]awayHeap{}, nil
	for sid, sess := range r.bySID {
		if sess.kept.doubt < doubt {
			h := &r.doubted[kindOf(sess.clientID)]
			*h = append(*h, away{sess.kept.offline, sid})
		}
	}
	for i := range r.doubted {
		heap.Init(&r.doubted[i])
	}
}

// note has a Session that was claimed be found as one in doubt, if others are.
func (r *restoring) note(sess *Session) {
	if k := sess.kept; k.doubt < r.ranked {
		heap.Push(&r.doubted[kindOf(sess.clientID)], away{k.offline, k.sid})
	}
}

// longestAway is the Session in doubt that is away longest, of all or of those with long names; false when there is none.
func (r *restoring) longestAway(names bool) (longest away, found bool) {
	r.rank()
	for kind := range r.doubted {
		h := &r.doubted[kind]
		for len(*h) > 0 && r.bySID[(*h)[0].sid] == nil { // left out, or its client has a younger one
			heap.Pop(h)
		}
		if len(*h) > 0 && (kind == longNames || !names) && (!found || (*h)[0].longerThan(longest)) {
			longest, found = (*h)[0], true
		}
	}
	return longest, found
}

// place makes the Session of a record, for which others may be left out; nil when it is left out itself.
func (r *restoring) place(s *Shard, in *record.Session, this away) (*Session, error) {
	w := r.w
	for {
		sess, _, _ := w.registry.claimSession(in.ClientID, s.id, func() *Session { return s.newSession(in.ClientID) })
		if sess != nil {
			delete(r.leftOut, in.ClientID)
			return sess, nil
		}
		limit, names := fmt.Sprintf("max_sessions (%d)", w.limits.MaxSessions), w.sessionCount.Load() < int64(w.limits.MaxSessions)
		if names {
			limit = r.memoryLimit()
		}
		switch other, found := r.longestAway(names); {
		case in.Doubt < r.ranked && (!found || this.longerThan(other)):
			r.leftOut[in.ClientID] = this.sid
			r.sessionLimits = withLimit(r.sessionLimits, limit)
			return nil, nil
		case found:
			r.leaveOut(other.sid, limit)
		default:
			return nil, fmt.Errorf("the store has more Sessions than max_sessions (%d) or memory allow; raise it", w.limits.MaxSessions)
		}
	}
}

// makeRoom leaves a Session out so that others have what they need; false when none is in doubt for which helps holds. With nil that is each.
func (r *restoring) makeRoom(limit string, helps func(*Session) bool) bool {
	if helps == nil {
		for _, a := range r.useless {
			heap.Push(&r.doubted[kindOf(r.bySID[a.sid].clientID)], a)
		}
		r.useless = nil
	}
	for other, found := r.longestAway(false); found; other, found = r.longestAway(false) {
		sess := r.bySID[other.sid]
		if helps == nil || helps(sess) {
			r.leaveOut(other.sid, limit)
			return true
		}
		heap.Pop(&r.doubted[kindOf(sess.clientID)])
		r.useless = append(r.useless, other)
	}
	return false
}

// leaveOut takes back what a Session has so far. The end of its records comes when its Will is read, see session.
func (r *restoring) leaveOut(sid uint64, limit string) {
	sess := r.bySID[sid]
	r.leftOut[sess.clientID] = sid
	r.sessionLimits = withLimit(r.sessionLimits, limit)
	r.dismiss(sess)
}

// dismiss takes a Session back that was claimed.
func (r *restoring) dismiss(sess *Session) {
	s := r.w.peers[sess.home.Load()]
	delete(r.bySID, sess.kept.sid)
	s.dropSubscriptions(sess)
	s.dropReceived(sess)
	s.remove(sess)
}

// giveUp ends the Sessions whose records were lost after they had been claimed or left out: what else there is of them belongs to nobody.
func (r *restoring) giveUp() {
	var lost []uint64
	for sid, sess := range r.bySID {
		if sess.kept.next == 0 { // session has not come to it
			lost = append(lost, sid)
		}
	}
	for _, sid := range r.leftOut {
		lost = append(lost, sid)
	}
	slices.Sort(lost)
	for _, sid := range lost {
		if sess := r.bySID[sid]; sess != nil {
			r.dismiss(sess)
		}
		r.end(r.w.peers[sid%uint64(len(r.w.peers))], sid, 0, CounterDroppedDamaged)
	}
}

// leaveRetained leaves a Retained Message out; false when the store was not damaged.
func (r *restoring) leaveRetained(s *Shard, key []byte, msg uint32) bool {
	if !r.isDamaged() {
		return false
	}
	limit := r.memoryLimit()
	if msg != 0 {
		s.ms.release(msg)
		if r.w.retained.count.Load() >= int64(r.w.limits.MaxRetained) {
			limit = fmt.Sprintf("max_retained (%d)", r.given.MaxRetained)
		}
	}
	s.stream.ops = record.AppendDelete(s.stream.ops, key)
	s.counters[CounterRetainedLeftOut]++
	r.retainedOut, r.retainedLimits = r.retainedOut+1, withLimit(r.retainedLimits, limit)
	return true
}

// subscriptionLimit is what keeps a subscription of a Session from being added, and which Sessions it helps to leave out: not those that have none,
// whose turn was before.
func (r *restoring) subscriptionLimit(sid uint64) (limit string, helps func(*Session) bool) {
	if r.w.subscribed.Load() < int64(r.w.limits.MaxSubscriptions) {
		return r.memoryLimit(), nil
	}
	return fmt.Sprintf("max_subscriptions (%d)", r.given.MaxSubscriptions), func(sess *Session) bool { return sess.subs != nil || sess.kept.sid >= sid }
}

// memoryLimit is what is used up when no other limit is.
func (r *restoring) memoryLimit() string {
	return fmt.Sprintf("memory (%d bytes)", r.w.limits.Memory)
}

func withLimit(list []string, limit string) []string {
	if slices.Contains(list, limit) {
		return list
	}
	return append(list, limit)
}

// tellLeftOut says what was left out.
func (r *restoring) tellLeftOut() {
	for _, out := range [...]struct {
		what, which string
		n           int
		limits      []string
	}{
		{"Sessions", "whose clients were away longest", r.sessionsOut, r.sessionLimits},
		{"Retained Messages", "for which there was no room", r.retainedOut, r.retainedLimits},
	} {
		if out.n > 0 {
			text := fmt.Sprintf("the store has lost records, and has more %s than fit, by %s: %d of them, %s, are left out; "+
				"the damaged store, where there was one, is kept beside it, in damaged-DATE", out.what, strings.Join(out.limits, " and "), out.n, out.which)
			r.w.peers[0].event(LogEvent{Kind: EventBeyondLimit, Text: text})
		}
	}
}
