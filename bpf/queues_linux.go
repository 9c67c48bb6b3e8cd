//go:build amd64 || arm64

package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// SetSocket puts an AF_XDP socket, bound to this queue of the interface and with its fill ring filled, into the XSKMAP: from
// now on the queue's segments are its own. It replaces the socket that stood there. The kernel takes a socket out when it is
// closed. Connections on the kernel's path must be in AddKernelFlows before.
func (p *Program) SetSocket(queue, fd int) error {
	if err := p.checkQueue(queue); err != nil {
		return fmt.Errorf("put a socket into the XSKMAP: %w", err)
	}
	if err := p.objects.Sockets.Put(uint32(queue), uint32(fd)); err != nil {
		return fmt.Errorf("put the socket of queue %d into the XSKMAP: %w", queue, err)
	}
	return nil
}

// ClearSocket takes the queue's socket out of the XSKMAP, if there is one: new connections go to the kernel, and so do the
// segments of the socket's connections, which the kernel resets, unless the queue is held.
func (p *Program) ClearSocket(queue int) error {
	if err := p.checkQueue(queue); err != nil {
		return fmt.Errorf("take a socket out of the XSKMAP: %w", err)
	}
	if err := p.objects.Sockets.Delete(uint32(queue)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("take the socket of queue %d out of the XSKMAP: %w", queue, err)
	}
	return nil
}

func (p *Program) checkQueue(queue int) error {
	if queue < 0 || queue >= p.options.Queues {
		return fmt.Errorf("there is no queue %d: the program was loaded for %d, counted from 0", queue, p.options.Queues)
	}
	return nil
}

// SetDrain says whether new connections of a queue, or of AllQueues, go to the kernel. Known flows are still redirected.
func (p *Program) SetDrain(queue int, on bool) error {
	return p.setFlag(queue, steerQueueFlagQUEUE_DRAIN, on)
}

// SetHold says what becomes of segments of known flows while a queue, or any of AllQueues, has no socket: held, they are
// dropped and their senders send them again; not held, they go to the kernel, which knows no such connection and resets it.
// Hold a queue while its socket is replaced under a living stack. New connections go to the kernel either way.
func (p *Program) SetHold(queue int, on bool) error {
	return p.setFlag(queue, steerQueueFlagQUEUE_HOLD, on)
}

func (p *Program) setFlag(queue int, flag steerQueueFlag, on bool) error {
	first, last := queue, queue
	if queue == AllQueues {
		first, last = 0, p.options.Queues-1
	}
	if err := p.checkQueue(first); err != nil {
		return fmt.Errorf("set a queue's state: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for q := first; q <= last; q++ {
		flags := p.flags[q] &^ flag
		if on {
			flags |= flag
		}
		if err := p.objects.QueueFlags.Put(uint32(q), flags); err != nil {
			return fmt.Errorf("set the state of queue %d: %w", q, err)
		}
		p.flags[q] = flags
	}
	return nil
}

// Counters reads the counters. Each is exact; together they are not of one moment. It allocates: call it to show or export.
func (p *Program) Counters() (Counters, error) {
	read := Counters{Queues: make([]Counts, p.options.Queues)}
	for queue := range read.Queues {
		if err := p.readCounts(queue, &read.Queues[queue]); err != nil {
			return Counters{}, err
		}
	}
	err := p.readCounts(p.options.Queues, &read.Beyond)
	return read, err
}

func (p *Program) readCounts(queue int, counts *Counts) error {
	var perCPU []steerCount
	for verdict := range counts {
		if err := p.objects.Counters.Lookup(uint32(queue*Verdicts+verdict), &perCPU); err != nil {
			return fmt.Errorf("read counters of queue %d: %w", queue, err)
		}
		for _, count := range perCPU {
			counts[verdict].Packets += count.Packets
			counts[verdict].Bytes += count.Bytes
		}
	}
	return nil
}
