//go:build linux

package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
)

const (
	floodPerSecond = 20000
	floodSources   = 10000
	overload       = 100000           // SYNs a second, more than this machine's stacks answer
	floodBase      = 198<<24 | 19<<16 // 198.19.0.0, the first source
	floodPrefix    = "198.19.0.0/16"
)

// flood sends SYNs as if from many sources for a while.
func (s *scene) flood(template []byte, duration time.Duration, random *rand.Rand) (sent int) {
	return s.floodAt(floodPerSecond, template, duration, random)
}

func (s *scene) floodAt(perSecond int, template []byte, duration time.Duration, random *rand.Rand) (sent int) {
	p := openPort(s.t, s.Client, s.ClientIf, true)
	defer p.close()
	syn, begin := append([]byte(nil), template...), time.Now()
	for elapsed := time.Duration(0); elapsed < duration; elapsed = time.Since(begin) {
		for ; sent < int(elapsed.Seconds()*float64(perSecond)); sent++ {
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

// newcomers are clients that connect one after the other while a flood goes on, and what became of them.
type newcomers struct {
	served, reset, late int
	worst               time.Duration
}

// newcomerMax is how long a client may take to get in before it counts as late: two SYNs sent again.
const newcomerMax = 4 * time.Second

// arrive lets clients connect, say CONNECT and go, until told to stop.
func (s *scene) arrive(stop <-chan struct{}) (n newcomers) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return n
		default:
		}
		begin := time.Now()
		c, err := tryConnect(s.t, s.Client, s.Broker4, fmt.Sprintf("newcomer%d", i))
		took := time.Since(begin)
		switch n.worst = max(n.worst, took); {
		case errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF):
			n.reset++
		case err != nil || took > newcomerMax:
			n.late++
		default:
			n.served++
		}
		if c != nil {
			_ = c.conn.SetLinger(0) // No TIME-WAIT of ours: its port comes back soon.
			_ = c.conn.Close()
		}
		time.Sleep(time.Millisecond)
	}
}

// TestFloodIsNoReset: a flood of SYNs that fills what all queues have for handshakes goes on, so that clients get in by SYN
// cookies, while their segments move between the queues with every retransmission. Clients get in all the time. In the long run
// not one of them is reset.
func TestOverloadingFlood(t *testing.T) {
	s := newScene(t, 4)
	b := s.serve()
	frames := s.record(func() { s.connect(s.Broker4, "recorded").conn.Close() })
	duration := 5 * time.Second
	if long() {
		duration = 20 * time.Second
	}
	stop, ended := make(chan struct{}), make(chan newcomers)
	const crowds = 4
	for range crowds {
		go func() { ended <- s.arrive(stop) }()
	}
	sent := s.floodAt(overload, frames[0], duration, rand.New(rand.NewPCG(3, 4)))
	close(stop)
	var all newcomers
	for range crowds {
		n := <-ended
		all.served, all.reset, all.late, all.worst = all.served+n.served, all.reset+n.reset, all.late+n.late, max(all.worst, n.worst)
	}
	lane := b.lane()
	cookies := func(f func(queueReport) uint64) uint64 { return lane.sum(f) }
	t.Logf("%d SYNs in %v; of the newcomers %d were served, %d reset, %d late, the slowest after %v; cookies: %d sent, %d returned, %d refused; %d frames handed over",
		sent, duration, all.served, all.reset, all.late, all.worst.Round(time.Millisecond), cookies(func(q queueReport) uint64 { return q.TCP.CookiesSent }),
		cookies(func(q queueReport) uint64 { return q.TCP.CookiesReturned }), cookies(func(q queueReport) uint64 { return q.TCP.CookiesRefused }),
		cookies(func(q queueReport) uint64 { return q.TCP.HandedOver }))
	if long() && all.reset > 0 || all.served == 0 {
		t.Errorf("%d new clients were reset, %d served", all.reset, all.served)
	}
	if cookies(func(q queueReport) uint64 { return q.TCP.CookiesReturned }) == 0 {
		t.Error("nobody got in by a SYN cookie: it is no flood")
	}
	checkConservation(t, lane)
}

