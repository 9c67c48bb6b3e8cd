package store

import "syscall"

// unreadErrnos are what a disk says that cannot read, and a file system that finds its own records of a file damaged.
var unreadErrnos = [...]syscall.Errno{syscall.EIO, syscall.EBADMSG, syscall.EUCLEAN}
