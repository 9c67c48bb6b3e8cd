//go:build linux

package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
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

// halfRate is the rate of an open loop of pairs, in messages per second, that takes half of the machine's processor time while nothing
// else goes on. Half of what a closed loop carries is no half: such a loop sends in batches when it is late, and one message by one each
// costs nearly twice as much, so that the control would be an overload itself.
func (s *scene) halfRate(pairs int) float64 {
	s.t.Helper()
	n := fmt.Sprint(pairs)
	rate := s.startBench(s.Broker4, "-n", n, "--window", "1", "--time", "2s").clean().PerSecond / 2
	const half, near = 0.5, 0.03
	tries := 1
	if long() {
		tries = 6
	}
	for range tries {
		run := s.startBench(s.Broker4, "-n", n, "--rate", fmt.Sprintf("%.0f", rate), "--unhurried", "--time", "3s")
		time.Sleep(time.Second) // Its connections are there, and what it needs is warm.
		_, from := s.busy(nil)
		time.Sleep(time.Second)
		busy, _ := s.busy(from)
		r := run.clean()
		s.t.Logf("calibration: %.0f messages/s take %.0f %% of the machine, p50 %v, p99 %v", r.PerSecond, 100*busy, r.Latency.P50, r.Latency.P99)
		if math.Abs(busy-half) < near {
			break
		}
		rate *= half / busy
	}
	return rate
}

// busy is the part of all processors' time that was not idle since an earlier reading of the first line of /proc/stat (proc(5)), and the
// next reading.
func (s *scene) busy(before []uint64) (part float64, now []uint64) {
	s.t.Helper()
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		s.t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	const idle, waiting, steal = 3, 4, 7
	var all, used uint64
	for i, field := range strings.Fields(line)[1 : steal+2] {
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			s.t.Fatalf("/proc/stat: %v in %q", err, line)
		}
		now = append(now, n)
		if before == nil || i == steal {
			continue
		}
		if all += n - before[i]; i != idle && i != waiting {
			used += n - before[i]
		}
	}
	return float64(used) / float64(max(all, 1)), now
}

// TestFlood: 20,000 SYNs a second from 10,000 sources, none of which answers, come while clients exchange messages at a rate
// that takes half of the machine. No connection breaks and nothing is lost; a new client gets in during the flood. The control is the same
// flood from sources on the deny list. In the long run there are 1,000 clients and five times flood and control for ten seconds
// each, and the medians of their rate and p99 are judged.
func TestFlood(t *testing.T) {
	s := newScene(t, 2)
	b := s.serve()
	pairs, duration, rounds := 100, 3*time.Second, 1
	if long() {
		pairs, duration, rounds = 500, 10*time.Second, 5
	}
	frames := s.record(func() { s.connect(s.Broker4, "recorded").conn.Close() })
	half := s.halfRate(pairs)
	under := func(name string) benchResult {
		run := s.startBench(s.Broker4, "-n", fmt.Sprint(pairs), "--rate", fmt.Sprintf("%.0f", half), "--unhurried", "--time", (duration - time.Second).String())
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
	lane := b.lane()
	t.Logf("half open %d, accepted %d, resets %d", lane.sum(func(q queueReport) uint64 { return q.TCP.HalfOpen }),
		lane.sum(func(q queueReport) uint64 { return q.TCP.Accepted }), lane.resetsSent())
	slices.Sort(rates)
	slices.Sort(delays)
	rate, delay := rates[rounds/2], delays[rounds/2]
	t.Logf("of the control's, medians of %d: rate %.2f, p99 %.2f (want 2 at most; all: %.2f)", rounds, rate, delay, delays)
	checkConservation(t, lane)
	if long() && (rate < 0.95 || delay > 2) {
		t.Error("the flood is felt")
	}
}
