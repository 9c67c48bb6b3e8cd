package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// TestPubLinesAllArrive counts what a broker receives before the end of the connection: nothing is lost on the way out.
func TestPubLinesAllArrive(t *testing.T) {
	const lines = 200_000
	for _, version := range []string{"5", "311"} {
		received := make(chan string, 1)
		port := fakeBroker(t, func(_ int, c *fakeConn) {
			c.accept(false)
			publishes, last := 0, packet.Kind(0)
			for kind, _ := c.next(); kind != 0; kind, _ = c.next() {
				if last = kind; kind == packet.PUBLISH {
					publishes++
				}
				if kind == packet.DISCONNECT {
					break
				}
			}
			received <- fmt.Sprintf("%d messages, then %v", publishes, last)
		})
		in, out, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = out.Write(bytes.Repeat([]byte("y\n"), lines))
			_ = out.Close()
		}()
		pub := startTool(t, in, nil, "pub", "-h", "127.0.0.1", "-p", port, "-t", "x", "-l", "-V", version)
		_ = in.Close()
		if _, stderr, code := pub.wait(t); code != 0 || stderr != "" {
			t.Errorf("-V %s: exit code %d: %s", version, code, stderr)
		}
		if got, want := <-received, fmt.Sprintf("%d messages, then DISCONNECT", lines); got != want {
			t.Errorf("-V %s: %s, want %s", version, got, want)
		}
	}
}

// TestPubSendsBeforeItWaits: a line is sent when the next one is not there yet, acknowledged or not.
func TestPubSendsBeforeItWaits(t *testing.T) {
	for _, flags := range []string{"-q 0", "-q 1", "-q 0 -V 311", "-q 2 -V 311", "-q 2 -M 1"} {
		got := make(chan packet.Kind, 100)
		port := fakeBroker(t, func(_ int, c *fakeConn) {
			c.accept(false)
			for kind, _ := c.next(); kind != 0; kind, _ = c.next() {
				got <- kind
			}
		})
		in, out := io.Pipe()
		pub := startTool(t, in, nil, append([]string{"pub", "-h", "127.0.0.1", "-p", port, "-t", "x", "-l", "-W", "0.1"}, strings.Fields(flags)...)...)
		fmt.Fprint(out, "first\nhalf a")
		if kind := <-got; kind != packet.PUBLISH {
			t.Errorf("%s: %v", flags, kind)
		}
		_ = out.Close()
		want := 0
		if !strings.HasPrefix(flags, "-q 0") {
			want = exitTimeout // This broker acknowledges nothing.
		}
		if _, stderr, code := pub.wait(t); code != want || want != 0 && !strings.Contains(stderr, "the first that was not is line 1") {
			t.Errorf("%s: exit code %d: %s", flags, code, stderr)
		}
	}
}

// TestPubLosesTheConnection: the line says how far it came.
func TestPubLosesTheConnection(t *testing.T) {
	many := strings.Repeat("a line of some length, so that the connection's buffers fill\n", 100_000)
	for _, c := range []struct {
		flags, stdin string
		end          []byte // what the broker says after the first PUBLISH
		code         int
		words        string
	}{
		{"-l", many, nil, exitLost, "lost lines were handed to the network"},
		{"-l -V 311", many, nil, exitLost, "lost lines were handed to the network"},
		{"-l -q 1", many, nil, exitLost, "lost 0 lines were acknowledged line 1"},
		{"-l -q 2 -V 311", many, nil, exitLost, "lost 0 lines were acknowledged line 1"},
		{"-l -q 1", many, []byte{0xE0, 2, 0x8B, 0}, 139, "Server shutting down 0x8B line 1"},
		{"-l", many, []byte{0xE0, 2, 0x97, 0}, 151, "Quota exceeded lines were handed"},
		{"-m x -q 1", "", nil, exitLost, "lost"},
		{"-m x -q 2 -V 311", "", nil, exitLost, "lost"},
		{"-m x -q 1 -n 5", "", nil, exitLost, "lost 0 messages message 1"},
		{"-m x -n 1000 --delay 0.01", "", nil, exitLost, "lost messages were handed"},
		{"-m x -e b", "", nil, exitLost, "lost"},
	} {
		port := fakeBroker(t, func(_ int, f *fakeConn) {
			f.accept(strings.Contains(c.flags, "-e"))
			f.next()
			_, _ = f.Write(c.end)
		})
		stdout, stderr, code := runTool(t, c.stdin, nil, append([]string{"pub", "-h", "127.0.0.1", "-p", port, "-t", "x"}, strings.Fields(c.flags)...)...)
		checkRefusal(t, strings.Fields(c.words), stdout, stderr, code)
		if code != c.code {
			t.Errorf("%s: exit code %d, want %d", c.flags, code, c.code)
		}
	}
}

