package xdp

import (
	"sync/atomic"
	"syscall"
)

// receiveCounters and transmitCounters are written by one half of a Queue, once per batch, and read by anybody.
type receiveCounters struct {
	frames, bytes, bad atomic.Uint64
	waits, wakes       atomic.Uint64
}

type transmitCounters struct {
	frames, bytes, bad                                    atomic.Uint64
	exhausted, down                                       atomic.Uint64
	kicks                                                 atomic.Uint64
	again, busy, noBuffers, netDown, unbound, interrupted atomic.Uint64
	other                                                 atomic.Uint64
}

// answer counts a send call and what it said.
func (c *transmitCounters) answer(errno syscall.Errno) {
	c.kicks.Add(1)
	switch errno {
	case 0:
	case syscall.EAGAIN:
		c.again.Add(1)
	case syscall.EBUSY:
		c.busy.Add(1)
	case syscall.ENOBUFS, syscall.ENOMEM:
		c.noBuffers.Add(1)
	case syscall.ENETDOWN:
		c.netDown.Add(1)
	case syscall.ENXIO:
		c.unbound.Add(1)
	case syscall.EINTR:
		c.interrupted.Add(1)
	default:
		c.other.Add(1)
	}
}

// stats sums up everything but what the watcher and the kernel count.
func stats(r *receiveCounters, t *transmitCounters) Stats {
	return Stats{
		FramesReceived:    r.frames.Load(),
		BytesReceived:     r.bytes.Load(),
		FramesSent:        t.frames.Load(),
		BytesSent:         t.bytes.Load(),
		TransmitExhausted: t.exhausted.Load(),
		DroppedDown:       t.down.Load(),
		BadDescriptors:    r.bad.Load() + t.bad.Load(),
		Waits:             r.waits.Load(),
		Wakes:             r.wakes.Load(),
		Kicks:             t.kicks.Load(),
		KickErrors: KickErrors{
			Again:       t.again.Load(),
			Busy:        t.busy.Load(),
			NoBuffers:   t.noBuffers.Load(),
			Down:        t.netDown.Load(),
			Unbound:     t.unbound.Load(),
			Interrupted: t.interrupted.Load(),
			Other:       t.other.Load(),
		},
	}
}
