package credentials

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// need skips, naming the Debian package, where a program is missing.
func need(t *testing.T, program, debianPackage string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		path, err = exec.LookPath(filepath.Join("/usr/sbin", program)) // Not everyone's PATH has it.
	}
	if err != nil {
		t.Skipf("%s is missing: apt-get install %s", program, debianPackage)
	}
	return path
}

func run(t *testing.T, program string, arguments ...string) {
	t.Helper()
	if out, err := exec.Command(program, arguments...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v: %s", program, arguments, err, out)
	}
}

func TestReadsWhatMosquittoPasswdWrites(t *testing.T) {
	passwd := need(t, "mosquitto_passwd", "mosquitto")
	path := write(t, "")
	if err := Set(path, "alice", []byte("ours"), PBKDF2); err != nil {
		t.Fatal(err)
	}
	if err := Set(path, "bob", []byte("ours"), PBKDF2); err != nil {
		t.Fatal(err)
	}
	run(t, passwd, "-b", path, "bøb", "påss word:$7$")
	run(t, passwd, "-b", path, "bob", "theirs")
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if !f.Verify("bøb", []byte("påss word:$7$")) || !f.Verify("bob", []byte("theirs")) || f.Verify("bob", []byte("ours")) {
		t.Error("a password of mosquitto_passwd is refused or an old one accepted")
	}
	if f.users["bob"].verifier != nil || f.users["alice"].verifier == nil {
		t.Error("a verifier outlives its password, or is lost with another's")
	}
}

func TestMosquittoReadsWhatWeWrite(t *testing.T) {
	broker, publish := need(t, "mosquitto", "mosquitto"), need(t, "mosquitto_pub", "mosquitto-clients")
	path := write(t, "# our comment\r\n\n")
	for user, password := range map[string]string{"alice": "wonderland", "bøb": "påss word:$7$"} {
		if err := Set(path, user, []byte(password), PBKDF2); err != nil {
			t.Fatal(err)
		}
	}
	port := serve(t, broker, path)
	for _, tt := range []struct {
		user, password string
		welcome        bool
	}{{"alice", "wonderland", true}, {"bøb", "påss word:$7$", true}, {"alice", "wrong", false}, {"SCRAM-SHA-256", "x", false}} {
		err := exec.Command(publish, "-h", "127.0.0.1", "-p", port, "-t", "t", "-m", "m", "-u", tt.user, "-P", tt.password).Run()
		if (err == nil) != tt.welcome {
			t.Errorf("mosquitto lets %s in: %v, want %v", tt.user, err == nil, tt.welcome)
		}
	}
}

// serve runs a mosquitto on a free port of loopback until the test ends.
func serve(t *testing.T, broker, passwords string) (port string) {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ = net.SplitHostPort(free.Addr().String())
	free.Close()
	config := filepath.Join(t.TempDir(), "mosquitto.conf")
	words := fmt.Sprintf("listener %s 127.0.0.1\npassword_file %s\nuser root\n", port, passwords)
	if err := os.WriteFile(config, []byte(words), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(broker, "-c", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	waitListening(t, "127.0.0.1:"+port)
	return port
}

func waitListening(t *testing.T, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("mosquitto does not listen on %s", address)
		}
	}
}
