package kernel

// This file uses package unsafe: to give the kernel the addresses of buffers, vectors and socket addresses, through
// system calls that do not tell the scheduler. That is sound because the descriptors are non-blocking: no such call
// waits for a peer. What a pointer points to stays where it is: the conversions are in the calls' own argument lists.

import (
	"encoding/binary"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func openSocket(family int) (int, error) {
	return unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
}

// acceptScratch is where the kernel writes a peer's address.
type acceptScratch struct {
	address unix.RawSockaddrInet6 // the larger one of the two that can come
	size    uint32
}

// acceptSocket accepts one connection. TCP_NODELAY comes from the listening socket, which Linux copies.
func acceptSocket(fd int, s *acceptScratch) (arrival, syscall.Errno) {
	s.size = uint32(unsafe.Sizeof(s.address))
	n, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&s.address)),
		uintptr(unsafe.Pointer(&s.size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return arrival{}, errno
	}
	return arrival{fd: int32(n), remote: s.endpoint()}, 0
}

func (s *acceptScratch) endpoint() endpoint {
	var port [2]byte // The kernel keeps it in network order.
	binary.NativeEndian.PutUint16(port[:], s.address.Port)
	e := endpoint{port: binary.BigEndian.Uint16(port[:])}
	if s.address.Family == unix.AF_INET {
		e.v4 = true
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.address))
		copy(e.address[:], v4.Addr[:])
		return e
	}
	e.address, e.zone = s.address.Addr, s.address.Scope_id
	return e
}

// readSocket uses recvfrom: read(2) passes through the file layer and takes 90 ns more (1.19 against 1.10 µs for 100
// bytes).
func readSocket(fd int32, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)),
		0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// peekSocket tells whether bytes wait to be read and, if not, why there will be none (nil after a FIN).
func peekSocket(fd int32) (bool, error) {
	var one [1]byte
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&one)), 1,
		unix.MSG_PEEK, 0, 0)
	if errno != 0 {
		return false, errno
	}
	return n > 0, nil
}

// gatherMax is how many slices go to the kernel in one call. At 16 bytes each they are a page's quarter; the kernel
// takes 1024, but by then the call's own cost has long been shared by enough.
const gatherMax = 64

// gather writes vectors of slices.
type gather struct {
	header  unix.Msghdr
	vectors [gatherMax]unix.Iovec
}

// send writes until all is sent or the kernel takes no more; full says that it does not. MSG_NOSIGNAL spares the
// process a SIGPIPE for each peer that is gone.
func (g *gather) send(fd int32, v [][]byte) (sent int, full bool, errno syscall.Errno) {
	for len(v) > 0 {
		count, size, rest := g.fill(v)
		if count == 0 {
			break
		}
		n, errno := g.submit(fd, count)
		// Memory that someone unmaps must not stay in a place where Go's collector looks for pointers.
		clear(g.vectors[:count])
		if errno == syscall.EAGAIN {
			return sent, true, 0
		}
		if errno != 0 {
			return sent, false, errno
		}
		sent += n
		if n < size {
			return sent, true, 0
		}
		v = rest
	}
	return sent, false, 0
}

// fill lists the next slices that are not empty, and returns what did not fit.
func (g *gather) fill(v [][]byte) (count, size int, rest [][]byte) {
	for i, slice := range v {
		if len(slice) == 0 {
			continue
		}
		if count == gatherMax {
			return count, size, v[i:]
		}
		g.vectors[count].Base = &slice[0]
		g.vectors[count].SetLen(len(slice))
		count++
		size += len(slice)
	}
	return count, size, nil
}

func (g *gather) submit(fd int32, count int) (int, syscall.Errno) {
	var n uintptr
	var errno syscall.Errno
	if count == 1 {
		n, _, errno = syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(g.vectors[0].Base)),
			uintptr(g.vectors[0].Len), unix.MSG_NOSIGNAL, 0, 0)
	} else {
		g.header.Iov = &g.vectors[0]
		g.header.SetIovlen(count)
		n, _, errno = syscall.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&g.header)),
			unix.MSG_NOSIGNAL)
	}
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
