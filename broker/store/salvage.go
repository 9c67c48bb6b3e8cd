package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ringmq/ringmq/broker/record"
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

// hasFiles says that the database's directory is there, and not empty: where it is not, its disk may be.
func (s *Store) hasFiles() bool {
	names, err := s.config.FS.List(s.databaseDir())
	return err == nil && len(names) > 0
}

// salvageDir is where a salvaged store is made before it takes the damaged one's place.
func (s *Store) salvageDir() string { return filepath.Join(s.config.Dir, "salvaged") }

// onlyLastStep says that of a salvage nothing but the last step is missing: the new store is whole, and the old one has moved aside.
func (s *Store) onlyLastStep() bool {
	if _, err := s.config.FS.Stat(s.salvageDir()); err != nil {
		return false
	}
	_, err := s.config.FS.Stat(s.databaseDir())
	return errors.Is(err, fs.ErrNotExist)
}

// lastStep puts the new store in the old one's place, and says what the salvage has found unless that was another run's.
func (s *Store) lastStep() error {
	if err := s.config.FS.Rename(s.salvageDir(), s.databaseDir()); err != nil {
		return err
	}
	s.unread.forget()
	s.damage.Store(nil)
	s.tellSalvage()
	return syncDir(s.config.FS, s.config.Dir)
}

// tellSalvage makes known what a salvage of this run has found.
func (s *Store) tellSalvage() {
	last := s.salvaged
	s.salvaged = salvaged{}
	if last.why == nil {
		return
	}
	s.doubt.Store(last.found.doubt)
	s.counts.doubted.Add(last.found.doubted)
	s.counts.salvages.Add(1)
	s.counts.salvaged.Add(int64(last.found.saved))
	s.counts.lostRecords.Add(int64(last.found.lostRecords))
	s.counts.lostFiles.Add(int64(last.found.lostFiles))
	s.counts.leftRecords.Add(int64(last.found.left))
	if last.found.gone > 0 {
		s.lacks.Store(0) // it is told now, as progress was raised
	}
	switch f := last.found; {
	case f.gone > 0 && f.lostRecords+f.lostFiles > 0: // with what could not be read, as f says
		s.counts.lostCommits.Add(int64(f.gone))
	case f.gone > 0:
		s.tellGone(f.gone)
	}
	s.warn(fmt.Sprintf("the store was damaged (%v): it is kept in %s, %v", last.why, last.aside, last.found))
}

// openDatabase opens the store. Pebble would make a directory where there is none, so a salvage whose last step failed comes first.
func (s *Store) openDatabase() (*instance, error) {
	if s.onlyLastStep() {
		if s.config.readOnly {
			return nil, fmt.Errorf("a salvage of it lacks its last step; start ringmq serve with it once")
		}
		if err := s.lastStep(); err != nil {
			return nil, err
		}
	}
	if err := s.checkManifest(); err != nil {
		return nil, err
	}
	s.lacks.Store(max(s.lacks.Load(), s.lackingCommits()))
	return s.openInstance(s.databaseDir(), s.fresh)
}

// finishSalvage brings a salvage that was cut short to its end when nothing but the last step was missing, and forgets it otherwise.
func (s *Store) finishSalvage() error {
	if s.onlyLastStep() {
		return s.lastStep()
	}
	return s.config.FS.RemoveAll(s.salvageDir())
}

// salvage makes a new store of what can be read of a damaged one, and puts the old one aside under a name that says when. The
// new one is complete before the old one moves: whenever this is cut short or fails, it starts again or is done. A broker that runs waits
// until there is room for all of it; one that starts does with what fits.
func (s *Store) salvage(why error, starts bool) error {
	if s.onlyLastStep() {
		return s.lastStep()
	}
	for amount := salvageAll; ; amount++ {
		err := s.makeSalvage(why, amount, starts)
		if err == nil {
			return s.lastStep()
		}
		if s.onlyLastStep() {
			return err
		}
		if err := errors.Join(err, s.config.FS.RemoveAll(s.salvageDir())); !isFull(err) || !starts || amount == salvageNothing {
			return err
		}
	}
}

