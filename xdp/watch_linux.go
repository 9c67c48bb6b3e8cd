package xdp

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

const (
	tickEvery  = 250 * time.Millisecond // A queue that stands still is kicked after one tick.
	flowsEvery = 20                     // Ticks between looks for connections on the kernel's path that have begun or ended.
	lookEvery  = 4                      // Ticks between looks without news: taking a program off by its bpf_link makes none.
)

// watcher is the Interface's goroutine: it compares what the kernel says with what it knew, tells the difference as Events
// and repairs. It looks when rtnetlink has news of the interface, and every second. News only say "look": should the
// kernel have dropped some (ENOBUFS), nothing is lost but time.
type watcher struct {
	i       *Interface
	known   host
	lately  departed
	gone    bool           // The interface was removed, and none has taken its place.
	unfed   bool           // The sockets stand not all in the XSKMAP, and should.
	program uint32         // The kernel's id of our program.
	foreign uint32         // The id of the program that has taken its place.
	failed  map[int]string // The last failure told of each queue, and of the interface (-1), until all is well.
	ended   sync.WaitGroup

	starts    chan chan error // Requests of Start.
	links     chan netlink.LinkUpdate
	addresses chan netlink.AddrUpdate
	end       chan struct{} // Ends the subscription.
}

// startWatcher returns when the subscription stands.
func startWatcher(i *Interface, h host) (*watcher, error) {
	namespace, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("find the network namespace: %w", err)
	}
	w := &watcher{i: i, known: h, lately: departed{}, failed: map[int]string{}, starts: make(chan chan error)}
	ready := make(chan error, 1)
	w.ended.Go(func() {
		err := w.enter(namespace)
		if err == nil {
			err = w.begin()
		}
		ready <- err
		if err == nil {
			w.run()
		}
	})
	if err := <-ready; err != nil {
		w.ended.Wait()
		return nil, err
	}
	return w, nil
}

// enter binds the goroutine to a thread in the namespace. A thread that had to change its own ends with the goroutine.
func (w *watcher) enter(namespace netns.NsHandle) error {
	defer namespace.Close()
	runtime.LockOSThread()
	here, err := netns.Get()
	if err != nil {
		return fmt.Errorf("find the network namespace: %w", err)
	}
	defer here.Close()
	if here.Equal(namespace) {
		return nil
	}
	if err := netns.Set(namespace); err != nil {
		return fmt.Errorf("enter the network namespace of Open: %w", err)
	}
	return nil
}

// begin subscribes, and then looks once more: so nothing falls between Open's look and the subscription.
func (w *watcher) begin() error {
	if err := w.subscribe(); err != nil {
		return err
	}
	h, err := w.i.kernel.look(w.i.config.Interface)
	if err != nil {
		w.unsubscribe()
		return err
	}
	w.program = h.program
	return nil
}

func (w *watcher) wait() { w.ended.Wait() }

func (w *watcher) run() {
	defer w.unsubscribe()
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	if !w.known.running {
		w.tell(Event{Kind: LinkDown})
	}
	for ticks := 0; ; {
		news := false
		select {
		case <-w.i.closing:
			return
		case answer := <-w.starts:
			err := w.i.feed()
			w.i.started = err == nil
			answer <- err
		case <-tick.C:
			ticks++
			news = ticks%lookEvery == 0
			w.tendQueues()
			if ticks%flowsEvery == 0 {
				w.followFlows()
			}
		case update, ok := <-w.links:
			news = w.subscribed(ok) && (int(update.Index) == w.known.index || update.Attrs().Name == w.i.config.Interface)
		case update, ok := <-w.addresses:
			news = w.subscribed(ok) && update.LinkIndex == w.known.index
		}
		if news {
			w.drain()
			w.look()
		}
	}
}

// subscribed makes a new subscription when the old one has ended: the kernel had more news than room.
func (w *watcher) subscribed(ok bool) bool {
	if ok {
		return true
	}
	w.unsubscribe()
	if err := w.subscribe(); err != nil {
		w.fail(-1, err) // The looks every second go on.
	}
	w.look()
	return false
}

func (w *watcher) subscribe() error {
	const room = 64 // For updates; behind it they wait in the netlink socket.
	w.links, w.addresses, w.end = make(chan netlink.LinkUpdate, room), make(chan netlink.AddrUpdate, room), make(chan struct{})
	if err := netlink.LinkSubscribe(w.links, w.end); err != nil {
		close(w.end)
		w.links, w.addresses, w.end = nil, nil, nil
		return fmt.Errorf("watch links by rtnetlink: %w", err)
	}
	if err := netlink.AddrSubscribe(w.addresses, w.end); err != nil {
		close(w.end)
		for range w.links {
		}
		w.links, w.addresses, w.end = nil, nil, nil
		return fmt.Errorf("watch addresses by rtnetlink: %w", err)
	}
	return nil
}