// TestPubNoticesWhileNothingIsTyped: the broker's end is said at once, not at the next line.
func TestPubNoticesWhileNothingIsTyped(t *testing.T) {
	port := fakeBroker(t, func(_ int, c *fakeConn) { c.accept(false) })
	in, out := io.Pipe()
	pub := startTool(t, in, nil, "pub", "-h", "127.0.0.1", "-p", port, "-t", "x", "-l")
	pub.waitLine(t, "lost the connection")
	_ = out.Close()
	if _, stderr, code := pub.wait(t); code != exitLost {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

// TestPubInterrupted: also while the broker does not read.
func TestPubInterrupted(t *testing.T) {
	many := strings.Repeat("a line of some length, so that the connection's buffers fill\n", 500_000)
	for _, flags := range []string{"-V 5", "-V 311", "-V 5 -q 1 -M 65535", "-V 311 -q 1"} {
		full := make(chan struct{})
		port := fakeBroker(t, func(_ int, c *fakeConn) {
			c.accept(false)
			c.next()
			<-full
		})
		pub := startTool(t, strings.NewReader(many), nil, append([]string{"pub", "-h", "127.0.0.1", "-p", port, "-t", "x", "-l", "-d"}, strings.Fields(flags)...)...)
		pub.waitLine(t, "PUBLISH")
		if err := pub.cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		for range pub.lines {
		}
		_, stderr, code := pub.wait(t)
		if code != exitLocal || !strings.Contains(stderr, "ringmq: interrupted") {
			t.Errorf("%s: exit code %d: %s", flags, code, stderr[max(0, len(stderr)-200):])
		}
		close(full)
	}
}

// TestPubRefused: a Reason Code in an acknowledgement is the exit code.
func TestPubRefused(t *testing.T) {
	port := fakeBroker(t, func(_ int, c *fakeConn) {
		c.accept(false)
		for number := 1; ; number++ {
			kind, p := c.next()
			if kind != packet.PUBLISH {
				return
			}
			id, ack := []byte{p[len(p)-4], p[len(p)-3]}, byte(0x40) // x: topic, Packet Identifier, no properties, one byte
			if p[0]&6 == 4 {
				ack = 0x50
			}
			if number == 2 || ack == 0x50 {
				_, _ = c.Write([]byte{ack, 4, id[0], id[1], 0x97, 0})
			} else {
				_, _ = c.Write([]byte{ack, 2, id[0], id[1]})
			}
		}
	})
	for flags, want := range map[string]string{
		"-l -q 1":   "refused 1 of 3 lines, first line 2: Quota exceeded (0x97)",
		"-m x -q 2": "refused the message: Quota exceeded (0x97)",
	} {
		stdout, stderr, code := runTool(t, "x\ny\nz\n", nil, append([]string{"pub", "-h", "127.0.0.1", "-p", port, "-t", "x"}, strings.Fields(flags)...)...)
		if checkRefusal(t, []string{want}, stdout, stderr, code); code != 151 {
			t.Errorf("%s: exit code %d, want 151", flags, code)
		}
	}
}

// TestPubRequestTimesOut: nobody answers.
func TestPubRequestTimesOut(t *testing.T) {
	port := startBroker(t, "--allow-anonymous")
	stdout, stderr, code := runTool(t, "", nil, "pub", "-p", port, "-t", "rpc", "-m", "x", "-e", "answers", "-W", "0.2")
	if checkRefusal(t, []string{"no response on answers", "200ms", "-W"}, stdout, stderr, code); code != exitTimeout {
		t.Errorf("exit code %d", code)
	}
}

// TestPubLimits: what a broker does not take is said before it is sent.
func TestPubLimits(t *testing.T) {
	for flags, c := range map[string]struct {
		property []byte
		words    string
	}{
		"-m x -q 2":                     {[]byte{36, 1}, "QoS 1 at most -q 1"},
		"-m x -r":                       {[]byte{37, 0}, "Retained -r"},
		"-m x -D publish topic-alias 9": {[]byte{34, 0, 8}, "Topic Aliases 8 9"},
		"-m more_than_ten_bytes":        {[]byte{39, 0, 0, 0, 10}, "10 bytes"},
	} {
		port := fakeBroker(t, func(_ int, f *fakeConn) {
			f.next()
			_, _ = f.Write(append([]byte{0x20, byte(3 + len(c.property)), 0, 0, byte(len(c.property))}, c.property...))
			f.next()
		})
		stdout, stderr, code := plainly(t, append([]string{"pub", "-h", "127.0.0.1", "-p", port, "-t", "x"}, strings.Fields(flags)...)...)
		if checkRefusal(t, strings.Fields(c.words), stdout, stderr, code); code != exitLocal {
			t.Errorf("%s: exit code %d", flags, code)
		}
	}
}
