package broker

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestNames compares names with a map by name, where hashes are equal and neighbours, as they never are by chance.
func TestNames(t *testing.T) {
	type name struct{ share, filter string }
	groups := []*group{nil, {name: "g"}, {name: "h"}}
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		n, want, owner := names{}, map[name]*subscription{}, &Session{}
		hash := func(x name) uint64 { return ^uint64(0) - 2 + uint64(len(x.share))*2 + uint64(len(x.filter)%3) } // over the end, too
		for range 300 {
			g := groups[rng.IntN(len(groups))]
			sub := &subscription{session: owner, group: g, filter: fmt.Sprint(rng.IntN(12))}
			x := name{sub.share(), sub.filter}
			switch old := want[x]; {
			case rng.IntN(2) == 0:
				n.put(hash(x), x.share, sub)
				want[x] = sub
				if old != nil && rng.IntN(2) == 0 {
					n.remove(hash(x), old) // It is not there any more: the new one stays.
				}
			case old != nil:
				n.remove(hash(x), old)
				delete(want, x)
			}
			for _, g := range groups {
				for i := range 12 {
					s := &subscription{group: g, filter: fmt.Sprint(i)}
					x := name{s.share(), s.filter}
					if got := n.find(hash(x), x.share, x.filter); got != want[x] {
						t.Fatalf("seed %d: %v is found as %v, want %v", seed, x, got, want[x])
					}
				}
			}
		}
		for x, sub := range want {
			n.remove(hash(x), sub)
		}
		if len(n) != 0 {
			t.Fatalf("seed %d: %d places are left when all have gone", seed, len(n))
		}
	}
}
