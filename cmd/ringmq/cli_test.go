package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// asProgram in the environment makes the test binary ringmq itself.
const asProgram = "RINGMQ_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	switch os.Getenv(asProgram) {
	case "":
	case promised:
		servePromised()
	default:
		main()
		os.Exit(0)
	}
	code := m.Run()
	for _, f := range atEnd {
		f()
	}
	os.Exit(code)
}

// atEnd is called when all tests are over.
var atEnd []func()

// ringmq runs the program to its end, for which it has a few seconds: a broker that starts is killed, and says so.
func ringmq(t *testing.T, arguments ...string) (stdout, stderr string, code int) {
	t.Helper()
	return toItsEnd(t, os.Args[0], arguments)
}

// plainly is ringmq for what says one thing and ends: the race detector, which finds nothing there, makes it start four times slower.
func plainly(t *testing.T, arguments ...string) (stdout, stderr string, code int) {
	t.Helper()
	program := os.Args[0]
	if isRaced() {
		program = buildProgram(t)
	}
	return toItsEnd(t, program, arguments)
}

func toItsEnd(t *testing.T, program string, arguments []string) (stdout, stderr string, code int) {
	t.Helper()
	return within(t, 10*time.Second, program, arguments)
}

// within is toItsEnd for what may take long.
func within(t *testing.T, limit time.Duration, program string, arguments []string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, arguments...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=0")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Errorf("ringmq %q does not end", arguments)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// unusedPort is a port of loopback that nobody listens on.
func unusedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// inFile writes a file of the test's and returns its path.
func inFile(t *testing.T, text string) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "file")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// refusal is one row of bad input: the arguments, and the words that the one line on standard error must have.
type refusal struct {
	name      string
	arguments []string
	words     []string
}

// fileRefusals are the rows about configuration files; each file gets a name, and :LINE is looked for behind it.
func fileRefusals(t *testing.T) (rows []refusal) {
	for _, c := range []struct {
		name, text string
		line       int
		words      string
	}{
		{"unknown key", "# first\nshards = 1\nshardz = 2\n", 3, "shardz"},
		{"unknown table", "shards = 1\n\n[listener]\nport = 1\n", 3, "listener"},
		{"wrong type", "memory = \"64MiB\"\nshards = \"two\"\n", 2, "shards"},
		{"wrong type in a list", "\nlisten = [1883]\n", 2, "listen"},
		{"wrong type of a truth", "allow_anonymous = \"yes\"\n", 1, "allow_anonymous"},
		{"number too large", "shards = 99999999999999999999\n", 1, "shards"},
		{"broken", "shards = 1\nlisten = [\"127.0.0.1:0\"\n", 0, ""},
		{"no equals sign", "shards 1\n", 1, ""},
		{"twice", "shards = 1\nshards = 2\n", 2, "shards"},
		{"not UTF-8", "mode = \"\xff\"\n", 1, ""},
		{"bad size", "memory = \"lots\"\n", 1, "memory"},
		{"no name of a password file", "\npasswords = \"\"\n", 2, "passwords"},
		{"size with a wrong type", "shards = 1\nmemory = true\n", 2, "memory"},
		{"bad duration", "\nmax_keep_alive = \"soon\"\n", 2, "max_keep_alive"},
		{"negative size", "max_packet_size = \"-1\"\n", 1, "max_packet_size"},
		{"bad mode", "mode = \"fast\"\n", 0, "mode"},
		{"bad log level", "log_level = \"loud\"\n", 0, "log_level"},
		{"bad strategy", "shared_strategy = \"best\"\n", 0, "shared_strategy"},
		{"bad address", "listen = [\"nowhere\"]\n", 0, "nowhere"},
		{"limit out of range", "max_inflight_messages = 70000\n", 0, "max_inflight"},
		{"negative limit", "receive_maximum = -1\n", 0, "receive_maximum"},
		{"negative shards", "shards = -1\n", 0, "shards"},
		{"bad prefix", "[xdp]\ndeny = [\"192.0.2.0/33\"]\n", 0, "192.0.2.0/33"},
		{"rate without burst", "[xdp]\nsyn_rate = 10.0\n", 0, "syn_burst"},
		{"key of another table", "[xdp]\ninterface = \"eth0\"\n", 2, "interface"},
		{"fewer sessions than connections", "max_connections = 100\nmax_sessions = 10\n", 0, "max_sessions"},
	} {
		path := inFile(t, c.text)
		words := []string{c.words}
		if c.line != 0 {
			words = append(words, fmt.Sprintf("%s:%d: ", path, c.line))
		}
		rows = append(rows, refusal{"file: " + c.name, []string{"serve", "-c", path}, words})
	}
	return rows
}

