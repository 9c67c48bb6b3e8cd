package sim

import (
	"net/netip"

	"github.com/ringmq/ringmq/broker"
)

// starvation counts what nothing but a lack of memory explains. The policy is that it refuses messages, not connections: 5.0 is told, 3.x waits
// unacknowledged. Which connection cannot go on even so (there is no room for its acknowledgement or for what it has sent, or it was wound
// up, so that its client acknowledges what the memory is full of) depends on what the broker holds, which the model does not know; but
// it is one whose client has something under way, and the broker counts them.
type starvation struct {
	ends    int     // of connections, or that came without the Reason Code that was due
	deleted []*will // by DISCONNECT, unless its connection had ended before
}

// starve notes an end that is explained by nothing else.
func (l *link) starve() {
	if !l.starved {
		l.starved = true
		l.w.starvation.ends++
	}
}

// starvesAliases says whether the broker may have had no room for a Topic Alias of its client: what it does not count.
func (l *link) starvesAliases() bool { return l.w.meets.memory && len(l.ours) > 0 }

// mayLackMemory says whether CONNECT may be refused for want of it: with a Will, which has to be kept.
func (l *link) mayLackMemory() bool { return l.w.meets.memory && l.will != nil }

// judgeEnd finds a connection that the broker ends now, which nothing but a lack of memory explains, although its client has nothing under way: a
// lack of memory is no reason to end one for which there is nothing to keep, and nothing to say.
func (w *world) judgeEnd(address netip.AddrPort) {
	if !w.meets.memory || w.options.Threaded {
		return
	}
	for _, c := range w.clients {
		if l := c.link; l != nil && l.peer.Local() == address && l.excuse() == outOfMemory && l.hasNothingUnderWay() {
			w.violate("closed", "c%d was disconnected for want of memory, and had nothing under way", c.index)
		}
	}
}

// hasNothingUnderWay says whether the broker has read all that the client has sent, has answered it, cannot have let a PUBLISH wait, and, on the first
// connection of a Session, has no PUBREL to send again.
func (l *link) hasNothingUnderWay() bool {
	s := l.c.session
	return l.accepted && s.links == 1 && !l.exchange.under && len(l.out)+l.peer.Unread()+len(l.quick)+len(l.c.flight)+len(s.taken)+len(l.subs)+len(l.unsubs)+l.pings == 0
}

// judgeMemory compares what was put down to a lack of memory with what the broker has counted.
func (w *world) judgeMemory(n *broker.Counters) {
	if !w.meets.memory || w.disk != nil {
		return
	}
	closed := int(n.Of(broker.CounterClosedNoMemory))
	if s := &w.starvation; s.ends > closed {
		w.violate("closed", "%d connections were ended for nothing, or without a Reason Code; the broker has counted %d for want of memory", s.ends, closed)
	}
	if closed == 0 {
		for _, will := range w.starvation.deleted {
			will.decide(false)
		}
	}
}

// judgeLiving finds clients that are connected although their Wills have been published.
func (w *world) judgeLiving() {
	for _, c := range w.clients {
		if l := c.link; l != nil && l.accepted && l.will != nil && l.will.heard.step != 0 {
			w.violate("will of the living", "c%d is connected, and its Will was published", c.index)
		}
	}
}
