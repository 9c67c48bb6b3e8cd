package probe

import (
	"fmt"
	"slices"
	"strings"
)

// Process is one that holds what only one can have: an interface's XDP program, a queue, a port.
type Process struct {
	ID      int    `json:"pid"`                    // 0 means that there is none
	Command string `json:"command,omitempty"`      // as /proc/PID/comm has it
	Unit    string `json:"systemd_unit,omitempty"` // the service that it belongs to
	Admin   string `json:"admin_socket,omitempty"` // of a ringmq; empty until somebody has found it

	UnixSockets []string `json:"-"` // paths at which it listens
}

// String names the process for sentences.
func (p Process) String() string {
	if p.ID == 0 {
		return "no process"
	}
	about := slices.DeleteFunc([]string{p.Command, p.Unit}, func(s string) bool { return s == "" })
	if p.Admin != "" {
		about = append(about, "admin socket "+p.Admin)
	}
	if len(about) == 0 {
		return fmt.Sprintf("process %d", p.ID)
	}
	return fmt.Sprintf("process %d (%s)", p.ID, strings.Join(about, ", "))
}

// Stop is the command that ends it: a service manager would start again what was only killed. Empty for no process.
func (p Process) Stop() string {
	switch {
	case p.Unit != "":
		return "systemctl stop " + p.Unit
	case p.ID != 0:
		return fmt.Sprintf("kill %d", p.ID)
	}
	return ""
}

// admin is what the flag --admin takes for it.
func (p Process) admin() string {
	if p.Admin != "" {
		return p.Admin
	}
	return fmt.Sprint(p.ID)
}

// isRingmq goes by the name of the program file.
func (p Process) isRingmq() bool { return p.Command == "ringmq" || p.Admin != "" }

// Listener is a socket that listens on the broker's port.
type Listener struct {
	Address string        `json:"address"` // with the port
	Holder  Fact[Process] `json:"holder"`
}

// unitOf reads the systemd service out of /proc/PID/cgroup: 0::/system.slice/ringmq.service.
func unitOf(cgroup string) string {
	for line := range strings.Lines(cgroup) {
		for part := range strings.SplitSeq(strings.TrimSpace(line), "/") {
			if strings.HasSuffix(part, ".service") && !strings.HasPrefix(part, "user@") {
				return part
			}
		}
	}
	return ""
}

// unixListeners gives, from /proc/PID/net/unix, the paths of listening sockets by inode.
func unixListeners(table string) map[string]string {
	const acceptsConnections = "00010000" // __SO_ACCEPTCON
	paths := map[string]string{}
	for line := range strings.Lines(table) {
		// Num RefCount Protocol Flags Type St Inode Path
		if fields := strings.Fields(line); len(fields) == 8 && fields[3] == acceptsConnections {
			paths[fields[6]] = fields[7]
		}
	}
	return paths
}
