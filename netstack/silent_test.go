package netstack

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/ringmq/ringmq/broker"
)

// TestSilentRemoteIsMissed has a remote be silent for hours: it is asked whether it is there, and when it says nothing to that either, its
// connection ends. One that is heard is not asked.
func TestSilentRemoteIsMissed(t *testing.T) {
	w := newWireV4(t, testConfig())
	c := w.connect().(*conn)
	look := func() bool { // an hour later
		w.plane.probeAt = 0
		w.turn()
		return c.endpoint.SocketOptions().GetKeepAlive()
	}
	look()
	w.exchange(c, []byte("ask"), [][]byte{[]byte("answer")})
	w.send(tcpAck, nil)
	if look() {
		t.Fatal("a remote that was heard is asked whether it is there")
	}
	if !look() {
		t.Fatal("a remote that is silent is not asked whether it is there")
	}
	idle, interval := tcpip.KeepaliveIdleOption(time.Millisecond), tcpip.KeepaliveIntervalOption(time.Millisecond)
	for _, o := range []tcpip.SettableSocketOption{&idle, &interval} {
		if err := c.endpoint.SetSockOpt(o); err != nil {
			t.Fatal(err)
		}
	}
	e := w.until(func(e broker.Event) bool { return e.Kind&broker.Hangup != 0 })
	if !errors.Is(e.Err, syscall.ETIMEDOUT) {
		t.Errorf("the connection ends with %v", e.Err)
	}
}
