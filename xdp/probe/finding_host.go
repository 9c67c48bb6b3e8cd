package probe

import (
	"fmt"
	"slices"
	"strings"
)

func (j *judge) judgeHost() {
	if j.host.System != "linux" {
		j.add(Problem, "kernel", "", "XDP needs Linux, and this is %s", j.host.System).without("mode standard works on this system")
		return
	}
	j.kernel()
	j.trials()
	j.privileges()
	j.lockedMemory()
	j.settings()
	j.processors()
}

// kernel asks for the versions that the steering program needs (see ErrKernel in package bpf).
func (j *judge) kernel() {
	needs := map[string]int{"amd64": 15, "arm64": 18}
	least, built := needs[j.host.Architecture]
	major, minor, readable := kernelVersion(j.host.Kernel)
	switch {
	case !built:
		j.add(Problem, "kernel", "", "XDP needs amd64 or arm64, and this is %s", j.host.Architecture).
			without("mode standard works on this processor")
	case !readable:
		j.add(Note, "kernel", "", "release %q is not understood: whether it is Linux 5.%d or later is unknown", j.host.Kernel, least).
			without("opening the interface tells")
	case major < 5 || major == 5 && minor < least:
		j.add(Problem, "kernel", "", "Linux %s is too old: XDP on %s needs 5.%d or later", j.host.Kernel, j.host.Architecture, least).
			without("install a newer kernel and start it; mode standard works on this one")
	default:
		j.add(OK, "kernel", "", "Linux %s is new enough for XDP", j.host.Kernel)
	}
}

// trials judges what was tried. What was denied is left to privileges, unless these are there.
func (j *judge) trials() {
	for _, t := range []struct {
		Trial
		what       string
		capability string
		option     string // of the kernel's configuration
	}{
		{j.host.Socket, "an AF_XDP socket", "CAP_NET_RAW", "CONFIG_XDP_SOCKETS"},
		{j.host.Program, "an XDP program", "CAP_BPF", "CONFIG_BPF_SYSCALL"},
		{j.host.Map, "an XSKMAP", "CAP_BPF", "CONFIG_XDP_SOCKETS"},
	} {
		switch {
		case t.Works:
		case !t.Denied:
			j.add(Problem, "kernel", "", "the kernel does not make %s (%s): it needs %s=y", t.what, t.Error, t.option).
				without("a kernel is built with it or not; mode standard works on this one")
		case j.held(t.capability) || j.held("CAP_SYS_ADMIN") && t.capability == "CAP_BPF":
			j.add(Problem, "privileges", "", "the kernel denies %s in spite of %s: a container, user namespace or security module is in the way, "+
				"run on the host itself", t.what, t.capability).without("what denies it is outside of this process's reach")
		}
	}
}

func (j *judge) held(name string) bool {
	return slices.Contains(j.host.Capabilities, Capability{name, true})
}

// privileges names each capability that is missing.
func (j *judge) privileges() {
	remedy := j.grant()
	missing := 0
	for _, c := range []struct{ name, without string }{
		{"CAP_NET_ADMIN", "no XDP program can be attached"},
		{"CAP_NET_RAW", "no AF_XDP socket can be made"},
		{"CAP_BPF", "no XDP program can be loaded"},
		{"CAP_PERFMON", "the kernel's verifier lets no XDP program read headers of any length"},
	} {
		// CAP_SYS_ADMIN includes those that were once part of it.
		if j.held(c.name) || (c.name == "CAP_BPF" || c.name == "CAP_PERFMON") && j.held("CAP_SYS_ADMIN") {
			continue
		}
		missing++
		j.add(Problem, "privileges", remedy, "%s is missing: without it %s", c.name, c.without)
	}
	switch {
	case j.host.UserNamespace && missing == 0:
		j.add(Note, "privileges", "", "this is a user namespace: its capabilities are not the host's").
			without("opening the interface tells whether they are enough")
	case missing == 0:
		j.add(OK, "privileges", "", "this process has the capabilities that XDP needs")
	}
}

// grant is the command that gives the program all it needs; setcap replaces what the file had.
func (j *judge) grant() string {
	names := "cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon,cap_ipc_lock"
	if j.privilegedPort() {
		names += ",cap_net_bind_service"
	}
	if j.host.Executable == "" {
		return j.as("setcap " + names + `+ep "$(command -v ringmq)"`)
	}
	return j.as(fmt.Sprintf("setcap %s+ep %s", names, quote(j.host.Executable)))
}

