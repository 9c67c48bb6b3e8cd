package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/cmd/client"
	"github.com/urfave/cli/v2"
)

const pubDescription = `Examples:
  ringmq pub -t sensors/17/temperature -m 21.5               one message to localhost, port 1883
  ringmq pub -h broker.example -t state -m on -r -q 1        retained, acknowledged by the broker
  ringmq pub -t state -n -r                                  forget the Retained Message again
  ringmq pub -t photos/1 -f photo.jpg                        a file as one message
  tail -f log | ringmq pub -t logs -l                        each line as a message
  ringmq pub -t beep -m hi -n 10 --delay 1                   ten times, one a second
  ringmq pub -t rpc/time -m now -e rpc/answers -W 5          a request; prints the response
  ringmq pub -t a -m b -D publish user-property k v -D publish content-type text/plain
  RINGMQ_PASSWORD=secret ringmq pub -L mqtts://alice@broker.example/state -m on --cafile ca.pem
  ringmq pub -t state -m on --will-topic gone -V 311         MQTT 3.1.1 with a Will

Flags are those of mosquitto_pub, and -e, -F, -v, -N and -W those of mosquitto_rr. Different are: -V is 5 unless said
otherwise; -n with a number is a count (without one it is mosquitto_pub's, a message without payload).
-D takes the commands connect, publish, will, disconnect; subscribe and unsubscribe too with -e.

` + formatHelp + `

` + exitCodes

// pubFlags are the flags of ringmq pub.
type pubFlags struct {
	clientFlags

	message, file         string
	stdinFile, lines      bool
	null, retain          bool
	count, maxInflight    int
	delay                 seconds
	responseTopic         string
	publish, onDisconnect client.Properties
	subscribe             client.Properties
}

// ackTimeout is how long a publisher waits for what the broker owes it, unless -W says otherwise.
const ackTimeout = 30 * time.Second

func pubCommand() *cli.Command {
	o := &pubFlags{}
	m, r := groupMessage, groupRequest
	flags := []cli.Flag{
		&cli.GenericFlag{Name: "topic", Aliases: []string{"t"}, Value: &o.topics, Category: m, Usage: "publish to `TOPIC`"},
		&cli.StringFlag{Name: "message", Aliases: []string{"m"}, Destination: &o.message, Category: m, Usage: "publish `TEXT`"},
		&cli.StringFlag{Name: "file", Aliases: []string{"f"}, Destination: &o.file, Category: m, Usage: "publish the contents of `FILE`"},
		&cli.BoolFlag{Name: "stdin-file", Aliases: []string{"s"}, Destination: &o.stdinFile, Category: m, Usage: "publish standard input, all of it as one message"},
		&cli.BoolFlag{Name: "stdin-line", Aliases: []string{"l"}, Destination: &o.lines, Category: m, Usage: "publish each line of standard input"},
		&cli.IntFlag{Name: "count", Aliases: []string{"n", "repeat"}, Destination: &o.count, Value: 1, Category: m, Usage: "publish it `N` times"},
		&cli.BoolFlag{Name: "null-message", Destination: &o.null, Category: m, Usage: "publish a message without payload; -n without a number does the same"},
		&cli.GenericFlag{Name: "delay", Aliases: []string{"repeat-delay"}, Value: &o.delay, DefaultText: "none", Category: m, Usage: "wait `SECONDS` between the messages of --count"},
		&cli.IntFlag{Name: "qos", Aliases: []string{"q"}, Destination: &o.qos, Category: m, Usage: "`QOS`: 0 (unless said otherwise), 1 or 2"},
		&cli.BoolFlag{Name: "retain", Aliases: []string{"r"}, Destination: &o.retain, Category: m, Usage: "the broker keeps the message for whoever subscribes later"},
		&cli.IntFlag{Name: "max-inflight", Aliases: []string{"M"}, Destination: &o.maxInflight, Value: 20, Category: m, Usage: "have at most `N` messages of QoS 1 and 2 unacknowledged"},
		&cli.StringFlag{Name: "response-topic", Aliases: []string{"e"}, Destination: &o.responseTopic, Category: r, Usage: "publish a request, wait for its response on `TOPIC` and print that"},
		&cli.GenericFlag{Name: "wait", Aliases: []string{"W"}, Value: &o.wait, DefaultText: "30", Category: r, Usage: "give up when response or acknowledgement has not come after `SECONDS`"},
	}
	for _, more := range [][]cli.Flag{o.printFlags(r), o.connectionFlags(), o.sessionFlags(), o.willFlags(), o.tlsFlags(), o.otherFlags()} {
		flags = append(flags, more...)
	}
	return &cli.Command{
		Name:            "pub",
		Usage:           "publish messages",
		UsageText:       "ringmq pub -t TOPIC {-m TEXT | -f FILE | -s | -l | -n} [flags]",
		Description:     pubDescription,
		Flags:           flags,
		HideHelp:        true, // -h is the host, as in every MQTT tool
		SkipFlagParsing: true, // see arguments
		Action:          func(c *cli.Context) error { return pub(c, o) },
	}
}

