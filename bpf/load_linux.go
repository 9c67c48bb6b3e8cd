//go:build amd64 || arm64

package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// mapNamePrefix marks our maps in the kernel, which keeps 15 bytes of a name.
const mapNamePrefix = "ringmq_"

// errNotSupported is the kernel's ENOTSUPP, not EOPNOTSUPP: what a JIT compiler says of an instruction that it lacks. The kernel
// means to keep it to itself (include/linux/errno.h), so that no package names it.
const errNotSupported = unix.Errno(524)

// Program is the steering program in the kernel, with its maps, for one interface. Its methods may be called by any
// goroutine, while traffic flows: a frame is judged by what was before a call or by what is after it, never by a mixture.
type Program struct {
	options Options
	objects steerObjects // immutable after Load; the maps are the kernel's

	mu          sync.Mutex // guards what follows, and orders the writes to maps that take more than one step
	link        link.Link  // nil while not attached
	mode        Mode       // of the link
	flags       []steerQueueFlag
	addresses   map[netip.Addr]struct{}
	ports       portSet
	kernelFlows int      // entries of the map of that name
	lists       prefixes // as the callers gave them
	sources     prefixes // as they stand in the map of that name
	synLimit    SYNLimit
	synCurrent  uint32 // which of the two entries of syn_limits is in use
}

// Load brings the program and its maps into the kernel. It steers nothing before Attach, SetAddresses, SetPorts and
// SetSocket. The errors to tell apart are ErrPermission, ErrKernel and ErrMemory.
func Load(options Options) (*Program, error) {
	options, err := options.complete()
	if err != nil {
		return nil, fmt.Errorf("load the steering program: %w", err)
	}
	spec, err := loadSteer()
	if err != nil {
		return nil, err
	}
	if err := size(spec, options); err != nil {
		return nil, fmt.Errorf("size the steering program's maps: %w", err)
	}
	p := &Program{
		options:   options,
		flags:     make([]steerQueueFlag, options.Queues),
		addresses: map[netip.Addr]struct{}{},
		lists:     prefixes{},
		sources:   prefixes{},
	}
	if err := spec.LoadAndAssign(&p.objects, nil); err != nil {
		return nil, fmt.Errorf("load the steering program: %w", explain(err))
	}
	if p.synLimit, err = (SYNLimit{}).complete(); err != nil {
		panic(err) // The zero SYNLimit is good.
	}
	return p, nil
}

// size sets the bounds of the maps. Those whose contents can be replaced have room for the old and the new at a time.
func size(spec *ebpf.CollectionSpec, options Options) error {
	for name, entries := range map[string]int{
		steerMapSockets:     options.Queues,
		steerMapQueueFlags:  options.Queues,
		steerMapCounters:    (options.Queues + 1) * Verdicts,
		steerMapAddresses:   2 * MaxAddresses,
		steerMapSources:     2 * options.Prefixes,
		steerMapKernelFlows: options.KernelFlows,
		steerMapKernelSyns:  options.KernelSYNs,
		steerMapSynBuckets:  options.SYNSources,
	} {
		spec.Maps[name].MaxEntries = uint32(entries)
	}
	for name, m := range spec.Maps {
		m.Name = mapNamePrefix + name
	}
	return spec.Variables[steerVarQueues].Set(uint32(options.Queues))
}

// explain adds to the kernel's error what it means for the user.
func explain(err error) error {
	var rejected *ebpf.VerifierError
	switch {
	case errors.As(err, &rejected) && mayReadPackets():
		return fmt.Errorf("%w: %w", ErrKernel, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w (%w)", ErrPermission, err)
	case errors.Is(err, unix.ENOSYS), errors.Is(err, errNotSupported), errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%w (%w)", ErrKernel, err)
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("%w (%w)", ErrMemory, err)
	}
	return err
}

// mayReadPackets says whether we have the capability without which the verifier rejects the program, with EACCES as if it
// were wrong: CAP_PERFMON, or CAP_SYS_ADMIN, which stands for it. If we cannot know, we say yes and show the kernel's words.
func mayReadPackets() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData // 32 capabilities each
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return true
	}
	return sets[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0 || sets[1].Effective&(1<<(unix.CAP_PERFMON-32)) != 0
}

// use tells the program to look into a table, before it gets its first entry.
func (p *Program) use(table steerTable) error { return p.setUse(table, 1) }

func (p *Program) setUse(table steerTable, used uint32) error {
	if err := p.objects.InUse.Put(table, used); err != nil {
		return fmt.Errorf("say which tables are in use: %w", err)
	}
	return nil
}

// Close detaches the program and frees everything in the kernel. Traffic goes to the kernel from then on.
func (p *Program) Close() error {
	return errors.Join(p.Detach(), p.objects.Close())
}
