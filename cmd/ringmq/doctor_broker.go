package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringmq/ringmq/cmd/admin"
	"github.com/ringmq/ringmq/xdp/probe"
)

// doctorPatience is for a broker that is asked what it steers. One that stands still is named without its admin socket.
const doctorPatience = time.Second

// runningBroker is a broker that has answered on its admin socket.
type runningBroker struct {
	probe.Process
	lanes []laneStatus
}

// findBrokers finds out which ringmq has a program, queues or the port, and where it is administered. The kernel shows programs'
// names and processes' descriptors to root only, and whose a queue is not at all unless it is built for that: brokers tell what they have.
func (r *doctorReport) findBrokers() {
	for path, id := range r.sockets() {
		lanes, err := lanesOf(path)
		if err != nil {
			continue
		}
		b := runningBroker{probe.Process{ID: id, Command: "ringmq", Admin: path}, lanes}
		for i := range r.Interfaces {
			b.claim(&r.Interfaces[i])
		}
		for n := range r.Host.Listeners.Value {
			if h := &r.Host.Listeners.Value[n].Holder.Value; h.ID == b.ID && h.ID != 0 {
				h.Admin = path
			}
		}
	}
}

// claim marks what the broker has of an interface: the program of that id, and the queues, also when its program is off.
func (b runningBroker) claim(i *probe.InterfaceFacts) {
	for _, l := range b.lanes {
		for n := range i.Programs {
			p := &i.Programs[n]
			if l.Attached && l.ProgramID == p.ID {
				p.Name = probe.Fact[string]{Value: probe.ProgramName}
				p.Holder = b.on(p.Holder)
			}
		}
		if l.Interface != i.Name || !sharesNetwork(b.ID) {
			continue // One of that name in another namespace.
		}
		for n := range i.Queues.Value {
			q := &i.Queues.Value[n]
			if q.Socket && slices.ContainsFunc(l.Queues, func(has queueStatus) bool { return has.Queue == q.Index }) {
				q.Holder = b.on(q.Holder)
			}
		}
	}
}

// on adds to what the kernel says of the holder what the broker does.
func (b runningBroker) on(holder probe.Fact[probe.Process]) probe.Fact[probe.Process] {
	p := holder.Value
	if p.ID == 0 {
		p = b.Process
	}
	p.Admin = b.Admin
	return probe.Fact[probe.Process]{Value: p}
}

// sharesNetwork says that a process is in this one's network namespace, as far as this one may look.
func sharesNetwork(id int) bool {
	its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", id))
	if err != nil {
		return false
	}
	ours, err := os.Readlink("/proc/self/ns/net")
	return err == nil && its == ours
}

// sockets are those that a broker could be administered by: of the processes that hold something, and of this user's brokers.
// Unlike admin.Running it removes none that a crashed broker has left: the doctor changes nothing.
func (r *doctorReport) sockets() map[string]int {
	found := map[string]int{} // process id by path, 0 where it is unknown
	paths, _ := filepath.Glob(filepath.Join(admin.Directory(), "*.sock"))
	for _, path := range paths {
		found[path], _ = strconv.Atoi(strings.TrimSuffix(filepath.Base(path), ".sock"))
	}
	note := func(p probe.Process) {
		for _, path := range p.UnixSockets {
			found[path] = p.ID
		}
	}
	for _, i := range r.Interfaces {
		for _, p := range i.Programs {
			note(p.Holder.Value)
		}
		for _, q := range i.Queues.Value {
			note(q.Holder.Value)
		}
	}
	for _, l := range r.Host.Listeners.Value {
		note(l.Holder.Value)
	}
	return found
}

// lanesOf asks the broker behind an admin socket what it steers.
func lanesOf(path string) (lanes []laneStatus, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), doctorPatience)
	defer cancel()
	err = admin.NewClient(path).Get(ctx, "/v1/xdp", &lanes)
	return lanes, err
}
