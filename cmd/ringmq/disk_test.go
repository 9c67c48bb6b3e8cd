//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker/crashtest"
)

// diskScene is the real program with its store on a small disk of its own, and clients around it.
type diskScene struct {
	*crashtest.Disk
	*crashtest.Trouble
	*running
	t      *testing.T
	socket string
}

// mountDisk mounts a small disk until the test ends, or skips.
func mountDisk(t *testing.T, size string) *crashtest.Disk {
	t.Helper()
	d, err := crashtest.MountDisk(t.TempDir(), size)
	if err == syscall.EPERM {
		t.Skip("needs CAP_SYS_ADMIN to mount a small disk")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// newDiskScene starts a broker that leaves reserve free on its disk of 64 MiB, and has messages queued in it.
func newDiskScene(t *testing.T, reserve string) *diskScene {
	t.Helper()
	s := &diskScene{Disk: mountDisk(t, "64m"), t: t, socket: filepath.Join(t.TempDir(), "admin")}
	config := inFile(t, fmt.Sprintf("memory = \"256MiB\"\n[store]\ndata = %q\nreserve = %q\n", s.Data, reserve))
	s.running = startProgram(t, buildRaced(t), "serve", "-c", config, "-p", unusedPort(t), "--admin", s.socket)
	s.Trouble = crashtest.NewTrouble(func() (net.Conn, error) { return net.Dial("tcp", s.address) })
	t.Cleanup(s.HangUp)
	s.must(s.Before())
	if why, ok := s.ready(); !ok {
		t.Fatal("a broker with an empty disk is not ready: ", why)
	}
	return s
}

func (s *diskScene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// ready is what ringmq status --ready says.
func (s *diskScene) ready() (why string, ok bool) {
	s.t.Helper()
	_, why, code := ringmq(s.t, "status", "--ready", "--admin", s.socket)
	return why, code == 0
}

// refuses waits for the line in the log and finds the same, and why, in status and readiness.
func (s *diskScene) refuses(line, why string) {
	s.t.Helper()
	if got := s.waitLine(s.t, line); !strings.Contains(got, "level=ERROR") || !strings.Contains(got, why) {
		s.t.Errorf("the log has no reason %q: %s", why, got)
	}
	if got, ok := s.ready(); ok || !strings.Contains(got, why) || strings.Count(got, "\n") != 1 {
		s.t.Errorf("ready %v, %s", ok, got)
	}
	if got, _, _ := ringmq(s.t, "status", "--admin", s.socket); !strings.Contains(got, "REFUSES") || !strings.Contains(got, why) {
		s.t.Errorf("status of a broker whose store refuses:\n%s", got)
	}
}

// recovers waits until the log and readiness say that it is over.
func (s *diskScene) recovers() {
	s.t.Helper()
	s.waitLine(s.t, "store works again")
	for until := time.Now().Add(testPatience); ; {
		why, ok := s.ready()
		if ok {
			return
		}
		if time.Now().After(until) {
			s.t.Fatal("after the trouble: ", why)
		}
	}
}

// counted waits until counters are at their values, which shards pass on now and then.
func (s *diskScene) counted(want map[string]uint64) {
	s.t.Helper()
	var got struct{ Counters map[string]uint64 }
	for until := time.Now().Add(testPatience); ; {
		out, _, _ := ringmq(s.t, "status", "--json", "--admin", s.socket)
		s.must(json.Unmarshal([]byte(out), &got))
		missing := maps.Clone(want)
		maps.DeleteFunc(missing, func(name string, n uint64) bool { return got.Counters[name] == n })
		if len(missing) == 0 {
			break
		}
		if time.Now().After(until) {
			s.t.Fatalf("counters: %v, want %v", got.Counters, want)
		}
	}
	if got.Counters["publish_stalled_store"] == 0 {
		s.t.Error("nothing says that a PUBLISH of 3.1.1 waits")
	}
}

// TestFullDisk fills the disk of a store from outside, down to each mark and to the last byte: what README's table says is refused, in both
// protocol versions, and the rest goes on; log, status, readiness and counters say so. When there is space again what waited is
// acknowledged, and what was acknowledged arrives once.
func TestFullDisk(t *testing.T) {
	s := newDiskScene(t, "8MiB")
	for _, c := range []struct {
		level  int
		free   int64
		line   string
		counts map[string]uint64 // each of 5.0 anew, the one of 3.1.1 once
	}{
		{1, 12 << 20, "store fails: messages that are to be kept are refused", map[string]uint64{"store_refused": 5}},
		{2, 6 << 20, "new Sessions and their subscriptions are refused", map[string]uint64{"store_refused": 9, "store_refused_sessions": 2}},
		{3, 2 << 20, "nothing is written until it recovers", map[string]uint64{"store_refused": 13, "store_refused_sessions": 5}},
		{level: 3},
	} {
		s.must(s.Leave(c.free))
		if c.line == "" { // as full as a disk gets
			s.must(s.Refused(c.level))
			continue
		}
		s.refuses(c.line, "left on the disk")
		s.must(s.Refused(c.level))
		s.counted(c.counts)
	}
	s.must(s.Free())
	s.recovers()
	s.must(s.Over())
}

// TestFailingDisk has the disk fail without a warning, while messages come: it has no room for another file, and then the file system can only
// be read.
func TestFailingDisk(t *testing.T) {
	for _, c := range []struct {
		name, why  string
		begin, end func(*crashtest.Disk) error
	}{
		{"no files left", syscall.ENOSPC.Error(), (*crashtest.Disk).TakeFiles, (*crashtest.Disk).Free},
		{"read-only", syscall.EROFS.Error(), (*crashtest.Disk).ReadOnly, (*crashtest.Disk).Writable},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newDiskScene(t, "8MiB")
			s.must(c.begin(s.Disk))
			s.Feed(200)
			s.refuses("store fails: messages that are to be kept are refused", c.why)
			s.must(s.Failing())
			s.must(c.end(s.Disk))
			s.recovers()
			s.must(s.Over())
		})
	}
}

// TestDiskRefusals: a broker that cannot keep anything where it is to does not start. It says in one line what is wrong, where, and what to do.
func TestDiskRefusals(t *testing.T) {
	d := mountDisk(t, "64m")
	config := inFile(t, "memory = \"256MiB\"\n[store]\nreserve = \"5MiB\"\n")
	serve := func() []string {
		return []string{buildProgram(t), "serve", "-c", config, "-p", unusedPort(t), "--admin", "none", "--data", d.Data}
	}
	refused := func(command []string, words ...string) {
		t.Helper()
		_, stderr, code := toItsEnd(t, command[0], command[1:])
		for _, word := range append(words, d.Data, "; ") {
			if code != 1 || !strings.Contains(stderr, word) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("exit code %d, want %q in\n%s", code, word, stderr)
			}
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	readOnly := func(words ...string) {
		t.Helper()
		must(d.ReadOnly())
		refused(serve(), words...)
		must(d.Writable())
	}
	little := func() {
		t.Helper()
		must(d.Leave(9 << 20))
		refused(serve(), "9 MiB are free", "10 are needed", "free some")
		must(d.Free())
	}
	unwritable := func() {
		t.Helper()
		must(os.Chmod(d.Data, 0o500))
		refused(append([]string{"setpriv", "--bounding-set", "-dac_override"}, serve()...), "not writable", "permission denied", "the user that runs ringmq")
		must(os.Chmod(d.Data, 0o700))
	}
	readOnly("not writable", "read-only file system", "for writing")
	little()
	unwritable()
	if list, err := os.ReadDir(d.Data); err != nil || len(list) > 0 {
		t.Errorf("what is refused has changed the directory: %v %v", list, err)
	}
	p := startProgram(t, serve()[0], serve()[1:]...)
	refused(serve(), "in use by another process", "stop that, or name another directory")
	must(p.cmd.Process.Kill())
	_ = p.cmd.Wait()
	readOnly("not writable", "read-only file system", "for writing") // with a store in it
	little()
	unwritable()
}
