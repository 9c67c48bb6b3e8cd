package main

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
)

// exchange is a publisher, and a subscriber that hears it. Flags are cut at spaces, and words in capitals with a $ before
// them stand for what places has.
type exchange struct {
	sub, pub string
	stdin    string // the publisher's
	variable string // of the environment of both
	want     string // the subscriber's standard output
	wantPub  string // the publisher's
	code     int    // the subscriber's
}

// exchanges use every flag of both commands.
func exchanges() []exchange {
	return []exchange{
		{sub: "-p $PORT -t a/+ -v -C 3", pub: "-p $PORT -t a/b -m hi -n 3", want: "a/b hi\na/b hi\na/b hi\n"},
		{sub: "--port $PORT --topic a/# --verbose --count 2 --qos 2", pub: "--port $PORT --topic a/b --message hi --count 2 --qos 2", want: "a/b hi\na/b hi\n"},
		{sub: "-p $PORT -V 311 -t a/b -C 2 -q 1", pub: "-p $PORT -V 3.1.1 -t a/b -m hi --repeat 2 --delay 0.01 -q 1 -M 1", want: "hi\nhi\n"},
		{sub: "-p $PORT --protocol-version mqttv311 -t a/b -C 1 -q 2", pub: "-p $PORT --version 311 -t a/b -m hi -q 2 --repeat-delay 5 -n 1", want: "hi\n"},
		{sub: "-p $PORT -t a -C 1 -N", pub: "-p $PORT -t a -f $FILE", want: "first\nsecond"},
		{sub: "-p $PORT -t a -C 1 --no-newline", pub: "-p $PORT -t a -s", stdin: "x\ny\n", want: "x\ny\n"},
		{sub: "-p $PORT -t a -C 4", pub: "-p $PORT -t a -l", stdin: "x\n\ny\r\nz", want: "x\n\ny\r\nz\n"},
		{sub: "--host localhost -p $PORT -t a -C 1 --bind 127.0.0.1 --keepalive 5 --version 5", pub: "-p $PORT -t a --file $FILE -A 127.0.0.1 -k 9 --protocol-version 5", want: "first\nsecond\n"},
		{sub: "--url mqtt://localhost:$PORT -t a -C 1 -W 10", pub: "-p $PORT -t a --stdin-file", stdin: "x", want: "x\n"},
		{sub: "-p $PORT -t a -C 2 --wait 10", pub: "-p $PORT -t a --stdin-line", stdin: "x\ny\n", want: "x\ny\n"},
		{sub: "-p $LOCKED -t a -C 1 --username alice --pw secret", pub: "-p $LOCKED -t a -m x -u alice -P secret", want: "x\n"},
		{sub: "-p $PORT -t a -C 1 -I me --disable-clean-session --session-expiry-interval 1 --debug", pub: "-p $PORT -t a -m x -i you -c -x 0", want: "x\n"},
		{sub: "-p $PORT -t a -C 1 -d --property subscribe user-property a b", pub: "-p $PORT -t a -m x --id-prefix you", want: "x\n"},
		{sub: "-p $PORT -t a -C 4 -q 2 -V 311", pub: "-p $PORT -t a -l -q 2 --max-inflight 1", stdin: "x\n\ny\nz", want: "x\n\ny\nz\n"},
		{sub: "-p $PORT -t a -C 3 -F %p,%l,%r", pub: "-p $PORT -t a --null-message -r --count 2", want: ",0,0\n,0,0\n", code: 27},
		{sub: "-p $PORT -t a -C 1 -v", pub: "-p $PORT -t a -n -r", want: "a (null)\n"},
		{sub: "-h 127.0.0.1 -A 127.0.0.1 -p $PORT -t a -C 1 -k 5 --nodelay --connect-timeout 5", pub: "--host 127.0.0.1 --bind 127.0.0.1 -p $PORT -t a -m x --keepalive 0 --nodelay --connect-timeout 5.5", want: "x\n"},
		{sub: "-L mqtt://127.0.0.1:$PORT/a/# -C 1 -v", pub: "--url mqtt://127.0.0.1:$PORT/a/b/c -m x", want: "a/b/c x\n"},
		{sub: "--unix $SOCKET -t a -C 1", pub: "--unix $SOCKET -t a -m x", want: "x\n"},
		{sub: "-p $LOCKED -t a -C 1 -u alice -P secret", pub: "-p $LOCKED -t a -m x --username alice --password-file $PASSWORD", want: "x\n"},
		{sub: "-L mqtt://alice:secret@127.0.0.1:$LOCKED/a -C 1", pub: "-p $LOCKED -t a -m x -u alice", variable: passwordVariable + "=secret", want: "x\n"},
		{sub: "-p $LOCKED -t a -C 1 -u alice --password-file $PASSWORD -V 311", pub: "-p $LOCKED -t a -m x -u alice --pw secret -V 311", want: "x\n"},
		{sub: "-p $PORT -t a -C 1 -i me -c -x 0", pub: "-p $PORT -t a -m x -I you --disable-clean-session --session-expiry-interval 1", want: "x\n"},
		{sub: "-p $PORT -t a -C 1 --id me2 --id-prefix=", pub: "-p $PORT -t a -m x", code: 1},
		{sub: "-p $PORT -t a -C 1 --id-prefix me -x -1 -D disconnect session-expiry-interval 0", pub: "-p $PORT -t a -m x --id you2", want: "x\n"},
		{sub: "-p $PORT -t a -C 1 -F %P|%C|%D|%E|%F|%R|%S -D subscribe subscription-identifier 7", pub: "-p $PORT -t a -m x --property PUBLISH user-property k v -D publish user-property k w -D publish content-type c " +
			"-D publish correlation-data d -D publish message-expiry-interval 9 -D publish payload-format-indicator 1 -D publish response-topic r", want: "k:v k:w|c|d|9|1|r|7\n"},
		{sub: "-p $PORT -t w -C 1", pub: "-p $PORT -t a -m x -D connect receive-maximum 5 -D connect user-property a b -D will will-delay-interval 1 -D publish topic-alias 1 " +
			"--will-topic w --will-payload gone --will-qos 1 --will-retain -D disconnect user-property a b", code: 27},
		{sub: "-p $PORT -t a -C 1 --will-topic w2 --will-payload gone --will-qos 2 --will-retain", pub: "-p $PORT -t a -m x", want: "x\n"},
		{sub: "-p $PORT -t a/# -T a/b --filter-out a/c/# -C 1", pub: "-p $PORT -t a/d -m x", want: "x\n"},
		{sub: "-p $PORT -t a/b -t a/c -U a/b -C 1 -v", pub: "-p $PORT -t a/b -m x", code: 27},
		{sub: "-p $PORT -t a/c --unsubscribe a/b -C 1 -v", pub: "-p $PORT -t a/c -m x", want: "a/c x\n"},
		{sub: "-p $PORT -t a -C 1 --format %t=%p --retain-as-published", pub: "-p $PORT -t a -m x", want: "a=x\n"},
		{sub: "-p $PORT -t kept -C 1 -F %r%p --retain-as-published --no-local", pub: "-p $PORT -t kept -m x --retain", want: "1x\n"},
		{sub: "-p $PORT -t kept -R -C 1 --retain-handling always", pub: "-p $PORT -t kept -m y -r", want: "y\n"},
		{sub: "-p $PORT -t kept --no-retained -C 1 --retain-handling never", pub: "-p $PORT -t kept -m y", want: "y\n"},
		{sub: "-p $PORT -t kept --retained-only --remove-retained --retain-handling new -F %r%p", pub: "-p $PORT -t kept -m z", want: "1y\n"},
		{sub: "-p $PORT -t kept -C 1", pub: "-p $PORT -t other -m z", code: 27}, // It was removed.
		{sub: "-p $PORT -t a -C 1 --pretty -F %J", pub: "-p $PORT -t a -m {\"x\":1.50}", want: "JSON"},
		{sub: "-p $PORT -t rpc --reply you_said_%p -C 1 -D publish content-type text", pub: "-p $PORT -t rpc -m hi -e answers -W 5 -v", want: "hi\n", wantPub: "answers you_said_hi\n"},
		{sub: "-p $PORT -t rpc --reply %t -C 1 -q 2", pub: "-p $PORT -t rpc -m hi --response-topic answers --wait 5 -q 1 -F %p%C -N", want: "hi\n", wantPub: "rpc"},
		{sub: "-p $PORT -t rpc --reply %p -C 1", pub: "-p $PORT -t rpc -m 7 -e answers --format %J --pretty -D subscribe user-property a b --verbose --no-newline", want: "7\n", wantPub: "JSON"},
		{sub: "-p $PORT -t a -E --no-reconnect --quiet", pub: "-p $PORT -t a -m x --quiet -d"},
		{sub: "-p $PORT -t a --exit-subscribed -D unsubscribe user-property a b", pub: "-p $PORT -t a -m x --debug"},
		{sub: "-p $TLS --cafile $CA -t a -C 1", pub: "-p $TLS --cafile $CA -t a -m x", want: "x\n"},
		{sub: "-p $TLS --capath $CAS -t a -C 1 --tls-version tlsv1.3", pub: "-p $TLS --capath $CAS -t a -m x --tls-version tlsv1.2", want: "x\n"},
		{sub: "-h 127.0.0.1 -p $TLS --cafile $CA -t a -C 1 --servername broker.test --tls-alpn mqtt", pub: "-h 127.0.0.1 -p $TLS --cafile $CA --tls-use-os-certs -t a -m x --servername broker.test --tls-alpn mqtt", want: "x\n"},
		{sub: "-h 127.0.0.1 -p $TLS --insecure -t a -C 1", pub: "-h 127.0.0.1 -p $TLS --insecure --cafile $CA -t a -m x", want: "x\n"},
		{sub: "-p $MUTUAL --cafile $CA --cert $CERT --key $KEY -t a -C 1 --tls-use-os-certs", pub: "-L mqtts://localhost:$MUTUAL/a --cafile $CA --cert $CERT --key $KEY -m x", want: "x\n"},
	}
}

