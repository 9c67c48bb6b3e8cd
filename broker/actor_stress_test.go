package broker_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/memnet"
	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/topic"
)

// sent is one message of a publisher.
type sent struct {
	from     string
	topic    string
	seq      int
	pid      uint16
	qos      uint8
	retain   bool
	released bool // PUBREC has come
	dup      bool
	payload  []byte
}

// got is one message that a client heard.
type got struct {
	from, topic string
	seq         int
	qos         uint8
	resent      bool // same Packet Identifier as one before: QoS 1 with DUP
}

// actor is one Client Identifier with the client's half of its Session.
type actor struct {
	*simulation
	id      string
	filters []packet.Subscription // it stays subscribed to
	churn   []string              // it subscribes to and unsubscribes from
	topics  []string              // it publishes to
	group   string
	loose   bool // a clean Session with a Will, which ends and begins

	peer    *memnet.Peer
	version packet.Version
	in, out []byte
	live    bool
	doomed  int // bytes until it resets; negative: never
	slow    int // steps in which it does not read
	suback  bool
	had     bool // was connected before
	leaving bool // said DISCONNECT
	over    bool // wants no connection any more
	clean   bool
	will    string
	aliases map[uint16]string

	flight []*sent
	next   map[string]int // by topic
	nextID uint16
	taken  map[uint16]bool // QoS 2 Packet Identifiers received
	log    []got

	onRetained func(got)
}

func (s *simulation) actor(id string) *actor {
	a := &actor{simulation: s, id: id, next: map[string]int{}, taken: map[uint16]bool{}, doomed: -1}
	s.actors = append(s.actors, a)
	return a
}

// cast makes the actors.
func (s *simulation) cast() {
	filter := func(f string, qos uint8) packet.Subscription {
		return packet.Subscription{Filter: []byte(f), Options: packet.Options{QoS: qos}}
	}
	for i, f := range [][]packet.Subscription{{filter("t/0", 2), filter("t/1", 1)}, {filter("t/#", 2), filter("r/#", 1), filter("w/#", 2)},
		{filter("+/2", 2)}, {filter("#", 2)}} {
		a := s.actor(fmt.Sprint("s", i))
		a.filters = f
		if i != 3 {
			a.churn = []string{"c/0", "c/1"}
		}
	}
	s.actors[2].churn = nil
	for i := range 3 {
		a := s.actor(fmt.Sprint("m", i))
		a.filters, a.group, a.churn = []packet.Subscription{filter("$share/g/t/+", 2)}, "g", []string{"c/+", "r/0"}
	}
	for i := range 3 {
		a := s.actor(fmt.Sprint("p", i))
		a.topics = []string{"t/0", "t/1", "t/2", "c/0", "c/1", fmt.Sprint("r/", i)}
		a.churn = []string{"t/0", "c/#"}
	}
	for i := range 3 {
		a := s.actor(fmt.Sprint("x", i))
		a.loose, a.churn = true, []string{"#", "t/0", "+/1", "$share/h/t/#", "$share/h/#", "$share/k/t/1", "c/+", "w/#"}
	}
}

// settled says that the first subscriptions are there.
func (a *actor) settled() bool { return a.loose || a.live && a.suback }

// idle says that nothing is under way from here.
func (a *actor) idle() bool {
	return a.loose && a.peer == nil || a.live && len(a.flight) == 0 && len(a.out) == 0
}

func (a *actor) step() {
	if a.peer == nil {
		if !a.over && (a.calm && !a.loose || !a.calm && a.IntN(5) == 0) {
			a.dial()
		}
		return
	}
	if !a.calm {
		a.mischief()
	} else if a.loose && a.IntN(3) == 0 {
		a.cut()
	}
	if a.peer == nil {
		return
	}
	if a.live && !a.calm && !a.leaving {
		a.play()
	}
	a.push()
	if a.slow > 0 && !a.calm {
		a.slow--
		return
	}
	a.pull()
}

