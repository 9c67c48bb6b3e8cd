//go:build amd64 || arm64

package bpf

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Inspect says what XDP program is on an interface. What only CAP_SYS_ADMIN may see (name, tag, link) is empty without it.
// The error to tell apart is ErrNoInterface.
func Inspect(ifindex int) (Attachment, error) {
	device, err := netlink.LinkByIndex(ifindex)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return Attachment{}, fmt.Errorf("look at interface %d: %w", ifindex, ErrNoInterface)
	}
	if err != nil {
		return Attachment{}, fmt.Errorf("look at interface %d: %w", ifindex, err)
	}
	xdp := device.Attrs().Xdp
	if xdp == nil || !xdp.Attached {
		return Attachment{}, nil
	}
	there := Attachment{ProgramID: xdp.ProgId, Mode: attachedMode(xdp.AttachMode)}
	if err := there.describe(); err != nil {
		return Attachment{}, err
	}
	there.LinkID, err = holder(ifindex, there.ProgramID)
	return there, err
}

// attachedMode reads IFLA_XDP_ATTACHED. "Multi" has no number of its own: the card's program is one of several then.
func attachedMode(attached uint32) Mode {
	switch attached {
	case nl.XDP_ATTACHED_DRV:
		return Native
	case nl.XDP_ATTACHED_SKB:
		return Generic
	}
	return Offload
}

// describe fills in what the program itself tells.
func (a *Attachment) describe() error {
	program, err := ebpf.NewProgramFromID(ebpf.ProgramID(a.ProgramID))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.EPERM) {
		return nil // Gone meanwhile, or not ours to see.
	}
	if err != nil {
		return fmt.Errorf("look at XDP program %d: %w", a.ProgramID, err)
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return fmt.Errorf("look at XDP program %d: %w", a.ProgramID, err)
	}
	a.Name, a.Tag, a.Ours = info.Name, info.Tag, info.Name == ProgramName
	return nil
}

// holder finds the bpf_link that holds a program on an interface, 0 if there is none or we may not look. Interfaces of
// different network namespaces have the same indices, program ids are unique.
func holder(ifindex int, program uint32) (uint32, error) {
	var links link.Iterator
	defer links.Close()
	for links.Next() {
		info, err := links.Link.Info()
		if err != nil {
			continue // Gone meanwhile, or of a kind that the library does not know.
		}
		if xdp := info.XDP(); xdp != nil && int(xdp.Ifindex) == ifindex && uint32(info.Program) == program {
			return uint32(info.ID), nil
		}
	}
	if err := links.Err(); err != nil && !errors.Is(err, unix.EPERM) {
		return 0, fmt.Errorf("list bpf_links: %w", err)
	}
	return 0, nil
}

// Installed lists what is ours in the kernel. It needs CAP_SYS_ADMIN; without, the error is ErrPermission.
func Installed() (Objects, error) {
	var found Objects
	var err error
	if found.Programs, err = collect(nextProgram); err != nil {
		return Objects{}, fmt.Errorf("list BPF programs: %w", explain(err))
	}
	if found.Maps, err = collect(nextMap); err != nil {
		return Objects{}, fmt.Errorf("list BPF maps: %w", explain(err))
	}
	return found, nil
}

// collect walks ids from zero. Next gives the id after one, and whether it is ours; its error is os.ErrNotExist at the end.
func collect(next func(id uint32) (uint32, bool, error)) ([]uint32, error) {
	var found []uint32
	for id := uint32(0); ; {
		following, ours, err := next(id)
		if errors.Is(err, os.ErrNotExist) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		if ours {
			found = append(found, following)
		}
		id = following
	}
}

func nextProgram(id uint32) (uint32, bool, error) {
	following, err := ebpf.ProgramGetNextID(ebpf.ProgramID(id))
	if err != nil {
		return 0, false, err
	}
	there := Attachment{ProgramID: uint32(following)}
	err = there.describe()
	return uint32(following), there.Ours, err
}

func nextMap(id uint32) (uint32, bool, error) {
	following, err := ebpf.MapGetNextID(ebpf.MapID(id))
	if err != nil {
		return 0, false, err
	}
	m, err := ebpf.NewMapFromID(following)
	if errors.Is(err, os.ErrNotExist) {
		return uint32(following), false, nil // Gone meanwhile.
	}
	if err != nil {
		return 0, false, err
	}
	defer m.Close()
	info, err := m.Info()
	if err != nil {
		return 0, false, err
	}
	return uint32(following), strings.HasPrefix(info.Name, mapNamePrefix), nil
}
