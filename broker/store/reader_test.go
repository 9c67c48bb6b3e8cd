package store

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/record"
)

// TestLoadGivesWhatIsDamaged: a shard learns of entries that do not decode, or whose message is missing, as it has to delete them.
func TestLoadGivesWhatIsDamaged(t *testing.T) {
	s, a := open(t, vfs.NewMem())
	defer s.Close()
	missing := record.Entry{Flags: 1, Mid: 99}
	b := record.AppendSet(nil, record.EntryKey(nil, 1, 1), []byte("?"))
	b = record.AppendSet(b, record.EntryKey(nil, 1, 2), missing.AppendHead(nil))
	s.Commit(0, append(b, entryBatch(1, 3, "good")...))
	a.until(t, "the entries", func() bool { return a.committed == 1 })
	s.Load(broker.Load{SID: 1, To: 10, Entries: 10, Bytes: 1 << 20})
	a.until(t, "the load", func() bool { return len(a.loaded) == 1 })
	if l := a.loaded[0]; len(l.Entries) != 3 || l.Damaged != 2 || l.Entries[0].Pos != 1 || l.Entries[1].Message != nil {
		t.Errorf("loaded %+v", l)
	}
}
