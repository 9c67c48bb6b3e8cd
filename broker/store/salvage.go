package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// isDamage says whether a store cannot be opened because of what is in it, and not because of the machine.
func isDamage(err error) bool {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EIO) || isReadOnly(err) || errors.Is(err, syscall.EMFILE) {
		return false
	}
	return pebble.IsCorruptionError(err) || errors.Is(err, fs.ErrNotExist) || err != nil
}

// salvage puts a damaged store aside, under a name that says when, and makes a new one of what can be read of it.
func (s *Store) salvage(why error) (*instance, error) {
	aside := filepath.Join(s.config.Dir, "damaged-"+time.Now().UTC().Format("20060102T150405.000"))
	fsys := s.config.FS
	if err := fsys.Rename(s.databaseDir(), aside); err != nil {
		return nil, err
	}
	if err := errors.Join(writeFile(fsys, filepath.Join(aside, "WHY"), []byte(why.Error()+"\n")), fsys.MkdirAll(s.databaseDir(), 0o700)); err != nil {
		return nil, err
	}
	s.fresh = true
	in, err := s.openInstance()
	s.fresh = false
	if err = errors.Join(err, syncDir(fsys, s.config.Dir)); err != nil {
		return nil, err
	}
	saved, lost := s.salvageRecords(in, aside)
	s.warn(fmt.Sprintf("the store was damaged (%v): it is kept in %s, %d records were read from it, %d files could not be read to their end", why, aside, saved, lost))
	return in, nil
}

// salvageRecords copies what can be read of a damaged store's tables and logs. The newest version of each record counts; as
// nothing says any more which table is newer, all versions go into the new store first, under a prefix and with their
// number, and then the newest of each is put in its place.
func (s *Store) salvageRecords(in *instance, aside string) (saved, lost int) {
	names, err := s.config.FS.List(aside)
	if err != nil {
		return 0, 1
	}
	v := versions{}
	for _, name := range names {
		path := filepath.Join(aside, name)
		err = nil
		switch filepath.Ext(name) {
		case ".sst":
			err = in.do(func(db *pebble.DB) error { v.db = db; return v.readTable(s.config.FS, path) })
		case ".log":
			err = in.do(func(db *pebble.DB) error { v.db = db; return v.readLog(s.config.FS, path) })
		}
		if err != nil {
			lost++
		}
	}
	if err := in.do(func(db *pebble.DB) error { v.db = db; return v.settle() }); err != nil {
		s.warn("salvage: " + err.Error())
	}
	return v.saved, lost
}
