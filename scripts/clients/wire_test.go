package clients

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

// wire is a bare 5.0 client: it sends and reads one packet at a time and acknowledges nothing by itself.
type wire struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
	raw  bytes.Buffer // the bytes of the packet read last
	last uint16       // Packet Identifier of the last SUBSCRIBE or PUBLISH
}

// dial opens a Network Connection and sends nothing.
func (b *broker) dial(t *testing.T) *wire {
	t.Helper()
	conn, err := net.DialTimeout("tcp", b.address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &wire{t: t, conn: conn, in: bufio.NewReader(conn)}
}

// connect opens a Session with Clean Start and whatever change adds to the CONNECT.
func (b *broker) connect(t *testing.T, clientID string, change func(*packets.Connect)) *wire {
	t.Helper()
	w, ack := b.tryConnect(t, clientID, change)
	if ack.ReasonCode != 0 {
		t.Fatalf("CONNACK %#x for %s", ack.ReasonCode, clientID)
	}
	return w
}

func (b *broker) tryConnect(t *testing.T, clientID string, change func(*packets.Connect)) (*wire, *packets.Connack) {
	t.Helper()
	w := b.dial(t)
	c := &packets.Connect{ProtocolName: "MQTT", ProtocolVersion: 5, ClientID: clientID, CleanStart: true, KeepAlive: 60,
		Properties: &packets.Properties{}}
	if change != nil {
		change(c)
	}
	w.send(c)
	return w, expect[*packets.Connack](w)
}

// resume says that a CONNECT goes on with the Session, which is kept for that many seconds.
func resume(expiry uint32) func(*packets.Connect) {
	return func(c *packets.Connect) { c.CleanStart, c.Properties.SessionExpiryInterval = false, &expiry }
}

func (w *wire) send(p packets.Packet) {
	w.t.Helper()
	if _, err := p.WriteTo(w.conn); err != nil {
		w.t.Fatalf("send %T: %v", p, err)
	}
}

func (w *wire) sendBytes(b ...byte) {
	w.t.Helper()
	if _, err := w.conn.Write(b); err != nil {
		w.t.Fatal(err)
	}
}

// read gives the next packet, or the error; a deadline that passes is os.ErrDeadlineExceeded.
func (w *wire) read(within time.Duration) (packets.Packet, error) {
	w.t.Helper()
	if err := w.conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	w.raw.Reset()
	p, err := packets.ReadPacket(io.TeeReader(w.in, &w.raw))
	if err != nil {
		return nil, err
	}
	return p.Content, nil
}

// expect reads the next packet, which must be of that kind.
func expect[P packets.Packet](w *wire) P {
	w.t.Helper()
	p, err := w.read(patience)
	want, ok := p.(P)
	if err != nil || !ok {
		w.t.Fatalf("got %v, %v, want a %T", p, err, want)
	}
	return want
}

// message reads the next packet, a PUBLISH with that payload, and leaves the acknowledgement to the caller.
func (w *wire) message(payload string) *packets.Publish {
	w.t.Helper()
	p := expect[*packets.Publish](w)
	if string(p.Payload) != payload {
		w.t.Fatalf("got %.80q on %s, want %.80q", p.Payload, p.Topic, payload)
	}
	return p
}

// silent makes sure that nothing comes for a while.
func (w *wire) silent() {
	w.t.Helper()
	if p, err := w.read(quiet); !errors.Is(err, os.ErrDeadlineExceeded) {
		w.t.Fatalf("got %v, %v, want silence", p, err)
	}
}

// settle acknowledges what comes again because the Session's last client was taken over before it had acknowledged it.
func (w *wire) settle() {
	w.t.Helper()
	for {
		p, err := w.read(quiet)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		again, ok := p.(*packets.Publish)
		if !ok || !again.Duplicate {
			w.t.Fatalf("got %v, %v, want silence or a message sent again", p, err)
		}
		w.ack(again)
	}
}

// ping makes sure that the connection lives and nothing else was on its way.
func (w *wire) ping() {
	w.t.Helper()
	w.send(&packets.Pingreq{})
	expect[*packets.Pingresp](w)
}

// ended reads DISCONNECT with that Reason Code and the end of the connection.
func (w *wire) ended(reason byte) {
	w.t.Helper()
	if d := expect[*packets.Disconnect](w); d.ReasonCode != reason {
		w.t.Fatalf("DISCONNECT %#x, want %#x", d.ReasonCode, reason)
	}
	w.closed()
}

func (w *wire) closed() {
	w.t.Helper()
	if p, err := w.read(patience); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		w.t.Fatalf("got %v, %v, want the end of the connection", p, err)
	}
}

// disconnect says DISCONNECT and waits until the broker has taken it.
func (w *wire) disconnect(reason byte) {
	w.t.Helper()
	w.send(&packets.Disconnect{ReasonCode: reason, Properties: &packets.Properties{}})
	w.closed()
}

// subscribe subscribes and gives the Reason Code.
func (w *wire) subscribe(o packets.SubOptions, id int) byte {
	w.t.Helper()
	w.sendSubscribe(o, id)
	ack := expect[*packets.Suback](w)
	if ack.PacketID != w.last || len(ack.Reasons) != 1 {
		w.t.Fatalf("SUBACK %v for Packet Identifier %d", ack, w.last)
	}
	return ack.Reasons[0]
}

func (w *wire) sendSubscribe(o packets.SubOptions, id int) {
	w.t.Helper()
	w.last++
	s := &packets.Subscribe{PacketID: w.last, Subscriptions: []packets.SubOptions{o}, Properties: &packets.Properties{}}
	if id != 0 {
		s.Properties.SubscriptionIdentifier = &id
	}
	w.send(s)
}

// publish sends a message at its QoS to the end of the exchange and gives the Reason Code.
func (w *wire) publish(p *packets.Publish) byte {
	w.t.Helper()
	if p.Properties == nil {
		p.Properties = &packets.Properties{}
	}
	if p.QoS == 0 {
		w.send(p)
		return 0
	}
	w.last++
	p.PacketID = w.last
	w.send(p)
	if p.QoS == 1 {
		return expect[*packets.Puback](w).ReasonCode
	}
	reason := expect[*packets.Pubrec](w).ReasonCode
	if reason < 0x80 {
		w.send(&packets.Pubrel{PacketID: p.PacketID, Properties: &packets.Properties{}})
		expect[*packets.Pubcomp](w)
	}
	return reason
}

// text is a message of a few words.
func text(topic, payload string, qos byte) *packets.Publish {
	return &packets.Publish{Topic: topic, Payload: []byte(payload), QoS: qos, Properties: &packets.Properties{}}
}

// ack sends PUBACK, or PUBREC and PUBCOMP with the PUBREL between them.
func (w *wire) ack(p *packets.Publish) {
	w.t.Helper()
	switch p.QoS {
	case 1:
		w.send(&packets.Puback{PacketID: p.PacketID, Properties: &packets.Properties{}})
	case 2:
		w.send(&packets.Pubrec{PacketID: p.PacketID, Properties: &packets.Properties{}})
		if r := expect[*packets.Pubrel](w); r.PacketID != p.PacketID || r.ReasonCode != 0 {
			w.t.Fatalf("%v for %d", r, p.PacketID)
		}
		w.send(&packets.Pubcomp{PacketID: p.PacketID, Properties: &packets.Properties{}})
	}
}

// numbered is the payload of message i.
func numbered(i int) string { return fmt.Sprintf("message %d", i) }

func ptr[T any](v T) *T { return &v }
