package epoll

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tokenWake  int32 = -1
	tokenTimer int32 = -2
	// backlog is the listening queue: a connection storm must not be cut short by it.
	backlog = 4096
)

// Poller waits for many descriptors at once. One goroutine uses it; only Wake may be called from others.
type Poller struct {
	fd      int
	wakeFD  int
	timerFD int
	events  []unix.EpollEvent
}

// New makes a Poller that hands out at most batchMax events per Wait.
func New(batchMax int) (*Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	p := &Poller{fd: fd, wakeFD: -1, timerFD: -1, events: make([]unix.EpollEvent, batchMax)}
	if p.wakeFD, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err == nil {
		err = p.Add(p.wakeFD, tokenWake, Readable)
	}
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	if p.timerFD, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err == nil {
		err = p.Add(p.timerFD, tokenTimer, Readable)
	}
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("timerfd: %w", err)
	}
	return p, nil
}

// Close releases the Poller's own descriptors, not those added to it.
func (p *Poller) Close() {
	for _, fd := range []int{p.timerFD, p.wakeFD, p.fd} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// Wake makes the current or next Wait return at once, and every later one too: it is for ending a loop.
func (p *Poller) Wake() {
	one := [8]byte{1}
	_, _ = unix.Write(p.wakeFD, one[:])
}

// Arm makes Wait return after d, with the kernel's timer resolution and not Wait's milliseconds. It replaces
// an earlier call; zero disarms.
func (p *Poller) Arm(d time.Duration) error {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
	return unix.TimerfdSettime(p.timerFD, 0, &spec, nil)
}

// Add watches fd, level-triggered. Event reports it by token, which must not be negative.
func (p *Poller) Add(fd int, token int32, ready Ready) error {
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: uint32(ready), Fd: token})
}

// Change replaces what fd is watched for.
func (p *Poller) Change(fd int, token int32, ready Ready) error {
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: uint32(ready), Fd: token})
}

// Wait blocks until something is ready or timeout has passed (rounded up to milliseconds; negative: for ever)
// and says how many events there are.
func (p *Poller) Wait(timeout time.Duration) (int, error) {
	if n, err := waitNot(p.fd, p.events); n > 0 || err != nil || timeout == 0 {
		return n, err
	}
	milliseconds := -1
	if timeout >= 0 {
		milliseconds = int((timeout + time.Millisecond - 1) / time.Millisecond)
	}
	n, err := unix.EpollWait(p.fd, p.events, milliseconds)
	if err == unix.EINTR {
		return 0, nil
	}
	return n, err
}

// Event is the i-th event of the last Wait. A negative token is the Poller's own and to be skipped.
func (p *Poller) Event(i int) (token int32, ready Ready) {
	return p.events[i].Fd, Ready(p.events[i].Events)
}

// Readable, Writable: what to watch for. Broken connections report themselves as readable.
const (
	Readable Ready = unix.EPOLLIN
	Writable Ready = unix.EPOLLOUT
	broken   Ready = unix.EPOLLERR | unix.EPOLLHUP
)

// Close closes a socket.
func Close(fd int) { _ = unix.Close(fd) }

// Connect starts a connection from source (the zero Addr: the system's choice) to target; what is written
// before it stands gives ErrAgain.
func Connect(source netip.Addr, target netip.AddrPort, noDelay bool) (int, error) {
	family := unix.AF_INET
	if target.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if source.IsValid() {
		// Without this option bind would take a port for every peer at once: 28,000 in all and not per address.
		if err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err == nil {
			err = unix.Bind(fd, sockaddr(netip.AddrPortFrom(source, 0)))
		}
	}
	// BBR, where it is the system's choice, paces what we send by timers, which cost the generator a
	// tenth to a fifth.
	_ = unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno")
	if err == nil && noDelay {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	if err == nil {
		err = unix.Connect(fd, sockaddr(target))
	}
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// LimitReceiveBuffer bounds what the kernel keeps of what the peer sends and nobody reads.
func LimitReceiveBuffer(fd, bytes int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes) // fails only for what is no socket
}

// ResetOnClose has Close end the connection by a reset: nothing waits, neither bytes nor the port.
func ResetOnClose(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // likewise
}

// Listen opens a listening socket and says where it is bound, which matters for port 0.
func Listen(at netip.AddrPort) (int, netip.AddrPort, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, at, err
	}
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err == nil {
		if err = unix.Bind(fd, sockaddr(at)); err == nil {
			err = unix.Listen(fd, backlog)
		}
	}
	var bound unix.Sockaddr
	if err == nil {
		bound, err = unix.Getsockname(fd)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, at, fmt.Errorf("listen on %v: %w", at, err)
	}
	if v4, ok := bound.(*unix.SockaddrInet4); ok {
		at = netip.AddrPortFrom(at.Addr(), uint16(v4.Port))
	}
	return fd, at, nil
}

// Accept takes one waiting connection, non-blocking and without Nagle's delay; ErrAgain when there is none.
func Accept(listener int) (int, error) {
	fd, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		return -1, err
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	return fd, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// Pin keeps the calling thread, which the caller has locked to its goroutine, on one processor. It returns
// what puts the earlier set back.
func Pin(cpu int) (restore func(), err error) {
	var old, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		return nil, fmt.Errorf("read processor affinity: %w", err)
	}
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("pin to processor %d: %w", cpu, err)
	}
	return func() { _ = unix.SchedSetaffinity(0, &old) }, nil
}

// Urge has the kernel run the calling thread, which the caller has locked to its goroutine and does not unlock, before others of this machine,
// where the process may ask for that. A load that is to be on time needs it where broker and load share processors.
func Urge() { _ = unix.Setpriority(unix.PRIO_PROCESS, 0, -20) }

// ThreadCPU is the processor time, user and system, that the calling thread has used.
func ThreadCPU() time.Duration {
	var usage unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &usage) != nil {
		return 0
	}
	return time.Duration(syscall.TimevalToNsec(syscall.Timeval(usage.Utime)) + syscall.TimevalToNsec(syscall.Timeval(usage.Stime)))
}
