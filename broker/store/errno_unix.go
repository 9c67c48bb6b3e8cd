//go:build unix

package store

import (
	"errors"
	"syscall"
)

// isReadOnly says whether an error is that of a read-only file system.
func isReadOnly(err error) bool { return errors.Is(err, syscall.EROFS) }
