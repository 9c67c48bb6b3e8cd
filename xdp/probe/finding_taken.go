package probe

import (
	"fmt"
	"maps"
	"slices"
)

// What others have taken: the interface's place for a program, its queues, the broker's port.

func (j *judge) programs(i InterfaceFacts) {
	for _, p := range i.Programs {
		what := fmt.Sprintf("XDP program %d (%s, %s mode)", p.ID, p.title(), p.Mode)
		switch {
		case p.isOurs() && !p.isLeft():
			j.running(p)
		case p.isOurs():
			j.add(Warning, "xdp program", j.as(p.removal(i.Name)), "%s was a ringmq's, and no process has it any more: the kernel is about to remove it, or it is pinned", what)
		default:
			if p.Holder.Value.ID != 0 {
				what += " of " + p.Holder.String()
			}
			f := j.add(Problem, "xdp program", j.as(p.removal(i.Name)), "%s is attached and not ours: we never remove it, stop what owns it or detach it", what)
			if !p.LinkID.Known() {
				f.or("sudo ringmq doctor --interface %s, for if a bpf_link holds it, only that can be detached", i.Name)
			}
		}
	}
}

// running says what a ringmq that steers the interface means: nothing is wrong, and a second one gets no place there.
func (j *judge) running(p Program) {
	who := p.Holder.Value.String()
	if !p.Holder.Known() {
		who = "its process unknown (" + p.Holder.Unknown + ")"
	}
	f := j.add(Running, "ringmq", j.as(p.Holder.Value.Stop()), "a ringmq runs here, %s, and has XDP program %d in %s mode: this host works; "+
		"an interface carries one program, so that another ringmq is refused it", who, p.ID, p.Mode)
	f.without("stop that ringmq the way it was started")
	if p.Holder.Value.ID != 0 {
		f.or("ringmq xdp status --admin %s shows how it does", p.Holder.Value.admin())
	}
}

func (p Program) title() string {
	switch {
	case !p.Name.Known():
		return "name unknown: " + p.Name.Unknown
	case p.Name.Value == "":
		return "without a name"
	}
	return p.Name.Value
}

func (p Program) removal(name string) string {
	if p.LinkID.Value != 0 {
		return fmt.Sprintf("bpftool link detach id %d", p.LinkID.Value)
	}
	flag := map[string]string{"native": "drv", "generic": "generic", "offload": "offload"}[p.Mode]
	return fmt.Sprintf("ip link set dev %s xdp%s off", name, flag)
}

// sockets finds queues that others have. Those of the program on the interface go with it, which is said already.
func (j *judge) sockets(i InterfaceFacts) {
	taken, by := map[int][]int{}, map[int]Process{} // by process id, 0 where the kernel does not tell
	for _, q := range i.Queues.Value {
		who := q.Holder.Value
		isSaid := slices.ContainsFunc(i.Programs, func(p Program) bool { return who.ID == 0 || who.ID == p.Holder.Value.ID })
		if q.Socket && !isSaid {
			taken[who.ID], by[who.ID] = append(taken[who.ID], q.Index), who
		}
	}
	for _, id := range slices.Sorted(maps.Keys(taken)) {
		name, remedy := by[id].String(), by[id].Stop()
		if id == 0 {
			name, remedy = "another process", "grep -ls socket: /proc/[0-9]*/maps" // Rings are mapped sockets, and few processes have such.
		}
		severity := Problem
		if by[id].isRingmq() {
			severity = Running // Its program is off, by ringmq xdp detach.
		}
		j.add(severity, "queues", j.as(remedy), "an AF_XDP socket of %s has %s: stop that one", name, queueList(taken[id]))
	}
}

// port says who listens where serve would.
func (j *judge) port() {
	taken, by := map[int][]string{}, map[int]Fact[Process]{} // by process id, 0 where that is unknown
	for _, l := range j.host.Listeners.Value {
		id := l.Holder.Value.ID
		taken[id], by[id] = append(taken[id], l.Address), l.Holder
	}
	for _, id := range slices.Sorted(maps.Keys(taken)) {
		who := by[id].Value
		name, remedy := who.String(), who.Stop()
		if id == 0 {
			name, remedy = "another process", fmt.Sprintf("ss --listening --tcp --processes sport = :%d", j.plan.Port)
		}
		severity := Problem
		if who.isRingmq() || j.steers(id) {
			severity = Running
		}
		f := j.add(severity, "port", j.as(remedy), "port %d is taken by %s, which listens on %s: no other can have it there", j.plan.Port, name, and(taken[id]))
		f.or("ringmq serve --listen with another port").everyMode = true
	}
}

// steers says that a process is a ringmq that has one of the interfaces.
func (j *judge) steers(id int) bool {
	return slices.ContainsFunc(j.interfaces, func(i InterfaceFacts) bool {
		p, steered := i.steeredBy()
		return steered && id != 0 && p.Holder.Value.ID == id
	})
}
