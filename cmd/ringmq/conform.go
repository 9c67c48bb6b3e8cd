package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/ringmq/ringmq/broker/conform"
	"github.com/urfave/cli/v2"
)

// conformFails is the exit status when a statement does not hold.
const conformFails = 4

const conformDescription = `Plays conversations against any MQTT broker and says, for each normative statement of MQTT 3.1.1 and 5.0 that shows on the
wire, whether it holds there. What the standards leave to a broker is left to it. Topics lie below conform/, Client
Identifiers are new in each run, and what a run leaves in the broker is cleared again; do not run it against a broker whose
clients you cannot spare, for it is meant to find out what brokers cannot stand.

Examples:
  ringmq conform localhost                              everything, by statement
  ringmq conform --failures 192.0.2.1:1883              only what does not hold
  ringmq conform --version 5.0 --statement 3.3.2-6 -v localhost:1884   one statement, and what was said
  ringmq conform --json localhost | jq -r '.versions[].statements[] | select(.outcome == "fails") | .id'
  ringmq conform -u alice -P secret --parallel 1 --timeout 10s broker.example

Exit status: 0 when every statement holds; 4 when some do not; 1 when it could not be run.`

func conformCommand() *cli.Command {
	return &cli.Command{
		Name:        "conform",
		Usage:       "try a broker against the normative statements of MQTT 3.1.1 and 5.0",
		UsageText:   "ringmq conform [flags] HOST[:PORT]",
		Description: conformDescription,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "version", Aliases: []string{"V"}, Usage: "only `VERSION`: 3.1.1 or 5.0", DefaultText: "both"},
			&cli.StringSliceFlag{Name: "statement", Aliases: []string{"s"}, Usage: "only statement `ID`, such as MQTT-3.1.0-1 (may be repeated)", DefaultText: "all"},
			&cli.BoolFlag{Name: "failures", Aliases: []string{"f"}, Usage: "print only what does not hold"},
			&cli.BoolFlag{Name: "v", Usage: "print what was said in the conversations that fail"},
			&cli.BoolFlag{Name: "json", Usage: "print the result as JSON"},
			&cli.DurationFlag{Name: "timeout", Aliases: []string{"t"}, Value: 5 * time.Second, Usage: "wait for an answer up to `DURATION`"},
			&cli.DurationFlag{Name: "quiet", Value: 200 * time.Millisecond, Usage: "believe that nothing comes when nothing has for `DURATION`"},
			&cli.DurationFlag{Name: "revival", Value: 3 * time.Second, Usage: "wait for a broker that has gone up to `DURATION`"},
			&cli.DurationFlag{Name: "limit", Value: 10 * time.Minute, Usage: "give up after `DURATION`"},
			&cli.IntFlag{Name: "parallel", Value: 8, Usage: "play `N` conversations at a time"},
			&cli.StringFlag{Name: "username", Aliases: []string{"u"}, Usage: "User `NAME`"},
			&cli.StringFlag{Name: "pw", Aliases: []string{"P"}, Usage: "`PASSWORD`", EnvVars: []string{"RINGMQ_PASSWORD"}},
		},
		Action: runConform,
	}
}

func runConform(c *cli.Context) error {
	target, plan, err := conformPlan(c)
	if err != nil {
		return fmt.Errorf("conform: %w; ringmq conform --help lists the flags", err)
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait until what is left is cleared
	limited, cancel := context.WithTimeout(ctx, c.Duration("limit"))
	defer cancel()
	results, err := conform.Run(limited, target, plan)
	if err != nil {
		if ctx.Err() != nil {
			return errors.New("conform: interrupted")
		}
		if limited.Err() != nil {
			return fmt.Errorf("conform: not done after %v: raise --limit, or choose with --statement", c.Duration("limit"))
		}
		return fmt.Errorf("conform: %w", err)
	}
	report, err := conform.Summarise(results, plan.Statements)
	if err == nil {
		err = printConform(c, target.Address, report)
	}
	if err != nil {
		return fmt.Errorf("conform: %w", err)
	}
	if !report.AllHold() {
		return cli.Exit("", conformFails)
	}
	return nil
}

// conformPlan reads the flags.
func conformPlan(c *cli.Context) (target conform.TCP, plan conform.Plan, err error) {
	if c.NArg() != 1 {
		return target, plan, errors.New("want the broker's address, HOST or HOST:PORT, behind the flags")
	}
	plan.Timeout, plan.Quiet, plan.Parallel = c.Duration("timeout"), c.Duration("quiet"), c.Int("parallel")
	plan.Revival = c.Duration("revival")
	if plan.Timeout <= 0 || plan.Quiet <= 0 || plan.Parallel < 1 || c.Duration("limit") <= 0 {
		return target, plan, errors.New("--timeout, --quiet, --limit and --parallel are above 0")
	}
	plan.User, plan.Password = c.String("username"), c.String("pw")
	plan.Run = strings.ToLower(rand.Text()[:conformRunLen])
	for _, text := range c.StringSlice("version") {
		v, err := conform.ParseVersion(text)
		if err != nil {
			return target, plan, fmt.Errorf("--version: %w", err)
		}
		plan.Versions = append(plan.Versions, v)
	}
	for _, text := range c.StringSlice("statement") {
		id, err := conform.ParseStatement(text, plan.Versions)
		if err != nil {
			return target, plan, fmt.Errorf("--statement: %w", err)
		}
		plan.Statements = append(plan.Statements, id)
	}
	target = conform.TCP{Address: c.Args().First(), Timeout: plan.Timeout}
	if _, _, err := net.SplitHostPort(target.Address); err != nil {
		target.Address = net.JoinHostPort(strings.Trim(target.Address, "[]"), "1883")
	}
	return target, plan, nil
}

// conformRunLen is how many letters and digits tell runs apart: enough that two at the same broker do not meet.
const conformRunLen = 6

func printConform(c *cli.Context, address string, report conform.Report) error {
	if c.Bool("json") {
		encoder := json.NewEncoder(c.App.Writer)
		encoder.SetIndent("", "  ")
		return encoder.Encode(struct {
			Address string `json:"address"`
			conform.Report
		}{address, report})
	}
	if len(report.Versions) == 0 {
		return errors.New("no conversation is about that statement in that version")
	}
	return report.Print(c.App.Writer, !c.Bool("failures"), c.Bool("v"))
}