func flagRefusals(t *testing.T) []refusal {
	missing := filepath.Join(t.TempDir(), "missing")
	broken := inFile(t, "# users\nthis is no user\n")
	return []refusal{
		{"unknown command", []string{"sreve"}, []string{"sreve"}},
		{"unknown flag", []string{"serve", "--lisen", ":1"}, []string{"lisen"}},
		{"unknown global flag", []string{"--nope"}, []string{"nope"}},
		{"argument", []string{"serve", "1883"}, []string{"1883"}},
		{"flag without value", []string{"serve", "--listen"}, []string{"listen"}},
		{"shards no number", []string{"serve", "--shards", "two"}, []string{"two", "shards"}},
		{"shards zero", []string{"serve", "--shards", "0"}, []string{"shards"}},
		{"shards too many", []string{"serve", "--shards", "1000"}, []string{"shards"}},
		{"port no number", []string{"serve", "-p", "mqtt"}, []string{"mqtt"}},
		{"port too large", []string{"serve", "-p", "65536"}, []string{"65536"}},
		{"port negative", []string{"serve", "-p", "-1"}, []string{"-1"}},
		{"address without port", []string{"serve", "--listen", "localhost"}, []string{"localhost"}},
		{"address with a bad port", []string{"serve", "--listen", "127.0.0.1:99999"}, []string{"99999"}},
		{"address that is none of ours", []string{"serve", "--listen", "192.0.2.1:18830"}, []string{"192.0.2.1:18830"}},
		{"empty address", []string{"serve", "--listen", ""}, []string{"listen"}},
		{"-p with --listen", []string{"serve", "-p", "18830", "--listen", "127.0.0.1:18831"}, []string{"-p", "--listen"}},
		{"-v with -q", []string{"serve", "-v", "-q"}, []string{"-v", "-q"}},
		{"mode xdp without interface", []string{"serve", "--mode", "xdp"}, []string{"xdp", "--interface"}},
		{"no such interface", []string{"serve", "--mode", "xdp", "-i", "nosuch0"}, []string{"nosuch0"}},
		{"interface twice", []string{"serve", "-i", "eth0,eth0"}, []string{"eth0"}},
		{"queues", []string{"serve", "-i", "eth0", "--queues", "0-x"}, []string{"queues", "0-x"}},
		{"queue twice", []string{"serve", "-i", "eth0", "--queues", "0-2,1"}, []string{"queues", "1"}},
		{"queues of two interfaces", []string{"serve", "-i", "eth0,eth1", "--queues", "0"}, []string{"queues", "one"}},
		{"cpus", []string{"serve", "--cpus", "first"}, []string{"cpus", "first"}},
		{"cpus that are not there", []string{"serve", "-p", "18839", "--cpus", "4000"}, []string{"cpus", "4000"}},
		{"xdp-require", []string{"serve", "-i", "eth0", "--xdp-require", "fast"}, []string{"xdp-require", "fast", "native"}},
		{"xdp-limit", []string{"serve", "-i", "eth0", "--xdp-limit", "fast"}, []string{"xdp-limit", "fast", "native"}},
		{"capture without file", []string{"capture"}, []string{"-w"}},
		{"capture, port", []string{"capture", "-w", "-", "--port", "70000"}, []string{"--port"}},
		{"capture, no broker", []string{"capture", "-w", "-", "--admin", "/does/not/exist"}, []string{"/does/not/exist"}},
		{"xdp, unknown command", []string{"xdp", "stauts"}, []string{"stauts"}},
		{"xdp, argument", []string{"xdp", "drain", "now"}, []string{"now"}},
		{"xdp, no prefix", []string{"xdp", "deny"}, []string{"prefix"}},
		{"xdp, bad prefix", []string{"xdp", "deny", "192.0.2.300"}, []string{"192.0.2.300"}},
		{"xdp, flag behind prefix", []string{"xdp", "deny", "192.0.2.1", "--remove"}, []string{"--remove", "first"}},
		{"xdp, bad rate", []string{"xdp", "limit", "--source", "fast"}, []string{"--source", "fast"}},
		{"xdp, rate with a comma", []string{"xdp", "limit", "--source", "1,000/s"}, []string{"--source", "1,000/s"}},
		{"xdp, no rate", []string{"xdp", "limit", "--all", "NaN"}, []string{"--all", "NaN"}},
		{"xdp drain, unknown flag", []string{"xdp", "drain", "--foo"}, []string{"-foo", "xdp drain --help"}},
		{"store check, unknown flag", []string{"store", "check", "--foo"}, []string{"-foo", "store check --help"}},
		{"store, unknown command", []string{"store", "foo"}, []string{"foo", "store --help"}},
		{"xdp, burst without rate", []string{"xdp", "limit", "--all-burst", "5"}, []string{"--all"}},
		{"unknown mode", []string{"serve", "--mode", "fast"}, []string{"fast", "mode"}},
		{"bad size", []string{"serve", "--memory", "lots"}, []string{"memory", "lots"}},
		{"negative size", []string{"serve", "--memory", "-1GiB"}, []string{"memory", "-1GiB"}},
		{"size zero", []string{"serve", "--memory", "0"}, []string{"memory"}},
		{"size not a number", []string{"serve", "--memory", "NaN"}, []string{"memory"}},
		{"too little memory", []string{"serve", "--memory", "16MiB", "--max-connections", "10000"}, []string{"memory", "max_connections"}},
		{"more connections than descriptors", []string{"serve", "--max-connections", "16000000", "--memory", "100GiB"}, []string{"max_connections", "descriptors"}},
		{"connections negative", []string{"serve", "--max-connections", "-5"}, []string{"max-connections"}},
		{"no configuration", []string{"serve", "-c", missing}, []string{missing}},
		{"a folder for a configuration", []string{"serve", "-c", t.TempDir()}, []string{"directory"}},
		{"no password file", []string{"serve", "--passwords", missing}, []string{missing}},
		{"a folder for a password file", []string{"serve", "--passwords", t.TempDir()}, []string{"directory"}},
		{"no name of a configuration", []string{"serve", "-c", "", "-p", "18839"}, []string{"-c: names no file"}},
		{"no name of a password file", []string{"serve", "--passwords=", "-p", "18839"}, []string{"--passwords: names no file"}},
		{"broken password file", []string{"serve", "--passwords", broken}, []string{broken + ":2"}},
		{"broken password file, --test-config", []string{"serve", "--test-config", "--passwords", broken}, []string{broken + ":2"}},
		{"bad configuration, --plan", []string{"serve", "--plan", "-c", inFile(t, "x = 1\n")}, []string{":1: "}},
		{"passwd without arguments", []string{"passwd"}, []string{"FILE USER"}},
		{"passwd, unknown flag", []string{"passwd", "-x"}, []string{"x"}},
		{"completion without a shell", []string{"completion"}, []string{"bash"}},
		{"completion, unknown shell", []string{"completion", "tcsh"}, []string{"tcsh", "zsh"}},
		{"status, argument", []string{"status", "now"}, []string{"now"}},
		{"status, no socket", []string{"status", "--admin", "/does/not/exist"}, []string{"/does/not/exist"}},
		{"status, limit", []string{"status", "--admin", "/does/not/exist", "--limit", "0"}, []string{}},
		{"bench, argument", []string{"bench", "pairs"}, []string{"pairs"}},
		{"bench, scenario", []string{"bench", "-s", "chaos"}, []string{"chaos", "fanout"}},
		{"bench, QoS", []string{"bench", "-q", "3"}, []string{"qos", "0, 1 or 2"}},
		{"bench, payload", []string{"bench", "--payload", "19"}, []string{"payload", "20"}},
		{"bench, version", []string{"bench", "-V", "3"}, []string{"version", "311 or 5"}},
		{"bench, rate of a storm", []string{"bench", "-s", "storm", "-r", "10"}, []string{"--rate", "storm"}},
		{"bench, unhurried without a rate", []string{"bench", "--unhurried"}, []string{"--unhurried", "--rate"}},
		{"bench, window of idle", []string{"bench", "-s", "idle", "-w", "10"}, []string{"--window", "idle"}},
		{"bench, messages of pairs", []string{"bench", "--messages", "10"}, []string{"--messages", "pairs"}},
		{"bench, no time", []string{"bench", "-t", "0s"}, []string{"--time"}},
		{"bench, time without unit", []string{"bench", "-t", "10"}, []string{"10"}},
		{"bench, port", []string{"bench", "-p", "0"}, []string{"--port"}},
		{"bench, source", []string{"bench", "--source", "here"}, []string{"--source", "here"}},
		{"bench, source of another machine", []string{"bench", "-n", "1", "--source", "192.0.2.1"}, []string{"192.0.2.1"}},
		{"bench, password without user", []string{"bench", "-P", "secret"}, []string{"-u"}},
		{"bench, pid", []string{"bench", "--pid", "-1"}, []string{"--pid"}},
		{"bench, no connections", []string{"bench", "-n", "0"}, []string{"connections"}},
		{"bench, no such processor", []string{"bench", "--cpu", "5000"}, []string{"5000"}},
	}
}

