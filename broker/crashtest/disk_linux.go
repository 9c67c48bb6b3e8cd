package crashtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// diskFiles is how many files a Disk has room for; a store has some twenty.
const diskFiles = 200

// Disk is a small file system in memory with a directory for a store, whose space and whose mind others than the broker change.
type Disk struct {
	root    string
	Data    string // the store's directory
	covered bool
}

// MountDisk mounts a Disk until the test ends, or skips.
func MountDisk(t *testing.T, sizeBytes string) *Disk {
	t.Helper()
	d, err := mountDisk(t.TempDir(), sizeBytes)
	if err == syscall.EPERM {
		t.Skip("needs CAP_SYS_ADMIN to mount a small disk")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.unmount(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func mountDisk(at, sizeBytes string) (*Disk, error) {
	if err := syscall.Mount("tmpfs", at, "tmpfs", 0, fmt.Sprintf("size=%s,nr_inodes=%d", sizeBytes, diskFiles)); err != nil {
		return nil, err
	}
	d := &Disk{root: at, Data: filepath.Join(at, "data")}
	// What ReadOnly mounts is seen by brokers in namespaces of their own, too.
	return d, errors.Join(syscall.Mount("", at, "", syscall.MS_SHARED, ""), os.Mkdir(d.Data, 0o700), os.Mkdir(d.cover(), 0o700))
}

// cover is where the mount is made that lies on top of Data when it can only be read: a mount is passed on to other namespaces as it is when it is
// made, and what becomes of it later is not.
func (d *Disk) cover() string { return filepath.Join(d.root, "cover") }

// Leave takes or gives back space so that this much is free.
func (d *Disk) Leave(freeBytes int64) error {
	f, err := os.OpenFile(filepath.Join(d.root, "filler"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var now syscall.Statfs_t
	if err := syscall.Statfs(d.root, &now); err != nil {
		return err
	}
	size := max(0, info.Size()+int64(now.Bavail)*int64(now.Bsize)-freeBytes)
	if size <= info.Size() {
		return f.Truncate(size)
	}
	return syscall.Fallocate(int(f.Fd()), 0, 0, size)
}

// TakeFiles makes files until there can be no more: whoever makes one gets ENOSPC, although there is space. The store's ballast, which it would
// give up for one more, goes first.
func (d *Disk) TakeFiles() error {
	err := os.Remove(filepath.Join(d.Data, "ballast"))
	for n := 0; err == nil; n++ {
		err = os.WriteFile(filepath.Join(d.root, fmt.Sprint("filler", n)), nil, 0o600)
	}
	if errors.Is(err, syscall.ENOSPC) {
		return nil
	}
	return err
}

// Free gives all space and files back.
func (d *Disk) Free() error {
	names, err := filepath.Glob(filepath.Join(d.root, "filler*"))
	for _, name := range names {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// ReadOnly has everything that is opened, made or removed in the store's directory from now on fail with EROFS. What is open already can still
// be written, as the kernel makes no file system read-only that has such files: it takes another mount that lies on top.
func (d *Disk) ReadOnly() error {
	if err := syscall.Mount(d.Data, d.cover(), "", syscall.MS_BIND, ""); err != nil {
		return err
	}
	d.covered = true
	if err := syscall.Mount("", d.cover(), "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, ""); err != nil {
		return err
	}
	return syscall.Mount(d.cover(), d.Data, "", syscall.MS_BIND, "")
}

// Writable ends ReadOnly.
func (d *Disk) Writable() error {
	d.covered = false
	return errors.Join(syscall.Unmount(d.Data, syscall.MNT_DETACH), syscall.Unmount(d.cover(), syscall.MNT_DETACH))
}

// unmount takes the Disk away, even while a broker that is about to end has it open.
func (d *Disk) unmount() (err error) {
	if d.covered {
		err = d.Writable()
	}
	return errors.Join(err, syscall.Unmount(d.root, syscall.MNT_DETACH))
}
