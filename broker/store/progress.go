package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// progress is a file beside the database that says how many commits were made durable, and in which run. It is written
// after each and never synced, so it can only be behind the database: where it is ahead at the next start, the disk has said that
// it kept what it did not keep. Without it, such a loss would look like an earlier state and no more.
type progress struct {
	file vfs.File // nil: none
	text [progressBytes]byte
}

// progressBytes is the file's size: commits, boot number, checksum of both.
const progressBytes = 8 + 4 + 4

func (s *Store) progressFile() string { return filepath.Join(s.config.Dir, "progress") }

// readProgress reads the file; zeros where there is none or it is torn, for it proves nothing then.
func (s *Store) readProgress() (commits uint64, boot uint32) {
	f, err := s.config.FS.Open(s.progressFile())
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	var b [progressBytes]byte
	if _, err := io.ReadFull(f, b[:]); err != nil || crc32.ChecksumIEEE(b[:12]) != binary.BigEndian.Uint32(b[12:]) {
		return 0, 0
	}
	return binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint32(b[8:])
}

// open begins to write the file. A disk that does not take it costs the proof and nothing else.
func (p *progress) open(s *Store) {
	f, err := s.config.FS.OpenReadWrite(s.progressFile(), vfs.WriteCategoryUnspecified)
	if err != nil {
		s.warn("lost commits would not be noticed: " + err.Error())
		return
	}
	p.file = f
}

// note writes where the store is.
func (p *progress) note(commits uint64, boot uint32) {
	if p.file == nil {
		return
	}
	b := p.text[:]
	binary.BigEndian.PutUint64(b, commits)
	binary.BigEndian.PutUint32(b[8:], boot)
	binary.BigEndian.PutUint32(b[12:], crc32.ChecksumIEEE(b[:12]))
	_, _ = p.file.WriteAt(b, 0) // what is old says less, and nothing wrong
}

func (p *progress) close() error {
	if p.file == nil {
		return nil
	}
	return p.file.Close()
}

// raiseProgress is for before the database is opened, after which nothing else tells of commits that its logs lack: as long as that is not settled they are missing
// at the end.
func (s *Store) raiseProgress(commits uint64) {
	noted, boot := s.readProgress()
	if noted >= commits {
		return
	}
	p := progress{}
	p.open(s)
	if p.file == nil {
		return
	}
	p.note(commits, boot)
	_ = errors.Join(p.file.Sync(), p.close(), syncDir(s.config.FS, s.config.Dir))
}

// compareProgress says how many durable commits of earlier runs are gone, and the last boot number that was used.
func (s *Store) compareProgress(commits uint64, boot uint32) (lost uint64, lastBoot uint32) {
	noted, notedBoot := s.readProgress()
	if noted <= commits {
		return 0, max(boot, notedBoot)
	}
	return noted - commits, max(boot, notedBoot)
}

// tellLoss makes it known that commits are gone.
func (s *Store) tellLoss(lost uint64, doubted int64) {
	s.warn(fmt.Sprintf("%d commits of the last run are gone, and acknowledged messages with them; "+
		"%d messages of QoS 2 that may have been delivered are not delivered again; %s", lost, doubted, s.whyLost()))
}

// whyLost says how commits can be lost.
func (s *Store) whyLost() string {
	switch s.config.Durability {
	case None:
		return "durability none keeps them in memory until there is enough for a table"
	case OS:
		return "durability os does not survive loss of power"
	}
	return "the disk has confirmed writes that it did not keep: switch its volatile write cache off, or use one that survives loss of power"
}

// removeProgress is for a run that proves nothing.
func (s *Store) removeProgress() error {
	err := s.config.FS.Remove(s.progressFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
