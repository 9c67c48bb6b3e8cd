package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/ringmq/ringmq/broker/topic"
	"github.com/ringmq/ringmq/cmd/client"
	"github.com/urfave/cli/v2"
)

const subDescription = `Examples:
  ringmq sub -t 'sensors/#' -v                               topics and payloads, until Ctrl-C
  ringmq sub -h broker.example -t state -C 1 -W 5            the next message; exit code 27 after 5 s without
  ringmq sub -t 'a/+' -t 'b/#' -T 'b/noise/#' -q 1           two topics less some of the second
  ringmq sub -t '#' -F '@H:@M:@S.@N %-30t %p'                times, topics in a column
  ringmq sub -t '#' -F '%j' | jq .topic                      JSON
  ringmq sub -t jobs -i worker1 -c -q 1                      what came while it was away, too
  ringmq sub -t '$share/workers/jobs' -q 1                   share the messages with other workers
  ringmq sub -t '#' --retained-only --remove-retained -T '$SYS/#'   forget all Retained Messages
  ringmq sub -t rpc/echo --reply 'you said %p'               answer requests (see ringmq pub -e)
  ringmq sub -t logs -N > all.log                            payloads as they are, without line ends

Flags are those of mosquitto_sub, except that -V is 5 unless said otherwise. When the connection breaks it connects
again, first after a quarter of a second, then less and less often, and says so on standard error.
Messages of QoS 1 and 2 are acknowledged after they are printed. -D takes the commands connect, subscribe, unsubscribe,
will, disconnect, and publish with --reply.

` + formatHelp + `

` + exitCodes

// subFlags are the flags of ringmq sub.
type subFlags struct {
	clientFlags

	filterOut, unsubscribe                             list
	count                                              int
	exitSubscribed, noRetained, retainedOnly           bool
	removeRetained, retainAsPublished, noLocal, noMore bool
	retainHandling, reply                              string
}

func subCommand() *cli.Command {
	o := &subFlags{}
	t, e := groupTopics, groupEnd
	flags := []cli.Flag{
		&cli.GenericFlag{Name: "topic", Aliases: []string{"t"}, Value: &o.topics, Category: t, Usage: "subscribe to `TOPIC`, which may have + and # (repeatable)"},
		&cli.IntFlag{Name: "qos", Aliases: []string{"q"}, Destination: &o.qos, Category: t, Usage: "at most `QOS`: 0 (unless said otherwise), 1 or 2"},
		&cli.GenericFlag{Name: "filter-out", Aliases: []string{"T"}, Value: &o.filterOut, Category: t, Usage: "leave out messages on `TOPIC`, which may have + and # (repeatable)"},
		&cli.GenericFlag{Name: "unsubscribe", Aliases: []string{"U"}, Value: &o.unsubscribe, Category: t, Usage: "unsubscribe from `TOPIC`, for a Session of before (repeatable)"},
		&cli.BoolFlag{Name: "no-retained", Aliases: []string{"R"}, Destination: &o.noRetained, Category: t, Usage: "leave out Retained Messages of before the subscription"},
		&cli.BoolFlag{Name: "retained-only", Destination: &o.retainedOnly, Category: t, Usage: "only Retained Messages; the first other message is the end"},
		&cli.BoolFlag{Name: "remove-retained", Destination: &o.removeRetained, Category: t, Usage: "have the broker forget each Retained Message that comes"},
		&cli.BoolFlag{Name: "retain-as-published", Destination: &o.retainAsPublished, Category: t, Usage: "keep the retain flag as the publisher set it (5.0)"},
		&cli.StringFlag{Name: "retain-handling", Destination: &o.retainHandling, Category: t, Usage: "`WHEN` Retained Messages come: always, new (if the subscription is) or never (5.0)"},
		&cli.BoolFlag{Name: "no-local", Destination: &o.noLocal, Category: t, Usage: "not what this client publishes itself (5.0)"},
		&cli.StringFlag{Name: "reply", Destination: &o.reply, Category: groupRequest, Usage: "answer each request, a message with a response topic, with `FORMAT` (as in -F)"},
	}
	flags = append(flags, o.printFlags(groupOutput)...)
	flags = append(flags,
		&cli.IntFlag{Name: "count", Aliases: []string{"C"}, Destination: &o.count, DefaultText: "none", Category: e, Usage: "end after `N` messages"},
		&cli.GenericFlag{Name: "wait", Aliases: []string{"W"}, Value: &o.wait, DefaultText: "none", Category: e, Usage: "end `SECONDS` after connecting, with exit code 27"},
		&cli.BoolFlag{Name: "exit-subscribed", Aliases: []string{"E"}, Destination: &o.exitSubscribed, Category: e, Usage: "end when the broker has acknowledged the subscriptions"},
		&cli.BoolFlag{Name: "no-reconnect", Destination: &o.noMore, Category: e, Usage: "end when the connection breaks"},
	)
	for _, more := range [][]cli.Flag{o.connectionFlags(), o.sessionFlags(), o.willFlags(), o.tlsFlags(), o.otherFlags()} {
		flags = append(flags, more...)
	}
	return &cli.Command{
		Name:            "sub",
		Usage:           "subscribe to topics and print what comes",
		UsageText:       "ringmq sub -t TOPIC [-t TOPIC ...] [flags]",
		Description:     subDescription,
		Flags:           flags,
		HideHelp:        true, // -h is the host, as in every MQTT tool
		SkipFlagParsing: true, // see arguments
		Action:          func(c *cli.Context) error { return sub(c, o) },
	}
}

