package xdp

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/ringmq/ringmq/bpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// exchange proves that frames pass both ways.
func exchange(t *testing.T, l *lab, q *Queue, mark uint64) {
	t.Helper()
	l.peer.send(mark)
	for {
		if got := receiveNumbers(t, q, 1); got[0] == mark {
			break
		}
	}
	sendNear(t, q, fmt.Sprint(mark))
	for strings.TrimSpace(string(l.peer.receive())) != fmt.Sprint(mark) {
	}
	conserved(t, q)
}

func TestLinkDownAndUp(t *testing.T) {
	l := newLab(t, 1)
	r := newRecorder()
	c := l.config()
	c.Events = r.add
	i := l.open(c)
	q := i.Queues()[0]
	exchange(t, l, q, 1)
	buffer := q.Buffer()
	for mark := range uint64(3) {
		ok(t, netlink.LinkSetDown(l.link(nearName)))
		r.await(t, LinkDown)
		for range 2000 { // More than there are frames: each is dropped and comes back.
			sendNear(t, q, "lost")
		}
		conserved(t, q)
		ok(t, netlink.LinkSetUp(l.link(nearName)))
		r.await(t, LinkUp)
		exchange(t, l, q, 10+mark)
	}
	s := q.Stats()
	if s.DroppedDown != 6000 || s.Reopened != 0 || &buffer[0] != &q.Buffer()[0] {
		t.Errorf("dropped %d, want 6000; reopened %d, want 0", s.DroppedDown, s.Reopened)
	}
}

// TestKickOnDownLink is what happens before the watcher knows: the kernel answers ENETDOWN, and nothing is lost.
func TestKickOnDownLink(t *testing.T) {
	l := newLab(t, 1)
	i := l.open(l.config())
	q := i.Queues()[0]
	ok(t, netlink.LinkSetDown(l.link(nearName)))
	for {
		frame := q.Reserve()
		if frame == nil {
			break
		}
		q.tx.commit(frame, copy(frame, nearFrame("waiting"))) // Commit without its look at the link.
	}
	q.Kick()
	if s := q.Stats(); s.KickErrors.Down == 0 || s.TransmitExhausted != 1 {
		t.Errorf("%+v", s)
	}
	conserved(t, q)
}

// TestWaitOnDownLink: frames that are left on the TX ring do not have the queue look every millisecond as long as the link is down, and
// go out when it is up.
func TestWaitOnDownLink(t *testing.T) {
	l := newLab(t, 1)
	r := newRecorder()
	c := l.config()
	c.Events = r.add
	q := l.open(c).Queues()[0]
	ok(t, netlink.LinkSetDown(l.link(nearName)))
	frame := q.Reserve()
	q.tx.commit(frame, copy(frame, nearFrame("waiting"))) // Commit without its look at the link.
	q.Kick()
	r.await(t, LinkDown)
	ok(t, q.Wait(-1)) // Woken.
	if rest := q.lastCalls(-1); !q.pending.Load() || rest != -1 {
		t.Errorf("frames are pending: %v, and the queue sleeps for %v", q.pending.Load(), rest)
	}
	conserved(t, q)
	ok(t, netlink.LinkSetUp(l.link(nearName)))
	r.await(t, LinkUp)
	ok(t, q.Wait(-1))
	if rest := q.lastCalls(-1); rest != pendingRetry {
		t.Errorf("the queue sleeps for %v", rest)
	}
	if got := strings.TrimSpace(string(l.peer.receive())); got != "waiting" {
		t.Errorf("%q has come", got)
	}
}

