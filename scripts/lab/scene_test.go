//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
)

// patience bounds every wait for what must happen. It is for a machine that others load, too: nothing is judged by it.
const patience = 20 * time.Second

// scene is what most tests need: a lab with one pair.
type scene struct {
	*Lab
	*Pair
	t *testing.T
}

// onceOnly is why -short leaves the lab out: test.sh has a step with -short and one without, and minutes count.
const onceOnly = "runs without -short"

// newScene skips without the privilege and fails without the feature.
func newScene(t *testing.T, queues int) *scene {
	t.Helper()
	if testing.Short() {
		t.Skip(onceOnly)
	}
	if why := Missing(); why != "" {
		t.Skip(why)
	}
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	p, err := l.NewPair(queues)
	if err != nil {
		t.Fatal(err)
	}
	return &scene{Lab: l, Pair: p, t: t}
}

// broker and client run one command line in the namespaces, for ip, ethtool and their like.
func (s *scene) broker(format string, values ...any) string {
	return s.shell(s.InBroker, format, values)
}
func (s *scene) client(format string, values ...any) string {
	return s.shell(s.InClient, format, values)
}

func (s *scene) shell(in func(...string) *exec.Cmd, format string, values []any) string {
	s.t.Helper()
	line := fmt.Sprintf(format, values...)
	out, err := in(strings.Fields(line)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v: %s", line, err, out)
	}
	return string(out)
}

// within runs f on a thread that is in a network namespace: what f opens belongs there.
func within[T any](namespace string, f func() (T, error)) (value T, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	if err != nil {
		return value, err
	}
	defer here.Close()
	there, err := netns.GetFromName(namespace)
	if err != nil {
		return value, err
	}
	defer there.Close()
	if err := netns.Set(there); err != nil {
		return value, err
	}
	defer func() {
		if err := netns.Set(here); err != nil {
			panic(err) // The thread is lost.
		}
	}()
	return f()
}

// eventually asks again and again until the answer is yes.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	if !becomes(f) {
		t.Fatalf("%s: not after %v", what, patience)
	}
}

func becomes(f func() bool) bool {
	deadline := time.Now().Add(patience)
	for !f() {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(pollEvery)
	}
	return true
}

// pollEvery is for what tells nobody when it changes.
const pollEvery = 20 * time.Millisecond

// read gives a file as a thread of the namespace sees it.
func read(t *testing.T, namespace, path string) string {
	t.Helper()
	data, err := within(namespace, func() ([]byte, error) { return os.ReadFile(path) })
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
