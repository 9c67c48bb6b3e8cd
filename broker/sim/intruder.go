package sim

import (
	"slices"

	"github.com/ringmq/ringmq/broker/packet"
)

// How an intruder, who has a client's Client Identifier and not its credentials, tries to get in.
const (
	asPassword  = iota // a wrong one
	asStranger         // a user that there is not
	asNobody           // nothing, where that does not do
	asMethod           // one that is not on offer
	asProof            // a wrong one
	asImpatient        // what is no AUTH, in an exchange [MQTT-3.1.2-30]
	asConfused         // AUTH that begins anew, in an exchange [MQTT-4.12.0-3]
	asMute             // an exchange that it does not go on with
	waysToIntrude
)

// intruder is a connection that must not be let in, whatever it says: the client whose Session it is after must not notice.
type intruder struct {
	link
	way   int
	cut   int // bytes until it is reset; negative: never
	ended bool
}

// intrude opens a connection that must be refused, and says more behind CONNECT, as if it were let in.
func (c *client) intrude(o *Op) {
	w := c.w
	if w.auth == everybodyIn {
		return
	}
	peer := w.open()
	if peer == nil {
		return
	}
	w.stats.Intruders++
	in := packet.Connect{Version: packet.V311, ClientID: []byte(c.id), CleanStart: o.is("clean"), RequestProblemInfo: true}
	if v := o.get("v", 4); v == 3 {
		in.Version = packet.V31
	} else if v == 5 {
		in.Version = packet.V50
		in.SessionExpiry = uint32(o.get("expiry", 0))
	}
	i := &intruder{way: o.get("as", 0) % waysToIntrude, cut: o.get("cut", 0) - 1}
	i.link = link{w: w, c: c, serial: w.stats.Connections, peer: peer, version: in.Version, dialled: w.moment(), pushed: w.moment()}
	w.rates.note(&i.link)
	i.sign(&in)
	will := i.message("w/"+c.id, 1)
	in.HasWill, in.Will = true, packet.Will{QoS: 1, Topic: []byte(will.topic), Payload: will.payload()}
	i.out = packet.AppendConnect(i.out, &in)
	if !i.exchange.method || i.way == asImpatient {
		i.goOn(o)
	}
	w.intruders = append(w.intruders, i)
}

// sign gives CONNECT credentials that are not the client's.
func (i *intruder) sign(in *packet.Connect) {
	if i.way >= asMethod && in.Version != packet.V50 || i.way == asNobody && i.w.auth == strangersIn {
		i.way = asPassword
	}
	user := userOf(i.c.index)
	switch i.way {
	case asNobody:
	case asPassword, asStranger:
		if i.way == asStranger {
			user = "nobody"
		}
		in.HasUser, in.User, in.HasPassword, in.Password = true, []byte(user), true, []byte("guess")
	default:
		name := methodName
		if i.exchange.method = i.way != asMethod; !i.exchange.method {
			name = "ANOTHER"
		}
		in.AuthMethod, in.HasAuthData, in.AuthData = []byte(name), true, []byte(user)
	}
}

// message is one that nobody must get.
func (i *intruder) message(topic string, qos uint8) *message {
	c := i.c
	c.seq[topic]++
	m := &message{from: c, topic: topic, seq: c.seq[topic], qos: qos, sent: i.w.moment(), tries: 1, refused: true}
	i.w.add(m)
	return m
}

// goOn says what a client may that has been let in: it subscribes, ends what there is, and publishes.
func (i *intruder) goOn(o *Op) {
	filter := [][]byte{[]byte("t/#")}
	i.out = packet.AppendSubscribe(i.out, &packet.Subscribe{PacketID: 1}, []packet.Subscription{{Filter: filter[0]}}, i.version)
	i.out = packet.AppendUnsubscribe(i.out, &packet.Unsubscribe{PacketID: 2}, filter, i.version)
	m := i.message("t/0", uint8(o.get("qos", 0)%3))
	h := &packet.PublishHead{Flags: packet.PublishFlags(false, m.qos, false), Topic: []byte(m.topic)}
	if m.qos > 0 {
		h.PacketID = 3
	}
	i.out = packet.AppendPublish(i.out, h, m.payload(), i.version)
}

// turnIntruders has intruders write and read, and forgets those that are gone.
func (w *world) turnIntruders(number uint64) {
	for _, i := range w.intruders {
		x := mix(number, uint64(i.serial))
		if w.calm || x&3 != 0 {
			i.push(x)
		}
		if !i.ended && (w.calm || x>>4&3 != 0) {
			i.listen()
		}
	}
	w.intruders = slices.DeleteFunc(w.intruders, func(i *intruder) bool { return i.ended })
}

func (i *intruder) push(x uint64) {
	b := i.out
	if !i.w.calm {
		b = b[:min(len(b), amount(x>>8))]
	}
	if i.cut >= 0 {
		b = b[:min(len(b), i.cut)]
		i.cut -= len(b)
	}
	n, err := i.peer.Write(b)
	i.out = i.out[n:]
	if i.cut == 0 || err != nil && !waits(err) {
		_ = i.peer.Reset()
		i.w.watch(&i.link, resetTurns)
		i.ended = true
	}
}

