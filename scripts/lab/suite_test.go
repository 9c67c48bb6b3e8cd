//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// suiteMax bounds one run of the clients' tests, which take a minute.
const suiteMax = 5 * time.Minute

// smoke are tests of package scripts/clients that touch all of a connection's life in a few seconds.
const smoke = "^(TestPahoQoS|TestExchanges|TestShared|TestRetained|TestWill|TestTakeover|TestKeepAlive|TestTermination|TestMosquittoQoS)$"

// TestRealClients runs the tests of real MQTT clients (package scripts/clients) with every broker of theirs in XDP mode and every
// client in another namespace: all of them over one queue and IPv4; a few over four queues, IPv6, generic mode. The long
// run has all of them everywhere.
func TestRealClients(t *testing.T) {
	for _, row := range []struct {
		mode     string
		queues   int
		family   string
		selected string
	}{
		{"native", 1, "4", "."},
		{"native", 4, "4", smoke},
		{"native", 1, "6", smoke},
		{"native", 4, "6", smoke},
		{"generic", 1, "4", smoke},
		{"generic", 4, "6", smoke},
	} {
		t.Run(fmt.Sprintf("%s,queues=%d,IPv%s", row.mode, row.queues, row.family), func(t *testing.T) {
			if testing.Short() {
				t.Skip(onceOnly)
			}
			if why := Missing(); why != "" {
				t.Skip(why)
			}
			t.Parallel() // They wait more than they work.
			l, err := New()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			})
			if long() {
				row.selected = "."
			}
			suite := l.InClient(suites, "-test.v", "-test.run", row.selected)
			suite.Dir = "../clients"
			suite.Env = append(os.Environ(), "RINGMQ_PROGRAM="+program, fmt.Sprintf("RINGMQ_LAB=%s %s %s %d %s", l.Broker, l.Client, row.mode, row.queues, row.family))
			checkSuite(t, suite)
		})
	}
}

// failures are a test's name and what it has said before its broker's log.
var failures = regexp.MustCompile(`(?m)^ *--- FAIL: .*(\n +\w+_test\.go:.*){0,3}`)

// checkSuite runs tests and shows what has failed. A run without a test is a failure.
func checkSuite(t *testing.T, suite *exec.Cmd) {
	t.Helper()
	suite.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	timer := time.AfterFunc(suiteMax, func() { _ = syscall.Kill(-suite.Process.Pid, syscall.SIGTERM) })
	defer timer.Stop()
	out, err := suite.CombinedOutput()
	text := string(out)
	passed, failed := strings.Count(text, "--- PASS"), strings.Count(text, "--- FAIL")
	t.Logf("%d tests have passed, %d failed", passed, failed)
	if err != nil || passed == 0 || failed > 0 {
		t.Errorf("%v: %v\n%s\nIts end:\n%s", suite.Args, err, strings.Join(failures.FindAllString(text, -1), "\n"), text[max(0, len(text)-8000):])
	}
}
