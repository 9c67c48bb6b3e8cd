package main

import (
	"errors"
	"math"
	"testing"
)

// TestHalfRate: the rate that takes half of a machine is found on machines that get dearer, cheaper, that do not carry it, and
// that something disturbs once.
func TestHalfRate(t *testing.T) {
	linear := func(rate float64) probe { return probe{rate: rate, busy: rate / 20000, carried: true} }
	disturbed := false
	for _, row := range []struct {
		name string
		try  func(rate float64) probe
		want float64
		fail bool
	}{
		{"linear", linear, 10000, false},
		{"cheaper in batches", func(rate float64) probe { return probe{rate, math.Sqrt(rate / 40000), true} }, 10000, false},
		{"carries no more", func(rate float64) probe { return probe{rate, 0.1, rate < 6000} }, 5000, false},
		{"disturbed once", func(rate float64) probe {
			p := linear(rate)
			if rate == probeFirst && !disturbed {
				disturbed, p.busy, p.carried = true, 1, false
			}
			return p
		}, 10000, false},
		{"busy with others", func(rate float64) probe { return probe{rate, 0.9, true} }, 0, true},
		{"carries nothing", func(rate float64) probe { return probe{rate, 0.1, false} }, 0, true},
	} {
		got, err := halfRate(func(rate float64) (probe, error) { return row.try(rate), nil })
		if (err != nil) != row.fail || math.Abs(got-row.want) > 0.03*row.want {
			t.Errorf("%s: %.0f, %v; want %.0f", row.name, got, err, row.want)
		}
	}
	broken := errors.New("broken")
	if _, err := halfRate(func(float64) (probe, error) { return probe{}, broken }); !errors.Is(err, broken) {
		t.Errorf("a probe that fails: %v", err)
	}
}
