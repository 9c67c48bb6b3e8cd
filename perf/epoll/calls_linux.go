package epoll

// Unsafe: the three calls of the hot path go to the kernel without telling Go's scheduler, which unix.Read and
// its like do. They cannot block, and the announcement costs a third of them when the process has one
// processor: the runtime's monitor then runs on it all the time (relay, 100 pairs with one message under way:
// 59 against 83 thousand messages per CPU-second, where C has 85).
import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Read reads what is there, up to len(b), which must not be zero. No data is ErrAgain; zero without an error is
// the peer's end.
func Read(fd int, b []byte) (int, error) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd),
		uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// Write writes what the socket takes of b, which must not be empty. A full socket, or one that is not connected
// yet, is ErrAgain.
func Write(fd int, b []byte) (int, error) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd),
		uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// waitNot fills events with what is ready at this moment.
func waitNot(fd int, events []unix.EpollEvent) (int, error) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(fd),
		uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 && errno != unix.EINTR {
		return 0, errno
	}
	return max(int(n), 0), nil
}
