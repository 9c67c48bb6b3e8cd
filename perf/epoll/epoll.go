// Package epoll is what the load generator and the relay need of the kernel: readiness of many sockets, the
// calls that open, read and write them, and a thread pinned to a processor. It is not a plane and has no
// buffers; the broker's own event loop is broker/kernel.
//
// Nothing here starts a goroutine. On systems other than Linux everything returns ErrUnsupported.
package epoll

import (
	"errors"
	"syscall"
)

// Ready is a set of conditions of a socket.
type Ready uint32

// CanWrite says that the socket takes bytes.
func (r Ready) CanWrite() bool { return r&Writable != 0 }

// CanRead says that a read will return bytes, the end or the connection's error.
func (r Ready) CanRead() bool { return r&(Readable|broken) != 0 }

// ErrAgain is no failure: the socket has nothing to read or no room to write.
const ErrAgain = syscall.EAGAIN

// ErrUnsupported is returned where there is no epoll.
var ErrUnsupported = errors.New("the load generator needs Linux (epoll)")
