package crashtest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// Fault has system calls of a process fail with EIO, as those of a bad disk do, until End.
type Fault struct {
	strace *exec.Cmd
	ended  chan struct{} // closed when strace has ended, and left the process alone
}

// NeedStrace skips where there is no strace.
func NeedStrace(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed: apt-get install strace")
	}
}

// EIO is what strace is told to have calls fail.
func EIO(calls string) []string {
	return []string{"-f", "-o", "/dev/null", "-e", "trace=" + calls, "-e", "inject=" + calls + ":error=EIO"}
}

// Inject begins a Fault of a process that runs, of all files or of those that are named. All its threads have it when this returns.
func Inject(t *testing.T, pid int, calls string, paths ...string) *Fault {
	t.Helper()
	NeedStrace(t)
	arguments := append(EIO(calls), "-p", fmt.Sprint(pid))
	for _, path := range paths {
		arguments = append(arguments, "-P", path)
	}
	f := &Fault{exec.Command("strace", arguments...), make(chan struct{})}
	says, err := f.strace.StderrPipe()
	if err == nil {
		err = f.strace.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(says)
	lines.Scan()
	first := lines.Text()
	go func() {
		for lines.Scan() { // as long as it tells of threads that come
		}
		_ = f.strace.Wait() // It ends by a signal, or with the process.
		close(f.ended)
	}()
	switch {
	case strings.Contains(first, "Operation not permitted"):
		t.Skip("needs CAP_SYS_PTRACE: ", first)
	case !strings.Contains(first, "attached"):
		t.Fatalf("strace of process %d: %q", pid, first)
	}
	return f
}

// End makes the disk well again.
func (f *Fault) End() error {
	err := f.strace.Process.Signal(syscall.SIGINT)
	<-f.ended
	return err
}

// EndOf ends the Fault that a process was started with: strace -D -I 2, which has it run beside its parent.
func EndOf(pid int) error {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(text), "TracerPid:")
	tracer := 0
	if _, err := fmt.Sscan(rest, &tracer); err != nil || tracer == 0 {
		return fmt.Errorf("nobody traces process %d", pid)
	}
	return syscall.Kill(tracer, syscall.SIGTERM)
}
