package store

import (
	"errors"
	"io"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// errFenced is what an abandoned instance gets for whatever it tries.
var errFenced = errors.New("the store was abandoned")

// fenceFS is the file system of one instance of Pebble. Once it is up, nothing that the instance's goroutines still try
// reaches the directory, which a new instance may have open by then.
type fenceFS struct {
	vfs.FS
	up      atomic.Bool
	lazyWAL bool // Sync of a log only hands it to the operating system
}

func (f *fenceFS) check() error {
	if f.up.Load() {
		return errFenced
	}
	return nil
}

func (f *fenceFS) wrap(name string, file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &fencedFile{File: file, fence: f, lazy: f.lazyWAL && strings.HasSuffix(name, ".log")}, nil
}

func (f *fenceFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	file, err := f.FS.Create(name, c)
	return f.wrap(name, file, err)
}

func (f *fenceFS) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	file, err := f.FS.Open(name, o...)
	return f.wrap(name, file, err)
}

func (f *fenceFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	file, err := f.FS.OpenReadWrite(name, c, o...)
	return f.wrap(name, file, err)
}

func (f *fenceFS) OpenDir(name string) (vfs.File, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	file, err := f.FS.OpenDir(name)
	return f.wrap(name, file, err)
}

func (f *fenceFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	file, err := f.FS.ReuseForWrite(old, name, c)
	return f.wrap(name, file, err)
}

func (f *fenceFS) Link(old, name string) error {
	return f.guard(func() error { return f.FS.Link(old, name) })
}

func (f *fenceFS) Remove(name string) error {
	return f.guard(func() error { return f.FS.Remove(name) })
}

func (f *fenceFS) RemoveAll(name string) error {
	return f.guard(func() error { return f.FS.RemoveAll(name) })
}

func (f *fenceFS) Rename(old, name string) error {
	return f.guard(func() error { return f.FS.Rename(old, name) })
}

func (f *fenceFS) guard(do func() error) error {
	if err := f.check(); err != nil {
		return err
	}
	return do()
}

// Lock does nothing: the whole directory is locked by whoever opened the store.
func (f *fenceFS) Lock(string) (io.Closer, error) { return nothing{}, nil }

// Unwrap is the file system beneath.
func (f *fenceFS) Unwrap() vfs.FS { return f.FS }

type nothing struct{}

// Close does nothing.
func (nothing) Close() error { return nil }

type fencedFile struct {
	vfs.File
	fence *fenceFS
	lazy  bool
}

func (f *fencedFile) Write(p []byte) (int, error) {
	if err := f.fence.check(); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

func (f *fencedFile) WriteAt(p []byte, at int64) (int, error) {
	if err := f.fence.check(); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, at)
}

func (f *fencedFile) Sync() error {
	return f.sync(f.File.Sync)
}

func (f *fencedFile) SyncData() error {
	return f.sync(f.File.SyncData)
}

func (f *fencedFile) sync(do func() error) error {
	if err := f.fence.check(); err != nil || f.lazy {
		return err
	}
	return do()
}
