package probe

import (
	"bytes"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Host reads the facts of the host and of this process, but for the firewall's: see Firewall. It creates and closes one
// AF_XDP socket, one program and one map.
func Host() (HostFacts, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	root := files{os.DirFS("/")}
	h := HostFacts{System: runtime.GOOS, Architecture: runtime.GOARCH, UserID: os.Geteuid()}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return h, fmt.Errorf("read the kernel's release: %w", err)
	}
	h.Kernel = string(name.Release[:bytes.IndexByte(name.Release[:], 0)])
	if executable, err := os.Executable(); err == nil {
		h.Executable = executable
	}
	status, err := root.text("proc/thread-self/status")
	if err != nil {
		return h, fmt.Errorf("read this process's status (is /proc mounted?): %w", err)
	}
	if h.Capabilities, err = parseCapabilities(status); err != nil {
		return h, err
	}
	h.UserNamespace = inUserNamespace(root)
	h.LockedMemory, h.Descriptors = limit(unix.RLIMIT_MEMLOCK), limit(unix.RLIMIT_NOFILE)
	h.Socket, h.Program, h.Map = trySocket(), tryProgram(), tryMap()
	h.Settings = readSettings(root)
	h.CPU = readCPU(root, status)
	h.Memory = readMemory(root)
	return h, nil
}

func limit(resource int) Limit {
	var r unix.Rlimit
	if unix.Getrlimit(resource, &r) != nil {
		return Limit{}
	}
	return Limit{Soft: limitValue(r.Cur), Hard: limitValue(r.Max)}
}

func limitValue(n uint64) int64 {
	if n > math.MaxInt64 { // RLIM_INFINITY
		return Unlimited
	}
	return int64(n)
}

// capabilities are those that a mode of ours wants, with their numbers in linux/capability.h.
var capabilities = [...]struct {
	name   string
	number int
}{
	{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN},
	{"CAP_NET_RAW", unix.CAP_NET_RAW},
	{"CAP_BPF", unix.CAP_BPF},
	{"CAP_PERFMON", unix.CAP_PERFMON},
	{"CAP_IPC_LOCK", unix.CAP_IPC_LOCK},
	{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN},
	{"CAP_NET_BIND_SERVICE", unix.CAP_NET_BIND_SERVICE},
}

// parseCapabilities reads the effective set from /proc/PID/status. libcap's package would bring a second way of making
// system calls on all threads into the program, for these sixteen digits.
func parseCapabilities(status string) ([]Capability, error) {
	text, err := field(status, "CapEff")
	if err != nil {
		return nil, fmt.Errorf("read this process's capabilities: %w", err)
	}
	set, err := strconv.ParseUint(text, 16, 64)
	if err != nil {
		return nil, fmt.Errorf("read this process's capabilities: %w", err)
	}
	var found []Capability
	for _, c := range capabilities {
		found = append(found, Capability{c.name, set>>c.number&1 != 0})
	}
	return found, nil
}

// inUserNamespace says that user ids are mapped: capabilities are then not those of the host.
func inUserNamespace(root files) bool {
	text, err := root.text("proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(text), " ") != "0 0 4294967295"
}

func readSettings(root files) Settings {
	return Settings{
		BPFJIT:                root.setting("net.core.bpf_jit_enable"),
		BPFJITHarden:          root.setting("net.core.bpf_jit_harden"),
		UnprivilegedBPF:       root.setting("kernel.unprivileged_bpf_disabled"),
		BusyPoll:              root.setting("net.core.busy_poll"),
		BusyRead:              root.setting("net.core.busy_read"),
		FirstUnprivilegedPort: root.setting("net.ipv4.ip_unprivileged_port_start"),
	}
}

func readCPU(root files, status string) CPUFacts {
	const cpus = "sys/devices/system/cpu/"
	f := CPUFacts{
		Online:    root.cpuList(cpus + "online"),
		Isolated:  root.cpuList(cpus + "isolated"),
		NUMANodes: root.cpuList("sys/devices/system/node/online"),
	}
	allowed, err := field(status, "Cpus_allowed_list")
	if err == nil {
		f.Allowed.Value, err = parseCPUList(allowed)
	}
	f.Allowed = factOf(f.Allowed.Value, err)
	smt, err := root.integer(cpus + "smt/active")
	f.SMT = factOf(smt == 1, err)
	f.Governors = readGovernors(root)
	f.IRQBalance = runs(root, "irqbalance")
	return f
}

func readGovernors(root files) Fact[[]string] {
	names, err := fs.Glob(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
	if err == nil && len(names) == 0 {
		return unknown[[]string]("this machine does not let the kernel choose frequencies")
	}
	var governors []string
	for _, name := range names {
		governor, textErr := root.text(name)
		if textErr != nil {
			err = textErr
		} else if !slices.Contains(governors, governor) {
			governors = append(governors, governor)
		}
	}
	return factOf(governors, err)
}

// runs looks for a process by its name.
func runs(root files, name string) Fact[bool] {
	if _, err := root.text("proc/1/comm"); err != nil {
		return unknown[bool]("the processes of others are hidden") // /proc is mounted with hidepid.
	}
	processes, err := fs.Glob(root, "proc/[0-9]*/comm")
	for _, process := range processes {
		if comm, err := root.text(process); err == nil && comm == name {
			return known(true)
		}
	}
	return factOf(false, err)
}

func readMemory(root files) MemoryFacts {
	info, err := root.text("proc/meminfo")
	if err != nil {
		reason := why(err)
		return MemoryFacts{unknown[Bytes](reason), unknown[Bytes](reason), readHugePages(root), readTHP(root)}
	}
	return MemoryFacts{kibibytes(info, "MemTotal"), kibibytes(info, "MemAvailable"), readHugePages(root), readTHP(root)}
}

func readTHP(root files) Fact[string] {
	text, err := root.text("sys/kernel/mm/transparent_hugepage/enabled")
	if err != nil {
		return unknown[string](why(err))
	}
	return factOf(chosenWord(text))
}

func readHugePages(root files) Fact[[]HugePages] {
	folders, err := fs.Glob(root, "sys/kernel/mm/hugepages/hugepages-*kB")
	var pools []HugePages
	for _, folder := range folders {
		var kB int64
		if _, scanErr := fmt.Sscanf(path.Base(folder), "hugepages-%dkB", &kB); scanErr != nil {
			continue
		}
		total, totalErr := root.integer(folder + "/nr_hugepages")
		free, freeErr := root.integer(folder + "/free_hugepages")
		if totalErr == nil && freeErr == nil {
			pools = append(pools, HugePages{Bytes(kB << 10), total, free})
		}
	}
	slices.SortFunc(pools, func(a, b HugePages) int { return int(a.SizeBytes>>10) - int(b.SizeBytes>>10) })
	return factOf(pools, err)
}
