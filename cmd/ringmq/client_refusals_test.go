package main

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/broker/packet"
)

// TestClientBadFlags: one line that says what to change, and exit code 1, before there is a connection.
func TestClientBadFlags(t *testing.T) {
	missing, folder := filepath.Join(t.TempDir(), "missing"), t.TempDir()
	for _, c := range []struct{ line, words string }{
		{"pub", "-m -f -s -l -n"},
		{"pub -t a", "-m -f -s -l -n"},
		{"pub -m x", "-t"},
		{"pub -t a -m x -f y", "-m -f leave"},
		{"pub -t a -m x -l", "-m -l leave"},
		{"pub -t a -n -l", "-n -l leave"},
		{"pub -t a -l -n 3", "-n -l leave"},
		{"pub -t a -t b -m x", "-t one"},
		{"pub -t a -L mqtt://localhost/b -m x", "-t -L one"},
		{"pub -t a/# -m x", "a/# subscriptions"},
		{"pub -t + -m x", "+ subscriptions"},
		{"pub -t= -m x", "-t empty"},
		{"pub -t \xff -m x", "-t UTF-8"},
		{"pub -t a -f " + missing, "-f " + missing},
		{"pub -t a -f " + folder, folder + " directory"},
		{"pub -t a -m x -q 3", "-q 3 0, 1 or 2"},
		{"pub -t a -m x -q two", "-q two number"},
		{"pub -t a -m x -n 0", "-n 0"},
		{"pub -t a -m x -M 0", "-M 0"},
		{"pub -t a -m x -W 0", "-W 0"},
		{"pub -t a -m x -W soon", "-W soon seconds"},
		{"pub -t a -m x --delay 1", "--delay -n"},
		{"pub -t a -m x -F %p", "--format -e"},
		{"pub -t a -m x -v", "--verbose -e"},
		{"pub -t a -m x -e b/#", "-e b/#"},
		{"pub -t a -l -e b", "-e -l"},
		{"pub -t a -m x -e b -n 2", "-e -n"},
		{"pub -t a -m x -e b -D publish response-topic c", "-e -D"},
		{"pub -t a -m x -e b -F %", "-F %%"},
		{"pub -t a -m x -V 311 -D publish user-property a b", "-D -V 5"},
		{"pub -t a -m x -V 311 -e b", "-e -V 5"},
		{"pub -t a -m x -V 311 -x 5", "-x -V 5"},
		{"pub -t a -m x -V 31", "3.1 -V 5 -V 311"},
		{"pub -t a -m x -V 4", "-V 4"},
		{"pub -t a -m x -V 311 -P secret", "-P -u"},
		{"pub -t a -m x -P secret --password-file " + missing, "-P --password-file"},
		{"pub -t a -m x --password-file " + missing, "--password-file " + missing},
		{"pub -t a -m x -D", "-D value"},
		{"pub -t a -m x -D publish", "-D COMMAND PROPERTY VALUE"},
		{"pub -t a -m x -D publish content-type", "content-type value"},
		{"pub -t a -m x -D publish user-property k", "user-property name"},
		{"pub -t a -m x -D publish colour red", "colour content-type"},
		{"pub -t a -m x -D publich content-type red", "publich publish"},
		{"pub -t a -m x -D publish message-expiry-interval soon", "message-expiry-interval soon number"},
		{"pub -t a -m x -D publish topic-alias 0", "topic-alias 0"},
		{"pub -t a -m x -D publish response-topic b/#", "response-topic b/#"},
		{"pub -t a -m x -D connect request-problem-information 2", "request-problem-information 2"},
		{"pub -t a -m x -D will content-type y", "--will-topic"},
		{"pub -t a -m x -x 5 -D connect session-expiry-interval 5", "-x -D"},
		{"pub -t a -m x -x -2", "-x -2"},
		{"pub -t a -m x --will-payload y", "--will-topic"},
		{"pub -t a -m x --will-topic w/#", "--will-topic w/#"},
		{"pub -t a -m x --will-topic w --will-qos 3", "--will-qos 3"},
		{"pub -t a -m x -c", "-c -i"},
		{"pub -t a -m x -i a -I b", "-i -I"},
		{"pub -t a -m x -i \xff", "-i UTF-8"},
		{"pub -t a -m x -p 0", "-p 0"},
		{"pub -t a -m x -p 65536", "-p 65536"},
		{"pub -t a -m x -p mqtt", "-p mqtt"},
		{"pub -t a -m x -h=", "-h"},
		{"pub -t a -m x -k -1", "-k -1"},
		{"pub -t a -m x -k 65536", "-k 65536"},
		{"pub -m x -L http://localhost/a", "-L http mqtt"},
		{"pub -m x -L localhost/a", "-L mqtt"},
		{"pub -m x -L mqtt:///a", "-L host"},
		{"pub -m x -L mqtt://localhost:port/a", "-L port"},
		{"pub -m x -L mqtt://localhost/a -h other", "-L --host"},
		{"pub -t a -m x --unix /tmp/s -p 1883", "--unix --port"},
		{"pub -t a -m x hello", "hello -m"},
		{"pub -t a -m", "-m value"},
		{"pub -t a -m x --retian", "--retian --help"},
		{"pub -t a -m x -r=maybe", "-r maybe"},
		{"sub", "-t"},
		{"sub -t a/#/b", "-t a/#/b"},
		{"sub -t a+", "-t a+"},
		{"sub -t $share/a", "$share/GROUP/FILTER"},
		{"sub -t a -T b/#/c", "-T b/#/c"},
		{"sub -t a -U b/#/c", "-U b/#/c"},
		{"sub -t a -q -1", "-q -1"},
		{"sub -t a -C 0", "-C 0"},
		{"sub -t a -W 0", "-W 0"},
		{"sub -t a -R --retained-only", "-R --retained-only"},
		{"sub -t a -E -C 1", "-E -C"},
		{"sub -t a --pretty", "--pretty %j"},
		{"sub -t a -F %z", "-F %z"},
		{"sub -t a -F %99999t", "-F width"},
		{`sub -t a -F \q`, `-F \q`},
		{"sub -t a -F @!", "-F @!"},
		{"sub -t a -F x@", "-F @@"},
		{"sub -t a --reply %z", "--reply %z"},
		{"sub -t a -V 311 --no-local", "--no-local -V 5"},
		{"sub -t a -V 311 --retain-as-published", "--retain-as-published -V 5"},
		{"sub -t a -V 311 --retain-handling new", "--retain-handling -V 5"},
		{"sub -t a -V 311 --reply x", "--reply -V 5"},
		{"sub -t a --retain-handling often", "--retain-handling often"},
		{"sub -t $share/g/a --no-local", "--no-local $share/g/a"},
		{"sub -t a -D publish content-type x", "publish connect"},
	} {
		t.Run(c.line, func(t *testing.T) {
			stdout, stderr, code := plainly(t, strings.Fields(c.line)...)
			checkRefusal(t, strings.Fields(c.words), stdout, stderr, code)
			if code != exitLocal {
				t.Errorf("exit code %d, want %d", code, exitLocal)
			}
		})
	}
}

