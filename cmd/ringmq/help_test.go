package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// tried are command lines that must succeed; between them they use every flag of the command. What the flags do is
// tested elsewhere: this keeps the help from naming what does not work.
func tried(t *testing.T) map[string][]string {
	config := inFile(t, "shards = 1\n")
	users := inFile(t, "")
	return map[string][]string{
		"serve": {
			"-c " + config + " --test-config -v",
			"--listen 127.0.0.1:0 --listen [::1]:0 --allow-anonymous --passwords " + users + " --mode standard --admin none --test-config -q",
			"--mode standard --interface lo,eth0 --queues all --cpus 0 --xdp-require any --xdp-limit native --busy-poll --allow-unbound-queues --test-config",
			"-p 1884 --shards 2 --max-connections 100 --memory 128MiB --prefault --data /var/lib/ringmq --durability os --plan",
		},
		"passwd": {
			"-c -b " + users + " alice secret",
			"-H sha512-pbkdf2 -b " + users + " bob secret",
			"-D " + users + " bob",
			"-U " + inFile(t, "carol:plain\n"),
		},
		"completion": {"bash"},
	}
}

// triedElsewhere have a test of their own that runs them.
var triedElsewhere = [...]string{"bench", "conform", "status", "pub", "sub", "doctor", "xdp", "capture", "store"}

func TestEveryFlagOfTheHelpIsTried(t *testing.T) {
	rows := tried(t)
	for _, command := range commands() {
		if slices.Contains(triedElsewhere[:], command.Name) {
			continue
		}
		used := map[string]bool{}
		for _, line := range rows[command.Name] {
			arguments := strings.Fields(line)
			for _, a := range arguments {
				used[strings.TrimLeft(a, "-")] = used[strings.TrimLeft(a, "-")] || strings.HasPrefix(a, "-")
			}
			if stdout, stderr, code := plainly(t, append([]string{command.Name}, arguments...)...); code != 0 || stderr != "" {
				t.Errorf("%s %s: exit code %d, %s%s", command.Name, line, code, stdout, stderr)
			}
		}
		if len(rows[command.Name]) == 0 {
			t.Errorf("%s is not tried at all", command.Name)
		}
		checkUsed(t, command, used)
	}
}

func checkUsed(t *testing.T, command *cli.Command, used map[string]bool) {
	t.Helper()
	for _, f := range command.Flags {
		if !slices.ContainsFunc(f.Names(), func(name string) bool { return used[name] }) {
			t.Errorf("%s: nothing tries --%s", command.Name, f.Names()[0])
		}
	}
}

// TestEveryCommandHasExamples: the help of each shows how it is used.
func TestEveryCommandHasExamples(t *testing.T) {
	for _, command := range commands() {
		stdout, stderr, code := plainly(t, command.Name, "--help")
		if code != 0 || stderr != "" || !strings.Contains(stdout, "Examples:") || !strings.Contains(stdout, "ringmq "+command.Name) {
			t.Errorf("%s --help: exit code %d, %q, no examples in\n%s", command.Name, code, stderr, stdout)
		}
	}
}
