//go:build linux

package lab

import (
	"fmt"
	"testing"

	"github.com/eclipse/paho.golang/packets"
)

// TestPortsAgain: clients that come and go use their ports again while the broker's side of the former connection is in
// TIME-WAIT, on whichever of four queues that was. Nobody is reset, neither in the handshake nor afterwards.
func TestPortsAgain(t *testing.T) {
	s := newScene(t, 4)
	b := s.serve()
	if out, err := s.InClient("sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40099").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for i := range 1000 {
		host := s.Broker4
		if i%2 == 1 {
			host = s.Broker6
		}
		c, err := tryConnect(t, s.Client, host, fmt.Sprint(i))
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		if err := c.write(packets.NewControlPacket(packets.DISCONNECT)); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		_ = c.broken() // The broker closes first, and so keeps the TIME-WAIT.
		c.conn.Close()
	}
	lane := b.lane()
	if n := lane.resetsSent(); n > 0 {
		t.Errorf("%d resets were sent", n)
	}
	if n := lane.sum(func(q queueReport) uint64 { return q.TCP.TakenOver }); n == 0 {
		t.Error("no port was used again on another queue: this test needs more connections")
	}
}