// places starts a broker and what stands before it: a socket in the file system, TLS, TLS that wants certificates.
func places(t *testing.T) map[string]string {
	open := startBroker(t, "--allow-anonymous")
	users := inFile(t, "")
	if _, stderr, code := plainly(t, "passwd", "-c", "-b", users, "alice", "secret"); code != 0 {
		t.Fatal(stderr)
	}
	a := newAuthority(t)
	p := a.files(t)
	hour := time.Now().Add(time.Hour)
	for name, l := range map[string]net.Listener{"TLS": a.listen(t, false, hour, "localhost", "broker.test"), "MUTUAL": a.listen(t, true, hour, "localhost")} {
		forward(t, l, open)
		p[name] = listenPort(l)
	}
	p["PORT"], p["LOCKED"] = open, startBroker(t, "--passwords", users)
	p["FILE"], p["PASSWORD"] = inFile(t, "first\nsecond"), inFile(t, "secret\nand more\n")
	p["SOCKET"] = filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", p["SOCKET"])
	if err != nil {
		t.Fatal(err)
	}
	forward(t, l, open)
	return p
}

// forward passes the bytes of every connection on to the broker.
func forward(t *testing.T, l net.Listener, port string) {
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if secure, ok := c.(*tls.Conn); ok && secure.Handshake() != nil {
					return
				}
				b, err := net.Dial("tcp", "127.0.0.1:"+port)
				if err != nil {
					return
				}
				defer b.Close()
				go func() { _, _ = io.Copy(b, c); _ = b.(*net.TCPConn).CloseWrite() }()
				_, _ = io.Copy(c, b)
			}()
		}
	}()
}

