//go:build linux

package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// config writes a configuration's table [xdp].
func (s *scene) config(words string) string {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "ringmq.toml")
	if err := os.WriteFile(file, []byte("[xdp]\n"+words+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return file
}

// TestStopped: the broker stands still for two seconds under load (SIGSTOP), with so few receive frames that the fill ring
// runs dry. The kernel drops, and counts that. Afterwards no connection is broken and every message of QoS 1 arrives once.
func TestStopped(t *testing.T) {
	s := newScene(t, 1)
	b := s.serve("-c", s.config("receive_frames = 64\ntransmit_frames = 64"))
	run := s.startBench(s.Broker4, "-n", "50", "-q", "1", "--rate", "5000", "--time", "5s")
	eventually(t, "load", func() bool { return b.lane().verdict("redirected") > 2000 })
	b.signal(syscall.SIGSTOP)
	time.Sleep(2 * time.Second)
	b.signal(syscall.SIGCONT)
	if r := run.clean(); r.Duplicated > 0 {
		t.Errorf("%d messages came twice", r.Duplicated)
	}
	lane := b.lane()
	dropped := lane.sum(func(q queueReport) uint64 { return q.Rings.Kernel.FillRingEmpty + q.Rings.Kernel.ReceiveRingFull })
	if dropped == 0 {
		t.Errorf("the kernel has counted no dropped frame: %+v", lane.Queues[0].Rings)
	}
	t.Logf("%d frames were dropped", dropped)
	checkConservation(t, lane)
}

// TestFewTransmitFrames: a hundred subscribers of one publisher with large messages, and transmit frames for a small part of
// a turn. The link kicks on the way: no frame is dropped for want of room, and no message is lost.
func TestFewTransmitFrames(t *testing.T) {
	const frames = 64
	s := newScene(t, 1)
	b := s.serve("-c", s.config(fmt.Sprintf("transmit_frames = %d", frames)))
	s.startBench(s.Broker4, "-s", "fanout", "-n", "100", "-q", "1", "--payload", "4000", "--window", "8", "--time", "2s").clean()
	lane := b.lane()
	if n := lane.sum(func(q queueReport) uint64 { return uint64(q.Frames.Transmit.Frames) }); n != frames {
		t.Errorf("%d transmit frames, want %d", n, frames)
	}
	if n := lane.sum(func(q queueReport) uint64 { return q.TCP.OverflowDropped }); n > 0 {
		t.Errorf("%d frames were dropped", n)
	}
	checkConservation(t, lane)
}

// TestTransmitStalled: the link is down while messages are to go out, so that transmit frames have nowhere to go; and the
// interface's peer is down for longer than a retransmission timeout. Both end, and nothing is lost: TestLinkDown has QoS 1;
// here a subscriber gets everything of QoS 0 that was sent before, in order.
func TestTransmitStalled(t *testing.T) {
	s := newScene(t, 1)
	b := s.serve()
	reader, near := s.connect(s.Broker4, "reader"), connectFrom(t, s.Broker, "127.0.0.1", "near")
	reader.subscribe("stalled", 0)
	s.client("ip link set %s down", s.ClientIf)
	b.await("link down")
	for i := range 200 {
		near.publish("stalled", 0, []byte{byte(i)})
	}
	near.alive()
	time.Sleep(time.Second)
	s.client("ip link set %s up", s.ClientIf)
	for i := range 200 {
		if got := reader.receive().Payload[0]; got != byte(i) {
			t.Fatalf("message %d instead of %d", got, i)
		}
	}
	checkConservation(t, b.lane())
}

// slowMemoryMax bounds what a stopped reader may add to the broker's memory: its limits of messages and bytes.
const slowMemoryMax = 64 << 20

// TestSlowReader: a subscriber to everything stops reading, until its window is closed, while a hundred others exchange
// messages. They lose nothing, the broker drops what is for the slow one by its policy and counts that, its memory stays bounded,
// and when the reader reads again it gets messages.
func TestSlowReader(t *testing.T) {
	s := newScene(t, 1)
	b := s.serve()
	control := s.startBench(s.Broker4, "-n", "50", "--time", "2s").clean()
	slow := s.connect(s.Broker4, "slow")
	slow.subscribe("#", 0)
	before := b.memory()
	r := s.startBench(s.Broker4, "-n", "50", "--time", "2s").clean()
	t.Logf("%.0f messages/s beside a stopped reader, %.0f without", r.PerSecond, control.PerSecond)
	if long() && r.PerSecond < control.PerSecond/3 {
		t.Error("others are slowed down")
	}
	if now := b.memory(); now > before+slowMemoryMax {
		t.Errorf("resident memory was %d bytes and is %d", before, now)
	}
	eventually(t, "dropped messages are counted", func() bool {
		n := b.status().Counters
		return n["outbound_buffer_full"]+n["queue_full"]+n["queue_overflowed"]+n["no_memory"] > 0
	})
	slow.receive()
	if n := b.lane().sum(func(q queueReport) uint64 { return q.TCP.Panics + q.TCP.Poisoned }); n > 0 {
		t.Errorf("%d panics", n)
	}
}