// TestClientUnreachable: no connection, and why.
func TestClientUnreachable(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // It accepts nothing, the kernel does.
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, c := range []struct {
		line, words string
		code        int
	}{
		{"-h no-such-host.invalid", "no-such-host.invalid -h", exitUnreachable},
		{"-p " + unusedPort(t), "connection refused -p", exitUnreachable},
		{"-h ::1 -p " + unusedPort(t), "[::1] connection refused", exitUnreachable},
		{"-h [::1] -p " + unusedPort(t), "[::1] connection refused", exitUnreachable},
		{"--unix " + filepath.Join(t.TempDir(), "none"), "--unix socket", exitUnreachable},
		{"-A no-such-host.invalid", "-A", exitUnreachable},
		{"-p " + listenPort(silent) + " --connect-timeout 0.2", "CONNACK 200ms", exitLost},
	} {
		for _, version := range []string{"5", "311"} {
			for _, command := range []string{"pub -m x", "sub"} {
				line := command + " -t a -h 127.0.0.1 -V " + version + " " + c.line
				if strings.Contains(c.line, "--unix") || strings.Contains(c.line, "-h") {
					line = strings.Replace(line, "-h 127.0.0.1", "", 1)
				}
				stdout, stderr, code := plainly(t, strings.Fields(line)...)
				checkRefusal(t, strings.Fields(c.words), stdout, stderr, code)
				if code != c.code {
					t.Errorf("%s: exit code %d, want %d", line, code, c.code)
				}
			}
		}
	}
}

