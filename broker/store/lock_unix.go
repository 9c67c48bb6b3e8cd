//go:build unix

package store

import "syscall"

// lockShared has whoever wants a file's lock for itself find it taken, and finds who has it.
func lockShared(fd uintptr) error {
	return syscall.FcntlFlock(fd, syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_RDLCK})
}
