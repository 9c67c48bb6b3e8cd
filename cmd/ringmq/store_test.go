//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/broker/crashtest"
)

// TestStoreTools makes a store, looks at it with each tool while the broker runs and afterwards, and starts a broker on the backup.
func TestStoreTools(t *testing.T) {
	program, dir, socket := buildProgram(t), t.TempDir(), filepath.Join(t.TempDir(), "admin")
	var p *running
	serve := func() {
		t.Helper()
		p = startProgram(t, program, "serve", "-p", unusedPort(t), "--memory", "256MiB", "--data", dir, "--admin", socket)
	}
	kill := func() {
		t.Helper()
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = p.cmd.Wait()
	}
	must := func(arguments ...string) string {
		t.Helper()
		stdout, stderr, code := ringmq(t, arguments...)
		if code != 0 {
			t.Fatalf("ringmq %s: exit code %d, %s%s", strings.Join(arguments, " "), code, stdout, stderr)
		}
		return stdout
	}
	const delivered = 300 // messages of 1 KiB that wait in a table, and are then delivered
	q := crashtest.NewQueue(func() (net.Conn, error) { return net.Dial("tcp", p.address) })
	serve()
	if err := q.Fill(delivered); err != nil {
		t.Fatal(err)
	}
	kill()
	must("store", "compact", dir)
	serve()
	port := p.address[strings.LastIndexByte(p.address, ':')+1:]
	must("pub", "-p", port, "-t", "kept/x", "-m", "hello", "-q", "1", "-r")
	if n, err := q.Drain(); err != nil || n != delivered+1 {
		t.Fatalf("%d of %d messages came: %v", n, delivered+1, err)
	}
	if out := must("store", "stats", "--admin", socket); !strings.Contains(out, "commits") {
		t.Errorf("stats of a running broker: %s", out)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	must("store", "backup", "--admin", socket, copied)
	if _, stderr, code := ringmq(t, "store", "check", dir); code == 0 || !strings.Contains(stderr, "in use") {
		t.Errorf("check of a store in use: exit code %d, %s", code, stderr)
	}
	for _, arguments := range [][]string{{"store", "stats", dir}, {"store", "backup", dir, filepath.Join(t.TempDir(), "x")}} {
		if _, stderr, code := ringmq(t, arguments...); code == 0 || !strings.Contains(stderr, "ask the broker") {
			t.Errorf("%v of a store in use: exit code %d, %s", arguments, code, stderr)
		}
	}
	kill()
	for _, d := range []string{dir, copied} {
		var before, after int
		if out := must("store", "compact", d); !scanned(out, "%d bytes on disk, before %d", &after, &before) || before-after < delivered<<9 {
			t.Errorf("compact %s, where %d KiB are delivered: %s", d, delivered, out)
		}
		if out := must("store", "check", d); !strings.Contains(out, "1 retained messages") || !strings.Contains(out, "good") {
			t.Errorf("check %s: %s", d, out)
		}
		if out := must("store", "dump", d); !strings.Contains(out, `"topic":"kept/x"`) {
			t.Errorf("dump %s: %s", d, out)
		}
		if out := must("store", "stats", "--json", d); !strings.Contains(out, `"retained messages":{"count":1`) {
			t.Errorf("stats %s: %s", d, out)
		}
	}
	must("store", "backup", dir, filepath.Join(t.TempDir(), "again"))
	damageTable(t, dir)
	if _, stderr, code := ringmq(t, "store", "backup", dir, filepath.Join(t.TempDir(), "damaged")); code == 0 || !strings.Contains(stderr, "problems") {
		t.Errorf("backup of a damaged store: exit code %d, %s", code, stderr)
	}
	r := startProgram(t, program, "serve", "-p", unusedPort(t), "--memory", "256MiB", "--data", copied, "--admin", "none")
	if out := must("sub", "-p", r.address[strings.LastIndexByte(r.address, ':')+1:], "-t", "kept/#", "-C", "1"); !strings.Contains(out, "hello") {
		t.Errorf("the backup gives %q", out)
	}
}

func scanned(text, format string, to ...any) bool {
	n, err := fmt.Sscanf(text, format, to...)
	return err == nil && n == len(to)
}

// damageTable overwrites bytes at the start of a store's tables, where their records are.
func damageTable(t *testing.T, dir string) {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(dir, "db", "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal("no table to damage", err)
	}
	for _, name := range tables {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		copy(b, "damage")
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStoreRefusals: each says in one line what is wrong and what to do, and changes nothing on disk.
func TestStoreRefusals(t *testing.T) {
	file, other, newer := inFile(t, "x"), t.TempDir(), t.TempDir()
	for name, text := range map[string]string{filepath.Join(other, "notes"): "mine", filepath.Join(newer, "FORMAT"): "ringmq store format 99\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for dir, word := range map[string]string{filepath.Join(other, "missing"): "mkdir", file: "is a file", filepath.Join(file, "x"): "name a directory", other: "other files", newer: "format 99"} {
		_, stderr, code := ringmq(t, "serve", "-p", unusedPort(t), "--admin", "none", "--data", dir)
		if code == 0 || !strings.Contains(stderr, word) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("--data %s: exit code %d, %s", dir, code, stderr)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	unused := t.TempDir()
	if _, stderr, code := ringmq(t, "serve", "-p", port, "--admin", "none", "--data", unused); code == 0 || !strings.Contains(stderr, "another broker?") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("a port in use: exit code %d, %s", code, stderr)
	}
	for dir, files := range map[string]int{other: 1, newer: 1, unused: 0} {
		if list, err := os.ReadDir(dir); err != nil || len(list) != files {
			t.Errorf("%s was changed: %v %v", dir, list, err)
		}
	}
	for _, arguments := range [][]string{{"store", "check"}, {"store", "check", other}, {"store", "backup"}, {"serve", "--durability", "os"}, {"serve", "--data", other, "--durability", "maybe"}} {
		if _, stderr, code := ringmq(t, arguments...); code == 0 || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: exit code %d, %s", arguments, code, stderr)
		}
	}
}

// TestStoreOfFileAndFlag has the file say how to keep things and the command line where; neither can be without the other.
func TestStoreOfFileAndFlag(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ringmq.toml")
	if err := os.WriteFile(file, []byte("[store]\ndurability = \"os\"\nreserve = \"1MiB\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := ringmq(t, "serve", "-c", file, "--data", t.TempDir(), "--test-config"); code != 0 {
		t.Errorf("with --data: exit code %d, %s", code, stderr)
	}
	if _, stderr, code := ringmq(t, "serve", "-c", file, "--test-config"); code == 0 || !strings.Contains(stderr, "--data") {
		t.Errorf("without --data: exit code %d, %s", code, stderr)
	}
	empty := filepath.Join(t.TempDir(), "empty.toml")
	if err := os.WriteFile(empty, []byte("[store]\ndata = \"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for word, arguments := range map[string][]string{"--data": {"--data", ""}, `empty.toml:2: key "store.data"`: {"-c", empty}} {
		_, stderr, code := ringmq(t, append([]string{"serve", "--test-config"}, arguments...)...)
		if code == 0 || !strings.Contains(stderr, word+": names no directory") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: exit code %d, %s", arguments, code, stderr)
		}
	}
}
