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
)

// do carries one command out. A leading "+" leaves the broker unturned, so that it finds this command's bytes and the
// next one's at once.
func (w *world) do(text string) error {
	later := strings.HasPrefix(text, "+")
	c, err := parseCommand(strings.TrimPrefix(text, "+"))
	if err != nil {
		return err
	}
	if err := w.carryOut(c); err != nil {
		return err
	}
	if name := c.unused(); name != "" {
		return fmt.Errorf("%s has no option %s", c.verb, name)
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
func (w *world) carryOut(c *command) (err error) {
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
	w.speak(w.find(c.word(0)), c)
	return nil
}

// aboutBroker handles the commands that concern no client.
func (w *world) aboutBroker(c *command) bool {
	switch c.verb {
	case "tick":
		d, err := time.ParseDuration(c.word(0))
		if err != nil {
			panic(err.Error())
		}
		w.now = w.now.Add(d)
		w.say("-- " + c.word(0))
	case "answer":
		w.answer(c)
	case "busy":
		w.host.busy = c.word(0) == "on"
	case "log":
		w.host.log = c.word(0) == "on"
	case "split":
		w.split = int(c.wordNumber(0))
	case "counters":
		w.tellCounters(c.words)
	case "alive":
		w.tellAlive(c.words)
	case "payloads":
		w.tellPayloads(w.find(c.word(0)))
	case "shares":
		w.tellShares(c.words)
	case "inuse":
		w.say(fmt.Sprintf("%+v", w.broker.InUse()))
	case "stop":
		w.stop()
	default:
		return false
	}
	return true
}

// answer brings the authenticator's answer to the last request for a Client Identifier.
func (w *world) answer(c *command) {
	r, ok := w.host.pending[c.word(0)]
	if !ok {
		panic("nothing was asked for " + c.word(0))
	}
	result := broker.AuthResult{Token: r.Token, Reason: packet.Reason(c.number("reason", 0)), User: c.text("user", ""), Data: c.bytes("data")}
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

// stop is what the process does when it is told to end.
func (w *world) stop() {
	for i, l := range w.broker.Loops() {
		w.network.Planes()[i].StopAccepting()
		l.Do(func(s *broker.Shard) { s.Drain(1 << 20) })
	}
	w.stopped = true
}

// aboutConnection handles the commands that concern a connection but send nothing.
func (w *world) aboutConnection(c *command) bool {
	switch c.verb {
	case "dial", "connect":
		p := w.dial(c.word(0), c.version())
		if c.has("window") {
			p.peer.SetSendWindow(int(c.number("window", 0)))
		}
		return c.verb == "dial"
	case "close":
		p := w.find(c.word(0))
		p.leave(p.peer.Close)
	case "reset":
		p := w.find(c.word(0))
		p.leave(p.peer.Reset)
	case "end":
		_ = w.find(c.word(0)).peer.CloseWrite()
	case "window":
		w.find(c.word(0)).peer.SetSendWindow(int(c.wordNumber(1)))
	case "hold", "release":
		w.find(c.word(0)).held = c.verb == "hold"
	case "take":
		w.find(c.word(0)).read(int(c.wordNumber(1)))
	case "auto":
		w.find(c.word(0)).auto = len(c.words) < 2
	case "mute":
		w.find(c.word(0)).mute = true
	case "brief":
		w.find(c.word(0)).brief = len(c.words) < 2
	default:
		return false
	}
	return true
}

// speak sends what a client says.
func (w *world) speak(p *client, c *command) {
	v := p.version
	switch c.verb {
	case "connect":
		p.write(c.connect())
	case "publish":
		for i := range int(c.number("count", 1)) {
			p.write(c.publish(i, v))
			if pace := int(c.number("pace", 0)); pace > 0 && i%pace == 0 {
				w.settle()
			}
		}
	case "puback":
		p.write(c.ack(packet.PUBACK, v))
	case "pubrec":
		p.write(c.ack(packet.PUBREC, v))
	case "pubrel":
		p.write(c.ack(packet.PUBREL, v))
	case "pubcomp":
		p.write(c.ack(packet.PUBCOMP, v))
	case "subscribe":
		p.write(c.subscribe(v))
	case "unsubscribe":
		p.write(c.unsubscribe(v))
	case "pingreq":
		p.write(packet.AppendPingreq(nil))
	case "disconnect":
		p.write(c.disconnect(v))
	case "auth":
		p.write(c.auth())
	case "raw":
		b, err := bytesOf(strings.Join(c.words[1:], " "))
		if err != nil {
			panic(err.Error())
		}
		p.write(b)
	default:
		panic("unknown command " + c.verb)
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
		c.write((&command{words: []string{name}, options: map[string][]string{}, used: map[string]bool{}}).connect())
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
