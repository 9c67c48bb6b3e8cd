package broker

import (
	"math"
	"testing"
)

// TestSecondsLeft: a receiver's shard may be a few milliseconds behind the publisher's, and some time may have passed.
func TestSecondsLeft(t *testing.T) {
	for ms, want := range map[int64]uint32{
		-5: 0, 0: 0, 1: 1, 400: 1, 999: 1, 1000: 1, 1003: 1, 7501: 8, 59_996: 60, 60_004: 60, math.MaxUint32 * 1000: math.MaxUint32,
		math.MaxUint32*1000 + 3: math.MaxUint32, (math.MaxUint32 + 10) * 1000: math.MaxUint32,
	} {
		if got := secondsLeft(ms); got != want {
			t.Errorf("%d ms are %d s, want %d", ms, got, want)
		}
	}
}
