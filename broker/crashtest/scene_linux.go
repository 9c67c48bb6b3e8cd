package crashtest

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
)

// scenePatience bounds the wait for what must be said or counted; only a test that fails waits as long.
const scenePatience = 30 * time.Second

// Operator runs the real broker. What goes wrong with that fails the test.
type Operator interface {
	// Serve starts a broker with its store on the Disk and SceneConfig, and returns when it serves.
	Serve()
	// Kill ends it by SIGKILL.
	Kill()
	PID() int
	Dial() (net.Conn, error)
	// Await waits for a line of the log that has all the words, behind those that it gave before.
	Await(words ...string) string
	// Command runs a command of ringmq about the broker.
	Command(arguments ...string) (out string, err error)
}

// SceneConfig is the configuration of a broker that leaves 8 MiB free on its disk of 64.
const SceneConfig = "memory = \"256MiB\"\n[store]\nreserve = \"8MiB\"\n"

// scene is a broker whose disk gets into trouble, and clients around it.
type scene struct {
	Operator
	*Trouble
	t    *testing.T
	disk *Disk
}

// NewOperator makes an Operator of a broker on a disk; the test's end ends the broker.
type NewOperator func(*testing.T, *Disk) Operator

func newScene(t *testing.T, operator NewOperator) *scene {
	t.Helper()
	d := MountDisk(t, "64m")
	s := &scene{Operator: operator(t, d), t: t, disk: d}
	s.Serve()
	s.Trouble = NewTrouble(s.Dial)
	t.Cleanup(s.HangUp)
	s.must(s.Before())
	s.ready()
	return s
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// PlayFull fills the disk from outside, down to each mark and to the last byte: what README's table says is refused, in both protocol
// versions, and the rest goes on; log, status, readiness and counters say so. When there is space again what waited is acknowledged,
// and what was acknowledged arrives once, be the broker killed in between.
func PlayFull(t *testing.T, operator NewOperator) {
	s := newScene(t, operator)
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
		s.must(s.disk.Leave(c.free))
		if c.line == "" { // as full as a disk gets
			s.must(s.Refused(c.level))
			continue
		}
		s.refuses(c.line, "left on the disk")
		s.must(s.Refused(c.level))
		s.counted(c.counts)
	}
	s.must(s.disk.Free())
	s.recovers()
}

// PlayFailing has the disk fail without a warning, while messages come: it has no room for another file, then the file system can only be read,
// and then the disk confirms nothing. It is as loud, and as true, as when the disk is full.
func PlayFailing(t *testing.T, operator NewOperator) {
	var f *Fault
	for _, c := range []struct {
		name       string
		why        string
		begin, end func(*scene) error
	}{
		{"no files left", syscall.ENOSPC.Error(), func(s *scene) error { return s.disk.TakeFiles() }, func(s *scene) error { return s.disk.Free() }},
		{"read-only", syscall.EROFS.Error(), func(s *scene) error { return s.disk.ReadOnly() }, func(s *scene) error { return s.disk.Writable() }},
		{"nothing is synced", ": " + syscall.EIO.Error(), func(s *scene) error {
			f = Inject(s.t, s.PID(), "fsync,fdatasync,sync_file_range")
			return nil
		}, func(*scene) error { return f.End() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t, operator)
			s.must(c.begin(s))
			s.Feed(200)
			s.refuses("store fails: messages that are to be kept are refused", c.why)
			s.must(s.Failing())
			s.counted(nil)
			s.must(c.end(s))
			s.recovers()
		})
	}
}

// queueHalf is how many messages of a Queue are in each of the tables of a scene.
const queueHalf = 200

// newQueueScene has messages of a Queue wait in two tables.
func newQueueScene(t *testing.T, operator NewOperator) (s *scene, q *Queue, tables []string) {
	t.Helper()
	NeedStrace(t)
	d := MountDisk(t, "64m")
	s = &scene{Operator: operator(t, d), t: t, disk: d}
	s.Serve()
	q = NewQueue(s.Dial)
	for range 2 {
		s.must(q.Fill(queueHalf))
		s.Kill()
		s.Serve() // Opened again, Pebble writes what is in the log to a table.
	}
	tables, err := filepath.Glob(filepath.Join(d.Data, "db", "*.sst"))
	if err != nil || len(tables) < 2 {
		t.Fatalf("%q: what waits is in no two tables (%v)", tables, err)
	}
	return s, q, tables
}

// drain has the client come; the answer is how many messages have.
func (s *scene) drain(q *Queue) <-chan int {
	done := make(chan int, 1)
	go func() {
		n, err := q.Drain()
		if err != nil {
			s.t.Error(err)
		}
		done <- n
	}()
	return done
}

// storeCounts is of what ringmq store stats says.
type storeCounts struct {
	Failures, Salvages int
	LostFiles          int `json:"lost_files"`
	LostRecords        int `json:"lost_records"`
}

