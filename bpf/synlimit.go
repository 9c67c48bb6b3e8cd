package bpf

import (
	"fmt"
	"math"
	"net/netip"
	"time"
)

// The bounds of a Rate: interval times burst must fit the program's arithmetic in 64 bits.
const (
	ratePerSecondMin = 0.001
	ratePerSecondMax = 1e9
	rateBurstMax     = 1_000_000
	defaultBits4     = 32
	defaultBits6     = 64 // a site or a machine of IPv6 owns at least that much
)

// Rate is a token bucket: Burst SYNs at once, PerSecond of them in the long run. The zero Rate is no limit.
type Rate struct {
	PerSecond float64 // 0.001 to 1e9, or 0 for no limit
	Burst     int     // 1 to 1,000,000
}

// SYNLimit bounds new connections. The zero SYNLimit is no limit.
type SYNLimit struct {
	PerSource   Rate // for each source prefix of PrefixBits4 or PrefixBits6
	Gate        Rate // for all sources together, after PerSource
	PrefixBits4 int  // 1 to 32; 0 means 32
	PrefixBits6 int  // 1 to 128; 0 means 64
}

// complete checks, and fills in what zero means.
func (l SYNLimit) complete() (SYNLimit, error) {
	if err := l.PerSource.check(); err != nil {
		return l, fmt.Errorf("SYN limit per source: %w", err)
	}
	if err := l.Gate.check(); err != nil {
		return l, fmt.Errorf("SYN gate: %w", err)
	}
	if l.PrefixBits4 == 0 {
		l.PrefixBits4 = defaultBits4
	}
	if l.PrefixBits6 == 0 {
		l.PrefixBits6 = defaultBits6
	}
	if l.PrefixBits4 < 1 || l.PrefixBits4 > 32 || l.PrefixBits6 < 1 || l.PrefixBits6 > 128 {
		return l, fmt.Errorf("SYN limit: source prefixes of %d bits (IPv4) and %d (IPv6): give 1 to 32 and 1 to 128", l.PrefixBits4, l.PrefixBits6)
	}
	return l, nil
}

func (r Rate) check() error {
	if r == (Rate{}) {
		return nil
	}
	if !(r.PerSecond >= ratePerSecondMin && r.PerSecond <= ratePerSecondMax) {
		return fmt.Errorf("%g a second: give %g to %g, or 0 and no burst for no limit", r.PerSecond, ratePerSecondMin, ratePerSecondMax)
	}
	if r.Burst < 1 || r.Burst > rateBurstMax {
		return fmt.Errorf("a burst of %d: give 1 to %d", r.Burst, rateBurstMax)
	}
	return nil
}

// interval is the time that one SYN costs, in ns; 0 without a limit.
func (r Rate) interval() uint64 {
	if r.PerSecond == 0 {
		return 0
	}
	return max(1, uint64(math.Round(float64(time.Second)/r.PerSecond)))
}

// capacity is how far ahead a bucket may owe, in ns.
func (r Rate) capacity() uint64 { return r.interval() * uint64(r.Burst) }

// mask4 and mask6 are the bits of a source that name its bucket, in network order.
func (l SYNLimit) mask4() [4]byte {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), l.PrefixBits4).Masked().Addr().As4()
}

func (l SYNLimit) mask6() [16]byte {
	var ones [16]byte
	for i := range ones {
		ones[i] = 255
	}
	return netip.PrefixFrom(netip.AddrFrom16(ones), l.PrefixBits6).Masked().Addr().As16()
}
