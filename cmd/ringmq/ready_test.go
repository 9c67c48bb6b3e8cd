//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestFullDisk fills the disk of a store: messages that are to be kept are refused, QoS 0 goes on, the broker says in its log and
// through its admin socket that it is not ready, and why; when there is space again, it is ready by itself.
func TestFullDisk(t *testing.T) {
	disk, socket := t.TempDir(), filepath.Join(t.TempDir(), "admin")
	switch err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64m"); err {
	case nil:
	case syscall.EPERM:
		t.Skip("needs CAP_SYS_ADMIN to mount a small disk")
	default:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	config := inFile(t, fmt.Sprintf("memory = \"256MiB\"\n[store]\ndata = %q\nreserve = \"8MiB\"\n", disk))
	p := startProgram(t, buildProgram(t), "serve", "-c", config, "-p", unusedPort(t), "--admin", socket)
	port := p.address[strings.LastIndexByte(p.address, ':')+1:]
	keep := func() int {
		_, _, code := ringmq(t, "pub", "-V", "5", "-p", port, "-t", "kept", "-m", "x", "-q", "1", "-r")
		return code
	}
	ready := func() (string, bool) {
		_, stderr, code := ringmq(t, "status", "--ready", "--admin", socket)
		return stderr, code == 0
	}
	if why, ok := ready(); !ok || keep() != 0 {
		t.Fatal("a broker with an empty disk is not ready: ", why)
	}
	filler := filepath.Join(disk, "filler")
	_ = os.WriteFile(filler, make([]byte, 128<<20), 0o600) // as much as there is
	p.waitLine(t, "store fails")
	if why, ok := ready(); ok || !strings.Contains(why, "left on the disk") {
		t.Errorf("with a full disk: ready %v, %s", ok, why)
	}
	if keep() == 0 {
		t.Error("a message that is to be kept is taken with a full disk")
	}
	if _, stderr, code := ringmq(t, "pub", "-p", port, "-t", "passing", "-m", "x"); code != 0 {
		t.Error("QoS 0 with a full disk: ", stderr)
	}
	if out, _, _ := ringmq(t, "status", "--admin", socket); !strings.Contains(out, "REFUSES") {
		t.Errorf("status with a full disk:\n%s", out)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	p.waitLine(t, "store works again")
	for until := time.Now().Add(10 * time.Second); ; {
		why, ok := ready()
		if ok {
			break
		}
		if time.Now().After(until) {
			t.Fatal("with space again: ", why)
		}
	}
	if keep() != 0 {
		t.Error("with space again a message is refused")
	}
	_ = p.cmd.Process.Kill() // nothing has the disk open when it is unmounted
	_ = p.cmd.Wait()
}