// makeSalvage is all of salvage but the last step.
func (s *Store) makeSalvage(why error, amount salvageAmount, starts bool) error {
	fsys, dir := s.config.FS, s.salvageDir()
	if err := fsys.RemoveAll(dir); err != nil {
		return err
	}
	missing := s.missingRoom()
	if missing > 0 && !starts {
		return fmt.Errorf("to copy what can be read needs %d MiB more than are free on the disk of %s; free them, or start the "+
			"broker again: it begins with what fits then", missing>>20+1, s.config.Dir)
	}
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	in, err := s.openInstance(dir, true)
	if err != nil {
		return err
	}
	found, err := s.salvageRecords(in, why, s.passes(amount, missing))
	if err != nil {
		in.discard()
		return err
	}
	found.missing = missing
	s.salvaged = salvaged{why: why, found: found}
	return s.putAside(why)
}

// salvageAmount is how much of a damaged store is copied.
type salvageAmount int

// Each is for when the one before has filled the disk.
const (
	salvageAll salvageAmount = iota
	salvageFirst
	salvageNothing
)

// missingRoom is how many bytes more than there are a copy of everything needs at worst: records are collected, and then put in their place.
func (s *Store) missingRoom() uint64 {
	needed := 2*dirSize(s.config.FS, s.databaseDir()) + uint64(s.config.ReserveBytes)/2
	avail, known := s.free()
	if !known || avail >= needed {
		return 0
	}
	return needed - avail
}

// free is how much space is free; where the file system does not say, writing will.
func (s *Store) free() (avail uint64, known bool) {
	u, err := s.config.FS.GetDiskUsage(s.config.Dir)
	return u.AvailBytes, err == nil
}

// roomEvery is after how many bytes a salvage asks how much space there is.
const roomEvery = 64 << 10

// pass is one reading of a damaged store.
type pass struct {
	kinds kindSet
	full  func(written int) bool // says whether there is room for nothing more, after so many bytes; nil: there is for all
}

// kindSet are kinds of records.
type kindSet int

const (
	allKinds   kindSet = iota
	firstKinds         // what clients cannot give again, which is little: Sessions, subscriptions, Packet Identifiers, and Retained Messages
	queueKinds         // what waits for clients
)

// has says whether a key is of these kinds.
func (k kindSet) has(key []byte) bool {
	queue := false
	if len(key) > 0 {
		switch record.Kind(key[0]) {
		case record.KindMessage, record.KindEntry, record.KindReference:
			queue = true
		}
	}
	return k == allKinds || queue == (k == queueKinds)
}

// passes are the readings that put so much in.
func (s *Store) passes(amount salvageAmount, missing uint64) []pass {
	nothing := func(int) bool { return true }
	switch {
	case amount == salvageNothing:
		return []pass{{allKinds, nothing}}
	case amount == salvageFirst:
		return []pass{s.newPass(firstKinds, 1), {queueKinds, nothing}}
	case missing > 0: // With what waits there should be room to work.
		return []pass{s.newPass(firstKinds, 1), s.newPass(queueKinds, 5)}
	}
	return []pass{{}}
}

// newPass is a pass that leaves so many halves of the reserve free when everything has been put in its place, which takes what was collected once more.
func (s *Store) newPass(kinds kindSet, halves uint64) pass {
	first, _ := s.free()
	leave := halves * uint64(s.config.ReserveBytes) / 2
	asked, isFull := -roomEvery, false
	return pass{kinds, func(written int) bool {
		if !isFull && written-asked >= roomEvery {
			asked = written
			avail, known := s.free()
			inMemory := min(uint64(written), memTables*uint64(s.config.MemTableBytes)) // which may be in a log as well, until it is in tables
			isFull = known && first < leave+2*(first-min(avail, first)+inMemory)
		}
		return isFull
	}}
}

// dirSize is how many bytes the files of a directory have; 0 where there is none.
func dirSize(fsys vfs.FS, dir string) (size uint64) {
	names, _ := fsys.List(dir)
	for _, name := range names {
		if info, err := fsys.Stat(filepath.Join(dir, name)); err == nil && !info.IsDir() {
			size += uint64(info.Size())
		}
	}
	return size
}

