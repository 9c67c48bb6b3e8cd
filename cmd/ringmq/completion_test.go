package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestCompletionAnswers asks as the scripts do.
func TestCompletionAnswers(t *testing.T) {
	for _, c := range []struct {
		words      string
		has, lacks []string
	}{
		{"", []string{"serve", "bench", "passwd", "completion"}, nil},
		{"serve --m", []string{"--mode", "--memory"}, []string{"--listen"}},
		{"serve --mode", []string{"auto", "standard", "xdp"}, []string{"--listen"}},
		{"bench --scenario", []string{"pairs", "fanin", "retained"}, []string{"serve"}},
		{"doctor --mode", []string{"auto", "standard", "xdp"}, []string{"--"}},
		{"conform --version", []string{"3.1.1", "5.0"}, []string{"--"}},
		{"xdp", []string{"drain", "limit"}, []string{"--"}},
		{"xdp drain -", []string{"--queue", "--off"}, nil},
		{"serve --passwords", nil, []string{"--", "serve"}}, // a file: the shell's business
		{"completion", []string{"bash", "zsh", "fish"}, nil},
	} {
		stdout, stderr, code := plainly(t, append(strings.Fields(c.words), "--generate-bash-completion")...)
		if code != 0 || stderr != "" {
			t.Errorf("%q: exit code %d, %q", c.words, code, stderr)
		}
		for _, w := range c.has {
			if !slices.Contains(strings.Fields(stdout), w) {
				t.Errorf("%q does not offer %q: %q", c.words, w, stdout)
			}
		}
		for _, w := range c.lacks {
			if strings.Contains(stdout, w) {
				t.Errorf("%q offers %q: %q", c.words, w, stdout)
			}
		}
	}
}

// TestBashCompletes lets a real bash complete.
func TestBashCompletes(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash")
	}
	script, _, code := plainly(t, "completion", "bash")
	if code != 0 {
		t.Fatalf("exit code %d", code)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, "ringmq")); err != nil {
		t.Fatal(err)
	}
	for words, want := range map[string]string{
		"ringmq ser":               "serve",
		"ringmq serve --li":        "--listen",
		"ringmq serve --mode st":   "standard",
		"ringmq bench -s fano":     "fanout",
		"ringmq serve --passwords": "",
		"ringmq xdp drain --of":    "--off",
		"ringmq xdp deny --":       "--admin --remove --help",
	} {
		cmd := exec.Command(bash, "--norc", "-c", script+`
COMP_WORDS=(`+words+`) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_ringmq; echo "${COMPREPLY[*]}"`)
		cmd.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=0", "PATH="+bin+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || want != "" && got != want {
			t.Errorf("%q completes to %q, %v; want %q", words, got, err, want)
		}
	}
}

// TestScriptsParse has each shell that is there read its script.
func TestScriptsParse(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script, stderr, code := plainly(t, "completion", shell)
		if code != 0 || !strings.Contains(script, "complet") || !strings.Contains(script, "ringmq") {
			t.Errorf("%s: exit code %d, %q", shell, code, stderr)
		}
		if path, err := exec.LookPath(shell); err == nil {
			if out, err := exec.Command(path, "-n", inFile(t, script)).CombinedOutput(); err != nil {
				t.Errorf("%s does not take its script: %v: %s", shell, err, out)
			}
		}
	}
}