// mischief ends the connection in one of many ways, or makes the client slow.
func (a *actor) mischief() {
	switch a.IntN(150) {
	case 0:
		a.cut()
	case 1:
		a.doomed = a.IntN(2000)
	case 2, 3:
		if len(a.actors) > 0 { // a connection of the same client takes over; the old one is forgotten where it is
			a.ghosts = append(a.ghosts, a.peer)
			a.forget()
			a.dial()
		}
	case 4:
		a.slow = a.IntN(100)
	case 5:
		if a.live && !a.leaving {
			a.leaving = true
			a.out = packet.AppendDisconnect(a.out, &packet.Disconnect{}, a.version)
			if a.will != "" {
				a.wills[a.will].due = false
			}
		}
	case 6:
		a.peer.SetSendWindow(a.IntN(300))
	case 7:
		a.peer.SetSendWindow(1 << 16)
	}
}

// cut ends the connection from this side.
func (a *actor) cut() {
	if a.IntN(2) == 0 {
		_ = a.peer.Close()
	} else {
		_ = a.peer.Reset()
	}
	a.forget()
}

// forget makes ready for another connection.
func (a *actor) forget() {
	a.peer, a.live, a.leaving, a.in, a.out, a.doomed, a.slow = nil, false, false, nil, nil, -1, 0
}

func (a *actor) dial() {
	p, err := a.network.Dial(0)
	if err != nil {
		a.tb.Fatal(err)
	}
	a.peer, a.version, a.aliases = p, []packet.Version{packet.V311, packet.V50}[a.IntN(2)], map[uint16]string{}
	if a.thread {
		_ = p.SetDeadline(time.Unix(1, 0))
	}
	in := packet.Connect{Version: a.version, ClientID: []byte(a.id), CleanStart: a.loose || a.clean, RequestProblemInfo: true}
	if a.version == packet.V50 {
		in.ReceiveMaximum, in.TopicAliasMaximum = uint16(a.IntN(30)), uint16(a.IntN(4))
		if !a.loose && !a.clean {
			in.SessionExpiry = 100_000
		}
	}
	if a.will = ""; a.loose && a.IntN(2) == 0 {
		a.serial++
		a.will = fmt.Sprint("will ", a.serial)
		w := &willLog{qos: uint8(a.IntN(3))}
		a.wills[a.will] = w
		in.HasWill, in.Will = true, packet.Will{QoS: w.qos, Topic: []byte("w/" + a.id), Payload: []byte(a.will)}
	}
	a.out = packet.AppendConnect(a.out, &in)
}

// push writes what there is to write, up to where the connection is doomed.
func (a *actor) push() {
	b := a.out
	if a.doomed >= 0 {
		b = b[:min(len(b), a.doomed)]
	}
	if len(b) > 0 {
		n, err := a.peer.Write(b)
		a.out = a.out[n:]
		if a.doomed >= 0 {
			a.doomed -= n
		}
		if err != nil && !waits(err) {
			a.forget()
			return
		}
	}
	if a.doomed == 0 {
		a.cut()
	}
}

func waits(err error) bool {
	return errors.Is(err, broker.ErrWouldBlock) || errors.Is(err, os.ErrDeadlineExceeded)
}

func (a *actor) pull() {
	if a.peer == nil {
		return
	}
	b := make([]byte, 4096)
	for range 16 {
		n, err := a.peer.Read(b)
		a.in = append(a.in, b[:n]...)
		a.heard += n
		a.hear()
		switch {
		case a.peer == nil || waits(err):
			return
		case err != nil:
			_ = a.peer.Close()
			a.forget()
			return
		}
	}
}

// play does what clients do.
func (a *actor) play() {
	if len(a.churn) > 0 && a.IntN(15) == 0 {
		f := a.churn[a.IntN(len(a.churn))]
		if a.IntN(2) == 0 {
			o := packet.Options{QoS: uint8(a.IntN(3))}
			a.out = packet.AppendSubscribe(a.out, &packet.Subscribe{PacketID: 9}, []packet.Subscription{{Filter: []byte(f), Options: o}}, a.version)
		} else {
			a.out = packet.AppendUnsubscribe(a.out, &packet.Unsubscribe{PacketID: 10}, [][]byte{[]byte(f)}, a.version)
		}
	}
	if len(a.topics) > 0 && len(a.flight) < 20 && len(a.out) < 20000 {
		for range a.IntN(4) {
			a.publish(a.topics[a.IntN(len(a.topics))])
		}
	}
}

