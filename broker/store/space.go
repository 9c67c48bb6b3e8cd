package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ringmq/ringmq/broker"
)

// errEnough ends an iteration early.
var errEnough = errors.New("enough")

// space is what is known of the disk's free space.
type space struct {
	mu    sync.Mutex // guards what follows
	asked time.Time
	avail uint64
	level broker.Refusal // what is refused for want of space
}

// spaceMarks are the free space, in halves of the reserve, below which each level refuses. Messages come first: they are what
// fills a disk. Down to half of the reserve what is there already goes on, for that Sessions take up what waits for them, acknowledge it and end
// is what frees space. The last half is what Pebble needs for tables that it has begun, and for being opened again.
var spaceMarks = [...]uint64{broker.RefuseMessages: 4, broker.RefuseNew: 2, broker.RefuseAll: 1}

// spaceAgain is by what part of it there must be more than a mark before what it refuses is taken again: the space that a disk has left goes up
// and down with each table, and with it would what clients are told.
const spaceAgain = 4

// refusalFor is the level for so much free space, when it was at level now.
func (s *Store) refusalFor(avail uint64, now broker.Refusal) (level broker.Refusal) {
	for l, halves := range spaceMarks {
		mark := halves * uint64(s.config.ReserveBytes) / 2
		if broker.Refusal(l) <= now {
			mark += mark / spaceAgain
		}
		if avail < mark {
			level = broker.Refusal(l)
		}
	}
	return level
}

// look asks the file system, not too often.
func (p *space) look(s *Store) (avail uint64, level broker.Refusal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.asked) >= spaceEvery {
		p.asked = time.Now()
		u, err := s.config.FS.GetDiskUsage(s.config.Dir)
		if p.avail, p.level = u.AvailBytes, s.refusalFor(u.AvailBytes, p.level); err != nil {
			p.level = broker.RefuseNothing
		}
	}
	return p.avail, p.level
}

// lookAtSpace refuses what must be refused when space runs low, and takes it again when there is enough.
func (s *Store) lookAtSpace() broker.Refusal {
	avail, level := s.space.look(s)
	if level == broker.RefuseNothing {
		s.over(noSpace)
		return level
	}
	mark := spaceMarks[level] * uint64(s.config.ReserveBytes) / 2
	s.troubled(noSpace, level, fmt.Sprintf("%d MiB are left on the disk of %s, and at %d it was too little; free some, then it goes on by itself",
		avail>>20, s.config.Dir, mark>>20))
	return level
}

// waitForSpace lets a commit pass while there is space for it.
func (s *Store) waitForSpace(closing bool) error {
	for s.lookAtSpace() == broker.RefuseAll {
		if closing || s.isClosing() {
			return fmt.Errorf("no space left on the disk of %s", s.config.Dir)
		}
		select {
		case <-s.stop:
		case <-time.After(spaceEvery):
		}
	}
	return nil
}

func (s *Store) ballastFile() string { return filepath.Join(s.config.Dir, "ballast") }

// makeBallast sets space aside. It is no error when there is none.
func (s *Store) makeBallast() {
	fs := s.config.FS
	if info, err := fs.Stat(s.ballastFile()); err == nil && info.Size() >= ballastBytes {
		return
	}
	f, err := fs.Create(s.ballastFile(), vfs.WriteCategoryUnspecified)
	if err != nil {
		return
	}
	zeros := make([]byte, 1<<20)
	for range ballastBytes >> 20 {
		if _, err = f.Write(zeros); err != nil {
			break
		}
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		_ = fs.Remove(s.ballastFile())
	}
}

// dropBallast gives the ballast up when the disk is full, so that the store can be opened and what frees space be written.
func (s *Store) dropBallast(why error) {
	if !isFull(why) {
		return
	}
	if s.config.FS.Remove(s.ballastFile()) == nil {
		s.lighter.Store(true)
		s.warn("the disk is full: the ballast is given up")
	}
}

// keepBallast sets space aside again once there is enough.
func (s *Store) keepBallast() {
	if s.lighter.Load() && !s.Health().Refusing && s.lookAtSpace() == broker.RefuseNothing {
		s.lighter.Store(false)
		s.makeBallast()
	}
}

// isFull says whether the disk has no space. What Pebble says by Fatalf is text.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), syscall.ENOSPC.Error())
}