// unsubscribe waits until nothing is sent any more. The library closes the channels.
func (w *watcher) unsubscribe() {
	if w.end == nil {
		return
	}
	close(w.end)
	for range w.links {
	}
	for range w.addresses {
	}
	w.links, w.addresses, w.end = nil, nil, nil
}

// drain throws away what one look will answer together.
func (w *watcher) drain() {
	for range len(w.links) {
		<-w.links
	}
	for range len(w.addresses) {
		<-w.addresses
	}
}

// tell reports with nothing locked.
func (w *watcher) tell(e Event) {
	e.Interface = w.i.config.Interface
	w.i.config.Events(e)
}

// fail reports a failure once, until something else of the queue fails or all is well.
func (w *watcher) fail(queue int, err error) {
	if errors.Is(err, ErrClosed) || err.Error() == w.failed[queue] {
		return
	}
	w.failed[queue] = err.Error()
	w.tell(Event{Kind: Failed, Queue: queue, Err: err})
}

// look compares and repairs.
func (w *watcher) look() {
	h, err := w.i.kernel.look(w.i.config.Interface)
	absent := errors.Is(err, errNoInterface)
	if err != nil && !absent {
		w.fail(-1, err)
		return
	}
	if !w.gone && (absent || h.index != w.known.index) {
		w.remove()
	}
	if absent {
		return
	}
	if w.gone {
		w.comeBack(h)
		return
	}
	w.compare(h)
	w.checkProgram(h)
	w.feed()
}

func (w *watcher) followFlows() {
	if err := w.i.followKernelFlows(); err != nil {
		w.fail(-1, fmt.Errorf("follow the kernel's connections: %w", err))
	}
}

// compare tells what has changed of the interface.
func (w *watcher) compare(h host) {
	before := w.known
	w.known = h
	if h.mtu != before.mtu || h.mac != before.mac {
		for _, q := range w.i.queues {
			q.setHost(h)
		}
	}
	if h.running != before.running {
		w.setDown(!h.running)
	}
	if h.mtu != before.mtu {
		w.tell(Event{Kind: MTUChanged, MTU: h.mtu, Fits: h.mtu <= w.i.config.maxMTU()})
	}
	if h.mac != before.mac {
		w.tell(Event{Kind: HardwareAddrChanged, HardwareAddr: h.mac[:]})
	}
	if h.queues != before.queues {
		w.tell(Event{Kind: QueuesChanged, Queues: h.queues, Unbound: w.unbound(h.queues)})
	}
	if max(h.queues, before.queues) > w.i.queuesAtStart && w.i.started {
		w.keepNewcomers()
	}
	w.follow(h, before)
}

// keepNewcomers has the program pass the connections that the kernel has, as long as there are more queues than at start: there
// are drivers (veth) that run no program on the new ones, so that it has not seen these begin, and any may move to a queue of ours.
func (w *watcher) keepNewcomers() {
	if err := w.i.passKernelFlows(); err != nil {
		w.fail(-1, fmt.Errorf("pass the kernel's connections: %w", err))
	}
}

// unbound are those of so many RX queues that have no socket of ours.
func (w *watcher) unbound(queues int) (numbers []int) {
	for number := range queues {
		if !slices.Contains(w.i.config.Queues, number) {
			numbers = append(numbers, number)
		}
	}
	return numbers
}

// follow steers what addresses the interface has, and those that it has lost lately.
func (w *watcher) follow(h, before host) {
	isNew, now := !slices.Equal(h.addresses, before.addresses), time.Now()
	w.lately.note(before.addresses, h.addresses, now)
	if !w.lately.expire(w.elsewhere(), now) && !isNew {
		return
	}
	if err := w.i.steer(h, w.lately); err != nil {
		w.fail(-1, fmt.Errorf("steer the new addresses: %w", err))
		w.known.addresses = before.addresses // Try again.
		return
	}
	if isNew {
		w.tell(Event{Kind: AddressesChanged, Addresses: slices.Clone(h.addresses)})
	}
}

// elsewhere are the addresses of the host's other interfaces, asked for only if that matters.
func (w *watcher) elsewhere() []netip.Addr {
	if len(w.lately) == 0 {
		return nil
	}
	addresses, err := w.i.kernel.elsewhere(w.known.index)
	if err != nil {
		w.fail(-1, err) // The next look asks again.
	}
	return addresses
}

// setDown makes Commit drop or send.
func (w *watcher) setDown(down bool) {
	for _, q := range w.i.queues {
		q.down.Store(down)
		q.Wake()
	}
	kind := LinkUp
	if down {
		kind = LinkDown
	}
	w.tell(Event{Kind: kind})
}
