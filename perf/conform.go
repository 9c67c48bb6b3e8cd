package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringmq/ringmq/broker/conform"
)

const (
	conformTimeout  = 5 * time.Second
	conformQuiet    = 200 * time.Millisecond
	conformRevival  = 20 * time.Second
	conformParallel = 4
	conformRunLen   = 6
)

// mortal is a broker that is started again when it has died of a conversation.
type mortal struct {
	conform.TCP
	name, version string
	start         func() (*server, error)

	mutex  sync.Mutex // guards what follows
	server *server
	deaths int
}

// Dial starts the broker if it is not there.
func (m *mortal) Dial(ctx context.Context) (conform.Conn, error) {
	c, err := m.TCP.Dial(ctx)
	if err == nil {
		return c, nil
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	select {
	case <-m.server.ended:
		m.deaths++
		if m.server, err = m.start(); err != nil {
			return nil, err
		}
	default: // Somebody else has started it meanwhile.
	}
	return m.TCP.Dial(ctx)
}

// conformed is what one broker did.
type conformed struct {
	*mortal
	report conform.Report
}

// runConform is `perf conform`.
func runConform(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("perf conform", flag.ContinueOnError)
	names := flags.String("targets", "ringmq,mosquitto,mochi", "some of "+targetNames+", which speak 5.0")
	built := flags.String("ringmq", "", "a ringmq program to try instead of building this checkout's")
	parallel := flags.Int("parallel", conformParallel, "how many conversations at a time")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "ringmq-conform")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	targets, err := prepare(ctx, strings.Split(*names, ","), sources{dir: dir, ringmq: *built})
	if err != nil {
		return err
	}
	var all []conformed
	for i, t := range targets {
		fmt.Fprintf(os.Stderr, "%s, %s\n", t.name, t.version)
		done, err := conformOne(ctx, t, portFirst+i, *parallel)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		all = append(all, done)
	}
	return printConformed(os.Stdout, all)
}

// conformOne starts a broker, plays everything, and ends it.
func conformOne(ctx context.Context, t target, port, parallel int) (conformed, error) {
	address := netip.AddrPortFrom(loopback(), uint16(port))
	m := &mortal{TCP: conform.TCP{Address: address.String(), Timeout: conformTimeout}, name: t.name, version: t.version}
	argv := t.command(port, comparison{})
	if argv == nil {
		return conformed{}, fmt.Errorf("it cannot be tried")
	}
	m.start = func() (*server, error) { return startServer(ctx, argv, -1, address) }
	var err error
	if m.server, err = m.start(); err != nil {
		return conformed{}, err
	}
	defer func() { m.server.stop() }()
	plan := conform.Plan{Parallel: parallel, Revival: conformRevival}
	plan.Timeout, plan.Quiet, plan.Run = conformTimeout, conformQuiet, strings.ToLower(rand.Text()[:conformRunLen])
	results, err := conform.Run(ctx, m, plan)
	if err != nil {
		return conformed{}, err
	}
	report, err := conform.Summarise(results, nil)
	return conformed{m, report}, err
}

// printConformed writes the table: how many statements hold where, those that do not hold everywhere, and why.
func printConformed(w io.Writer, all []conformed) error {
	out := &table{to: w}
	out.line("# Conformance of brokers\n")
	out.line("Written by `go run ./perf conform > broker/conform/peers.md`, which starts each broker on loopback with its defaults, and")
	out.line("plays the conversations of `ringmq conform` with it. It says what these versions do in these conversations, no more.\n")
	out.line("| Broker | Version | Statements of | hold | fail | of clients, not enforced | not to be tried | its process died, in all |")
	out.line("|---|---|---|---|---|---|---|---|")
	for _, c := range all {
		for _, v := range c.report.Versions {
			out.line("| %s | %s | %s | %d | %d | %d | %d | %s |", c.name, c.version, v.Version, v.Holds, v.Fails, v.Unenforced, v.Skipped+v.Unplayed, deaths(c.deaths))
		}
	}
	for i, v := range all[0].report.Versions {
		out.line("\n## MQTT %s: statements that do not hold everywhere\n", v.Version)
		out.line("| Statement | In short |%s", joined(all, func(c conformed) string { return " " + c.name + " |" }))
		out.line("|---|---|%s", strings.Repeat("---|", len(all)))
		for at, s := range v.Statements {
			cells := joined(all, func(c conformed) string { return " " + outcome(c.report.Versions[i].Statements[at]) + " |" })
			if strings.Trim(cells, "| holds") != "" {
				out.line("| %s | %s |%s", s.ID, s.Says, cells)
			}
		}
	}
	for _, c := range all {
		out.problems(c)
	}
	return out.err
}

func deaths(n int) string {
	return cmp.Or(map[int]string{0: "no", 1: "once", 2: "twice"}[n], fmt.Sprint(n, " times"))
}

func outcome(s conform.StatementReport) string {
	if s.Outcome == conform.Fails && s.Whom == conform.Client {
		return "not enforced"
	}
	if s.Outcome == conform.Fails {
		return "**fails**"
	}
	return string(s.Outcome)
}

func joined(all []conformed, text func(conformed) string) string {
	var out strings.Builder
	for _, c := range all {
		out.WriteString(text(c))
	}
	return out.String()
}

// table writes lines and keeps the first error.
type table struct {
	to  io.Writer
	err error
}

func (t *table) line(format string, values ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.to, format+"\n", values...)
	}
}

// problems lists the conversations that a broker did not go through, each once.
func (t *table) problems(c conformed) {
	var told []string
	for _, v := range c.report.Versions {
		for _, s := range v.Statements {
			for _, check := range s.Checks {
				problem := strings.NewReplacer("|", `\|`, c.TCP.Address, "its address").Replace(check.Problem)
				said := fmt.Sprintf("* %s, %s: %s", check.Name, v.Version, problem)
				if check.Outcome == conform.Holds || slices.Contains(told, said) {
					continue
				}
				if len(told) == 0 {
					t.line("\n## %s: what it did otherwise\n", c.name)
				}
				told = append(told, said)
				t.line("%s", said)
			}
		}
	}
}
