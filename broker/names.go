package broker

import "math/bits"

// names are the subscriptions of a Session that has many, by the hash of their names: Shared Subscription and Topic Filter. Those whose hashes are equal
// have the next ones that are free. A map of so little grows in steps of some 10 µs; one of the names themselves took several times as
// long, and twice the memory.
type names map[uint64]*subscription

// isVacant says whether it stands only where one was whose hash others have passed: it is nobody's.
func (sub *subscription) isVacant() bool { return sub.session == nil }

// manySubscriptions is how many a Session may have before it looks them up by name instead of in its list.
const manySubscriptions = 32

// nameHash is the hash of a subscription's name.
func (w *shared) nameHash(share, filter string) uint64 {
	hash := w.index.Hash([]byte(filter))
	if share != "" {
		hash = bits.RotateLeft64(hash, 1) ^ w.index.Hash([]byte(share))
	}
	return hash
}

// find is the subscription with a name; nil: there is none.
func (n names) find(hash uint64, share, filter string) *subscription {
	for ; ; hash++ {
		if sub := n[hash]; sub == nil || sub.named(filter, share) {
			return sub
		}
	}
}

// put adds a subscription, in the place of the one that has its name.
func (n names) put(hash uint64, share string, sub *subscription) {
	free, isFree := uint64(0), false
	for ; n[hash] != nil; hash++ {
		switch old := n[hash]; {
		case old.isVacant() && !isFree:
			free, isFree = hash, true
		case old.named(sub.filter, share):
			n[hash] = sub
			return
		}
	}
	if isFree {
		hash = free
	}
	n[hash] = sub
}

// remove takes a subscription out, unless another one has its name.
func (n names) remove(hash uint64, sub *subscription) {
	for n[hash] != sub {
		if n[hash] == nil {
			return
		}
		hash++
	}
	if n[hash+1] != nil {
		n[hash] = &subscription{}
		return
	}
	for delete(n, hash); n[hash-1] != nil && n[hash-1].isVacant(); hash-- {
		delete(n, hash-1)
	}
}
