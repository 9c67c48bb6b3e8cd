package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"
)

// lanes is how many scenes of a column run at a time: most of their time they wait.
const lanes = 3

// The states of a cell.
const (
	ok    = "ok"
	fails = "fails"
	none  = "none" // The client or the protocol version cannot do it.
)

// cell is one scene of one client in one protocol version.
type cell struct {
	Scene    string  `json:"scene"`
	Client   string  `json:"client"`
	Protocol string  `json:"protocol"`
	State    string  `json:"state"`
	Why      string  `json:"why,omitempty"` // it fails, cannot be done, or needs a remark
	Seconds  float64 `json:"seconds"`
}

// suite is what to run, and against which broker.
type suite struct {
	clients  []client
	scenes   []scene
	host     string
	port     int
	limit    time.Duration                 // for one scene
	progress func(format string, v ...any) // hears of every cell and of missing clients

	troupes []*troupe
	mu      sync.Mutex
	cells   []cell
}

// run plays all scenes of all clients that are there.
func (s *suite) run(ctx context.Context) report {
	r := s.gather(ctx)
	defer s.dismiss()
	s.playAll(ctx)
	if slices.ContainsFunc(s.scenes, func(s scene) bool { return s.name == cross }) {
		s.playCross(ctx)
	}
	r.Cells = s.cells
	return r
}

// gather finds out which clients are there.
func (s *suite) gather(ctx context.Context) report {
	r := report{Scenes: s.scenes, Broker: "RingMQ"}
	for _, c := range s.clients {
		t := &troupe{client: c}
		if err := t.gather(ctx); err != nil {
			r.Missing = append(r.Missing, absence{Client: c.name, Needs: c.needs, Why: err.Error()})
			s.progress("%s is missing (install %s): %v", c.name, c.needs, err)
			continue
		}
		s.troupes = append(s.troupes, t)
		r.Clients = append(r.Clients, presence{Client: c.name, Title: c.title, Version: t.version, Protocols: c.versions})
	}
	return r
}

func (s *suite) dismiss() {
	for _, t := range s.troupes {
		t.dismiss()
	}
}

// muster says which clients are there, and plays nothing.
func (s *suite) muster(ctx context.Context, stdout io.Writer) report {
	r := s.gather(ctx)
	defer s.dismiss()
	for _, c := range r.Clients {
		fmt.Fprintf(stdout, "%s: %s %s\n", c.Client, c.Title, c.Version)
	}
	for _, m := range r.Missing {
		fmt.Fprintf(stdout, "%s is missing: install %s (%s)\n", m.Client, m.Needs, m.Why)
	}
	return r
}

// playAll plays what each client plays by itself, all columns side by side.
func (s *suite) playAll(ctx context.Context) {
	var columns sync.WaitGroup
	for _, t := range s.troupes {
		for _, version := range t.client.versions {
			queue := make(chan scene, len(s.scenes))
			for _, sc := range longFirst(s.scenes) {
				queue <- sc
			}
			close(queue)
			for range lanes {
				columns.Go(func() {
					for sc := range queue {
						s.playOne(ctx, t, sc, version)
					}
				})
			}
		}
	}
	columns.Wait()
}

// longFirst is the order in which the lanes end soonest, without the scene cross.
func longFirst(scenes []scene) []scene {
	own := slices.DeleteFunc(slices.Clone(scenes), func(s scene) bool { return s.name == cross })
	slices.SortStableFunc(own, func(a, b scene) int {
		switch {
		case a.long == b.long:
			return 0
		case a.long:
			return -1
		}
		return 1
	})
	return own
}

func (s *suite) playOne(ctx context.Context, t *troupe, sc scene, version string) {
	start := time.Now()
	var err error = impossible("")
	if sc.only == "" || sc.only == version {
		err = t.play(ctx, s.task(t, sc.name, version), func() {})
	}
	s.note(t, sc.name, version, start, err)
}

// task makes the task of a scene, with names of its own.
func (s *suite) task(t *troupe, scene, version string) task {
	prefix := fmt.Sprintf("interop-%x-%x/%s/%s/%s", os.Getpid(), time.Now().UnixMicro()&0xffffff, t.client.name, version, scene)
	return task{Scene: scene, Host: s.host, Port: s.port, Version: version, Prefix: prefix, Seconds: s.limit.Seconds()}
}

// note adds a cell.
func (s *suite) note(t *troupe, scene, version string, start time.Time, err error) {
	c := cell{Scene: scene, Client: t.client.name, Protocol: version, State: ok, Seconds: time.Since(start).Seconds()}
	var why impossible
	var said remark
	switch {
	case errors.As(err, &why):
		c.State, c.Why = none, string(why)
	case errors.As(err, &said):
		c.Why = string(said)
	case err != nil:
		c.State, c.Why = fails, err.Error()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cells = append(s.cells, c)
	s.progress("%-5s %6.2f s  %s %s, %s %s", c.State, c.Seconds, c.Client, c.Protocol, c.Scene, c.Why)
}

// failed tells a failure from what else a scene may end with.
func failed(err error) bool {
	var why impossible
	var said remark
	return err != nil && !errors.As(err, &why) && !errors.As(err, &said)
}

// troupe is the players of one client.
type troupe struct {
	client  client
	version string

	mu   sync.Mutex
	idle []player
}

// gather starts the first player, to see whether the client is there.
func (t *troupe) gather(ctx context.Context) error {
	p, version, err := t.client.start(ctx)
	if err != nil {
		return err
	}
	t.version = version
	t.idle = append(t.idle, p)
	return nil
}

// play runs a scene on an idle player, or a new one. Who fails does not play again: others must not suffer from it.
func (t *troupe) play(ctx context.Context, k task, ready func()) error {
	p, err := t.take(ctx)
	if err != nil {
		return err
	}
	err = p.play(ctx, k, ready)
	if failed(err) {
		p.end()
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.idle = append(t.idle, p)
	return err
}

func (t *troupe) take(ctx context.Context) (player, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.idle); n > 0 {
		p := t.idle[n-1]
		t.idle = t.idle[:n-1]
		return p, nil
	}
	p, _, err := t.client.start(ctx)
	return p, err
}

func (t *troupe) dismiss() {
	for _, p := range t.idle {
		p.end()
	}
	t.idle = nil
}
