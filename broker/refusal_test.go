package broker_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// badInput is a packet that a client sends, made wrong in many ways by refusals.
type badInput struct {
	name    string
	whole   []byte
	isFirst bool // of its connection
}

// goodPackets are one of each kind that a client of that version sends, with all there can be in it.
func goodPackets(v packet.Version) []badInput {
	users := packet.AppendUserProperty(nil, []byte("a"), []byte("b"))
	options := packet.Options{QoS: 1}
	will := packet.Will{Topic: []byte("w"), Payload: []byte("p"), QoS: 1, HasExpiry: true, Expiry: 9, DelayInterval: 1, Properties: packet.AppendContentType(nil, []byte("t"))}
	connect := &packet.Connect{Version: v, CleanStart: true, ClientID: []byte("bad"), HasUser: true, User: []byte("u"), HasPassword: true,
		Password: []byte("p"), HasWill: true, Will: will, RequestProblemInfo: true, ReceiveMaximum: 7, TopicAliasMaximum: 3, MaximumPacketSize: 5000, UserProperties: users}
	head := &packet.PublishHead{Flags: packet.PublishFlags(false, 1, true), Topic: []byte("t/u"), PacketID: 5, Alias: 1, HasExpiry: true, Expiry: 9,
		Forwarded: packet.AppendResponseTopic(packet.AppendPayloadFormat(nil), []byte("r"))}
	list := []badInput{
		{name: "CONNECT", whole: packet.AppendConnect(nil, connect), isFirst: true},
		{name: "PUBLISH", whole: packet.AppendPublish(nil, head, []byte("payload"), v)},
		{name: "SUBSCRIBE", whole: packet.AppendSubscribe(nil, &packet.Subscribe{PacketID: 1, SubscriptionID: 300, UserProperties: users},
			[]packet.Subscription{{Filter: []byte("a/+"), Options: options}, {Filter: []byte("$share/g/b"), Options: options}}, v)},
		{name: "UNSUBSCRIBE", whole: packet.AppendUnsubscribe(nil, &packet.Unsubscribe{PacketID: 1, UserProperties: users}, [][]byte{[]byte("a/+"), []byte("c")}, v)},
		{name: "PINGREQ", whole: packet.AppendPingreq(nil)},
		{name: "DISCONNECT", whole: packet.AppendDisconnect(nil, &packet.Disconnect{Reason: 0x04, ReasonString: []byte("x"), UserProperties: users}, v)},
	}
	for _, kind := range []packet.Kind{packet.PUBACK, packet.PUBREC, packet.PUBREL, packet.PUBCOMP} {
		list = append(list, badInput{name: kind.String(), whole: packet.AppendAckFull(nil, kind, &packet.Ack{PacketID: 5, ReasonString: []byte("x"), UserProperties: users}, v)})
	}
	if v == packet.V50 {
		list = append(list, badInput{name: "AUTH", whole: packet.AppendAuth(nil, &packet.Auth{Reason: packet.ReAuthenticate, AuthMethod: []byte("m"), UserProperties: users})})
	}
	return list
}

// spoilt is a packet in all the ways in which it is tried: cut short at each byte with a Remaining Length that fits, and with each
// byte replaced by others.
func (b badInput) spoilt() (list [][]byte) {
	list = append(list, b.whole)
	for n := range len(b.whole) - 2 {
		cut := bytes.Clone(b.whole[:2+n])
		cut[1] = byte(n)
		list = append(list, cut)
	}
	longer := append(bytes.Clone(b.whole), 0)
	longer[1]++
	list = append(list, longer)
	for i := range b.whole {
		for _, c := range []byte{b.whole[i] ^ 1, b.whole[i] ^ 4, b.whole[i] ^ 0x80, b.whole[i] + 1, 0, 0xFF, '+', '#', 0x20} {
			if i == 1 && c > b.whole[i] {
				continue // only waits for more
			}
			changed := bytes.Clone(b.whole)
			changed[i] = c
			list = append(list, changed)
		}
	}
	return list
}

