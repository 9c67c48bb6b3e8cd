//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker"
)

// connectRaw is a client that connects by 3.1.1 and then says nothing.
func connectRaw(t *testing.T, address, clientID string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	connect := append([]byte{0x10, byte(12 + len(clientID)), 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 90, 0, byte(len(clientID))}, clientID...)
	if _, err := c.Write(connect); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestStatus(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "admin.sock")
	p := startProgram(t, buildProgram(t), "serve", "-p", unusedPort(t), "--shards", "2", "--admin", socket)
	const clients = 1100 // more than one batch of the list
	remotes := map[string]string{}
	for i := range clients {
		id := fmt.Sprintf("client-%d", i)
		remotes[id] = connectRaw(t, p.address, id).LocalAddr().String()
	}
	stdout, stderr, code := ringmq(t, "status", "--admin", socket, "--json")
	var s status
	if err := json.Unmarshal([]byte(stdout), &s); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v, %s", code, err, stderr)
	}
	if s.PID != p.cmd.Process.Pid || s.Connections != clients || s.Shards != 2 || s.Listening[0] != p.address || s.Mode != "standard" {
		t.Errorf("%+v", s)
	}
	stdout, _, code = ringmq(t, "status", "--admin", socket, "-c", "--json")
	lines := json.NewDecoder(strings.NewReader(stdout))
	for lines.More() {
		var c broker.ConnectionInfo
		if err := lines.Decode(&c); err != nil {
			t.Fatal(err)
		}
		if remotes[c.ClientID] != c.Remote.String() || c.Version != 4 || c.KeepAliveSeconds != 90 || c.Local.String() != p.address {
			t.Errorf("%+v; want remote %s", c, remotes[c.ClientID])
		}
		delete(remotes, c.ClientID)
	}
	if code != 0 || len(remotes) != 0 {
		t.Errorf("exit code %d, %d connections are missing", code, len(remotes))
	}
	before := s.Collections
	stdout, stderr, code = ringmq(t, "status", "--admin", socket, "--collect", "--json")
	if err := json.Unmarshal([]byte(stdout), &s); err != nil || code != 0 || s.Collections <= before || s.Goroutines < 2 {
		t.Errorf("status --collect: exit code %d, %v, %s: %d collections, before %d; %d goroutines", code, err, stderr, s.Collections, before, s.Goroutines)
	}
	used := s.InUse
	for deadline := time.Now().Add(10 * time.Second); used.Sessions != clients && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		used = p.usage(t, socket)
	}
	if used.Sessions != clients || used.Connections != clients || used.Pages == 0 || used.Deliveries != 0 {
		t.Errorf("in use with %d clients: %+v", clients, used)
	}
	for arguments, lines := range map[string]int{"--limit 3": 4, "--client client-7": 2, "--client nobody": 1, "-c": 1 + clients} {
		stdout, stderr, code := ringmq(t, append([]string{"status", "--admin", socket}, strings.Fields(arguments)...)...)
		if code != 0 || stderr != "" || strings.Count(stdout, "\n") != lines {
			t.Errorf("%s: exit code %d, %q, %d lines instead of %d", arguments, code, stderr, strings.Count(stdout, "\n"), lines)
		}
	}
	stdout, _, _ = ringmq(t, "status", "--admin", socket)
	for _, words := range []string{"mode standard", "1,100", "planned"} {
		if !strings.Contains(stdout, words) {
			t.Errorf("no %q in\n%s", words, stdout)
		}
	}
}

