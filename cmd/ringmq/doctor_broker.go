package main

import (
	"context"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ringmq/ringmq/cmd/admin"
	"github.com/ringmq/ringmq/xdp/probe"
)

// doctorPatience is for a broker that is asked what it steers. One that stands still is named without its admin socket.
const doctorPatience = time.Second

// findBrokers finds out which ringmq has a program or a port, and where it is administered. The kernel shows programs' names
// and processes' descriptors to root only: others learn from the admin sockets that they may open what is theirs.
func (r *doctorReport) findBrokers() {
	steered := brokersOf(r.sockets())
	for i := range r.Interfaces {
		for n := range r.Interfaces[i].Programs {
			p := &r.Interfaces[i].Programs[n]
			if b, is := steered[p.ID]; is {
				p.Name = probe.Fact[string]{Value: probe.ProgramName}
				p.Holder.Unknown, p.Holder.Value.Admin = "", b.Admin
				if p.Holder.Value.ID == 0 {
					p.Holder.Value = b
				}
			}
		}
	}
	for n := range r.Host.Listeners.Value {
		h := &r.Host.Listeners.Value[n].Holder.Value
		for _, path := range h.UnixSockets {
			if _, err := lanesOf(path); err == nil {
				h.Admin = path
			}
		}
	}
}

// sockets are those that a broker could be administered by: of the processes that hold something, and of this user's brokers.
// Unlike admin.Running it removes none that a crashed broker has left: the doctor changes nothing.
func (r *doctorReport) sockets() map[string]int {
	found := map[string]int{} // process id by path, 0 where it is unknown
	paths, _ := filepath.Glob(filepath.Join(admin.Directory(), "*.sock"))
	for _, path := range paths {
		found[path], _ = strconv.Atoi(strings.TrimSuffix(filepath.Base(path), ".sock"))
	}
	for _, i := range r.Interfaces {
		for _, p := range i.Programs {
			for _, path := range p.Holder.Value.UnixSockets {
				found[path] = p.Holder.Value.ID
			}
		}
	}
	return found
}

// brokersOf asks who steers, and gives the answers by the programs' ids.
func brokersOf(sockets map[string]int) map[uint32]probe.Process {
	brokers := map[uint32]probe.Process{}
	for path, id := range sockets {
		lanes, _ := lanesOf(path) // Who does not answer steers nothing.
		for _, l := range lanes {
			if l.Attached {
				brokers[l.ProgramID] = probe.Process{ID: id, Command: "ringmq", Admin: path}
			}
		}
	}
	return brokers
}

// lanesOf asks the broker behind an admin socket what it steers.
func lanesOf(path string) (lanes []laneStatus, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), doctorPatience)
	defer cancel()
	err = admin.NewClient(path).Get(ctx, "/v1/xdp", &lanes)
	return lanes, err
}
