//go:build amd64 || arm64

package bpf

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// AddKernelFlows tells the program of connections on the kernel's path, whose segments it then always passes. Those that are
// there already stay. When they do not all fit, the error is ErrFull, and those before the first that did not are there:
// nothing is pushed out.
func (p *Program) AddKernelFlows(flows ...Flow) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(flows) == 0 {
		return nil
	}
	if err := p.use(steerTableTABLE_KERNEL_FLOWS); err != nil {
		return err
	}
	for _, flow := range flows {
		key, err := flowKey(flow)
		if err != nil {
			return fmt.Errorf("add a kernel flow: %w", err)
		}
		err = p.objects.KernelFlows.Update(key, uint32(0), ebpf.UpdateNoExist)
		switch {
		case errors.Is(err, ebpf.ErrKeyExist):
			continue
		case errors.Is(err, unix.E2BIG):
			return fmt.Errorf("add kernel flow %s to %s: %d are there: %w", flow.Remote, flow.Local, p.kernelFlows, ErrFull)
		case err != nil:
			return fmt.Errorf("add kernel flow %s to %s: %w", flow.Remote, flow.Local, err)
		}
		p.kernelFlows++
	}
	return nil
}

// RemoveKernelFlows tells the program that connections have left the kernel's path, as far as the caller is concerned: their
// last segments still go there, and so does a SYN of the same addresses and ports within 64 s, while the kernel may have the
// connection in TIME-WAIT. A later SYN is steered. Flows that are not there are skipped.
func (p *Program) RemoveKernelFlows(flows ...Flow) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.use(steerTableTABLE_KERNEL_SYNS); err != nil {
		return err
	}
	for _, flow := range flows {
		if err := p.removeKernelFlow(flow); err != nil {
			return fmt.Errorf("remove kernel flow %s to %s: %w", flow.Remote, flow.Local, err)
		}
	}
	if p.kernelFlows > 0 {
		return nil
	}
	return p.setUse(steerTableTABLE_KERNEL_FLOWS, 0)
}

// removeKernelFlow remembers the flow as a connection attempt before it forgets the flow: there is no moment without either.
func (p *Program) removeKernelFlow(flow Flow) error {
	key, err := flowKey(flow)
	if err != nil {
		return err
	}
	var unused uint32
	if err := p.objects.KernelFlows.Lookup(key, &unused); errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	now, err := monotonic()
	if err != nil {
		return err
	}
	if err := p.objects.KernelSyns.Put(key, uint64(now)); err != nil {
		return err
	}
	if err := p.objects.KernelFlows.Delete(key); err != nil {
		return err
	}
	p.kernelFlows--
	return nil
}

// KernelFlows is how many flows AddKernelFlows holds.
func (p *Program) KernelFlows() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.kernelFlows
}

// monotonic is the program's clock, bpf_ktime_get_ns.
func monotonic() (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0, fmt.Errorf("read the clock: %w", err)
	}
	return time.Duration(now.Nano()), nil
}

func flowKey(flow Flow) (steerFlow, error) {
	flow, err := flow.check()
	if err != nil {
		return steerFlow{}, err
	}
	_, local := words(flow.Local.Addr())
	return steerFlow{
		Remote:     addressKey(flow.Remote.Addr()),
		Local:      local,
		RemotePort: networkPort(flow.Remote.Port()),
		LocalPort:  networkPort(flow.Local.Port()),
	}, nil
}
