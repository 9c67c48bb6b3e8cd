//go:build linux

package lab

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// bridge is a bad link between two interfaces of a third namespace: it forwards frames in user space, and loses some, sends
// some twice and lets some be overtaken by later ones.
type bridge struct {
	harm
	sides   [2]*port
	closing atomic.Bool
	ended   sync.WaitGroup
	sent    [2]struct{ lost, doubled, delayed, passed int } // after end
}

// harm has the probabilities of what happens to a frame.
type harm struct{ lose, double, delay float64 }

// delayFrames is by how many others a frame is overtaken; delayMax is how long it waits for them.
const (
	delayFrames = 3
	delayMax    = 10 * time.Millisecond
)

// newBadScene is a scene whose pair is cut in two with a bridge between the halves. The seed is printed.
func newBadScene(t *testing.T, queues int, h harm) (*scene, *bridge) {
	t.Helper()
	s, b := newScene(t, queues), &bridge{harm: h}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	middle := fmt.Sprintf("rmqm-%d.0", os.Getpid())
	run := func(format string, values ...any) {
		t.Helper()
		if err := Run(fmt.Sprintf(format, values...)); err != nil {
			t.Fatal(err)
		}
	}
	run("ip netns add %s", middle)
	t.Cleanup(func() { run("ip netns del %s", middle) })
	run("ip netns exec %s sysctl -qw net.ipv6.conf.default.disable_ipv6=1", middle)
	if err := s.Remove(); err != nil {
		t.Fatal(err)
	}
	many := fmt.Sprintf("numrxqueues %d numtxqueues %d", queues, queues)
	run("ip link add %s %s netns %s type veth peer name near %s netns %s", s.BrokerIf, many, s.Lab.Broker, many, middle)
	run("ip link add %s netns %s type veth peer name far netns %s", s.ClientIf, s.Lab.Client, middle)
	if err := s.configure(); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"near", "far"} {
		run("ip netns exec %s ethtool -K %s tx off gro off gso off tso off", middle, name)
		run("ip -n %s link set %s up", middle, name)
		b.sides[i] = openPort(t, middle, name, true)
	}
	for i := range b.sides {
		b.ended.Go(func() { b.forward(i, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	t.Cleanup(func() {
		b.end()
		for _, p := range b.sides {
			p.close()
		}
	})
	return s, b
}

// end stops forwarding.
func (b *bridge) end() {
	b.closing.Store(true)
	b.ended.Wait()
}

// forward carries one direction.
func (b *bridge) forward(side int, random *rand.Rand) {
	from, to, n := b.sides[side], b.sides[1-side], &b.sent[side]
	type late struct {
		frame []byte
		left  int
		until time.Time
	}
	var waiting []late
	for buffer := make([]byte, 1<<16); !b.closing.Load(); {
		frame := from.receive(buffer, delayMax)
		kept := waiting[:0]
		for _, w := range waiting {
			if w.left--; w.left > 0 && time.Now().Before(w.until) {
				kept = append(kept, w)
				continue
			}
			to.send(w.frame)
		}
		waiting = kept
		switch {
		case frame == nil:
		case random.Float64() < b.lose:
			n.lost++
		case random.Float64() < b.delay:
			n.delayed++
			waiting = append(waiting, late{append([]byte(nil), frame...), delayFrames, time.Now().Add(delayMax)})
		default:
			n.passed++
			to.send(frame)
			if random.Float64() < b.double {
				n.doubled++
				to.send(frame)
			}
		}
	}
}

// TestBadLink: links that lose 1 % and 5 % of the frames each way, one that also doubles and reorders them, and a 4-queue one.
// Every message of QoS 1 and 2 arrives, those of QoS 2 once, no connection breaks, and the broker's retransmissions are counted.
func TestBadLink(t *testing.T) {
	for _, row := range []struct {
		name   string
		harm   harm
		queues int
	}{
		{"1% lost", harm{lose: 0.01}, 1},
		{"5% lost", harm{lose: 0.05}, 1},
		{"1% lost, 5% doubled, 5% reordered", harm{lose: 0.01, double: 0.05, delay: 0.05}, 4},
	} {
		for _, qos := range []string{"1", "2"} {
			t.Run(row.name+"/QoS "+qos, func(t *testing.T) {
				s, link := newBadScene(t, row.queues, row.harm)
				b := s.serve()
				r := s.startBench(s.Broker4, "-n", "20", "-q", qos, "--rate", "1000", "--time", "3s", "--payload", "300", "--drain", "30s").clean()
				lane := b.lane()
				link.end()
				t.Logf("%d messages, p99 %v; %+v", r.Published, r.Latency.P99, link.sent)
				if r.Duplicated > 0 || r.Reordered > 0 {
					t.Errorf("%d messages came twice, %d out of order", r.Duplicated, r.Reordered)
				}
				if link.sent[0].lost == 0 || link.sent[1].lost == 0 {
					t.Error("nothing was lost on the way")
				}
				if lane.sum(func(q queueReport) uint64 { return q.TCP.Retransmits }) == 0 {
					t.Error("no retransmission is counted")
				}
				if n := lane.sum(func(q queueReport) uint64 { return q.TCP.ChecksumErrors + q.TCP.Panics }); n > 0 {
					t.Errorf("%d checksum errors and panics", n)
				}
				checkConservation(t, lane)
			})
		}
	}
}
