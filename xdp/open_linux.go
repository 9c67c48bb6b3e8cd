package xdp

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"unsafe"

	opener "github.com/asavie/xdp"
	"golang.org/x/sys/unix"
)

// This is the only file that imports github.com/asavie/xdp. The library makes the socket, umem and rings and binds it; from
// then on the descriptor and the umem are ours, and its Socket is forgotten: it has neither finalizer nor goroutine.

// opening serialises calls of the library: its flags are package variables, and its leftovers are told by what is new in
// the process's mappings.
type opening struct{ sync.Mutex }

// bindErrno are the errors of XDP_UMEM_REG and bind(2) that callers tell apart; the library keeps only their text.
//
//	EBUSY       another socket has the queue (xsk_reg_pool_at_qid, net/xdp/xsk_buff_pool.c), perhaps a dying one
//	EOPNOTSUPP  the driver has no zero-copy
//	EINVAL      the queue does not exist; or the frame size is not possible
//	ENODEV      the interface is gone
//	ENETDOWN    zero-copy on an interface that is down
//	EPERM       CAP_NET_RAW is missing (xsk_create)
//	ENOBUFS     RLIMIT_MEMLOCK is too low (xdp_umem_account_pages, net/xdp/xdp_umem.c)
//	ENOMEM      no memory for umem or rings
//	EMFILE      the process has as many descriptors as it may
//	EAFNOSUPPORT  the kernel has no AF_XDP (CONFIG_XDP_SOCKETS)
//	ENOPROTOOPT, EADDRINUSE and others are passed on as text.
var bindErrnos = [...]syscall.Errno{
	unix.EBUSY, unix.EOPNOTSUPP, unix.EINVAL, unix.ENODEV, unix.ENETDOWN, unix.EPERM, unix.ENOBUFS, unix.ENOMEM, unix.EAFNOSUPPORT, unix.EMFILE,
}

// bindError is an error of the library with its errno.
type bindError struct {
	text  string
	errno syscall.Errno
}

func (e *bindError) Error() string { return e.text }
func (e *bindError) Unwrap() error { return e.errno }

// opened is what the library leaves us: the descriptor and its umem.
type opened struct {
	fd   int
	umem []byte // Made by syscall.Mmap, to be given back by syscall.Munmap whole.
}

// openSocket binds a new socket with a new umem to a queue.
func (o *opening) openSocket(c Config, index, queue int, mode Mode) (opened, error) {
	o.Lock()
	defer o.Unlock()
	before, err := ringMappings()
	if err != nil {
		return opened{}, err
	}
	opener.DefaultSocketFlags = unix.XDP_USE_NEED_WAKEUP | unix.XDP_COPY
	if mode == ZeroCopy {
		opener.DefaultSocketFlags = unix.XDP_USE_NEED_WAKEUP | unix.XDP_ZEROCOPY
	}
	options := opener.SocketOptions{
		NumFrames:              c.umemBytes() / c.FrameSize,
		FrameSize:              c.FrameSize,
		FillRingNumDescs:       ringSize(c.ReceiveFrames),
		CompletionRingNumDescs: ringSize(c.TransmitFrames),
		RxRingNumDescs:         ringSize(c.ReceiveFrames),
		TxRingNumDescs:         ringSize(c.TransmitFrames),
	}
	socket, err := opener.NewSocket(index, queue, &options)
	// The library never unmaps its rings, neither when it fails nor at Close, and each mapping keeps the socket alive and
	// bound for ever. We have mappings of our own.
	unmapErr := unmapSince(before)
	if err != nil {
		return opened{}, errors.Join(withErrno(err), unmapErr)
	}
	result := opened{fd: socket.FD(), umem: socket.GetFrame(opener.Desc{Len: uint32(options.NumFrames * options.FrameSize)})}
	return result, unmapErr
}

func withErrno(err error) error {
	for _, errno := range bindErrnos {
		if bytes.HasSuffix([]byte(err.Error()), []byte(errno.Error())) {
			return &bindError{err.Error(), errno}
		}
	}
	return err
}

// ringOffsets asks the kernel where the parts of the four rings are.
func ringOffsets(fd int) (unix.XDPMmapOffsets, error) {
	var o unix.XDPMmapOffsets
	err := getsockopt(fd, unix.XDP_MMAP_OFFSETS, unsafe.Pointer(&o), unsafe.Sizeof(o))
	return o, err
}

func kernelStats(fd int) (KernelStats, error) {
	var s unix.XDPStatistics
	err := getsockopt(fd, unix.XDP_STATISTICS, unsafe.Pointer(&s), unsafe.Sizeof(s))
	return KernelStats{
		ReceiveDropped:            s.Rx_dropped,
		ReceiveInvalidDescriptors: s.Rx_invalid_descs,
		TransmitInvalid:           s.Tx_invalid_descs,
		ReceiveRingFull:           s.Rx_ring_full,
		FillRingEmpty:             s.Rx_fill_ring_empty_descs,
		TransmitRingEmpty:         s.Tx_ring_empty_descs,
	}, err
}

// getsockopt reads a structure of level SOL_XDP, and fails if the kernel knows less of it than we do (before Linux 5.9).
func getsockopt(fd, option int, value unsafe.Pointer, size uintptr) error {
	length := uint32(size)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(option), uintptr(value),
		uintptr(unsafe.Pointer(&length)), 0)
	switch {
	case errno != 0:
		return fmt.Errorf("getsockopt SOL_XDP %d: %w", option, errno)
	case uintptr(length) != size:
		return fmt.Errorf("getsockopt SOL_XDP %d: the kernel gives %d bytes instead of %d: Linux 5.9 or later is needed", option, length, size)
	}
	return nil
}
