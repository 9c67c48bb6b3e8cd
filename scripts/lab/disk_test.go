//go:build linux

package lab

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ringmq/ringmq/broker/crashtest"
)

// newTrouble makes clients that connect from the clients' namespace.
func (s *scene) newTrouble() *crashtest.Trouble {
	c := crashtest.NewTrouble(func() (net.Conn, error) { return dial(s.Client, s.Broker4) })
	s.t.Cleanup(c.HangUp)
	return c
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// TestFullDiskOnRings fills the disk of a broker whose clients are on its rings, mark by mark: what README's table says is refused, the
// rest goes on, and when there is space again what waited is acknowledged and what was acknowledged arrives once.
func TestFullDiskOnRings(t *testing.T) {
	s := newScene(t, 2)
	d, config := s.smallDisk()
	b, c := s.serve("-c", config, "--data", d.Data), s.newTrouble()
	s.must(c.Before())
	b.must("status", "--ready")
	for _, stage := range []struct {
		level int
		free  int64
		line  string
	}{
		{1, 12 << 20, "messages that are to be kept are refused"},
		{2, 6 << 20, "new Sessions and their subscriptions are refused"},
		{3, 0, "nothing is written until it recovers"},
	} {
		s.must(d.Leave(stage.free))
		b.await("level=ERROR", stage.line, "left on the disk")
		s.must(c.Refused(stage.level))
		if _, err := b.run("status", "--ready"); err == nil || !strings.Contains(err.Error(), "left on the disk") {
			t.Errorf("level %d: readiness says %v", stage.level, err)
		}
	}
	eventually(t, "each refused message is counted once", func() bool { return b.status().Counters["store_refused"] == 13 })
	s.must(d.Free())
	b.await("store works again")
	eventually(t, "ready again", func() bool { _, err := b.run("status", "--ready"); return err == nil })
	s.must(c.Over())
	if b.lane().sum(func(q queueReport) uint64 { return q.TCP.Accepted }) == 0 {
		t.Error("nobody was on the rings")
	}
}

// TestFailingDiskOnRings has the disk of such a broker fail without a warning, while messages come: it has no room for another file, and then the
// file system can only be read. Log, status and readiness say so, and nobody is told a lie.
func TestFailingDiskOnRings(t *testing.T) {
	s := newScene(t, 2)
	for _, c := range []struct {
		name, why  string
		begin, end func(*crashtest.Disk) error
	}{
		{"no files left", syscall.ENOSPC.Error(), (*crashtest.Disk).TakeFiles, (*crashtest.Disk).Free},
		{"read-only", syscall.EROFS.Error(), (*crashtest.Disk).ReadOnly, (*crashtest.Disk).Writable},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &scene{s.Lab, s.Pair, t}
			d, config := s.smallDisk()
			b, clients := s.serve("-c", config, "--data", d.Data), s.newTrouble()
			s.must(clients.Before())
			s.must(c.begin(d))
			clients.Feed(200)
			b.await("level=ERROR", "messages that are to be kept are refused", c.why)
			if _, err := b.run("status", "--ready"); err == nil || !strings.Contains(err.Error(), c.why) {
				t.Errorf("readiness says %v", err)
			}
			s.must(clients.Failing())
			s.must(c.end(d))
			b.await("store works again")
			eventually(t, "ready again", func() bool { _, err := b.run("status", "--ready"); return err == nil })
			s.must(clients.Over())
			if b.lane().sum(func(q queueReport) uint64 { return q.TCP.Accepted }) == 0 {
				t.Error("nobody was on the rings")
			}
			b.stop()
		})
	}
}

// smallDisk is a disk of 64 MiB, and the configuration of a broker that leaves 8 free on it.
func (s *scene) smallDisk() (d *crashtest.Disk, config string) {
	s.t.Helper()
	d, err := crashtest.MountDisk(s.t.TempDir(), "64m")
	s.must(err)
	s.t.Cleanup(func() {
		if err := d.Unmount(); err != nil {
			s.t.Error(err)
		}
	})
	config = filepath.Join(s.t.TempDir(), "ringmq.toml")
	s.must(os.WriteFile(config, []byte("memory = \"256MiB\"\n[store]\nreserve = \"8MiB\"\n"), 0o600))
	return d, config
}

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
			s.must(q.Fill(queued / 2))
			b.kill()
			s.storeCommand("compact", data)
			b = s.serve("--data", data)
			s.must(q.Fill(queued / 2))
			b.kill()
			damage(t, data, extension)
			b = s.serve("--data", data)
			n, err := q.Drain()
			s.must(err)
			b.await("level=WARN", "the store was damaged", filepath.Join(data, "damaged-"))
			r := b.store()
			// Of a table both ends are read. A log is one up to its first damage: half of the messages are before it.
			least, lost := queued*9/10, r.LostRecords
			if extension == ".log" {
				least, lost = queued/2, r.LostCommits
			}
			if r.Salvages != 1 || n < least || n > queued || n+lost < queued+1 {
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
