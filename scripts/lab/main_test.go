//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// These tests run the real binary in real network namespaces. Each says at its head what is done and what must be seen.
// Nothing but the broker's own program, interfaces and counters is looked at: what a user could look at, too.
//
// They skip, saying why, where there can be no lab. Where there can be one and something of XDP is missing, they fail.
// RINGMQ_LONG=1 in the environment adds what takes minutes, and what depends on how fast the machine is.

// program is the ringmq binary under test, and suites are the tests of package clients; TestMain builds them.
var program, suites string

// long says that the tests may take minutes and judge times.
func long() bool { return os.Getenv("RINGMQ_LONG") != "" }

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	if why := Missing(); why != "" {
		return m.Run() // Every test skips.
	}
	folder, err := os.MkdirTemp("", "ringmq-lab")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	program, suites = filepath.Join(folder, "ringmq"), filepath.Join(folder, "clients.test")
	// Without -race, which takes time and memory that the tests measure: TestMain of package clients has it.
	if out, err := exec.Command("go", "build", "-o", program, "../../cmd/ringmq").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build ringmq: %v\n%s", err, out)
		return 1
	}
	if out, err := exec.Command("go", "test", "-c", "-o", suites, "../clients").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the clients' tests: %v\n%s", err, out)
		return 1
	}
	code := m.Run()
	if err := leftBehind(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// leftBehind names the namespaces, processes and goroutines that the tests have left. Programs and maps are looked for
// when each broker ends.
func leftBehind() error {
	namespaces, err := filepath.Glob(fmt.Sprintf("/run/netns/rmq?-%d.*", os.Getpid()))
	if err != nil || len(namespaces) > 0 {
		return fmt.Errorf("the tests have left the namespaces %q behind (%v)", namespaces, err)
	}
	executables, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return err
	}
	for _, link := range executables {
		if target, err := os.Readlink(link); err == nil && strings.TrimSuffix(target, " (deleted)") == program {
			return fmt.Errorf("the tests have left a process behind: %s", link)
		}
	}
	return goleak.Find()
}
