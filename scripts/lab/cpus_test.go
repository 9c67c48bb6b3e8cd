//go:build linux

package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCPUs: --cpus keeps every thread of the broker on those processors, under load and after the interface was made again; without it
// they may be on all. With lock_threads the queues' loops keep a thread each, otherwise none does.
func TestCPUs(t *testing.T) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		t.Fatal(err)
	}
	last := 0
	for cpu := range len(allowed) * 64 {
		if allowed.IsSet(cpu) {
			last = cpu
		}
	}
	if allowed.Count() < 2 {
		t.Skip("one processor only: every thread is on it")
	}
	for _, locked := range []bool{false, true} {
		t.Run(fmt.Sprintf("locked=%v", locked), func(t *testing.T) {
			s := newScene(t, 2)
			arguments := []string{"--cpus", fmt.Sprint(last)}
			if locked {
				arguments = append(arguments, "-c", s.config("lock_threads = true"))
			}
			b := s.serve(arguments...)
			s.startBench(s.Broker4, "-n", "20", "-q", "1", "--count", "20000").clean()
			b.checkThreads(fmt.Sprint(last))
			if err := s.Remove(); err != nil {
				t.Fatal(err)
			}
			b.await("removed")
			if err := s.Restore(); err != nil {
				t.Fatal(err)
			}
			b.await(": reopened")
			s.startBench(s.Broker4, "-n", "20", "-q", "1", "--count", "20000").clean()
			b.checkThreads(fmt.Sprint(last))
			want := 0
			if locked {
				want = 3 // two queues, and the kernel's TCP
			}
			if n := b.lockedLoops(); n != want {
				t.Errorf("%d loops keep a thread of their own, want %d", n, want)
			}
		})
	}
	t.Run("everywhere", func(t *testing.T) {
		s := newScene(t, 1)
		b := s.serve()
		mine, err := os.ReadFile("/proc/thread-self/status")
		if err != nil {
			t.Fatal(err)
		}
		b.checkThreads(allowedList(string(mine)))
	})
}

// checkThreads wants every thread of the broker on a list of processors, as the kernel writes it.
func (b *process) checkThreads(want string) {
	b.t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", b.cmd.Process.Pid))
	if err != nil || len(threads) < 3 {
		b.t.Fatalf("%d threads (%v)", len(threads), err)
	}
	for _, path := range threads {
		status, err := os.ReadFile(path)
		if err != nil {
			continue // It has ended.
		}
		if got := allowedList(string(status)); got != want {
			b.t.Errorf("a thread may run on processors %q, want %q", got, want)
		}
	}
}

// allowedList finds the list in /proc/PID/status.
func allowedList(status string) string {
	_, rest, _ := strings.Cut(status, "Cpus_allowed_list:")
	list, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(list)
}

// lockedLoops counts the loops whose goroutine is locked to its thread.
func (b *process) lockedLoops() (n int) {
	b.t.Helper()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", b.admin)
	}
	transport := &http.Transport{DialContext: dial}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: patience}
	answer, err := client.Get("http://ringmq/debug/pprof/goroutine?debug=2")
	if err != nil {
		b.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		b.t.Fatalf("the broker's goroutines: %s, %v", answer.Status, err)
	}
	loops := 0
	for _, goroutine := range strings.Split(string(text), "\n\n") {
		if !strings.Contains(goroutine, "broker.(*Loop).") {
			continue
		}
		loops++
		if head, _, _ := strings.Cut(goroutine, "\n"); strings.Contains(head, "locked to thread") {
			n++
		}
	}
	if loops == 0 {
		b.t.Errorf("no goroutine is a loop's:\n%s", text)
	}
	return n
}
