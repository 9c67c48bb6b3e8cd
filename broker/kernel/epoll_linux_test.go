package kernel

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWakeOfAnAwakePlane: only a plane that sleeps costs its wakers a system call.
func TestWakeOfAnAwakePlane(t *testing.T) {
	p := mustOpen(t, Config{Addresses: loopback()}).Planes()[0]
	p.Wake()
	p.Wake()
	var count [8]byte
	if n, err := unix.Read(p.poller.waker, count[:]); err != unix.EAGAIN {
		t.Errorf("the eventfd of a plane that is awake was written to: read %d bytes, error %v", n, err)
	}
}

// TestOldKernel waits without epoll_pwait2: by the millisecond, rounded up.
func TestOldKernel(t *testing.T) {
	p := mustOpen(t, Config{Addresses: loopback()}).Planes()[0]
	p.poller.hasPwait2 = false
	for _, timeout := range []time.Duration{0, 1, 100 * time.Microsecond, 3 * time.Millisecond} {
		start := time.Now()
		if events, err := p.Wait(timeout); len(events) != 0 || err != nil {
			t.Errorf("Wait = %+v, %v", events, err)
		}
		if took := time.Since(start); took < timeout || took > patience/2 {
			t.Errorf("Wait(%v) took %v", timeout, took)
		}
	}
}

// TestStaleGeneration: an event of a connection whose slot has another owner by now is nobody's.
func TestStaleGeneration(t *testing.T) {
	g := mustOpen(t, Config{Addresses: loopback()})
	c, _ := accept(t, g)
	s := &g.Planes()[0].slab
	index, generation := c.index, c.generation
	if s.find(index, generation) != c {
		t.Error("an open connection is not found")
	}
	c.Close()
	if s.find(index, generation) != nil {
		t.Error("a closed connection is found")
	}
	if next, _ := accept(t, g); next != c || s.find(index, generation) != nil || s.find(index, next.generation) != c {
		t.Error("the slot's next owner is found by the former one's name")
	}
	if s.find(listenerBase-1, 0) != nil {
		t.Error("a slot that never was is found")
	}
}
