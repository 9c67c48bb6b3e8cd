//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package credentials

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// lockFolder waits until no other process writes a password file of the folder. The folder and not the file is
// locked, because a rename would leave the lock on the file that is gone.
func lockFolder(folder string) (unlock func(), err error) {
	f, err := os.Open(folder)
	if err != nil {
		return nil, fmt.Errorf("lock password file: %w", err)
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock folder %s of the password file: %w", folder, err)
	}
	return func() { f.Close() }, nil
}

// keepOwner gives the new file to the old one's owner and group: root sets a password, the broker's user reads it.
func keepOwner(temporary *os.File, old fs.FileInfo) error {
	info, err := temporary.Stat()
	if err != nil {
		return err
	}
	from, fromKnown := old.Sys().(*syscall.Stat_t)
	to, toKnown := info.Sys().(*syscall.Stat_t)
	if !fromKnown || !toKnown || from.Uid == to.Uid && from.Gid == to.Gid {
		return nil
	}
	return temporary.Chown(int(from.Uid), int(from.Gid))
}

// syncFolder makes the rename survive a power cut.
func syncFolder(folder string) error {
	f, err := os.Open(folder)
	if err != nil {
		return fmt.Errorf("write password file: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write password file: %w", err)
	}
	return nil
}
