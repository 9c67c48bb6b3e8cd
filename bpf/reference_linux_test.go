//go:build amd64 || arm64

package bpf

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// A twin is the program and the reference in the same state.
type twin struct {
	program   *Program
	reference *reference
}

// twins are the states in which any frame is judged by both.
func twins(t testing.TB) []twin {
	t.Helper()
	deny, allow, exempt := netip.MustParsePrefix("198.18.0.0/16"), netip.MustParsePrefix("198.18.0.2/32"), netip.MustParsePrefix("2001:2::2/127")
	all := []twin{
		{served(t, true), open()},
		{served(t, false), open()},
		{served(t, true), open()},
		{served(t, false), open()},
		{served(t, true), open()},
		{served(t, true), open()},
	}
	all[1].reference.noSocket = true
	all[2].reference.drain = true
	all[2].reference.deny, all[2].reference.allow = []netip.Prefix{deny}, []netip.Prefix{allow}
	all[3].reference.noSocket, all[3].reference.hold = true, true
	all[3].reference.flows = []Flow{flow4}
	all[4].reference.gateClosed = true
	all[4].reference.exempt = []netip.Prefix{exempt}
	all[5].reference.sourceEmpty = true
	all[5].reference.deny = []netip.Prefix{netip.MustParsePrefix("::/1")}
	for _, twin := range all {
		twin.equalise(t)
	}
	return all
}

// equalise puts the program into the reference's state.
func (w twin) equalise(t testing.TB) {
	t.Helper()
	p, r := w.program, w.reference
	must(t, p.SetPrefixes(Deny, r.deny))
	must(t, p.SetPrefixes(Allow, r.allow))
	must(t, p.SetPrefixes(Exempt, r.exempt))
	must(t, p.SetDrain(0, r.drain))
	must(t, p.SetHold(0, r.hold))
	must(t, p.AddKernelFlows(r.flows...))
	if r.gateClosed {
		must(t, p.SetSYNLimit(SYNLimit{Gate: Rate{slow, 1}}))
		run(t, p, syn().over4().frame())
	}
	if r.sourceEmpty { // There are four sources: halves of the families.
		must(t, p.SetSYNLimit(SYNLimit{PerSource: Rate{slow, 1}, PrefixBits4: 1, PrefixBits6: 1}))
		for _, source := range []string{"1.0.0.1", "129.0.0.1", "1::1", "8001::1"} {
			must(t, p.AddPrefixes(Allow, netip.MustParsePrefix("::/0")))
			run(t, p, synFrom(source))
		}
		must(t, p.SetPrefixes(Allow, r.allow))
	}
}

// agree lets both judge a frame. What they remember of it is forgotten again.
func (w twin) agree(t testing.TB, frame []byte) {
	t.Helper()
	if got, want := run(t, w.program, frame), w.reference.judge(frame); got != want {
		t.Fatalf("%s, the reference says %s, of %x", got, want, frame)
	}
	for flow := range w.reference.remembered {
		must(t, w.forget(flow))
	}
	clear(w.reference.remembered)
	if w.program.objects.KernelSyns.Iterate().Next(&steerFlow{}, new(uint64)) {
		t.Fatalf("the program remembers a flow that the reference does not, of %x", frame)
	}
}

// forget makes the key without flowKey's checks: what comes over the wire may be no address of one machine.
func (w twin) forget(flow Flow) error {
	_, local := words(flow.Local.Addr())
	key := steerFlow{
		Remote: addressKey(flow.Remote.Addr()), Local: local,
		RemotePort: networkPort(flow.Remote.Port()), LocalPort: networkPort(flow.Local.Port()),
	}
	if err := w.program.objects.KernelSyns.Delete(key); err != nil {
		return fmt.Errorf("the program does not remember %v: %w", flow, err)
	}
	return nil
}

// TestAgreesWithReference changes rows of the table at random: bytes, lengths, and pieces of other rows.
func TestAgreesWithReference(t *testing.T) {
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	table, seed := frames(), rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	for number, twin := range twins(t) {
		t.Run(fmt.Sprint("state ", number), func(t *testing.T) {
			for _, row := range table {
				twin.agree(t, row.frame)
			}
			for range rounds {
				twin.agree(t, mutated(random, table[random.IntN(len(table))].frame, table[random.IntN(len(table))].frame))
			}
		})
	}
}

