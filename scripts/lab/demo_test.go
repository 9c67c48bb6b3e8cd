//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// demoMax bounds the demo on a machine that others load. It promises a minute to an idle one.
const demoMax = 4 * time.Minute

// script runs scripts/lab.sh and returns what it said. It is to leave nothing in its folder for temporary files.
func script(t *testing.T, arguments ...string) (string, error) {
	t.Helper()
	folder := t.TempDir()
	cmd := exec.Command("../lab.sh", arguments...)
	cmd.Env = append(os.Environ(), "TMPDIR="+folder)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	timer := time.AfterFunc(demoMax, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) })
	defer timer.Stop()
	out, err := cmd.CombinedOutput()
	if left, _ := os.ReadDir(folder); len(left) > 0 {
		t.Errorf("lab.sh %q has left %v", arguments, left)
	}
	return string(out), err
}

// scriptNamespaces are those of lab.sh that are there.
func scriptNamespaces(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("/run/netns/ringmq-*")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// newScript skips when somebody's lab is up: its names are always the same.
func newScript(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip(onceOnly)
	}
	if why := Missing(); why != "" {
		t.Skip(why)
	}
	if found := scriptNamespaces(t); len(found) > 0 {
		t.Skipf("a lab is up already (%q): ./scripts/lab.sh down", found)
	}
	t.Cleanup(func() {
		if out, err := script(t, "down"); err != nil {
			t.Errorf("lab.sh down: %v: %s", err, out)
		}
	})
}

// number finds the one that follows some words in a text, -1 when there is none.
func number(text, pattern string) int {
	found := regexp.MustCompile(pattern + `\s*([\d,]+)`).FindStringSubmatch(text)
	if found == nil {
		return -1
	}
	n, err := strconv.Atoi(strings.ReplaceAll(found[1], ",", ""))
	if err != nil {
		return -1
	}
	return n
}

// TestDemo runs what README shows first. A message comes through over both families, a million more do, the program's counters have
// them redirected into the rings, on both queues, and none of their segments has come to the kernel's TCP, which knows no
// connection. Afterwards nothing is left.
func TestDemo(t *testing.T) {
	newScript(t)
	start := time.Now()
	out, err := script(t, "demo")
	if err != nil {
		t.Fatalf("lab.sh demo: %v:\n%s", err, out)
	}
	t.Logf("the demo took %v", time.Since(start).Round(time.Second))
	if !strings.Contains(out, "\nplant/line1/state running\n") {
		t.Error("the first message has not come")
	}
	redirected := regexp.MustCompile(`redirected +([\d,]+) packets`).FindAllStringSubmatch(out, -1)
	if len(redirected) != 2 {
		t.Errorf("%d queues show redirected frames, want 2", len(redirected))
	}
	for queue, found := range redirected {
		if n := number(found[0], "redirected"); n < 1000 {
			t.Errorf("queue %d: %d frames were redirected", queue, n)
		}
	}
	if n := number(out, "segments received by the kernel in the broker's namespace:"); n != 0 {
		t.Errorf("the kernel's TCP has received %d segments", n)
	}
	if n := number(out, "connections that ss knows there:"); n != 0 {
		t.Errorf("ss knows %d connections", n)
	}
	if left := scriptNamespaces(t); len(left) > 0 {
		t.Errorf("the demo has left %q", left)
	}
	if t.Failed() {
		t.Logf("the demo said\n%s", out)
	}
}

// TestScript makes the lab for people and takes it away, which also ends what runs in it. What is asked for twice is refused or
// no fault.
func TestScript(t *testing.T) {
	newScript(t)
	if out, err := script(t, "up", "4"); err != nil {
		t.Fatalf("lab.sh up 4: %v: %s", err, out)
	}
	if found := scriptNamespaces(t); len(found) != 2 {
		t.Fatalf("the namespaces are %q", found)
	}
	out, err := exec.Command("ip", "netns", "exec", "ringmq-broker", "ethtool", "-l", "rmq0").CombinedOutput()
	if n := number(string(out), `Current hardware settings:\s+RX:`); err != nil || n != 4 {
		t.Errorf("the broker's interface has %d queues (%v)", n, err)
	}
	if out, err := script(t, "up"); err == nil || !strings.Contains(out, "down") {
		t.Errorf("lab.sh up while it is up: %v: %s", err, out)
	}
	broker := exec.Command("ip", "netns", "exec", "ringmq-broker", program, "serve", "--allow-anonymous", "--admin", "none",
		"--mode", "xdp", "--interface", "rmq0", "--listen", ":1883")
	dieWithTest(broker)
	if err := broker.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- broker.Wait() }()
	eventually(t, "the broker is in the namespace", func() bool {
		out, err := exec.Command("ip", "netns", "pids", "ringmq-broker").Output()
		return err == nil && strings.TrimSpace(string(out)) == fmt.Sprint(broker.Process.Pid)
	})
	for range 2 {
		if out, err := script(t, "down"); err != nil {
			t.Errorf("lab.sh down: %v: %s", err, out)
		}
	}
	if found := scriptNamespaces(t); len(found) > 0 {
		t.Errorf("lab.sh down has left %q", found)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		_ = broker.Process.Kill()
		t.Error("the broker outlives the lab")
		<-ended
	}
}
