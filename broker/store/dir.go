package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// formatVersion counts the forms of package record. There has been one so far, and any other is refused. Who changes the form raises it, and has
// Open bring a store of an older one forward before anything reads it.
const formatVersion = 1

const formatWords = "ringmq store format "

// databaseFormat is Pebble's own format. It belongs to formatVersion: a newer one is written from a newer formatVersion on, so that nobody loses the
// way back to the ringmq of yesterday by a new Pebble alone.
const databaseFormat = pebble.FormatValueSeparation

// openDir judges the directory before it changes anything in it, takes its lock and notes the format.
func (s *Store) openDir() error {
	dir, fsys := s.config.Dir, s.config.FS
	info, err := fsys.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("data directory %s does not exist; make it with mkdir, owned by the user that runs ringmq", dir)
	case err != nil:
		return fmt.Errorf("data directory: %w; name a directory that the user that runs ringmq can reach", err)
	case !info.IsDir():
		return fmt.Errorf("data directory %s is a file; name a directory", dir)
	}
	names, err := fsys.List(dir)
	if err != nil {
		return fmt.Errorf("data directory: %w; make it readable and writable for the user that runs ringmq", err)
	}
	if s.fresh, err = s.judge(names); err != nil {
		return err
	}
	if err := s.takeLock(); err != nil {
		return err
	}
	if err := s.prepareDir(); err != nil {
		return errors.Join(s.unusable(err), s.lock.Close())
	}
	return nil
}

// unusable says what is to be done about a directory in which nothing can be made.
func (s *Store) unusable(err error) error {
	switch {
	case isReadOnly(err):
		return fmt.Errorf("data directory %s is not writable: %w; mount that one for writing, or name another directory", s.config.Dir, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("data directory %s is not writable: %w; make it writable for the user that runs ringmq", s.config.Dir, err)
	case isFull(err):
		return fmt.Errorf("data directory %s: %w; free space, or remove files, on its disk", s.config.Dir, err)
	}
	return fmt.Errorf("data directory %s: %w; mend its disk, or name another directory", s.config.Dir, err)
}

// judge says whether the directory is a fresh one, and what is wrong with it.
func (s *Store) judge(names []string) (fresh bool, err error) {
	dir := s.config.Dir
	ours := false
	if slices.Contains(names, "FORMAT") {
		if ours, err = s.judgeFormat(); err != nil && errors.Is(err, errBadFormat) && s.hasDatabase() {
			s.warn(err.Error() + ": it is written anew, for there is a database")
			ours, s.badFormat, err = true, true, nil
		}
		if err == nil {
			err = s.judgeDatabase()
		}
		if err != nil {
			return false, err
		}
	} else {
		known := []string{"lost+found", "LOCK", "ballast", "db", "progress", probeFile, formatNew}
		rest := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(known, n) })
		if s.isFile() {
			rest = append(rest, "db")
		}
		if len(rest) > 0 {
			return false, fmt.Errorf("data directory %s holds other files (%s); name an empty directory", dir, rest[0])
		}
		if s.config.mustExist {
			return false, fmt.Errorf("%s is not a data directory of ringmq: it has no FORMAT", dir)
		}
	}
	// A salvage that was cut short is removed, or is the store.
	if u, err := s.config.FS.GetDiskUsage(dir); err == nil && !s.config.mustExist &&
		u.AvailBytes+dirSize(s.config.FS, s.salvageDir()) < 2*uint64(s.config.ReserveBytes) {
		return false, fmt.Errorf("data directory %s: %d MiB are free on its disk and %d are needed; free some, or name a directory elsewhere",
			dir, u.AvailBytes>>20, 2*s.config.ReserveBytes>>20)
	}
	return !ours, nil
}

func (s *Store) formatFile() string { return filepath.Join(s.config.Dir, "FORMAT") }

// hasDatabase says that there is a database, whatever FORMAT says.
func (s *Store) hasDatabase() bool {
	names, _ := s.config.FS.List(s.databaseDir())
	return slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "MANIFEST-") })
}

