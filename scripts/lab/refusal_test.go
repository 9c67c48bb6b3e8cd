//go:build linux

package lab

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// serveLine is what starts a broker in XDP mode; later flags win.
func (s *scene) serveLine(arguments ...string) []string {
	return append([]string{program, "serve", "--allow-anonymous", "--admin", "none", "--mode", "xdp", "--listen", ":1883",
		"--interface", s.BrokerIf}, arguments...)
}

// TestRefusals: what cannot work is said in one line, with what to do about it; the exit status is 1, and nothing stays on the
// interface.
func TestRefusals(t *testing.T) {
	s := newScene(t, 4)
	refused := func(name, change, back string, cmd *exec.Cmd, words ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			here := &scene{Lab: s.Lab, Pair: s.Pair, t: t}
			if change != "" {
				here.broker(change, s.BrokerIf)
				defer here.broker(back, s.BrokerIf)
			}
			here.refused(cmd, words...)
			checkBare(t, here)
		})
	}
	line := func(arguments ...string) *exec.Cmd { return s.InBroker(s.serveLine(arguments...)...) }
	plain := func(arguments ...string) *exec.Cmd {
		return s.InBroker(append([]string{program, "serve", "--admin", "none", "--mode", "xdp"}, arguments...)...)
	}
	refused("no interface named", "", "", plain("--listen", ":1883"), "--interface", "ringmq doctor")
	refused("no such interface", "", "", plain("--listen", ":1883", "--interface", "nowhere0"), "nowhere0", "ip link")
	refused("loopback", "", "", plain("--listen", ":1883", "--interface", "lo"), "lo", "loopback")
	refused("listeners on loopback", "", "", plain("--interface", s.BrokerIf), "loopback", "--listen")
	refused("interface down", "ip link set %s down", "ip link set %s up", line(), s.BrokerIf, "down", "ip link set", "up")
	refused("MTU", "ip link set %s mtu 2500", "ip link set %s mtu 1500", line(), s.BrokerIf, "2500", "mtu")
	refused("queue out of range", "", "", line("--queues", "7"), "queue 7", "0")
	refused("some queues only", "", "", line("--queues", "0,1"), "--allow-unbound-queues", s.BrokerIf)
	refused("queues are no list", "", "", line("--queues", "a-b"), "queues", "0,2-3")
	refused("mode beyond the driver", "", "", line("--xdp-require", "zerocopy"), "zero", "--xdp-require")
	refused("unknown mode", "", "", line("--xdp-require", "fast"), "xdp-require", "native")
	refused("unknown limit", "", "", line("--xdp-limit", "fast"), "xdp-limit", "native")
}

// TestUndone: what goes wrong after the program was attached is undone: the broker says it in one line and ends with 1, and neither
// program nor socket stays on the interface. Another broker can be started at once.
func TestUndone(t *testing.T) {
	s := newScene(t, 2)
	other, err := s.NewPair(2)
	if err != nil {
		t.Fatal(err)
	}
	const opened = "weaker XDP mode" // is logged when the sockets are open: a veth has no zero-copy.
	undone := func(name, before string, arguments []string, words ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			here := &scene{Lab: s.Lab, Pair: s.Pair, t: t}
			said := here.refused(here.InBroker(here.serveLine(arguments...)...), words...)
			if !strings.Contains(said, before) {
				t.Errorf("it went wrong too early for this test:\n%s", said)
			}
			checkBare(t, here)
		})
	}
	listener, err := within(s.Broker, func() (net.Listener, error) { return net.Listen("tcp", ":1883") })
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	undone("port in use", opened, []string{"--data", data}, "1883", "address already in use")
	listener.Close()
	if list, err := os.ReadDir(data); err != nil || len(list) > 0 {
		t.Errorf("what is refused has changed the directory: %v %v", list, err)
	}
	undone("no place for the admin socket", opened, []string{"--admin", "/proc/version/admin.sock"}, "/proc/version", "--admin")
	undone("more prefixes than there is room for", "", []string{"-c", s.config(denyMany())}, s.BrokerIf, "prefixes")

	// A broker whose program is off an interface still has the queues.
	holder := (&scene{Lab: s.Lab, Pair: other, t: t}).start("--mode", "xdp", "--interface", other.BrokerIf, "--listen", ":1884")
	holder.await("msg=steering")
	holder.must("xdp", "detach")
	t.Run("second interface", func(t *testing.T) {
		here := &scene{Lab: s.Lab, Pair: s.Pair, t: t}
		said := here.refused(here.InBroker(here.serveLine("--interface", other.BrokerIf)...), other.BrokerIf, "queue 0", "AF_XDP socket")
		if !strings.Contains(said, opened) {
			t.Errorf("the first interface was not opened:\n%s", said)
		}
		if id := here.programOn(s.BrokerIf) + here.programOn(other.BrokerIf); id != 0 {
			t.Errorf("program %d is on an interface", id)
		}
	})
	holder.stop()
	b := s.serve()
	s.connect(s.Broker4, "c").alive()
	b.stop()
	checkBare(t, s)
}

