package xdp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/bpf"
	"golang.org/x/sys/unix"
)

const (
	// A process that ended or a socket that was closed gives its queue back some 30 ms later, and later under load.
	bindRetryFor   = 5 * time.Second
	bindRetryEvery = 10 * time.Millisecond
)

// openings is the lock around github.com/asavie/xdp, whose flags belong to the process: so must the lock. It is an array of
// one because a mutex is no constant, and changes all the same as little as one.
var openings = [1]opening{}

// Interface is a network interface with our program and one socket on each of its queues.
type Interface struct {
	config  Config
	kernel  *kernel
	program *bpf.Program
	queues  []*Queue
	mode    Mode
	reasons []string // Why no stronger mode.
	started bool     // Written by the watcher, and read by it and after its end.

	queuesAtStart int // RX queues of the interface, those that we do not use included.

	// passed are the kernel's connections that the program passes, of which some may have ended; left is how many frames it had left to
	// the kernel at the last two looks. The watcher's.
	passed map[bpf.Flow]struct{}
	left   [2]uint64

	addresses atomic.Pointer[[]netip.Prefix] // Written by the watcher.

	closing    chan struct{} // Closed by Detach or Close; ends retries and the watcher.
	closeOnce  sync.Once
	detachOnce sync.Once
	watcher    *watcher
}

// Open attaches the program, with nothing to steer to, and opens the queues. Nothing is received before Start. It fails
// with one line that says what to do, and leaves nothing behind; errors.Is tells bpf's sentinels, errors.As a
// *bpf.ForeignProgramError and a *MissingError.
//
// It uses the network namespace of the calling thread, and so does the watcher: one with a namespace of its own must hold
// the thread (runtime.LockOSThread) for the call.
func Open(c Config) (*Interface, error) {
	c, err := c.complete()
	if err != nil {
		return nil, err
	}
	i := &Interface{config: c, closing: make(chan struct{})}
	if err := i.open(); err != nil {
		err = fmt.Errorf("XDP on interface %q: %w", c.Interface, err)
		if undo := i.Close(); undo != nil {
			err = fmt.Errorf("%w (and to undo it failed: %v)", err, undo)
		}
		return nil, err
	}
	return i, nil
}

func (i *Interface) open() (err error) {
	if i.kernel, err = newKernel(); err != nil {
		return err
	}
	h, err := i.kernel.look(i.config.Interface)
	if errors.Is(err, errNoInterface) {
		return fmt.Errorf("%w: name one of: ip link show", bpf.ErrNoInterface)
	}
	if err != nil {
		return err
	}
	if err := i.check(h); err != nil {
		return err
	}
	if err := checkSupport(); err != nil {
		return err
	}
	if err := i.load(h); err != nil {
		return err
	}
	if err := i.openQueues(h); err != nil {
		return err
	}
	i.watcher, err = startWatcher(i, h)
	return err
}

// checkSupport asks for what sockets need before anything is attached.
func checkSupport() error {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EPERM):
		return &MissingError{What: "the capability CAP_NET_RAW", Remedy: "run as root or give it to the process", Err: err}
	case errors.Is(err, unix.EAFNOSUPPORT):
		return &MissingError{What: "AF_XDP in the kernel", Remedy: "use a kernel with CONFIG_XDP_SOCKETS, or standard mode", Err: err}
	case err != nil:
		return fmt.Errorf("open an AF_XDP socket: %w", err)
	}
	return unix.Close(fd)
}

// check refuses what cannot work, and completes the list of queues.
func (i *Interface) check(h host) error {
	if !h.up {
		return fmt.Errorf("the interface is down: ip link set dev %s up", i.config.Interface)
	}
	if h.mtu > i.config.maxMTU() {
		return mtuError(i.config, h.mtu)
	}
	for _, queue := range i.config.Queues {
		if queue >= h.queues {
			return fmt.Errorf("there is no queue %d: the interface has RX queues 0 to %d (ethtool -l %s)", queue, h.queues-1, i.config.Interface)
		}
	}
	if len(i.config.Queues) == 0 {
		for queue := range h.queues {
			i.config.Queues = append(i.config.Queues, queue)
		}
	}
	return nil
}

func mtuError(c Config, mtu int) error {
	larger := c
	larger.FrameSize = 4096
	if c.FrameSize < larger.FrameSize && mtu <= larger.maxMTU() {
		return fmt.Errorf("frames of %d bytes hold packets of up to %d, and the MTU is %d: use frames of %d bytes, or ip link set dev %s mtu %d",
			c.FrameSize, c.maxMTU(), mtu, larger.FrameSize, c.Interface, min(c.maxMTU(), 1500))
	}
	return fmt.Errorf("frames of %d bytes hold packets of up to %d, and the MTU is %d: ip link set dev %s mtu %d",
		c.FrameSize, c.maxMTU(), mtu, c.Interface, c.maxMTU())
}

