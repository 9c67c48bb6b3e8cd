package xdp

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is one opening of a queue: descriptor, umem and rings.
//
// # How a socket is replaced under those who use it
//
// The halves of a Queue take no lock for each frame, so the watcher cannot take a socket out of their hands. It retires it
// instead: each ring's mapping is replaced at its address, in one step, by a private copy in which the kernel never moves
// again, and the descriptor, in one step, by an end of nothing (dup3). Whoever reads or writes the rings at that time goes on
// reading and writing, to no effect; a kick gets ENOTSOCK. Now the kernel's socket has no more references and the
// queue can be bound again. The old socket's next is set to the new one, and each half changes over at its next call. The
// memory of the old one goes when both halves have left it and the last of its reserved frames has come back. A half
// that is never called keeps it: a Kick after each Wake, even with nothing to send, is enough.
type socket struct {
	config Config
	index  int // Of the interface.
	queue  int
	mode   Mode

	fd       int
	umem     []byte
	home     bool // The umem has the Queue's Buffer and is kept until Close.
	mappings []ringMapping
	receiver
	transmitter

	// users are the halves that have not left, and the reserved frames of a half that has. Who brings it to zero frees.
	users atomic.Int32
	next  atomic.Pointer[socket] // Its successor: written once, by the watcher, read by both halves.

	// The watcher's.
	retired  bool // It is to go,
	released bool // and the kernel's socket has no more references of ours.
}

// ringMapping is the memory of one ring.
type ringMapping struct {
	memory  []byte
	offsets offsets
	frozen  bool
}

// newSocket opens a socket with all receive frames on the fill ring. It is the caller's alone until it is another's next.
func (q *Queue) newSocket(index int, mode Mode) (*socket, error) {
	got, err := q.opening.openSocket(q.config, index, q.number, mode)
	if err != nil {
		return nil, err
	}
	s := &socket{config: q.config, index: index, queue: q.number, mode: mode, fd: got.fd, umem: got.umem}
	s.users.Store(2)
	if err := s.prepare(q); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *socket) prepare(q *Queue) error {
	unix.CloseOnExec(s.fd)
	if err := s.setOptions(); err != nil {
		return err
	}
	at, err := ringOffsets(s.fd)
	if err != nil {
		return err
	}
	if err := s.mapRings(at); err != nil {
		return err
	}
	fill, completion, rx, tx := s.mappings[0], s.mappings[1], s.mappings[2], s.mappings[3]
	receiveRing, transmitRing := ringSize(s.config.ReceiveFrames), ringSize(s.config.TransmitFrames)
	size := uint64(s.config.FrameSize)
	s.receiver = receiver{
		region:   region{umem: s.umem, count: uint32(s.config.ReceiveFrames), size: size},
		fill:     newProducing[uint64](fill.memory, fill.offsets, receiveRing),
		rx:       newConsuming[descriptor](rx.memory, rx.offsets, receiveRing),
		counters: &q.received,
	}
	s.transmitter = transmitter{
		region: region{
			umem: s.umem, count: uint32(s.config.TransmitFrames), size: size, address: uint64(s.config.ReceiveFrames) * size,
		},
		tx:         newProducing[descriptor](tx.memory, tx.offsets, transmitRing),
		completion: newConsuming[uint64](completion.memory, completion.offsets, transmitRing),
		counters:   &q.sent,
		pending:    &q.pending,
		send:       s.sendto,
	}
	s.receiver.prime()
	s.transmitter.prime()
	return nil
}

// buffer is the broker's region: the last of the umem.
func (s *socket) buffer() []byte {
	start := len(s.umem) - s.config.BufferBytes
	return s.umem[start:len(s.umem):len(s.umem)]
}

// mapRings maps the rings a second time: the kernel allows it, and these mappings are ours to replace and to unmap.
func (s *socket) mapRings(at unix.XDPMmapOffsets) error {
	receiveRing, transmitRing := ringSize(s.config.ReceiveFrames), ringSize(s.config.TransmitFrames)
	rings := [...]struct {
		name     string
		page     int64
		at       unix.XDPRingOffset
		size     int
		eachSize uintptr
	}{
		{"fill", unix.XDP_UMEM_PGOFF_FILL_RING, at.Fr, receiveRing, unsafe.Sizeof(uint64(0))},
		{"completion", unix.XDP_UMEM_PGOFF_COMPLETION_RING, at.Cr, transmitRing, unsafe.Sizeof(uint64(0))},
		{"RX", unix.XDP_PGOFF_RX_RING, at.Rx, receiveRing, unsafe.Sizeof(descriptor{})},
		{"TX", unix.XDP_PGOFF_TX_RING, at.Tx, transmitRing, unsafe.Sizeof(descriptor{})},
	}
	for _, r := range rings {
		length := int(r.at.Desc) + r.size*int(r.eachSize)
		const access, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
		address, err := unix.MmapPtr(s.fd, r.page, nil, uintptr(length), access, flags)
		if err != nil {
			return fmt.Errorf("map the %s ring of queue %d: %w", r.name, s.queue, err)
		}
		o := offsets{producer: r.at.Producer, consumer: r.at.Consumer, entries: r.at.Desc, flags: r.at.Flags}
		s.mappings = append(s.mappings, ringMapping{memory: unsafe.Slice((*byte)(address), length), offsets: o})
	}
	return nil
}

