package xdp

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestFramesPassBothWays(t *testing.T) {
	l := newLab(t, 1)
	i := l.open(l.config())
	q := i.Queues()[0]
	if i.Mode() != Native || len(i.Queues()) != 1 || q.MTU() != 1500 || q.HardwareAddr() != [6]byte(l.peer.to) {
		t.Errorf("mode %v, %d queues, MTU %d, address %x", i.Mode(), len(i.Queues()), q.MTU(), q.HardwareAddr())
	}
	for round := range uint64(20) {
		for n := range uint64(100) { // 2000 frames through 512: each is used several times.
			l.peer.send(round*100 + n)
		}
		for n, got := range receiveNumbers(t, q, 100) {
			if want := round*100 + uint64(n); got != want {
				t.Fatalf("segment %d, want %d", got, want)
			}
		}
		for n := range 100 {
			sendNear(t, q, fmt.Sprint(round, n))
		}
		for n := range 100 {
			if got, want := strings.TrimSpace(string(l.peer.receive())), fmt.Sprint(round, n); got != want {
				t.Fatalf("frame %q, want %q", got, want)
			}
		}
		conserved(t, q)
	}
	if s := q.Stats(); s.FramesReceived != 2000 || s.FramesSent != 2000 || s.BadDescriptors != 0 || s.Kernel.ReceiveDropped != 0 {
		t.Errorf("%+v", s)
	}
}

// TestFailuresAreToldOnce: each queue's, however often it is tried again.
func TestFailuresAreToldOnce(t *testing.T) {
	told := map[string]int{}
	w := &watcher{i: &Interface{config: Config{Events: func(e Event) { told[e.Err.Error()]++ }}}, failed: map[int]string{}}
	for range 3 {
		w.fail(0, errors.New("queue 0 fails"))
		w.fail(1, errors.New("queue 1 fails"))
	}
	if len(told) != 2 || told["queue 0 fails"] != 1 || told["queue 1 fails"] != 1 {
		t.Errorf("%v", told)
	}
}

// TestDump: what the kernel lists while it changes is asked for again, and taken as it is if there is no end of that.
func TestDump(t *testing.T) {
	for interrupted, want := range map[int]int{0: 1, 2: 3, 1000: 5} {
		asked := 0
		list, err := dump(func() ([]int, error) {
			if asked++; asked <= interrupted {
				return []int{asked}, netlink.ErrDumpInterrupted
			}
			return []int{asked}, nil
		})
		if err != nil || asked != want || len(list) != 1 || list[0] != want {
			t.Errorf("interrupted %d times: %v, %v after %d questions; want the answer to the %dth", interrupted, list, err, asked, want)
		}
	}
	if _, err := dump(func() ([]int, error) { return nil, errNoInterface }); !errors.Is(err, errNoInterface) {
		t.Errorf("%v", err)
	}
}
