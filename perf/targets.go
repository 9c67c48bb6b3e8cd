package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// The peers that are built here, at versions that are named, so that a figure can be repeated.
const (
	mochiModule = "github.com/mochi-mqtt/server/v2@v2.7.9"
	natsModule  = "github.com/nats-io/nats-server/v2@v2.15.2"
)

//go:embed peers/mochi.go.txt
var mochiMain []byte

// target is a broker to be measured.
type target struct {
	name string
	// version is what it says of itself or what was built.
	version string
	// command is how to start it on a loopback port. Nil: it cannot play this comparison.
	command func(port int, c comparison) []string
}

// prepare builds or finds the targets; files go under dir.
func prepare(ctx context.Context, names []string, dir, externalRelay, builtRingMQ string) ([]target, error) {
	makers := map[string]func() (target, error){
		"relay":     func() (target, error) { return prepareRelay(externalRelay) },
		"go-relay":  func() (target, error) { return prepareRelay("") },
		"ringmq":    func() (target, error) { return prepareRingMQ(ctx, dir, builtRingMQ) },
		"mosquitto": func() (target, error) { return prepareMosquitto(ctx, dir) },
		"mochi":     func() (target, error) { return prepareMochi(ctx, dir) },
		"nats":      func() (target, error) { return prepareNATS(ctx, dir) },
	}
	var targets []target
	for _, name := range names {
		prepareOne, known := makers[name]
		if !known {
			return nil, fmt.Errorf("target %q: want some of relay,go-relay,ringmq,mosquitto,mochi,nats", name)
		}
		t, err := prepareOne()
		if err != nil {
			return nil, fmt.Errorf("target %s: %w", name, err)
		}
		t.name = name
		targets = append(targets, t)
	}
	return targets, nil
}

// prepareRelay takes the relay in this program, or another with the same arguments.
func prepareRelay(external string) (target, error) {
	argv, version := []string{external}, external
	if external == "" {
		self, err := os.Executable()
		if err != nil {
			return target{}, err
		}
		argv, version = []string{self, "relay"}, "perf/relay"
	} else if _, err := os.Stat(external); err != nil {
		return target{}, err
	}
	return target{version: version, command: func(port int, c comparison) []string {
		if c.relayMode == "" {
			return nil
		}
		return append(argv[:len(argv):len(argv)], strconv.Itoa(port), c.relayMode)
	}}, nil
}

// prepareRingMQ builds this checkout's, unless one is given.
func prepareRingMQ(ctx context.Context, dir, built string) (target, error) {
	binary, version := built, built
	if built == "" {
		binary, version = filepath.Join(dir, "ringmq"), "this checkout"
		if err := goTool(ctx, "", nil, "build", "-o", binary, "github.com/ringmq/ringmq/cmd/ringmq"); err != nil {
			return target{}, err
		}
	} else if _, err := os.Stat(built); err != nil {
		return target{}, err
	}
	return target{version: version, command: func(port int, _ comparison) []string {
		return []string{binary, "serve", "-p", strconv.Itoa(port), "--shards", "1", "-q"}
	}}, nil
}

func prepareMosquitto(ctx context.Context, dir string) (target, error) {
	binary, err := exec.LookPath("mosquitto")
	if err != nil {
		if binary, err = exec.LookPath("/usr/sbin/mosquitto"); err != nil {
			return target{}, errors.New("not installed: apt-get install mosquitto")
		}
	}
	// It exits with 3 after printing its help; only the first line matters.
	help, _ := exec.CommandContext(ctx, binary, "-h").Output()
	version, _, _ := bytes.Cut(help, []byte("\n"))
	return target{version: string(version), command: func(port int, _ comparison) []string {
		file := filepath.Join(dir, fmt.Sprintf("mosquitto-%d.conf", port))
		text := fmt.Sprintf("user root\nlistener %d 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\n"+
			"max_queued_messages 0\nset_tcp_nodelay true\npersistence false\nsys_interval 0\nlog_type error\n", port)
		if os.WriteFile(file, []byte(text), 0o644) != nil {
			return nil
		}
		return []string{binary, "-c", file}
	}}, nil
}

func prepareMochi(ctx context.Context, dir string) (target, error) {
	source := filepath.Join(dir, "mochi")
	if err := os.Mkdir(source, 0o755); err != nil {
		return target{}, err
	}
	if err := os.WriteFile(filepath.Join(source, "main.go"), mochiMain, 0o644); err != nil {
		return target{}, err
	}
	path, version, _ := strings.Cut(mochiModule, "@")
	for _, args := range [][]string{
		{"mod", "init", "mochi"},
		{"get", mochiModule, path + "/hooks/auth@" + version, path + "/listeners@" + version},
		{"build", "-o", "broker", "."},
	} {
		if err := goTool(ctx, source, nil, args...); err != nil {
			return target{}, err
		}
	}
	return target{version: mochiModule, command: func(port int, _ comparison) []string {
		return []string{filepath.Join(source, "broker"), fmt.Sprintf("127.0.0.1:%d", port)}
	}}, nil
}

func prepareNATS(ctx context.Context, dir string) (target, error) {
	if err := goTool(ctx, dir, []string{"GOBIN=" + dir, "GOFLAGS="}, "install", natsModule); err != nil {
		return target{}, err
	}
	return target{version: natsModule, command: func(port int, _ comparison) []string {
		file := filepath.Join(dir, fmt.Sprintf("nats-%d.conf", port))
		store, err := os.MkdirTemp(dir, "nats-store")
		if err != nil {
			return nil
		}
		text := fmt.Sprintf("server_name: perf\nhost: 127.0.0.1\nport: -1\nmax_connections: 100000\njetstream { store_dir: %q }\n"+
			"mqtt { host: 127.0.0.1, port: %d, max_ack_pending: 16000 }\n", store, port)
		if os.WriteFile(file, []byte(text), 0o644) != nil {
			return nil
		}
		return []string{filepath.Join(dir, "nats-server"), "-c", file}
	}}, nil
}

// goTool runs the go command. Outside our module (dir is not empty) no workspace may take part.
func goTool(ctx context.Context, dir string, environment []string, args ...string) error {
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir = dir
	command.Env = append(os.Environ(), environment...)
	if dir != "" {
		command.Env = append(command.Env, "GOWORK=off")
	}
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("go %v: %w: %s", args, err, lastLine(output))
	}
	return nil
}

func lastLine(output []byte) []byte {
	output = bytes.TrimSpace(output)
	return output[bytes.LastIndexByte(output, '\n')+1:]
}
