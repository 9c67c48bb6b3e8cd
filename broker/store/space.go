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
)

// errEnough ends an iteration early.
var errEnough = errors.New("enough")

// space is what is known of the disk's free space.
type space struct {
	mu    sync.Mutex
	asked time.Time
	avail uint64 // 0 when unknown
	known bool
}

// look asks the file system, not too often.
func (p *space) look(s *Store) (avail uint64, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.asked) >= spaceEvery {
		p.asked = time.Now()
		u, err := s.config.FS.GetDiskUsage(s.config.Dir)
		p.avail, p.known = u.AvailBytes, err == nil
	}
	return p.avail, p.known
}

// enough says that messages may be taken.
func (p *space) enough(s *Store) bool {
	avail, known := p.look(s)
	return !known || avail >= 2*uint64(s.config.ReserveBytes)
}

// lookAtSpace refuses messages when space runs low and takes them again when there is enough.
func (s *Store) lookAtSpace() {
	if s.space.enough(s) {
		s.over(noSpace)
		return
	}
	avail, _ := s.space.look(s)
	s.troubled(noSpace, fmt.Sprintf("%d MiB are left on the disk of %s, fewer than %d", avail>>20, s.config.Dir, 2*s.config.ReserveBytes>>20))
}

// waitForSpace lets a commit pass while there is space at all. What frees space must get through as long as possible, so the reserve
// is below the point at which messages are refused.
func (s *Store) waitForSpace(closing bool) error {
	for {
		s.lookAtSpace()
		if avail, known := s.space.look(s); !known || avail >= uint64(s.config.ReserveBytes) {
			return nil
		}
		if closing || s.isClosing() {
			return fmt.Errorf("no space left on the disk of %s", s.config.Dir)
		}
		select {
		case <-s.stop:
		case <-time.After(spaceEvery):
		}
	}
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
	if s.lighter.Load() && !s.Health().Refusing && s.space.enough(s) {
		s.lighter.Store(false)
		s.makeBallast()
	}
}

// isFull says whether the disk has no space. What Pebble says by Fatalf is text.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), syscall.ENOSPC.Error())
}