// TestBadInput: one line on standard error that says what and where, nothing on standard output, an exit code, and no
// broker left behind.
func TestBadInput(t *testing.T) {
	for _, r := range append(flagRefusals(t), fileRefusals(t)...) {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			stdout, stderr, code := plainly(t, r.arguments...)
			checkRefusal(t, r.words, stdout, stderr, code)
		})
	}
}

func checkRefusal(t *testing.T, words []string, stdout, stderr string, code int) {
	t.Helper()
	if code <= 0 {
		t.Errorf("exit code %d", code)
	}
	if stdout != "" {
		t.Errorf("on standard output: %q", stdout)
	}
	if strings.Count(stderr, "\n") != 1 || !strings.HasSuffix(stderr, "\n") {
		t.Errorf("not one line on standard error: %q", stderr)
	}
	for _, w := range words {
		if !strings.Contains(stderr, w) {
			t.Errorf("standard error does not say %q: %q", w, stderr)
		}
	}
}

// TestPortInUse: what could be opened before the one that is taken is closed again.
func TestPortInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	free := unusedPort(t)
	for _, arguments := range [][]string{
		{"serve", "-p", port},
		{"serve", "--listen", "127.0.0.1:" + port},
		{"serve", "--listen", "127.0.0.1:" + free, "--listen", "127.0.0.1:" + port},
		{"serve", "--listen", "127.0.0.1:" + free, "--listen", "127.0.0.1:" + free},
		{"serve", "-c", inFile(t, fmt.Sprintf("listen = [\"127.0.0.1:%s\", \"127.0.0.1:%s\"]\n", free, port))},
	} {
		stdout, stderr, code := plainly(t, arguments...)
		checkRefusal(t, []string{"127.0.0.1:", "in use"}, stdout, stderr, code)
		for _, address := range []string{"127.0.0.1:" + free, "[::1]:" + port} {
			if c, err := net.Dial("tcp", address); err == nil {
				c.Close()
				t.Errorf("%q leaves something listening on %s", arguments, address)
			}
		}
	}
}

