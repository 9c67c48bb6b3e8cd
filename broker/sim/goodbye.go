package sim

import (
	"slices"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
)

// graceMS is how long the broker waits, when it has decided to close, until its client has taken the reason.
const graceMS = 2000

// noteExcuses notes, before the shards have their turns, which connections they may decide to end from now on.
func (w *world) noteExcuses() {
	for _, c := range w.clients {
		if c.link != nil {
			c.link.noteExcuse()
		}
	}
	for _, l := range w.ghosts {
		l.noteExcuse()
	}
}

func (l *link) noteExcuse() {
	if l.excused == 0 && l.excuse() != "" {
		l.excused = l.w.now.Load()
	}
}

// isSilent says whether no packet was whole on the connection for longer than its Keep Alive allows, isStuck whether a large packet on it may not
// have come on for longer than the broker waits.
func (l *link) isSilent() bool {
	return l.silent || l.keep > 0 && l.w.now.Load()-l.said >= l.keep*1500
}

func (l *link) isStuck() bool {
	return l.large != 0 && (l.late || l.w.jumped >= l.large) || len(l.out) > 0 && l.silentFor(int64(l.w.limits.PacketTimeout/time.Second))
}

// isLate says whether its client may not have been let in in time.
func (l *link) isLate() bool {
	return !l.accepted && l.w.now.Load()-l.dialled.ms >= l.w.limits.ConnectTimeout.Milliseconds()*3/4
}

// onDisconnect checks that what the broker says of the end is what there is to say.
func (l *link) onDisconnect(body []byte) packet.Reason {
	var in packet.Disconnect
	if r := in.DecodeFromServer(body, l.version); r != packet.Success {
		return r
	}
	l.told, l.reason = true, in.Reason
	if in.Reason == packet.QuotaExceeded && !l.starvesAliases() {
		l.starve()
	}
	switch {
	case l.version != packet.V50:
		l.w.violate("garbage", "c%d got DISCONNECT, which 3.x has only from clients", l.c.index)
	case !l.mayBeTold(in.Reason):
		l.w.violate("reason", "c%d was disconnected with %v; the broker may have had another reason (%s)", l.c.index, in.Reason, l.excuse())
	}
	return packet.Success
}

// mayBeTold says whether the Reason Code is one that the broker may have for this connection.
func (l *link) mayBeTold(r packet.Reason) bool {
	switch r {
	case packet.SessionTakenOver: // [MQTT-3.1.4-3]
		return l.ghost || l.rivalled
	case packet.KeepAliveTimeout: // [MQTT-3.1.2-22]
		return l.isSilent() || l.isStuck()
	case packet.ServerBusy:
		return l.isBusy()
	case packet.ServerShuttingDown: // Table 3-10.
		return l.w.stopping
	case packet.QuotaExceeded:
		return l.w.meets.memory
	}
	return l.bad && slices.Contains(l.badAs, r)
}

// checkTold finds a connection of 5.0 that the broker ended without saying why: where the client has neither said its last nor closed its
// side, and the broker could not yet have lost patience with it.
func (l *link) checkTold() {
	switch {
	case l.told, l.version != packet.V50, !l.accepted, l.leaving, l.halved, l.bad && !l.sound:
		return
	case l.excused == 0 || l.w.now.Load()-l.excused >= graceMS:
		return
	case l.w.meets.memory:
		l.starve()
	default:
		l.w.violate("reason", "c%d was disconnected without a Reason Code: %s", l.c.index, l.excuse())
	}
}

// listen has a client read, on a connection that it has left behind, until the broker has ended it: it looks for the reason, and
// acknowledges nothing.
func (l *link) listen() (ended bool) {
	for l.w.violation == nil {
		n, err := l.peer.Read(l.w.scratch)
		l.in = append(l.in, l.w.scratch[:n]...)
		l.w.record(l, n)
		l.overhear()
		switch {
		case waits(err):
			return false
		case err != nil:
			l.checkTold()
			return true
		}
	}
	return true
}

// overhear takes the whole packets off what has come to a connection that was left behind.
func (l *link) overhear() {
	for {
		h, r := packet.ParseHeader(l.in)
		n := h.Size + h.Remaining
		if r != packet.Success || h.Size == 0 || len(l.in) < n {
			return
		}
		body := l.in[h.Size:n:n]
		l.in = l.in[n:]
		l.checkLast(h.Kind)
		switch h.Kind {
		case packet.CONNACK:
			var in packet.Connack
			if r = in.Decode(body, l.version); in.HasKeepAlive {
				l.keep = int64(in.ServerKeepAlive)
			}
			l.noteAnswer(in.Reason)
		case packet.DISCONNECT:
			r = l.onDisconnect(body)
		}
		if r != packet.Success {
			l.w.violate("garbage", "c%d: %v does not decode: %v: % x", l.c.index, h.Kind, r, body)
		}
	}
}

// checkLast finds a packet behind DISCONNECT [MQTT-3.14.4-1].
func (l *link) checkLast(kind packet.Kind) {
	if l.told {
		l.w.violate("after DISCONNECT", "c%d got %v behind DISCONNECT", l.c.index, kind)
	}
}