// judgeDatabase refuses a database that a newer Pebble has made, which looks like damage to this one. The format is the end of the name of a file,
// of which the last one counts.
func (s *Store) judgeDatabase() error {
	names, _ := s.config.FS.List(s.databaseDir())
	last, format := 0, 0
	for _, n := range names {
		var number, value int
		if _, err := fmt.Sscanf(n, "marker.format-version.%d.%d", &number, &value); err == nil && number >= last {
			last, format = number, value
		}
	}
	if format > int(databaseFormat) {
		return fmt.Errorf("data directory %s has a database of format %d, and this ringmq knows formats up to %d; run the newer ringmq", s.config.Dir, format, databaseFormat)
	}
	return nil
}

// errBadFormat is that FORMAT cannot be what ringmq has written.
var errBadFormat = errors.New("name another directory")

// judgeFormat reads FORMAT. One that is empty was cut short by a loss of power, and says no more than none.
func (s *Store) judgeFormat() (ours bool, err error) {
	f, err := s.config.FS.Open(s.formatFile())
	if err != nil {
		return false, fmt.Errorf("data directory: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, 256))
	if err = errors.Join(err, f.Close()); isUnread(err) {
		return false, fmt.Errorf("%s cannot be read: %w; %w", s.formatFile(), err, errBadFormat)
	} else if err != nil {
		return false, fmt.Errorf("data directory: %w", err)
	}
	if len(bytes.Trim(text, "\x00")) == 0 {
		return false, nil
	}
	var version int
	if _, err := fmt.Sscanf(strings.TrimSpace(string(text)), formatWords+"%d", &version); err != nil {
		return false, fmt.Errorf("%s is not ringmq's; %w", s.formatFile(), errBadFormat)
	}
	if version < 1 {
		return false, fmt.Errorf("%s says format %d, which no ringmq has made; %w", s.formatFile(), version, errBadFormat)
	}
	if version > formatVersion {
		return false, fmt.Errorf("data directory %s has format %d, and this ringmq knows formats up to %d; run the newer ringmq", s.config.Dir, version, formatVersion)
	}
	return true, nil
}

// ErrInUse is that another process has the store open.
var ErrInUse = errors.New("in use by another process")

func (s *Store) takeLock() (err error) {
	name := filepath.Join(s.config.Dir, "LOCK")
	if info, err := s.config.FS.Stat(name); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a directory, and it is to be a file; remove it", name)
	}
	if s.lock, err = s.config.FS.Lock(name); s.config.readOnly && (isReadOnly(err) || errors.Is(err, fs.ErrPermission)) {
		s.lock, err = s.lockToRead(name)
	}
	if err == nil {
		return nil
	}
	if !isTaken(err) {
		return s.unusable(err)
	}
	return fmt.Errorf("data directory %s is %w (%v); stop that, or name another directory", s.config.Dir, ErrInUse, err)
}

// lockToRead is for tools on a directory that they may not change. Where there is no file to be locked nobody serves.
func (s *Store) lockToRead(name string) (io.Closer, error) {
	f, err := s.config.FS.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nothing{}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := lockShared(f.Fd()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// prepareDir makes what the directory lacks. One that has all can be one in which nothing new can be made: it is found out now, and not by
// the first failure of the disk or the first damage, of which such a store would never recover.
func (s *Store) prepareDir() error {
	if s.config.mustExist {
		return nil
	}
	if err := s.tryDisk(); err != nil {
		return err
	}
	if err := s.finishSalvage(); err != nil {
		return err
	}
	if !s.isFile() { // which is salvaged
		if err := s.config.FS.MkdirAll(s.databaseDir(), 0o700); err != nil {
			return err
		}
	}
	s.makeBallast()
	return nil
}

// noteFormat says that the directory has a store from now on: that it is found empty later means damage.
func (s *Store) noteFormat() error {
	s.fresh, s.badFormat = false, false
	return noteFormat(s.config.FS, s.config.Dir)
}

// formatNew is FORMAT until it is whole.
const formatNew = "FORMAT.new"

func noteFormat(fsys vfs.FS, dir string) error {
	name := filepath.Join(dir, formatNew)
	if err := writeFile(fsys, name, fmt.Appendf(nil, "%s%d\n", formatWords, formatVersion)); err != nil {
		return err
	}
	return errors.Join(fsys.Rename(name, filepath.Join(dir, "FORMAT")), syncDir(fsys, dir))
}

func writeFile(fsys vfs.FS, name string, text []byte) error {
	f, err := fsys.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(fsys vfs.FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
