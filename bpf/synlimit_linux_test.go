//go:build amd64 || arm64

package bpf

import (
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// slow is a rate that gives no token back while a test runs: one in 1000 s.
const slow = 0.001

// synFrom is a SYN from any source, from a port that no other test has.
func synFrom(source string) []byte {
	from := netip.MustParseAddr(source)
	if from.Is4() {
		p := syn().over4()
		p.from = from
		return p.frame()
	}
	p := syn().over6()
	p.from = from
	return p.frame()
}

func expectTimes(t *testing.T, p *Program, n int, frame []byte, want Verdict) {
	t.Helper()
	for i := range n {
		if got := run(t, p, frame); got != want {
			t.Fatalf("frame %d of %d: got %s, want %s", i+1, n, got, want)
		}
	}
}

func TestSYNPerSource(t *testing.T) {
	p := served(t, true)
	must(t, p.SetSYNLimit(SYNLimit{PerSource: Rate{slow, 5}}))
	for _, source := range []string{"198.18.0.2", "198.18.0.3", "2001:2::1:1", "2001:2:0:1::1"} {
		expectTimes(t, p, 5, synFrom(source), Redirected)
		expectTimes(t, p, 3, synFrom(source), DroppedSYNSource)
	}
	expect(t, p, synFrom("2001:2::ffff:1"), DroppedSYNSource) // the same /64
	expect(t, p, data().over4().frame(), Redirected)          // no SYN
	expect(t, p, tooBig4(sent4()).frame(), RedirectedICMP)    // no SYN
	must(t, p.SetPrefixes(Exempt, []netip.Prefix{netip.MustParsePrefix("198.18.0.2/32")}))
	expectTimes(t, p, 10, synFrom("198.18.0.2"), Redirected)
	expect(t, p, synFrom("198.18.0.3"), DroppedSYNSource)
	must(t, p.SetSYNLimit(SYNLimit{}))
	expectTimes(t, p, 10, synFrom("198.18.0.3"), Redirected)
}

func TestSYNPrefixBits(t *testing.T) {
	p := served(t, true)
	must(t, p.SetSYNLimit(SYNLimit{PerSource: Rate{slow, 2}, PrefixBits4: 23, PrefixBits6: 127}))
	expect(t, p, synFrom("198.18.2.1"), Redirected)
	expect(t, p, synFrom("198.18.3.9"), Redirected)
	expect(t, p, synFrom("198.18.2.77"), DroppedSYNSource)
	expect(t, p, synFrom("198.18.4.1"), Redirected)
	expect(t, p, synFrom("2001:2::4"), Redirected)
	expect(t, p, synFrom("2001:2::5"), Redirected)
	expect(t, p, synFrom("2001:2::4"), DroppedSYNSource)
	expect(t, p, synFrom("2001:2::6"), Redirected)
}

func TestSYNGate(t *testing.T) {
	p := served(t, true)
	must(t, p.SetSYNLimit(SYNLimit{PerSource: Rate{slow, 3}, Gate: Rate{slow, 5}}))
	expectTimes(t, p, 3, synFrom("198.18.0.2"), Redirected)
	expect(t, p, synFrom("198.18.0.2"), DroppedSYNSource) // takes nothing from the gate
	expectTimes(t, p, 2, synFrom("2001:2::9"), Redirected)
	expect(t, p, synFrom("198.18.0.4"), DroppedSYNGate)
	must(t, p.AddPrefixes(Exempt, netip.MustParsePrefix("198.18.0.4/31")))
	expectTimes(t, p, 4, synFrom("198.18.0.4"), Redirected)
	expect(t, p, synFrom("198.18.0.6"), DroppedSYNGate)
}

// TestSYNLimitGuardsTheKernel: what is passed for want of a socket or for a drain has had its token.
func TestSYNLimitGuardsTheKernel(t *testing.T) {
	p := served(t, false)
	must(t, p.SetSYNLimit(SYNLimit{Gate: Rate{slow, 2}}))
	must(t, p.AddKernelFlows(flow4))
	expect(t, p, syn().over4().frame(), PassedKernelFlow)
	expect(t, p, syn().over6().frame(), PassedNoSocket)
	expect(t, p, synFrom("198.18.0.7"), DroppedSYNGate)
	expect(t, p, syn().over4().frame(), DroppedSYNGate)
	expect(t, p, data().over4().frame(), PassedKernelFlow)
}

// setOwed makes a bucket owe this much; negative: it has been full for so long, or since the clock began.
func setOwed(t *testing.T, p *Program, source netip.Addr, owed time.Duration) {
	t.Helper()
	now, err := monotonic()
	must(t, err)
	must(t, p.objects.SynBuckets.Put(addressKey(source), uint64(max(0, now+owed))))
}

// TestSYNRefill moves what the bucket owes instead of the clock: at one token in 1000 s the test itself takes no time.
func TestSYNRefill(t *testing.T) {
	p := served(t, true)
	must(t, p.SetSYNLimit(SYNLimit{PerSource: Rate{slow, 4}}))
	frame := synFrom(client4.String())
	for _, row := range []struct {
		name   string
		owed   time.Duration
		tokens int
	}{
		{"long unused", -time.Hour, 4},
		{"just full", 0, 4},
		{"one not there for a second", time.Second, 3},
		{"one just there", 3000 * time.Second, 1},
		{"one not quite there", 3100 * time.Second, 0},
		{"empty", 4000 * time.Second, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			setOwed(t, p, client4, row.owed)
			expectTimes(t, p, row.tokens, frame, Redirected)
			expectTimes(t, p, 2, frame, DroppedSYNSource)
		})
	}
}