// mutated changes up to three things of a frame.
func mutated(random *rand.Rand, frame, other []byte) []byte {
	frame = slices.Clone(frame)
	for range 1 + random.IntN(3) {
		at := random.IntN(min(len(frame), 120)) // where the headers are
		switch random.IntN(6) {
		case 0:
			frame[at] = byte(random.Uint32())
		case 1:
			frame[at] ^= 1 << random.IntN(8)
		case 2:
			frame = frame[:max(14, at)]
		case 3:
			frame = append(frame[:max(14, at)], other[min(at, len(other)):]...)
		case 4:
			copy(frame[at:], other[min(at, len(other)):min(at+4, len(other))])
		case 5:
			if at+2 <= len(frame) {
				binary.BigEndian.PutUint16(frame[at:], uint16(random.IntN(len(frame)+2)))
			}
		}
	}
	return frame
}

// FuzzFrames gives both any frame in any state: they agree, and nothing but pass, drop and redirect comes out (see run).
func FuzzFrames(f *testing.F) {
	all := twins(f)
	for i, row := range frames() {
		f.Add(row.frame, byte(i))
	}
	f.Fuzz(func(t *testing.T, frame []byte, state byte) {
		if len(frame) < 14 || len(frame) > 3000 { // The kernel takes no less, and about this much.
			return
		}
		all[int(state)%len(all)].agree(t, frame)
	})
}

// BenchmarkSteer measures the program alone, by the kernel's test-run. The time of an empty program is part of it.
func BenchmarkSteer(b *testing.B) {
	p := served(b, true)
	b.Run("a program that only passes", func(b *testing.B) {
		_, duration, err := foreign(b).Benchmark(data().over4().frame(), b.N, b.ResetTimer)
		must(b, err)
		b.ReportMetric(float64(duration.Nanoseconds()), "ns/op")
	})
	for _, row := range []row{
		{"data", data().over4().frame(), Redirected},
		{"data, one tag", tagged(data().over4().frame(), tag8021Q), Redirected},
		{"data over IPv6", data().over6().frame(), Redirected},
		{"SYN", syn().over4().frame(), Redirected},
		{"UDP", ipv4{from: client4, to: server4, protocol: protocolUDP, payload: make([]byte, 26)}.frame(), PassedOtherProtocol},
		{"ARP", ethernet(etherARP, make([]byte, 46)), PassedNotIP},
		{"another port", tcp{clientPort, otherPort, flagACK, nil, nil}.over4().frame(), PassedOtherPort},
		{"another address", ipv4{from: client4, to: other4, protocol: protocolTCP, payload: data().segment()}.frame(), PassedOtherAddress},
	} {
		b.Run(row.name, func(b *testing.B) { benchmark(b, p, row) })
	}
	for prefix := netip.MustParseAddr("10.0.0.0"); len(p.Prefixes(Deny)) == 0; {
		var many []netip.Prefix
		for range 10_000 {
			many = append(many, netip.PrefixFrom(prefix, 28))
			for range 16 {
				prefix = prefix.Next()
			}
		}
		must(b, p.SetPrefixes(Deny, many))
	}
	b.Run("data, 10,000 prefixes denied", func(b *testing.B) { benchmark(b, p, row{"", data().over4().frame(), Redirected}) })
	must(b, p.AddKernelFlows(flow6))
	b.Run("and kernel flows", func(b *testing.B) { benchmark(b, p, row{"", data().over4().frame(), Redirected}) })
	must(b, p.SetSYNLimit(SYNLimit{PerSource: Rate{1e9, 1000}, Gate: Rate{1e9, 1000}}))
	b.Run("and SYN limits, SYN", func(b *testing.B) { benchmark(b, p, row{"", syn().over4().frame(), Redirected}) })
	must(b, p.AddPrefixes(Deny, netip.PrefixFrom(client4, 32)))
	b.Run("denied", func(b *testing.B) { benchmark(b, p, row{"", data().over4().frame(), DroppedDenied}) })
}

func benchmark(b *testing.B, p *Program, row row) {
	returned, duration, err := p.objects.RingmqSteer.Benchmark(row.frame, b.N, b.ResetTimer)
	must(b, err)
	if returned != action(row.want) {
		b.Fatalf("the program returned %d", returned)
	}
	b.ReportMetric(float64(duration.Nanoseconds()), "ns/op")
}
