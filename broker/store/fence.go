package store

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// errFenced is what an abandoned instance has failed with.
var errFenced = errors.New("the store was abandoned")

// fenceFS is the file system of one instance of Pebble, which it never tells that a write has failed. The first write, sync or
// other change that fails puts the fence up and fails the instance: nothing that it answers afterwards is believed, and nothing
// that it still does reaches the directory, which a new instance may have open by then. What it makes is kept in memory so that it can
// finish what it is about and be closed.
//
// For Pebble (v2.1.7) does not take errors well: a flush that fails is tried again at once, for ever; a manifest that cannot be written
// ends the process by Fatalf; and so does a log that cannot be made, by a panic with a mutex released that a deferred call releases
// again (DB.rotateWAL), which nothing can recover.
type fenceFS struct {
	vfs.FS
	dir     string // the database's; what is outside, a backup, is none of its business
	up      atomic.Bool
	lazyWAL bool        // Sync of a log only hands it to the operating system
	syncs   *stopwatch  // times those of a log; nil: nobody asks
	failed  func(error) // fails the instance; puts the fence up
	nowhere *vfs.MemFS  // where files are made behind the fence
}

func newFence(fsys vfs.FS, dir string, lazyWAL bool, failed func(error)) *fenceFS {
	return &fenceFS{FS: fsys, dir: dir, lazyWAL: lazyWAL, failed: failed, nowhere: vfs.NewMem()}
}

func (f *fenceFS) inside(name string) bool {
	rest, ok := strings.CutPrefix(name, f.dir)
	return ok && (rest == "" || rest[0] == filepath.Separator)
}

// hidden is a file's name in nowhere, which has no directories.
func hidden(name string) string { return strings.ReplaceAll(name, string(filepath.Separator), "_") }

// change changes the directory unless the fence is up, which it is when that fails.
func (f *fenceFS) change(do func() error) {
	if f.up.Load() {
		return
	}
	if err := do(); err != nil {
		f.failed(writeError{err})
	}
}

// open opens a file that can be written.
func (f *fenceFS) open(name string, c vfs.DiskWriteCategory, do func() (vfs.File, error)) (file vfs.File, err error) {
	if !f.inside(name) {
		return do()
	}
	f.change(func() error { file, err = do(); return err })
	if file != nil && err == nil {
		return &fencedFile{File: file, name: name, fence: f, log: strings.HasSuffix(name, ".log")}, nil
	}
	return f.nowhere.Create(hidden(name), c)
}

// Create makes a file.
func (f *fenceFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.open(name, c, func() (vfs.File, error) { return f.FS.Create(name, c) })
}

// OpenReadWrite opens a file, or makes it.
func (f *fenceFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return f.open(name, c, func() (vfs.File, error) { return f.FS.OpenReadWrite(name, c, o...) })
}

// ReuseForWrite makes a file of an old one.
func (f *fenceFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.open(name, c, func() (vfs.File, error) { return f.FS.ReuseForWrite(old, name, c) })
}

// Open opens a file to read it. Behind the fence a name on the disk may be another store's, after a salvage, and Pebble panics when a table
// is not what it was.
func (f *fenceFS) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	if f.up.Load() && f.inside(name) {
		if file, err := f.nowhere.Open(hidden(name)); err == nil {
			return file, nil
		}
		return nil, errFenced
	}
	file, err := f.FS.Open(name, o...)
	if err != nil || !f.inside(name) {
		return file, err
	}
	return &fencedFile{File: file, name: name, fence: f}, nil
}

// OpenDir opens a directory to sync it.
func (f *fenceFS) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	if err != nil || !f.inside(name) {
		return file, err
	}
	return &fencedFile{File: file, name: name, fence: f}, nil
}

// Stat describes a file.
func (f *fenceFS) Stat(name string) (vfs.FileInfo, error) {
	if f.up.Load() {
		if info, err := f.nowhere.Stat(hidden(name)); err == nil {
			return info, nil
		}
	}
	return f.FS.Stat(name)
}

