package credentials

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// newFileMode lets nobody but the owner read what could be cracked.
const newFileMode fs.FileMode = 0o600

// lockTarget follows symbolic links, so that the file is replaced and not the link to it, and keeps other writers
// out of the file's folder until unlock.
func lockTarget(path string) (target string, unlock func(), err error) {
	if target, err = filepath.EvalSymlinks(path); err != nil {
		return "", nil, fmt.Errorf("find password file: %w", err)
	}
	info, err := os.Stat(target)
	if err != nil {
		return "", nil, fmt.Errorf("find password file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", nil, fmt.Errorf("password file %s is not a regular file", path)
	}
	unlock, err = lockFolder(filepath.Dir(target))
	return target, unlock, err
}

// replace puts data in the place of the file, with the file's mode and owner.
func replace(target string, data []byte) error {
	info, err := os.Stat(target)
	if err != nil {
		return fmt.Errorf("replace password file: %w", err)
	}
	return swap(target, data, func(temporary *os.File) error {
		return errors.Join(keepOwner(temporary, info), temporary.Chmod(info.Mode().Perm()))
	})
}

// createNew makes a file that is not there.
func createNew(path string, data []byte) error {
	return swap(path, data, func(temporary *os.File) error { return temporary.Chmod(newFileMode) })
}

// swap writes a temporary file beside the target, has it on the disk and renames it: at every moment, a power cut
// included, the target is the old file or the new one.
func swap(target string, data []byte, dress func(*os.File) error) error {
	folder := filepath.Dir(target)
	temporary, err := os.CreateTemp(folder, "."+filepath.Base(target)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("write password file: %w", err)
	}
	_, err = temporary.Write(data)
	err = errors.Join(err, dress(temporary), temporary.Sync(), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), target)
	}
	if err != nil {
		os.Remove(temporary.Name())
		return fmt.Errorf("write password file: %w", err)
	}
	return syncFolder(folder)
}
