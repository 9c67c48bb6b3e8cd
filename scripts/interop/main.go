package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const usage = `usage: go run ./scripts/interop [flags]

Runs real MQTT clients through scenes against a broker, and prints which of them passed in which protocol version.
Without --address it builds this checkout's ringmq and starts it on loopback. The first run, or --install, fetches MQTT.js
with npm into the user's cache directory; later ones need no network, so that they also run in a network namespace (with lo
up, which paho for Python needs).

`

// choices are the command's flags.
type choices struct {
	address  string
	clients  []string
	scenes   []string
	require  []string
	limit    time.Duration
	install  bool
	markdown bool
	json     bool
	verbose  bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		os.Exit(1)
	}
}

func parse(arguments []string, stderr io.Writer) (choices, error) {
	var o choices
	f := flag.NewFlagSet("interop", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprint(stderr, usage)
		f.PrintDefaults()
	}
	f.StringVar(&o.address, "address", "", "drive the broker at `HOST:PORT`; it must let anonymous clients in")
	f.Func("client", "run these clients only: `NAME,…`", names(&o.clients))
	f.Func("scene", "run these scenes only: `NAME,…`", names(&o.scenes))
	f.Func("require", "fail if one of these clients is missing: `NAME,…` or all (the default where CI is true)", names(&o.require))
	f.DurationVar(&o.limit, "limit", 40*time.Second, "how long one scene may take")
	f.BoolVar(&o.install, "install", false, "fetch what the clients need, say which are there, and exit")
	f.BoolVar(&o.markdown, "markdown", false, "print the table as the README has it")
	f.BoolVar(&o.json, "json", false, "print everything as JSON")
	f.BoolVar(&o.verbose, "v", false, "say on standard error what passes as it does")
	if err := f.Parse(arguments); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q: clients and scenes are named by --client and --scene", f.Arg(0))
	}
	if o.require == nil && os.Getenv("CI") == "true" {
		o.require = []string{"all"}
	}
	return o, nil
}

func names(to *[]string) func(string) error {
	return func(list string) error {
		*to = append(*to, strings.Split(list, ",")...)
		return nil
	}
}

// command runs the suite and prints its report; an error says that not all is well.
func command(ctx context.Context, arguments []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(arguments, stderr)
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "ringmq-interop")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	s, err := o.suite(folder, stderr)
	if err != nil {
		return err
	}
	if o.install {
		return o.judge(s.muster(ctx, stdout))
	}
	if o.address == "" {
		program, err := build(ctx, folder)
		if err != nil {
			return err
		}
		b, err := startBroker(ctx, program, folder)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, b.stop()) }()
		o.address = b.address
	}
	if err := s.drive(o.address); err != nil {
		return err
	}
	r := s.run(ctx)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if err := o.print(r, stdout); err != nil {
		return err
	}
	return o.judge(r)
}

// suite makes the suite of the flags, without an address yet.
func (o choices) suite(folder string, stderr io.Writer) (*suite, error) {
	if err := writeScripts(folder); err != nil {
		return nil, err
	}
	chosenClients, err := selected(clients(folder), o.clients)
	if err != nil {
		return nil, err
	}
	chosenScenes, err := chosen(o.scenes)
	if err != nil {
		return nil, err
	}
	s := &suite{clients: chosenClients, scenes: chosenScenes, limit: o.limit, progress: func(string, ...any) {}}
	if o.verbose {
		s.progress = func(format string, v ...any) { fmt.Fprintf(stderr, format+"\n", v...) }
	}
	return s, nil
}

// drive sets the broker's address, which must answer.
func (s *suite) drive(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("--address %q: want HOST:PORT, such as 198.18.0.1:1883", address)
	}
	if s.port, err = strconv.Atoi(port); err != nil {
		return fmt.Errorf("--address %q: the port is no number", address)
	}
	s.host = host
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return fmt.Errorf("no broker: %w", err)
	}
	return conn.Close()
}

func (o choices) print(r report, stdout io.Writer) error {
	switch {
	case o.json:
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		return e.Encode(r)
	case o.markdown:
		r.markdown(stdout)
	default:
		r.plain(stdout)
	}
	return nil
}

// judge is the error of cells that fail and of clients that are missing although required.
func (o choices) judge(r report) error {
	var errs []error
	for _, m := range r.Missing {
		if slices.Contains(o.require, "all") || slices.Contains(o.require, m.Client) {
			errs = append(errs, fmt.Errorf("%s is missing: install %s (%s)", m.Client, m.Needs, m.Why))
		}
	}
	if failed := r.failed(); len(failed) > 0 {
		errs = append(errs, fmt.Errorf("%d of %d cells fail", len(failed), len(r.Cells)))
	}
	return errors.Join(errs...)
}