// putAside gives the damaged store another name and notes in it what was wrong. A file that is in its place goes into a directory.
func (s *Store) putAside(why error) error {
	fsys, db := s.config.FS, s.databaseDir()
	aside := filepath.Join(s.config.Dir, "damaged-"+time.Now().UTC().Format("20060102T150405.000"))
	s.salvaged.aside = aside
	to := aside
	if s.isFile() {
		if err := fsys.MkdirAll(aside, 0o700); err != nil {
			return err
		}
		to = filepath.Join(aside, "db")
	}
	if err := errors.Join(syncDir(fsys, s.config.Dir), fsys.Rename(db, to)); err != nil {
		return err
	}
	if err := syncDir(fsys, s.config.Dir); err != nil {
		return err
	}
	// Not before it has moved: in its place the note would say that somebody has put the store back.
	note := filepath.Join(aside, whyFile)
	if err := errors.Join(writeFile(fsys, note, []byte(why.Error()+"\n")), syncDir(fsys, aside)); err != nil {
		s.warn(fmt.Sprintf("%s cannot be written (%v): before you put that store back make the file, which says that it was put aside", note, err))
	}
	return nil
}

// salvaged is the last salvage.
type salvaged struct {
	why   error
	aside string // where the damaged store is
	found findings
}

// findings are what salvage has read of a store.
type findings struct {
	saved       int   // records that the new store has
	left        int   // records, and versions of records, for which there was no room
	lostRecords int   // records, and versions of records, in parts of tables that cannot be read
	lostFiles   int   // files that are not there, or of which nothing says how much could not be read
	doubted     int64 // messages of QoS 2 that are not delivered again for that reason
	doubt       uint32
	missing     uint64
	putBack     bool   // it had been put aside before
	gone        uint64 // commits that are gone, where that can be told
}

// String is what was found in words.
func (f findings) String() string {
	text := fmt.Sprintf("%d records were read from it, %d could not be read, %d files are gone or could not be read to their end, "+
		"%d messages of QoS 2 that may have been delivered are not delivered again", f.saved, f.lostRecords, f.lostFiles, f.doubted)
	if f.gone > 0 && f.lostRecords+f.lostFiles > 0 {
		text += fmt.Sprintf("; %d commits are gone with that: messages that were acknowledged, and Sessions and subscriptions made since", f.gone)
	}
	if f.putBack {
		text += "; it had been put back in its place, and what was taken without it is gone"
	}
	if f.left > 0 {
		text += fmt.Sprintf("; for %d more records and versions of records there was no room, and they are there only: to have them, stop the broker, free %d MiB, "+
			"remove db beside it, rename it to db and start it again, without what it has taken in between and the messages of QoS 2 that waited", f.left, f.missing>>20+1)
	}
	return text
}

// salvageRecords copies what can be read of a damaged store's tables and logs. The newest version of each record counts; as
// nothing says any more which table is newer, all versions go into the new store first, under a prefix and with their
// number, and then the newest of each is put in its place.
func (s *Store) salvageRecords(in *instance, why error, passes []pass) (findings, error) {
	f := &findings{putBack: s.isPutBack()} // whoever is still at work for an instance that has failed may write to it, and nobody reads it then
	var names []string
	if errors.Is(why, fs.ErrNotExist) {
		f.lostFiles++ // at least
	}
	if s.isFile() {
		f.lostFiles++
	} else {
		var err error
		if names, err = s.config.FS.List(s.databaseDir()); err != nil {
			return findings{}, err
		}
	}
	sortFiles(names) // where room runs out, what was acknowledged lately is known to be
	v := versions{sent: make(map[uint64]uint64), partly: errors.Is(why, fs.ErrNotExist)}
	for i, p := range passes {
		v.pass = p
		lostRecords, lostFiles, err := s.salvagePass(in, &v, names)
		if err != nil {
			return findings{}, err
		}
		if i == 0 {
			f.lostRecords, f.lostFiles = lostRecords, f.lostFiles+lostFiles
		}
	}
	f.left = v.left
	if err := s.settleSalvage(in, &v, f); err != nil {
		return findings{}, err
	}
	return *f, nil
}

// sortFiles puts the newest first.
func sortFiles(names []string) {
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(fileNumber(b), fileNumber(a)) })
}

// fileNumber is the number of a table or a log, which has six digits or more; 0 for other files.
func fileNumber(name string) uint64 {
	n, _ := strconv.ParseUint(strings.TrimSuffix(name, filepath.Ext(name)), 10, 64)
	return n
}

