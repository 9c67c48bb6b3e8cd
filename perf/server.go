package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/ringmq/ringmq/perf/load"
)

const (
	startTimeout = 15 * time.Second
	stopTimeout  = 5 * time.Second
	startPoll    = 20 * time.Millisecond
)

// server is a broker that this program has started and alone ends.
type server struct {
	command *exec.Cmd
	output  bytes.Buffer // written by exec until ended is closed
	ended   chan struct{}
	reason  error // why it ended; read after ended is closed
}

// startServer starts argv on processor cpu (negative: any) and waits until address answers.
func startServer(ctx context.Context, argv []string, cpu int, address netip.AddrPort) (*server, error) {
	s := &server{command: exec.Command(argv[0], argv[1:]...), ended: make(chan struct{})}
	s.command.Stdout, s.command.Stderr = &s.output, &s.output
	if err := startPinned(s.command, cpu); err != nil {
		return nil, err
	}
	go func() {
		s.reason = s.command.Wait()
		close(s.ended)
	}()
	deadline := time.Now().Add(startTimeout)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		probe, err := net.DialTimeout("tcp", address.String(), startPoll)
		if err == nil {
			_ = probe.Close()
			return s, nil
		}
		select {
		case <-s.ended:
			return nil, fmt.Errorf("%s ended at start: %v: %s", argv[0], s.reason, lastLine(s.output.Bytes()))
		case <-time.After(startPoll):
		}
	}
	s.stop()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, fmt.Errorf("%s does not answer on %v after %v: %s", argv[0], address, startTimeout, lastLine(s.output.Bytes()))
}

// lastWordsMax is how much of what a server said is shown, in bytes.
const lastWordsMax = 8 << 10

// lastWords is the end of an output, or what begins with a panic.
func lastWords(output []byte) []byte {
	for _, word := range []string{"panic: ", "fatal error: "} {
		if at := bytes.Index(output, []byte(word)); at == 0 || at > 0 && output[at-1] == '\n' {
			return output[at:min(len(output), at+lastWordsMax)]
		}
	}
	return output[max(0, len(output)-lastWordsMax):]
}

// startPinned starts the command from a thread on that processor, which the child inherits before it has
// threads of its own.
func startPinned(command *exec.Cmd, cpu int) error {
	if cpu < 0 {
		return command.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	restore, err := load.Pin(cpu)
	if err != nil {
		return err
	}
	defer restore()
	return command.Start()
}

// stop asks, then kills, and waits for the end. A server that has ended already had no reason to: what it said is shown.
func (s *server) stop() {
	select {
	case <-s.ended:
		fmt.Fprintf(os.Stderr, "%s ended while it was measured: %v\n%s\n", s.command.Args[0], s.reason, lastWords(s.output.Bytes()))
		return
	default:
	}
	_ = s.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(stopTimeout):
		_ = s.command.Process.Kill()
		<-s.ended
	}
}
