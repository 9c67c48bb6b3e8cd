package bpf

import (
	"errors"
	"fmt"
)

// What a caller may want to tell apart with errors.Is. Each comes wrapped with what was tried and the kernel's own error.
var (
	ErrUnsupported = errors.New("XDP steering needs Linux on amd64 or arm64")
	ErrPermission  = errors.New("not permitted: run as root or give the capabilities CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")
	ErrKernel      = errors.New("this kernel cannot run the program: Linux 5.15 is needed on amd64, 5.18 on arm64")
	ErrMemory      = errors.New("the kernel has no memory for the maps: size them smaller or raise the memory limit of the cgroup")
	ErrNoNative    = errors.New("the interface's driver has no native XDP: use generic mode or another interface")
	ErrFull        = errors.New("table full")
	ErrAttached    = errors.New("the program is already attached")
	ErrNoInterface = errors.New("no such interface")
)

// ForeignProgramError says that another XDP program is on the interface. We never remove it.
type ForeignProgramError struct {
	Interface string // its name
	Attachment
	Err error // the kernel's own, EBUSY or EEXIST
}

// Unwrap gives the kernel's error.
func (e *ForeignProgramError) Unwrap() error { return e.Err }

// Error names the program and says how to get it off the interface.
func (e *ForeignProgramError) Error() string {
	what := fmt.Sprintf("interface %s already has XDP program %d in %s mode", e.Interface, e.ProgramID, e.Mode)
	if e.Tag == "" {
		return fmt.Sprintf("%s: stop the program that owns it; root sees more by: bpftool prog show id %d", what, e.ProgramID)
	}
	what = fmt.Sprintf("%s (%q, tag %s)", what, e.Name, e.Tag)
	switch {
	case e.Ours:
		return what + ": another ringmq runs there: stop it or choose another interface"
	case e.LinkID != 0:
		return fmt.Sprintf("%s: stop the program that owns it, or detach it by: bpftool link detach id %d", what, e.LinkID)
	}
	return fmt.Sprintf("%s: stop the program that owns it, or remove it by: ip link set dev %s xdp%s off", what, e.Interface, e.flag())
}

// flag is the ending of ip-link's word for the mode.
func (e *ForeignProgramError) flag() string {
	switch e.Mode {
	case Native:
		return "drv"
	case Generic:
		return "generic"
	case Offload:
		return "offload"
	}
	return ""
}
