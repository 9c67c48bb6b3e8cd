package conform

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/script"
)

// Options say how conversations are played.
type Options struct {
	// Timeout is how long an answer may take.
	Timeout time.Duration
	// Quiet is how long nothing must come until it is believed that nothing will.
	Quiet time.Duration
	// User and Password go into every CONNECT that names no others, unless they are empty.
	User, Password string
	// Strict asks that a 5.0 broker says why it closes a connection, where a conversation names the Reason Code.
	Strict bool
	// Run makes topics and Client Identifiers this run's own: six letters and digits.
	Run string
}

// Outcome is how a check ended.
type Outcome string

// The outcomes of a check.
const (
	Holds   Outcome = "holds"
	Fails   Outcome = "fails"
	Skipped Outcome = "skipped" // the broker lacks, or does not do, what the check needs
	// Unplayed is a check that could not be played because the broker had gone, or nearly so, in a conversation before.
	Unplayed Outcome = "unplayed"
)

// Result is what came out of one check.
type Result struct {
	Check      Check
	Outcome    Outcome
	Problem    string   // where and what, unless it holds
	Transcript []string // what was said and heard
	gone       bool     // the broker cannot be reached, or has ended the connection of the client that only looks on
	Unsaid     int      // connections that a 5.0 broker closed without the Reason Code that the standard has for it
}

// play is one check under way.
type play struct {
	ctx     context.Context
	target  Target
	options Options
	check   Check
	number  int // of the check in this run

	clients   []*client // the bystander first
	holds     bool      // the command at hand waits for the next
	variables variables
	sessions  []string // Client Identifiers that may have a Session afterwards
	retained  []string // Topic Names that may have a Retained Message afterwards
	result    Result
}

// failure is a statement that does not hold, at a line of the conversation.
type failure struct {
	at  line
	err error
}

func (f *failure) Error() string { return f.err.Error() }

// bystander is a client in every check that must notice nothing.
const bystander = "bystander"

// Play plays one check. number tells the checks of a run apart.
func Play(ctx context.Context, target Target, check Check, number int, o Options) Result {
	p := &play{ctx: ctx, target: target, options: o, check: check, number: number}
	p.variables = variables{"run": o.Run + strconv.Itoa(int(check.Version)), "user": cmp.Or(o.User, "conform"), "pass": cmp.Or(o.Password, "conform"), "long60000": strings.Repeat("longest.", 7500)}
	p.result = Result{Check: check, Outcome: Holds}
	defer func() {
		for _, c := range p.clients {
			c.close()
		}
	}()
	if err := p.whole(); err != nil {
		p.result.Outcome = Fails
		p.result.gone = p.result.gone || errors.Is(err, errGone)
		p.result.Problem = err.Error()
		var f *failure
		if errors.As(err, &f) {
			p.result.Problem = fmt.Sprintf("%s:%d: %s: %v", check.file, f.at.number, f.at.text, f.err)
			if errors.Is(f.err, errElse) && !p.result.gone {
				p.result.Outcome = Skipped
			}
			if p.result.gone {
				p.result.Problem += " (and the broker is gone for others too)"
			}
		}
	}
	if lacks := p.lacks(); lacks != "" {
		p.result.Outcome, p.result.Problem = Skipped, "the broker says that it has no "+lacks
	}
	p.ctx = context.WithoutCancel(ctx) // What an interrupted conversation has left is to be cleared as well.
	p.clean()
	return p.result
}

// whole plays the conversation with a bystander around it.
func (p *play) whole() error {
	if err := p.do(line{0, "connect " + bystander}); err != nil {
		return fmt.Errorf("%w: a client that only looks on cannot connect: %w", errGone, err)
	}
	if p.lacks() != "" {
		return nil
	}
	if err := p.quiet(p.clients[0], 0); err != nil {
		return fmt.Errorf("%w: a client that only looks on: %w", errGone, err)
	}
	err := p.conversation()
	if lookedOn := p.quiet(p.clients[0], 0); lookedOn != nil {
		lookedOn = fmt.Errorf("%w: a client that only looks on, after the conversation: %w", errGone, lookedOn)
		if err == nil {
			return lookedOn
		}
		p.result.gone = true
	}
	return err
}

// errGone says that others than those who take part in a conversation suffer.
var errGone = errors.New("the broker is gone")

func (p *play) conversation() error {
	for _, l := range p.check.lines {
		if p.ctx.Err() != nil {
			return &failure{l, errors.New("time is up")}
		}
		if err := p.do(l); err != nil {
			return &failure{l, err}
		}
	}
	return nil
}

// lacks asks the bystander's CONNACK.
func (p *play) lacks() string {
	if len(p.clients) == 0 {
		return ""
	}
	return p.clients[0].lacks
}

// do carries out one line. A mistake in a script comes as a panic with a string.
func (p *play) do(l line) (err error) {
	defer func() {
		if r := recover(); r != nil {
			text, isMistake := r.(string)
			if !isMistake {
				panic(r)
			}
			err = fmt.Errorf("a mistake in the conversation: %s", text)
		}
	}()
	text := p.variables.fill(l.text)
	name, rest, _ := strings.Cut(text, " ")
	verb, pattern, _ := strings.Cut(rest, " ")
	switch verb {
	case "<", "~", "closed", "ends", "quiet", "gets":
		return p.expect(name, verb, pattern)
	}
	answered := !strings.HasPrefix(text, "!") && !strings.HasPrefix(text, "+")
	c, err := script.Parse(strings.TrimLeft(text, "!+"))
	if err != nil {
		return err
	}
	p.say("%s", text)
	p.holds = strings.HasPrefix(text, "+")
	err = p.command(c, answered)
	p.holds = false
	if err != nil {
		return err
	}
	if unused := c.Unused(); unused != "" {
		panic(c.Verb + " has no option " + unused)
	}
	return nil
}

