package netstack

import (
	"testing"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/netstack/cable"
)

// TestMTUFalls: when the interface's MTU becomes smaller than a connection's segments, what is written gets through in smaller ones, be
// it written before or after.
func TestMTUFalls(t *testing.T) {
	const mtu, bytes = 1280, 4000
	config := testConfig()
	for _, isV6 := range []bool{false, true} {
		for _, isUnderWay := range []bool{false, true} {
			c := cable.New(cable.Config{})
			w := newWire(t, c, mustOpen(t, config, c).Planes()[0], clientAddrPort(), dialled(0))
			if isV6 {
				w.local, w.remote = clientAddrPortV6(), dialled(1)
			}
			conn := w.connect()
			w.exchange(conn, ask(), answer())
			if isUnderWay {
				write(t, conn, bytes)
				w.plane.Flush()
				for w.end.Receive(receiveBatch, func([]byte) {}) > 0 { // The network has lost it.
				}
			}
			c.SetMTU(mtu)
			w.turn()
			if !isUnderWay {
				write(t, conn, bytes)
			}
			got := 0
			w.untilHeard(func(h heard) bool {
				if h.bytes > mtu || h.payload > 0 && h.payload < min(mtu/2, bytes-got) {
					t.Errorf("a packet of %d bytes", h.bytes)
				}
				if got += h.payload; h.payload > 0 {
					w.send(tcpAck, nil)
				}
				return got == bytes
			})
		}
	}
}

func write(t *testing.T, conn broker.Conn, bytes int) {
	t.Helper()
	if n, err := conn.Write([][]byte{make([]byte, bytes)}); n != bytes || err != nil {
		t.Fatalf("Write = %d, %v; want %d", n, err, bytes)
	}
}