// halfRates are two halves of what pairs reach, in messages per second: of what a closed loop carries, and what takes half of the machine's
// processor time in an open one. A closed loop sends in batches when it is late; one message by one each costs nearly
// twice as much, so that the first half fills the machine before any flood, and the second leaves half of it.
func (s *scene) halfRates(pairs int) (ofLoop, ofMachine float64) {
	s.t.Helper()
	const half, near, tries = 0.5, 0.05, 8
	n := fmt.Sprint(pairs)
	ofLoop = s.startBench(s.Broker4, "-n", n, "--window", "1", "--time", "2s").clean().PerSecond / 2
	ofMachine = ofLoop
	for range tries {
		r := s.startBench(s.Broker4, "-n", n, "--rate", fmt.Sprintf("%.0f", ofMachine), "--unhurried", "--time", "2s").clean()
		busy := r.MachineCPU.Seconds() / r.MeasuredTime.Seconds() / float64(runtime.NumCPU())
		s.t.Logf("calibration: %.0f messages/s take %.0f %% of the machine, p50 %v, p99 %v", r.PerSecond, 100*busy, r.Latency.P50, r.Latency.P99)
		if math.Abs(busy-half) < near {
			return ofLoop, ofMachine
		}
		ofMachine *= half / busy * half / busy // twice, for the slower it gets the more each costs
	}
	s.t.Fatalf("no rate takes half of the machine: what else is running?")
	return 0, 0
}

// TestFlood: 20,000 SYNs a second from 10,000 sources, none of which answers, come while clients exchange messages at half of
// what they reach. No connection breaks and nothing is lost; a new client gets in during the flood. The control is the same
// flood from sources on the deny list. In the long run there are 1,000 clients and, for each meaning of half, five times flood and
// control for ten seconds each, and the medians of their rate and p99 are judged.
func TestFlood(t *testing.T) {
	s := newScene(t, 2)
	b := s.serve()
	frames := s.record(func() { s.connect(s.Broker4, "recorded").conn.Close() })
	if long() {
		ofLoop, ofMachine := s.halfRates(500)
		s.checkFlood(b, frames[0], "half of a closed loop", 500, ofLoop, 10*time.Second, 5)
		s.checkFlood(b, frames[0], "half of the machine", 500, ofMachine, 10*time.Second, 5, "--unhurried")
	} else {
		reached := s.startBench(s.Broker4, "-n", "100", "--window", "1", "--time", "2s").clean().PerSecond
		s.checkFlood(b, frames[0], "half of a closed loop", 100, reached/2, 3*time.Second, 1)
	}
	lane := b.lane()
	t.Logf("half open %d, accepted %d, resets %d", lane.sum(func(q queueReport) uint64 { return q.TCP.HalfOpen }),
		lane.sum(func(q queueReport) uint64 { return q.TCP.Accepted }), lane.resetsSent())
	checkConservation(t, lane)
}

// checkFlood measures pairs at a rate, in messages per second, beside the flood and beside the control; more is for ringmq bench.
func (s *scene) checkFlood(b *process, syn []byte, what string, pairs int, rate float64, duration time.Duration, rounds int, more ...string) {
	t := s.t
	t.Helper()
	under := func(name string) benchResult {
		run := s.startBench(s.Broker4, append(more, "-n", fmt.Sprint(pairs), "--rate", fmt.Sprintf("%.0f", rate), "--time", (duration-time.Second).String())...)
		eventually(t, "load", func() bool { return b.lane().established() >= uint64(2*pairs) })
		done := make(chan int)
		go func() { done <- s.flood(syn, duration, rand.New(rand.NewPCG(1, 2))) }()
		time.Sleep(duration / 2)
		s.connect(s.Broker4, "newcomer-"+name).alive()
		sent := <-done
		r := run.clean()
		t.Logf("%s, %s: %d SYNs; %.0f messages/s of %.0f, p50 %v, p99 %v", what, name, sent, r.PerSecond, rate, r.Latency.P50, r.Latency.P99)
		return r
	}
	var rates, delays []float64
	for range rounds {
		flooded := under("flooded")
		before := b.lane()
		b.must("xdp", "deny", floodPrefix)
		control := under("control")
		b.must("xdp", "deny", "--remove", floodPrefix)
		if b.lane().verdict("dropped_denied")-before.verdict("dropped_denied") < uint64(duration.Seconds()*floodPerSecond/4) {
			t.Error("the control's flood was not dropped")
		}
		rates = append(rates, flooded.PerSecond/control.PerSecond)
		delays = append(delays, float64(flooded.Latency.P99)/float64(control.Latency.P99))
	}
	slices.Sort(rates)
	slices.Sort(delays)
	kept, delay := rates[rounds/2], delays[rounds/2]
	t.Logf("%s: of the control's, medians of %d: rate %.2f, p99 %.2f (want 2 at most; all: %.2f)", what, rounds, kept, delay, delays)
	if long() && (kept < 0.95 || delay > 2) {
		t.Errorf("%s: the flood is felt", what)
	}
}