func TestInterfaceDeletedAndMadeAgain(t *testing.T) {
	l := newLab(t, 2)
	r := newRecorder()
	c := l.config()
	c.Events = r.add
	i := l.open(c)
	for round := range uint64(2) {
		q := i.Queues()[0]
		buffer, lent := q.Buffer(), q.Reserve()
		copy(buffer, "the broker's")
		waited := make(chan error)
		other := i.Queues()[1]
		go func() { waited <- other.Wait(-1) }()

		ok(t, netlink.LinkDel(l.link(nearName)))
		r.await(t, Removed)
		for range 1000 {
			sendNear(t, q, "lost")
		}
		conserved(t, q)
		ok(t, q.Wait(time.Millisecond)) // No error: it comes back.

		l.plug()
		r.awaitAll(t, Reopened, LinkUp) // In any order: the carrier comes when the far end is up.
		ok(t, <-waited)                 // The reopen wakes.
		q.Commit(lent, 60)
		exchangeOnAny(t, l, i, round)
		if &buffer[0] != &q.Buffer()[0] || string(buffer[:12]) != "the broker's" {
			t.Error("the buffer has changed")
		}
		if s := q.Stats(); s.Reopened != round+1 {
			t.Errorf("reopened %d times", s.Reopened)
		}
		if q.HardwareAddr() != [6]byte(l.link(nearName).Attrs().HardwareAddr) {
			t.Error("the hardware address is the old one")
		}
	}
}

// exchangeOnAny is exchange on whatever queue the peer's frames take.
func exchangeOnAny(t *testing.T, l *lab, i *Interface, mark uint64) {
	t.Helper()
	l.peer.send(mark)
	deadline := time.Now().Add(patience)
	for got := false; !got; {
		if time.Now().After(deadline) {
			t.Fatal("nothing received")
		}
		for _, q := range i.Queues() {
			ok(t, q.Wait(time.Millisecond))
			q.Receive(64, func(frame []byte) { got = got || numberOf(frame) == mark })
		}
	}
	for _, q := range i.Queues() {
		sendNear(t, q, fmt.Sprint(mark, q.Number()))
		for strings.TrimSpace(string(l.peer.receive())) != fmt.Sprint(mark, q.Number()) {
		}
	}
}

func TestMTUAndAddressesChange(t *testing.T) {
	l := newLab(t, 1)
	r := newRecorder()
	c := l.config()
	c.Events = r.add
	i := l.open(c)
	q := i.Queues()[0]
	ok(t, netlink.LinkSetMTU(l.link(nearName), 1400))
	if e := r.await(t, MTUChanged); e.MTU != 1400 || !e.Fits || q.MTU() != 1400 {
		t.Errorf("%+v, MTU %d", e, q.MTU())
	}
	ok(t, netlink.LinkSetMTU(l.link(nearName), 3000))
	if e := r.await(t, MTUChanged); e.MTU != 3000 || e.Fits || q.MTU() != 1770 {
		t.Errorf("%+v, MTU %d", e, q.MTU())
	}
	ok(t, netlink.AddrDel(l.link(nearName), must(netlink.ParseAddr(nearAddress+"/24"))(t)))
	r.await(t, AddressesChanged)
	ok(t, netlink.AddrAdd(l.link(nearName), must(netlink.ParseAddr(nearAddress+"/24"))(t)))
	if e := r.await(t, AddressesChanged); !slices.Contains(e.Addresses, netip.MustParsePrefix(nearAddress+"/24")) {
		t.Errorf("%v", e.Addresses)
	}
	exchange(t, l, q, 1)
}

// TestAddressElsewhere: what comes for an address that is to be steered, but that is not the interface's, is the kernel's until the
// interface gets it.
func TestAddressElsewhere(t *testing.T) {
	l := newLab(t, 1)
	r := newRecorder()
	const later = "198.18.8.1"
	c := l.config()
	c.Addresses, c.Events = []netip.Addr{netip.MustParseAddr(nearAddress), netip.MustParseAddr(later)}, r.add
	i := l.open(c)
	q := i.Queues()[0]
	sendLater := func(number uint64) {
		must(unix.Write(l.peer.fd, segment(l.peer.from, l.peer.to, farAddress, later, number)))(t)
	}
	sendLater(1)
	exchange(t, l, q, 2)
	if n := must(i.Program().Counters())(t).Total()[bpf.PassedOtherAddress].Packets; n != 1 {
		t.Errorf("%d segments were left to the kernel; want 1", n)
	}
	ok(t, netlink.AddrAdd(l.link(nearName), must(netlink.ParseAddr(later+"/24"))(t)))
	for has := false; !has; {
		has = slices.Contains(r.await(t, AddressesChanged).Addresses, netip.MustParsePrefix(later+"/24"))
	}
	sendLater(3)
	if got := receiveNumbers(t, q, 1); got[0] != 3 {
		t.Errorf("segment %d has come", got[0])
	}
}

