//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// command runs ringmq in the broker's namespace, and gives what it printed and its exit status.
func (s *scene) command(arguments ...string) (text string, status int) {
	s.t.Helper()
	out, err := s.InBroker(append([]string{program}, arguments...)...).CombinedOutput()
	if failed, is := errors.AsType[*exec.ExitError](err); is {
		return string(out), failed.ExitCode()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return string(out), 0
}

// expect runs ringmq and compares the exit status, and looks for words, each of which must be there.
func (s *scene) expect(line string, status int, words ...string) string {
	s.t.Helper()
	text, got := s.command(strings.Fields(line)...)
	if got != status {
		s.t.Errorf("ringmq %s: exit status %d, want %d:\n%s", line, got, status, text)
	}
	for _, word := range words {
		if !strings.Contains(text, word) {
			s.t.Errorf("ringmq %s: no %q in\n%s", line, word, text)
		}
	}
	return text
}

// TestDoctorBesideBroker: on the interface of a broker that runs, the doctor says which process has it and where it is
// administered, that it works, and what another broker would meet in each mode; and so it is when one is started. The command
// that it prints ends the broker, and then another would start.
func TestDoctorBesideBroker(t *testing.T) {
	s := newScene(t, 2)
	doctor := "doctor --interface " + s.BrokerIf
	s.expect(doctor+" --mode xdp", 0, "mode xdp would choose xdp native copy")
	b := s.serve()
	c := s.connect(s.Broker4, "c")
	// b.cmd became the broker: ip netns exec replaces itself.
	who := fmt.Sprintf("process %d (ringmq, admin socket %s)", b.cmd.Process.Pid, b.admin)
	stop := fmt.Sprintf("-> kill %d\n", b.cmd.Process.Pid)
	runs := fmt.Sprintf("a ringmq runs here, %s, and has XDP program %d in native mode: this host works", who, b.program)
	for _, line := range []string{" --mode xdp", " --mode xdp --port 1884"} {
		s.expect(doctor+line, 4, "running  "+s.BrokerIf+" ringmq", runs, stop, "beside it mode xdp would not start: "+s.BrokerIf+": a ringmq runs here")
	}
	s.expect(doctor, 4, runs, "beside it mode auto would not start: port 1883 is taken by "+who)
	s.expect(doctor+" --mode standard", 4, "beside it mode standard would not start: port 1883 is taken by "+who)
	s.expect("doctor --port 1884", 0, "mode auto would choose standard")
	s.expect(doctor+" --port 1884", 2, "mode auto would choose standard: "+s.BrokerIf+": a ringmq runs here")
	// What is wrong besides is no matter of the broker that runs.
	s.broker("ip link set %s mtu 1771", s.BrokerIf)
	s.expect(doctor+" --mode xdp", 3, runs, "the MTU is 1771", "or frame_size = 4096")
	s.broker("ip link set %s mtu 1500", s.BrokerIf)

	auto := s.start("--mode", "auto", "--interface", s.BrokerIf, "--listen", ":1884")
	auto.await("mode standard", "a ringmq runs here", fmt.Sprint(b.cmd.Process.Pid))
	auto.await("msg=listening")
	auto.stop()
	c.alive()

	// The program is off, and the broker has the queues still.
	b.must("xdp", "detach", "--force")
	s.expect(doctor+" --mode xdp", 4, "running  "+s.BrokerIf+" queues", "an AF_XDP socket of "+who+" has queues 0-1", stop)

	if err := Run(fmt.Sprintf("kill %d", b.cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	<-b.ended
	b.vanished()
	s.expect(doctor+" --mode xdp", 0, "mode xdp would choose xdp native copy")
}

// TestDoctorBesideStandardBroker: one that has no interface is known by its port.
func TestDoctorBesideStandardBroker(t *testing.T) {
	s := newScene(t, 1)
	b := s.serveStandard()
	s.expect("doctor", 4, fmt.Sprintf("port 1883 is taken by process %d (ringmq, admin socket %s)", b.cmd.Process.Pid, b.admin), fmt.Sprintf("-> kill %d\n", b.cmd.Process.Pid))
	s.expect("doctor --port 1884", 0, "mode auto would choose standard")
	for _, line := range []string{"drain", "detach", "deny 198.18.0.0/16", "limit --source 5/s"} {
		if out, err := b.run(append([]string{"xdp"}, strings.Fields(line)...)...); err == nil || !strings.Contains(err.Error(), "nothing has changed") {
			t.Errorf("ringmq xdp %s of a broker in standard mode: %v, %s", line, err, out)
		}
	}
}

// nobody is where no broker of the lab answers: /run/ringmq is of the machine's.
const nobody = " --admin /nonexistent/admin.sock"

// ours tells whether a text names a program or the interface; other tests' brokers may be in it, too.
func (s *scene) ours(text string, b *process) bool {
	return strings.Contains(text, fmt.Sprintf("program %d", b.program)) || strings.Contains(text, "interface "+s.BrokerIf)
}

// TestStatusWithoutBroker: where no broker ever ran there is nothing to see; the commands fail, and say that.
func TestStatusWithoutBroker(t *testing.T) {
	s := newScene(t, 1)
	for _, line := range []string{"xdp status", "xdp drain", "xdp detach"} {
		text := s.expect(line+nobody, 1, "ringmq: "+line+": no broker answers", "in this kernel")
		if strings.Contains(text, "interface "+s.BrokerIf) {
			t.Errorf("ringmq %s without a broker says\n%s", line, text)
		}
	}
	out, err := s.InBroker(program, "xdp", "status", "--json", "--admin", "/nonexistent/admin.sock").Output()
	if err == nil || len(out) > 0 {
		t.Errorf("ringmq xdp status --json without a broker: %v, %s", err, out)
	}
}

// TestStatusOfLostSocket: a broker that runs and is not found at its admin socket is named, and how to ask it.
func TestStatusOfLostSocket(t *testing.T) {
	s := newScene(t, 1)
	b := s.serve()
	s.expect("xdp status"+nobody, 1, fmt.Sprintf("interface %s, native mode: XDP program %d (ringmq_steer) of process %d (ringmq)", s.BrokerIf, b.program, b.cmd.Process.Pid),
		"-> ringmq xdp status --admin "+b.admin)
	// Another namespace does not have the interface's name.
	out, _ := exec.Command(program, "xdp", "status", "--admin", "/nonexistent/admin.sock").CombinedOutput()
	if want := fmt.Sprintf("of another network namespace: XDP program %d (ringmq_steer)", b.program); !strings.Contains(string(out), want) {
		t.Errorf("no %q in\n%s", want, out)
	}
	if err := os.Remove(b.admin); err != nil {
		t.Fatal(err)
	}
	s.expect("xdp status"+nobody, 1, fmt.Sprintf("-> kill %d\n", b.cmd.Process.Pid))
}

// TestStatusAfterCrash: the broker gets SIGKILL. Nothing of it is to be seen; what somebody has pinned is, with the interface, and
// is away after the commands that are printed; and a program of somebody else is named as such, with its own command.
func TestStatusAfterCrash(t *testing.T) {
	s := newScene(t, 1)
	b := s.serve()
	b.kill()
	for _, line := range []string{"xdp status", "xdp drain", "xdp detach"} {
		if text := s.expect(line+nobody, 1, "in this kernel"); s.ours(text, b) {
			t.Errorf("after a crash ringmq %s says\n%s", line, text)
		}
	}
	s.expect("doctor --mode xdp --interface "+s.BrokerIf, 0)

	f := newForeign(t)
	if err := f.attach(s, false); err != nil {
		t.Fatal(err)
	}
	remove := fmt.Sprintf("ip link set dev %s xdpdrv off", s.BrokerIf)
	for _, line := range []string{"xdp status", "xdp detach"} {
		s.expect(line+nobody, 1, fmt.Sprintf("interface %s, native mode: XDP program %d (somebody_else), not ringmq's\n  -> %s\n", s.BrokerIf, f.id, remove))
	}
	if id := s.programOn(s.BrokerIf); id != f.id {
		t.Errorf("program %d is on the interface, it was %d", id, f.id)
	}
	s.broker("%s", remove)
	if err := f.attach(s, true); err != nil {
		t.Fatal(err)
	}
	text := s.expect("xdp status"+nobody, 1, fmt.Sprintf("(somebody_else) of process %d (lab.test", os.Getpid()))
	_, command, _ := strings.Cut(text, fmt.Sprintf("%s, native mode: XDP program %d", s.BrokerIf, f.id))
	_, command, _ = strings.Cut(command, "  -> ")
	command, _, _ = strings.Cut(command, "\n")
	if err := Run(command); err != nil || s.programOn(s.BrokerIf) != 0 {
		t.Errorf("%q: %v, program %d", command, err, s.programOn(s.BrokerIf))
	}
}

// TestStatusOfPinnedLink: somebody has pinned the broker's link, so that the program outlives it.
func TestStatusOfPinnedLink(t *testing.T) {
	s := newScene(t, 1)
	bpffs := t.TempDir()
	if err := Run("mount -t bpf bpf " + bpffs); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Run("umount " + bpffs); err != nil {
			t.Error(err)
		}
	})
	b := s.serve()
	pin, link := filepath.Join(bpffs, "held"), b.lane().LinkID
	if err := Run(fmt.Sprintf("bpftool link pin id %d %s", link, pin)); err != nil {
		t.Fatal(err)
	}
	b.kill()
	detach := fmt.Sprintf("bpftool link detach id %d", link)
	left := fmt.Sprintf("XDP program %d (ringmq_steer) of a ringmq that has ended", b.program)
	for _, line := range []string{"xdp status", "xdp drain", "xdp detach"} {
		s.expect(line+nobody, 1, "interface "+s.BrokerIf+", native mode: "+left, "-> "+detach+"\n")
	}
	s.expect("doctor --mode xdp --interface "+s.BrokerIf, 2, "was a ringmq's, and no process has it any more", "-> "+detach+"\n")
	if err := Run(detach); err != nil {
		t.Fatal(err)
	}
	show := fmt.Sprintf("bpftool --bpffs link show id %d", link)
	s.expect("xdp status"+nobody, 1, "no interface any more", left, "-> "+show+" names the file")
	if out, err := exec.Command("bpftool", strings.Fields(show)[1:]...).CombinedOutput(); err != nil || !strings.Contains(string(out), pin) {
		t.Errorf("%s: %v, %s", show, err, out)
	}
	if err := os.Remove(pin); err != nil {
		t.Fatal(err)
	}
	b.vanished()
	if text := s.expect("xdp status"+nobody, 1); s.ours(text, b) {
		t.Errorf("afterwards status says\n%s", text)
	}
}