// TestNobodyIsClosedWithoutAReason sends some thousand wrong packets. A 5.0 client whose connection ends hears the Reason Code
// before, and it is that which the codec gives if it is the codec that refuses [MQTT-4.13.1-1]; a 3.1.1 client hears nothing of
// the kind, for it has no such packet. A bystander notices nothing.
func TestNobodyIsClosedWithoutAReason(t *testing.T) {
	for _, v := range []packet.Version{packet.V311, packet.V50} {
		t.Run(v.String(), func(t *testing.T) {
			refused := 0
			for _, b := range goodPackets(v) {
				w := conformWorld(t, 1)
				z := w.dial("bystander", packet.V50)
				z.write(packet.AppendConnect(nil, &packet.Connect{Version: packet.V50, CleanStart: true, ClientID: []byte("bystander")}))
				w.settle()
				for _, wire := range b.spoilt() {
					if sendBad(t, w, b, v, wire) {
						refused++
					}
				}
				z.heard = nil
				z.write(packet.AppendPingreq(nil))
				w.settle()
				if got := fmt.Sprint(z.heard); got != "[PINGRESP]" {
					t.Errorf("%s: the bystander hears %s", b.name, got)
				}
				abandon(w)
			}
			t.Logf("%d packets were refused", refused)
			if refused < refusedMin {
				t.Errorf("%d packets were refused: they are not wrong enough", refused)
			}
		})
	}
}

// refusedMin is well below how many there are.
const refusedMin = 500

// sendBad says whether the packet was refused.
func sendBad(t *testing.T, w *world, b badInput, v packet.Version, wire []byte) bool {
	t.Helper()
	c := w.dial("bad", v)
	defer func() {
		c.leave(c.peer.Close)
		w.settle()
	}()
	if c.anyVersion = b.isFirst; !b.isFirst {
		c.write(packet.AppendConnect(nil, &packet.Connect{Version: v, CleanStart: true, ClientID: []byte("bad"), RequestProblemInfo: true}))
		w.settle()
		c.heard = nil
	}
	c.write(wire)
	w.settle()
	last := ""
	if len(c.heard) > 0 {
		last = c.heard[len(c.heard)-1]
	}
	if c.closed == "" || wire[0]>>4 == byte(packet.DISCONNECT) && !strings.HasPrefix(last, "DISCONNECT") && decodes(wire, v) == packet.Success {
		if r := decodes(wire, v); r != packet.Success && c.closed == "" {
			t.Errorf("%s % x: the codec says %s, and the connection is open: %q", b.name, wire, r, c.heard)
		}
		return false
	}
	checkReason(t, b, v, wire, last)
	return true
}

// checkReason looks at the last that a client hears whose connection has ended.
func checkReason(t *testing.T, b badInput, v packet.Version, wire []byte, last string) {
	t.Helper()
	says := "DISCONNECT 0x"
	if b.isFirst {
		says = "CONNACK 0x"
		var p packet.Connect
		h, _ := packet.ParseHeader(wire)
		if r := p.Decode(wire[min(2, len(wire)):min(2+h.Remaining, len(wire))]); p.Version != packet.V50 || r == packet.UnsupportedProtocolVersion || wire[0]>>4 != byte(packet.CONNECT) || wire[1]&0x80 != 0 {
			return // It is not a 5.0 client as far as anybody can tell.
		}
	}
	if v != packet.V50 {
		if strings.HasPrefix(last, "DISCONNECT") {
			t.Errorf("%s % x: a %s client hears %s", b.name, wire, v, last)
		}
		return
	}
	code, found := strings.CutPrefix(last, says)
	if !found || code < "8" {
		t.Errorf("%s % x: closed without a reason; the last is %q", b.name, wire, last)
		return
	}
	if r := decodes(wire, v); r != packet.Success && !strings.HasPrefix(code, fmt.Sprintf("%02x", uint8(r))) {
		t.Errorf("%s % x: the codec says %s, the client hears %s", b.name, wire, r, last)
	}
}

// decodes is what the codec says of a packet from a client that is whole, or seems to be.
func decodes(wire []byte, v packet.Version) packet.Reason {
	h, r := packet.ParseHeader(wire)
	if r != packet.Success || h.Size == 0 || h.Size+h.Remaining > len(wire) {
		return r
	}
	body := wire[h.Size : h.Size+h.Remaining]
	if r = packet.CheckFlags(h.Kind, h.Flags, v); r != packet.Success && h.Kind != packet.CONNECT {
		return r
	}
	switch h.Kind {
	case packet.CONNECT:
		return new(packet.Connect).Decode(body)
	case packet.PUBLISH:
		return new(packet.Publish).Decode(h.Flags, body, v)
	case packet.PUBACK, packet.PUBREC, packet.PUBREL, packet.PUBCOMP:
		return new(packet.Ack).Decode(h.Kind, body, v)
	case packet.SUBSCRIBE:
		return new(packet.Subscribe).Decode(body, v)
	case packet.UNSUBSCRIBE:
		return new(packet.Unsubscribe).Decode(body, v)
	case packet.DISCONNECT:
		return new(packet.Disconnect).Decode(body, v)
	case packet.AUTH:
		return new(packet.Auth).Decode(body)
	}
	return packet.Success
}