// MkdirAll makes directories.
func (f *fenceFS) MkdirAll(name string, mode os.FileMode) error {
	if !f.inside(name) {
		return f.FS.MkdirAll(name, mode)
	}
	f.change(func() error { return f.FS.MkdirAll(name, mode) })
	return nil
}

// Link gives a file another name. Pebble falls back on a copy where that cannot be done.
func (f *fenceFS) Link(old, name string) error {
	if f.up.Load() {
		return nil
	}
	return f.FS.Link(old, name)
}

// Remove removes a file; that there is none is an answer.
func (f *fenceFS) Remove(name string) (err error) {
	if !f.inside(name) {
		return f.FS.Remove(name)
	}
	f.change(func() error {
		if err = f.FS.Remove(name); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if f.up.Load() {
		return nil
	}
	return err
}

// RemoveAll removes a directory.
func (f *fenceFS) RemoveAll(name string) error {
	if !f.inside(name) {
		return f.FS.RemoveAll(name)
	}
	f.change(func() error { return f.FS.RemoveAll(name) })
	return nil
}

// Rename renames a file.
func (f *fenceFS) Rename(old, name string) error {
	if !f.inside(name) {
		return f.FS.Rename(old, name)
	}
	f.change(func() error { return f.FS.Rename(old, name) })
	if f.up.Load() {
		_ = f.nowhere.Rename(hidden(old), hidden(name)) // where it was made there
	}
	return nil
}

// Lock does nothing: the whole directory is locked by whoever opened the store.
func (f *fenceFS) Lock(string) (io.Closer, error) { return nothing{}, nil }

// Unwrap is the file system beneath.
func (f *fenceFS) Unwrap() vfs.FS { return f.FS }

type nothing struct{}

// Close does nothing.
func (nothing) Close() error { return nil }

// fencedFile is a file on the disk.
type fencedFile struct {
	vfs.File
	name  string
	fence *fenceFS
	log   bool  // it is a write-ahead log
	size  int64 // of what Write has written
}

// Write writes.
func (f *fencedFile) Write(p []byte) (int, error) {
	f.fence.change(func() error {
		n, err := f.File.Write(p)
		f.size += int64(n)
		return err
	})
	return len(p), nil
}

// WriteAt writes.
func (f *fencedFile) WriteAt(p []byte, at int64) (int, error) {
	f.fence.change(func() error { _, err := f.File.WriteAt(p, at); return err })
	return len(p), nil
}

// Sync makes durable what was written.
func (f *fencedFile) Sync() error { return f.sync(f.File.Sync) }

// SyncData makes durable what was written.
func (f *fencedFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *fencedFile) sync(do func() error) error {
	named := func() error { return f.named(do()) }
	switch {
	case f.log && f.fence.lazyWAL:
	case f.log && f.fence.syncs != nil:
		start := time.Now()
		f.fence.change(named)
		f.fence.syncs.note(start, time.Now())
	default:
		f.fence.change(named)
		f.fence.noteManifest(f.name, f.size)
	}
	return nil
}

// named says which file could not be synced: Pebble's files answer with what the system call says, and no more.
func (f *fencedFile) named(err error) error {
	if errno, bare := err.(syscall.Errno); bare {
		return &fs.PathError{Op: "sync", Path: f.name, Err: errno}
	}
	return err
}

// SyncTo starts to make durable what was written, or does.
func (f *fencedFile) SyncTo(length int64) (full bool, err error) {
	f.fence.change(func() (err error) { full, err = f.File.SyncTo(length); return f.named(err) })
	return full, nil
}

// Preallocate sets space aside; a disk that cannot is no worse than one that does not.
func (f *fencedFile) Preallocate(offset, length int64) error {
	if !f.fence.up.Load() {
		_ = f.File.Preallocate(offset, length)
	}
	return nil
}

// Close closes the file, behind the fence, too.
func (f *fencedFile) Close() error {
	if err := f.File.Close(); err != nil {
		f.fence.failed(writeError{err})
	}
	return nil
}
