package broker

import (
	"math/rand/v2"
	"sync"
	"testing"
)

func TestSlotsConserve(t *testing.T) {
	for _, max := range []int{1, slotBatch - 1, slotBatch, 3*slotBatch + 5, 1000} {
		s, err := newSlots(max)
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(uint64(max), 1))
		caches := []*slotCache{{s: s}, {s: s}, {s: s}}
		var held []uint32
		inUse := make(map[uint32]bool)
		for step := range 3000 {
			c := caches[r.IntN(len(caches))]
			if r.IntN(2+step/1500) == 0 {
				if i := c.get(); i != 0 {
					if inUse[i] {
						t.Fatalf("max %d, step %d: %d was handed out twice", max, step, i)
					}
					inUse[i] = true
					held = append(held, i)
				} else if left := max - len(held); left > (2*slotBatch-1)*2 {
					t.Fatalf("max %d, step %d: none left with %d free", max, step, left)
				}
			} else if len(held) > 0 {
				k := r.IntN(len(held))
				c.put(held[k])
				delete(inUse, held[k])
				held[k] = held[len(held)-1]
				held = held[:len(held)-1]
			}
			if step%50 != 0 {
				continue
			}
			free, wrong := s.free(caches...)
			if wrong != nil || len(free)+len(held) != max {
				t.Fatalf("max %d, step %d: %d free, %d held: %v", max, step, len(free), len(held), wrong)
			}
			for _, i := range held {
				if free[i] {
					t.Fatalf("max %d, step %d: %d is held and free", max, step, i)
				}
			}
		}
		var taken int64
		for _, c := range caches {
			taken += c.taken
		}
		if int(taken) != len(held) {
			t.Errorf("max %d: taken says %d, %d are", max, taken, len(held))
		}
		s.release()
	}
}

// TestSlotsConcurrently has shards take numbers, pass them on to each other and return them. The owner of each number
// is written down, unsynchronised but for the slots themselves: the race detector looks at that.
func TestSlotsConcurrently(t *testing.T) {
	const shards, max, rounds = 4, 2000, 20000
	s, err := newSlots(max)
	if err != nil {
		t.Fatal(err)
	}
	defer s.release()
	owners := make([]int, max+1)
	caches := make([]*slotCache, shards)
	pass := make([]chan uint32, shards)
	for i := range shards {
		caches[i], pass[i] = &slotCache{s: s}, make(chan uint32, 64)
	}
	var wg sync.WaitGroup
	for me := range shards {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(7, uint64(me)))
			c := caches[me]
			var held []uint32
			for range rounds {
				switch r.IntN(4) {
				case 0, 1:
					if i := c.get(); i != 0 {
						owners[i] = me
						held = append(held, i)
					}
				case 2:
					if len(held) > 0 {
						i := held[len(held)-1]
						if owners[i] != me {
							t.Errorf("number %d of shard %d is shard %d's", i, me, owners[i])
						}
						held = held[:len(held)-1]
						if r.IntN(2) == 0 {
							c.put(i)
							continue
						}
						select {
						case pass[(me+1)%shards] <- i:
						default:
							c.put(i)
						}
					}
				case 3:
					select {
					case i := <-pass[me]:
						owners[i] = me
						c.put(i)
					default:
					}
				}
			}
			for _, i := range held {
				c.put(i)
			}
		})
	}
	wg.Wait()
	for i := range shards {
		close(pass[i])
		for n := range pass[i] {
			caches[i].put(n)
		}
	}
	free, wrong := s.free(caches...)
	if wrong != nil || len(free) != max {
		t.Errorf("%d of %d numbers came back: %v", len(free), max, wrong)
	}
}