// listen reads what the broker says.
func (i *intruder) listen() {
	for !i.ended && i.w.violation == nil {
		n, err := i.peer.Read(i.w.scratch)
		i.in = append(i.in, i.w.scratch[:n]...)
		i.w.record(&i.link, n)
		i.packets()
		switch {
		case i.ended, waits(err):
			return
		case err != nil:
			i.over()
		}
	}
}

// packets takes the whole packets off what has come: a challenge, and a CONNACK that refuses, are all that an intruder may get.
func (i *intruder) packets() {
	for !i.ended {
		h, r := packet.ParseHeader(i.in)
		n := h.Size + h.Remaining
		if r != packet.Success || h.Size == 0 || len(i.in) < n {
			return
		}
		body := i.in[h.Size:n:n]
		i.in = i.in[n:]
		switch {
		case h.Kind == packet.CONNACK:
			r = i.onConnack(body)
		case h.Kind == packet.AUTH && i.exchange.method:
			r = i.onAuth(body)
		default:
			i.w.violate("not allowed", "an intruder in the name of c%d got %v", i.c.index, h.Kind)
		}
		if r != packet.Success {
			i.w.violate("garbage", "an intruder in the name of c%d: %v does not decode: %v: % x", i.c.index, h.Kind, r, body)
		}
	}
}

// onAuth answers a challenge as somebody does who does not know the password.
func (i *intruder) onAuth(body []byte) packet.Reason {
	var in packet.Auth
	if r := in.DecodeFromServer(body); r != packet.Success {
		return r
	}
	if in.Reason != packet.ContinueAuthentication {
		i.w.violate("let in", "an intruder in the name of c%d got AUTH with %v", i.c.index, in.Reason)
	}
	answer := packet.Auth{Reason: packet.ContinueAuthentication, AuthMethod: []byte(methodName), HasAuthData: true, AuthData: proof(in.AuthData, "another")}
	switch i.way {
	case asMute, asImpatient:
		return packet.Success
	case asConfused:
		answer.Reason = packet.ReAuthenticate
	}
	i.out = packet.AppendAuth(i.out, &answer)
	return packet.Success
}

// onConnack checks that the intruder is refused, and with which Reason Code.
func (i *intruder) onConnack(body []byte) packet.Reason {
	var in packet.Connack
	if r := in.Decode(body, i.version); r != packet.Success {
		return r
	}
	i.w.stats.Refused++
	i.noteAnswer(in.Reason)
	if r := in.Reason; r == packet.BadUserNameOrPassword || r == packet.NotAuthorized && i.way == asProof && !i.isLate() {
		i.w.unproved++
	}
	switch {
	case in.Reason == packet.Success:
		i.w.violate("let in", "an intruder (way %d, %v) in the name of c%d was let in", i.way, i.version, i.c.index)
	case !i.mayBeTold(in.Reason):
		i.w.violate("refused", "an intruder (way %d, %v) in the name of c%d was refused with %v", i.way, i.version, i.c.index, in.Reason)
	}
	_ = i.peer.Close()
	i.ended = true
	return packet.Success
}

// mayBeTold says whether the Reason Code is one that the broker may have: what the intruder did wrong, or what it does not get as far for.
func (i *intruder) mayBeTold(r packet.Reason) bool {
	if i.version != packet.V50 && r == packet.ServerUnavailable {
		return i.w.stopping || i.isLate() || i.isBusy() || i.isCrowdedOut() || i.mayBeRated()
	}
	switch r {
	case packet.ConnectionRateExceeded:
		return i.mayBeRated()
	case packet.ServerUnavailable:
		return i.w.stopping
	case packet.ServerBusy:
		return i.isLate() || i.isBusy()
	case packet.QuotaExceeded:
		return i.isCrowdedOut()
	case packet.NotAuthorized:
		return i.way == asNobody || i.way == asProof || i.exchange.method && i.isLate()
	case packet.BadUserNameOrPassword:
		return i.way == asPassword || i.way == asStranger
	case packet.BadAuthenticationMethod: // [MQTT-4.12.0-1]
		return i.way == asMethod
	case packet.ProtocolError:
		return i.way == asImpatient || i.way == asConfused
	}
	return false
}

// isCrowdedOut says whether the broker may have had no room for one more connection.
func (l *link) isCrowdedOut() bool { return l.inCrowd() || l.w.meets.memory }

// over is the end that the broker made without CONNACK: it had no CONNECT in time, or has lost patience with somebody who does not read.
func (i *intruder) over() {
	switch {
	case i.isLate(), i.w.stopping, i.w.now.Load()-i.dialled.ms >= graceMS:
	case i.w.meets.memory:
		i.starve()
	default:
		i.w.violate("reason", "an intruder (way %d, %v) in the name of c%d was told nothing", i.way, i.version, i.c.index)
	}
	_ = i.peer.Close()
	i.ended = true
}
