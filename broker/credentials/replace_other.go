//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package credentials

import (
	"io/fs"
	"os"
)

// lockFolder does nothing where there is no flock: two writers at the same moment may lose one change.
func lockFolder(string) (unlock func(), err error) { return func() {}, nil }

// keepOwner does nothing where files have no numeric owner.
func keepOwner(*os.File, fs.FileInfo) error { return nil }

// syncFolder does nothing where folders cannot be synced.
func syncFolder(string) error { return nil }
