package xdp

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// stallTicks are the ticks without progress after which a queue is reopened, at first; after every reopen in vain it is
	// twice as many, up to stallTicksMax: two seconds to two minutes.
	stallTicks    = 8
	stallTicksMax = 512
)

// queueWatch is what the watcher knows about a Queue.
type queueWatch struct {
	reopened, stalled atomic.Uint64 // Written by the watcher, read by Stats.

	// Of the watcher alone.
	consumer uint32 // The kernel's index of the TX ring at the last tick.
	still    int    // Ticks since it moved, with frames waiting.
	patience int    // Ticks to wait.
	bad      uint64 // Bad descriptors when the socket was new.

	mu      sync.Mutex
	current *socket     // Guarded by mu: not retired, or nil; its descriptor may be asked.
	past    KernelStats // Guarded by mu: of earlier sockets.
}

// add completes statistics. The lock is held across a system call that does not wait: the descriptor must not go meanwhile.
func (w *queueWatch) add(s *Stats) {
	s.Reopened, s.Stalled = w.reopened.Load(), w.stalled.Load()
	w.mu.Lock()
	defer w.mu.Unlock()
	s.Kernel = w.past
	if w.current == nil {
		return
	}
	if now, err := kernelStats(w.current.fd); err == nil {
		s.Kernel = s.Kernel.plus(now)
	}
}

// began notes a new socket.
func (w *queueWatch) began(s *socket, bad uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.current = s
	w.consumer, w.still, w.bad = 0, 0, bad
	w.patience = max(w.patience, stallTicks)
}

// ends notes that the socket goes.
func (w *queueWatch) ends() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.current == nil {
		return
	}
	if last, err := kernelStats(w.current.fd); err == nil {
		w.past = w.past.plus(last)
	}
	w.current = nil
}

func (q *Queue) badDescriptors() uint64 { return q.received.bad.Load() + q.sent.bad.Load() }

// retire takes the kernel's socket away. The Queue stays usable, and does nothing.
func (q *Queue) retire() error {
	q.watch.ends()
	return q.newest.retire()
}

// tendQueues is the watchdog.
func (w *watcher) tendQueues() {
	if w.gone {
		return
	}
	for _, q := range w.i.queues {
		// The former when an earlier attempt has failed. The latter also wakes a driver that has run out of frames.
		if q.newest.retired || q.newest.recvfrom() == unix.ENXIO {
			w.reopen(q)
			continue
		}
		if w.known.running && q.stands() {
			q.watch.stalled.Add(1)
			w.tell(Event{Kind: QueueStalled, Queue: q.number})
			w.reopen(q)
		}
	}
}

// stands tells whether the queue needs a new socket: the kernel has not moved for long, or a quarter of the frames is lost.
func (q *Queue) stands() bool {
	w, tx := &q.watch, &q.newest.tx
	if (q.badDescriptors()-w.bad)*4 >= uint64(q.newest.receiver.count) {
		return true
	}
	consumer := atomic.LoadUint32(tx.consumer)
	moved, waiting := consumer != w.consumer, tx.waiting()
	w.consumer = consumer
	if waiting == 0 || moved {
		if moved {
			w.patience = stallTicks
		}
		w.still = 0
		return false
	}
	q.newest.sendto()
	w.still++
	if w.still < w.patience {
		return false
	}
	w.patience = min(2*w.patience, stallTicksMax)
	return true
}

// reopen gives a queue of an interface that is there a new socket.
func (w *watcher) reopen(q *Queue) {
	if err := w.open(w.known, q); err != nil {
		w.fail(q.number, err)
		return
	}
	delete(w.failed, q.number)
	w.unfed = w.i.started
	w.feed()
	w.tell(Event{Kind: Reopened, Queue: q.number})
}

// feed puts new sockets into the XSKMAP, and failing that does so at the next look.
func (w *watcher) feed() {
	if !w.unfed || w.gone {
		return
	}
	if err := w.i.feed(); err != nil {
		w.fail(-1, fmt.Errorf("steer to the reopened queues: %w", err))
		return
	}
	w.unfed = false
}

