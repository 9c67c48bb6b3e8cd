package broker

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
)

// held is memory that a test holds: a block or a chain of pages, filled with a mark of its own.
type held struct {
	ref  uint32
	size int // 0: a whole page
	mark uint64
}

func (h held) bytes(a *arena) []byte {
	if h.size == 0 {
		return a.bytes(h.ref)
	}
	return a.block(h.ref, h.size)
}

func (h held) fill(a *arena) {
	b := h.bytes(a)
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, h.mark)
		b = b[8:]
	}
}

func (h held) intact(a *arena) bool {
	for b := h.bytes(a); len(b) >= 8; b = b[8:] {
		if binary.LittleEndian.Uint64(b) != h.mark {
			return false
		}
	}
	return true
}

func (h held) free(p *pool) {
	if h.size == 0 {
		p.freePage(h.ref)
	} else {
		p.free(h.ref)
	}
}

// take takes a block or a page at random; false when there is none.
func take(p *pool, r *rand.Rand, mark uint64) (held, bool) {
	h := held{mark: mark}
	switch r.IntN(8) {
	case 0:
		h.ref = p.page()
	case 1:
		h.ref = p.urgentPage(forControl)
	default:
		h.size = 1 + r.IntN(1<<(r.UintN(12)+1))
		h.ref = p.alloc(h.size)
	}
	if h.ref != 0 {
		h.fill(p.a)
	}
	return h, h.ref != 0
}

func TestArenaConserves(t *testing.T) {
	for seed := range uint64(8) {
		const shards, pages = 3, 300
		a, err := newArena(pages, shards)
		if err != nil {
			t.Fatal(err)
		}
		var pools []*pool
		for i := range shards {
			pools = append(pools, newPool(a, i))
		}
		r := rand.New(rand.NewPCG(seed, 9))
		var all []held
		used := func() int { // pages that hold something of ours
			m := make(map[uint32]bool)
			for _, h := range all {
				if h.size == 0 {
					m[h.ref] = true
				} else {
					m[h.ref/unitsPerPage] = true
				}
			}
			return len(m)
		}
		for step := range 4000 {
			p := pools[r.IntN(shards)]
			if r.IntN(100) < 52-step/400*2 || len(all) == 0 {
				if h, ok := take(p, r, uint64(step)<<20|seed); ok {
					all = append(all, h)
				}
			} else {
				k := r.IntN(len(all))
				if !all[k].intact(a) {
					t.Fatalf("seed %d, step %d: memory was overwritten while held", seed, step)
				}
				all[k].free(p)
				all[k] = all[len(all)-1]
				all = all[:len(all)-1]
			}
			if step%250 == 0 {
				if n, wrong := a.unused(pools); wrong != nil || n+used() != pages {
					t.Fatalf("seed %d, step %d: %d unused + %d used pages of %d: %v", seed, step, n, used(), pages, wrong)
				}
			}
		}
		for _, h := range all {
			h.free(pools[r.IntN(shards)])
		}
		if n, wrong := a.unused(pools); wrong != nil || n != pages {
			t.Fatalf("seed %d: %d of %d pages came back: %v", seed, n, pages, wrong)
		}
		a.release()
	}
}

// TestArenaConcurrently has shards take memory, hand it to each other, and free what they were handed.
func TestArenaConcurrently(t *testing.T) {
	const shards, pages, rounds = 4, 3000, 15000
	a, err := newArena(pages, shards)
	if err != nil {
		t.Fatal(err)
	}
	defer a.release()
	var pools []*pool
	pass := make([]chan held, shards)
	for i := range shards {
		pools, pass[i] = append(pools, newPool(a, i)), make(chan held, 512)
	}
	var wg sync.WaitGroup
	for me := range shards {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(3, uint64(me)))
			p := pools[me]
			for k := range rounds {
				if h, ok := take(p, r, uint64(me)<<40|uint64(k)); ok {
					select {
					case pass[r.IntN(shards)] <- h:
					default:
						h.free(p)
					}
				}
				select {
				case h := <-pass[me]:
					if !h.intact(a) {
						t.Error("memory was overwritten while held")
					}
					h.free(p)
				default:
				}
				if k%1000 == 0 {
					p.collect()
					p.restock()
				}
			}
		})
	}
	wg.Wait()
	for i := range shards {
		close(pass[i])
		for h := range pass[i] {
			h.free(pools[i])
		}
	}
	if n, wrong := a.unused(pools); wrong != nil || n != pages {
		t.Errorf("%d of %d pages came back: %v", n, pages, wrong)
	}
}

// TestPromiseIsKept promises pages to a large packet and then takes pages for messages until there are no more.
func TestPromiseIsKept(t *testing.T) {
	const pages = 400
	a, err := newArena(pages, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer a.release()
	p, q := newPool(a, 0), newPool(a, 1)
	n := int(a.promiseMax())
	if !a.commit(n) {
		t.Fatalf("%d pages are not promised of %d", n, a.slots.available.Load())
	}
	for q.page() != 0 {
	}
	got := 0
	for p.committedPage() != 0 {
		if got++; got == n {
			return
		}
	}
	t.Errorf("of %d pages promised %d came: messages took the others", n, got)
}
