//go:build linux

package main

import (
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/broker/conform"
	"github.com/ringmq/ringmq/broker/packet"
)

// quickStatements need no waiting, and everything else: deliveries, closed connections, Retained Messages, Sessions.
var quickStatements = [...]string{"3.1.0-2", "[MQTT-3.12.4-1]", "mqtt-3.3.1-4", "3.8.4-2"}

func conformArguments(address string, more ...string) []string {
	arguments := append([]string{"conform", "--quiet", "20ms", "--timeout", "2s", "--parallel", "4", "--limit", "9s", "--revival", "100ms"}, more...)
	for _, id := range quickStatements {
		arguments = append(arguments, "--statement", id)
	}
	return append(arguments, address)
}

// TestConformHolds plays some conversations against the real program, for people and for programs.
func TestConformHolds(t *testing.T) {
	broker := startProgram(t, buildProgram(t), "serve", "--mode", "standard", "--listen", "127.0.0.1:0", "--allow-anonymous", "--admin", "none")
	stdout, stderr, code := ringmq(t, conformArguments(broker.address, "-u", "somebody", "-P", "secret")...)
	for _, want := range []string{"MQTT 3.1.1", "MQTT 5.0", "holds     MQTT-3.1.0-2", "0 fail"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	if code != 0 || stderr != "" {
		t.Errorf("exit code %d, %q\n%s", code, stderr, stdout)
	}
	stdout, _, code = ringmq(t, conformArguments(broker.address, "--json", "-V", "5.0")...)
	var report struct {
		Address string
		conform.Report
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v: %s", code, err, stdout)
	}
	if report.Address != broker.address || len(report.Versions) != 1 || report.Versions[0].Holds != len(quickStatements) {
		t.Errorf("%s", stdout)
	}
	if stdout, _, _ = ringmq(t, conformArguments(broker.address, "-f")...); strings.Contains(stdout, "holds") {
		t.Errorf("--failures prints\n%s", stdout)
	}
}

// TestConformHoldsInStandardMode plays everything against the real program, and wants every statement that a conversation proves.
func TestConformHoldsInStandardMode(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a quarter of a minute, nearly all of it waiting")
	}
	statements, err := conform.Statements()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{}
	for _, s := range statements {
		if s.HasConversation() {
			want[s.Version.String()]++
		}
	}
	program := buildProgram(t)
	broker := startProgram(t, program, "serve", "--mode", "standard", "--listen", "127.0.0.1:0", "--allow-anonymous", "--admin", "none")
	stdout, stderr, code := within(t, 3*time.Minute, program, []string{"conform", "--json", "--timeout", "20s", "--parallel", "16", "--limit", "2m", broker.address})
	var report conform.Report
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != 0 || len(report.Versions) != 2 {
		t.Errorf("exit code %d, %v, %q", code, err, stderr)
	}
	for _, v := range report.Versions {
		t.Logf("MQTT %s: %d statements hold", v.Version, v.Holds)
		if v.Holds != want[v.Version] {
			t.Errorf("MQTT %s: %d statements hold of %d", v.Version, v.Holds, want[v.Version])
		}
		for _, s := range v.Statements {
			if s.Outcome != conform.Holds {
				t.Errorf("MQTT %s: %s %s: %+v", v.Version, s.ID, s.Outcome, s)
			}
		}
	}
}

// brokenServer listens and gives each connection to serve, until the test ends.
func brokenServer(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}

