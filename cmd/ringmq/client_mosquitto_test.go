package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startMosquitto starts the other broker, as a peer that our clients did not grow up with.
func startMosquitto(t *testing.T) (port string) {
	t.Helper()
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/mosquitto"); err != nil {
			t.Skip("mosquitto is not installed: apt-get install mosquitto mosquitto-clients")
		}
	}
	if _, err := exec.LookPath("mosquitto_sub"); err != nil {
		t.Skip("mosquitto_sub is not installed: apt-get install mosquitto-clients")
	}
	port = unusedPort(t)
	file := filepath.Join(t.TempDir(), "mosquitto.conf")
	if err := os.WriteFile(file, []byte("listener "+port+" 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-c", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for end := time.Now().Add(testPatience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) { // It does not say when it listens.
		if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			_ = c.Close()
			return port
		}
	}
	t.Fatal("mosquitto does not listen")
	return ""
}

// TestAgainstMosquitto: all versions and QoS, by way of Mosquitto.
func TestAgainstMosquitto(t *testing.T) {
	port := startMosquitto(t)
	for _, version := range []string{"5", "311"} {
		for _, qos := range []string{"0", "1", "2"} {
			sub := startTool(t, nil, nil, "sub", "-p", port, "-t", "a/#", "-v", "-C", "3000", "-q", qos, "-V", version, "-d")
			sub.waitLine(t, "SUBACK")
			lines := ""
			for i := range 3000 {
				lines += fmt.Sprintf("%d\n", i)
			}
			if _, stderr, code := runTool(t, lines, nil, "pub", "-p", port, "-t", "a/b", "-l", "-q", qos, "-V", version); code != 0 || stderr != "" {
				t.Errorf("pub -V %s -q %s: exit code %d: %s", version, qos, code, stderr)
			}
			stdout, stderr, code := sub.wait(t)
			if want := strings.ReplaceAll("\n"+lines, "\n", "\na/b "); "\n"+stdout != strings.TrimSuffix(want, "a/b ") || code != 0 {
				t.Errorf("sub -V %s -q %s: exit code %d, %d bytes: %s", version, qos, code, len(stdout), stderr)
			}
		}
	}
}

// TestFormatsAsMosquittoSub: the same message, printed by both.
func TestFormatsAsMosquittoSub(t *testing.T) {
	port := startMosquitto(t)
	publish := strings.Fields("-p " + port + " -V 5 -q 1 -r -t form/at -m 0123456789 -D publish user-property k v -D publish user-property k2 v2 " +
		"-D publish content-type ct -D publish response-topic r/t -D publish correlation-data cd -D publish payload-format-indicator 1")
	if _, stderr, code := runTool(t, "", nil, append([]string{"pub"}, publish...)...); code != 0 {
		t.Fatal(stderr)
	}
	// A property that is absent is as wide as it was asked to be here, and there only if it is a number.
	for _, format := range []string{
		"%t %p %q %r %l %m %%", "%C|%D|%E|%F|%P|%R|%S|%A", "%10t|%-10t|%.3t|%10.3t|%5l|%05l|%-5l|", "%x %X %5p %5m",
		`\\ \a\e\t\v\n`, "@Y-@m-@d @@ @a @b @j", "%5F|%05F|%-5F|%5S|%5E|",
	} {
		for _, version := range []string{"5", "311"} {
			arguments := []string{"-p", port, "-V", version, "-q", "1", "-t", "form/at", "-C", "1", "-F", format}
			want, err := exec.Command("mosquitto_sub", arguments...).Output()
			if err != nil {
				t.Fatal(err)
			}
			if got, stderr, _ := runTool(t, "", nil, append([]string{"sub"}, arguments...)...); got != string(want) {
				t.Errorf("-V %s -F %q prints %q, mosquitto_sub %q: %s", version, format, got, want, stderr)
			}
		}
	}
}

// TestSameCommandLines: what is said to Mosquitto's clients can be said to ours.
func TestSameCommandLines(t *testing.T) {
	port := startBroker(t, "--allow-anonymous")
	if _, err := exec.LookPath("mosquitto_sub"); err != nil {
		t.Skip("mosquitto_sub is not installed: apt-get install mosquitto-clients")
	}
	for _, line := range []string{
		"-t a -m x", "-t a -n", "-t a -n -q 1", "-t a -m x -q 2 -i me -k 10 -V mqttv311", "-t a -m x --repeat 2 --repeat-delay 0.01",
		"-t a -m x -V 5 -x 10 -D publish user-property k v --will-topic w --will-payload y --will-qos 1 --will-retain",
		"-L mqtt://127.0.0.1:" + port + "/a -m x", "-t a -m -1 -c -i keep -M 5 --nodelay --quiet", "-t a -m x -I pre -A 127.0.0.1 -V mqttv5",
	} {
		for _, program := range []string{"mosquitto_pub", os.Args[0]} {
			arguments := strings.Fields(line)
			if !strings.HasPrefix(line, "-L") {
				arguments = append([]string{"-h", "127.0.0.1", "-p", port}, arguments...)
			}
			if program != "mosquitto_pub" {
				arguments = append([]string{"pub"}, arguments...)
			}
			cmd := exec.Command(program, arguments...)
			cmd.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=0")
			if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%s %s: %v: %s", filepath.Base(program), line, err, out)
			}
		}
	}
}
