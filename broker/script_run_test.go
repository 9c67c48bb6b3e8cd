package broker_test

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/script"
)

// do carries one command out. A leading "+" leaves the broker unturned, so that it finds this command's bytes and the
// next one's at once.
func (w *world) do(text string) error {
	later := strings.HasPrefix(text, "+")
	c, err := script.Parse(strings.TrimPrefix(text, "+"))
	if err != nil {
		return err
	}
	if err := w.carryOut(c); err != nil {
		return err
	}
	if name := c.Unused(); name != "" {
		return fmt.Errorf("%s has no option %s", c.Verb, name)
	}
	if later {
		return nil
	}
	w.settle()
	for _, c := range w.clients {
		c.tell()
	}
	return nil
}

// carryOut turns a mistake in a script, which comes as a panic, into an error.
func (w *world) carryOut(c *script.Command) (err error) {
	defer func() {
		if r := recover(); r != nil {
			message, ok := r.(string)
			if !ok {
				panic(r)
			}
			err = fmt.Errorf("%s", message)
		}
	}()
	if w.aboutBroker(c) || w.aboutConnection(c) {
		return nil
	}
	w.remember(c)
	w.speak(w.find(c.Word(0)), c)
	return nil
}

// aboutBroker handles the commands that concern no client.
func (w *world) aboutBroker(c *script.Command) bool {
	switch c.Verb {
	case "tick":
		d, err := time.ParseDuration(c.Word(0))
		if err != nil {
			panic(err.Error())
		}
		w.now = w.now.Add(d)
		w.say("-- " + c.Word(0))
	case "answer":
		w.answer(c)
	case "busy":
		w.host.busy = c.Word(0) == "on"
	case "log":
		w.host.log = c.Word(0) == "on"
	case "split":
		w.split = int(c.WordNumber(0))
	case "counters":
		w.tellCounters(c.Words)
	case "alive":
		w.tellAlive(c.Words)
	case "payloads":
		w.tellPayloads(w.find(c.Word(0)))
	case "shares":
		w.tellShares(c.Words)
	case "inuse":
		w.say(fmt.Sprintf("%+v", w.broker.InUse()))
	case "stop":
		w.stop(drained(c))
	default:
		return false
	}
	return true
}

// answer brings the authenticator's answer to the last request for a Client Identifier.
func (w *world) answer(c *script.Command) {
	r, ok := w.host.pending[c.Word(0)]
	if !ok {
		panic("nothing was asked for " + c.Word(0))
	}
	result := broker.AuthResult{Token: r.Token, Reason: packet.Reason(c.Number("reason", 0)), User: c.Text("user", ""), Data: c.Bytes("data")}
	w.broker.Loops()[r.Shard].Authenticated(result)
}

func (w *world) tellCounters(names []string) {
	live := w.broker.Live()
	values := map[string]string{}
	for _, pair := range strings.Fields(live.String()) {
		name, value, _ := strings.Cut(pair, "=")
		values[name] = value
	}
	for _, name := range names {
		value := values[name]
		if value == "" {
			value = "0"
		}
		w.say(fmt.Sprintf("%s=%s", name, value))
	}
}

// tellAlive counts the clients that the broker has not closed.
func (w *world) tellAlive(names []string) {
	n := 0
	for _, name := range names {
		if w.find(name).closed == "" {
			n++
		}
	}
	w.say(fmt.Sprintf("%d of %d are connected", n, len(names)))
}

// tellPayloads lists what a client got on each topic: for what comes in an order, or in parts, that is the broker's choice.
func (w *world) tellPayloads(c *client) {
	for _, topic := range slices.Sorted(maps.Keys(c.payloads)) {
		w.say(fmt.Sprintf("%s got on %s: %s", c.name, topic, strings.Join(c.payloads[topic], " ")))
	}
}

// tellShares lists how many messages the clients got, whoever got how many.
func (w *world) tellShares(names []string) {
	var counts []int
	for _, name := range names {
		n := 0
		for _, list := range w.find(name).payloads {
			n += len(list)
		}
		counts = append(counts, n)
	}
	slices.Sort(counts)
	w.say(fmt.Sprintf("shares: %d", counts))
}

