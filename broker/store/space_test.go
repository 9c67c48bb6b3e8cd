package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/record"
)

// setFree has the disk say that so much is free.
func setFree(mem *vfs.MemFS, bytes uint64) {
	mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: bytes, TotalBytes: 1 << 40, UsedBytes: 1<<40 - bytes})
}

// TestSpaceRunsOut lets a disk fill step by step and empties it again: what is refused grows and shrinks with it, what frees space is
// written down to half of the reserve, and reading goes on below that.
func TestSpaceRunsOut(t *testing.T) {
	const reserve = uint64(reserveBytes)
	mem := vfs.NewMem()
	setFree(mem, 10*reserve)
	s, a := open(t, mem)
	committed := 0
	commit := func(ops []byte) {
		t.Helper()
		committed++
		s.Commit(0, ops)
		a.until(t, fmt.Sprint("commit ", committed), func() bool { return a.committed == committed })
	}
	level := func(want broker.Refusal) {
		t.Helper()
		a.until(t, fmt.Sprintf("level %d, health %+v", want, s.Health()), func() bool { return len(a.refused) > 0 && a.refused[len(a.refused)-1] == want })
	}
	loaded := 0
	load := func() {
		t.Helper()
		loaded++
		s.Load(broker.Load{SID: 1, From: 0, To: 99, Entries: 9, Bytes: 1 << 20})
		a.until(t, "a load", func() bool { return len(a.loaded) == loaded })
	}
	for pos := range uint64(4) {
		commit(entryBatch(1, pos, "queued"))
	}
	setFree(mem, 2*reserve-1)
	level(broker.RefuseMessages)
	setFree(mem, reserve-1)
	level(broker.RefuseNew)
	load()
	commit(record.AppendDelete(nil, record.EntryKey(nil, 1, 0)))
	setFree(mem, reserve/2-1)
	level(broker.RefuseAll)
	load()
	s.Commit(0, record.AppendDelete(nil, record.EntryKey(nil, 1, 1)))
	time.Sleep(3 * spaceEvery)
	a.mu.Lock()
	if a.committed != committed {
		t.Error("something is written although the reserve is half used")
	}
	a.mu.Unlock()
	setFree(mem, 10*reserve)
	a.until(t, "the commit that waited", func() bool { return a.committed == committed+1 && !a.refusing })
	if got := fmt.Sprint(a.refused); got != "[1 2 3 0]" {
		t.Errorf("the broker was told %s", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestSpaceAtTheMark has free space go up and down around the mark, as it does with each table that comes and goes: the broker is told
// once.
func TestSpaceAtTheMark(t *testing.T) {
	const mark = 2 * uint64(reserveBytes)
	mem := vfs.NewMem()
	setFree(mem, 10*mark)
	s, a := open(t, mem)
	setFree(mem, mark-1)
	a.until(t, "refusal", func() bool { return a.refusing })
	for range 3 {
		setFree(mem, mark+mark/5)
		time.Sleep(3 * spaceEvery)
		setFree(mem, mark-1)
		time.Sleep(3 * spaceEvery)
	}
	setFree(mem, mark+mark/4)
	a.until(t, "the end of it", func() bool { return !a.refusing })
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if got := fmt.Sprint(a.refused); got != "[1 0]" {
		t.Errorf("the broker was told %s", got)
	}
}
