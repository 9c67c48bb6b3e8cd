//go:build linux

package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is one running broker.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	admin string
	ended chan struct{} // Closed when the process has ended.
	err   error         // Of the process, after ended.

	program uint32   // Our program's id, and
	maps    []uint32 // those of its maps; zero before serving.

	mu    sync.Mutex
	lines []string // Guarded by mu: the log.
}

// serve starts a broker in XDP mode on the pair, at all addresses, and waits until it steers.
func (s *scene) serve(arguments ...string) *process {
	s.t.Helper()
	return s.serveAt(":1883", arguments...)
}

func (s *scene) serveAt(address string, arguments ...string) *process {
	s.t.Helper()
	b := s.start(append([]string{"--mode", "xdp", "--interface", s.BrokerIf, "--listen", address}, arguments...)...)
	b.await("msg=steering")
	b.note()
	return b
}

// serveStandard starts a broker that leaves everything to the kernel.
func (s *scene) serveStandard() *process {
	s.t.Helper()
	b := s.start("--mode", "standard", "--shards", "1", "--listen", ":1883")
	b.await("msg=listening")
	return b
}

func (s *scene) start(arguments ...string) *process {
	s.t.Helper()
	admin := filepath.Join(s.t.TempDir(), "admin.sock")
	arguments = append([]string{program, "serve", "--allow-anonymous", "--admin", admin}, arguments...)
	b := &process{t: s.t, cmd: s.InBroker(arguments...), admin: admin, ended: make(chan struct{})}
	dieWithTest(b.cmd)
	log, err := b.cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := b.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go b.collect(log)
	s.t.Cleanup(b.finish)
	return b
}

// dieWithTest has a process end with this one, however this one ends.
func dieWithTest(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

func (b *process) collect(log io.Reader) {
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		b.mu.Lock()
		b.lines = append(b.lines, lines.Text())
		b.mu.Unlock()
	}
	b.err = b.cmd.Wait()
	close(b.ended)
}

// log has the lines so far.
func (b *process) log() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.lines, "\n")
}

// logged tells whether a line has all the words.
func (b *process) logged(words ...string) bool {
	return slices.ContainsFunc(strings.Split(b.log(), "\n"), func(line string) bool {
		return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) })
	})
}

// await waits for a line with all the words.
func (b *process) await(words ...string) {
	b.t.Helper()
	ended := false
	if !becomes(func() bool {
		ended = b.isEnded()
		return b.logged(words...) || ended
	}) || ended && !b.logged(words...) {
		b.t.Fatalf("the broker (ended: %v) has not logged %q:\n%s", ended, words, b.log())
	}
}

func (b *process) isEnded() bool {
	select {
	case <-b.ended:
		return true
	default:
		return false
	}
}

func (b *process) signal(s syscall.Signal) {
	b.t.Helper()
	if err := b.cmd.Process.Signal(s); err != nil {
		b.t.Fatal(err)
	}
}

// kill ends the broker without a chance to tidy up.
func (b *process) kill() {
	b.t.Helper()
	b.signal(syscall.SIGKILL)
	<-b.ended
}

// stop ends the broker by SIGTERM and checks that it ends well and leaves nothing in the kernel.
func (b *process) stop() {
	b.t.Helper()
	b.signal(syscall.SIGTERM)
	select {
	case <-b.ended:
	case <-time.After(patience):
		b.kill()
		b.t.Fatalf("the broker does not end:\n%s", b.log())
	}
	if b.err != nil {
		b.t.Errorf("the broker ended with %v:\n%s", b.err, b.log())
	}
	b.vanished()
}

// finish is the end of every test's broker.
func (b *process) finish() {
	if !b.isEnded() {
		b.stop()
	}
	if text := b.log(); strings.Contains(text, "panic") || strings.Contains(text, "DATA RACE") {
		b.t.Errorf("the broker's log:\n%s", text)
	}
	if b.t.Failed() {
		b.t.Logf("the broker's log:\n%s", b.log())
	}
}

// note remembers the program's and maps' ids.
func (b *process) note() {
	b.t.Helper()
	b.program = b.lane().ProgramID
	out, err := exec.Command("bpftool", "--json", "prog", "show", "id", fmt.Sprint(b.program)).Output()
	var shown struct {
		Maps []uint32 `json:"map_ids"`
	}
	if err == nil {
		err = json.Unmarshal(out, &shown)
	}
	if err != nil {
		b.t.Fatalf("bpftool prog show id %d: %v: %s (apt-get install bpftool)", b.program, err, out)
	}
	b.maps = shown.Maps
}

// vanished checks that program and maps go. The kernel frees them some time after the process.
func (b *process) vanished() {
	b.t.Helper()
	if b.program == 0 {
		return
	}
	last := ""
	if !becomes(func() bool {
		last = installed(b.t)
		return !lists(last, "programs", []uint32{b.program}) && !lists(last, "maps", b.maps)
	}) {
		b.t.Errorf("program %d and maps %v are still there: %s", b.program, b.maps, last)
	}
}

// installed is what ringmq xdp status says without a broker.
func installed(t *testing.T) string {
	t.Helper()
	out, err := exec.Command(program, "xdp", "status", "--admin", "/nonexistent/admin.sock").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "in this kernel") {
		t.Fatalf("ringmq xdp status without a broker: %v: %s", err, out)
	}
	return string(out)
}

// lists looks into "in this kernel: programs [1 2], maps [3 4] of ringmq".
func lists(text, what string, ids []uint32) bool {
	_, text, _ = strings.Cut(text, what+" [")
	text, _, _ = strings.Cut(text, "]")
	words := strings.Fields(text)
	return slices.ContainsFunc(ids, func(id uint32) bool { return slices.Contains(words, fmt.Sprint(id)) })
}

// run is one ringmq command about this broker; its error has what the command said.
func (b *process) run(arguments ...string) (string, error) {
	command := 1 // words of the command's name, before its flags
	if arguments[0] == "xdp" || arguments[0] == "store" {
		command = 2
	}
	arguments = slices.Insert(slices.Clone(arguments), command, "--admin", b.admin)
	out, err := exec.Command(program, arguments...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("ringmq %s: %w: %s", strings.Join(arguments, " "), err, out)
	}
	return string(out), err
}

// must is run without failure.
func (b *process) must(arguments ...string) string {
	b.t.Helper()
	out, err := b.run(arguments...)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// refused starts a broker that must not start: it ends with one line, which has all the words. It returns all that it said.
func (s *scene) refused(cmd *exec.Cmd, words ...string) string {
	s.t.Helper()
	dieWithTest(cmd)
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	out, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(out))
	if _, exited := errors.AsType[*exec.ExitError](err); !exited || cmd.ProcessState.ExitCode() != 1 {
		s.t.Errorf("%v ended with %v: %s", cmd.Args, err, text)
	}
	last := text[strings.LastIndexByte(text, '\n')+1:]
	if !strings.HasPrefix(last, "ringmq: ") || strings.Count(text, "ringmq: ") != 1 {
		s.t.Errorf("%v said\n%s\nwant one line of error", cmd.Args, text)
	}
	for _, word := range words {
		if !strings.Contains(last, word) {
			s.t.Errorf("%v said\n%s\nwithout %q", cmd.Args, last, word)
		}
	}
	return text
}
