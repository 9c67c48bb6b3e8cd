package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/ringmq/ringmq/bpf"
	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/cmd/admin"
	"github.com/ringmq/ringmq/netstack"
	"github.com/ringmq/ringmq/xdp"
)

// laneStatus is one interface in the answer to GET /v1/xdp.
type laneStatus struct {
	Interface   string               `json:"interface"`
	Mode        string               `json:"mode"`
	Attached    bool                 `json:"attached"`
	ProgramID   uint32               `json:"program_id"`
	LinkID      uint32               `json:"link_id"`
	Addresses   []netip.Prefix       `json:"addresses"`
	KernelFlows int                  `json:"kernel_flows"` // connections that the program leaves to the kernel
	Lists       map[string][]string  `json:"lists"`
	SYNLimit    bpf.SYNLimit         `json:"syn_limit"`
	Queues      []queueStatus        `json:"queues"`
	Unbound     map[string]bpf.Count `json:"unbound,omitempty"` // frames of queues without a socket of ours
	Beyond      map[string]bpf.Count `json:"beyond,omitempty"`  // frames of queues that came after start
}

// queueStatus is one queue: what the program decided, what the rings did, where the frames are, what its TCP did.
type queueStatus struct {
	Queue    int                  `json:"queue"`
	Shard    int                  `json:"shard"`
	Verdicts map[string]bpf.Count `json:"verdicts"`
	Rings    xdp.Stats            `json:"rings"`
	Frames   xdp.Conservation     `json:"frames"`
	TCP      netstack.Counters    `json:"tcp"`
}

// drainRequest is the body of POST /v1/xdp/drain.
type drainRequest struct {
	Interface string `json:"interface"` // empty: all
	Queue     int    `json:"queue"`     // bpf.AllQueues: all
	On        bool   `json:"on"`
}

// detachRequest is the body of POST /v1/xdp/detach.
type detachRequest struct {
	Interface string `json:"interface"`
	Force     bool   `json:"force"` // although connections are there, which the kernel will reset
}

// listRequest is the body of POST /v1/xdp/list: one of the lists of source prefixes changes on every interface.
type listRequest struct {
	List   string         `json:"list"`
	Add    []netip.Prefix `json:"add,omitempty"`
	Remove []netip.Prefix `json:"remove,omitempty"`
}

// handle answers for the interfaces.
func (b *bypass) handle(s *admin.Server, loops []*broker.Loop) {
	b.loops = loops
	s.Answer("GET /v1/xdp", func(*http.Request) (any, error) { return b.status() })
	post(s, "POST /v1/xdp/drain", b.drain)
	post(s, "POST /v1/xdp/detach", b.detach)
	post(s, "POST /v1/xdp/list", b.changeList)
	post(s, "POST /v1/xdp/syn-limit", b.limitSYNs)
}

// post decodes a body strictly and answers with the state afterwards.
func post[T any](s *admin.Server, pattern string, f func(T) (any, error)) {
	s.Answer(pattern, func(r *http.Request) (any, error) {
		var v T
		d := json.NewDecoder(r.Body)
		d.DisallowUnknownFields()
		if err := d.Decode(&v); err != nil {
			return nil, admin.Errorf(http.StatusBadRequest, "request: %v", err)
		}
		return f(v)
	})
}

