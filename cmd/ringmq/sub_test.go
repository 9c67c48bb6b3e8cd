package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// TestSubConnectsAgain: a broken connection is said in one line, and what comes after it is printed.
func TestSubConnectsAgain(t *testing.T) {
	for _, version := range []string{"5", "311"} {
		port := fakeBroker(t, func(n int, c *fakeConn) {
			if n == 1 {
				return // Not yet.
			}
			c.accept(true)
			message := []byte{0x30, 3, 0, 1, 'a', byte('0' + n)}
			if version == "5" {
				message = []byte{0x30, 5, 0, 1, 'a', 0, byte('0' + n)}
			}
			message[1] = byte(len(message) - 2)
			_, _ = c.Write(message)
			if n > 1 {
				c.next()
			}
		})
		sub := startTool(t, nil, nil, "sub", "-h", "127.0.0.1", "-p", port, "-t", "a", "-C", "2", "-V", version)
		sub.waitLine(t, "lost the connection")
		sub.waitLine(t, "connected again")
		stdout, stderr, code := sub.wait(t)
		if stdout != "0\n2\n" || code != 0 || strings.Count(stderr, "\n") != 2 {
			t.Errorf("-V %s: exit code %d, %q, %q", version, code, stdout, stderr)
		}
	}
}

// TestSubGivesUp where there is no point in connecting again.
func TestSubGivesUp(t *testing.T) {
	for _, c := range []struct {
		flags string
		last  []byte
		code  int
		words string
	}{
		{"--no-reconnect", nil, exitLost, "lost the connection"},
		{"--no-reconnect -V 311", nil, exitLost, "lost the connection"},
		{"-q 1", []byte{0xE0, 2, 0x8E, 0}, 142, "Session taken over 0x8E"},
	} {
		port := fakeBroker(t, func(_ int, f *fakeConn) {
			f.accept(true)
			_, _ = f.Write(c.last)
		})
		stdout, stderr, code := plainly(t, append([]string{"sub", "-h", "127.0.0.1", "-p", port, "-t", "a"}, strings.Fields(c.flags)...)...)
		if checkRefusal(t, strings.Fields(c.words), stdout, stderr, code); code != c.code {
			t.Errorf("%s: exit code %d, want %d", c.flags, code, c.code)
		}
	}
}

// TestSubRefused: the broker takes none, or not all, of the subscriptions.
func TestSubRefused(t *testing.T) {
	for _, version := range []packet.Version{packet.V50, packet.V311} {
		port := fakeBroker(t, func(n int, c *fakeConn) {
			c.accept(false)
			_, s := c.next()
			codes := [][]packet.Reason{{packet.NotAuthorized}, {packet.NotAuthorized, packet.NotAuthorized}, {packet.GrantedQoS0, packet.NotAuthorized}}[n]
			_, _ = c.Write(packet.AppendSuback(nil, uint16(s[2])<<8|uint16(s[3]), codes, version))
			c.next()
		})
		flag, want := "5", int(packet.NotAuthorized)
		if version == packet.V311 {
			flag, want = "311", int(packet.UnspecifiedError) // The only code of failure that there is.
		}
		base := []string{"sub", "-h", "127.0.0.1", "-p", port, "-V", flag, "-t", "a"}
		stdout, stderr, code := runTool(t, "", nil, base...)
		if checkRefusal(t, []string{"refused the subscription to a"}, stdout, stderr, code); code != want {
			t.Errorf("-V %s: exit code %d, want %d", flag, code, want)
		}
		stdout, stderr, code = runTool(t, "", nil, append(base, "-t", "b")...)
		if checkRefusal(t, []string{"refused all 2"}, stdout, stderr, code); code != want {
			t.Errorf("-V %s: exit code %d, want %d", flag, code, want)
		}
		if _, stderr, code = runTool(t, "", nil, append(base, "-t", "b", "-E")...); code != 0 || strings.Count(stderr, "refused the subscription to") != 1 {
			t.Errorf("-V %s: exit code %d: %q", flag, code, stderr)
		}
	}
}

// TestSubAcknowledgesWhatItPrints: of three messages that wait, each run takes one.
func TestSubAcknowledgesWhatItPrints(t *testing.T) {
	port := startBroker(t, "--allow-anonymous")
	for _, flags := range []string{"-q 1 -V 5 -i five1", "-q 2 -V 5 -i five2", "-q 1 -V 311 -i three1", "-q 2 -V 311 -i three2"} {
		base := append([]string{"sub", "-p", port, "-t", "kept/a", "-c"}, strings.Fields(flags)...)
		if _, stderr, code := runTool(t, "", nil, append(base, "-E")...); code != 0 {
			t.Fatal(stderr)
		}
		if _, stderr, code := runTool(t, "1\n2\n3\n", nil, "pub", "-p", port, "-t", "kept/a", "-l", "-q", "2"); code != 0 {
			t.Fatal(stderr)
		}
		for _, want := range []string{"1\n", "2\n", "3\n"} {
			if stdout, stderr, code := runTool(t, "", nil, append(base, "-C", "1", "-W", "10")...); stdout != want || code != 0 {
				t.Errorf("%s: %q, want %q, exit code %d: %s", flags, stdout, want, code, stderr)
			}
		}
		if stdout, _, code := runTool(t, "", nil, append(base, "-W", "0.2")...); stdout != "" || code != exitTimeout {
			t.Errorf("%s: %q is left, exit code %d", flags, stdout, code)
		}
	}
}

