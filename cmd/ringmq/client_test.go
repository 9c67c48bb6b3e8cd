package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
)

// testPatience bounds what a test waits for; only a failing test waits that long.
const testPatience = 20 * time.Second

// startBroker starts ringmq serve on a port of loopback, which it returns.
func startBroker(t *testing.T, arguments ...string) (port string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"serve", "--listen", "127.0.0.1:0", "--memory", "256MiB", "--shards", "1"}, arguments...)...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=0")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for lines.Scan() {
		if _, address, found := strings.Cut(lines.Text(), "msg=listening address="); found {
			go func() { _, _ = io.Copy(io.Discard, stderr) }() // ends with the process
			_, port, _ = net.SplitHostPort(address)
			return port
		}
	}
	t.Fatal("the broker did not start")
	return ""
}

// tool is ringmq pub or ringmq sub while it runs.
type tool struct {
	cmd    *exec.Cmd
	stdout bytes.Buffer
	stderr bytes.Buffer // complete after wait
	lines  chan string  // of standard error, as they come
	read   chan struct{}
	cancel context.CancelFunc
}

// startTool starts the program with a standard input and variables of its own.
func startTool(t *testing.T, stdin io.Reader, variables []string, arguments ...string) *tool {
	t.Helper()
	p := prepareTool(t, stdin, variables, arguments...)
	p.start(t)
	return p
}

func prepareTool(t *testing.T, stdin io.Reader, variables []string, arguments ...string) *tool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	p := &tool{cmd: exec.CommandContext(ctx, os.Args[0], arguments...), lines: make(chan string, 1024), read: make(chan struct{}), cancel: cancel}
	p.cmd.Env = append(append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=0"), variables...) // Not a second at each exit.
	p.cmd.Stdin, p.cmd.Stdout = stdin, &p.stdout
	return p
}

func (p *tool) start(t *testing.T) {
	t.Helper()
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.read)
		defer close(p.lines)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintln(&p.stderr, lines.Text())
			p.lines <- lines.Text()
		}
	}()
}

// wait returns what the program has said, and its exit code.
func (p *tool) wait(t *testing.T) (stdout, stderr string, code int) {
	t.Helper()
	<-p.read
	err := p.cmd.Wait()
	p.cancel()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Error(err)
	}
	return p.stdout.String(), p.stderr.String(), p.cmd.ProcessState.ExitCode()
}

// waitLine waits for a line on standard error that has text in it.
func (p *tool) waitLine(t *testing.T, text string) {
	t.Helper()
	for line := range p.lines {
		if strings.Contains(line, text) {
			return
		}
	}
	t.Fatalf("%q ends before it says %q: %s", p.cmd.Args[1:], text, p.stderr.String())
}

// runTool runs the program to its end.
func runTool(t *testing.T, stdin string, variables []string, arguments ...string) (stdout, stderr string, code int) {
	t.Helper()
	return startTool(t, strings.NewReader(stdin), variables, arguments...).wait(t)
}

// fakeBroker serves each connection, numbered from 0, with a script of the test's.
func fakeBroker(t *testing.T, serve func(n int, c *fakeConn)) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(testPatience))
			serve(n, &fakeConn{c, bufio.NewReader(c)})
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// fakeConn is the broker's end of a connection.
type fakeConn struct {
	net.Conn
	in *bufio.Reader
}

// next reads one packet, whole. At the end of the connection there is none.
func (c *fakeConn) next() (kind packet.Kind, whole []byte) {
	for size := 2; ; size++ {
		head, err := c.in.Peek(size)
		if err != nil {
			return 0, nil
		}
		if h, reason := packet.ParseHeader(head); reason == packet.Success && h.Size > 0 {
			whole = make([]byte, h.Size+h.Remaining)
			_, _ = io.ReadFull(c.in, whole)
			return packet.Kind(whole[0] >> 4), whole
		}
	}
}

// accept answers CONNECT and, when there is one, SUBSCRIBE of one filter with QoS 0.
func (c *fakeConn) accept(subscribe bool) {
	_, connect := c.next()
	if connect == nil {
		return
	}
	version := packet.Version(connect[bytes.Index(connect, []byte("MQTT"))+4])
	if version == packet.V50 {
		_, _ = c.Write([]byte{0x20, 3, 0, 0, 0})
	} else {
		_, _ = c.Write([]byte{0x20, 2, 0, 0})
	}
	if !subscribe {
		return
	}
	if _, s := c.next(); s != nil {
		_, _ = c.Write(packet.AppendSuback(nil, uint16(s[2])<<8|uint16(s[3]), []packet.Reason{packet.GrantedQoS0}, version))
	}
}
