package broker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker/conform"
	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/script"
)

// change is what a mutant does to a packet.
type change func(kind packet.Kind, whole []byte) [][]byte

// mutant is a fault put between the conversations and the broker. Statements that it breaks must be found not to hold.
type mutant struct {
	name string
	// heard and said change a whole packet on its way; nil instead of a function leaves all as they are. They may return none,
	// or several.
	heard, said change
	// each makes heard and said anew for every connection, for those that remember something.
	each      func() (heard, said change)
	staysOpen bool // the end of a connection does not come through
	breaks    map[packet.Version][]string
}

func same(b []byte) [][]byte { return [][]byte{b} }

// only changes packets of one kind.
func only(kind packet.Kind, change func([]byte) [][]byte) func(packet.Kind, []byte) [][]byte {
	return func(k packet.Kind, whole []byte) [][]byte {
		if k != kind {
			return same(whole)
		}
		return change(whole)
	}
}

// drop loses every packet of a kind.
func drop(kind packet.Kind) func(packet.Kind, []byte) [][]byte {
	return only(kind, func([]byte) [][]byte { return nil })
}

// patch changes bytes in place.
func patch(kind packet.Kind, change func([]byte)) func(packet.Kind, []byte) [][]byte {
	return only(kind, func(b []byte) [][]byte {
		b = bytes.Clone(b)
		change(b)
		return same(b)
	})
}

func both(ids ...string) map[packet.Version][]string {
	return map[packet.Version][]string{packet.V311: ids, packet.V50: ids}
}

func in(v packet.Version, ids ...string) map[packet.Version][]string {
	return map[packet.Version][]string{v: ids}
}

