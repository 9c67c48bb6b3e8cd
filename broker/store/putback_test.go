package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/broker/record"
)

// TestPutBack goes the way back that the log names when a salvage had not room for all: what the store in between gave to its end is not
// delivered again, and none of its numbers is used twice, whether or not what is put back is damaged still and progress is there. The disk is not blamed.
func TestPutBack(t *testing.T) {
	for _, mended := range []bool{false, true} {
		for _, removed := range []bool{false, true} {
			name := fmt.Sprintf("mended %v, progress removed %v", mended, removed)
			mem := dataDir(t)
			var said strings.Builder
			config := Config{Dir: "data", FS: mem, MemTableBytes: 128 << 10, CacheBytes: 1 << 20, ReserveBytes: smallReserve, Warn: func(text string) { fmt.Fprintln(&said, text) }}
			mend := fillSmall(t, config, twice(record.EntryKey(nil, 2, 5)))
			config.FS = (&smallDisk{MemFS: mem, size: used(mem, "data") + 4<<19}).limited(false)
			between, err := Open(config)
			if err != nil {
				t.Fatal(err)
			}
			a := newAsked()
			between.Start(a)
			for n := range 100 {
				between.Commit(0, record.AppendDelete(nil, record.EntryKey(nil, 2, 5)))
				a.until(t, "a commit", func() bool { return a.committed == n+1 })
			}
			if mustStats(t, between).LeftRecords == 0 {
				t.Fatal("there was room for all")
			}
			if err := between.Close(); err != nil {
				t.Fatal(err)
			}

			names, _ := mem.List("data")
			aside := names[slices.IndexFunc(names, func(n string) bool { return strings.HasPrefix(n, "damaged-") })]
			if err := mem.RemoveAll("data/db"); err != nil {
				t.Fatal(err)
			}
			if err := mem.Rename("data/"+aside, "data/db"); err != nil {
				t.Fatal(err)
			}
			if removed {
				if err := mem.Remove("data/progress"); err != nil {
					t.Fatal(err)
				}
			}
			if mended {
				mend()
			}
			config.FS = mem
			for run := range 2 {
				said.Reset()
				s, err := Open(config)
				if err != nil {
					t.Fatal(name, err)
				}
				s.Start(newAsked())
				var e record.Entry
				err = readAll(s, record.KindEntry, func(key, value []byte) error {
					if record.Number(key, 0) == 2 {
						return e.Decode(value)
					}
					return nil
				})
				stats := mustStats(t, s)
				if err != nil || e.Flags&record.EntryReleased == 0 || count(t, s, record.KindEntry) != smallQueued+1 || (stats.Doubted > 0) != (run == 0) || stats.LostCommits != 0 {
					t.Errorf("%s, run %d: flags %x, %d entries, %v, %+v", name, run, e.Flags, count(t, s, record.KindEntry), err, stats)
				}
				if s.Boot() <= between.Boot()+uint32(run) || s.Boot() > 2000 || s.Doubt() != 1 || strings.Contains(said.String(), "put back") != (run == 0) {
					t.Errorf("%s, run %d: boot %d, doubt %d after %d and %d, it says %s", name, run, s.Boot(), s.Doubt(), between.Boot(), between.Doubt(), said.String())
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}