// TestSubTakesWhatComesFirst: messages of a Session of before, many and before the SUBACK.
func TestSubTakesWhatComesFirst(t *testing.T) {
	for _, version := range []packet.Version{packet.V50, packet.V311} {
		port := fakeBroker(t, func(_ int, c *fakeConn) {
			c.accept(false)
			_, s := c.next()
			for id := range uint16(100) {
				head := packet.PublishHead{Flags: packet.PublishFlags(false, 1, false), Topic: []byte("a"), PacketID: id + 1, PayloadSize: 1}
				_, _ = c.Write(packet.AppendPublish(nil, &head, []byte("x"), version))
			}
			_, _ = c.Write(packet.AppendSuback(nil, uint16(s[2])<<8|uint16(s[3]), []packet.Reason{packet.GrantedQoS1}, version))
			for kind := packet.PUBACK; kind == packet.PUBACK; kind, _ = c.next() {
			}
		})
		flag := map[packet.Version]string{packet.V50: "5", packet.V311: "311"}[version]
		stdout, stderr, code := runTool(t, "", nil, "sub", "-h", "127.0.0.1", "-p", port, "-t", "a", "-q", "1", "-V", flag, "-C", "100", "-i", "me", "-c")
		if want := strings.Repeat("x\n", 100); stdout != want || code != 0 {
			t.Errorf("-V %s: exit code %d, %q: %s", flag, code, stdout, stderr)
		}
	}
}

// TestSubEnds: an interrupt and a closed output are ends like others, with a DISCONNECT and exit code 0.
func TestSubEnds(t *testing.T) {
	for _, version := range []string{"5", "311"} {
		for _, closed := range []bool{false, true} {
			last := make(chan packet.Kind, 1)
			port := fakeBroker(t, func(_ int, c *fakeConn) {
				c.accept(true)
				if closed {
					_, _ = c.Write([]byte{0x30, 4, 0, 1, 'a', 0})
				}
				kind, _ := c.next()
				last <- kind
			})
			arguments := []string{"sub", "-h", "127.0.0.1", "-p", port, "-t", "a", "-V", version, "-d"}
			sub := prepareTool(t, nil, nil, arguments...)
			if closed {
				sub.cmd.Stdout = unreadPipe(t)
			}
			sub.start(t)
			if !closed { // A message may come to the closed output before SUBACK is told.
				sub.waitLine(t, "SUBACK")
				if err := sub.cmd.Process.Signal(os.Interrupt); err != nil {
					t.Fatal(err)
				}
			}
			if _, stderr, code := sub.wait(t); code != 0 {
				t.Errorf("-V %s: exit code %d: %s", version, code, stderr)
			}
			if kind := <-last; kind != packet.DISCONNECT {
				t.Errorf("-V %s: the last packet is %v, want DISCONNECT", version, kind)
			}
		}
	}
}

// unreadPipe is the writing end of a pipe that nobody reads.
func unreadPipe(t *testing.T) *os.File {
	t.Helper()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	t.Cleanup(func() { _ = out.Close() })
	return out
}

// TestSubRawBytes: payloads are printed as they are.
func TestSubRawBytes(t *testing.T) {
	port := startBroker(t, "--allow-anonymous")
	payload := "\xff\x00\xfe\n%p\\n"
	for _, flags := range [][]string{{}, {"-F", "%p"}} {
		sub := startTool(t, nil, nil, append([]string{"sub", "-p", port, "-t", "#", "-C", "1", "-N", "-d"}, flags...)...)
		sub.waitLine(t, "SUBACK")
		if _, stderr, code := runTool(t, payload, nil, "pub", "-p", port, "-t", "a", "-s"); code != 0 {
			t.Fatal(stderr)
		}
		if stdout, _, _ := sub.wait(t); !bytes.Equal([]byte(stdout), []byte(payload)) {
			t.Errorf("%q is printed as %q", payload, stdout)
		}
	}
}

// TestSubNotJSON: %J of what is none is said, and the rest goes on.
func TestSubNotJSON(t *testing.T) {
	port := startBroker(t, "--allow-anonymous")
	sub := startTool(t, nil, nil, "sub", "-p", port, "-t", "a", "-C", "2", "-F", "%J", "-d")
	sub.waitLine(t, "SUBACK")
	if _, stderr, code := runTool(t, "{\n7\n", nil, "pub", "-p", port, "-t", "a", "-l"); code != 0 {
		t.Fatal(stderr)
	}
	stdout, stderr, code := sub.wait(t)
	if code != 0 || !strings.Contains(stderr, "not JSON") || !strings.HasSuffix(stdout, `"payload":7}`+"\n") {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
}
