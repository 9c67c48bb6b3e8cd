package clients

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// patience is how long anything may take that has no time of its own, under -race on a busy machine.
	patience = 20 * time.Second
	// quiet is how long nothing must come where nothing is due.
	quiet = 300 * time.Millisecond
)

// broker is a running ringmq.
type broker struct {
	process *exec.Cmd
	address string
	host    string
	port    string
	place   *place        // where it runs in XDP mode; nil: on loopback
	lines   chan string   // its log, until nobody reads it any more
	exited  chan struct{} // closed when it has ended; err is valid then
	err     error

	mu  sync.Mutex
	log strings.Builder
}

var (
	listening = regexp.MustCompile(`msg=listening address=(\S+)`)
	steering  = regexp.MustCompile(`msg=steering interface=`) // the last thing that a broker in XDP mode says at start
)

// start runs ringmq serve and waits for the line that says where it listens.
func start(arguments ...string) (*broker, error) {
	b := &broker{process: exec.Command(program, append([]string{"serve", "-v"}, arguments...)...),
		lines: make(chan string, 1<<16), exited: make(chan struct{})}
	ready := listening
	if shared.bench != nil {
		p, err := shared.bench.newPlace(arguments)
		if err != nil {
			return nil, err
		}
		b.place, b.process, ready = p, p.command(arguments), steering
	}
	output, err := b.process.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := b.process.Start(); err != nil {
		return nil, err
	}
	go b.follow(output)
	for deadline := time.After(patience); ; {
		select {
		case line := <-b.lines:
			if found := listening.FindStringSubmatch(line); found != nil {
				b.address = found[1]
				b.host, b.port, err = net.SplitHostPort(b.address)
			}
			if ready.MatchString(line) || err != nil {
				return b, err
			}
		case <-b.exited:
			return nil, fmt.Errorf("ringmq %q ended: %v\n%s", arguments, b.err, b.text())
		case <-deadline:
			b.process.Process.Kill()
			return nil, fmt.Errorf("ringmq %q does not listen\n%s", arguments, b.text())
		}
	}
}

// follow keeps the log and waits for the end of the process.
func (b *broker) follow(output io.Reader) {
	for in := bufio.NewScanner(output); in.Scan(); {
		b.mu.Lock()
		fmt.Fprintln(&b.log, in.Text())
		b.mu.Unlock()
		select {
		case b.lines <- in.Text():
		default:
		}
	}
	b.err = b.process.Wait()
	if b.place != nil {
		if err := b.place.Remove(); err != nil && b.err == nil {
			b.err = err
		}
	}
	close(b.exited)
}

// clientHost is how this process's address begins in the broker's log.
func (b *broker) clientHost() string {
	if b.place == nil {
		return "127.0.0.1:"
	}
	_, client := b.place.hosts()
	return client + ":"
}

func (b *broker) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.String()
}

// stop ends the broker with TERM, unless it has ended already.
func (b *broker) stop() error {
	if err := b.process.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return b.ended()
}

// ended waits for the end of the broker, with exit code 0 and without a race or a panic in its log.
func (b *broker) ended() error {
	select {
	case <-b.exited:
	case <-time.After(patience):
		b.process.Process.Kill()
		return fmt.Errorf("does not stop on TERM\n%s", b.text())
	}
	if b.err != nil || strings.Contains(b.text(), "DATA RACE") || strings.Contains(b.text(), "panic:") {
		return fmt.Errorf("ended with %v\n%s", b.err, b.text())
	}
	return nil
}

// startFor runs a broker of the test's own, on a free port of loopback, until the test ends.
func startFor(t *testing.T, arguments ...string) *broker {
	t.Helper()
	b, err := start(append([]string{"--listen", "127.0.0.1:0"}, arguments...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.stop(); err != nil {
			t.Errorf("the broker: %v", err)
		}
	})
	return b
}

// await waits for a log line that contains all of the words.
func (b *broker) await(t *testing.T, words ...string) string {
	t.Helper()
	for deadline := time.After(patience); ; {
		select {
		case line := <-b.lines:
			if containsAll(line, words) {
				return line
			}
		case <-deadline:
			t.Fatalf("no log line with %q in\n%s", words, b.text())
		}
	}
}

func containsAll(line string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(line, w) {
			return false
		}
	}
	return true
}

// passwords writes a password file with ringmq passwd: user, password, user, password, ….
func passwords(t *testing.T, users ...string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "passwords")
	for i := 0; i < len(users); i += 2 {
		setPassword(t, path, users[i], users[i+1], i == 0)
	}
	return path
}

func setPassword(t *testing.T, path, user, password string, create bool) {
	t.Helper()
	arguments := []string{"passwd", "-b", path, user, password}
	if create {
		arguments = []string{"passwd", "-c", "-b", path, user, password}
	}
	if out, err := exec.Command(program, arguments...).CombinedOutput(); err != nil {
		t.Fatalf("ringmq %q: %v: %s", arguments, err, out)
	}
}

// pass waits for time itself to pass: where an interval of the protocol must be over.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}