// load brings the program into the kernel and tells it what to steer, before it is attached: so it knows from the first
// packet on which connections the kernel has begun.
func (i *Interface) load(h host) (err error) {
	options := i.config.Program
	options.Queues, i.queuesAtStart = h.queues, h.queues
	if i.program, err = bpf.Load(options); err != nil {
		return err
	}
	if err := i.program.SetPorts(i.config.Ports); err != nil {
		return err
	}
	return i.steer(h, nil)
}

// steer tells the program and the users which addresses the interface has; the program steers those that it had lately, too. What
// comes for an address that is not the interface's, be it the host's elsewhere, is the kernel's.
func (i *Interface) steer(h host, lately departed) error {
	i.addresses.Store(&h.addresses)
	var addresses []netip.Addr
	for _, prefix := range h.addresses {
		addresses = append(addresses, prefix.Addr())
	}
	addresses = lately.fill(addresses, bpf.MaxAddresses)
	if wanted := i.config.Addresses; len(wanted) > 0 {
		addresses = slices.DeleteFunc(addresses, func(a netip.Addr) bool { return !slices.Contains(wanted, a) })
	}
	return i.program.SetAddresses(addresses)
}

// openQueues tries the modes from the strongest to the weakest.
func (i *Interface) openQueues(h host) error {
	var last error
	for mode := i.config.Limit; mode >= i.config.Require; mode-- {
		err := i.openIn(h, mode)
		if err == nil {
			i.mode = mode
			return nil
		}
		if !fallsBack(mode, err) {
			return err
		}
		i.reasons = append(i.reasons, fmt.Sprintf("no %v mode: %v", mode, err))
		if undo := i.closeQueues(); undo != nil {
			return undo
		}
		last = err
	}
	return &WeakDriverError{Required: i.config.Require, Err: last}
}

// fallsBack tells whether err means that the driver cannot do mode, not that something is wrong.
func fallsBack(mode Mode, err error) bool {
	if _, inTheWay := errors.AsType[*bpf.ForeignProgramError](err); inTheWay || mode == Generic {
		return false
	}
	// Drivers refuse with many errors, also for want of rings or for an offload that is on. These are not refusals:
	for _, wrong := range [...]error{
		ErrClosed, bpf.ErrPermission, bpf.ErrNoInterface, bpf.ErrKernel, bpf.ErrMemory,
		unix.EBUSY, unix.EPERM, unix.ENOBUFS, unix.ENOMEM, unix.ENODEV, unix.EMFILE,
	} {
		if errors.Is(err, wrong) {
			return false
		}
	}
	return true
}

// openIn attaches the program as mode needs it and opens all queues in it.
func (i *Interface) openIn(h host, mode Mode) error {
	if err := i.attach(h, mode); err != nil {
		return err
	}
	for _, number := range i.config.Queues {
		q, err := newQueue(i.config, number, &openings[0])
		if err != nil {
			return err
		}
		i.queues = append(i.queues, q)
		q.setHost(h)
		q.down.Store(!h.running)
		s, err := i.bind(q, h.index, mode)
		if err != nil {
			return err
		}
		if err := q.begin(s); err != nil {
			return errors.Join(err, s.close())
		}
	}
	return nil
}

// attach attaches the program, again if it is attached otherwise.
func (i *Interface) attach(h host, mode Mode) error {
	at := bpf.Native
	if mode == Generic {
		at = bpf.Generic
	}
	err := i.program.Attach(h.index, at)
	if errors.Is(err, bpf.ErrAttached) {
		if err := i.program.Detach(); err != nil {
			return err
		}
		err = i.program.Attach(h.index, at)
	}
	return err
}

// bind opens a socket, and waits while the queue is still somebody's.
func (i *Interface) bind(q *Queue, index int, mode Mode) (*socket, error) {
	deadline := time.Now().Add(bindRetryFor)
	again := time.NewTicker(bindRetryEvery)
	defer again.Stop()
	for {
		s, err := q.newSocket(index, mode)
		if err == nil {
			return s, nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return nil, i.explain(q, err)
		}
		select {
		case <-again.C:
		case <-i.closing:
			return nil, ErrClosed
		}
	}
}