// words puts places into a command line.
func words(line string, places map[string]string) []string {
	return strings.Fields(os.Expand(strings.ReplaceAll(line, "$share", "$$share"), func(name string) string { return places[name] }))
}

// TestClientFlags runs every exchange, and between them every flag.
func TestClientFlags(t *testing.T) {
	where := places(t)
	used := map[string]map[string]bool{"pub": {"help": true}, "sub": {"help": true}}
	for _, x := range exchanges() {
		t.Run(x.sub+" / "+x.pub, func(t *testing.T) { runExchange(t, x, where) })
		note(used["sub"], x.sub)
		note(used["pub"], x.pub)
	}
	for _, command := range []*cli.Command{pubCommand(), subCommand()} {
		checkEveryName(t, command, used[command.Name])
	}
}

func note(used map[string]bool, line string) {
	for _, word := range strings.Fields(line) {
		if name, _, _ := strings.Cut(word, "="); strings.HasPrefix(name, "-") {
			used[strings.TrimLeft(name, "-")] = true
		}
	}
}

// checkEveryName wants all names of a flag to be used, the short ones too.
func checkEveryName(t *testing.T, command *cli.Command, used map[string]bool) {
	t.Helper()
	for _, f := range command.Flags {
		for _, name := range f.Names() {
			if !used[name] {
				t.Errorf("%s: nothing tries -%s", command.Name, name)
			}
		}
	}
}

