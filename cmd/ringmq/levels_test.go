//go:build linux

package main

import (
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ringmq/ringmq/broker/crashtest"
)

// TestStopInOrderAtEveryLevel stops a broker in order, twice: Sessions, subscriptions, what waits for them and Retained Messages are there for the
// next one, at durability none, too.
func TestStopInOrderAtEveryLevel(t *testing.T) {
	for _, durability := range []string{"none", "os", "fsync"} {
		t.Run(durability, func(t *testing.T) {
			dir, port, address := t.TempDir(), unusedPort(t), ""
			q := crashtest.NewQueue(func() (net.Conn, error) { return net.Dial("tcp", address) })
			const each = 20
			run := func() *running {
				p := startProgram(t, buildRaced(t), "serve", "-p", port, "--memory", "256MiB", "--data", dir, "--durability", durability, "--admin", "none")
				address = p.address
				return p
			}
			for range 2 {
				p := run()
				if err := q.Fill(each); err != nil {
					t.Fatal(err)
				}
				for topic, qos := range map[string]string{"kept/0": "0", "kept/1": "1"} {
					if _, stderr, code := ringmq(t, "pub", "-p", port, "-t", topic, "-m", "stays", "-q", qos, "-r"); code != 0 {
						t.Fatal(stderr)
					}
				}
				if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				for line := range p.lines { // to its end
					t.Log(line)
				}
				if err := p.cmd.Wait(); err != nil {
					t.Error("a stop in order: ", err)
				}
			}
			run()
			if n, err := q.Drain(); err != nil || n != 2*each+1 {
				t.Errorf("%d of %d messages came: %v", n, 2*each+1, err)
			}
			if out, stderr, _ := ringmq(t, "sub", "-p", port, "-t", "kept/#", "-C", "2", "-W", "10"); strings.Count(out, "stays") != 2 {
				t.Errorf("of two Retained Messages came %q %s", out, stderr)
			}
		})
	}
}

// TestOthersCostNoCommit has clients whose Sessions end with their connections exchange messages of every QoS beside a kept one: the store commits
// nothing for them.
func TestOthersCostNoCommit(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "admin")
	p := startProgram(t, buildProgram(t), "serve", "-p", unusedPort(t), "--memory", "256MiB", "--data", t.TempDir(), "--admin", socket)
	commits := func() (report struct{ Commits, Batches int }) {
		t.Helper()
		out, stderr, code := ringmq(t, "store", "stats", "--json", "--admin", socket)
		if err := json.Unmarshal([]byte(out), &report); err != nil || code != 0 {
			t.Fatal(err, out, stderr)
		}
		return report
	}
	q := crashtest.NewQueue(func() (net.Conn, error) { return net.Dial("tcp", p.address) })
	start := commits()
	if err := q.Fill(5); err != nil {
		t.Fatal(err)
	}
	before := commits()
	if before.Batches < start.Batches+5 {
		t.Fatalf("five kept messages made %d batches: the scene is another one", before.Batches-start.Batches)
	}
	for qos := range byte(3) {
		p.run(t, qos, 2000)
	}
	if after := commits(); after != before {
		t.Errorf("%d batches and %d commits were made for messages that nobody keeps", after.Batches-before.Batches, after.Commits-before.Commits)
	}
}