// open retires the queues' sockets and makes their successors: all, or none. A socket that has begun can only be retired, and
// stays in memory until both halves have been at their queue again.
func (w *watcher) open(h host, queues ...*Queue) (err error) {
	var opened []*socket
	defer func() {
		for _, s := range opened {
			err = errors.Join(err, s.close())
		}
	}()
	for _, q := range queues {
		if err := q.retire(); err != nil {
			return err
		}
	}
	for _, q := range queues {
		s, err := w.i.bind(q, h.index, w.i.mode)
		if err != nil {
			return err
		}
		opened = append(opened, s)
	}
	for _, q := range queues {
		if err := q.begin(opened[0]); err != nil {
			return err
		}
		opened = opened[1:]
		q.watch.reopened.Add(1)
	}
	return nil
}

// remove is called when the interface is gone: the kernel has unbound its sockets and detached its program without a word.
func (w *watcher) remove() {
	w.gone = true
	for _, q := range w.i.queues {
		q.down.Store(true)
		if err := q.retire(); err != nil {
			w.fail(q.number, err)
		}
	}
	w.known.running = false
	// If it has only another name now, our program must not go on sending its connections nowhere.
	if err := w.i.program.Detach(); err != nil {
		w.fail(-1, err)
	}
	w.tell(Event{Kind: Removed})
}

// comeBack opens everything on the interface that has taken the name. It must be up: some drivers open no queue before.
func (w *watcher) comeBack(h host) {
	if !h.up {
		return
	}
	err := w.attach(h)
	if err == nil {
		err = w.open(h, w.i.queues...)
	}
	if err != nil {
		w.fail(-1, err)
		return
	}
	before := w.known
	w.gone = false
	clear(w.failed)
	w.known.index = h.index
	w.compare(h)
	if before.mac == h.mac && before.mtu == h.mtu { // compare has not told the queues.
		for _, q := range w.i.queues {
			q.setHost(h)
		}
	}
	w.unfed = w.i.started
	w.feed()
	w.tell(Event{Kind: Reopened, Queue: -1})
}

// attach attaches our program anew and notes its id.
func (w *watcher) attach(h host) error {
	if err := w.i.program.Detach(); err != nil {
		return fmt.Errorf("attach our program again: %w", err)
	}
	if err := w.i.attach(h, w.i.mode); err != nil {
		return fmt.Errorf("attach our program again: %w", err)
	}
	now, err := w.i.kernel.look(w.i.config.Interface)
	if err != nil {
		return err
	}
	w.program = now.program
	return nil
}

// checkProgram attaches our program again if somebody took it off, unless another stands there now.
func (w *watcher) checkProgram(h host) {
	if h.program == w.program {
		w.foreign = 0
		return
	}
	// A program on the card itself hides ours from rtnetlink, which then names none.
	ours, err := w.i.program.Attachment()
	switch {
	case err != nil:
		w.fail(-1, err)
	case ours.ProgramID != 0:
	case h.program == 0:
		w.reattach(h)
	case w.foreign != h.program:
		w.foreign = h.program
		w.tell(Event{Kind: ForeignProgram, ProgramID: h.program})
	}
}

// reattach passes the connections that the kernel has got meanwhile before the first packet and once more before the sockets:
// those of the time between.
func (w *watcher) reattach(h host) {
	err := w.reattachTo(h)
	if err != nil {
		w.fail(-1, err)
		return
	}
	w.foreign, w.unfed = 0, w.i.started
	clear(w.failed)
	w.feed()
	w.tell(Event{Kind: ProgramDetached})
}

func (w *watcher) reattachTo(h host) error {
	if !w.i.started {
		return w.attach(h)
	}
	for _, q := range w.i.queues {
		if err := w.i.program.ClearSocket(q.number); err != nil {
			return err
		}
	}
	if err := w.i.passKernelFlows(); err != nil {
		return err
	}
	return w.attach(h)
}
