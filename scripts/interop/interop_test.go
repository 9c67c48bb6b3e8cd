package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// program is the ringmq binary under test, which TestMain builds; address is where it serves.
var program, address string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) (code int) {
	folder, err := os.MkdirTemp("", "ringmq-interop-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	var flags []string
	if raced() {
		flags = []string{"-race"}
	}
	if program, err = build(context.Background(), folder, flags...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	b, err := startBroker(context.Background(), program, folder)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	address = b.address
	code = m.Run()
	if err := b.stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// raced tells whether the tests were built with -race; then the broker is, too.
func raced() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
}

// TestScenes runs the whole table and compares it with the README's. Where a client is missing the other columns count,
// except where CI is true.
func TestScenes(t *testing.T) {
	o, err := parse(nil, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	s, err := o.suite(t.TempDir(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.drive(address); err != nil {
		t.Fatal(err)
	}
	r := s.run(t.Context())
	for _, c := range r.failed() {
		t.Errorf("%s %s, %s: %s", c.Client, c.Protocol, c.Scene, c.Why)
	}
	if err := o.judge(r); err != nil {
		t.Error(err)
	}
	for _, m := range r.Missing {
		t.Logf("%s is missing: install %s", m.Client, m.Needs)
	}
	var printed bytes.Buffer
	r.markdown(&printed)
	compareColumns(t, columns(readme(t)), columns(printed.String()))
}

// readme gives the table between the README's markers.
func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, begins := strings.Cut(string(text), "<!-- interop -->")
	table, _, ends := strings.Cut(rest, "<!-- /interop -->")
	if !begins || !ends {
		t.Fatal("README.md has no table between <!-- interop --> and <!-- /interop -->: go run ./scripts/interop --markdown")
	}
	return table
}

// columns reads a table of Markdown: by client, without its version, each cell below the name of its row, with the
// texts of the notes for their numbers.
func columns(table string) map[string][]string {
	note := map[string]string{}
	for _, found := range regexp.MustCompile(`(?m)^(\d+)\. (.*)$`).FindAllStringSubmatch(table, -1) {
		note["("+found[1]+")"] = found[2]
	}
	var rows [][]string
	for line := range strings.Lines(table) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "| ") {
			rows = append(rows, strings.Split(strings.Trim(line, "| "), " | "))
		}
	}
	all := map[string][]string{}
	number, version := regexp.MustCompile(`\(\d+\)`), regexp.MustCompile(` \d[\w.+-]*$`)
	for i := range rows {
		for j := 1; i > 0 && j < len(rows[i]); j++ {
			client := version.ReplaceAllString(rows[0][j], "")
			cell := number.ReplaceAllStringFunc(rows[i][j], func(n string) string { return "(" + note[n] + ")" })
			all[client] = append(all[client], rows[i][0]+": "+cell)
		}
	}
	return all
}

// compareColumns compares the columns of the clients that are there.
func compareColumns(t *testing.T, want, got map[string][]string) {
	t.Helper()
	if len(got) == 0 {
		t.Error("no client is there")
	}
	for client, cells := range got {
		if slices.Equal(cells, want[client]) {
			continue
		}
		for i, cell := range cells {
			if i >= len(want[client]) || want[client][i] != cell {
				t.Errorf("README.md is not what `go run ./scripts/interop --markdown` prints: %s has %q", client, cell)
			}
		}
		if len(want[client]) > len(cells) {
			t.Errorf("README.md has more rows for %s than `go run ./scripts/interop --markdown` prints", client)
		}
	}
}

// TestBrokenBroker shows that the scenes fail where a broker fails: each flaw must turn every client's cells.
func TestBrokenBroker(t *testing.T) {
	will := only(publish, func(p packet) [][]byte {
		if strings.HasSuffix(p.topic(), "/will") {
			return nil
		}
		return [][]byte{p.bytes}
	})
	hangUp := func(p packet) ([][]byte, bool) { return [][]byte{p.bytes}, p.kind() != pingreq }
	drop := only(publish, func(p packet) [][]byte {
		if p.count == 2 {
			return nil
		}
		return [][]byte{p.bytes}
	})
	double := only(publish, func(p packet) [][]byte {
		if p.qos() == 2 {
			return [][]byte{p.bytes} // Clients tell it by its Packet Identifier.
		}
		return [][]byte{p.bytes, p.bytes}
	})
	corrupt := only(publish, func(p packet) [][]byte {
		p.bytes[len(p.bytes)-1] ^= 0x15
		return [][]byte{p.bytes}
	})
	unretain := only(publish, func(p packet) [][]byte {
		p.bytes[0] &^= 1
		return [][]byte{p.bytes}
	})
	unsession := only(connack, func(p packet) [][]byte {
		p.bytes[p.head] = 0
		return [][]byte{p.bytes}
	})
	nothing := func(packet) [][]byte { return nil }
	otherTopic := only(unsubscribe, func(p packet) [][]byte {
		p.bytes[len(p.bytes)-1]++
		return [][]byte{p.bytes}
	})
	for _, c := range []struct {
		flaw               string
		toClient, toBroker flaw
		scenes             string
		but                string // the client that does not look
		limit              time.Duration
	}{
		{flaw: "loses the third message", toClient: drop, scenes: "qos0,qos1,qos2,session,shared,send-quota"},
		{flaw: "sends messages twice", toClient: double, scenes: "qos0,qos1,unicode,retained,will,alias-out"},
		{flaw: "changes the last byte", toClient: corrupt, scenes: "large,wildcards,alias-in,reconnect,cross"},
		{flaw: "swaps messages", toClient: swapped(), scenes: "qos0,qos1,qos2"},
		{flaw: "forgets RETAIN", toClient: unretain, scenes: "retained,options,cross"},
		{flaw: "forgets Session Present", toClient: unsession, scenes: "session,session-expiry", but: "mosquitto", limit: 5 * time.Second},
		{flaw: "keeps Sessions too long", toBroker: replaced(connect, "\x11\x00\x00\x00\x04", "\x11\x00\x00\x02\x58"), scenes: "session-expiry", limit: 12 * time.Second},
		{flaw: "has no properties", toClient: only(publish, withoutProperties), scenes: "properties,expiry,request"},
		{flaw: "loses Will Messages", toClient: will, scenes: "will,will-delay,will-disconnect", limit: 12 * time.Second},
		{flaw: "does not see DISCONNECT", toBroker: only(disconnect, nothing), scenes: "will,close"},
		{flaw: "does not say DISCONNECT", toClient: only(disconnect, nothing), scenes: "takeover"},
		{flaw: "does not unsubscribe", toBroker: otherTopic, scenes: "unsubscribe"},
		{flaw: "does not see Receive Maximum", toBroker: replaced(connect, "\x21\x00\x03", "\x21\x00\x64"), scenes: "receive-maximum"},
		{flaw: "hangs up at PINGREQ", toBroker: hangUp, scenes: "keepalive", limit: 16 * time.Second},
	} {
		t.Run(c.flaw, func(t *testing.T) {
			t.Parallel()
			if c.limit == 0 {
				c.limit = 3 * time.Second
			}
			o := choices{scenes: strings.Split(c.scenes, ","), limit: c.limit}
			s, err := o.suite(t.TempDir(), os.Stderr)
			if err != nil {
				t.Fatal(err)
			}
			s.progress = t.Logf
			if err := s.drive(startProxy(t, address, c.toClient, c.toBroker).listener.Addr().String()); err != nil {
				t.Fatal(err)
			}
			for _, cell := range s.run(t.Context()).Cells {
				version3 := c.flaw == "does not say DISCONNECT" && cell.Protocol == v3 // There is none.
				if cell.State == ok && cell.Client != c.but && !version3 {
					t.Errorf("a broker that %s passes with %s %s, %s", c.flaw, cell.Client, cell.Protocol, cell.Scene)
				}
			}
		})
	}
}

// TestHangs has a script that never answers: it is killed, and the cell says so.
func TestHangs(t *testing.T) {
	t.Parallel()
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip(err)
	}
	p, version, err := startScript(t.Context(), shell, "-c", `echo '{"version":"1"}'; read line; exec sleep 600`)
	if err != nil || version != "1" {
		t.Fatal(version, err)
	}
	defer p.end()
	if err := p.play(t.Context(), task{Scene: "qos0", Seconds: 0.1}, func() {}); err == nil || !strings.Contains(err.Error(), "hangs") {
		t.Errorf("got %v", err)
	}
}

// TestScriptEnds has scripts that end too early or talk nonsense.
func TestScriptEnds(t *testing.T) {
	t.Parallel()
	for _, line := range []string{`echo '{"version":"1"}'; echo broken >&2; exit 1`, `echo '{"version":"1"}'; read line; echo broken; exit 1`} {
		p, _, err := startScript(t.Context(), "sh", "-c", line)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.play(t.Context(), task{Scene: "qos0", Seconds: 5}, func() {}); err == nil {
			t.Errorf("%s passes", line)
		}
		p.end()
	}
	if _, _, err := startScript(t.Context(), "sh", "-c", "echo broken >&2"); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("got %v", err)
	}
}