func runExchange(t *testing.T, x exchange, where map[string]string) {
	variables := []string{}
	if x.variable != "" {
		variables = append(variables, x.variable)
	}
	arguments := append([]string{"sub"}, words(x.sub, where)...)
	switch { // What is to come has time to come, what is not to come is not waited for long.
	case x.code == exitTimeout && x.want != "":
		arguments = append(arguments, "-W", "5")
	case x.code == exitTimeout:
		arguments = append(arguments, "-W", "0.5")
	}
	sub := startTool(t, nil, variables, append(arguments, "-d")...) // Its debug lines tell when it has subscribed.
	if x.code != exitLocal {
		sub.waitLine(t, "SUBACK")
		if strings.Contains(x.sub, "-U") || strings.Contains(x.sub, "--unsub") {
			sub.waitLine(t, "UNSUBACK")
		}
		stdout, stderr, code := runTool(t, x.stdin, variables, append([]string{"pub"}, words(x.pub, where)...)...)
		if code != 0 || stderr != "" && !strings.Contains(x.pub, "-d") {
			t.Errorf("pub: exit code %d: %s", code, stderr)
		}
		compareOutput(t, "pub", stdout, x.wantPub)
	}
	stdout, stderr, code := sub.wait(t)
	if code != x.code {
		t.Errorf("sub: exit code %d, want %d: %s", code, x.code, stderr)
	}
	compareOutput(t, "sub", stdout, x.want)
}

func compareOutput(t *testing.T, which, got, want string) {
	t.Helper()
	if want == "JSON" {
		if !strings.HasPrefix(got, "{\n\t\"tst\": \"") {
			t.Errorf("%s prints %q, want JSON on several lines", which, got)
		}
		return
	}
	if got != want {
		t.Errorf("%s prints %q, want %q", which, got, want)
	}
}

// TestClientHelp: the whole help in its order, for --help and for a lonely -h.
func TestClientHelp(t *testing.T) {
	for _, name := range []string{"pub", "sub"} {
		for _, flag := range []string{"--help", "-h"} {
			stdout, stderr, code := plainly(t, name, flag)
			if code != 0 || stderr != "" {
				t.Errorf("%s %s: exit code %d, %s", name, flag, code, stderr)
			}
			at := 0
			for _, part := range []string{"USAGE", "Examples:", "Formats for -F", "Exit codes", "-t, --topic TOPIC", "Connection:", "-h, --host HOST", "Session:", "Will:", "TLS", "--help"} {
				i := strings.Index(stdout[at:], part)
				if i < 0 {
					t.Errorf("%s %s does not say %q where it should", name, flag, part)
					continue
				}
				at += i
			}
		}
	}
}