func (b *bypass) status() (any, error) {
	list, shard := []laneStatus{}, 0
	for _, l := range b.lanes {
		s, err := l.status(b.loops, &shard)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

func (l *lane) status(loops []*broker.Loop, shard *int) (laneStatus, error) {
	p := l.Program()
	s := laneStatus{Interface: l.Name(), Mode: l.Mode().String(), Addresses: l.Addresses(), KernelFlows: p.KernelFlows(),
		SYNLimit: p.SYNLimit(), Lists: map[string][]string{}}
	if a, err := p.Attachment(); err == nil && a.ProgramID != 0 {
		s.Attached, s.ProgramID, s.LinkID = true, a.ProgramID, a.LinkID
	}
	for _, list := range [...]bpf.List{bpf.Deny, bpf.Allow, bpf.Exempt} {
		s.Lists[list.String()] = []string{}
		for _, prefix := range p.Prefixes(list) {
			s.Lists[list.String()] = append(s.Lists[list.String()], prefix.String())
		}
	}
	counters, err := p.Counters()
	if err != nil {
		return s, fmt.Errorf("counters of interface %s: %w", l.Name(), err)
	}
	s.Beyond, s.Unbound = named(counters.Beyond), named(l.unbound(counters))
	for i, q := range l.Queues() {
		s.Queues = append(s.Queues, queueStatus{Queue: q.Number(), Shard: *shard, Verdicts: named(counters.Queues[q.Number()]),
			Rings: q.Stats(), Frames: framesOf(q, loops[*shard], l.stacks.Planes()[i]), TCP: l.stacks.Planes()[i].Counters()})
		*shard++
	}
	return s, nil
}

// askTimeout is how long a loop has to answer: its turns take microseconds to milliseconds.
const askTimeout = time.Second

// framesOf counts a queue's frames on its loop, where nothing moves meanwhile; zero where the loop does not answer in time.
func framesOf(q *xdp.Queue, loop *broker.Loop, plane *netstack.Plane) (frames xdp.Conservation) {
	answer := make(chan xdp.Conservation, 1)
	loop.Do(func(*broker.Shard) {
		plane.Still(func() { answer <- q.Conservation() })
	})
	select {
	case frames = <-answer:
	case <-time.After(askTimeout):
	}
	return frames
}

// unbound sums the counts of the queues that the broker leaves to the kernel.
func (l *lane) unbound(counters bpf.Counters) bpf.Counts {
	rest := bpf.Counters{Queues: slices.Clone(counters.Queues)}
	for _, q := range l.Queues() {
		rest.Queues[q.Number()] = bpf.Counts{}
	}
	return rest.Total()
}

// named gives the verdicts that have been made.
func named(counts bpf.Counts) map[string]bpf.Count {
	m := map[string]bpf.Count{}
	for v, n := range counts {
		if n.Packets != 0 {
			m[bpf.Verdict(v).String()] = n
		}
	}
	return m
}

// meant are the lanes with an interface's name; the empty name means all.
func (b *bypass) meant(name string) ([]*lane, error) {
	if name == "" {
		return b.lanes, nil
	}
	for _, l := range b.lanes {
		if l.Name() == name {
			return []*lane{l}, nil
		}
	}
	return nil, admin.Errorf(http.StatusNotFound, "interface %q is not steered by this broker", name)
}

func (b *bypass) drain(r drainRequest) (any, error) {
	lanes, err := b.meant(r.Interface)
	if err != nil {
		return nil, err
	}
	for _, l := range lanes {
		if err := l.Program().SetDrain(r.Queue, r.On); err != nil {
			return nil, admin.Errorf(http.StatusBadRequest, "drain: interface %s: %v", l.Name(), err)
		}
		b.log.Info("drain", "interface", l.Name(), "queue", r.Queue, "on", r.On)
	}
	return b.status()
}

func (b *bypass) detach(r detachRequest) (any, error) {
	lanes, err := b.meant(r.Interface)
	if err != nil {
		return nil, err
	}
	for _, l := range lanes {
		if n := l.stacks.Counters().Established; n > 0 && !r.Force {
			return nil, admin.Errorf(http.StatusConflict, "detach: %d connections of interface %s would be reset: drain first, or --force", n, l.Name())
		}
	}
	for _, l := range lanes {
		if err := l.Detach(); err != nil {
			return nil, fmt.Errorf("detach interface %s: %w", l.Name(), err)
		}
		b.log.Warn("detached until restart: the kernel's TCP serves alone", "interface", l.Name())
	}
	return b.status()
}

func (b *bypass) changeList(r listRequest) (any, error) {
	for _, list := range [...]bpf.List{bpf.Deny, bpf.Allow, bpf.Exempt} {
		if list.String() != r.List {
			continue
		}
		for _, l := range b.lanes {
			if err := l.Program().RemovePrefixes(list, r.Remove...); err != nil {
				return nil, err
			}
			if err := l.Program().AddPrefixes(list, r.Add...); err != nil {
				return nil, admin.Errorf(http.StatusBadRequest, "%v", err)
			}
		}
		b.log.Info("source list changed", "list", r.List, "added", r.Add, "removed", r.Remove)
		return b.status()
	}
	return nil, admin.Errorf(http.StatusBadRequest, "list %q: want deny, allow or exempt", r.List)
}

func (b *bypass) limitSYNs(r bpf.SYNLimit) (any, error) {
	for _, l := range b.lanes {
		if err := l.Program().SetSYNLimit(r); err != nil {
			return nil, admin.Errorf(http.StatusBadRequest, "%v", err)
		}
	}
	b.log.Info("SYN limits changed", "limit", r)
	return b.status()
}
