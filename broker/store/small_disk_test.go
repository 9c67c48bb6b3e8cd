package store

import (
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/record"
)

// smallDisk is a disk of so many bytes; what is over is ENOSPC.
type smallDisk struct {
	*vfs.MemFS
	size uint64
}

// used is how much a directory has, with all below it.
func used(mem vfs.FS, dir string) (sum uint64) {
	names, _ := mem.List(dir)
	for _, n := range names {
		if info, err := mem.Stat(path.Join(dir, n)); err == nil && info.IsDir() {
			sum += used(mem, path.Join(dir, n))
		} else if err == nil {
			sum += uint64(info.Size())
		}
	}
	return sum
}

func (d *smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	u, size := used(d.MemFS, "data"), d.size
	return vfs.DiskUsage{AvailBytes: size - min(size, u), TotalBytes: size, UsedBytes: u}, nil
}

// limited is the disk with its limit; lies has it say that there is always space.
func (d *smallDisk) limited(lies bool) vfs.FS {
	var fsys vfs.FS = d
	if lies {
		d.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 40, TotalBytes: 1 << 40})
		fsys = d.MemFS
	}
	return errorfs.Wrap(fsys, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileWrite, errorfs.OpCreate, errorfs.OpMkdirAll:
			if used(d.MemFS, "data") >= d.size {
				return syscall.ENOSPC
			}
		}
		return nil
	}))
}

const (
	smallSessions = 5
	smallQueued   = 1500
	smallReserve  = 512 << 10
)

// fillSmall makes a store with Sessions, a Retained Message, and a queue of what cannot be compressed, and damages what says
// which tables there are; what it gives mends that.
func fillSmall(t *testing.T, config Config, more ...[]byte) (mend func()) {
	t.Helper()
	s, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	a := newAsked()
	s.Start(a)
	r, text := rand.New(rand.NewPCG(1, 2)), make([]byte, 1000)
	for pos := range uint64(smallQueued) {
		for i := range text {
			text[i] = byte(r.Uint32())
		}
		s.Commit(0, entryBatch(1, pos, string(text)))
		if pos%300 == 0 {
			s.Commit(0, record.AppendSet(nil, record.SessionKey(nil, 1+pos/300), (&record.Session{ClientID: fmt.Sprint("c", pos), Expiry: 1<<32 - 1}).Append(nil)))
		}
	}
	for _, ops := range more {
		s.Commit(0, ops)
	}
	a.until(t, "commits", func() bool { return a.committed == smallQueued+smallSessions+len(more) })
	if err := s.in.do((*pebble.DB).Flush); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return damageManifest(t, config.FS)
}

// TestSalvageOnASmallDisk: a damaged store starts however little room there is for a copy, with all Sessions and as much of what waits for them as
// fits; it says what is missing, what it has and lacks is all there was, and the broker has space to work. With room for everything nothing is missing.
func TestSalvageOnASmallDisk(t *testing.T) {
	last := 0
	for _, room := range []uint64{2, 4, 6, 8, 10, 12, 16} { // halves of 1 MiB beside the damaged store, which has about three
		for _, lies := range []bool{false, true} {
			mem := dataDir(t)
			var said strings.Builder
			config := Config{Dir: "data", FS: mem, MemTableBytes: 128 << 10, CacheBytes: 1 << 20, ReserveBytes: smallReserve, Warn: func(text string) { fmt.Fprintln(&said, text) }}
			fillSmall(t, config)
			disk := &smallDisk{MemFS: mem, size: used(mem, "data") + room<<19}
			config.FS = disk.limited(lies)
			s, err := Open(config)
			if err != nil {
				t.Fatalf("room %d, lies %v: %v", room, lies, err)
			}
			sessions, queued := 0, 0
			if err := s.Each(record.KindSession, func(_, _ []byte) error { sessions++; return nil }); err != nil {
				t.Fatal(err)
			}
			if err := s.Each(record.KindEntry, func(_, _ []byte) error { queued++; return nil }); err != nil {
				t.Fatal(err)
			}
			left := int(s.counts.leftRecords.Load())
			if sessions != smallSessions || queued+left < smallQueued || s.counts.salvages.Load() != 1 || s.Doubt() != 1 {
				t.Errorf("room %d, lies %v: %d Sessions, %d queued and %d left of %d, doubt %v, %d salvages", room, lies, sessions, queued, left, smallQueued, s.Doubt(), s.counts.salvages.Load())
			}
			if text := said.String(); strings.Contains(text, "no room") != (left > 0) {
				t.Errorf("room %d, lies %v: %d left, it says %s", room, lies, left, text)
			}
			if u, _ := disk.GetDiskUsage(""); queued > 0 && left > 0 && s.refusalFor(u.AvailBytes, broker.RefuseNothing) != broker.RefuseNothing {
				t.Errorf("room %d, lies %v: %d queued, and only %d bytes are free", room, lies, queued, u.AvailBytes)
			}
			t.Logf("room %d, lies %v: %d queued, %d left", room, lies, queued, left)
			last = queued
			if err := s.shut(); err != nil {
				t.Error(err)
			}
		}
	}
	if last != smallQueued {
		t.Errorf("with much room there are %d queued of %d", last, smallQueued)
	}
}

// TestSalvageWaitsForRoom: a broker that runs salvages nothing before there is room for all of it, says so, and goes on by itself when there is,
// with everything. What a disk that is full all the same has taken of a copy is given back.
func TestSalvageWaitsForRoom(t *testing.T) {
	for _, known := range []bool{true, false} {
		mem := vfs.NewMem()
		fill(t, mem, true)
		path := largestTable(t, mem)
		b := content(t, mem, path)
		copy(b[len(b)/3:], "damage")
		if err := writeFile(mem, path, b); err != nil {
			t.Fatal(err)
		}
		var full atomic.Bool
		fsys := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpFileWrite && strings.Contains(op.Path, "salvaged") && full.Load() {
				return syscall.ENOSPC
			}
			return nil
		}))
		s, err := Open(Config{Dir: "data", FS: fsys, MemTableBytes: 64 << 10, CacheBytes: 1 << 20, ReserveBytes: 8 << 10, Warn: func(text string) { t.Log(text) }})
		if err != nil {
			t.Fatal(err)
		}
		a := newAsked()
		full.Store(!known)
		word := syscall.ENOSPC.Error()
		if known {
			setFree(mem, 20<<10) // of which the store wants nothing yet
			word = "not salvaged yet: to copy what can be read needs"
		}
		s.Start(a)
		s.Load(broker.Load{SID: 1, From: 0, To: damagedEntries, Entries: damagedEntries, Bytes: 1 << 30})
		for start := time.Now(); !strings.Contains(s.Health().Why, word); time.Sleep(time.Millisecond) {
			if time.Since(start) > 20*time.Second {
				t.Fatalf("space known %v: its health is %+v", known, s.Health())
			}
		}
		if left, _ := mem.List("data/salvaged"); len(left) > 0 && known {
			t.Errorf("%q has begun", left)
		}
		full.Store(false)
		setFree(mem, 1<<40)
		a.until(t, "the load", func() bool { return len(a.loaded) == 1 && !a.refusing })
		if n := len(a.loaded[0].Entries); n < damagedEntries*9/10 || s.counts.leftRecords.Load() != 0 || s.counts.salvages.Load() != 1 {
			t.Errorf("space known %v: %d of %d entries, %d left, %d salvages", known, n, damagedEntries-1, s.counts.leftRecords.Load(), s.counts.salvages.Load())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
