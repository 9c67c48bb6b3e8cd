package memnet

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"testing"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/planetest"
)

func TestContract(t *testing.T) {
	configs := map[string]Config{
		"plain":          {Planes: 1, Listeners: 2},
		"three planes":   {Planes: 3, Listeners: 2},
		"narrow windows": {Planes: 2, Listeners: 1, SendWindowBytes: 100_000, ReceiveWindowBytes: 250_000},
	}
	for name, config := range configs {
		config.Threaded = true
		t.Run(name, func(t *testing.T) {
			planetest.Run(t, func(*testing.T) planetest.Harness { return harness(config) })
		})
	}
}

func harness(config Config) planetest.Harness {
	n := New(config)
	h := planetest.Harness{
		Listeners: config.Listeners,
		Dial: func(listener int) (planetest.Peer, error) {
			p, err := n.Dial(listener)
			if err != nil {
				return nil, err
			}
			return p, nil
		},
		Close: func() error {
			if open := n.Open(); open != 0 {
				return fmt.Errorf("%d connections are left open", open)
			}
			return nil
		},
	}
	for _, p := range n.Planes() {
		h.Planes = append(h.Planes, p)
	}
	return h
}

// step is Wait without its error.
func step(t *testing.T, p *Plane) []broker.Event {
	t.Helper()
	events, err := p.Wait(-1)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func TestSteppingNeverBlocks(t *testing.T) {
	n := New(Config{ReceiveWindowBytes: 4})
	p := n.Planes()[0]
	if events := step(t, p); len(events) != 0 {
		t.Fatalf("events of an empty network: %+v", events)
	}
	peer, err := n.Dial(0)
	if err != nil {
		t.Fatal(err)
	}
	if written, err := peer.Write([]byte("123456")); written != 4 || !errors.Is(err, broker.ErrWouldBlock) {
		t.Errorf("Write beyond the window = %d, %v", written, err)
	}
	if peer.Unread() != 4 {
		t.Errorf("Unread = %d; want 4", peer.Unread())
	}
	if got, err := peer.Read(make([]byte, 1)); got != 0 || !errors.Is(err, broker.ErrWouldBlock) {
		t.Errorf("Read of nothing = %d, %v", got, err)
	}
	if events := step(t, p); len(events) != 1 || events[0].Kind != broker.Accepted {
		t.Errorf("events = %+v; want Accepted", events)
	}
	if events := step(t, p); len(events) != 1 || events[0].Kind != broker.Readable {
		t.Errorf("events = %+v; want Readable", events)
	}
}

func TestSendWindow(t *testing.T) {
	n := New(Config{})
	p := n.Planes()[0]
	peer, err := n.Dial(0)
	if err != nil {
		t.Fatal(err)
	}
	conn := step(t, p)[0].Conn
	peer.SetSendWindow(3)
	if taken, err := conn.Write([][]byte{[]byte("12"), []byte("34")}); taken != 3 || err != nil {
		t.Errorf("Write into a window of 3 = %d, %v", taken, err)
	}
	if events := step(t, p); len(events) != 0 {
		t.Errorf("events of a full window: %+v", events)
	}
	if peer.Buffered() != 3 {
		t.Errorf("Buffered = %d; want 3", peer.Buffered())
	}
	if got, err := io.ReadFull(peer, make([]byte, 3)); got != 3 || err != nil {
		t.Errorf("the peer reads %d, %v", got, err)
	}
	if events := step(t, p); len(events) != 1 || events[0].Kind != broker.Writable {
		t.Errorf("events = %+v; want Writable", events)
	}
}

func TestFailAccept(t *testing.T) {
	n := New(Config{Listeners: 2})
	cause := errors.New("no descriptor left")
	n.FailAccept(0, 1, cause)
	events := step(t, n.Planes()[0])
	if len(events) != 1 || events[0].Kind != broker.AcceptFailed || events[0].Listener != 1 || events[0].Err != cause {
		t.Errorf("events = %+v; want AcceptFailed of listener 1", events)
	}
}

// TestSameSeedSameRun plays an echo with everything left to chance, twice with the same seed.
func TestSameSeedSameRun(t *testing.T) {
	first, second, other := play(t, 1), play(t, 1), play(t, 2)
	if !bytes.Equal(first, second) {
		t.Error("two runs of the same seed differ")
	}
	if bytes.Equal(first, other) {
		t.Error("runs of different seeds do not differ: chance decides nothing")
	}
}

// play returns a log of everything that the plane and the peers saw.
func play(t *testing.T, seed int64) []byte {
	random := rand.New(rand.NewSource(seed))
	n := New(Config{
		ReadSize:        func(most int) int { return 1 + random.Intn(most) },
		WriteSize:       func(most int) int { return random.Intn(most + 1) },
		Shuffle:         random.Shuffle,
		SendWindowBytes: 50,
	})
	p := n.Planes()[0]
	var log bytes.Buffer
	var peers []*Peer
	for i := range 10 {
		peer, err := n.Dial(0)
		if err != nil {
			t.Fatal(err)
		}
		peers = append(peers, peer)
		fmt.Fprintf(peer, "this is what peer %d has to say", i)
	}
	for range 50 {
		for _, e := range step(t, p) {
			fmt.Fprintf(&log, "%v %d %05b\n", e.Conn.RemoteAddr(), e.Token, e.Kind)
			if e.Kind&broker.Readable == 0 {
				continue
			}
			got, err := e.Conn.Read(p.Buffer())
			written, _ := e.Conn.Write([][]byte{p.Buffer()[:got]})
			fmt.Fprintf(&log, "%q %v %d\n", p.Buffer()[:got], err, written)
		}
		for _, peer := range peers {
			b := make([]byte, 20)
			got, err := peer.Read(b)
			fmt.Fprintf(&log, "%q %v\n", b[:got], err)
		}
	}
	return log.Bytes()
}