func mutants() []mutant {
	const flags = 9 // of a CONNECT of 3.1.1 and 5.0 with a Remaining Length of one byte
	return []mutant{
		{name: "no PUBACK", heard: drop(packet.PUBACK), breaks: both("MQTT-3.3.4-1")},
		{name: "no PUBREC", heard: drop(packet.PUBREC), breaks: in(packet.V50, "MQTT-4.3.3-8")},
		{name: "no PUBCOMP", heard: drop(packet.PUBCOMP), breaks: in(packet.V50, "MQTT-4.3.3-11")},
		{name: "no PUBREL", heard: drop(packet.PUBREL), breaks: in(packet.V50, "MQTT-4.3.3-4", "MQTT-4.3.3-5")},
		{name: "no PINGRESP", heard: drop(packet.PINGRESP), breaks: both("MQTT-3.12.4-1")},
		{name: "PUBLISH twice", heard: only(packet.PUBLISH, func(b []byte) [][]byte { return [][]byte{b, b} }), breaks: in(packet.V50, "MQTT-4.3.1-1", "MQTT-4.3.3-10")},
		{name: "CONNACK twice", heard: only(packet.CONNACK, func(b []byte) [][]byte { return [][]byte{b, b} }), breaks: in(packet.V50, "MQTT-3.2.0-2")},
		{name: "DUP never", heard: patch(packet.PUBLISH, func(b []byte) { b[0] &^= 8 }), breaks: both("MQTT-3.3.1-1")},
		{name: "RETAIN never", heard: patch(packet.PUBLISH, func(b []byte) { b[0] &^= 1 }), breaks: map[packet.Version][]string{
			packet.V311: {"MQTT-3.3.1-8"}, packet.V50: {"MQTT-3.3.1-9", "MQTT-3.3.1-13"}}},
		{name: "RETAIN always", heard: patch(packet.PUBLISH, func(b []byte) { b[0] |= 1 }), breaks: map[packet.Version][]string{
			packet.V311: {"MQTT-3.3.1-9"}, packet.V50: {"MQTT-3.3.1-12"}}},
		{name: "Session Present never", heard: patch(packet.CONNACK, func(b []byte) { b[2] = 0 }), breaks: both("MQTT-3.2.2-3")},
		{name: "Session Present always", heard: patch(packet.CONNACK, func(b []byte) { b[2] = 1 }), breaks: both("MQTT-3.2.2-2", "MQTT-3.2.2-3")},
		{name: "SUBACK of another", heard: patch(packet.SUBACK, func(b []byte) { b[3] ^= 0x40 }), breaks: both("MQTT-3.8.4-2")},
		{name: "UNSUBACK of another", heard: patch(packet.UNSUBACK, func(b []byte) { b[3] ^= 0x40 }), breaks: map[packet.Version][]string{
			packet.V311: {"MQTT-3.10.4-4"}, packet.V50: {"MQTT-2.2.1-6"}}},
		{name: "SUBACK backwards", heard: patch(packet.SUBACK, func(b []byte) { slices.Reverse(b[len(b)-min(3, len(b)-4):]) }), breaks: in(packet.V311, "MQTT-3.9.3-1")},
		{name: "UNSUBACK backwards", heard: patch(packet.UNSUBACK, func(b []byte) { slices.Reverse(b[min(5, len(b)):]) }), breaks: in(packet.V50, "MQTT-3.11.3-1")},
		{name: "$SYS to those who ask for #", each: tellsSYS, breaks: both("MQTT-4.7.2-1")},
		{name: "what has expired is not sent again", heard: only(packet.PUBLISH, withoutExpired), breaks: in(packet.V50, "MQTT-4.3.3-7")},
		{name: "other text", heard: patch(packet.PUBLISH, func(b []byte) { copy(b, bytes.ReplaceAll(b, []byte("text"), []byte("TEXT"))) }), breaks: in(packet.V50, "MQTT-3.3.2-20")},
		{name: "connections stay open", staysOpen: true, breaks: both("MQTT-3.1.0-1", "MQTT-3.1.0-2")},
		{name: "DISCONNECT with a long Reason String", heard: only(packet.DISCONNECT, func(b []byte) [][]byte {
			return same(packet.AppendDisconnect(nil, &packet.Disconnect{Reason: packet.Reason(b[2]), ReasonString: bytes.Repeat([]byte("x"), 60)}, packet.V50))
		}), breaks: in(packet.V50, "MQTT-3.14.2-3", "MQTT-3.14.2-4")},
		{name: "no DISCONNECT arrives", said: drop(packet.DISCONNECT), breaks: both("MQTT-3.14.4-3")},
		{name: "no Keep Alive arrives", said: patch(packet.CONNECT, func(b []byte) { b[flags+1], b[flags+2] = 0, 0 }), breaks: map[packet.Version][]string{
			packet.V311: {"MQTT-3.1.2-24"}, packet.V50: {"MQTT-3.1.2-22"}}},
		{name: "always Clean Start", said: patch(packet.CONNECT, func(b []byte) { b[flags] |= 2 }), breaks: map[packet.Version][]string{
			packet.V311: {"MQTT-3.1.2-4", "MQTT-4.4.0-1"}, packet.V50: {"MQTT-3.1.2-5", "MQTT-4.4.0-1"}}},
		{name: "QoS 0 always", heard: patch(packet.PUBLISH, func(b []byte) { b[0] &^= 6 }), breaks: in(packet.V50, "MQTT-3.8.4-8")},
		{name: "no UNSUBSCRIBE arrives", said: drop(packet.UNSUBSCRIBE), breaks: both("MQTT-3.10.4-5")},
		{name: "nothing is retained", said: patch(packet.PUBLISH, func(b []byte) { b[0] &^= 1 }), breaks: both("MQTT-3.3.1-5")},
		{name: "Remaining Lengths longer than need be", heard: only(packet.PUBLISH, func(b []byte) [][]byte {
			if b[1]&0x80 != 0 {
				return same(b)
			}
			return same(append([]byte{b[0], b[1] | 0x80, 0}, b[2:]...))
		}), breaks: in(packet.V50, "MQTT-1.5.5-1")},
		{name: "QoS 2 in another order", each: swapped, breaks: both("MQTT-4.6.0-5", "MQTT-4.6.0-6")},
		{name: "Topic Aliases of another connection", heard: nameless, breaks: in(packet.V50, "MQTT-3.3.2-7")},
		{name: "lost while a subscription is replaced", each: lostBetween, breaks: map[packet.Version][]string{
			packet.V311: {"MQTT-3.8.4-3"}, packet.V50: {"MQTT-3.8.4-4"}}},
		{name: "a refused message holds its Packet Identifier", each: refusedHolds, breaks: in(packet.V50, "MQTT-4.3.3-9")},
		talkative(packet.PUBACK, "MQTT-3.1.2-29", "MQTT-3.4.2-2", "MQTT-3.4.2-3"),
		talkative(packet.PUBREC, "MQTT-3.1.2-29", "MQTT-3.5.2-2", "MQTT-3.5.2-3"),
		talkative(packet.PUBREL, "MQTT-3.1.2-29", "MQTT-3.6.2-2", "MQTT-3.6.2-3"),
		talkative(packet.PUBCOMP, "MQTT-3.1.2-29", "MQTT-3.7.2-2", "MQTT-3.7.2-3"),
		talkative(packet.SUBACK, "MQTT-3.1.2-29", "MQTT-3.9.2-1", "MQTT-3.9.2-2"),
		talkative(packet.UNSUBACK, "MQTT-3.1.2-29", "MQTT-3.11.2-1", "MQTT-3.11.2-2"),
	}
}

