//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestLogUnread: a broker whose log has lost its reader stops in order all the same, as under "ringmq serve 2>&1 | tee log" at Ctrl-C.
func TestLogUnread(t *testing.T) {
	log, stderr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(buildProgram(t), "serve", "-p", unusedPort(t), "--admin", adminOff)
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	_ = stderr.Close()
	for lines := bufio.NewScanner(log); lines.Scan() && !strings.Contains(lines.Text(), "listening"); {
	}
	_ = log.Close()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("a broker that nobody reads the log of ends with %v", err)
	}
}

// TestStopIsHeard: SIGTERM is not lost behind others that nobody has taken yet.
func TestStopIsHeard(t *testing.T) {
	stops, wishes, deaf := hearSignals()
	defer deaf()
	send := func(sig syscall.Signal) {
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(30 * time.Second); len(wishes) < cap(wishes); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d signals of %d have come", len(wishes), cap(wishes))
		}
		send(syscall.SIGHUP)
	}
	send(syscall.SIGTERM)
	select {
	case <-stops:
	case <-time.After(30 * time.Second):
		t.Error("SIGTERM is lost")
	}
}

// TestReloadDearer: a password file whose hashes take more memory than was planned for is taken, and the log says so.
func TestReloadDearer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passwords")
	set := func(arguments ...string) {
		if _, err := passwd("", arguments...); err != nil {
			t.Fatal(err)
		}
	}
	set("-H", "sha512-pbkdf2", "-c", "-b", path, "alice", "first")
	p := startProgram(t, buildProgram(t), "serve", "-p", unusedPort(t), "--admin", adminOff, "--passwords", path)
	reload := func() (warned bool) {
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for {
			line := p.waitLine(t, "passwords")
			warned = warned || strings.Contains(line, "more memory than was planned")
			if strings.Contains(line, "msg=reloaded") {
				return warned
			}
		}
	}
	if reload() {
		t.Error("the same file takes more than was planned")
	}
	set("-b", path, "bob", "second")
	if !reload() {
		t.Error("nothing is said of argon2id, for which nothing was planned")
	}
}