// explain says what to do about the errors of opening a socket.
func (i *Interface) explain(q *Queue, err error) error {
	name, number := i.config.Interface, q.number
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("queue %d: another AF_XDP socket has it: stop that program (ringmq doctor --interface %s names it where the kernel tells), or leave the queue to it: %w",
			number, name, err)
	case errors.Is(err, unix.ENOBUFS):
		return fmt.Errorf("queue %d: the locked-memory limit is too low for a umem of %d KiB per queue: raise it (ulimit -l, LimitMEMLOCK=infinity), "+
			"give the capability CAP_IPC_LOCK, or use fewer frames: %w", number, i.config.umemBytes()>>10, err)
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("queue %d: no memory for a umem of %d KiB: use fewer frames or queues: %w", number, i.config.umemBytes()>>10, err)
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("queue %d: %w: %w", number, bpf.ErrNoInterface, err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("queue %d: the driver cannot do it: %w", number, err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("queue %d: the driver does not have it, or takes no frames of %d bytes (ethtool -l %s): %w", number, i.config.FrameSize, name, err)
	}
	return fmt.Errorf("queue %d: %w%s", number, err, moreFiles(err))
}

// Start steers: it lists the connections that the kernel has, which stay with it, and puts the sockets into the XSKMAP.
//
// The watcher does it, between repairs: the sockets are its own.
func (i *Interface) Start() error {
	answer := make(chan error, 1)
	select {
	case i.watcher.starts <- answer:
	case <-i.closing:
		return ErrClosed
	}
	if err := <-answer; err != nil {
		return fmt.Errorf("XDP on interface %q: start: %w", i.config.Interface, err)
	}
	return nil
}

// feed puts the sockets into the XSKMAP, behind the kernel's flows. From then on a queue without a socket drops the segments
// of our connections, which is better than the kernel's RST, and passes new ones.
func (i *Interface) feed() error {
	if err := i.passKernelFlows(); err != nil {
		return err
	}
	for _, q := range i.queues {
		if q.newest.retired {
			continue // Its reopen will do this.
		}
		if err := i.program.SetSocket(q.number, q.newest.fd); err != nil {
			return err
		}
		if err := i.program.SetHold(q.number, true); err != nil {
			return err
		}
	}
	return nil
}

// KernelFlows lists the connections that the kernel's own TCP has now on the steered ports, without those of loopback.
func (i *Interface) KernelFlows() ([]bpf.Flow, error) { return i.kernel.flows(i.config.Ports) }

// Name is the interface's name.
func (i *Interface) Name() string { return i.config.Interface }

// Queues are in the order of their numbers, the same at every call.
func (i *Interface) Queues() []*Queue { return i.queues }

// Program is the steering program, for its lists, limits, counters and drain.
func (i *Interface) Program() *bpf.Program { return i.program }

// Mode is how frames travel.
func (i *Interface) Mode() Mode { return i.mode }

// FallbackReasons has one line for each stronger mode that was tried and could not be had.
func (i *Interface) FallbackReasons() []string { return slices.Clone(i.reasons) }

// Addresses are all addresses of the interface, as AddressesChanged last told them.
func (i *Interface) Addresses() []netip.Prefix { return slices.Clone(*i.addresses.Load()) }

// Close stops the watcher, takes the sockets out of the map, detaches the program and gives all memory back. Nobody may be in
// a call of a Queue then or use its Buffer or frames; a later Wait returns ErrClosed.
func (i *Interface) Close() error {
	var err error
	i.closeOnce.Do(func() { err = i.close() })
	return err
}

// Detach takes the sockets out of the map and the program off the interface, for good: nothing is watched or repaired any
// more. The Queues stay usable until Close and receive nothing; segments of their connections reach the kernel, which resets
// them. Not to be called from Config.Events.
func (i *Interface) Detach() (err error) {
	i.detachOnce.Do(func() {
		close(i.closing)
		if i.watcher != nil {
			i.watcher.wait()
		}
		if i.program != nil {
			err = i.withdraw()
		}
	})
	return err
}

func (i *Interface) close() error {
	failed := []error{i.Detach(), i.closeQueues()}
	if i.program != nil {
		failed = append(failed, i.program.Close())
	}
	if i.kernel != nil {
		failed = append(failed, i.kernel.close())
	}
	return errors.Join(failed...)
}

// withdraw stops the steering.
func (i *Interface) withdraw() error {
	var failed []error
	if i.started {
		for _, q := range i.queues {
			failed = append(failed, i.program.ClearSocket(q.number))
		}
	}
	return errors.Join(append(failed, i.program.Detach())...)
}

func (i *Interface) closeQueues() error {
	var failed []error
	for _, q := range i.queues {
		q.closed.Store(true)
		failed = append(failed, q.close())
	}
	i.queues = nil
	return errors.Join(failed...)
}

// Stats are the Queue's counters. Any goroutine may ask.
func (q *Queue) Stats() Stats {
	s := stats(&q.received, &q.sent)
	q.watch.add(&s)
	return s
}