// swapped holds each second QoS 2 message back behind the next.
func swapped() (heard, said change) {
	var held []byte
	return only(packet.PUBLISH, func(b []byte) [][]byte {
		switch {
		case b[0]&4 == 0:
			return same(b)
		case held == nil:
			held = bytes.Clone(b)
			return nil
		}
		before := held
		held = nil
		return [][]byte{b, before}
	}), nil
}

// tellsSYS has a message of the broker's own for those who subscribe to "#".
func tellsSYS() (heard, said change) {
	asked := false
	heard = only(packet.SUBACK, func(b []byte) [][]byte {
		if !asked {
			return same(b)
		}
		asked = false
		return [][]byte{b, []byte("\x30\x07\x00\x04$SYS\x00")} // the last byte is its Property Length, or its payload
	})
	return heard, only(packet.SUBSCRIBE, func(b []byte) [][]byte {
		asked = bytes.Contains(b, []byte("\x00\x01#"))
		return same(b)
	})
}

// withoutExpired loses what is sent again when it has expired.
func withoutExpired(b []byte) [][]byte {
	h, _ := packet.ParseHeader(b)
	var p packet.Publish
	if p.DecodeFromServer(h.Flags, b[h.Size:], packet.V50); p.Dup && p.HasExpiry && p.Expiry == 0 {
		return nil
	}
	return same(b)
}

// nameless leaves the Topic Name out of what gives it a Topic Alias, as if that had been done before.
func nameless(kind packet.Kind, whole []byte) [][]byte {
	h, _ := packet.ParseHeader(whole)
	var p packet.Publish
	if kind != packet.PUBLISH || p.DecodeFromServer(h.Flags, whole[h.Size:], packet.V50) != packet.Success || p.Alias == 0 {
		return same(whole)
	}
	head := packet.PublishHead{Flags: h.Flags, PacketID: p.PacketID, Alias: p.Alias, Forwarded: packet.AppendForwarded(nil, p.Properties)}
	for ids := p.SubscriptionIDs(); ; {
		id, ok := ids.Next()
		if !ok {
			return same(packet.AppendPublish(nil, &head, p.Payload, packet.V50))
		}
		head.SubscriptionIDs = append(head.SubscriptionIDs, id)
	}
}

// lostBetween loses the message behind a second SUBSCRIBE.
func lostBetween() (heard, said change) {
	subscribed := 0
	heard = only(packet.PUBLISH, func(b []byte) [][]byte {
		if subscribed > 1 && b[0]&1 == 0 {
			subscribed = 1
			return nil
		}
		return same(b)
	})
	return heard, only(packet.SUBSCRIBE, func(b []byte) [][]byte {
		subscribed++
		return same(b)
	})
}

// refusedHolds takes a PUBLISH with the Packet Identifier of one that PUBREC has refused for that one: its message goes to nobody.
func refusedHolds() (heard, said change) {
	var refused []byte
	heard = only(packet.PUBREC, func(b []byte) [][]byte {
		if len(b) > 4 && b[4] >= 0x80 {
			refused = bytes.Clone(b[2:4])
		}
		return same(b)
	})
	return heard, only(packet.PUBLISH, func(b []byte) [][]byte {
		h, _ := packet.ParseHeader(b)
		if at := h.Size + 2 + int(b[h.Size])<<8 + int(b[h.Size+1]); refused != nil && bytes.Equal(b[at:at+2], refused) {
			b = bytes.Clone(b)
			b[at-1] = '-' // the end of the Topic Name
		}
		return same(b)
	})
}

