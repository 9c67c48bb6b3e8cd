package netstack

import (
	"testing"
	"time"
)

// TestTurnClock: time stands still within a turn, goes on between turns, and never goes back.
func TestTurnClock(t *testing.T) {
	c := newTurnClock(time.Now(), func() {})
	last := c.NowMonotonic()
	for range 3 {
		time.Sleep(time.Millisecond)
		between := c.NowMonotonic()
		c.freeze()
		first := c.NowMonotonic()
		time.Sleep(time.Millisecond)
		if again := c.NowMonotonic(); again != first {
			t.Error("time passed within a turn")
		}
		c.thaw()
		after := c.NowMonotonic()
		if !last.Before(between) || between.After(first) || !first.Before(after) {
			t.Errorf("%v, %v, %v, %v: want them in order", last, between, first, after)
		}
		last = after
	}
}
