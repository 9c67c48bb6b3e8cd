package xdp

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// deafen has the kernel not hear of a queue any more: its socket stays bound and mapped, so that frames come in, but every call
// on the descriptor is answered EAGAIN, by a full socket pair that stands in its place. Whatever is put on the TX ring stays
// there, as with a driver whose queue stands.
func deafen(t *testing.T, q *Queue) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	ok(t, err)
	t.Cleanup(func() { unix.Close(pair[1]) })
	for err == nil {
		err = unix.Send(pair[0], nil, unix.MSG_DONTWAIT)
	}
	if err != unix.EAGAIN {
		t.Fatal(err)
	}
	q.watch.mu.Lock()
	fd := q.watch.current.fd
	q.watch.mu.Unlock()
	ok(t, unix.EpollCtl(q.pollFD, unix.EPOLL_CTL_DEL, fd, nil)) // Polling, too, sends in copy mode (xsk_poll).
	ok(t, unix.Dup3(pair[0], fd, unix.O_CLOEXEC))
	ok(t, unix.Close(pair[0]))
}

// TestTransmitRingStands: the kernel takes nothing from the TX ring any more. The watchdog sees it after stallTicks, not before,
// and opens the queue again, and if that was in vain it waits twice as long; what the queue receives comes in meanwhile. With
// a socket that the kernel hears, frames pass both ways, none stays away, and the watchdog is quiet.
func TestTransmitRingStands(t *testing.T) {
	l := newLab(t, 1)
	r := newRecorder()
	c := l.config()
	c.Events = r.add
	q := l.open(c).Queues()[0]
	exchange(t, l, q, 1)
	for round := range uint64(2) {
		deafen(t, q)
		start := time.Now()
		for range 3 {
			sendNear(t, q, "stays")
		}
		if c := q.Conservation().Transmit; c.TXRing != 3 {
			t.Errorf("the kernel takes frames: %+v", c)
		}
		l.peer.send(10 + round)
		if got := receiveNumbers(t, q, 1); got[0] != 10+round {
			t.Errorf("segment %d has come", got[0])
		}
		r.await(t, QueueStalled)
		// The first tick may come at once, and only remembers where the ring stood.
		if took, least := time.Since(start), (stallTicks<<round-2)*tickEvery; took < least {
			t.Errorf("round %d: opened again after %v, earlier than %v", round, took, least)
		}
		r.await(t, Reopened)
		conserved(t, q)
	}
	exchange(t, l, q, 2)
	if s := q.Stats(); s.Stalled != 2 || s.Reopened != 2 || s.FramesSent != 8 {
		t.Errorf("%+v", s)
	}
	time.Sleep((stallTicks + 4) * tickEvery) // Nothing is to happen, for which there is no event.
	select {
	case e := <-r.events:
		t.Errorf("all was well, and %v", e)
	default:
	}
}