// talkative says more in packets of a kind than a small Maximum Packet Size allows, and to clients that want to hear nothing of the kind.
func talkative(kind packet.Kind, breaks ...string) mutant {
	return mutant{name: kind.String() + " with a Reason String and User Properties", breaks: in(packet.V50, breaks...), heard: only(kind, func(b []byte) [][]byte {
		text, users := bytes.Repeat([]byte("x"), 60), packet.AppendUserProperty(nil, []byte("a"), []byte("b"))
		id := uint16(b[2])<<8 | uint16(b[3])
		switch kind { // Property Lengths are 0, and stand before the codes.
		case packet.SUBACK:
			return same(packet.AppendSubackFull(nil, &packet.Suback{PacketID: id, Codes: b[5:], ReasonString: text, UserProperties: users}, packet.V50))
		case packet.UNSUBACK:
			return same(packet.AppendUnsubackFull(nil, &packet.Unsuback{PacketID: id, Codes: b[5:], ReasonString: text, UserProperties: users}, packet.V50))
		}
		return same(packet.AppendAckFull(nil, kind, &packet.Ack{PacketID: id, ReasonString: text, UserProperties: users}, packet.V50))
	})}
}

// mutantTarget puts a mutant before every connection but the first, the bystander's.
type mutantTarget struct {
	conform.Target
	mutant mutant
	dialed *int
}

func (t mutantTarget) Dial(ctx context.Context) (conform.Conn, error) {
	c, err := t.Target.Dial(ctx)
	if *t.dialed++; *t.dialed == 1 || err != nil {
		return c, err
	}
	m := t.mutant
	if m.each != nil {
		m.heard, m.said = m.each()
	}
	return &mutantConn{Conn: c, mutant: m}, nil
}

type mutantConn struct {
	conform.Conn
	mutant      mutant
	in, changed []byte // read: not yet whole packets, and what the reader has not had
}

func (c *mutantConn) Read(b []byte, wait time.Duration) (int, error) {
	if len(c.changed) == 0 {
		n, err := c.Conn.Read(b, wait)
		var whole []byte
		whole, c.in = through(c.mutant.heard, append(c.in, b[:n]...))
		c.changed = append(c.changed, whole...)
		if errors.Is(err, io.EOF) && c.mutant.staysOpen {
			err = os.ErrDeadlineExceeded
		}
		if err != nil && len(c.changed) == 0 {
			return 0, err
		}
	}
	if len(c.changed) == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(b, c.changed)
	c.changed = c.changed[n:]
	return n, nil
}

func (c *mutantConn) Write(b []byte) error {
	whole, rest := through(c.mutant.said, b)
	return c.Conn.Write(append(whole, rest...))
}

// through sends whole packets through a change and gives back what is left over.
func through(change change, b []byte) (whole, rest []byte) {
	for len(b) > 0 {
		h, r := packet.ParseHeader(b)
		n := h.Size + h.Remaining
		if r != packet.Success || h.Size == 0 || n > len(b) {
			break
		}
		if change == nil {
			whole = append(whole, b[:n]...)
		} else {
			for _, changed := range change(h.Kind, b[:n]) {
				whole = append(whole, changed...)
			}
		}
		b = b[n:]
	}
	return whole, b
}

// TestConformFindsFaults: each mutant fails the statements that it breaks.
func TestConformFindsFaults(t *testing.T) {
	checks, err := conform.Checks()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants() {
		t.Run(m.name, func(t *testing.T) {
			for v, ids := range m.breaks {
				for _, id := range ids {
					if !failsSomewhere(t, checks, v, id, m) {
						t.Errorf("%s %s holds all the same", v, id)
					}
				}
			}
		})
	}
}

// failsSomewhere plays the conversations about a statement until one fails.
func failsSomewhere(t *testing.T, checks []conform.Check, v packet.Version, id string, m mutant) bool {
	for i, check := range checks {
		if check.Version != v || !slices.Contains(check.Statements, id) {
			continue
		}
		w := newWorld(t, 1, script.New("options"))
		r := conform.Play(context.Background(), mutantTarget{memoryTarget{w}, m, new(int)}, check, i, quickly())
		abandon(w)
		if r.Outcome == conform.Fails {
			return true
		}
	}
	return false
}

// abandon ends a world whose clients may have left Sessions and Retained Messages behind.
func abandon(w *world) {
	w.stopped = true
	w.broker.Release()
}

// yes is a broker that agrees to everything: it acknowledges all it gets, delivers nothing, and closes no connection.
type yes struct{}

func (yes) Dial(context.Context) (conform.Conn, error) { return &yesConn{}, nil }
func (yes) Pass(context.Context, time.Duration) error  { return nil }
func (c *yesConn) Close() error                        { return nil }
func (c *yesConn) Reset() error                        { return nil }

type yesConn struct {
	in, out []byte
	version packet.Version
}

