package main

import (
	"strings"
	"testing"

	"github.com/ringmq/ringmq/xdp"
	"github.com/ringmq/ringmq/xdp/probe"
)

// TestUmemFits: where the usual umems would be too much of the memory there are fewer receive frames, unless the configuration
// names their number, and the broker's limits hold; where nothing helps, the error says what does.
func TestUmemFits(t *testing.T) {
	const mib = 1 << 20
	for _, row := range []struct {
		memory     size
		queues     int
		configured int
		frames     int    // zero: it does not fit
		remedy     string // then
	}{
		{1024 * mib, 1, 0, xdp.ReceiveFramesDefault, ""},
		{1024 * mib, 4, 0, xdp.ReceiveFramesDefault, ""},
		{512 * mib, 1, 0, xdp.ReceiveFramesDefault, ""},
		{512 * mib, 4, 0, xdp.ReceiveFramesDefault / 2, ""},
		{256 * mib, 1, 0, xdp.ReceiveFramesDefault, ""},
		{256 * mib, 4, 0, receiveFramesFewest, ""},
		{128 * mib, 1, 0, xdp.ReceiveFramesDefault / 2, ""},
		{128 * mib, 4, 0, 0, "--queues"},
		{256 * mib, 4, xdp.ReceiveFramesDefault, 0, "receive_frames"},
		{1024 * mib, 4, 64, 64, ""},
	} {
		s := settings{Memory: row.memory}
		s.XDP.ReceiveFrames = row.configured
		l, err := s.limits(1<<40, 1<<20, nil, dataPlane{mode: probe.Native, queues: row.queues})
		switch {
		case row.frames == 0 && (err == nil || !strings.Contains(err.Error(), row.remedy)):
			t.Errorf("%d MiB, %d queues: error %v; want one with %q", row.memory/mib, row.queues, err, row.remedy)
		case row.frames > 0 && (err != nil || s.XDP.ReceiveFrames != row.frames):
			t.Errorf("%d MiB, %d queues: %d frames, %v; want %d", row.memory/mib, row.queues, s.XDP.ReceiveFrames, err, row.frames)
		case row.frames > 0 && l.MaxConnections < 500:
			t.Errorf("%d MiB, %d queues: only %d connections", row.memory/mib, row.queues, l.MaxConnections)
		}
	}
}

// TestDoctorKnowsTheUmem: what doctor takes for a queue's umem when it is told nothing is what one takes.
func TestDoctorKnowsTheUmem(t *testing.T) {
	for _, frame := range []int{2048, 4096} {
		want, err := xdp.Config{Interface: "any", Ports: []uint16{1883}, FrameSize: frame}.UmemBytes()
		if got := (probe.Plan{FrameSizeBytes: frame}).Complete().UmemBytes; err != nil || got != int64(want) {
			t.Errorf("frames of %d bytes: doctor says %d bytes, package xdp %d (%v)", frame, got, want, err)
		}
	}
}
