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
	// socket answers when the broker is ready, if connecting to it does not tell.
	socket string
	// command is how to start it on a loopback port. Nil: it cannot play this comparison.
	command func(port int, c comparison) []string
}

// targetNames are the brokers that can be compared; xdp is ours in XDP mode, in a lab.
const targetNames = "relay,go-relay,ringmq,xdp,mosquitto,mochi,nats"

// sources are where targets come from: programs that were given, and the folder for those that are built.
type sources struct {
	dir, relay, ringmq string
	bench              *bench
	admin              bool // our brokers answer on an admin socket, in standard mode, too
}

// socket is where they do.
func (s sources) socket() string { return filepath.Join(s.dir, "admin.sock") }

// host is the address that brokers listen on.
func (s sources) host() string {
	if s.bench != nil {
		return s.bench.address.String()
	}
	return loopback().String()
}

// prepare builds or finds the targets.
func prepare(ctx context.Context, names []string, s sources) ([]target, error) {
	makers := map[string]func() (target, error){
		"relay":     func() (target, error) { return prepareRelay(s.relay) },
		"go-relay":  func() (target, error) { return prepareRelay("") },
		"ringmq":    func() (target, error) { return prepareRingMQ(ctx, s) },
		"xdp":       func() (target, error) { return prepareXDP(ctx, s) },
		"mosquitto": func() (target, error) { return prepareMosquitto(ctx, s) },
		"mochi":     func() (target, error) { return prepareMochi(ctx, s) },
		"nats":      func() (target, error) { return prepareNATS(ctx, s) },
	}
	var targets []target
	for _, name := range names {
		prepareOne, known := makers[name]
		if !known {
			return nil, fmt.Errorf("target %q: want some of %s", name, targetNames)
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
func prepareRingMQ(ctx context.Context, s sources) (target, error) {
	binary, version, err := s.buildRingMQ(ctx)
	socket, admin := "", "none"
	if s.admin {
		socket, admin = s.socket(), s.socket()
	}
	return target{version: version, socket: socket, command: func(port int, _ comparison) []string {
		return []string{binary, "serve", "--mode", "standard", "--listen", fmt.Sprintf("%s:%d", s.host(), port), "--allow-anonymous",
			"--shards", "1", "-q", "--admin", admin}
	}}, err
}

// prepareXDP is RingMQ in XDP mode, with one queue.
func prepareXDP(ctx context.Context, s sources) (target, error) {
	if s.bench == nil {
		return target{}, errors.New("XDP mode needs a veth pair: go run ./perf lab")
	}
	binary, version, err := s.buildRingMQ(ctx)
	socket := s.socket()
	return target{version: version + ", XDP mode", socket: socket, command: func(port int, _ comparison) []string {
		return []string{binary, "serve", "--mode", "xdp", "--interface", s.bench.iface, "--listen", fmt.Sprintf("%s:%d", s.host(), port),
			"--allow-anonymous", "-q", "--admin", socket}
	}}, err
}

func (s sources) buildRingMQ(ctx context.Context) (binary, version string, err error) {
	if s.ringmq != "" {
		_, err := os.Stat(s.ringmq)
		return s.ringmq, s.ringmq, err
	}
	binary = filepath.Join(s.dir, "ringmq")
	return binary, "this checkout", goTool(ctx, "", nil, "build", "-o", binary, "github.com/ringmq/ringmq/cmd/ringmq")
}

func prepareMosquitto(ctx context.Context, s sources) (target, error) {
	binary, err := exec.LookPath("mosquitto")
	if err != nil {
		if binary, err = exec.LookPath("/usr/sbin/mosquitto"); err != nil {
			return target{}, errors.New("not installed: apt-get install mosquitto")
		}
	}
	// It exits with 3 after printing its help; only the first line matters.
	help, _ := exec.CommandContext(ctx, binary, "-h").Output()
	version, _, _ := bytes.Cut(help, []byte("\n"))
	return target{version: string(version), command: func(port int, c comparison) []string {
		file := filepath.Join(s.dir, fmt.Sprintf("mosquitto-%d.conf", port))
		text := fmt.Sprintf("user root\nlistener %d %s\nallow_anonymous true\npersistence false\nlog_type error\n", port, s.host())
		if c.name != "" { // Conformance is that of its defaults.
			text += "max_inflight_messages 0\nmax_queued_messages 0\nset_tcp_nodelay true\nsys_interval 0\n"
		}
		if os.WriteFile(file, []byte(text), 0o644) != nil {
			return nil
		}
		return []string{binary, "-c", file}
	}}, nil
}

func prepareMochi(ctx context.Context, s sources) (target, error) {
	source := filepath.Join(s.dir, "mochi")
	if err := os.Mkdir(source, 0o755); err != nil {
		return target{}, err
	}
	if err := os.WriteFile(filepath.Join(source, "main.go"), mochiMain, 0o644); err != nil {
		return target{}, err
	}
	path, version, _ := strings.Cut(mochiModule, "@")
	for _, args := range [][]string{
		{"mod", "init", "mochi"},
		{"get", mochiModule, path + "/hooks/auth@" + version, path + "/listeners@" + version, path + "/hooks/storage/pebble@" + version},
		{"build", "-o", "broker", "."},
	} {
		if err := goTool(ctx, source, nil, args...); err != nil {
			return target{}, err
		}
	}
	return target{version: mochiModule, command: func(port int, _ comparison) []string {
		return []string{filepath.Join(source, "broker"), fmt.Sprintf("%s:%d", s.host(), port)}
	}}, nil
}

func prepareNATS(ctx context.Context, s sources) (target, error) {
	if err := goTool(ctx, s.dir, []string{"GOBIN=" + s.dir, "GOFLAGS="}, "install", natsModule); err != nil {
		return target{}, err
	}
	return target{version: natsModule, command: func(port int, _ comparison) []string {
		file := filepath.Join(s.dir, fmt.Sprintf("nats-%d.conf", port))
		store, err := os.MkdirTemp(s.dir, "nats-store")
		if err != nil {
			return nil
		}
		text := fmt.Sprintf("server_name: perf\nhost: %[3]s\nport: -1\nmax_connections: 100000\njetstream { store_dir: %[1]q }\n"+
			"mqtt { host: %[3]s, port: %[2]d, max_ack_pending: 16000 }\n", store, port, s.host())
		if os.WriteFile(file, []byte(text), 0o644) != nil {
			return nil
		}
		return []string{filepath.Join(s.dir, "nats-server"), "-c", file}
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