func (s *scene) counts() (c storeCounts) {
	s.t.Helper()
	out, err := s.Command("store", "stats", "--json")
	s.must(err)
	s.must(json.Unmarshal([]byte(out), &c))
	return c
}

// PlayUnread has a disk on which no table can be read when the client comes whose messages wait in one. They are late, the broker says why, and
// when the disk can be read again they come by themselves.
func PlayUnread(t *testing.T, operator NewOperator) {
	s, q, _ := newQueueScene(t, operator)
	f := Inject(t, s.PID(), "pread64")
	drained := s.drain(q)
	s.Await("level=ERROR", "store fails: messages that are to be kept are refused", syscall.EIO.Error())
	s.unready(syscall.EIO.Error())
	s.must(f.End()) // Six tries, which take eight seconds, would be damage.
	if n := <-drained; n != 2*queueHalf+1 {
		t.Errorf("%d messages have come, want %d", n, 2*queueHalf+1)
	}
	s.ready()
	if c := s.counts(); c.Failures == 0 || c.Salvages > 0 {
		t.Errorf("the store says %+v", c)
	}
}

// PlayBadSector has one table that can never be read again. The broker tries, salvages the store while it serves, says what was lost and where
// the rest is, and what stood in other tables arrives.
func PlayBadSector(t *testing.T, operator NewOperator) {
	s, q, tables := newQueueScene(t, operator)
	f := Inject(t, s.PID(), "pread64", tables[len(tables)-1])
	n := <-s.drain(q)
	s.Await("level=WARN", "the store was damaged", filepath.Join(s.disk.Data, "damaged-"))
	if n < queueHalf+1 || n > 2*queueHalf {
		t.Errorf("%d messages have come; half of %d was in another table", n, 2*queueHalf)
	}
	s.ready()
	if c := s.counts(); c.Salvages != 1 || c.LostFiles+c.LostRecords == 0 {
		t.Errorf("the store says %+v", c)
	}
	why, err := filepath.Glob(filepath.Join(s.disk.Data, "damaged-*", "WHY"))
	if err != nil || len(why) != 1 {
		t.Fatalf("%q is kept (%v)", why, err)
	}
	if text, err := os.ReadFile(why[0]); err != nil || !strings.Contains(string(text), syscall.EIO.Error()) {
		t.Errorf("WHY says %q (%v)", text, err)
	}
	s.must(f.End())
}

// refuses waits for the line in the log and finds the same, and why, in status and readiness.
func (s *scene) refuses(line, why string) {
	s.t.Helper()
	s.Await("level=ERROR", line, why)
	s.unready(why)
	if got, _ := s.Command("status"); !strings.Contains(got, "REFUSES") || !strings.Contains(got, why) {
		s.t.Errorf("status of a broker whose store refuses:\n%s", got)
	}
}

// unready waits until the broker says in one line that it is not ready, and why.
func (s *scene) unready(why string) {
	s.t.Helper()
	s.eventually(func() error {
		out, err := s.Command("status", "--ready")
		if err == nil || !strings.Contains(out, why) || strings.Count(out, "\n") != 1 {
			return fmt.Errorf("readiness says %v, %q; want %q", err, out, why)
		}
		return nil
	})
}

// ready waits until the broker says that it is ready.
func (s *scene) ready() {
	s.t.Helper()
	s.eventually(func() error {
		out, err := s.Command("status", "--ready")
		if err != nil {
			return fmt.Errorf("not ready: %w: %s", err, out)
		}
		return nil
	})
}

func (s *scene) eventually(f func() error) {
	s.t.Helper()
	for until := time.Now().Add(scenePatience); ; time.Sleep(10 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(until) {
			s.t.Fatal(err)
		}
	}
}

// counted waits until counters are at their values, which shards pass on now and then, and one of them says that a PUBLISH of 3.1.1 waits.
func (s *scene) counted(want map[string]uint64) {
	s.t.Helper()
	s.eventually(func() error {
		var got struct{ Counters map[string]uint64 }
		out, err := s.Command("status", "--json")
		if err == nil {
			err = json.Unmarshal([]byte(out), &got)
		}
		missing := maps.Clone(want)
		maps.DeleteFunc(missing, func(name string, n uint64) bool { return got.Counters[name] == n })
		if err != nil || len(missing) > 0 || got.Counters["store_refused"] == 0 || got.Counters["publish_stalled_store"] == 0 {
			return fmt.Errorf("counters: %v, want %v (%w)", got.Counters, want, err)
		}
		return nil
	})
}

// recovers is the end of a trouble: log and readiness say that it is over, what waited is acknowledged, and all that is promised survives a
// SIGKILL.
func (s *scene) recovers() {
	s.t.Helper()
	s.Await("store works again")
	s.ready()
	s.must(s.Acknowledged())
	s.Kill()
	s.Serve()
	s.must(s.Delivered())
}