func (p *play) say(format string, values ...any) {
	p.result.Transcript = append(p.result.Transcript, fmt.Sprintf(format, values...))
}

func (p *play) command(c *script.Command, answered bool) error {
	switch c.Verb {
	case "wait":
		d, err := time.ParseDuration(c.Word(0))
		if err != nil {
			panic(err.Error())
		}
		return p.target.Pass(p.ctx, d)
	case "differ", "same":
		if (c.Word(0) == c.Word(1)) != (c.Verb == "same") {
			return fmt.Errorf("%s and %s", c.Word(0), c.Word(1))
		}
		return nil
	case "dial", "connect":
		return p.connect(c, answered)
	}
	from := p.find(c.Word(0))
	switch c.Verb {
	case "close", "reset":
		from.isOver = true
		if c.Verb == "close" {
			_ = from.conn.Close()
		} else {
			_ = from.conn.Reset()
		}
		return p.target.Pass(p.ctx, p.options.Quiet)
	case "publish":
		return p.publish(from, c, answered)
	}
	p.place(c)
	if err := p.write(from, c.Packet(0, from.version)); err != nil || !answered {
		return err
	}
	return p.answered(from, c)
}

// answered waits for what a command cannot go without.
func (p *play) answered(from *client, c *script.Command) error {
	id := c.Text("id", "1")
	switch c.Verb {
	case "subscribe":
		h, err := from.await(packet.SUBACK, id, p.options.Timeout)
		if err != nil {
			return fmt.Errorf("no SUBACK: %w", err)
		}
		if len(h.words) != len(c.Words) {
			return fmt.Errorf("%s for %d Topic Filters", h.text, len(c.Words)-1)
		}
		for _, granted := range h.words[1:] {
			if granted >= "0x80" {
				return fmt.Errorf("%s refuses a Topic Filter", h.text)
			}
		}
	case "unsubscribe":
		if _, err := from.await(packet.UNSUBACK, id, p.options.Timeout); err != nil {
			return fmt.Errorf("no UNSUBACK: %w", err)
		}
	case "disconnect":
		// The broker closes; until it has, what other clients do may still find the connection there.
		_ = p.untilEnd(from)
		from.close()
		return p.target.Pass(p.ctx, p.options.Quiet)
	}
	return nil
}

// untilEnd reads on, for a moment, until the broker closes.
func (p *play) untilEnd(c *client) error {
	for {
		if err := c.pull(p.options.Quiet); err != nil {
			return err
		}
	}
}

func (p *play) write(c *client, b []byte) error {
	if c.isOver {
		panic("the connection of " + c.name + " is closed")
	}
	if c.held = append(c.held, b...); p.holds {
		return nil
	}
	b, c.held = c.held, nil
	if err := c.conn.Write(b); err != nil && !c.ended {
		// What the broker said before it closed is still to be read; the next expectation finds the end.
		p.say("%s cannot write: %v", c.name, err)
	}
	return nil
}

// publish sends one PUBLISH or, with count=, many, as many at a time as the broker takes.
func (p *play) publish(from *client, c *script.Command, answered bool) error {
	p.place(c)
	count, qos := int(c.Number("count", 1)), c.Number("qos", 0)
	if c.Yes("retain") {
		for i := range count {
			p.retained = append(p.retained, strings.ReplaceAll(c.Word(1), "%d", fmt.Sprint(i)))
		}
	}
	firstID := int(c.Number("id", 1))
	acknowledged := 0
	for i := range count {
		if err := p.write(from, c.Packet(i, from.version)); err != nil {
			return err
		}
		for ; answered && qos > 0 && i-acknowledged+1 >= max(from.window, 1); acknowledged++ {
			if err := p.acknowledged(from, qos, firstID+acknowledged); err != nil {
				return err
			}
		}
	}
	for ; answered && qos > 0 && acknowledged < count; acknowledged++ {
		if err := p.acknowledged(from, qos, firstID+acknowledged); err != nil {
			return err
		}
	}
	return nil
}

// acknowledged waits for PUBACK, or goes through PUBREC, PUBREL and PUBCOMP.
func (p *play) acknowledged(from *client, qos uint64, packetID int) error {
	id := fmt.Sprint(packetID)
	kinds := []packet.Kind{packet.PUBACK}
	if qos == 2 {
		kinds = []packet.Kind{packet.PUBREC, packet.PUBCOMP}
	}
	for _, kind := range kinds {
		h, err := from.await(kind, id, p.options.Timeout)
		if err != nil {
			return fmt.Errorf("no %s %s: %w", kind, id, err)
		}
		if h.reason.Failed() {
			return fmt.Errorf("%s", h.text)
		}
		if kind == packet.PUBREC {
			if err := p.write(from, packet.AppendAck(nil, packet.PUBREL, uint16(packetID), packet.Success, from.version)); err != nil {
				return err
			}
		}
	}
	return nil
}

// find is the client of that name.
func (p *play) find(name string) *client {
	for _, c := range p.clients {
		if c.name == name {
			return c
		}
	}
	panic("no client " + name)
}