// TestGroupAddress: an address of a group, which the interface may have, too, is none that is steered.
func TestGroupAddress(t *testing.T) {
	l := newLab(t, 1)
	const group = "239.1.1.1"
	ok(t, netlink.AddrAdd(l.link(nearName), must(netlink.ParseAddr(group+"/32"))(t)))
	i := l.open(l.config())
	if slices.ContainsFunc(i.Addresses(), func(p netip.Prefix) bool { return p.Addr() == netip.MustParseAddr(group) }) {
		t.Errorf("%v", i.Addresses())
	}
	exchange(t, l, i.Queues()[0], 1)
}

// passProgram is a foreign program.
func passProgram(t *testing.T) *ebpf.Program {
	t.Helper()
	p := must(ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "foreign", Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	}))(t)
	t.Cleanup(func() { p.Close() })
	return p
}

func TestForeignProgramIsInTheWay(t *testing.T) {
	l := newLab(t, 1)
	foreign := must(link.AttachXDP(link.XDPOptions{Program: passProgram(t), Interface: l.link(nearName).Attrs().Index}))(t)
	defer foreign.Close()
	id := l.link(nearName).Attrs().Xdp.ProgId
	_, err := Open(l.config())
	if inTheWay, is := errors.AsType[*bpf.ForeignProgramError](err); !is || inTheWay.ProgramID != id {
		t.Fatalf("%v, want a ForeignProgramError of program %d", err, id)
	}
	if l.link(nearName).Attrs().Xdp.ProgId != id {
		t.Error("the foreign program is gone")
	}
}

// takeOff detaches the program of the near end as bpftool link detach does, without a word by rtnetlink.
func takeOff(t *testing.T, l *lab) {
	t.Helper()
	program := l.link(nearName).Attrs().Xdp.ProgId
	var links link.Iterator
	defer links.Close()
	for links.Next() {
		if info, err := links.Link.Info(); err == nil && uint32(info.Program) == program {
			ok(t, links.Link.Detach())
			return
		}
	}
	t.Fatal("our bpf_link is not there")
}

func TestOurProgramIsRemoved(t *testing.T) {
	l := newLab(t, 1)
	r := newRecorder()
	c := l.config()
	c.Events = r.add
	i := l.open(c)
	q := i.Queues()[0]
	takeOff(t, l)
	r.await(t, ProgramDetached)
	exchange(t, l, q, 1)

	index := l.link(nearName).Attrs().Index
	takeOff(t, l)
	foreign := must(link.AttachXDP(link.XDPOptions{Program: passProgram(t), Interface: index}))(t)
	id := l.link(nearName).Attrs().Xdp.ProgId
	if e := r.await(t, ForeignProgram); e.ProgramID != id {
		t.Errorf("%+v, want program %d", e, id)
	}
	ok(t, foreign.Close())
	r.await(t, ProgramDetached)
	exchange(t, l, q, 2)
}

func TestDescriptorsLost(t *testing.T) {
	l := newLab(t, 1)
	r := newRecorder()
	c := l.config()
	c.Events = r.add
	i := l.open(c)
	q := i.Queues()[0]
	exchange(t, l, q, 1)
	// A quarter of the descriptors lost is the other thing that the watchdog looks at, beside TestTransmitRingStands.
	q.received.bad.Add(uint64(c.ReceiveFrames))
	if e := r.await(t, QueueStalled); e.Queue != 0 {
		t.Errorf("%+v", e)
	}
	r.await(t, Reopened)
	exchange(t, l, q, 2)
	if s := q.Stats(); s.Stalled != 1 || s.Reopened != 1 {
		t.Errorf("%+v", s)
	}
}

