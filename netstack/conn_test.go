package netstack

import (
	"errors"
	"io"
	"testing"

	"github.com/ringmq/ringmq/broker"
)

// TestEndBehindData has a peer's bytes and its FIN in one batch; one Read takes all the bytes.
func TestEndBehindData(t *testing.T) {
	w := newWireV4(t, testConfig())
	conn := w.connect()
	w.send(tcpAck, ask())
	w.send(tcpAck|tcpFin, nil)
	w.until(func(e broker.Event) bool { return e.Kind&broker.Readable != 0 })
	if n, err := conn.Read(w.plane.Buffer()); n != len(ask()) || err != nil {
		t.Fatalf("Read = %d, %v", n, err)
	}
	w.until(func(e broker.Event) bool { return e.Kind&broker.Readable != 0 })
	if n, err := conn.Read(w.plane.Buffer()); n != 0 || !errors.Is(err, io.EOF) {
		t.Fatalf("Read = %d, %v; want the end", n, err)
	}
	conn.Close()
	w.untilHeard(func(h heard) bool { return h.flags&tcpFin != 0 })
	w.send(tcpAck, nil)
	for w.plane.Counters().Connections != 0 {
		w.turn()
	}
}
