//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package kernel

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

func openSocket(family int) (int, error) {
	// Until it is marked, a child that another goroutine starts would inherit the socket.
	syscall.ForkLock.RLock()
	fd, err := unix.Socket(family, unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return -1, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd) // The first error is the one to report.
		return -1, err
	}
	return fd, nil
}

// acceptScratch is needed on Linux only.
type acceptScratch struct{}

// acceptSocket accepts one connection, and marks it with calls of its own: not all of these systems have accept4, and
// not all let a connection inherit its listening socket's options.
func acceptSocket(listening int, _ *acceptScratch) (arrival, syscall.Errno) {
	syscall.ForkLock.RLock()
	fd, from, err := unix.Accept(listening)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return arrival{}, errnoOf(err)
	}
	err = errors.Join(unix.SetNonblock(fd, true), unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	if err != nil {
		_ = unix.Close(fd)                     // Some of these systems refuse options once the peer has sent RST:
		return arrival{}, syscall.ECONNABORTED // it is what accept would have said a moment later.
	}
	return arrival{fd: int32(fd), remote: endpointOf(from)}, 0
}

func readSocket(fd int32, p []byte) (int, syscall.Errno) {
	for {
		n, err := unix.Read(int(fd), p)
		if errno := errnoOf(err); errno != syscall.EINTR {
			return max(n, 0), errno
		}
	}
}

func writeSocket(fd int32, p []byte) (int, syscall.Errno) {
	for {
		n, err := unix.Write(int(fd), p)
		if errno := errnoOf(err); errno != syscall.EINTR {
			return max(n, 0), errno
		}
	}
}

// peekSocket tells whether bytes wait to be read and, if not, why there will be none (nil after a FIN).
func peekSocket(fd int32) (bool, error) {
	var one [1]byte
	n, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK)
	return n > 0, err
}

// errnoOf returns the error number in an error of package unix, which has nothing else.
func errnoOf(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if errno, ok := err.(syscall.Errno); ok {
		return errno
	}
	return syscall.EINVAL
}

// gatherBytes is the size of the buffer in which a vector of small slices is gathered.
const gatherBytes = 64 << 10

// gather writes vectors of slices by copying them together: package unix's vector calls allocate, system calls by
// number are not for programs on macOS and OpenBSD, and a copy of this size costs less than a system call.
type gather struct {
	copied [gatherBytes]byte
}

// send writes until all is sent or the kernel takes no more; full says that it does not.
func (g *gather) send(fd int32, v [][]byte) (sent int, full bool, errno syscall.Errno) {
	for len(v) > 0 {
		var next []byte
		next, v = g.next(v)
		if len(next) == 0 {
			continue
		}
		n, errno := writeSocket(fd, next)
		if errno == syscall.EAGAIN || errno == syscall.ENOBUFS {
			return sent, true, 0
		}
		if errno != 0 {
			return sent, false, errno
		}
		sent += n
		if n < len(next) {
			return sent, true, 0
		}
	}
	return sent, false, 0
}

// next returns what to write next, valid until its next call, and the slices after that.
func (g *gather) next(v [][]byte) (next []byte, rest [][]byte) {
	if len(v) == 1 || len(v[0]) > gatherBytes {
		return v[0], v[1:]
	}
	n := 0
	for len(v) > 0 && n+len(v[0]) <= gatherBytes {
		n += copy(g.copied[n:], v[0])
		v = v[1:]
	}
	return g.copied[:n], v
}
