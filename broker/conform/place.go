package conform

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/broker/script"
)

// root is the Topic Name below which all topics of a check lie.
func (p *play) root() string { return fmt.Sprintf("conform/%s/%d", p.options.Run, p.number) }

// ours moves a Topic Name or Filter of a conversation to where nobody else is. What begins with "^" stays where it is.
func (p *play) ours(topic string) string {
	if own, found := strings.CutPrefix(topic, "^"); found {
		return own
	}
	if rest, isShared := strings.CutPrefix(topic, "$share/"); isShared {
		group, filter, _ := strings.Cut(rest, "/")
		return "$share/" + group + p.options.Run + strconv.Itoa(p.number) + "/" + p.ours(filter)
	}
	if topic == "" || topic[0] == '$' {
		return topic
	}
	return p.root() + "/" + topic
}

// theirs is the other way round; false for what others publish. What begins with $ comes to those alone who name it [MQTT-4.7.2-1].
func (p *play) theirs(topic string) (string, bool) {
	if topic == "" || topic[0] == '$' {
		return topic, true // "" is a Topic Alias
	}
	own, found := strings.CutPrefix(topic, p.root()+"/")
	return own, found
}

// place moves the topics of a command.
func (p *play) place(c *script.Command) {
	switch c.Verb {
	case "connect":
		if c.Has("will") {
			c.Set("will", p.ours(c.Text("will", "")))
			if c.Yes("willretain") {
				p.retained = append(p.retained, c.Text("will", ""))
			}
		}
	case "publish":
		c.Words[1] = p.ours(c.Word(1))
	case "subscribe", "unsubscribe":
		for i := range c.Words[1:] {
			c.Words[i+1] = p.ours(c.Words[i+1])
		}
	}
}

// identifier is the Client Identifier for a name: of letters and digits, and shorter than 23 bytes [MQTT-3.1.3-5]. What begins
// with "^" stays as it is.
func (p *play) identifier(name string) string {
	if own, found := strings.CutPrefix(name, "^"); found || name == "" {
		return own
	}
	return p.options.Run + "n" + strconv.Itoa(p.number) + name
}

// connect opens a Network Connection, and sends CONNECT unless the verb is dial.
func (p *play) connect(c *script.Command, answered bool) error {
	conn, err := p.target.Dial(p.ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	name := c.Word(0)
	n := &client{name: name, conn: conn, version: c.Version(p.check.Version), foreign: p.theirs, transcribe: p.say, window: windowMax}
	n.aliasMax, n.maxPacket = int(c.Number("aliasmax", 0)), int(c.Number("maxpacket", 0))
	if at := slices.IndexFunc(p.clients, func(old *client) bool { return old.name == name }); at >= 0 {
		p.clients[at].close()
		p.clients[at] = n
	} else {
		p.clients = append(p.clients, n)
	}
	if c.Verb == "dial" {
		return nil
	}
	id := p.identifier(c.Text("id", name))
	if id != "" && (c.Number("clean", 1) == 0 || c.Has("expiry")) && !slices.Contains(p.sessions, id) {
		p.sessions = append(p.sessions, id)
	}
	c.Set("id", id)
	if !c.Has("probleminfo") {
		c.Set("probleminfo", "1") // as it is when a client says nothing
	}
	p.place(c)
	p.identify(c)
	if err := p.write(n, c.Packet(0, n.version)); err != nil || !answered {
		return err
	}
	return p.accepted(n)
}

// identify adds the user's name and password where the conversation has no other.
func (p *play) identify(c *script.Command) {
	if p.options.User != "" && !c.Has("user") {
		c.Set("user", p.options.User)
	}
	if p.options.Password != "" && !c.Has("pass") {
		c.Set("pass", p.options.Password)
	}
}

// accepted waits for a CONNACK that says yes.
func (p *play) accepted(n *client) error {
	h, err := n.next(p.options.Timeout)
	switch {
	case err != nil:
		return fmt.Errorf("no CONNACK: %w", err)
	case h.kind != packet.CONNACK || !n.accepted:
		return fmt.Errorf("the answer is %s", h.text)
	}
	if n.name == bystander {
		n.lacks = p.check.lacks(&h)
	}
	return nil
}

// clean ends the Sessions and clears the Retained Messages that the conversation may have left.
func (p *play) clean() {
	for _, c := range p.clients {
		if c.name != bystander {
			c.close()
		}
	}
	for i, id := range p.sessions {
		// A CONNECT with Clean Start, and a Session that ends with its connection.
		c := script.New("connect", fmt.Sprint("cleaner", i))
		c.Set("id", "^"+id)
		if err := p.connect(c, true); err == nil {
			_ = p.command(script.New("disconnect", fmt.Sprint("cleaner", i)), true)
		}
	}
	if len(p.retained) == 0 {
		return
	}
	c := script.New("connect", "sweeper")
	if p.connect(c, true) != nil {
		return
	}
	sweeper := p.find("sweeper")
	for _, topic := range p.retained {
		head := &packet.PublishHead{Flags: packet.PublishFlags(false, 0, true), Topic: []byte(topic)}
		if p.write(sweeper, packet.AppendPublish(nil, head, nil, p.check.Version)) != nil {
			return
		}
	}
	// PINGRESP says that the broker has read it all.
	_ = p.quiet(sweeper, 0)
}