// TestSYNLimitLoosened: a source that owes years under an old limit waits no longer than the new one says.
func TestSYNLimitLoosened(t *testing.T) {
	p := served(t, true)
	must(t, p.SetSYNLimit(SYNLimit{PerSource: Rate{slow, 1_000_000}}))
	setOwed(t, p, client4, 1_000_000*1000*time.Second)
	expect(t, p, synFrom(client4.String()), DroppedSYNSource)
	must(t, p.SetSYNLimit(SYNLimit{PerSource: Rate{1, 3}}))
	expect(t, p, synFrom(client4.String()), DroppedSYNSource)
	var owed uint64
	must(t, p.objects.SynBuckets.Lookup(addressKey(client4), &owed))
	now, err := monotonic()
	must(t, err)
	if ahead := time.Duration(owed) - now; ahead > 3*time.Second {
		t.Fatalf("the source waits %s for its tokens, want at most 3 s", ahead)
	}
}

// TestSYNLimitOnAllCPUs lets several threads race for one bucket: exactly its burst gets through.
func TestSYNLimitOnAllCPUs(t *testing.T) {
	p := served(t, true)
	const burst, racers, each = 5000, 4, 10_000 // racers as TAKE_ATTEMPTS: nobody takes without looking
	for name, limit := range map[string]SYNLimit{"source": {PerSource: Rate{slow, burst}}, "gate": {Gate: Rate{slow, burst}}} {
		t.Run(name, func(t *testing.T) {
			must(t, p.SetSYNLimit(limit))
			before := total(t, p)
			var all sync.WaitGroup
			for range racers {
				all.Go(func() {
					options := ebpf.RunOptions{Data: synFrom("198.18.99.1"), Repeat: each}
					if _, err := p.objects.RingmqSteer.Run(&options); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			after := total(t, p)
			passed := after[Redirected].Packets - before[Redirected].Packets
			dropped := after[DroppedSYNSource].Packets - before[DroppedSYNSource].Packets + after[DroppedSYNGate].Packets - before[DroppedSYNGate].Packets
			if passed != burst || passed+dropped < racers*each { // A run that is interrupted begins again.
				t.Errorf("%d SYNs passed and %d were dropped, want %d of at least %d to pass", passed, dropped, burst, racers*each)
			}
		})
	}
}

// TestSYNSourcesAreBounded: a flood from everywhere pushes buckets out, and the gate is left.
func TestSYNSourcesAreBounded(t *testing.T) {
	p := loaded(t, Options{Queues: 1, SYNSources: 64})
	must(t, p.SetAddresses([]netip.Addr{server4}))
	must(t, p.SetPorts([]uint16{port}))
	must(t, p.SetSocket(0, newSocket(t)))
	must(t, p.SetSYNLimit(SYNLimit{PerSource: Rate{slow, 1}, Gate: Rate{slow, 600}}))
	source := netip.MustParseAddr("198.18.1.0")
	for range 600 {
		source = source.Next()
		expect(t, p, synFrom(source.String()), Redirected)
	}
	expect(t, p, synFrom(source.Next().String()), DroppedSYNGate)
}

func TestSYNLimitErrors(t *testing.T) {
	p := loaded(t, Options{})
	for _, row := range []struct {
		limit SYNLimit
		says  string
	}{
		{SYNLimit{PerSource: Rate{PerSecond: 5}}, "burst of 0"},
		{SYNLimit{PerSource: Rate{Burst: 5}}, "0 a second"},
		{SYNLimit{Gate: Rate{1e10, 5}}, "1e+10 a second"},
		{SYNLimit{Gate: Rate{-1, 5}}, "-1 a second"},
		{SYNLimit{Gate: Rate{1, 1_000_001}}, "burst of 1000001"},
		{SYNLimit{PrefixBits4: 33}, "33 bits"},
		{SYNLimit{PrefixBits6: -1}, "-1 (IPv6)"},
	} {
		if err := p.SetSYNLimit(row.limit); err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%+v: %v, want an error about %q", row.limit, err, row.says)
		}
	}
	want := SYNLimit{PrefixBits4: 32, PrefixBits6: 64}
	if got := p.SYNLimit(); got != want {
		t.Errorf("the limit is %+v, want %+v", got, want)
	}
}