// TestMissing: a client that is not there is named with what to install; required, it is a failure.
func TestMissing(t *testing.T) {
	for _, c := range []struct {
		arguments []string
		ci        string
		fails     bool
	}{{nil, "", false}, {nil, "true", true}, {[]string{"--require", "all"}, "", true}, {[]string{"--require", "mosquitto"}, "", true},
		{[]string{"--require", "mqtt.js"}, "", false}} {
		t.Setenv("CI", c.ci)
		o, err := parse(c.arguments, os.Stderr)
		if err != nil {
			t.Fatal(err)
		}
		err = o.judge(report{Missing: []absence{{Client: "mosquitto", Needs: "the Debian package mosquitto-clients", Why: "not found"}}})
		if (err != nil) != c.fails || err != nil && !strings.Contains(err.Error(), "mosquitto-clients") {
			t.Errorf("%q, CI=%q: %v", c.arguments, c.ci, err)
		}
	}
}

// TestBadArguments get one line that says what to do.
func TestBadArguments(t *testing.T) {
	for _, c := range []struct{ arguments, says string }{
		{"--client nobody", "the clients are paho.golang"},
		{"--scene nothing", "the scenes are qos0"},
		{"--address nowhere", "want HOST:PORT"},
		{"--address 127.0.0.1:x", "no number"},
		{"--address 127.0.0.1:1", "no broker"},
		{"words", "--client and --scene"},
	} {
		var out, errs bytes.Buffer
		err := command(t.Context(), strings.Fields(c.arguments), &out, &errs)
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", c.arguments, err)
		}
	}
}
