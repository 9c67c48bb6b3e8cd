package main

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// client is a column of the table.
type client struct {
	name     string   // as --client has it
	title    string   // as the table has it
	versions []string // the protocol versions it speaks
	needs    string   // what to install where it is missing

	// start makes a player, and says which version of the client plays.
	start func(ctx context.Context) (player, string, error)
}

// player runs the scenes of one client, one at a time.
type player interface {
	// play runs one scene, or fails. It calls ready in the scene receive.
	play(ctx context.Context, t task, ready func()) error
	// end frees what the player holds. A player that has failed is ended and not used again.
	end()
}

// clients lists the columns; folder is where scripts are put.
func clients(folder string) []client {
	both := []string{v3, v5}
	return []client{
		{name: "paho.golang", title: "paho.golang", versions: []string{v5}, start: library("github.com/eclipse/paho.golang", pahoV5Scenes())},
		{name: "paho.mqtt.golang", title: "paho.mqtt.golang", versions: []string{v3},
			start: library("github.com/eclipse/paho.mqtt.golang", pahoV3Scenes())},
		{name: "mosquitto", title: "mosquitto_pub, _sub, _rr", versions: both, needs: "the Debian package mosquitto-clients", start: startMosquitto},
		{name: "mqtt.js", title: "MQTT.js", versions: both, needs: "the Debian packages nodejs and npm", start: startNode(folder)},
		{name: "paho.python", title: "paho for Python", versions: both, needs: "the Debian package python3-paho-mqtt", start: startPython(folder)},
	}
}

// selected gives the clients of those names; no names are all of them.
func selected(all []client, names []string) ([]client, error) {
	if len(names) == 0 {
		return all, nil
	}
	var known []string
	for _, c := range all {
		known = append(known, c.name)
	}
	for _, n := range names {
		if !slices.Contains(known, n) {
			return nil, fmt.Errorf("there is no client %q; the clients are %s", n, strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(all, func(c client) bool { return !slices.Contains(names, c.name) }), nil
}

// inProcess are the scenes of a client that are written in Go.
type inProcess map[string]func(ctx context.Context, t task, ready func()) error

// alone is a scene that is never asked for its readiness.
func alone(scene func(context.Context, task) error) func(context.Context, task, func()) error {
	return func(ctx context.Context, t task, _ func()) error { return scene(ctx, t) }
}

func (scenes inProcess) play(ctx context.Context, t task, ready func()) error {
	scene, known := scenes[t.Scene]
	if !known {
		return fmt.Errorf("the client does not know the scene %q", t.Scene)
	}
	ctx, cancel := context.WithTimeout(ctx, t.limit())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- scene(ctx, t, ready) }()
	select {
	case err := <-ended:
		return err
	case <-time.After(t.limit() + grace):
		return fmt.Errorf("hangs: no end %v after its limit of %v", grace, t.limit())
	}
}

func (inProcess) end() {}

// library starts a client that is a Go module of this program.
func library(module string, scenes inProcess) func(context.Context) (player, string, error) {
	return func(context.Context) (player, string, error) {
		info, _ := debug.ReadBuildInfo()
		for _, d := range info.Deps {
			if d.Path == module {
				return scenes, strings.TrimPrefix(d.Version, "v"), nil
			}
		}
		return scenes, "", nil
	}
}