func (a *actor) publish(name string) {
	a.next[name]++
	m := &sent{from: a.id, topic: name, seq: a.next[name], qos: uint8(a.IntN(3)), retain: name[0] == 'r'}
	if m.retain {
		m.qos = 1 + name[2]&1 // one for each topic: with several, what is sent again may replace what is younger
	}
	m.payload = a.content(m)
	if m.qos > 0 {
		a.nextID++
		for a.nextID == 0 || slices.ContainsFunc(a.flight, func(f *sent) bool { return f.pid == a.nextID }) {
			a.nextID++
		}
		m.pid = a.nextID
		a.flight = append(a.flight, m)
	}
	a.send(m)
}

// content is "publisher topic number QoS size" and then a pattern.
func (a *actor) content(m *sent) []byte {
	size := 0
	if a.IntN(3) == 0 {
		size = a.IntN(1 << (1 + a.IntN(14)))
	}
	b := fmt.Appendf(nil, "%s %s %d %d %d\n", m.from, m.topic, m.seq, m.qos, size)
	for i := range size {
		b = append(b, byte(m.seq+i*7+i>>8))
	}
	return b
}

func (a *actor) send(m *sent) {
	h := &packet.PublishHead{Flags: packet.PublishFlags(m.dup, m.qos, m.retain), Topic: []byte(m.topic), PacketID: m.pid}
	a.out = packet.AppendPublish(a.out, h, m.payload, a.version)
	m.dup = m.qos > 0
}

// hear takes the whole packets off what has come.
func (a *actor) hear() {
	for a.peer != nil {
		h, r := packet.ParseHeader(a.in)
		if r != packet.Success {
			a.fail("%s: garbage: %v", a.id, r)
			return
		}
		n := h.Size + h.Remaining
		if h.Size == 0 || len(a.in) < n {
			return
		}
		body := a.in[h.Size:n:n]
		a.in = a.in[n:]
		if r := a.on(h, body); r != packet.Success {
			a.fail("%s: %v does not decode: %v: % x", a.id, h.Kind, r, body[:min(len(body), 60)])
		}
	}
}

func (a *actor) on(h packet.Header, body []byte) packet.Reason {
	switch h.Kind {
	case packet.CONNACK:
		return a.onConnack(body)
	case packet.PUBLISH:
		return a.onPublish(h.Flags, body)
	case packet.PUBACK, packet.PUBREC, packet.PUBREL, packet.PUBCOMP:
		return a.onAck(h.Kind, body)
	case packet.SUBACK:
		var in packet.Suback
		if r := in.Decode(body, a.version); r != packet.Success {
			return r
		}
		a.suback = a.suback || in.PacketID == 8
	}
	return packet.Success
}

func (a *actor) onConnack(body []byte) packet.Reason {
	var in packet.Connack
	if r := in.Decode(body, a.version); r != packet.Success {
		return r
	}
	if in.Reason != packet.Success {
		_ = a.peer.Close()
		a.forget()
		return packet.Success
	}
	if want := a.had && !a.loose && !a.clean; in.SessionPresent != want {
		a.fail("%s: Session Present %v; want %v", a.id, in.SessionPresent, want)
	}
	a.live, a.had = true, true
	if !in.SessionPresent {
		clear(a.taken)
	}
	if a.will != "" {
		a.wills[a.will].due = true
	}
	if !a.suback && len(a.filters) > 0 {
		a.out = packet.AppendSubscribe(a.out, &packet.Subscribe{PacketID: 8}, a.filters, a.version)
	} else if len(a.filters) == 0 {
		a.suback = true
	}
	for _, m := range a.flight {
		if m.released {
			a.out = packet.AppendAck(a.out, packet.PUBREL, m.pid, packet.Success, a.version)
		} else {
			a.send(m)
		}
	}
	return packet.Success
}

