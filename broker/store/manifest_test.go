package store

import (
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ringmq/ringmq/broker/record"
)

// TestGoodManifest crashes a store with a MANIFEST of several blocks: whatever of it was not synced, and of its note, is there or not, and none is taken
// for damaged.
func TestGoodManifest(t *testing.T) {
	const flushes, every, blocks = 1000, 25, 2
	mem := vfs.NewCrashableMem()
	s, a := open(t, mem)
	chance := rand.New(rand.NewPCG(1, 2))
	for n := range flushes {
		s.Commit(0, record.AppendSet(nil, record.SessionKey(nil, uint64(n)), (&record.Session{ClientID: "c"}).Append(nil)))
		a.until(t, "a commit", func() bool { return a.committed == n+1 })
		if err := s.in.do((*pebble.DB).Flush); err != nil {
			t.Fatal(err)
		}
		if n%every != 0 {
			continue
		}
		crashed, _ := open(t, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: chance}))
		if stats := mustStats(t, crashed); stats.Salvages != 0 {
			t.Fatalf("after %d flushes the store was salvaged", n)
		}
		if err := crashed.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	names := files(t, mem, func(name string) bool { _, is := manifestNumber(name); return is })
	if n := len(content(t, mem, names[len(names)-1])); n < blocks*logBlock {
		t.Errorf("%s has %d bytes only", names[len(names)-1], n)
	}
}
