//go:build linux

package lab

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCapture: ringmq capture writes what tcpdump does not see, as pcapng that tshark decodes as MQTT: of one client only, of
// one interface and port, so many frames, so much of each.
func TestCapture(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is not installed: apt-get install tshark")
	}
	s := newScene(t, 2)
	b := s.serve()
	watched, other := s.connect(s.Broker4, "watched"), s.connect(s.Broker4, "other")
	watched.subscribe("to/watched", 0)
	other.subscribe("to/other", 0)
	file := filepath.Join(t.TempDir(), "c.pcapng")
	arguments := []string{"capture", "--admin", b.admin, "--interface", s.BrokerIf, "--write", file, "--client", "watched", "--port", "1883", "--count", "8", "--snaplen", "500"}
	cmd := exec.Command(program, arguments...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for deadline, done := time.Now().Add(patience), false; !done; {
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			t.Fatal("the capture does not end")
		}
		other.publish("to/other", 0, []byte("for the other"))
		other.receive()
		watched.publish("to/watched", 0, []byte("for the watched"))
		watched.receive()
		select {
		case err := <-ended:
			if done = true; err != nil {
				t.Fatal(err)
			}
		default:
		}
	}
	out, err := exec.Command(tshark, "-r", file, "-Y", "mqtt", "-T", "fields", "-e", "mqtt.topic", "-e", "ip.addr").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text := string(out)
	if !strings.Contains(text, "to/watched") || strings.Contains(text, "to/other") || !strings.Contains(text, s.Client4) {
		t.Errorf("tshark decodes\n%s", text)
	}
	if frames := strings.Count(b.framesIn(tshark, file), "\n"); frames != 8 {
		t.Errorf("%d frames in the file; want 8", frames)
	}
	for words, arguments := range map[string][]string{
		"not connected": {"capture", "--admin", b.admin, "-w", "-", "--client", "nobody"},
		"not steered":   {"capture", "--admin", b.admin, "-w", "-", "-i", "eth99"},
	} {
		if out, err := exec.Command(program, arguments...).CombinedOutput(); err == nil || !strings.Contains(string(out), words) {
			t.Errorf("%q: %v: %s", arguments, err, out)
		}
	}
}

// framesIn lists a file's frames, one a line.
func (b *process) framesIn(tshark, file string) string {
	b.t.Helper()
	out, err := exec.Command(tshark, "-r", file, "-T", "fields", "-e", "frame.number").Output()
	if err != nil {
		b.t.Fatal(err)
	}
	return string(out)
}