// TestQuestions are answered on standard output, with exit code 0 and without a broker.
func TestQuestions(t *testing.T) {
	good := inFile(t, "listen = [\"127.0.0.1:1883\", \"[::1]:1883\"]\nallow_anonymous = false\nmemory = \"128MiB\"\nmax_connections = 1000\nsys_interval = \"5s\"\n")
	for _, c := range []struct {
		arguments []string
		want      string
	}{
		{[]string{"--help"}, "serve"},
		{[]string{"-h"}, "serve"},
		{nil, "serve"},
		{[]string{"--version"}, "ringmq version "},
		{[]string{"serve", "--help"}, "--allow-anonymous"},
		{[]string{"serve", "-h"}, "/PID.sock"},
		{[]string{"passwd", "--help"}, "FILE USER"},
		{[]string{"serve", "--test-config"}, "good"},
		{[]string{"serve", "-c", good, "--test-config"}, "good"},
		{[]string{"serve", "--plan"}, "sum"},
		{[]string{"serve", "-c", good, "--plan"}, "message slots"},
		{[]string{"serve", "--memory", "256MiB", "--max-connections", "5000", "--shards", "3", "--plan"}, "arena pages"},
	} {
		stdout, stderr, code := plainly(t, c.arguments...)
		if code != 0 || stderr != "" || !strings.Contains(stdout, c.want) {
			t.Errorf("%q: exit code %d, standard error %q, standard output without %q: %q", c.arguments, code, stderr, c.want, stdout)
		}
	}
}
