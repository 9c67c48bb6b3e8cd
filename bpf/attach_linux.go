//go:build amd64 || arm64

package bpf

import (
	"errors"
	"fmt"
	"net"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Attach puts the program on an interface by a bpf_link, which ends with this process at the latest. It never replaces a
// program: if there is one, in whatever mode, the error is a *ForeignProgramError. Others to tell apart are ErrNoNative,
// ErrNoInterface, ErrPermission, ErrKernel and ErrAttached.
func (p *Program) Attach(ifindex int, mode Mode) error {
	flags, known := map[Mode]link.XDPAttachFlags{Native: link.XDPDriverMode, Generic: link.XDPGenericMode}[mode]
	if !known {
		return fmt.Errorf("attach the steering program: in %s: give native or generic", mode)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link != nil {
		return ErrAttached
	}
	attached, err := link.AttachXDP(link.XDPOptions{Program: p.objects.RingmqSteer, Interface: ifindex, Flags: flags})
	if err != nil {
		return refusal(ifindex, mode, err)
	}
	p.link, p.mode = attached, mode
	return nil
}

// refusal says why the kernel did not attach.
func refusal(ifindex int, mode Mode, err error) error {
	device, lookErr := net.InterfaceByIndex(ifindex)
	if lookErr != nil { // The kernel said EINVAL.
		return fmt.Errorf("attach to interface %d: %w (%w)", ifindex, ErrNoInterface, err)
	}
	name := device.Name
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST) {
		// The program may have gone meanwhile, or we may not be let look: then the kernel's error is all we have.
		if there, lookErr := Inspect(ifindex); lookErr == nil && there.Mode != 0 {
			return &ForeignProgramError{Interface: name, Attachment: there, Err: err}
		}
	}
	if mode == Native && errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("attach to interface %s: %w (%w)", name, ErrNoNative, err)
	}
	if mode == Native && errors.Is(err, unix.ERANGE) {
		return fmt.Errorf("attach to interface %s: its MTU is too large for native XDP: lower it, on both ends of a veth pair: %w", name, err)
	}
	return fmt.Errorf("attach to interface %s in %s mode: %w", name, mode, explain(err))
}

// Detach takes the program off its interface. It keeps its maps and may be attached again. Without Attach it does nothing.
func (p *Program) Detach() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link == nil {
		return nil
	}
	attached := p.link
	p.link = nil
	// Closing alone would leave the moment to the kernel.
	if err := errors.Join(attached.Detach(), attached.Close()); err != nil {
		return fmt.Errorf("detach the steering program: %w", err)
	}
	return nil
}

// Attachment describes our own attachment, whatever we may look at. It is the zero Attachment before Attach, after Detach,
// and when the interface has been deleted.
func (p *Program) Attachment() (Attachment, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link == nil {
		return Attachment{}, nil
	}
	held, err := p.link.Info()
	if err != nil {
		return Attachment{}, fmt.Errorf("look at our bpf_link: %w", err)
	}
	if held.XDP() == nil || held.XDP().Ifindex == 0 {
		return Attachment{}, nil
	}
	program, err := p.objects.RingmqSteer.Info()
	if err != nil {
		return Attachment{}, fmt.Errorf("look at our program: %w", err)
	}
	return Attachment{
		ProgramID: uint32(held.Program), Name: program.Name, Tag: program.Tag, Ours: true, Mode: p.mode, LinkID: uint32(held.ID),
	}, nil
}
