package store

import (
	"fmt"
	"slices"
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

// TestCountSaysWhatExpires: of what waits, with its message or one that is shared, it says when that expires; what was sent or released does not
// wait, and of what is damaged nobody knows. No more is looked at than was asked for, in entries and in bytes with the messages, and at least one.
func TestCountSaysWhatExpires(t *testing.T) {
	s, a := open(t, vfs.NewMem())
	defer s.Close()
	const soon = 1 << 41 // A search for what has expired leaves it alone.
	b := record.AppendSet(nil, record.MessageKey(nil, 9), record.AppendMessage(nil, &record.Message{Expires: soon + 9, Payload: make([]byte, 1000)}, 1000, make([]byte, 1000)))
	for i, e := range []record.Entry{{Flags: 1, Message: record.Message{Expires: soon}}, {Flags: 2, Mid: 9}, {Flags: 1}, {Flags: 1 | record.EntrySent, Message: record.Message{Expires: soon}},
		{Flags: 2 | record.EntryReleased}, {Flags: 1, Mid: 99}, {Flags: 1, Message: record.Message{Expires: soon + 7}}} {
		value := e.AppendHead(nil)
		if e.Mid == 0 && e.Flags&record.EntryReleased == 0 {
			value = record.AppendMessage(value, &e.Message, 0)
		}
		b = record.AppendSet(b, record.EntryKey(nil, 1, uint64(10+i)), value)
	}
	b = record.AppendSet(b, record.ReferenceKey(nil, 9, 1, 11), nil)
	s.Commit(0, record.AppendSet(b, record.EntryKey(nil, 1, 17), []byte{1, 1, 0}))
	a.until(t, "the entries", func() bool { return a.committed == 1 })
	for i, row := range []struct {
		from, to       uint64
		entries, bytes int
		want           []int64
		last           uint64
		done           bool
	}{
		{0, 100, 100, 1 << 20, []int64{soon, soon + 9, 0, 0, soon + 7, 0}, 17, true},
		{11, 15, 100, 1 << 20, []int64{soon + 9, 0, 0}, 15, true},
		{0, 100, 5, 1 << 20, []int64{soon, soon + 9, 0}, 14, false},
		{0, 100, 100, 500, []int64{soon, soon + 9}, 11, false},
		{0, 100, 0, 0, []int64{soon}, 10, false},
		{16, 16, 1, 1, []int64{soon + 7}, 16, true},
		{18, 100, 10, 1 << 20, nil, 0, true},
	} {
		s.Load(broker.Load{SID: 1, From: row.from, To: row.to, Entries: row.entries, Bytes: row.bytes, Count: true})
		a.until(t, fmt.Sprint("count ", i), func() bool { return len(a.loaded) == i+1 })
		if l := a.loaded[i]; !slices.Equal(l.Expires, row.want) || l.Last != row.last || l.Done != row.done || len(l.Entries) != 0 {
			t.Errorf("%+v: counted %+v", row, l)
		}
	}
}
