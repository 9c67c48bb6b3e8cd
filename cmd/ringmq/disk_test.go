//go:build linux

package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/broker/crashtest"
)

// operator runs the program in standard mode.
type operator struct {
	*running
	t      *testing.T
	serve  []string
	socket string
}

func operate(t *testing.T, d *crashtest.Disk) crashtest.Operator {
	o := &operator{t: t, socket: filepath.Join(t.TempDir(), "admin")}
	o.serve = []string{"serve", "-c", inFile(t, crashtest.SceneConfig), "-p", unusedPort(t), "--admin", o.socket, "--data", d.Data}
	return o
}

func (o *operator) must(err error) {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
}

func (o *operator) Serve() { o.running = startProgram(o.t, buildRaced(o.t), o.serve...) }

func (o *operator) PID() int { return o.cmd.Process.Pid }

func (o *operator) Dial() (net.Conn, error) { return net.Dial("tcp", o.address) }

func (o *operator) Await(words ...string) string { return o.waitLine(o.t, words...) }

func (o *operator) Kill() {
	if err := o.cmd.Process.Kill(); err != nil {
		o.t.Fatal(err)
	}
	_ = o.cmd.Wait()
}

func (o *operator) Command(arguments ...string) (out string, err error) {
	out, why, code := ringmq(o.t, append(arguments, "--admin", o.socket)...)
	if code != 0 {
		err = errors.New(why)
	}
	return out + why, err
}

// What becomes of a disk in standard mode.

func TestFullDisk(t *testing.T) { crashtest.PlayFull(t, operate) }

func TestFailingDisk(t *testing.T) { crashtest.PlayFailing(t, operate) }

func TestUnreadDisk(t *testing.T) { crashtest.PlayUnread(t, operate) }

func TestBadSector(t *testing.T) {
	if testing.Short() {
		t.Skip("takes sixteen seconds, in which the broker tries to read: runs without -short")
	}
	crashtest.PlayBadSector(t, operate)
}

// TestUnreadAtStart has a disk on which no table can be read when the broker starts, and then they can: it tries again and has lost nothing.
func TestUnreadAtStart(t *testing.T) {
	crashtest.NeedStrace(t)
	const queued = 100
	d := crashtest.MountDisk(t, "64m")
	o := operate(t, d).(*operator)
	o.Serve()
	q := crashtest.NewQueue(o.Dial)
	o.must(q.Fill(queued))
	o.Kill()
	o.Serve() // What is in the log goes to a table.
	o.Kill()
	tables, err := filepath.Glob(filepath.Join(d.Data, "db", "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("%q: what is kept is in no table (%v)", tables, err)
	}
	command := append(crashtest.EIO("pread64"), "-D", "-I", "2")
	for _, table := range tables {
		command = append(command, "-P", table)
	}
	tries := 0
	o.running = startHeard(t, func(p *running, line string) {
		if !strings.Contains(line, "the store cannot be read, which is tried again") {
			return
		}
		if tries++; tries == 1 {
			o.must(crashtest.EndOf(p.cmd.Process.Pid))
		}
	}, "strace", append(append(command, buildRaced(t)), o.serve...)...)
	if n, err := q.Drain(); err != nil || n != queued+1 || tries == 0 {
		t.Errorf("%d messages have come after %d tries, want %d (%v)", n, tries, queued+1, err)
	}
}

// TestDiskRefusals: a broker that cannot keep anything where it is to does not start. It says in one line what is wrong, where, and what to do.
func TestDiskRefusals(t *testing.T) {
	d := crashtest.MountDisk(t, "64m")
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
	unsynced := func() {
		t.Run("nothing is synced", func(t *testing.T) {
			crashtest.NeedStrace(t)
			for _, calls := range []string{"fsync", "fdatasync"} { // of what is tried first, and of the database's log
				refused(slices.Concat([]string{"strace"}, crashtest.EIO(calls), serve()), "sync "+d.Data, "input/output error", "mend its disk")
			}
		})
	}
	readOnly("not writable", "read-only file system", "for writing")
	little()
	unwritable()
	if list, err := os.ReadDir(d.Data); err != nil || len(list) > 0 {
		t.Errorf("what is refused has changed the directory: %v %v", list, err)
	}
	unsynced()
	p := startProgram(t, serve()[0], serve()[1:]...)
	refused(serve(), "in use by another process", "stop that, or name another directory")
	must(p.cmd.Process.Kill())
	_ = p.cmd.Wait()
	readOnly("not writable", "read-only file system", "for writing") // with a store in it
	little()
	unwritable()
	unsynced()
}

// TestToolsOnReadOnlyDisk: what only looks at a store needs nothing to be written, with a LOCK or, as in a backup, without; and it sees a broker that
// has the store all the same.
func TestToolsOnReadOnlyDisk(t *testing.T) {
	d := crashtest.MountDisk(t, "64m")
	o := operate(t, d).(*operator)
	look := func(words string) {
		t.Helper()
		o.must(d.ReadOnly())
		for _, name := range []string{"check", "stats", "dump"} {
			stdout, stderr, code := ringmq(t, "store", name, d.Data)
			if words == "" && (code != 0 || !strings.Contains(stdout, "queue entr")) || !strings.Contains(stderr, words) {
				t.Errorf("ringmq store %s: exit code %d, %s%s", name, code, stdout, stderr)
			}
		}
		o.must(d.Writable())
	}
	o.Serve()
	o.must(crashtest.NewQueue(o.Dial).Fill(10))
	look("in use by another process")
	o.Kill()
	look("")
	o.must(os.Remove(filepath.Join(d.Data, "LOCK")))
	look("")
}
