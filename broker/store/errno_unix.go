//go:build unix

package store

import (
	"errors"
	"syscall"
)

// isTaken says whether a lock was refused because somebody has it. Pebble's answer for its own process is text.
func isTaken(err error) bool {
	_, isErrno := errors.AsType[syscall.Errno](err)
	return !isErrno || errors.Is(err, syscall.EAGAIN)
}

// isReadOnly says whether an error is that of a read-only file system.
func isReadOnly(err error) bool { return errors.Is(err, syscall.EROFS) }
