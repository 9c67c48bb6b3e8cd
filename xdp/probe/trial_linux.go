package probe

import (
	"errors"
	"io/fs"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// trialOf says how a trial ended. EPERM and EACCES are a matter of privileges, everything else one of the kernel.
func trialOf(err error) Trial {
	if err == nil {
		return Trial{Works: true}
	}
	t := Trial{Denied: errors.Is(err, fs.ErrPermission), Error: err.Error()}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		t.Error = errno.Error()
	}
	return t
}

// trySocket makes an AF_XDP socket. The kernel looks for the address family before it asks for CAP_NET_RAW
// (xsk_create, net/xdp/xsk.c), so that EAFNOSUPPORT is certain without privileges too.
func trySocket() Trial {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return trialOf(err)
	}
	return trialOf(unix.Close(fd))
}

// tryProgram loads the shortest XDP program: it passes every packet.
func tryProgram() Trial {
	const xdpPass = 2
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.XDP,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
		License:      "Apache-2.0",
	})
	if err != nil {
		return trialOf(err)
	}
	return trialOf(program.Close())
}

func tryMap() Trial {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return trialOf(err)
	}
	return trialOf(m.Close())
}
