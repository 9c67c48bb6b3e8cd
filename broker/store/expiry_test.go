package store

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ringmq/ringmq/broker/record"
)

// TestExpiryReleasesWhatMayHaveBeenSent: of what has expired, a delivery of QoS 2 of an earlier run leaves the release of its Packet Identifier
// behind, since its client may hold on to that; others go without a trace.
func TestExpiryReleasesWhatMayHaveBeenSent(t *testing.T) {
	mem := vfs.NewMem()
	s, _ := open(t, mem)
	earlier := record.FirstOf(s.Boot()) + 5
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, a := open(t, mem)
	defer s.Close()
	rows := []struct {
		qos      uint8
		pos      uint64
		released bool
	}{{2, earlier, true}, {1, earlier + 1, false}, {2, record.FirstOf(s.Boot()) + 5, false}}
	b := record.AppendSet(nil, record.SessionKey(nil, 1), (&record.Session{ClientID: "c", Expiry: 1<<32 - 1}).Append(nil))
	var keys [][]byte
	for _, row := range rows {
		e := record.Entry{Flags: row.qos}
		m := record.Message{Topic: []byte("t"), Expires: time.Now().Add(-time.Hour).UnixMilli()}
		keys = append(keys, record.EntryKey(nil, 1, row.pos))
		b = record.AppendSet(b, keys[len(keys)-1], record.AppendMessage(e.AppendHead(nil), &m, 0))
	}
	s.Commit(0, b)
	a.until(t, "the entries", func() bool { return a.committed == 1 })
	err := s.in.do(func(db *pebble.DB) error {
		if err := s.removeExpired(db, keys); err != nil {
			return err
		}
		for i, row := range rows {
			value, err := get(db, keys[i])
			var e record.Entry
			switch {
			case err != nil:
				return err
			case row.released && (e.Decode(value) != nil || e.Flags != 2|record.EntryReleased):
				t.Errorf("QoS %d at %d: left %x", row.qos, row.pos, value)
			case !row.released && value != nil:
				t.Errorf("QoS %d at %d is left", row.qos, row.pos)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