// TestReopenUnderTraffic replaces the socket under both halves while they work.
func TestReopenUnderTraffic(t *testing.T) {
	l := newLab(t, 1)
	r := newRecorder()
	c := l.config()
	c.Events = r.add
	i := l.open(c)
	q := i.Queues()[0]
	stop := make(chan struct{})
	done := make(chan struct{})
	peer := l.peer
	go func() {
		defer close(done)
		for n := uint64(0); ; n++ {
			select {
			case <-stop:
				return
			default:
				peer.send(n)
			}
		}
	}()
	for range 3 {
		q.sent.bad.Add(uint64(c.ReceiveFrames))
		for reopened := false; !reopened; {
			frame := q.Reserve()
			q.Receive(64, func([]byte) {
				if f := q.Reserve(); f != nil {
					q.Commit(f, copy(f, nearFrame("echo")))
				}
			})
			if frame != nil {
				q.Discard(frame)
			}
			q.Kick()
			ok(t, q.Wait(time.Millisecond))
			select {
			case e := <-r.events:
				reopened = e.Kind == Reopened
			default:
			}
		}
	}
	close(stop)
	<-done
	conserved(t, q)
	if len(q.lent) != 0 {
		t.Errorf("%d sockets still have frames out", len(q.lent))
	}
}

// TestFillRingStarved receives nothing until the kernel has no frame left.
func TestFillRingStarved(t *testing.T) {
	l := newLab(t, 1)
	i := l.open(l.config())
	q := i.Queues()[0]
	for n := range uint64(700) {
		l.peer.send(n)
	}
	deadline := time.Now().Add(patience)
	for q.Conservation().Receive.RXRing < 512 {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", q.Conservation())
		}
		l.peer.send(0)
	}
	if c := q.Conservation(); c.Receive.FillRing != 0 {
		t.Errorf("%+v", c)
	}
	conserved(t, q)
	for deadline := time.Now().Add(patience); q.Stats().Kernel.FillRingEmpty == 0; {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", q.Stats().Kernel)
		}
		l.peer.send(0)
	}
	receiveNumbers(t, q, 512)
	exchange(t, l, q, 9999)
}

// TestCompletionsComeBack sends every frame: those that the kernel has completed during the kick are free after it, and reservation
// finds those that it completes later.
func TestCompletionsComeBack(t *testing.T) {
	l := newLab(t, 1)
	i := l.open(l.config())
	q := i.Queues()[0]
	for range 4 {
		var frames [][]byte
		for deadline := time.Now().Add(patience); len(frames) < 512; {
			if frame := q.Reserve(); frame != nil {
				frames = append(frames, frame)
			} else if time.Now().After(deadline) {
				t.Fatalf("%d frames, %+v", len(frames), q.Conservation())
			}
		}
		if q.Reserve() != nil {
			t.Fatal("more frames than there are")
		}
		for _, frame := range frames {
			q.Commit(frame, copy(frame, nearFrame("x")))
		}
		q.Kick()
		if c := q.Conservation().Transmit; c.Free == 0 && c.TXRing < 512 {
			t.Errorf("after the kick no frame is free: %+v", c)
		}
		back := func(c TransmitFrames) int { return c.Free + c.CompletionRing }
		for deadline := time.Now().Add(patience); back(q.Conservation().Transmit) < 512; {
			if time.Now().After(deadline) {
				t.Fatalf("%+v %+v", q.Conservation(), q.Stats())
			}
			q.Kick()
		}
		conserved(t, q)
	}
}

// TestRebind opens and closes in quick succession: the kernel gives the queue back late.
func TestRebind(t *testing.T) {
	l := newLab(t, 1)
	before := must(ringMappings())(t)
	for mark := range uint64(4) {
		i := must(Open(l.config()))(t)
		ok(t, i.Start())
		exchange(t, l, i.Queues()[0], mark)
		ok(t, i.Close())
		if err := i.Queues(); len(err) != 0 {
			t.Error("queues after Close")
		}
	}
	if after := must(ringMappings())(t); len(after) != len(before) {
		t.Errorf("%d mappings of sockets, before %d", len(after), len(before))
	}
	if xdp := l.link(nearName).Attrs().Xdp; xdp != nil && xdp.ProgId != 0 {
		t.Errorf("program %d is left on the interface", xdp.ProgId)
	}
}

func TestQueueIsTaken(t *testing.T) {
	l := newLab(t, 1)
	l.open(l.config())
	_, err := Open(l.config())
	if inTheWay, is := errors.AsType[*bpf.ForeignProgramError](err); !is || !inTheWay.Ours {
		t.Errorf("%v", err)
	}
}

// killedVariable makes the test binary the process that is killed.
const killedVariable = "RINGMQ_XDP_TEST_KILLED"

