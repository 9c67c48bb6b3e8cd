package sim

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ringmq/ringmq/broker/packet"
)

const (
	settleTurnsMax = 6000    // calm turns until everything must have come to rest
	restWindow     = 1 << 16 // bytes of a client's window then, so that a calm turn moves much
	quietTurns     = 40      // turns without a byte, and without work left over, after which nothing more is taken to come
)

// restRounds is how often all clients connect again before what has come is judged.
const restRounds = 20

// rest is the calm end of a run: every client connects once more, takes what there is, and acknowledges it; then the model is asked what
// is missing, and everything is taken down.
func (w *world) rest() {
	if w.violation != nil {
		return
	}
	w.resting = true
	w.setDisk(&Op{})
	for _, c := range w.clients {
		c.slow, c.deny = 0, false
		if c.link != nil {
			c.link.doomed = -1
			c.link.peer.SetSendWindow(restWindow)
		}
		c.release()
	}
	// While it was quiet a Keep Alive may have run out; those of some clients may keep others from being quiet for as long as theirs.
	for rounds, resting := 0, false; !resting && rounds < restRounds; rounds++ {
		if !w.until("everything acknowledged", w.settled) || !w.quiet() {
			return
		}
		resting = w.settled()
	}
	w.judge()
	if w.violation == nil && w.judgeRetained() {
		w.farewell()
	}
}

// until has calm turns until done says so.
func (w *world) until(what string, done func() bool) bool {
	for i := 0; !done(); i++ {
		if w.violation != nil {
			return false
		}
		if i > settleTurnsMax {
			w.violate("stuck", "%s: not after %d calm turns\n%s", what, i, w.state())
			return false
		}
		w.step++
		w.turn(0)
	}
	return w.violation == nil
}

// quiet has calm turns until nothing has been heard for a while, and no shard has anything to do.
func (w *world) quiet() bool {
	for still, turns, before := 0, 0, w.stats.Bytes; still < quietTurns; still++ {
		w.step++
		w.turn(0)
		if turns++; w.stats.Bytes != before || turns < settleTurnsMax && w.isBusy() {
			still, before = 0, w.stats.Bytes
		}
	}
	return w.violation == nil
}

// settled connects every client and says whether all have what they wait for.
func (w *world) settled() bool {
	all := len(w.ghosts)+len(w.intruders) == 0
	for _, c := range w.clients {
		if c.link == nil {
			if w.patient(c) {
				c.dialLast()
			}
			all = false
		} else if !c.settled() {
			all = false
		}
	}
	return all
}

// dialLast opens a connection for the calm end, in a version that depends on the client.
func (c *client) dialLast() {
	in := packet.Connect{Version: packet.V311}
	if c.index%3 > 0 {
		in = packet.Connect{Version: packet.V50, SessionExpiry: 100_000, RequestProblemInfo: true}
	}
	c.sign(&in, c.index)
	c.dial(&in, nil)
}

// patient says whether a client has waited long enough to come again where too many at a time are refused.
func (w *world) patient(c *client) bool { return !w.meets.rate || (w.step+c.index)%8 == 0 }

func (c *client) settled() bool {
	l := c.link
	return l.accepted && !l.exchange.under && !l.leaving && !l.bad && !l.halved && len(l.out)+len(l.in)+len(c.flight)+len(c.session.taken)+len(l.subs)+len(l.unsubs)+l.pings == 0
}

// state is what everybody waits for, for the report.
func (w *world) state() string {
	var b strings.Builder
	for _, c := range w.clients {
		if l := c.link; l == nil {
			fmt.Fprintf(&b, "c%d: not connected\n", c.index)
		} else if !c.settled() {
			fmt.Fprintf(&b, "c%d: accepted %v, leaving %v, bad %v, %d bytes to send, %d messages under way, %d to be released, %d+%d requests, %d pings, %d bytes unread\n",
				c.index, l.accepted, l.leaving, l.bad, len(l.out), len(c.flight), len(c.session.taken), len(l.subs), len(l.unsubs), l.pings, len(l.in))
		}
	}
	fmt.Fprintf(&b, "%d ghosts, %d intruders\n", len(w.ghosts), len(w.intruders))
	return b.String()
}

// farewell ends every Session, and clears every Retained Message behind the last Will.
func (w *world) farewell() {
	for _, c := range w.clients {
		c.dialClean()
	}
	if !w.until("a clean connection for all", w.accepted) || !w.quiet() {
		return
	}
	reader := w.clients[len(w.clients)-1]
	for _, name := range w.retainedTopics() {
		h := &packet.PublishHead{Flags: packet.PublishFlags(false, 0, true), Topic: []byte(name)}
		reader.link.out = packet.AppendPublish(reader.link.out, h, nil, reader.link.version)
	}
	if !w.quiet() {
		return
	}
	for _, c := range w.clients {
		c.bye(&Op{})
	}
	w.until("the end of all connections", func() bool { return w.connected() == 0 && w.network.Open() == 0 })
	w.pass(10_000)
	w.quiet()
}

// retainedTopics are the Topic Names that may have a Retained Message.
func (w *world) retainedTopics() (names []string) {
	for _, m := range w.messages {
		if m.retain && !slices.Contains(names, m.topic) {
			names = append(names, m.topic)
		}
	}
	return names
}

func (c *client) dialClean() {
	in := packet.Connect{Version: packet.V50, CleanStart: true, RequestProblemInfo: true}
	c.sign(&in, c.index)
	c.dial(&in, nil)
}

// accepted says whether every client is connected; who was refused, because connections that were taken over still count, tries again.
func (w *world) accepted() bool {
	for _, c := range w.clients {
		if c.link == nil && w.patient(c) {
			c.dialClean()
		}
		if c.link == nil || !c.link.accepted || len(c.link.out) > 0 {
			return false
		}
	}
	return len(w.ghosts) == 0
}

func (w *world) connected() (n int) {
	for _, c := range w.clients {
		if c.link != nil {
			n++
		}
	}
	return n
}

// leftovers looks for slots, pages and bytes that did not come back.
func (w *world) leftovers() {
	if w.violation != nil {
		return
	}
	w.now.Add(5000)
	for range 20 {
		for _, l := range w.broker.Loops() {
			_ = l.Turn(0)
		}
		w.workDisk()
		w.now.Add(1000)
	}
	for _, err := range w.broker.Leftovers() {
		w.violate("leak", "%v", err)
	}
	if err := w.authenticator.left(); err != nil {
		w.violate("leak", "%v", err)
	}
	if w.disk != nil {
		w.disk.reap()
		for _, err := range w.disk.left() {
			w.violate("leak", "%v", err)
		}
	}
}
