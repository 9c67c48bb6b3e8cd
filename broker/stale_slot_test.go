package broker

import (
	"fmt"
	"testing"
)

// TestSlotsThatAreOthersByNow has answers come late, of the authenticator and of the store, when another shard uses the slots that they name: nothing
// is found there, and, under the race detector, nothing is read that the other shard writes.
func TestSlotsThatAreOthersByNow(t *testing.T) {
	const n = 4 * slotBatch // of which the other shard gets some
	b := newBenchOf(t, Limits{Memory: 256 << 20, Shards: 2, MaxConnections: 1000, MaxSubscriptions: 100, MaxRetained: 100, StoreBytes: 4 << 20}, &lateStore{})
	old, other := b.b.loops[0].shard, b.b.loops[1].shard
	var tokens []uint64
	var slots []uint32
	var ended []*Session
	for i := range n {
		tokens = append(tokens, old.Accept(&sink{}, 0))
		ended = append(ended, old.newSession(fmt.Sprint("old", i)))
		slots = append(slots, ended[i].id)
	}
	for i := range n {
		old.Closed(uint32(tokens[i]), "it ends")
		old.remove(ended[i])
	}
	b.b.loops[0].flush()
	used := make(chan struct{})
	go func() {
		defer close(used)
		for i := range n {
			other.Accept(&sink{}, 0)
			other.newSession(fmt.Sprint("new", i))
		}
	}()
	for i := range n {
		if id := old.connOf(tokens[i]); id != 0 {
			t.Errorf("the token of a connection that is gone names connection %d", id)
		}
		old.stream.loads++
		old.Loaded(Loaded{Load: Load{Session: slots[i], SID: 1, Serial: 1}})
	}
	<-used
}