func (a *actor) onAck(kind packet.Kind, body []byte) packet.Reason {
	var in packet.Ack
	if r := in.Decode(kind, body, a.version); r != packet.Success {
		return r
	}
	if kind == packet.PUBREL {
		delete(a.taken, in.PacketID)
		a.out = packet.AppendAck(a.out, packet.PUBCOMP, in.PacketID, packet.Success, a.version)
		return packet.Success
	}
	i := slices.IndexFunc(a.flight, func(m *sent) bool { return m.pid == in.PacketID })
	if i < 0 || in.Reason.Failed() && in.Reason != packet.PacketIdentifierNotFound {
		a.fail("%s: %v %d with %v for a message under way: %v", a.id, kind, in.PacketID, in.Reason, i >= 0)
		return packet.Success
	}
	m := a.flight[i]
	switch {
	case kind == packet.PUBREC && m.qos == 2:
		if !m.released {
			a.done(m)
		}
		m.released = true
		a.out = packet.AppendAck(a.out, packet.PUBREL, m.pid, packet.Success, a.version)
	case kind == packet.PUBACK && m.qos == 1:
		a.done(m)
		a.flight = slices.Delete(a.flight, i, i+1)
	case kind == packet.PUBCOMP && m.released:
		a.flight = slices.Delete(a.flight, i, i+1)
	default:
		a.fail("%s: %v for a message of QoS %d", a.id, kind, m.qos)
	}
	return packet.Success
}

func (a *actor) done(m *sent) {
	a.acked = append(a.acked, m)
	if m.retain {
		a.last[m.topic] = m
	}
}

func (a *actor) onPublish(flags uint8, body []byte) packet.Reason {
	var in packet.Publish
	if r := in.DecodeFromServer(flags, body, a.version); r != packet.Success {
		return r
	}
	name := string(in.Topic)
	if in.Alias != 0 {
		if name == "" {
			name = a.aliases[in.Alias]
		}
		a.aliases[in.Alias] = name
	}
	if !a.wants(name) {
		a.fail("%s got a message for %q, which it never asked for", a.id, name)
	}
	old := in.QoS == 2 && a.taken[in.PacketID]
	switch in.QoS {
	case 1:
		a.out = packet.AppendAck(a.out, packet.PUBACK, in.PacketID, packet.Success, a.version)
	case 2:
		if old && !in.Dup {
			a.fail("%s: Packet Identifier %d of QoS 2 used again without DUP and before PUBREL", a.id, in.PacketID)
		}
		a.taken[in.PacketID] = true
		a.out = packet.AppendAck(a.out, packet.PUBREC, in.PacketID, packet.Success, a.version)
	}
	if !old && !a.loose {
		a.note(name, &in)
	}
	return packet.Success
}

func (a *actor) wants(name string) bool {
	match := func(f string) bool {
		if _, rest, shared, _ := topic.ParseShared(f); shared {
			f = rest
		}
		return topic.Match(f, name)
	}
	return slices.ContainsFunc(a.churn, match) ||
		slices.ContainsFunc(a.filters, func(f packet.Subscription) bool { return match(string(f.Filter)) })
}

// note writes a message into the log, once its content is checked.
func (a *actor) note(name string, in *packet.Publish) {
	if bytes.HasPrefix(in.Payload, []byte("will ")) {
		a.log = append(a.log, got{from: string(in.Payload), topic: name, qos: in.QoS})
		return
	}
	if len(in.Payload) == 0 {
		return // a retained message is cleared
	}
	g := got{topic: name, resent: in.Dup}
	var size int
	var said string
	head, rest, _ := bytes.Cut(in.Payload, []byte("\n"))
	if _, err := fmt.Sscan(string(head), &g.from, &said, &g.seq, &g.qos, &size); err != nil || said != name || size != len(rest) {
		a.fail("%s got on %s what nobody sent: %q and %d bytes: %v", a.id, name, head, len(rest), err)
		return
	}
	for i, b := range rest {
		if b != byte(g.seq+i*7+i>>8) {
			a.fail("%s got %q with another byte at %d", a.id, head, i)
			return
		}
	}
	if in.Retain {
		if a.onRetained != nil {
			a.onRetained(g)
		}
		return // sent because of a new subscription: besides, and in any order
	}
	a.log = append(a.log, g)
}