// setOptions asks for what asavie/xdp does not know. What this kernel does not know either, it does without.
func (s *socket) setOptions() error {
	// A frame under way counts against SO_SNDBUF in copy mode, with its sk_buff. The default of about 200 KB is 90 frames, and
	// then every kick gets EAGAIN; the TX region is the bound that we want.
	sendBuffer := s.config.TransmitFrames * 2 * s.config.FrameSize
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer); err != nil {
		// Without CAP_NET_ADMIN as much as net.core.wmem_max allows. The rest is EAGAIN, which kick answers.
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	}
	// From Linux 6.17 on, frames per send call; without it 32.
	_ = unix.SetsockoptInt(s.fd, unix.SOL_XDP, unix.XDP_MAX_TX_SKB_BUDGET, min(sendBudget, ringSize(s.config.TransmitFrames)))
	if s.config.BusyPoll == 0 {
		return nil
	}
	options := [...]struct{ option, value int }{
		{unix.SO_PREFER_BUSY_POLL, 1},
		{unix.SO_BUSY_POLL, s.config.BusyPoll},
		{unix.SO_BUSY_POLL_BUDGET, s.config.BusyPollBudget},
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, o.option, o.value); err != nil {
			return fmt.Errorf("busy polling (needs Linux 5.11, and CAP_NET_ADMIN to poll longer than net.core.busy_read): %w", err)
		}
	}
	return nil
}

// sendBudget is how many frames one send call may take: enough to save most calls, few enough that a call stays far under a
// millisecond, for it runs without telling the scheduler.
const sendBudget = 128

// sendto makes the kernel look at the TX ring. The call does not block, so the scheduler need not know.
func (s *socket) sendto() syscall.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	return errno
}

// recvfrom makes the driver look at the fill ring, polls the NIC if busy polling is on, and tells the socket's state:
// ENETDOWN, ENXIO when it is bound to nothing, ENOTSOCK when it is retired.
func (s *socket) recvfrom() syscall.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	return errno
}

// retire takes the kernel's socket away, as the head of this file says. Its frames stay where they are. What fails, for want of
// memory or descriptors, is to be tried again: until then nobody else can bind the queue.
func (s *socket) retire() error {
	if s.released {
		return nil
	}
	s.retired = true
	for i := range s.mappings {
		if err := s.mappings[i].freeze(); err != nil {
			return fmt.Errorf("retire the socket of queue %d: %w", s.queue, err)
		}
	}
	nothing, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		// Without a descriptor to put in its place the socket cannot be closed under those who use it.
		return fmt.Errorf("retire the socket of queue %d: %w%s", s.queue, err, moreFiles(err))
	}
	err = unix.Dup3(nothing, s.fd, unix.O_CLOEXEC)
	s.released = err == nil
	return errors.Join(err, unix.Close(nothing))
}

// moreFiles says what to do about an error if descriptors are used up.
func moreFiles(err error) string {
	if !errors.Is(err, unix.EMFILE) {
		return ""
	}
	return ": raise the limit of open files (ulimit -n, LimitNOFILE)"
}

// freeze puts a private copy of the ring where the ring is. The kernel may write while we copy: what it publishes after we
// have read its index is not in the copy, and everything before is.
func (m *ringMapping) freeze() error {
	if m.frozen {
		return nil
	}
	size := len(m.memory)
	address, err := unix.MmapPtr(-1, 0, nil, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("freeze a ring: %w", err)
	}
	page := unsafe.Slice((*byte)(address), size)
	from, to := ringWords(m.memory, m.offsets), ringWords(page, m.offsets)
	producer, consumer := atomic.LoadUint32(from.producer), atomic.LoadUint32(from.consumer)
	copy(page[m.offsets.entries:], m.memory[m.offsets.entries:])
	atomic.StoreUint32(to.producer, producer)
	atomic.StoreUint32(to.consumer, consumer)
	// The flags stay zero: nobody is to be woken.
	const flags = unix.MREMAP_MAYMOVE | unix.MREMAP_FIXED
	if _, err := unix.MremapPtr(address, uintptr(size), unsafe.Pointer(&m.memory[0]), uintptr(size), flags); err != nil {
		return errors.Join(fmt.Errorf("freeze a ring: %w", err), unix.MunmapPtr(address, uintptr(size)))
	}
	m.frozen = true
	return nil
}

// leave ends the use by one half, but for the frames that it has still reserved. The last to leave frees the socket.
func (s *socket) leave(reserved uint32) { s.drop(1 - int32(reserved)) }

// drop takes users away.
func (s *socket) drop(users int32) {
	if s.users.Add(-users) > 0 {
		return
	}
	if err := s.free(); err != nil {
		panic(err) // The mappings and the descriptor are ours: nothing can fail but by our own fault.
	}
}

// free gives back what a retired socket still has, except the home of the Queue's Buffer: of that only the frames' memory.
func (s *socket) free() error {
	failed := []error{unix.Close(s.fd)}
	for _, m := range s.mappings {
		failed = append(failed, unix.MunmapPtr(unsafe.Pointer(&m.memory[0]), uintptr(len(m.memory))))
	}
	s.mappings = nil
	if s.home {
		frames := s.umem[:len(s.umem)-s.config.BufferBytes]
		return errors.Join(append(failed, unix.Madvise(frames, unix.MADV_DONTNEED))...)
	}
	return errors.Join(append(failed, syscall.Munmap(s.umem))...)
}

// close gives back everything, in a socket that nobody uses.
func (s *socket) close() error {
	err := s.free()
	if s.home {
		err = errors.Join(err, syscall.Munmap(s.umem))
	}
	return err
}