func (c *yesConn) Read(b []byte, _ time.Duration) (int, error) {
	if len(c.out) == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(b, c.out)
	c.out = c.out[n:]
	return n, nil
}

func (c *yesConn) Write(b []byte) error {
	c.in = append(c.in, b...)
	for len(c.in) > 0 {
		h, r := packet.ParseHeader(c.in)
		if r != packet.Success {
			c.in = nil
		}
		if h.Size == 0 || len(c.in) < h.Size+h.Remaining {
			return nil
		}
		c.answer(h, c.in[h.Size:h.Size+h.Remaining])
		c.in = c.in[h.Size+h.Remaining:]
	}
	return nil
}

func (c *yesConn) answer(h packet.Header, body []byte) {
	switch h.Kind {
	case packet.CONNECT:
		var p packet.Connect
		_ = p.Decode(body)
		c.version = max(p.Version, packet.V311)
		c.out = packet.AppendConnack(c.out, &packet.Connack{TopicAliasMaximum: 5}, c.version)
	case packet.PUBLISH:
		var p packet.Publish
		_ = p.Decode(h.Flags, body, c.version)
		if p.QoS == 1 || p.QoS == 2 {
			kind := [...]packet.Kind{1: packet.PUBACK, 2: packet.PUBREC}[p.QoS]
			c.out = packet.AppendAck(c.out, kind, max(p.PacketID, 1), packet.Success, c.version)
		}
	case packet.PUBREL:
		c.out = packet.AppendAck(c.out, packet.PUBCOMP, uint16(body[0])<<8|uint16(body[1]), packet.Success, c.version)
	case packet.SUBSCRIBE:
		var p packet.Subscribe
		_ = p.Decode(body, c.version)
		c.out = packet.AppendSuback(c.out, max(p.PacketID, 1), make([]packet.Reason, max(p.Count, 1)), c.version)
	case packet.UNSUBSCRIBE:
		var p packet.Unsubscribe
		_ = p.Decode(body, c.version)
		c.out = packet.AppendUnsuback(c.out, max(p.PacketID, 1), make([]packet.Reason, max(p.Count, 1)), c.version)
	case packet.PINGREQ:
		c.out = packet.AppendPingresp(c.out)
	}
}

// quickly gives up at once: nothing here comes later.
func quickly() conform.Options {
	o := strictly()
	o.Timeout = 50 * time.Millisecond
	return o
}

// agreeable are the conversations in which a server does all it must by agreeing.
var agreeable = [...]string{
	"connect/Client Identifiers of 1 to 23 letters and digits 3.1.1",
	"connect/Client Identifiers of 1 to 23 letters and digits 5.0",
	"connect/an empty Client Identifier is replaced by one of its own 3.1.1",
	"connect/no Response Information unless it is asked for 5.0",
	"connect/CONNACK is like this 3.1.1",
	"connect/CONNACK is like this 5.0",
	"connect/a Keep Alive whose one and a half times does not fit 16 bits 3.1.1",
	"connect/a Keep Alive whose one and a half times does not fit 16 bits 5.0",
	"flow/the server's Receive Maximum 5.0",
	"flow/Reason Strings and User Properties never exceed it 5.0",
	"malformed/in pieces 3.1.1",
	"malformed/in pieces 5.0",
	"publish/a publication that is not authorised 3.1.1",
	"qos/Packet Identifiers that mean nothing 3.1.1",
	"qos/Packet Identifiers that mean nothing 5.0",
}

// leftOpen is the conversation about a broker that refuses what this one takes.
const leftOpen = "qos/after a PUBREC that refuses the Packet Identifier is free"

// TestConformNeedsMoreThanAgreement: a broker that says yes to everything fails all conversations but a few.
func TestConformNeedsMoreThanAgreement(t *testing.T) {
	checks, err := conform.Checks()
	if err != nil {
		t.Fatal(err)
	}
	for i, check := range checks {
		r := conform.Play(context.Background(), yes{}, check, i, quickly())
		name := fmt.Sprint(check.Name, " ", check.Version)
		if left := r.Outcome == conform.Skipped; left != (check.Name == leftOpen) {
			t.Errorf("%s: %s: %s", name, r.Outcome, r.Problem)
		}
		if held, may := r.Outcome == conform.Holds, slices.Contains(agreeable[:], name); held != may {
			t.Errorf("%s: %s: %s", name, r.Outcome, r.Problem)
		}
	}
}