func pub(c *cli.Context, o *pubFlags) (err error) {
	if o.given, err = parseArguments(c); err != nil {
		return err
	}
	if o.help {
		printClientHelp(c.App.Writer, c.Command)
		return nil
	}
	cfg, printer, payload, err := o.prepare(c)
	if err != nil {
		return fmt.Errorf("pub: %w", err)
	}
	tuneClient()
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	connection, err := client.Dial(ctx, cfg)
	if err != nil {
		return withExitCode(advice(err), o.quiet)
	}
	defer context.AfterFunc(ctx, func() {
		connection.Interrupt()
		stop() // A second signal is not waited for.
	})()
	p := &publishing{pubFlags: o, client: connection}
	switch {
	case o.responseTopic != "":
		err = p.request(ctx, payload, printer)
	case o.lines:
		err = p.publishLines(ctx, c.App.Reader)
	default:
		err = p.repeat(ctx, payload)
	}
	linger := closeLinger
	if err != nil {
		linger = 0
	}
	connection.Close(o.onDisconnect, linger)
	return withExitCode(err, o.quiet)
}

// closeLinger is how long the broker has to take what is on its way when a publisher is done.
const closeLinger = 10 * time.Second

// prepare reads everything that can be wrong before there is a connection.
func (o *pubFlags) prepare(c *cli.Context) (cfg client.Config, p *printer, payload []byte, err error) {
	commands := []string{"connect", "publish", "will", "disconnect"}
	if o.responseTopic != "" {
		commands = append(commands, "subscribe", "unsubscribe")
	}
	properties, err := parseProperties(o.properties, commands...)
	if err != nil {
		return cfg, nil, nil, err
	}
	o.publish, o.onDisconnect = *properties["publish"], *properties["disconnect"]
	if s := properties["subscribe"]; s != nil {
		o.subscribe = *s
	}
	if cfg, err = o.config("pub", properties); err != nil {
		return cfg, nil, nil, err
	}
	cfg.MaxInflight, cfg.AckTimeout = o.maxInflight, o.patience()
	if err = o.check(); err != nil {
		return cfg, nil, nil, err
	}
	if p, err = o.newPrinter(c.App.Writer); err != nil {
		return cfg, nil, nil, err
	}
	payload, err = o.payload(c.App.Reader)
	return cfg, p, payload, err
}

// check says which flags do not fit together.
func (o *pubFlags) check() error {
	if err := o.checkSource(); err != nil {
		return err
	}
	switch len(o.topics) {
	case 0:
		return errors.New("where to? add -t TOPIC")
	case 1:
	default:
		return fmt.Errorf("-t is given %d times (or beside the topic of -L): messages go to one topic", len(o.topics))
	}
	if err := checkTopicName(o.topics[0]); err != nil {
		return fmt.Errorf("-t: %w", err)
	}
	if err := checkQoS("-q", o.qos); err != nil {
		return err
	}
	switch {
	case o.count < 1:
		return fmt.Errorf("-n %d: want 1 or more", o.count)
	case o.given["count"] && o.lines:
		return errors.New("-n repeats one message, and -l publishes many: leave one out")
	case o.given["delay"] && !o.given["count"]:
		return errors.New("--delay waits between the messages of -n: add -n N")
	case o.maxInflight < 1 || o.maxInflight > 65535:
		return fmt.Errorf("-M %d: want 1 to 65535", o.maxInflight)
	case o.given["wait"] && o.wait == 0:
		return errors.New("-W 0: want more than 0 seconds")
	}
	return o.checkRequest()
}

// checkSource wants exactly one of the flags that say what to publish.
func (o *pubFlags) checkSource() error {
	var sources []string
	for _, s := range []struct{ name, flag string }{{"message", "-m"}, {"file", "-f"}, {"stdin-file", "-s"}, {"stdin-line", "-l"}, {"null-message", "-n"}} {
		if o.given[s.name] {
			sources = append(sources, s.flag)
		}
	}
	switch len(sources) {
	case 0:
		return errors.New("what to publish? add -m TEXT, -f FILE, -s, -l, or -n without a number for no payload")
	case 1:
		return nil
	}
	return fmt.Errorf("%s each say what to publish: leave one out", strings.Join(sources, " and "))
}

