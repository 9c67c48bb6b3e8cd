package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// isDamage says whether a store cannot be opened because of what is in it, and not because of the machine.
func isDamage(err error) bool {
	if err == nil || errors.Is(err, fs.ErrPermission) || isFull(err) {
		return false
	}
	errno, isErrno := errors.AsType[syscall.Errno](err)
	return !isErrno || errno == syscall.ENOENT || errno == syscall.ENOTDIR || errno == syscall.EISDIR
}

// isFile says that where the database should be there is a plain file.
func (s *Store) isFile() bool {
	info, err := s.config.FS.Stat(s.databaseDir())
	return err == nil && !info.IsDir()
}

// isEmpty says that there is no file of a database.
func (s *Store) isEmpty() bool {
	names, err := s.config.FS.List(s.databaseDir())
	return err == nil && len(names) == 0
}

// salvageDir is where a salvaged store is made before it takes the damaged one's place.
func (s *Store) salvageDir() string { return filepath.Join(s.config.Dir, "salvaged") }

// finishSalvage brings a salvage that was cut short to its end when nothing but the last step was missing, and forgets it otherwise.
func (s *Store) finishSalvage() error {
	fsys := s.config.FS
	if _, err := fsys.Stat(s.salvageDir()); err != nil {
		return nil
	}
	if _, err := fsys.Stat(s.databaseDir()); err == nil {
		return fsys.RemoveAll(s.salvageDir())
	}
	return errors.Join(fsys.Rename(s.salvageDir(), s.databaseDir()), syncDir(fsys, s.config.Dir))
}

// salvage makes a new store of what can be read of a damaged one, and puts the old one aside under a name that says when. The
// new one is complete before the old one moves: whenever this is cut short, it starts again or is done.
func (s *Store) salvage(why error) (*instance, error) {
	fsys, dir := s.config.FS, s.salvageDir()
	if err := errors.Join(fsys.RemoveAll(dir), fsys.MkdirAll(dir, 0o700)); err != nil {
		return nil, err
	}
	in, err := s.openInstance(dir, true)
	if err != nil {
		return nil, err
	}
	found, err := s.salvageRecords(in)
	if err != nil {
		in.discard()
		return nil, err
	}
	aside, err := s.putAside(why)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(fsys.Rename(dir, s.databaseDir()), syncDir(fsys, s.config.Dir)); err != nil {
		return nil, err
	}
	s.unread.forget()
	s.damage.Store(nil)
	s.counts.salvages.Add(1)
	s.counts.salvaged.Add(int64(found.saved))
	s.counts.lostRecords.Add(int64(found.lostRecords))
	s.counts.lostFiles.Add(int64(found.lostFiles))
	s.warn(fmt.Sprintf("the store was damaged (%v): it is kept in %s, %v", why, aside, found))
	return s.openInstance(s.databaseDir(), false)
}

// putAside gives the damaged store another name and notes in it what was wrong. A file that is in its place goes into a directory.
func (s *Store) putAside(why error) (aside string, err error) {
	fsys, db := s.config.FS, s.databaseDir()
	aside = filepath.Join(s.config.Dir, "damaged-"+time.Now().UTC().Format("20060102T150405.000"))
	noted, to := db, aside
	if s.isFile() {
		if err := fsys.MkdirAll(aside, 0o700); err != nil {
			return "", err
		}
		noted, to = aside, filepath.Join(aside, "db")
	}
	return aside, errors.Join(writeFile(fsys, filepath.Join(noted, "WHY"), []byte(why.Error()+"\n")), syncDir(fsys, s.config.Dir),
		fsys.Rename(db, to), syncDir(fsys, s.config.Dir))
}

// findings are what salvage has read of a store.
type findings struct {
	saved       int   // records that the new store has
	lostRecords int   // records, and versions of records, in parts of tables that cannot be read
	lostFiles   int   // files of which nothing says how much could not be read
	doubted     int64 // messages of QoS 2 that are not delivered again for that reason
}

// String is what was found in words.
func (f findings) String() string {
	return fmt.Sprintf("%d records were read from it, %d could not be read, %d files could not be read to their end, "+
		"%d messages of QoS 2 that may have been delivered are not delivered again", f.saved, f.lostRecords, f.lostFiles, f.doubted)
}

// salvageRecords copies what can be read of a damaged store's tables and logs. The newest version of each record counts; as
// nothing says any more which table is newer, all versions go into the new store first, under a prefix and with their
// number, and then the newest of each is put in its place.
func (s *Store) salvageRecords(in *instance) (findings, error) {
	f := new(findings) // whoever is still at work for an instance that has failed may write to it, and nobody reads it then
	var names []string
	if s.isFile() {
		f.lostFiles++
	} else {
		var err error
		if names, err = s.config.FS.List(s.databaseDir()); err != nil {
			return findings{}, err
		}
	}
	v, lastLog := versions{}, ""
	for _, name := range names {
		if filepath.Ext(name) == ".log" {
			lastLog = max(lastLog, name)
		}
	}
	for _, name := range names {
		path := filepath.Join(s.databaseDir(), name)
		err := in.do(func(db *pebble.DB) error {
			v.db = db
			switch filepath.Ext(name) {
			case ".sst":
				lost, err := v.readTable(s.config.FS, path)
				f.lostRecords += lost
				return err
			case ".log":
				return v.readLog(s.config.FS, path, name == lastLog)
			}
			return nil
		})
		if in.hasFailed() {
			return findings{}, in.err
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // What has gone since the list was made, Pebble had no use for.
			f.lostFiles++
		}
	}
	if err := s.settleSalvage(in, &v, f); err != nil {
		return findings{}, err
	}
	return *f, nil
}

// settleSalvage puts what was read in its place and closes the new store.
func (s *Store) settleSalvage(in *instance, v *versions, f *findings) error {
	slices.SortFunc(v.ranges, func(a, b deletedRange) int { return cmp.Compare(b.seq, a.seq) })
	lost := f.lostRecords+f.lostFiles > 0
	if err := in.close(func(db *pebble.DB) (err error) {
		v.db = db // which nothing has set when there was no file to read
		if err = v.settle(); err != nil {
			return err
		}
		if f.saved = v.saved; lost {
			if f.doubted, err = settleDoubt(db); err != nil {
				return err
			}
		}
		return db.Flush()
	}); err != nil {
		return err
	}
	s.doubt = s.doubt || lost
	s.counts.doubted.Add(f.doubted)
	return nil
}