// denyMany is a list with more prefixes than the program takes.
func denyMany() string {
	var list strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&list, "\"198.18.%d.%d/32\",\n", i>>8&0xff, i&0xff)
	}
	return "deny = [\n" + list.String() + "]"
}

// TestPrivileges: each capability that is missing is named, in one line, and what to do.
func TestPrivileges(t *testing.T) {
	s := newScene(t, 1)
	for _, capability := range []string{"cap_net_raw", "cap_bpf", "cap_perfmon", "cap_net_admin"} {
		t.Run(capability, func(t *testing.T) {
			here := &scene{Lab: s.Lab, Pair: s.Pair, t: t}
			drop := capability
			if capability == "cap_bpf" || capability == "cap_perfmon" {
				drop += ",cap_sys_admin" // which includes it
			}
			argv := append([]string{"capsh", "--drop=" + drop, "--", "-c", `exec "$0" "$@"`}, here.serveLine()...)
			here.refused(here.InBroker(argv...), strings.ToUpper(capability))
			checkBare(t, here)
		})
	}
}

// TestRemedyForPrivileges: the capabilities that the remedy names are enough, for a user who is not root.
func TestRemedyForPrivileges(t *testing.T) {
	s := newScene(t, 1)
	if err := os.Chmod(filepath.Dir(program), 0o755); err != nil {
		t.Fatal(err)
	}
	out, _ := s.InBroker("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", program, "doctor", "--interface", s.BrokerIf).CombinedOutput()
	found := regexp.MustCompile(`setcap (\S+)\+ep`).FindSubmatch(out)
	if found == nil {
		t.Fatalf("the doctor names no setcap:\n%s", out)
	}
	set := "-all,+" + strings.NewReplacer("cap_", "", ",", ",+").Replace(string(found[1]))
	argv := append([]string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps", set, "--ambient-caps", set}, s.serveLine()...)
	cmd := s.InBroker(argv...)
	dieWithTest(cmd)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	said, lines := "", bufio.NewScanner(log)
	for !strings.Contains(said, "msg=steering") && lines.Scan() {
		said += lines.Text() + "\n"
	}
	_ = cmd.Process.Kill() // It may have ended.
	_ = cmd.Wait()
	if !strings.Contains(said, "msg=steering") {
		t.Errorf("with %s the broker says\n%s", set, said)
	}
}

// TestSecondBroker: an interface that a broker steers is refused to a second, which names the first one's program, and the
// first goes on.
func TestSecondBroker(t *testing.T) {
	s := newScene(t, 2)
	b := s.serve()
	c := s.connect(s.Broker4, "c")
	words := []string{s.BrokerIf, "a ringmq runs here", fmt.Sprintf("program %d", b.program), fmt.Sprintf("kill %d", b.cmd.Process.Pid)}
	s.refused(s.InBroker(s.serveLine()...), words...)
	line := []string{program, "serve", "--admin", "none", "--mode", "xdp", "--interface", s.BrokerIf, "--listen", ":1884"}
	s.refused(s.InBroker(line...), words...)
	c.alive()
	if id := s.programOn(s.BrokerIf); id != b.program {
		t.Errorf("program %d is on the interface, it was %d", id, b.program)
	}
}

// TestLockedMemory: the kernel charges umem to the locked-memory limit of processes without CAP_IPC_LOCK. Too low a limit is
// said in one line.
func TestLockedMemory(t *testing.T) {
	s := newScene(t, 1)
	argv := append([]string{"capsh", "--drop=cap_ipc_lock", "--", "-c", `ulimit -l 64 && exec "$0" "$@"`}, s.serveLine()...)
	s.refused(s.InBroker(argv...), "RLIMIT_MEMLOCK", "CAP_IPC_LOCK", "prlimit")
	checkBare(t, s)
}

// TestBadConfiguration: mistakes in the file's table [xdp] are named with the file.
func TestBadConfiguration(t *testing.T) {
	s := newScene(t, 1)
	file := filepath.Join(t.TempDir(), "ringmq.toml")
	for words, want := range map[string]string{
		"interfaces = [\"\"]":        "interface",
		"deny = [\"198.18.0.0/33\"]": "198.18.0.0/33",
		"syn_rate = 5.0":             "syn_burst",
		"congestion_control = \"x\"": "x",
		"receive_frames = 3":         "frames",
		"frame_size = 1000":          "1000",
		"queues = \"0-70000\"":       "queues",
		"receive_buffer = \"1GiB\"":  "buffer",
		"unknown = 1":                "unknown",
	} {
		if err := os.WriteFile(file, []byte("[xdp]\n"+words+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		s.refused(s.InBroker(s.serveLine("-c", file)...), want)
		checkBare(t, s)
	}
}