// quote keeps a path one word for the shell.
func quote(path string) string {
	if strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+") == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

func (j *judge) privilegedPort() bool {
	first := j.host.Settings.FirstUnprivilegedPort
	return first.Known() && int(j.plan.Port) < first.Value
}

// lockedMemory is charged for the umem of every queue unless the process has CAP_IPC_LOCK (xdp_umem_account_pages,
// net/xdp/xdp_umem.c); maps and programs are not since Linux 5.11.
func (j *judge) lockedMemory() {
	queues := 0
	for _, i := range j.interfaces {
		queues += max(1, min(len(j.plan.Queues), i.ReceiveQueues().Value))
		if len(j.plan.Queues) == 0 {
			queues += max(1, i.ReceiveQueues().Value) - 1
		}
	}
	wanted := int64(queues) * j.plan.UmemBytes
	if j.held("CAP_IPC_LOCK") || j.host.LockedMemory.covers(wanted) {
		return
	}
	remedy := fmt.Sprintf("ulimit -l %d", (wanted+1023)>>10)
	if hard := j.host.LockedMemory.Hard; hard != Unlimited && hard < wanted {
		remedy = j.as("prlimit --pid $$ --memlock=unlimited:unlimited")
	}
	j.add(Problem, "locked memory", remedy, "the umem of %s takes %v, and this process may lock %v: raise RLIMIT_MEMLOCK "+
		"(LimitMEMLOCK=infinity in a systemd unit) or give CAP_IPC_LOCK", count(queues, "queue"), Bytes(wanted), Bytes(max(0, j.host.LockedMemory.Soft)))
}

func (j *judge) settings() {
	if jit := j.host.Settings.BPFJIT; jit.Known() && jit.Value == 0 {
		j.add(Warning, "kernel", j.as("sysctl -w net.core.bpf_jit_enable=1"), "the BPF compiler is off (net.core.bpf_jit_enable is 0): the steering "+
			"program is interpreted, several times slower")
	}
}

func (j *judge) processors() {
	c := j.host.CPU
	if c.IRQBalance.Known() && c.IRQBalance.Value {
		j.add(Note, "cpu", j.as("systemctl stop irqbalance"), "irqbalance runs and moves the queues' interrupts between CPUs")
	}
	for _, governor := range c.Governors.Value {
		if governor == "powersave" || governor == "ondemand" || governor == "conservative" {
			j.add(Note, "cpu", j.as("cpupower frequency-set -g performance"), "the CPU frequency governor is %s: latency suffers while CPUs wake up", governor)
			break
		}
	}
}

// judgeAnyMode is about the host's TCP, which every mode has, and the broker's memory.
func (j *judge) judgeAnyMode() {
	j.at = ""
	const descriptorsFew = 4096
	limit := j.host.Descriptors
	switch {
	case limit.Soft == 0 || j.plan.Descriptors == 0 && limit.covers(descriptorsFew):
	case j.plan.Descriptors > 0 && !limit.covers(j.plan.Descriptors):
		j.add(Warning, "descriptors", j.raiseDescriptors(limit, j.plan.Descriptors), "this process may open %d files, and the broker wants %d", limit.Soft, j.plan.Descriptors)
	case j.plan.Descriptors == 0:
		j.add(Note, "descriptors", j.raiseDescriptors(limit, 65536), "this process may open %d files, which bounds the number of clients", limit.Soft)
	}
	if j.privilegedPort() && j.host.System == "linux" && !j.held("CAP_NET_BIND_SERVICE") {
		j.add(Warning, "privileges", j.as(fmt.Sprintf("sysctl -w net.ipv4.ip_unprivileged_port_start=%d", j.plan.Port)),
			"CAP_NET_BIND_SERVICE is missing: without it port %d cannot be listened on", j.plan.Port)
	}
	j.port()
	if j.host.Memory.THP.Value == "always" {
		j.add(Note, "memory", j.write("madvise", "/sys/kernel/mm/transparent_hugepage/enabled"),
			"transparent huge pages are given always: resident memory grows by 2 MiB where a page would do")
	}
}

// raiseDescriptors is the command for this shell: up to the hard limit everybody may.
func (j *judge) raiseDescriptors(limit Limit, wanted int64) string {
	if limit.Hard == Unlimited || limit.Hard >= wanted {
		return fmt.Sprintf("ulimit -n %d", wanted)
	}
	return j.as(fmt.Sprintf("prlimit --pid $$ --nofile=%d:%d", wanted, wanted))
}