// TestConformAgainstBrokenBrokers: whatever a server does, the command ends in time, says what fails, and exits with 4.
func TestConformAgainstBrokenBrokers(t *testing.T) {
	connack := packet.AppendConnack(nil, &packet.Connack{}, packet.V50)
	for _, c := range []struct {
		name, want string
		serve      func(net.Conn)
	}{
		{"closes at once", "the broker has closed the connection", func(net.Conn) {}},
		{"hangs", "no CONNACK: nothing", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }},
		{"talks nonsense", "what is no packet", func(c net.Conn) { _, _ = c.Write([]byte{0, 1, 2, 3}); _, _ = io.Copy(io.Discard, c) }},
		{"talks HTTP", "the beginning of a packet", func(c net.Conn) {
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n"))
			_, _ = io.Copy(io.Discard, c)
		}},
		{"announces the largest packet", "announces", func(c net.Conn) { _, _ = c.Write([]byte{0x30, 0xFF, 0xFF, 0xFF, 0x7F}); _, _ = io.Copy(io.Discard, c) }},
		{"does not stop talking", "before CONNACK", func(c net.Conn) {
			for {
				if _, err := c.Write([]byte(strings.Repeat("\xD0\x00", 4096))); err != nil {
					return
				}
			}
		}},
		{"cuts its answer short", "the middle of a packet", func(c net.Conn) { _, _ = c.Read(make([]byte, 512)); _, _ = c.Write(connack[:3]) }},
		{"knows CONNACK only", "PINGRESP", func(c net.Conn) {
			_, _ = c.Read(make([]byte, 512))
			_, _ = c.Write(connack)
			_, _ = io.Copy(io.Discard, c)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			address := brokenServer(t, c.serve)
			stdout, stderr, code := ringmq(t, conformArguments(address, "-v", "-V", "5.0", "--timeout", "200ms")...)
			if code != conformFails || stderr != "" || !strings.Contains(stdout, c.want) {
				t.Errorf("exit code %d, %q, no %q in\n%s", code, stderr, c.want, stdout)
			}
		})
	}
}

// TestConformRefused: what cannot be run gets one line, and exit code 1.
func TestConformRefused(t *testing.T) {
	nobody := "127.0.0.1:" + unusedPort(t)
	hangs := brokenServer(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	for _, c := range []struct{ arguments, want string }{
		{"conform", "HOST:PORT"},
		{"conform a b", "HOST:PORT"},
		{"conform " + nobody, "refused"},
		{"conform --version 3 " + nobody, "3.1.1 or 5.0"},
		{"conform --statement 9.9.9-9 " + nobody, "there is no statement"},
		{"conform --statement 3.1.2-20 -V 5.0 " + nobody, "a client's duty"},
		{"conform --statement 4.12.0-2 " + nobody, "configuration"},
		{"conform --timeout 0s " + nobody, "above 0"},
		{"conform --limit 300ms --timeout 5s " + hangs, "--limit"},
	} {
		stdout, stderr, code := ringmq(t, strings.Fields(c.arguments)...)
		if code != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: exit code %d, %q %q", c.arguments, code, stdout, stderr)
		}
	}
}

// TestConformNamesTheDead: a broker that goes for good while conversations play is told from one that fails them.
func TestConformNamesTheDead(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range 3 {
			if c, err := l.Accept(); err == nil {
				_ = c.Close()
			}
		}
		_ = l.Close()
	}()
	stdout, stderr, code := ringmq(t, conformArguments(l.Addr().String())...)
	if code != conformFails || !strings.Contains(stdout, "unplayed") || !strings.Contains(stdout, "did not come back") {
		t.Errorf("exit code %d, %q\n%s", code, stderr, stdout)
	}
}

// TestConformUnknownUser: a broker that lets anybody in, but not under a name that it does not know, fails nothing by that.
func TestConformUnknownUser(t *testing.T) {
	users := inFile(t, "")
	if _, stderr, code := ringmq(t, "passwd", "-b", users, "alice", "secret"); code != 0 {
		t.Fatal(stderr)
	}
	broker := startProgram(t, buildProgram(t), "serve", "-p", unusedPort(t), "--passwords", users)
	for user, want := range map[string]string{"": "skipped", "alice": "holds"} {
		stdout, stderr, code := ringmq(t, "conform", "-u", user, "-P", map[bool]string{true: "secret"}[user != ""], "--statement", "3.1.3-1", broker.address)
		if code != 0 || strings.Count(stdout, "  "+want+" ") != 2 {
			t.Errorf("%q: exit code %d, %q, not %s in\n%s", user, code, stderr, want, stdout)
		}
	}
}
