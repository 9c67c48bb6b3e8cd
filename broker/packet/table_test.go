package packet

import "testing"

// TestCodesOutsideTheirTable has each packet that a broker sends written with every code that a byte can be: what leaves is always one
// that its table has, and it is the code itself if the table has that [MQTT-3.2.2-8] [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1]
// [MQTT-3.7.2-1] [MQTT-3.9.3-2] [MQTT-3.11.3-2] [MQTT-3.14.2-1]. DISCONNECT has one more than table 3-10: 0x8C, of table 2-6.
func TestCodesOutsideTheirTable(t *testing.T) {
	for code := range 256 {
		var p Suback
		if r := p.Decode(AppendSuback(nil, 1, []Reason{Reason(code)}, V311)[2:], V311); r != Success {
			t.Errorf("SUBACK of 3.1.1 with %#x decodes as %s", code, r)
		}
	}
	for _, e := range codedPackets() {
		kept := 0
		for code := range 256 {
			wire := e.append(Reason(code))
			h, _ := ParseHeader(wire)
			var c codec
			if r := c.decode(h.Kind, h.Flags, wire[h.Size:], V50, true); r != Success {
				t.Errorf("%s with %#x is % x, and decodes as %s", h.Kind, code, wire, r)
			} else if sent := e.code(&c); sent == Reason(code) {
				kept++
			} else if !sent.Failed() {
				t.Errorf("%s with %#x leaves as %#x", h.Kind, code, uint8(sent))
			}
		}
		if kept != e.table {
			t.Errorf("%s leaves %d codes as they are: its table has %d", e.name, kept, e.table)
		}
	}
}

// codedPacket is a packet with a Reason Code, and how many its table has.
type codedPacket struct {
	name   string
	table  int
	append func(Reason) []byte
	code   func(*codec) Reason
}

func codedPackets() []codedPacket {
	list := []codedPacket{
		{"CONNACK", 22, func(r Reason) []byte { return AppendConnack(nil, &Connack{Reason: r}, V50) }, func(c *codec) Reason { return c.connack.Reason }},
		{"SUBACK", 12, func(r Reason) []byte { return AppendSuback(nil, 1, []Reason{r}, V50) }, func(c *codec) Reason { return c.suback.Code(0) }},
		{"UNSUBACK", 7, func(r Reason) []byte { return AppendUnsuback(nil, 1, []Reason{r}, V50) }, func(c *codec) Reason { return c.unsuback.Code(0) }},
		{"DISCONNECT", 29, func(r Reason) []byte { return AppendDisconnectFromServer(nil, &Disconnect{Reason: r}) }, func(c *codec) Reason { return c.disconnect.Reason }},
	}
	for kind, n := range map[Kind]int{PUBACK: 9, PUBREC: 9, PUBREL: 2, PUBCOMP: 2} {
		list = append(list, codedPacket{kind.String(), n, func(r Reason) []byte { return AppendAck(nil, kind, 1, r, V50) }, func(c *codec) Reason { return c.ack.Reason }})
	}
	return list
}
