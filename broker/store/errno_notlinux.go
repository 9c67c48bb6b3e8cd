//go:build !linux

package store

import "syscall"

// unreadErrnos are what a disk says that cannot read.
var unreadErrnos = [...]syscall.Errno{syscall.EIO, syscall.EBADMSG}