func (o *pubFlags) checkRequest() error {
	if !o.given["response-topic"] {
		for _, name := range []string{"format", "verbose", "no-newline", "pretty"} {
			if o.given[name] {
				return fmt.Errorf("--%s is for printing a response: add -e, or leave it out", name)
			}
		}
		return nil
	}
	if err := checkTopicName(o.responseTopic); err != nil {
		return fmt.Errorf("-e: %w", err)
	}
	switch {
	case o.lines || o.given["count"]:
		return errors.New("-e sends one request: leave -l and -n out")
	case o.publish.ResponseTopic != "":
		return errors.New("-e and -D publish response-topic say the same: leave one out")
	}
	return nil
}

// payload is what to publish, unless it is lines.
func (o *pubFlags) payload(stdin io.Reader) ([]byte, error) {
	var in io.Reader
	switch {
	case o.given["message"]:
		return []byte(o.message), nil
	case o.given["file"]:
		f, err := os.Open(o.file)
		if err != nil {
			return nil, fmt.Errorf("-f: %w", err)
		}
		defer f.Close()
		in = f
	case o.stdinFile:
		in = stdin
	default:
		return nil, nil
	}
	text, err := io.ReadAll(io.LimitReader(in, packet.MaxRemaining+1))
	if err != nil {
		return nil, fmt.Errorf("read the message: %w", err)
	}
	return text, checkPayload(len(text), o.topics[0])
}

// checkPayload says what no packet can carry beside the topic and its length.
func checkPayload(size int, topic string) error {
	if room := packet.MaxRemaining - len(topic) - 2; size > room {
		return fmt.Errorf("the message is larger than the %d bytes that MQTT carries", room)
	}
	return nil
}

// publishing is one run of ringmq pub.
type publishing struct {
	*pubFlags
	client client.Client
}

func (p *publishing) message(payload []byte) *client.Message {
	return &client.Message{Topic: p.topics[0], Payload: payload, QoS: byte(p.qos), Retain: p.retain, Properties: p.publish}
}

// repeat publishes one message, or it many times.
func (p *publishing) repeat(ctx context.Context, payload []byte) error {
	m := p.message(payload)
	for i := range p.count {
		if i > 0 && p.delay > 0 {
			if err := p.pause(ctx); err != nil {
				return p.cutShort(ctx, err, "message")
			}
		}
		if err := p.client.Publish(ctx, m); err != nil {
			return p.cutShort(ctx, err, "message")
		}
	}
	return p.finish(ctx, "message")
}

// pause sends what is there and waits, while the connection lasts.
func (p *publishing) pause(ctx context.Context) error {
	if err := p.client.Flush(); err != nil {
		return err
	}
	timer := time.NewTimer(time.Duration(p.delay))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-p.client.Done():
		return p.client.Err()
	case <-ctx.Done():
		return errInterrupted
	}
}

// patience is how long the broker, or whoever answers, has.
func (o *pubFlags) patience() time.Duration {
	if o.wait == 0 {
		return ackTimeout
	}
	return time.Duration(o.wait)
}

// finish waits for what is unacknowledged, and says what was refused.
func (p *publishing) finish(ctx context.Context, unit string) error {
	timed, cancel := context.WithTimeoutCause(ctx, p.patience(), errTimeUp)
	defer cancel()
	if err := p.client.Drain(timed); err != nil {
		return p.cutShort(ctx, err, unit)
	}
	n := p.client.Progress()
	if n.Refused == 0 {
		return nil
	}
	text := ""
	if n.ReasonText != "" {
		text = ": " + n.ReasonText
	}
	if n.Refused+n.Acknowledged == 1 {
		return fmt.Errorf("the broker refused the %s: %w (0x%02X)%s", unit, n.Reason, byte(n.Reason), text)
	}
	return fmt.Errorf("the broker refused %d of %d %ss, first %s %d: %w (0x%02X)%s", n.Refused, n.Refused+n.Acknowledged, unit,
		unit, n.FirstRefused, n.Reason, byte(n.Reason), text)
}

// cutShort says how far publishing had come when it failed.
func (p *publishing) cutShort(ctx context.Context, err error, unit string) error {
	if ctx.Err() != nil {
		err = stopped(ctx)
	}
	n := p.client.Progress()
	switch {
	case errors.Is(err, errTimeUp) && n.FirstOpen != 0:
		err = fmt.Errorf("%w: no acknowledgement within %v", err, p.patience())
	case p.qos == 0 && (unit == "line" || p.count > 1):
		return fmt.Errorf("%w; %d %ss were handed to the network, nothing after them was sent", err, n.Sent, unit)
	}
	if n.FirstOpen == 0 || p.count == 1 && unit != "line" {
		return err
	}
	return fmt.Errorf("%w; %d %ss were acknowledged, the first that was not is %s %d", err, n.Acknowledged, unit, unit, n.FirstOpen)
}
