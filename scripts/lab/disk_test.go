//go:build linux

package lab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/broker/crashtest"
)

// operator runs the program in XDP mode, where its clients are on the rings.
type operator struct {
	*scene
	*process
	t         *testing.T
	arguments []string
	found     int // lines of the log that Await has gone through
}

// operate makes operators in a lab.
func (s *scene) operate(t *testing.T, d *crashtest.Disk) crashtest.Operator {
	config := filepath.Join(t.TempDir(), "ringmq.toml")
	if err := os.WriteFile(config, []byte(crashtest.SceneConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	return &operator{scene: &scene{s.Lab, s.Pair, t}, t: t, arguments: []string{"-c", config, "--data", d.Data}}
}

func (o *operator) Serve() { o.process, o.found = o.serve(o.arguments...), 0 }

func (o *operator) PID() int { return o.cmd.Process.Pid }

func (o *operator) Dial() (net.Conn, error) { return dial(o.scene.Client, o.Broker4) }

func (o *operator) Command(arguments ...string) (string, error) { return o.run(arguments...) }

func (o *operator) Kill() {
	if o.lane().sum(func(q queueReport) uint64 { return q.TCP.Accepted }) == 0 {
		o.t.Error("nobody was on the rings")
	}
	o.kill()
}

func (o *operator) Await(words ...string) (line string) {
	o.t.Helper()
	eventually(o.t, fmt.Sprintf("a log line with %q", words), func() bool {
		lines := strings.Split(o.log(), "\n")[o.found:]
		at := slices.IndexFunc(lines, func(l string) bool {
			return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(l, w) })
		})
		if at >= 0 {
			line, o.found = lines[at], o.found+at+1
		}
		return at >= 0
	})
	return line
}

// What becomes of a disk in XDP mode.

func TestFullDiskOnRings(t *testing.T) { crashtest.PlayFull(t, newScene(t, 2).operate) }

func TestFailingDiskOnRings(t *testing.T) { crashtest.PlayFailing(t, newScene(t, 2).operate) }

func TestUnreadDiskOnRings(t *testing.T) { crashtest.PlayUnread(t, newScene(t, 2).operate) }

func TestBadSectorOnRings(t *testing.T) { crashtest.PlayBadSector(t, newScene(t, 2).operate) }

// TestDamagedStoreOnRings overwrites a part of a table, and then of a log, while the broker is down: the next one starts and serves on its
// rings, what can be read arrives, what was damaged is kept and says why, and what was lost is counted.
func TestDamagedStoreOnRings(t *testing.T) {
	s := newScene(t, 2)
	for _, extension := range []string{".sst", ".log"} {
		t.Run(extension, func(t *testing.T) {
			const queued = 400
			s := &scene{s.Lab, s.Pair, t}
			data := t.TempDir()
			q := crashtest.NewQueue(func() (net.Conn, error) { return dial(s.Client, s.Broker4) })
			b := s.serve("--data", data)
			must(t, q.Fill(queued/2))
			b.kill()
			s.storeCommand("compact", data)
			b = s.serve("--data", data)
			must(t, q.Fill(queued/2))
			b.kill()
			damage(t, data, extension)
			b = s.serve("--data", data)
			n, err := q.Drain()
			must(t, err)
			b.await("level=WARN", "the store was damaged", filepath.Join(data, "damaged-"))
			r := b.store()
			// What is before and behind the damage is read. How many records a table lacks is known, and how many commits a log, which may be several messages.
			least, known := queued*9/10, n+r.LostRecords >= queued+1
			if extension == ".log" {
				least, known = queued*3/4, r.LostFiles == 1 && r.LostCommits > 0 && r.LostCommits <= queued
			}
			if r.Salvages != 1 || n < least || n > queued || !known {
				t.Errorf("%d of %d messages arrived; %+v", n, queued+1, r)
			}
			if kept, err := filepath.Glob(filepath.Join(data, "damaged-*", "WHY")); len(kept) != 1 {
				t.Errorf("what was damaged is kept in %q (%v)", kept, err)
			}
			if b.lane().sum(func(q queueReport) uint64 { return q.TCP.Accepted }) == 0 {
				t.Error("nobody was on the rings")
			}
			b.stop()
			if out := s.storeCommand("check", data); !strings.Contains(out, "good") {
				t.Errorf("the salvaged store: %s", out)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// storeCommand looks at, or works on, the store of a broker that does not run.
func (s *scene) storeCommand(name, data string) string {
	s.t.Helper()
	out, err := exec.Command(program, "store", name, data).CombinedOutput()
	if err != nil {
		s.t.Fatalf("ringmq store %s: %v: %s", name, err, out)
	}
	return string(out)
}

// damage overwrites a part of the largest file of a store that has this extension.
func damage(t *testing.T, data, extension string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(data, "db", "*"+extension))
	if err != nil || len(names) == 0 {
		t.Fatalf("no file %s to damage: %v", extension, err)
	}
	var largest []byte
	name := ""
	for _, n := range names {
		text, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > len(largest) {
			name, largest = n, text
		}
	}
	at := largest[len(largest)/2:]
	copy(at, bytes.Repeat([]byte("damage"), min(len(at)/12, 500)))
	if err := os.WriteFile(name, largest, 0o600); err != nil {
		t.Fatal(err)
	}
}

// storeReport is what ringmq store stats --json says, as far as the tests look.
type storeReport struct {
	LostFiles   int `json:"lost_files"`
	LostCommits int `json:"lost_commits"`
	Salvages    int `json:"salvages"`
	LostRecords int `json:"lost_records"`
}

func (b *process) store() (r storeReport) {
	b.t.Helper()
	if err := json.Unmarshal([]byte(b.must("store", "stats", "--json")), &r); err != nil {
		b.t.Fatal(err)
	}
	return r
}
