//go:build linux

package lab

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestStrayFrames: frames that were mutated from real ones, of IPv4 and IPv6, arrive for a minute (three seconds in the short
// run) while clients exchange messages: with other flags, lengths, options, addresses, MAC addresses, VLAN tags, cut short or
// too long; half of them with right checksums. The broker lives, nothing panics, no client of its own loses anything or its
// connection, and all frames are where they belong afterwards.
func TestStrayFrames(t *testing.T) {
	s := newScene(t, 2)
	b := s.serve()
	real := s.record(func() {
		for i, host := range []string{s.Broker4, s.Broker6} {
			c := s.connect(host, fmt.Sprintf("recorded%d", i))
			c.subscribe("recorded", 0)
			c.publish("recorded", 0, []byte("hello"))
			c.receive()
			c.conn.Close()
		}
	})
	if len(real) < 10 {
		t.Fatalf("%d frames were recorded", len(real))
	}
	duration := 3 * time.Second
	if long() {
		duration = time.Minute
	}
	run := s.startBench(s.Broker4, "-n", "20", "-q", "1", "--rate", "1000", "--time", (duration + time.Second).String())
	eventually(t, "load", func() bool { return b.lane().established() >= 40 })
	seed := uint64(time.Now().UnixNano())
	sent := s.stray(real, duration, rand.New(rand.NewPCG(seed, 0)))
	t.Logf("seed %d: %d frames", seed, sent)
	run.clean()
	lane := b.lane()
	for _, name := range lane.verdicts() {
		t.Logf("%s %d", name, lane.verdict(name))
	}
	if n := lane.sum(func(q queueReport) uint64 { return q.TCP.Panics + q.TCP.Poisoned }); n > 0 {
		t.Errorf("%d panics", n)
	}
	s.connect(s.Broker4, "later").alive()
	s.connect(s.Broker6, "later6").alive()
	checkConservation(t, b.lane())
}

// stray sends mutations of frames for a while, some 20,000 a second.
func (s *scene) stray(real [][]byte, duration time.Duration, random *rand.Rand) (sent int) {
	p := openPort(s.t, s.Client, s.ClientIf, true)
	defer p.close()
	for end := time.Now().Add(duration); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		for range 40 {
			p.send(mutate(real[random.IntN(len(real))], random))
			sent++
		}
	}
	return sent
}

// mutate changes a frame in one to four places.
func mutate(frame []byte, random *rand.Rand) []byte {
	frame = append([]byte(nil), frame...)
	for range 1 + random.IntN(4) {
		at := random.IntN(len(frame))
		switch random.IntN(8) {
		case 0:
			frame[at] ^= 1 << random.IntN(8)
		case 1:
			frame[at] = byte(random.Uint32())
		case 2: // The Ethernet and IP headers, where lengths and offsets are.
			frame[random.IntN(min(len(frame), ethernetBytes+ipv6Bytes))] = byte(random.Uint32())
		case 3: // TCP's flags, offset and options.
			if tcp := tcpAt(frame); tcp > 0 {
				frame[tcp+12+random.IntN(min(len(frame)-tcp-12, 24))] = byte(random.Uint32())
			}
		case 4: // Sequence numbers and windows near the edges.
			if tcp := tcpAt(frame); tcp > 0 {
				binary.BigEndian.PutUint32(frame[tcp+4+4*random.IntN(3):], uint32(random.IntN(5))-2)
			}
		case 5:
			frame = frame[:max(1, at)]
		case 6:
			frame = append(frame, make([]byte, random.IntN(200))...)
		case 7:
			frame = append(append(append([]byte(nil), frame[:min(12, len(frame))]...), 0x81, 0, byte(random.IntN(16)), byte(random.Uint32())),
				frame[min(12, len(frame)):]...)
		}
	}
	if random.IntN(2) == 0 {
		seal(frame)
	}
	return frame
}
