package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// listener is a column that receives in the scene cross.
type listener struct {
	troupe  *troupe
	version string
}

func (l listener) String() string { return l.troupe.client.name + " " + l.version }

// playCross has each column publish for all others, one after the other.
func (s *suite) playCross(ctx context.Context) {
	var all []listener
	for _, t := range s.troupes {
		for _, version := range t.client.versions {
			all = append(all, listener{t, version})
		}
	}
	for _, from := range all {
		start := time.Now()
		s.note(from.troupe, cross, from.version, start, s.crossFrom(ctx, from, all))
	}
}

// crossFrom plays the scene cross (doc.go) for one publisher.
func (s *suite) crossFrom(ctx context.Context, from listener, all []listener) error {
	k := s.task(from.troupe, cross, from.version)
	publish := func(part string) error {
		k := k
		k.Scene = part
		if err := from.troupe.play(ctx, k, func() {}); err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
		return nil
	}
	if err := publish("keep"); err != nil {
		return err
	}
	errs := make([]error, len(all))
	var subscribed, ended sync.WaitGroup
	for i, l := range all {
		if l == from {
			continue
		}
		subscribed.Add(1)
		ended.Go(func() {
			ready := sync.OnceFunc(subscribed.Done)
			defer ready()
			if err := l.receive(ctx, k, ready); err != nil {
				errs[i] = fmt.Errorf("%v: %w", l, err)
			}
		})
	}
	subscribed.Wait()
	err := publish("send")
	ended.Wait()
	return errors.Join(err, errors.Join(errs...), publish("forget"))
}

func (l listener) receive(ctx context.Context, k task, ready func()) error {
	k.Scene, k.From, k.Version = "receive", k.Version, l.version
	return l.troupe.play(ctx, k, ready)
}
