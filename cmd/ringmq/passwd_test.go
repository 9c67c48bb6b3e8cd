package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/broker/credentials"
	"github.com/urfave/cli/v2"
)

// passwd runs ringmq passwd with the input as standard input.
func passwd(input string, arguments ...string) (out string, err error) {
	var written bytes.Buffer
	app := &cli.App{
		Name: "ringmq", Commands: []*cli.Command{passwdCommand()},
		Reader: strings.NewReader(input), Writer: &written, ErrWriter: &written,
		ExitErrHandler: func(*cli.Context, error) {},
	}
	err = app.Run(append([]string{"ringmq", "passwd"}, arguments...))
	return written.String(), err
}

func verify(t *testing.T, path, user, password string) bool {
	t.Helper()
	f, err := credentials.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return f.Verify(user, []byte(password))
}

func TestPasswd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passwords")
	for _, step := range []struct {
		input     string
		arguments []string
	}{
		{"", []string{"-c", "-b", path, "alice", "first"}},
		{"second\r\nnot this", []string{path, "alice"}},
		{"no newline", []string{"-H", "argon2id", path, "bob"}},
		{"", []string{"-b", path, "carol", "third"}},
		{"", []string{"-D", path, "carol"}},
	} {
		if out, err := passwd(step.input, step.arguments...); err != nil || out != "" {
			t.Fatalf("%q: %v, %q", step.arguments, err, out)
		}
	}
	if !verify(t, path, "alice", "second") || !verify(t, path, "bob", "no newline") || verify(t, path, "carol", "third") {
		t.Error("a password was not set, or a deleted user is still there")
	}
}

func TestPasswdUpgrade(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passwords")
	if err := os.WriteFile(path, []byte("alice:plain\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := passwd("", "-U", path)
	if err != nil || out != "Hashed passwords: 1\n" || !verify(t, path, "alice", "plain") {
		t.Errorf("%v, %q", err, out)
	}
}

func TestPasswdRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passwords")
	for _, tt := range []struct {
		want      string
		arguments []string
	}{
		{"expected FILE USER, got 0", nil},
		{"expected FILE USER, got 1", []string{path}},
		{"needs -b", []string{path, "alice", "password"}},
		{"expected FILE USER PASSWORD, got 2", []string{"-b", path, "alice"}},
		{"expected FILE, got 2", []string{"-U", path, "alice"}},
		{"expected FILE USER, got 3", []string{"-D", path, "alice", "bob"}},
		{"only one", []string{"-c", "-D", path, "alice"}},
		{"only one", []string{"-b", "-U", path}},
		{"unknown hash \"md5\"", []string{"-H", "md5", path, "alice"}},
		{"-c makes a new file", []string{"-b", path, "alice", "password"}},
		{"input ended", []string{"-c", path, "alice"}},
		{"user name", []string{"-c", "-b", path, "a:b", "password"}},
	} {
		_, err := passwd("", tt.arguments...)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: error %v does not say %q in one line", tt.arguments, err, tt.want)
		}
		if _, err := os.Stat(path); err == nil {
			t.Fatalf("%q made a file", tt.arguments)
		}
	}
}
