package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/ringmq/ringmq/perf/epoll"
)

// connectAs opens a connection whose CONNECT has that Client Identifier, and reads the CONNACK.
func connectAs(t *testing.T, r *Relay, version byte, clientID string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	body := []byte{0, 4, 'M', 'Q', 'T', 'T', version, 2, 0, 0}
	connack := []byte{0x20, 2, 0, 0}
	if version == 5 {
		body, connack = append(body, 0), []byte{0x20, 3, 0, 0, 0}
	}
	body = append(append(body, 0, byte(len(clientID))), clientID...)
	exchange(t, c, append([]byte{0x10, byte(len(body))}, body...), connack)
	return c
}

// exchange sends and expects exactly that answer.
func exchange(t *testing.T, c net.Conn, send, want []byte) {
	t.Helper()
	if _, err := c.Write(send); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("sent % x, got % x (%v), want % x", send, got, err, want)
	}
}

func TestConversation(t *testing.T) {
	r, err := New(Config{Listen: netip.MustParseAddrPort("127.0.0.1:0")})
	if errors.Is(err, epoll.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	subscriber := connectAs(t, r, 5, "lg00000000-s-3")
	publisher := connectAs(t, r, 4, "lg00000000-p-3")
	connectAs(t, r, 4, "somebody else")

	exchange(t, subscriber, []byte{0x82, 7, 0, 9, 0, 0, 1, 'a', 2}, []byte{0x90, 4, 0, 9, 0, 2})
	exchange(t, publisher, []byte{0xc0, 0}, []byte{0xd0, 0})
	message := []byte{0x34, 6, 0, 1, 'a', 0, 7, 'x'}
	for _, part := range [][]byte{message[:1], message[1:4]} { // in pieces
		if _, err := publisher.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	exchange(t, publisher, message[4:], []byte{0x50, 2, 0, 7})
	exchange(t, publisher, []byte{0x62, 2, 0, 7}, []byte{0x70, 2, 0, 7})
	exchange(t, subscriber, nil, message)
	exchange(t, subscriber, []byte{0x50, 2, 0, 7}, []byte{0x62, 2, 0, 7})

	if _, err := publisher.Write([]byte{0xe0, 0}); err != nil {
		t.Fatal(err)
	}
	if _, err := publisher.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after DISCONNECT: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// FuzzPackets: no bytes may make a relay panic.
func FuzzPackets(f *testing.F) {
	f.Add([]byte{0x10, 14, 0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 0, 0, 0, 1, 'a'})
	f.Add([]byte{0x34, 6, 0, 1, 'a', 0, 7, 'x', 0x30, 2, 0, 0})
	f.Add([]byte{0x10, 12, 0, 200, 'M', 'Q', 'T', 'T', 5, 2, 0, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, b []byte) {
		for _, fault := range []Fault{"", Drop, Double, Swap} {
			c := &conn{fd: -1, role: 'p'} // not a descriptor, so that nothing is closed
			r := &Relay{cfg: Config{Fault: fault, FaultEvery: 2}, subscribers: []*conn{{fd: -1}}}
			if used, _ := r.packets(c, b); used > len(b) {
				panic(used)
			}
		}
	})
}
