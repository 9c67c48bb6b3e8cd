package conform

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/script"
)

// expect compares what a client hears with a line of the conversation.
func (p *play) expect(name, verb, pattern string) error {
	if names := strings.Split(name, ","); len(names) > 1 {
		return p.either(names, pattern)
	}
	c := p.find(name)
	switch verb {
	case "<":
		return p.hears(c, pattern)
	case "~":
		return p.hearsSomewhere(c, pattern)
	case "closed":
		return p.closed(c, strings.Fields(pattern))
	case "ends":
		return p.ends(c)
	case "quiet":
		return p.quiet(c, p.options.Quiet)
	}
	return p.gets(c, pattern)
}

// errElse says that a broker has not done what a conversation is about, and need not.
var errElse = errors.New("the broker does not do what this is about")

// hears compares the next packet. "A || B" takes either; the last may be "closed", or "else" for whatever makes the rest pointless.
func (p *play) hears(c *client, pattern string) error {
	choices := strings.Split(pattern, " || ")
	if last := len(choices) - 1; choices[last] == "else" {
		if p.hears(c, strings.Join(choices[:last], " || ")) != nil {
			return errElse
		}
		return nil
	}
	h, err := c.next(p.options.Timeout)
	if errors.Is(err, errEnded) && choices[len(choices)-1] == "closed" {
		return nil
	}
	if err != nil {
		return err
	}
	if h.kind == packet.DISCONNECT && h.reason.Failed() && choices[len(choices)-1] == "closed" {
		return p.closed(c, nil)
	}
	return p.matchAny(c, choices, &h)
}

func (p *play) matchAny(c *client, choices []string, h *heard) error {
	var why string
	for _, choice := range choices {
		if choice == "closed" {
			continue
		}
		difference, err := match(choice, h, c.version, p.variables)
		if err != nil {
			return err
		}
		if difference == "" {
			return nil
		}
		why = difference
	}
	return fmt.Errorf("heard %s: %s", h.text, why)
}

// hearsSomewhere looks for a packet among those that come, in whatever order, and leaves the others for later.
func (p *play) hearsSomewhere(c *client, pattern string) error {
	deadline := time.Now().Add(p.options.Timeout)
	for at := 0; ; {
		for ; at < len(c.queue); at++ {
			difference, err := match(pattern, &c.queue[at], c.version, p.variables)
			if err != nil {
				return err
			}
			if difference == "" {
				c.queue = slices.Delete(c.queue, at, at+1)
				return nil
			}
		}
		left := time.Until(deadline)
		if left <= 0 {
			return errNothing
		}
		if err := c.pull(left); err != nil {
			return fmt.Errorf("%w; what came is %s", err, texts(c.queue))
		}
	}
}

func texts(list []heard) string {
	var out []string
	for _, h := range list {
		out = append(out, h.text)
	}
	if len(out) == 0 {
		return "nothing"
	}
	return strings.Join(out, ", ")
}

// closed waits until the broker closes the connection. It may say why before, in DISCONNECT or in a CONNACK that refuses, and
// then with one of the codes, if any are named. "silently" allows no CONNACK.
func (p *play) closed(c *client, codes []string) error {
	var said *heard
	silently := slices.Contains(codes, "silently")
	codes = slices.DeleteFunc(slices.Clone(codes), func(code string) bool { return code == "silently" })
	for {
		h, err := c.next(p.options.Timeout)
		if errors.Is(err, errEnded) {
			break
		}
		if errors.Is(err, errNothing) {
			return errors.New("the connection stays open")
		}
		if err != nil {
			return err
		}
		isRefusal := h.kind == packet.CONNACK && !c.accepted && !silently
		isReason := h.kind == packet.DISCONNECT && c.version == packet.V50 && c.accepted
		if said != nil || !isRefusal && !isReason {
			return fmt.Errorf("heard %s", h.text)
		}
		said = &h
	}
	c.close()
	if c.version != packet.V50 || len(codes) == 0 {
		return nil
	}
	if said != nil && slices.Contains(codes, code(said.reason)) {
		return nil
	}
	p.result.Unsaid++
	switch {
	case !p.options.Strict:
		return nil // Saying why is a SHOULD.
	case said == nil:
		return errors.New("closed without a Reason Code")
	}
	return fmt.Errorf("heard %s; wanted %s", said.text, strings.Join(codes, " or "))
}

// ends waits until the broker closes the connection, whatever it says before.
func (p *play) ends(c *client) error {
	for {
		if _, err := c.next(p.options.Timeout); errors.Is(err, errEnded) {
			c.close()
			return nil
		} else if err != nil {
			return err
		}
	}
}

// quiet says that a connection is open and nothing comes but the answer to a PINGREQ, which is sent after a while.
func (p *play) quiet(c *client, wait time.Duration) error {
	if wait > 0 {
		if err := c.pull(wait); err != nil && !errors.Is(err, errNothing) {
			return err
		}
	}
	if err := p.write(c, packet.AppendPingreq(nil)); err != nil {
		return err
	}
	h, err := c.next(p.options.Timeout)
	if err != nil {
		return fmt.Errorf("no PINGRESP: %w", err)
	}
	if h.kind != packet.PINGRESP {
		return fmt.Errorf("heard %s", h.text)
	}
	return nil
}

// gets waits for messages on so many different topics, and acknowledges them.
func (p *play) gets(c *client, pattern string) error {
	want, err := script.Parse("gets " + pattern)
	if err != nil {
		return err
	}
	n := int(want.WordNumber(0))
	topics := map[string]bool{}
	for len(topics) < n {
		h, err := c.next(p.options.Timeout)
		if err != nil {
			return fmt.Errorf("%w after %d of %d topics", err, len(topics), n)
		}
		var answer []byte
		switch {
		case h.kind == packet.PUBLISH:
			topics[h.words[0]] = true
			if h.qos > 0 {
				kind := [...]packet.Kind{1: packet.PUBACK, 2: packet.PUBREC}[h.qos]
				answer = packet.AppendAck(nil, kind, number(h.id), packet.Success, c.version)
			}
		case h.kind == packet.PUBREL:
			answer = packet.AppendAck(nil, packet.PUBCOMP, number(h.id), packet.Success, c.version)
		default:
			return fmt.Errorf("heard %s", h.text)
		}
		if err := p.write(c, answer); err != nil {
			return err
		}
	}
	return nil
}

func number(id string) (n uint16) {
	for _, digit := range id {
		n = n*10 + uint16(digit-'0')
	}
	return n
}

// either waits until one of the clients hears something, "a,b < PATTERN". {who} is the name of that client afterwards,
// {other} that of the one behind it.
func (p *play) either(names []string, pattern string) error {
	deadline := time.Now().Add(p.options.Timeout)
	for round := 0; ; round++ {
		for i, name := range names {
			client := p.find(name)
			h, err := client.next(time.Millisecond)
			if errors.Is(err, errNothing) {
				continue
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			p.variables["who"], p.variables["other"] = name, names[(i+1)%len(names)]
			return p.matchAny(client, strings.Split(pattern, " || "), &h)
		}
		if round > 1 && time.Now().After(deadline) {
			return errNothing
		}
	}
}
