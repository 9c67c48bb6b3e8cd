package netstack

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ringmq/ringmq/netstack/cable"
)

// narrow is a device with few transmit frames, and none while it is shut.
type narrow struct {
	*cable.End
	isShut bool
}

func (d *narrow) Reserve() []byte {
	if d.isShut {
		return nil
	}
	return d.End.Reserve()
}

// newNarrow is a wire to a plane whose device can be shut.
func newNarrow(t *testing.T, config Config) (*wire, *narrow) {
	c := cable.New(cable.Config{})
	d := &narrow{End: c.Near()[0]}
	g, err := Open(config, []Device{d})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() }) // It has nothing to say.
	return newWire(t, c, g.Planes()[0], clientAddrPort(), dialled(0)), d
}

// TestOverflowWaits: what finds no transmit frame is sent when there is one, in order, without a retransmission.
func TestOverflowWaits(t *testing.T) {
	w, d := newNarrow(t, testConfig())
	conn := w.connect()
	d.isShut = true
	const bytes = 8000
	if n, err := conn.Write([][]byte{make([]byte, bytes)}); n != bytes || err != nil {
		t.Fatalf("Write = %d, %v", n, err)
	}
	w.plane.Flush()
	if got := w.listen(); len(got) != 0 {
		t.Fatalf("a shut device has sent %+v", got)
	}
	d.isShut = false
	next, sum := w.ack, 0
	for deadline := time.Now().Add(patience); sum < bytes && time.Now().Before(deadline); {
		if _, err := w.plane.Wait(5 * blockedPause); err != nil { // Nobody wakes it: it looks again by itself.
			t.Fatal(err)
		}
		for _, h := range w.listen() {
			if h.seq != next+uint32(sum) {
				t.Fatalf("segment %d comes where %d was expected", h.seq, next+uint32(sum))
			}
			sum += h.payload
		}
	}
	c := w.plane.Counters()
	if sum != bytes || c.Retransmits != 0 || c.OverflowQueued == 0 || c.OverflowDropped != 0 || c.OverflowHighTide < bytes {
		t.Errorf("%d bytes came; counters %+v", sum, c)
	}
}

// TestOverflowIsBounded: beyond the bound frames are dropped and counted, and TCP repairs it.
func TestOverflowIsBounded(t *testing.T) {
	config := testConfig()
	config.OverflowBytes = 4000
	config.TCP.MinRTO = 5 * time.Millisecond
	w, d := newNarrow(t, config)
	conn := w.connect()
	d.isShut = true
	if _, err := conn.Write([][]byte{make([]byte, 10_000)}); err != nil {
		t.Fatal(err)
	}
	w.plane.Flush()
	if c := w.plane.Counters(); c.OverflowDropped == 0 || c.OverflowHighTide > 4000 {
		t.Errorf("%d frames dropped, %d bytes waited", c.OverflowDropped, c.OverflowHighTide)
	}
	d.isShut = false
	start := w.ack
	for deadline := time.Now().Add(patience); w.ack != start+10_000; {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes have come", w.ack-start)
		}
		w.turn()
		w.plane.Flush()
		for _, h := range w.listen() {
			if h.payload > 0 {
				w.put(w.frame(tcpAck, nil))
			}
		}
	}
}

// TestOverflowRing puts frames of all lengths in and takes them out, against a slice.
func TestOverflowRing(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, seed))
	var tide counter
	q := overflow{max: 5000, highTide: &tide}
	var want [][]byte
	for i := range uint32(100_000) {
		if room := q.reserve(4 + random.IntN(1600)); room != nil && random.IntN(3) > 0 {
			n := 4 + random.IntN(len(room)-3)
			frame := bytes.Repeat([]byte{byte(i)}, n)
			binary.BigEndian.PutUint32(frame, i)
			copy(room, frame)
			q.commit(n)
			want = append(want, frame)
		} else if room == nil && len(want) == 0 {
			t.Fatalf("step %d: an empty queue has no room", i)
		}
		for len(want) > 0 && random.IntN(2) == 0 {
			if !bytes.Equal(q.first(), want[0]) {
				t.Fatalf("step %d: another frame comes out than went in", i)
			}
			q.drop()
			want = want[1:]
		}
		if q.isEmpty() != (len(want) == 0) {
			t.Fatalf("step %d: isEmpty = %v with %d frames", i, q.isEmpty(), len(want))
		}
	}
	if tide.Load() > 5000 {
		t.Errorf("%d bytes in a ring of 5000", tide.Load())
	}
}
