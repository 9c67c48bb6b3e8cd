package main

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/ringmq/ringmq/bpf"
	"github.com/ringmq/ringmq/xdp/probe"
)

// settleFor is how long the kernel may take to free what a process has left; it takes milliseconds, and longer under load.
const settleFor, settleEvery = time.Second, 50 * time.Millisecond

// left is what is on interfaces, and what of ringmq's is in the kernel.
type left struct {
	attached   []probe.Attached
	objects    bpf.Objects
	err, hides error // why the one or the other is unknown
}

func readLeft() (l left) {
	l.attached, l.err = probe.Programs()
	l.objects, l.hides = bpf.Installed()
	return l
}

// loose are our programs that are on no interface.
func (l left) loose() (ids []uint32) {
	for _, id := range l.objects.Programs {
		if !slices.ContainsFunc(l.attached, func(a probe.Attached) bool { return a.ID == id }) {
			ids = append(ids, id)
		}
	}
	return ids
}

// isSettled says that nothing looks as if the kernel were about to free it.
func (l left) isSettled() bool {
	isLeft := func(a probe.Attached) bool { return a.IsOurs() && a.IsLeft() }
	return !slices.ContainsFunc(l.attached, isLeft) && len(l.loose()) == 0 && (len(l.objects.Maps) == 0 || len(l.objects.Programs) > 0)
}

// showLeft tells, when no broker answers, what is on interfaces and in the kernel, whose it is, and what takes it away.
func showLeft(to io.Writer) {
	l := readLeft()
	for deadline := time.Now().Add(settleFor); !l.isSettled() && time.Now().Before(deadline); l = readLeft() {
		time.Sleep(settleEvery)
	}
	if l.err != nil {
		fmt.Fprintf(to, "what is on the interfaces is unknown: %v\n", l.err)
	}
	for _, a := range l.attached {
		says, remedy := describeAttached(a)
		fmt.Fprintf(to, "%s\n  -> %s\n", says, remedy)
	}
	l.showObjects(to)
}

func (l left) showObjects(to io.Writer) {
	programs, mapIDs := l.objects.Programs, l.objects.Maps
	switch {
	case l.hides != nil:
		fmt.Fprintf(to, "whether anything of ringmq's is in this kernel is unknown: %v\n  -> sudo ringmq xdp status\n", l.hides)
		return
	case len(programs)+len(mapIDs) == 0:
		fmt.Fprintln(to, "nothing of ringmq's is in this kernel: no program, no map")
		return
	}
	fmt.Fprintf(to, "in this kernel: programs %v, maps %v of ringmq\n", programs, mapIDs)
	const names = "names who has it, or the file that pins it and that rm takes away"
	for _, id := range l.loose() {
		fmt.Fprintf(to, "program %d is on no interface\n  -> bpftool --bpffs prog show id %d %s\n", id, id, names)
	}
	if len(programs) == 0 {
		fmt.Fprintf(to, "the maps have no program\n  -> bpftool --bpffs map show id %d %s\n", mapIDs[0], names)
	}
}

// describeAttached says what a program means, and what to do about it.
func describeAttached(a probe.Attached) (says, remedy string) {
	where, who := "interface "+a.Interface, a.Holder.Value
	switch {
	case a.Interface == "" && a.Index == 0:
		where = "no interface any more"
	case a.Interface == "":
		where = fmt.Sprintf("interface number %d of another network namespace", a.Index)
	}
	if a.Mode != "" {
		where += ", " + a.Mode + " mode"
	}
	what := fmt.Sprintf("%s: XDP program %d (%v)", where, a.ID, a.Name)
	switch socket := brokerOf(who.UnixSockets, a.ID); {
	case !a.IsOurs() && who.ID != 0:
		return fmt.Sprintf("%s of %v, not ringmq's", what, who), a.Removal()
	case !a.IsOurs():
		return what + ", not ringmq's", a.Removal()
	case a.IsLeft() && a.Index == 0:
		return what + " of a ringmq that has ended; its link is pinned", fmt.Sprintf("bpftool --bpffs link show id %d names the file, which rm takes away", a.LinkID.Value)
	case a.IsLeft():
		return what + " of a ringmq that has ended; something else holds it", a.Removal()
	case socket != "":
		return fmt.Sprintf("%s of %v, which runs", what, who), "ringmq xdp status --admin " + socket
	case who.ID != 0:
		return fmt.Sprintf("%s of %v, which runs and has no admin socket that answers", what, who), who.Stop()
	}
	return fmt.Sprintf("%s of a process that is unknown (%s)", what, a.Holder.Unknown), "sudo ringmq xdp status"
}

// brokerOf is the socket on which a broker says that the program is its own.
func brokerOf(paths []string, program uint32) string {
	for _, path := range paths {
		lanes, _ := lanesOf(path) // Who does not answer steers nothing.
		if slices.ContainsFunc(lanes, func(l laneStatus) bool { return l.Attached && l.ProgramID == program }) {
			return path
		}
	}
	return ""
}
