package broker

import (
	"math/rand/v2"
	"testing"
)

// TestLifetimes compares with a list of all that expires: nothing that has not expired is passed, all that has is once nothing is left that
// expires later, and where no more times are under way than there are steps, it is at once. In the end all is passed or taken.
func TestLifetimes(t *testing.T) {
	for seed := range uint64(200) {
		dice := rand.New(rand.NewPCG(seed, 1))
		few := seed%2 == 0
		l, list, now, in, bytes := lifetimes{}, []int64(nil), int64(1), uint64(0), int64(0)
		pass := func() {
			n, b := l.pass(now)
			in, bytes = in-n, bytes-b
			left := list[:0]
			for _, at := range list {
				if at > now {
					left = append(left, at)
				}
			}
			list = left
		}
		for range 300 {
			switch dice.IntN(3) {
			case 0:
				at := now + dice.Int64N(1<<dice.IntN(20)+1)
				if few {
					at = (now/1000 + 1 + dice.Int64N(lifetimeSteps-1)) * 1000
				}
				if l.add(at, at) {
					list, in, bytes = append(list, at), in+1, bytes+at
				} else if at > now {
					t.Fatalf("seed %d: what expires at %d is not taken at %d", seed, at, now)
				}
			case 1:
				if len(list) == 0 {
					continue
				}
				i := dice.IntN(len(list))
				at := list[i]
				if list = append(list[:i], list[i+1:]...); !l.take(at, at) {
					t.Fatalf("seed %d: what expires at %d is not there at %d", seed, at, now)
				}
				in, bytes = in-1, bytes-at
			default:
				now += dice.Int64N(500)
				pass()
			}
			if in < uint64(len(list)) || (few || len(list) == 0 && l.n == 0) && in != uint64(len(list)) || l.n > lifetimeSteps {
				t.Fatalf("seed %d: %d count, %d have not expired, in %d steps", seed, in, len(list), l.n)
			}
		}
		now += 1 << 30
		if pass(); in != 0 || bytes != 0 || l.n != 0 {
			t.Fatalf("seed %d: %d count and %d bytes when all has expired, in %d steps", seed, in, bytes, l.n)
		}
	}
}

// TestLifetimesKeepTime: what expires soon is not held by what expires much later, and of an even stream two sevenths at most count too long.
func TestLifetimesKeepTime(t *testing.T) {
	l := lifetimes{}
	for i := range int64(lifetimeSteps - 1) {
		l.add((1+i)*1_000_000, 1)
	}
	for at := range int64(1000) {
		l.add(5000+at, 1)
	}
	if n, _ := l.pass(6000); n != 1000 {
		t.Errorf("%d of 1000 have expired", n)
	}
	l = lifetimes{}
	for at := range int64(7000) {
		l.add(10_000+at, 1)
	}
	passed := uint64(0)
	for now := int64(10_000); now < 17_000; now += 100 {
		n, _ := l.pass(now)
		if passed += n; now-10_000-int64(passed) > 2000 {
			t.Errorf("at %d only %d of %d have expired", now, passed, now-10_000)
		}
	}
}