// TestDescriptorsLeft: clients that take all descriptors they can get leave some to the store and to who asks what is the matter.
func TestDescriptorsLeft(t *testing.T) {
	const limit, quarter = 300, 75
	socket, port := filepath.Join(t.TempDir(), "admin.sock"), unusedPort(t)
	p := startProgram(t, "sh", "-c", fmt.Sprintf("ulimit -n %d && exec %s serve -p %s --shards 2 --admin %s --data %s", limit, buildProgram(t), port, socket, t.TempDir()))
	for range limit {
		c, err := net.Dial("tcp", p.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	p.waitLine(t, "cannot accept connections", "too many open files")
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if left := limit - len(open); err != nil || left < quarter {
		t.Errorf("%d descriptors are left, want %d at least (%v)", left, quarter, err)
	}
	if _, stderr, code := ringmq(t, "status", "--admin", socket); code != 0 {
		t.Errorf("status: exit code %d: %s", code, stderr)
	}
}

// TestWhyLost: the log says what the kernel says of a connection that breaks.
func TestWhyLost(t *testing.T) {
	p := startProgram(t, buildProgram(t), "serve", "-p", unusedPort(t), "--admin", adminOff)
	c := connectRaw(t, p.address, "d7")
	if err := errors.Join(c.(*net.TCPConn).SetLinger(0), c.Close()); err != nil {
		t.Fatal(err)
	}
	p.waitLine(t, "client disconnected", "client=d7", "connection lost: connection reset by peer")
}

// TestAdminSocket: a place that was asked for must work; the broker takes its socket away when it stops.
func TestAdminSocket(t *testing.T) {
	program, socket := buildProgram(t), filepath.Join(t.TempDir(), "admin.sock")
	p := startProgram(t, program, "serve", "-p", unusedPort(t), "--admin", socket)
	checkProfile(t, socket)
	stdout, stderr, code := ringmq(t, "serve", "-p", unusedPort(t), "--admin", socket)
	checkRefusal(t, []string{"another broker", socket}, stdout, stderr, code)
	stdout, stderr, code = ringmq(t, "serve", "-p", unusedPort(t), "--admin", "/proc/none/a.sock")
	checkRefusal(t, []string{"admin socket", "--admin"}, stdout, stderr, code)
	_ = p.cmd.Process.Signal(os.Interrupt)
	_ = p.cmd.Wait()
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Error("the socket is left")
	}
	stdout, stderr, code = ringmq(t, "status", "--admin", socket)
	checkRefusal(t, []string{"no broker answers", socket}, stdout, stderr, code)
	// A crashed broker's socket is in nobody's way.
	p = startProgram(t, program, "serve", "-p", unusedPort(t), "--admin", socket)
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	startProgram(t, program, "serve", "-p", unusedPort(t), "--admin", socket)
	if _, stderr, code := ringmq(t, "status", "--admin", socket); code != 0 {
		t.Error(stderr)
	}
	startProgram(t, program, "serve", "-p", unusedPort(t), "--admin", adminOff)
}

// usage is what the broker says that it has in use, as of its last second.
func (p *running) usage(t *testing.T, socket string) broker.Usage {
	t.Helper()
	stdout, stderr, code := ringmq(t, "status", "--admin", socket, "--json")
	var s status
	if err := json.Unmarshal([]byte(stdout), &s); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v, %s", code, err, stderr)
	}
	return s.InUse
}

// checkProfile has the broker profile itself: what comes is pprof's format, which is compressed by gzip.
func checkProfile(t *testing.T, socket string) {
	t.Helper()
	dial := func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) }
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true}}
	for _, resource := range []string{"profile?seconds=1", "heap"} {
		answer, err := client.Get("http://broker/debug/pprof/" + resource)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK || !bytes.HasPrefix(b, []byte{0x1f, 0x8b}) {
			t.Errorf("%s: %s, %v, %.40q", resource, answer.Status, err, b)
		}
	}
}

// TestFullOutput: who keeps what a command says on a full disk hears that it is not there.
func TestFullOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	socket := filepath.Join(t.TempDir(), "admin.sock")
	startProgram(t, buildProgram(t), "serve", "-p", unusedPort(t), "--admin", socket)
	for _, command := range [][]string{{"status"}, {"status", "-c"}, {"status", "--json"}, {"status", "--ready"}, {"xdp", "status"}} {
		p := prepareTool(t, nil, nil, append(command, "--admin", socket)...)
		p.cmd.Stdout = full
		p.start(t)
		if _, stderr, code := p.wait(t); code != 1 || !strings.Contains(stderr, "space") {
			t.Errorf("%q: exit code %d, %q", command, code, stderr)
		}
	}
}
