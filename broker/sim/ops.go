package sim

import (
	"slices"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/packet"
)

// verbs are what Ops do; do has a case for each.
var verbs = [...]string{"world", "turn", "pass", "connect", "close", "reset", "half", "doom", "bye", "sub", "unsub", "pub", "ping",
	"slow", "window", "hold", "release", "deny", "bad", "disk", "crash", "stop", "stall", "intrude", "renew"}

// do does what an Op says, as far as it makes sense.
func (w *world) do(o *Op) {
	switch o.Verb {
	case "turn":
		w.turn(o.get("n", 0))
		return
	case "pass":
		w.finishWork()
		w.pass(int64(o.get("ms", 0)))
		return
	case "disk":
		w.setDisk(o)
		return
	case "crash":
		w.crash(o)
		return
	case "stop":
		w.stop(o)
		return
	case "stall":
		w.stalled[o.get("shard", 0)%len(w.turns)] = o.get("turns", 0)
		return
	}
	if o.Client < 0 {
		return
	}
	c := w.client(o.Client)
	switch o.Verb {
	case "connect":
		c.connect(o)
		return
	case "intrude":
		c.intrude(o)
		return
	}
	if c.link == nil {
		return
	}
	c.do(o)
}

// do is world.do for what a connected client does.
func (c *client) do(o *Op) {
	l := c.link
	switch o.Verb {
	case "close":
		c.cut(false)
	case "reset":
		c.cut(true)
	case "half":
		l.halved = true
		_ = l.peer.CloseWrite()
	case "doom":
		l.doomed = o.get("bytes", 0)
	case "bye":
		c.bye(o)
	case "sub":
		c.subscribe(o)
	case "unsub":
		c.unsubscribe(o.Name)
	case "pub":
		for range max(1, min(o.get("count", 1), 2000)) {
			c.publish(o)
		}
	case "ping":
		if l.open() {
			l.pings++
			l.out = packet.AppendPingreq(l.out)
		}
	case "slow":
		c.slow = o.get("turns", 0)
	case "window":
		l.peer.SetSendWindow(o.get("bytes", 0))
	case "hold":
		c.hold = true
	case "release":
		c.release()
	case "deny":
		c.deny = true
	case "renew":
		c.renew(o)
	case "bad":
		c.misbehave(o.get("n", 0))
	}
}

// finishTurnsMax is how many turns finishWork waits.
const finishTurnsMax = 400

// finishWork has turns until no shard has left anything for the next one, where input yields: what a connection had said before it ended is
// handled at once then, and not minutes later.
func (w *world) finishWork() {
	for turns := 0; turns < finishTurnsMax && w.limits.InputWork < workMany && w.isBusy(); turns++ {
		w.turn(0)
	}
}

// isBusy says whether a shard has left something for its next turn. Shards that have threads of their own go on by themselves.
func (w *world) isBusy() bool {
	return !w.options.Threaded && slices.ContainsFunc(w.broker.Loops(), (*broker.Loop).IsBusy)
}

// pass moves the clock.
func (w *world) pass(ms int64) {
	w.noteExcuses() // of what the last turn has brought: the broker's patience may run out with this jump
	w.now.Add(ms)
	if ms >= 1000 {
		w.jumped, w.looked = w.step, slices.Max(w.turns)
	}
}

func (c *client) connect(o *Op) {
	in := packet.Connect{Version: packet.V311, CleanStart: o.is("clean"), KeepAlive: uint16(o.get("keep", 0)), RequestProblemInfo: true}
	switch o.get("v", 4) {
	case 3:
		in.Version = packet.V31
	case 5:
		in.Version = packet.V50
		in.SessionExpiry, in.ReceiveMaximum = uint32(o.get("expiry", 0)), uint16(o.get("recv", 0))
		in.TopicAliasMaximum, in.MaximumPacketSize = uint16(o.get("alias", 0)), uint32(o.get("packet", 0))
	}
	c.sign(&in, o.get("auth", byNothing))
	c.dial(&in, c.newWill(o, &in))
}

// bye says DISCONNECT.
func (c *client) bye(o *Op) {
	l := c.link
	if !l.open() {
		return
	}
	out := packet.Disconnect{}
	if l.version == packet.V50 {
		if o.is("will") {
			out.Reason, l.keepWill = packet.DisconnectWithWillMessage, true
		}
		if e := o.get("expiry", 0) - 1; e >= 0 && l.expiry > 0 {
			out.HasSessionExpiry, out.SessionExpiry = true, uint32(e)
			ms := int64(e) * 1000
			if most := c.w.limits.MaxSessionExpiry.Milliseconds(); most > 0 {
				ms = min(ms, most)
			}
			c.session.expiryMin, c.session.expiryMax = min(c.session.expiryMin, ms), max(c.session.expiryMax, ms)
		}
	}
	l.out = packet.AppendDisconnect(l.out, &out, l.version)
	l.leaving = true
}

// misbehave sends something for which the broker must end the connection.
func (c *client) misbehave(n int) {
	l := c.link
	if !l.open() {
		return
	}
	bad := [...]string{
		"\x30\xff\xff\xff\xff\x01",                     // Remaining Length of five bytes [MQTT-1.5.5-1]
		"\x00\x00",                                     // reserved packet type
		"\x36\x05\x00\x01t\x00\x01",                    // QoS 3 [MQTT-3.3.1-4]
		"\x80\x06\x00\x01\x00\x01t\x00",                // SUBSCRIBE with wrong flags [MQTT-3.8.1-1]
		"\x32\x05\x00\x01t\x00\x00",                    // Packet Identifier 0 [MQTT-2.2.1-3]
		"\x30\x04\x00\x02t+",                           // wildcard in a Topic Name [MQTT-3.3.2-2]
		"\x20\x02\x00\x00",                             // CONNACK from a client
		"\x40\x01\x00",                                 // PUBACK cut short
		"\xc0\x01\x00",                                 // PINGREQ that is not empty
		"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00", // second CONNECT [MQTT-3.1.0-2]
		"\x30\x04\x00\x02\xc0\x80",                     // ill-formed UTF-8 [MQTT-1.5.4-1]
		"\x90\x03\x00\x01\x00",                         // SUBACK from a client
	}
	n %= len(bad)
	l.out = append(l.out, bad[n]...)
	l.goWrong(packet.MalformedPacket)
	switch n {
	case 4:
		l.badAs = append(l.badAs, packet.ProtocolError)
	case 5, 10:
		l.badAs = append(l.badAs, packet.TopicNameInvalid)
	case 6, 9, 11:
		l.badAs = []packet.Reason{packet.ProtocolError}
	}
}
