package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// running is the real program, started by a test.
type running struct {
	cmd     *exec.Cmd
	address string
	lines   chan string // what it logs after the first listening line
}

// programs are those that tests have built, by their flags: linking one takes seconds.
var programs = struct {
	sync.Mutex
	paths map[string]string
}{paths: map[string]string{}}

// buildProgram builds the program as users run it: not under the race detector, which takes memory and time of its own.
func buildProgram(t *testing.T, flags ...string) string {
	t.Helper()
	programs.Lock()
	defer programs.Unlock()
	key := strings.Join(flags, " ")
	if path, ok := programs.paths[key]; ok {
		return path
	}
	dir, err := os.MkdirTemp("", "ringmq-program")
	if err != nil {
		t.Fatal(err)
	}
	atEnd = append(atEnd, func() { _ = os.RemoveAll(dir) })
	program := filepath.Join(dir, "ringmq")
	arguments := append(append([]string{"build"}, flags...), "-o", program, ".")
	if out, err := exec.Command("go", arguments...).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	programs.paths[key] = program
	return program
}

// buildRaced builds the program under the race detector when the tests are.
func buildRaced(t *testing.T) string {
	t.Helper()
	if isRaced() {
		return buildProgram(t, "-race")
	}
	return buildProgram(t)
}

// isRaced says whether the race detector is in this test.
func isRaced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// startProgram starts a broker and waits until it listens.
func startProgram(t *testing.T, program string, args ...string) *running {
	t.Helper()
	return startHeard(t, func(*running, string) {}, program, args...)
}

// startHeard has what it logs until then heard.
func startHeard(t *testing.T, hear func(p *running, line string), program string, args ...string) *running {
	t.Helper()
	p := &running{cmd: exec.Command(program, args...), lines: make(chan string, 1024)}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); _ = p.cmd.Wait() })
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		var ok bool
		if _, p.address, ok = strings.Cut(lines.Text(), "msg=listening address="); ok {
			go p.keepLines(lines)
			return p
		}
		hear(p, lines.Text())
	}
	t.Fatal("the broker did not start")
	return nil
}

// keepLines passes log lines on; those that nobody takes are dropped. It ends with the program.
func (p *running) keepLines(lines *bufio.Scanner) {
	for lines.Scan() {
		select {
		case p.lines <- lines.Text():
		default:
		}
	}
	close(p.lines)
}

// waitLine waits for a log line that has all the words.
func (p *running) waitLine(t *testing.T, words ...string) string {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				t.Fatalf("the program ended before it logged %q", words)
			}
			if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
				return line
			}
		case <-limit:
			t.Fatalf("no log line with %q", words)
		}
	}
}
