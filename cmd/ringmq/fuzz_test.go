package main

import (
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// FuzzConfiguration reads any text as a configuration file, and judges it as "ringmq serve --test-config" does: an error names the file,
// or the limits are ones that a plan can be made of.
func FuzzConfiguration(f *testing.F) {
	for _, text := range []string{
		"listen = [\":1883\"]\nmemory = \"64MiB\"\nshards = 2\n",
		"mode = \"xdp\"\nmax_keep_alive = \"90s\"\n[xdp]\ninterfaces = [\"eth0\"]\nqueues = \"0,2-3\"\n",
		"max_connections = 0", "memory = 1e400", "listen = \"x", "[xdp]\ndeny = [\"192.0.2.0/24\", \"::/0\"]", "sys_interval = \"1ns\"", "a.b.c = 1",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := &settings{}
		if err := s.read("x.toml", []byte(text)); err != nil {
			if !strings.Contains(err.Error(), "x.toml") {
				t.Errorf("the error does not name the file: %v", err)
			}
			return
		}
		if s.check() != nil {
			return
		}
		if _, _, err := s.addresses(); err != nil {
			return
		}
		if l, err := s.limits(1<<30, 1<<16, nil, dataPlane{}); err == nil {
			if p, err := l.Plan(); err != nil || p.Bytes() > l.Memory || p.Pages < 1 || p.Messages < 1 {
				t.Errorf("limits that are accepted have no plan: %v, %d of %d bytes", err, p.Bytes(), l.Memory)
			}
		}
	})
}

// FuzzCommandLine gives the program any arguments, one a line, up to where a command would begin its work.
func FuzzCommandLine(f *testing.F) {
	for _, line := range []string{
		"serve --listen :1883 --memory 64MiB --shards 2", "serve -p 0", "serve -v -q", "pub -t a/b -m hi -q 1 -D publish user-property k v",
		"pub -n", "sub -t # -C 3 -F %p", "sub --help", "bench --time 5s", "status --json", "xdp stats", "capture -w x.pcapng", "passwd -c users alice", "completion bash",
		"-h", "--version", "nothing", "pub -L mqtt://u:p@h:1/t -W -1", "doctor --interface eth0",
	} {
		f.Add(strings.ReplaceAll(line, " ", "\n"))
	}
	f.Fuzz(func(_ *testing.T, text string) {
		app := &cli.App{Name: "ringmq", Commands: commands(), Writer: io.Discard, ErrWriter: io.Discard, HideHelpCommand: true, EnableBashCompletion: true,
			OnUsageError: usageError, ExitErrHandler: func(*cli.Context, error) {}, CommandNotFound: func(*cli.Context, string) {}}
		harmless(app.Commands)
		_ = app.Run(append([]string{"ringmq"}, strings.Split(text, "\n")...))
	})
}

// harmless has commands do no more than read their flags.
func harmless(list []*cli.Command) {
	for _, c := range list {
		harmless(c.Subcommands)
		c.OnUsageError = usageError
		c.Before, c.After = nil, nil
		switch {
		case c.Name == "serve":
			c.Action = func(c *cli.Context) error { return new(settings).fromFlags(c) }
		case c.SkipFlagParsing:
			c.Action = func(c *cli.Context) error {
				_, err := parseArguments(c)
				return err
			}
		default:
			c.Action = func(*cli.Context) error { return nil }
		}
	}
}

// FuzzPrefixes reads any text as a prefix, as a list of numbers and as an address to listen on: what is accepted comes back from its own words, and
// an error says what was wrong.
func FuzzPrefixes(f *testing.F) {
	for _, text := range []string{"192.0.2.0/24", "192.0.2.77/24", "192.0.2.1", "2001:db8::/32", "::/0", "fe80::1%eth0", "::ffff:192.0.2.1", "1.2.3.4/33", "0,2-3", "0-4095", "3-1", ":1883",
		"[::1]:1883", "localhost:1", "0.0.0.0"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePrefix(text)
		if err != nil && !strings.Contains(err.Error(), strconv.Quote(text)) {
			t.Errorf("the error does not say what was wrong: %v", err)
		}
		if again, err2 := parsePrefix(p.String()); err == nil && (err2 != nil || again != p || p != p.Masked() || p.Addr().Zone() != "") {
			t.Errorf("%q is %v, which is %v, %v", text, p, again, err2)
		}
		if list, err := parseNumbers(text); err == nil && (len(list) == 0 || slices.Min(list) < 0 || slices.Max(list) > numberMax) {
			t.Errorf("%q is the numbers %v", text, list)
		}
		addresses, err := parseListen(text)
		for _, a := range addresses {
			if again, err := parseListen(a.String()); err != nil || len(again) != 1 || again[0] != a {
				t.Errorf("%q is %v, which is %v, %v", text, a, again, err)
			}
		}
		if (err == nil) != (len(addresses) > 0) {
			t.Errorf("%q: %v, %v", text, addresses, err)
		}
	})
}
