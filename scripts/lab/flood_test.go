//go:build linux

package lab

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

const (
	floodPerSecond = 20000
	floodSources   = 10000
	floodBase      = 198<<24 | 19<<16 // 198.19.0.0, the first source
)

// flood sends SYNs as if from many sources for a while.
func (s *scene) flood(template []byte, duration time.Duration, random *rand.Rand) (sent int) {
	p := openPort(s.t, s.Client, s.ClientIf, true)
	defer p.close()
	syn, begin := append([]byte(nil), template...), time.Now()
	for elapsed := time.Duration(0); elapsed < duration; elapsed = time.Since(begin) {
		for ; sent < int(elapsed.Seconds()*floodPerSecond); sent++ {
			binary.BigEndian.PutUint32(syn[ethernetBytes+12:], floodBase+uint32(random.IntN(floodSources)))
			at := ethernetBytes + ipv4Bytes
			binary.BigEndian.PutUint16(syn[at:], uint16(1024+random.IntN(60000)))
			binary.BigEndian.PutUint32(syn[at+4:], random.Uint32())
			seal(syn)
			p.send(syn)
		}
		time.Sleep(time.Millisecond)
	}
	return sent
}

// TestFlood: 20,000 SYNs a second from 10,000 sources, none of which answers, come while clients exchange messages at half of
// what was measured. No connection breaks and nothing is lost; a new client gets in during the flood. The control is the same
// flood from sources on the deny list. In the long run, with 1,000 clients for ten seconds, their rate is kept and p99 is
// compared with the control.
func TestFlood(t *testing.T) {
	s := newScene(t, 2)
	b := s.serve()
	pairs, duration := 100, 3*time.Second
	if long() {
		pairs, duration = 500, 10*time.Second
	}
	frames := s.record(func() { s.connect(s.Broker4, "recorded").conn.Close() })
	capacity := s.startBench(s.Broker4, "-n", fmt.Sprint(pairs), "--window", "1", "--time", "2s").clean()
	half := capacity.PerSecond / 2
	under := func(name string) benchResult {
		run := s.startBench(s.Broker4, "-n", fmt.Sprint(pairs), "--rate", fmt.Sprintf("%.0f", half), "--time", (duration - time.Second).String())
		eventually(t, "load", func() bool { return b.lane().established() >= uint64(2*pairs) })
		done := make(chan int)
		go func() { done <- s.flood(frames[0], duration, rand.New(rand.NewPCG(1, 2))) }()
		time.Sleep(duration / 2)
		s.connect(s.Broker4, "newcomer-"+name).alive()
		sent := <-done
		r := run.clean()
		t.Logf("%s: %d SYNs; %.0f messages/s of %.0f, p50 %v, p99 %v", name, sent, r.PerSecond, half, r.Latency.P50, r.Latency.P99)
		return r
	}
	flooded := under("flooded")
	lane := b.lane()
	t.Logf("half open %d, accepted %d, resets %d", lane.sum(func(q queueReport) uint64 { return q.TCP.HalfOpen }),
		lane.sum(func(q queueReport) uint64 { return q.TCP.Accepted }), lane.resetsSent())
	b.must("xdp", "deny", "198.19.0.0/16")
	control := under("control")
	if b.lane().verdict("dropped_denied") < uint64(duration.Seconds()*floodPerSecond/4) {
		t.Error("the control's flood was not dropped")
	}
	t.Logf("p99 is %.2f of the control's", float64(flooded.Latency.P99)/float64(control.Latency.P99))
	checkConservation(t, b.lane())
	if long() && (flooded.PerSecond < 0.95*half || flooded.Latency.P99 > 2*control.Latency.P99) {
		t.Error("the flood is felt")
	}
}