// drained is how many connections of each shard "stop" ends: all, unless it names a number.
func drained(c *script.Command) int {
	if len(c.Words) == 0 {
		return 1 << 20
	}
	return int(c.WordNumber(0))
}

// stop is what the process does when it is told to end, up to the first batch of connections that are ended.
func (w *world) stop(most int) {
	for i, l := range w.broker.Loops() {
		w.network.Planes()[i].StopAccepting()
		l.Do(func(s *broker.Shard) { s.Drain(most) })
	}
	w.stopped = true
}

// aboutConnection handles the commands that concern a connection but send nothing.
func (w *world) aboutConnection(c *script.Command) bool {
	switch c.Verb {
	case "dial", "connect":
		p := w.dial(c.Word(0), c.Version(packet.V50))
		if c.Has("window") {
			p.peer.SetSendWindow(int(c.Number("window", 0)))
		}
		return c.Verb == "dial"
	case "close":
		p := w.find(c.Word(0))
		p.leave(p.peer.Close)
	case "reset":
		p := w.find(c.Word(0))
		p.leave(p.peer.Reset)
	case "end":
		_ = w.find(c.Word(0)).peer.CloseWrite()
	case "window":
		w.find(c.Word(0)).peer.SetSendWindow(int(c.WordNumber(1)))
	case "hold", "release":
		w.find(c.Word(0)).held = c.Verb == "hold"
	case "take":
		w.find(c.Word(0)).read(int(c.WordNumber(1)))
	case "auto":
		w.find(c.Word(0)).auto = len(c.Words) < 2
	case "mute":
		w.find(c.Word(0)).mute = true
	case "brief":
		w.find(c.Word(0)).brief = len(c.Words) < 2
	default:
		return false
	}
	return true
}

// speak sends what a client says.
func (w *world) speak(p *client, c *script.Command) {
	count, pace := int(c.Number("count", 1)), int(c.Number("pace", 0))
	for i := range count {
		p.write(c.Packet(i, p.version))
		if pace > 0 && i%pace == 0 {
			w.settle()
		}
	}
}

// end closes what is open, ends every Session and removes every Retained Message that the script may have left; then
// nothing may be in use any more.
func (w *world) end() {
	for _, c := range w.clients {
		c.leave(c.peer.Close)
	}
	w.split, w.host.busy = 0, false
	w.settle()
	w.now = w.now.Add(5 * time.Second) // closing connections are given up
	w.settle()
	if !w.stopped {
		w.sweep()
	}
	if n := w.network.Open(); n != 0 {
		w.tb.Errorf("%d connections are left in the plane", n)
	}
	n := w.broker.InUse()
	if w.keepsSys {
		n.Messages, n.Pages, n.Retained = 0, 0, 0 // Nobody can clear $SYS.
	}
	if w.stopped {
		n = broker.InUse{Conns: n.Conns, Connected: n.Connected, Promised: n.Promised}
	}
	if n != (broker.InUse{}) {
		w.tb.Errorf("in use after the end of the script: %+v", n)
	}
	w.broker.Release()
}

// sweep connects with each Client Identifier once more, without a Session that lasts, and clears the Retained Messages.
func (w *world) sweep() {
	var names []string
	for name := range w.known {
		if name != "" {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	w.known = map[string]bool{}
	for _, name := range append(names, "sweeper") {
		c := w.dial("~"+name, packet.V50)
		c.write(script.New("connect", name).Packet(0, packet.V50))
		w.settle()
		if r, asked := w.host.pending[name]; asked {
			w.broker.Loops()[r.Shard].Authenticated(broker.AuthResult{Token: r.Token})
			w.settle()
		}
		if name == "sweeper" {
			for topic := range w.topics {
				c.write(packet.AppendPublish(nil, &packet.PublishHead{Flags: packet.PublishFlags(false, 0, true), Topic: []byte(topic)}, nil, packet.V50))
				w.settle()
			}
		}
		c.leave(c.peer.Close)
		w.settle()
		w.now = w.now.Add(time.Second)
		w.settle()
	}
}