func sub(c *cli.Context, o *subFlags) (err error) {
	if o.given, err = parseArguments(c); err != nil {
		return err
	}
	if o.help {
		printClientHelp(c.App.Writer, c.Command)
		return nil
	}
	s, err := o.prepare(c)
	if err != nil {
		return fmt.Errorf("sub: %w", err)
	}
	tuneClient()
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, stop)() // A second signal is not waited for.
	err = s.run(ctx)
	if errors.Is(err, errInterrupted) || errors.Is(err, errOutputClosed) {
		return nil
	}
	return withExitCode(err, o.quiet)
}

// prepare reads everything that can be wrong before there is a connection.
func (o *subFlags) prepare(c *cli.Context) (*subscriber, error) {
	commands := []string{"connect", "subscribe", "unsubscribe", "will", "disconnect"}
	if o.reply != "" {
		commands = append(commands, "publish")
	}
	properties, err := parseProperties(o.properties, commands...)
	if err != nil {
		return nil, err
	}
	s := &subscriber{subFlags: o, properties: properties, errors: c.App.ErrWriter}
	if s.cfg, err = o.config("sub", properties); err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if s.printer, err = o.newPrinter(c.App.Writer); err != nil {
		return nil, err
	}
	if o.given["reply"] {
		if s.reply, err = compileFormat(o.reply, false); err != nil {
			return nil, fmt.Errorf("--reply: %s", strings.TrimPrefix(err.Error(), "-F: "))
		}
	}
	s.cfg.Session = client.NewSession()
	return s, s.setSubscriptions()
}

// check says which flags do not fit together.
func (o *subFlags) check() error {
	switch {
	case len(o.topics)+len(o.unsubscribe) == 0:
		return errors.New("what to subscribe to? add -t TOPIC")
	case o.given["count"] && o.count < 1:
		return fmt.Errorf("-C %d: want 1 or more", o.count)
	case o.given["wait"] && o.wait == 0:
		return errors.New("-W 0: want more than 0 seconds")
	case o.noRetained && o.retainedOnly:
		return errors.New("-R leaves out what --retained-only prints: leave one out")
	case o.exitSubscribed && o.given["count"]:
		return errors.New("-E ends before the first message, -C after some: leave one out")
	case o.pretty && !strings.Contains(o.format, "%j") && !strings.Contains(o.format, "%J"):
		return errors.New("--pretty is for the JSON of -F %j and -F %J")
	}
	for flag, filters := range map[string]list{"-t": o.topics, "-T": o.filterOut, "-U": o.unsubscribe} {
		for _, f := range filters {
			if err := checkTopicFilter(f); err != nil {
				return fmt.Errorf("%s: %w", flag, err)
			}
		}
	}
	return checkQoS("-q", o.qos)
}

// setSubscriptions leaves out what is asked for twice.
func (s *subscriber) setSubscriptions() error {
	handling := map[string]byte{"": 0, "always": 0, "new": 1, "never": 2, "0": 0, "1": 1, "2": 2}
	retainHandling, known := handling[s.retainHandling]
	if !known {
		return fmt.Errorf("--retain-handling %q: want always, new or never", s.retainHandling)
	}
	seen := map[string]bool{}
	for _, f := range s.topics {
		_, _, shared, _ := topic.ParseShared(f)
		if shared && s.noLocal {
			return fmt.Errorf("--no-local cannot go with the shared topic %s (MQTT 5.0, section 3.8.3.1)", f)
		}
		if !seen[f] {
			s.subscriptions = append(s.subscriptions, client.Subscription{Filter: f, QoS: byte(s.qos), NoLocal: s.noLocal,
				RetainAsPublished: s.retainAsPublished, RetainHandling: retainHandling})
		}
		seen[f] = true
	}
	return nil
}

// leftOut says whether -T leaves a topic out.
func (o *subFlags) leftOut(name string) bool {
	for _, f := range o.filterOut {
		if topic.Match(f, name) {
			return true
		}
	}
	return false
}

// closeHurry bounds how long a subscriber takes to end: a user waits for the prompt.
const closeHurry = 500 * time.Millisecond