// salvagePass reads all files of a damaged store once.
func (s *Store) salvagePass(in *instance, v *versions, names []string) (lostRecords, lostFiles int, err error) {
	lastLog := "" // the first of them
	if i := slices.IndexFunc(names, func(n string) bool { return filepath.Ext(n) == ".log" }); i >= 0 {
		lastLog = names[i]
	}
	for _, name := range names {
		path := filepath.Join(s.databaseDir(), name)
		lost, left := 0, v.left
		err := s.salvageFile(in, func(db *pebble.DB, patient bool) (err error) {
			v.db, v.left, v.file = db, left, fileNumber(name)
			switch filepath.Ext(name) {
			case ".sst":
				lost, err = v.readTable(s.config.FS, path, patient)
			case ".log":
				err = v.readLog(s.config.FS, path, name == lastLog, patient)
			}
			return err
		})
		if in.hasFailed() {
			return 0, 0, in.err
		}
		lostRecords += lost
		v.partly = v.partly || filepath.Ext(name) == ".sst" && (lost > 0 || err != nil)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // What has gone since the list was made, Pebble had no use for.
			lostFiles++
		}
	}
	return lostRecords, lostFiles, nil
}

// salvageFile reads a file of a damaged store, which what cannot be read of it does not end before the last try: versions that are put
// twice are put once.
func (s *Store) salvageFile(in *instance, read func(db *pebble.DB, patient bool) error) error {
	for n := 1; ; n++ {
		err := in.do(func(db *pebble.DB) error { return read(db, n < unreadMax) })
		if !isUnread(err) || in.hasFailed() || n == unreadMax {
			return err
		}
		select {
		case <-s.stop: // What is lost of it now, when nobody waits any more, would be lost for ever.
			in.fail(err)
			return err
		case <-time.After(unreadPause(s.config.unreadEvery, n)):
		}
	}
}

// settleSalvage puts what was read in its place and closes the new store.
func (s *Store) settleSalvage(in *instance, v *versions, f *findings) error {
	commits, done := s.commits, s.done // whoever goes on with an instance that has failed must not read them
	return in.close(func(db *pebble.DB) (err error) {
		v.db = db // which nothing has set when there was no file to read
		if err = v.settle(); err != nil {
			return err
		}
		f.saved = v.saved
		if err = s.settleNumbers(db, v, f, commits, done); err != nil {
			return err
		}
		if f.lostRecords+f.lostFiles+f.left > 0 {
			if err = errors.Join(reapReferences(db), mendReferences(db)); err != nil {
				return err
			}
		}
		return db.Flush()
	})
}

// settleNumbers sees to it that no number is made twice, and that the next runs know of the doubt: what T and B say may be what was lost.
func (s *Store) settleNumbers(db *pebble.DB, v *versions, f *findings, commits, done uint64) error {
	boot, err := get(db, []byte{byte(record.KindBoot)})
	if err != nil {
		return err
	}
	last := max(v.boot, s.boot)
	if len(boot) == 4 {
		last = max(last, binary.BigEndian.Uint32(boot))
	}
	last = s.lastBoot(last, f.putBack)
	b := db.NewBatch()
	defer b.Close()
	if last > 0 {
		if err := b.Set([]byte{byte(record.KindBoot)}, binary.BigEndian.AppendUint32(nil, last), nil); err != nil {
			return err
		}
	}
	// Where nothing was lost there is doubt as well: files that Pebble had no use for any more, logs that wait to be used again among them,
	// bring back what was deleted. But what says most of up to where queues were sent is never older than they are, unless others have gone on with them.
	// (Where the disk has lied they may be, and then commits are missing, which is found here or by the next start.)
	var sent map[uint64]uint64
	l, err := lastTime(db)
	if err != nil {
		return err
	}
	lost := f.lostRecords+f.lostFiles+f.left > 0
	noted, _ := s.readProgress()
	switch gaps, last := v.lack(); {
	case lost && !f.putBack && last > 0 && last == l.commits: // what the newest log has was the newest
		f.gone = gaps + goneCommits(max(done, noted), l)
	case l.known && (s.config.Durability == None || !lost): // or it was lost, and nobody knows how many
		f.gone = goneCommits(done, l)
	}
	if lost || f.putBack || f.gone > 0 {
		l.commits = max(l.commits, noted, commits) // what is lost with them is told already
	} else {
		sent = v.sent
		if err := addSent(db, sent); err != nil {
			return err
		}
	}
	if f.doubted, err = settleDoubt(db, sent); err != nil {
		return err
	}
	l.doubt = max(l.doubt, v.doubt, s.doubt.Load()) + 1
	f.doubt = l.doubt
	if err := setTime(b, l); err != nil {
		return err
	}
	return db.Apply(b, pebble.NoSync)
}
