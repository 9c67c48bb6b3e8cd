package store

import (
	"errors"
	"fmt"
	"path/filepath"
)

// whyFile is in a store that was put aside, and says why. In the database it says that somebody has put that store back: what the store in
// between has brought to its end is there in an older state, as after a loss.
const whyFile = "WHY"

// putBackBoots is more runs than the store in between has had: where progress is gone nothing says how many, and there are numbers for 16,000 times as
// many. Packet Identifiers begin half a round behind that store's first.
const putBackBoots = 1000

func (s *Store) whyFile() string { return filepath.Join(s.databaseDir(), whyFile) }

// isPutBack says whether the database was put aside once.
func (s *Store) isPutBack() bool {
	_, err := s.config.FS.Stat(s.whyFile())
	return err == nil
}

// lastBoot is the last boot number that can have been used, when a database knows of one.
func (s *Store) lastBoot(boot uint32, putBack bool) uint32 {
	if !putBack {
		return boot
	}
	_, noted := s.readProgress()
	return max(boot, noted) + putBackBoots
}

// forgetPutBack is for when doubt is settled durably: no run is in doubt for that any more.
func (s *Store) forgetPutBack(doubted int64) error {
	s.warn(fmt.Sprintf("the store was put back in its place: what was taken without it is gone, and %d messages of QoS 2 that may have been "+
		"delivered meanwhile are not delivered again", doubted))
	if err := errors.Join(s.config.FS.Remove(s.whyFile()), syncDir(s.config.FS, s.databaseDir())); err != nil {
		return s.unusable(err)
	}
	return nil
}