// TestClientRefused: the exit code is the Reason Code, also in 3.1.1, and --quiet says nothing more.
func TestClientRefused(t *testing.T) {
	users := inFile(t, "")
	if _, stderr, code := ringmq(t, "passwd", "-c", "-b", users, "alice", "secret"); code != 0 {
		t.Fatal(stderr)
	}
	port := startBroker(t, "--passwords", users)
	for _, version := range []string{"5", "311"} {
		for credentials, want := range map[string]packet.Reason{"-u alice -P wrong": packet.BadUserNameOrPassword, "-u bob -P secret": packet.BadUserNameOrPassword, "": packet.NotAuthorized} {
			line := strings.Fields("pub -t a -m x -p " + port + " -V " + version + " " + credentials)
			stdout, stderr, code := plainly(t, line...)
			checkRefusal(t, []string{"refused", "-u", "-P"}, stdout, stderr, code)
			if code != int(want) {
				t.Errorf("%q: exit code %d, want %d: %s", line, code, want, stderr)
			}
			if _, stderr, quiet := plainly(t, append(line, "--quiet")...); stderr != "" || quiet != code {
				t.Errorf("--quiet: exit code %d, %q", quiet, stderr)
			}
		}
	}
}

// answers are what brokers say that are none, or do not want us.
func answers() []struct {
	name, version string
	connack       []byte // nothing: the connection is closed
	code          int
	words         string
} {
	return []struct {
		name, version string
		connack       []byte
		code          int
		words         string
	}{
		{"closed", "5", nil, exitLost, "closed instead TLS"},
		{"closed", "311", nil, exitLost, "closed instead TLS"},
		{"half a CONNACK", "5", []byte{0x20, 3, 0}, exitLost, "CONNECT"},
		{"half a CONNACK", "311", []byte{0x20, 2}, exitLost, "CONNECT"},
		{"HTTP", "5", []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), exitLost, "MQTT broker"},
		{"HTTP", "311", []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), exitLost, "MQTT broker"},
		{"PUBLISH", "5", []byte{0x30, 4, 0, 1, 'a', 0}, exitLost, "MQTT broker"},
		{"PUBLISH", "311", []byte{0x30, 3, 0, 1, 'a'}, exitLost, "MQTT broker"},
		{"Unsupported Protocol Version", "5", []byte{0x20, 3, 0, 0x84, 0}, 132, "-V"},
		{"Client Identifier not valid", "5", []byte{0x20, 3, 0, 0x85, 0}, 133, "-i"},
		{"Banned with a Reason String", "5", []byte{0x20, 7, 0, 0x8A, 4, 31, 0, 1, 'x'}, 138, "Banned x"},
		{"return code 1", "311", []byte{0x20, 2, 0, 1}, 132, "-V"},
		{"return code 2", "311", []byte{0x20, 2, 0, 2}, 133, "-i"},
		{"return code 3", "311", []byte{0x20, 2, 0, 3}, 136, "unavailable"},
		{"return code 6", "311", []byte{0x20, 2, 0, 6}, 128, "Unspecified"},
		{"AUTH", "5", []byte{0xF0, 6, 0x18, 4, 21, 0, 1, 'x'}, exitLost, "authentication"},
		{"CONNACK with an Authentication Method", "5", []byte{0x20, 7, 0, 0, 4, 21, 0, 1, 'x'}, 0, ""},
	}
}

func TestClientStrangeBrokers(t *testing.T) {
	for _, a := range answers() {
		t.Run(a.name+" "+a.version, func(t *testing.T) {
			port := fakeBroker(t, func(_ int, c *fakeConn) {
				c.next()
				_, _ = c.Write(a.connack)
				if a.code == 0 {
					for kind, _ := c.next(); kind != 0 && kind != packet.DISCONNECT; kind, _ = c.next() {
					}
				}
			})
			stdout, stderr, code := plainly(t, "pub", "-t", "a", "-m", "x", "-h", "127.0.0.1", "-p", port, "-V", a.version)
			if code != a.code {
				t.Errorf("exit code %d, want %d: %s", code, a.code, stderr)
			}
			if a.code != 0 {
				checkRefusal(t, strings.Fields(a.words), stdout, stderr, code)
			}
		})
	}
}

// TestPasswordIsNotShown: a password of the environment is not in the help.
func TestPasswordIsNotShown(t *testing.T) {
	stdout, _, _ := runTool(t, "", []string{passwordVariable + "=hunter2"}, "pub", "--help")
	if strings.Contains(stdout, "hunter2") || !strings.Contains(stdout, passwordVariable) {
		t.Error("the help shows the password, or does not name its variable")
	}
}