// TestKilled kills a process under traffic: nothing of it may be left, and the queue may be bound within the second.
func TestKilled(t *testing.T) {
	if os.Getenv(killedVariable) != "" {
		i := must(Open((&lab{}).config()))(t)
		ok(t, i.Start())
		fmt.Println("steering")
		for {
			i.Queues()[0].Receive(64, func([]byte) {})
			ok(t, i.Queues()[0].Wait(-1))
		}
	}
	l := newLab(t, 1)
	child := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	child.Env = append(os.Environ(), killedVariable+"=1")
	output := must(child.StdoutPipe())(t)
	ok(t, child.Start()) // It inherits this thread's namespace.
	line := make([]byte, 9)
	_, err := output.Read(line)
	ok(t, err)
	for n := range uint64(1000) {
		l.peer.send(n)
	}
	ok(t, child.Process.Signal(unix.SIGKILL))
	if err := child.Wait(); err == nil {
		t.Error("the child ended by itself")
	}
	var i *Interface
	for deadline := time.Now().Add(patience); ; { // The program goes with the process's last task work.
		if i, err = Open(l.config()); err == nil {
			break
		}
		if _, is := errors.AsType[*bpf.ForeignProgramError](err); !is || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	ok(t, i.Start())
	exchange(t, l, i.Queues()[0], 77777)
	ok(t, i.Close())
}

// TestComesBackWithFewerQueues cannot be repaired, until it is made with as many again.
func TestComesBackWithFewerQueues(t *testing.T) {
	l := newLab(t, 2)
	r := newRecorder()
	c := l.config()
	c.Events = r.add
	i := l.open(c)
	ok(t, netlink.LinkDel(l.link(nearName)))
	r.await(t, Removed)
	l.queues = 1
	l.plug()
	if e := r.await(t, Failed); !strings.Contains(e.String(), "queue 1: the driver does not have it") {
		t.Errorf("%v", e)
	}
	ok(t, netlink.LinkDel(l.link(nearName)))
	l.queues = 2
	l.plug()
	r.awaitAll(t, Reopened, LinkUp)
	exchangeOnAny(t, l, i, 1)
}

// TestStatsWhileAllMoves is for the race detector.
func TestStatsWhileAllMoves(t *testing.T) {
	l := newLab(t, 1)
	r := newRecorder()
	c := l.config()
	c.Events = r.add
	q := l.open(c).Queues()[0]
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for last := uint64(0); ; {
			select {
			case <-stop:
				return
			default:
			}
			s := q.Stats()
			if s.FramesReceived < last || q.MTU() != 1500 {
				t.Errorf("%+v after %d", s, last)
			}
			last = s.FramesReceived
		}
	}()
	exchange(t, l, q, 1)
	q.received.bad.Add(uint64(c.ReceiveFrames))
	r.await(t, Reopened)
	exchange(t, l, q, 2)
	close(stop)
	<-done
	if s := q.Stats(); s.FramesReceived != 2 || s.FramesSent != 2 {
		t.Errorf("%+v", s)
	}
}

// TestRetireIsTriedAgain: a socket that cannot be taken away, for the process has no descriptor left, does not keep its queue for ever.
func TestRetireIsTriedAgain(t *testing.T) {
	l := newLab(t, 1)
	i := l.open(l.config())
	q, w := i.Queues()[0], i.watcher
	ok(t, i.Detach()) // The sockets are the test's now.
	var limit unix.Rlimit
	ok(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	ok(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: limit.Max}))
	_, openErr := i.bind(q, w.known.index, Native)
	err := q.retire()
	ok(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	for _, err := range []error{openErr, err} {
		if !errors.Is(err, unix.EMFILE) || !strings.Contains(err.Error(), "LimitNOFILE") {
			t.Fatalf("error %v; want EMFILE and what to do", err)
		}
		if fallsBack(ZeroCopy, err) {
			t.Errorf("%v is taken for a driver that cannot do it", err)
		}
	}
	deadline := time.Now().Add(patience)
	for err := w.open(w.known, q); err != nil; err = w.open(w.known, q) {
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(bindRetryEvery) // The kernel gives the queue back later; after Detach bind does not wait.
	}
	sendNear(t, q, "again")
	if got := strings.TrimSpace(string(l.peer.receive())); got != "again" {
		t.Errorf("%q has come", got)
	}
}
