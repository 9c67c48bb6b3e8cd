package broker_test

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/ringmq/ringmq/broker/packet"
)

// command is one line of a script: words, then options. An option may come more than once.
type command struct {
	verb    string
	words   []string
	options map[string][]string
	used    map[string]bool
}

// parseCommand splits a line at spaces outside double quotes. An option is name=value; name alone means name=1 when it is
// written with a leading dash.
func parseCommand(text string) (*command, error) {
	c := &command{options: map[string][]string{}, used: map[string]bool{}}
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimLeft(text, " ") {
		end := wordEnd(text)
		word := text[:end]
		text = text[end:]
		name, value, isOption := strings.Cut(word, "=")
		if strings.HasPrefix(word, `"`) || !isOption || c.verb == "raw" && name != "split" {
			name, value, isOption = "", word, false
		}
		if strings.HasPrefix(value, `"`) {
			var err error
			if value, err = strconv.Unquote(value); err != nil {
				return nil, fmt.Errorf("%s: %w", word, err)
			}
		}
		switch {
		case isOption:
			c.options[name] = append(c.options[name], value)
		case c.verb == "":
			c.verb = value
		default:
			c.words = append(c.words, value)
		}
	}
	return c, nil
}

func wordEnd(text string) int {
	quoted := false
	for i := range len(text) {
		switch {
		case text[i] == '"' && (i == 0 || text[i-1] != '\\'):
			quoted = !quoted
		case text[i] == ' ' && !quoted:
			return i
		}
	}
	return len(text)
}

func (c *command) has(name string) bool { return len(c.options[name]) > 0 }

func (c *command) text(name, otherwise string) string {
	c.used[name] = true
	if v := c.options[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	return otherwise
}

// bytes is nil when the option is absent.
func (c *command) bytes(name string) []byte {
	if !c.has(name) {
		return nil
	}
	return []byte(c.text(name, ""))
}

func (c *command) number(name string, otherwise uint64) uint64 {
	t := c.text(name, "")
	if t == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(t, 0, 64)
	if err != nil {
		panic(fmt.Sprintf("%s: option %s: %v", c.verb, name, err))
	}
	return n
}

func (c *command) yes(name string) bool { return c.number(name, 0) != 0 }

// word is positional argument i.
func (c *command) word(i int) string {
	if i >= len(c.words) {
		panic(fmt.Sprintf("%s: argument %d is missing", c.verb, i+1))
	}
	return c.words[i]
}

func (c *command) wordNumber(i int) uint16 {
	n, err := strconv.ParseUint(c.word(i), 0, 16)
	if err != nil {
		panic(fmt.Sprintf("%s: %v", c.verb, err))
	}
	return uint16(n)
}

// unused names an option that nothing asked for: a mistake in the script.
func (c *command) unused() string {
	for name := range c.options {
		if !c.used[name] {
			return name
		}
	}
	return ""
}

func (c *command) users(name string) (u packet.UserProperties) {
	c.used[name] = true
	for _, v := range c.options[name] {
		key, value, _ := strings.Cut(v, ":")
		u = packet.AppendUserProperty(u, []byte(key), []byte(value))
	}
	return u
}

// forwarded builds the properties that a PUBLISH and a Will share, in the order in which they stand here.
func (c *command) forwarded(prefix string) (section []byte) {
	if c.yes(prefix + "format") {
		section = packet.AppendPayloadFormat(section)
	}
	if c.has(prefix + "type") {
		section = packet.AppendContentType(section, c.bytes(prefix+"type"))
	}
	if c.has(prefix + "response") {
		section = packet.AppendResponseTopic(section, c.bytes(prefix+"response"))
	}
	if c.has(prefix + "corr") {
		section = packet.AppendCorrelationData(section, c.bytes(prefix+"corr"))
	}
	return append(section, c.users(prefix+"prop")...)
}

func (c *command) version() packet.Version {
	for i, w := range c.words {
		for name, v := range map[string]packet.Version{"v31": packet.V31, "v311": packet.V311, "v5": packet.V50} {
			if w == name && i > 0 {
				return v
			}
		}
	}
	return packet.V50
}

func (c *command) connect() []byte {
	p := &packet.Connect{
		Version: c.version(), CleanStart: c.number("clean", 1) != 0, KeepAlive: uint16(c.number("keepalive", 0)),
		ClientID: []byte(c.text("id", c.word(0))), HasUser: c.has("user"), User: c.bytes("user"),
		HasPassword: c.has("pass"), Password: c.bytes("pass"),
		SessionExpiry: uint32(c.number("expiry", 0)), ReceiveMaximum: uint16(c.number("recvmax", 0)),
		MaximumPacketSize: uint32(c.number("maxpacket", 0)), TopicAliasMaximum: uint16(c.number("aliasmax", 0)),
		RequestResponseInfo: c.yes("respinfo"), RequestProblemInfo: c.yes("probleminfo"),
		AuthMethod: c.bytes("method"), HasAuthData: c.has("data"), AuthData: c.bytes("data"), UserProperties: c.users("prop"),
	}
	if c.has("will") {
		p.HasWill = true
		p.Will = packet.Will{
			Topic: c.bytes("will"), Payload: []byte(c.text("willpayload", "")), QoS: uint8(c.number("willqos", 0)),
			Retain: c.yes("willretain"), DelayInterval: uint32(c.number("willdelay", 0)), HasExpiry: c.has("willexpiry"),
			Expiry: uint32(c.number("willexpiry", 0)), Properties: c.forwarded("will"),
		}
		if n := c.number("willsize", 0); n > 0 {
			p.Will.Payload = filler(int(n))
		}
	}
	return packet.AppendConnect(nil, p)
}

// publish is PUBLISH number i of a command with count=.
func (c *command) publish(i int, v packet.Version) []byte {
	topic, payload := strings.ReplaceAll(c.word(1), "%d", strconv.Itoa(i)), ""
	if len(c.words) > 2 {
		payload = c.words[2]
	}
	qos := uint8(c.number("qos", 0))
	h := &packet.PublishHead{
		Flags: packet.PublishFlags(c.yes("dup"), qos, c.yes("retain")), Topic: []byte(topic),
		PacketID: uint16(c.number("id", 1)) + uint16(i), Alias: uint16(c.number("alias", 0)), HasExpiry: c.has("expiry"),
		Expiry: uint32(c.number("expiry", 0)), Forwarded: c.forwarded(""),
	}
	if c.has("subid") {
		h.SubscriptionIDs = []uint32{uint32(c.number("subid", 0))}
	}
	data := []byte(strings.ReplaceAll(payload, "%d", strconv.Itoa(i)))
	if n := c.number("size", 0); n > 0 {
		data = filler(int(n))
	}
	return packet.AppendPublish(nil, h, data, v)
}

func (c *command) ack(kind packet.Kind, v packet.Version) []byte {
	p := &packet.Ack{PacketID: c.wordNumber(1), Reason: packet.Reason(c.number("reason", 0)), ReasonString: c.bytes("rs"), UserProperties: c.users("prop")}
	c.text("rs", "")
	return packet.AppendAckFull(nil, kind, p, v)
}

// subscribe takes filters; "filter@2" has a QoS of its own.
func (c *command) subscribe(v packet.Version) []byte {
	p := &packet.Subscribe{PacketID: uint16(c.number("id", 1)), SubscriptionID: uint32(c.number("subid", 0)), UserProperties: c.users("prop")}
	o := packet.Options{QoS: uint8(c.number("qos", 0)), NoLocal: c.yes("nolocal"), RetainAsPublished: c.yes("rap"), RetainHandling: uint8(c.number("rh", 0))}
	var list []packet.Subscription
	for _, w := range c.words[1:] {
		filter, qos, own := strings.Cut(w, "@")
		s := packet.Subscription{Filter: []byte(filter), Options: o}
		if own {
			s.Options.QoS = qos[0] - '0'
		}
		list = append(list, s)
	}
	return packet.AppendSubscribe(nil, p, list, v)
}

func (c *command) unsubscribe(v packet.Version) []byte {
	var list [][]byte
	for _, w := range c.words[1:] {
		list = append(list, []byte(w))
	}
	p := &packet.Unsubscribe{PacketID: uint16(c.number("id", 1)), UserProperties: c.users("prop")}
	return packet.AppendUnsubscribe(nil, p, list, v)
}

func (c *command) disconnect(v packet.Version) []byte {
	p := &packet.Disconnect{Reason: packet.Reason(c.number("reason", 0)), HasSessionExpiry: c.has("expiry"),
		SessionExpiry: uint32(c.number("expiry", 0)), ReasonString: c.bytes("rs"), UserProperties: c.users("prop")}
	c.text("rs", "")
	return packet.AppendDisconnect(nil, p, v)
}

func (c *command) auth() []byte {
	p := &packet.Auth{Reason: packet.Reason(c.number("reason", 0x18)), AuthMethod: c.bytes("method"), HasAuthData: c.has("data"),
		AuthData: c.bytes("data"), UserProperties: c.users("prop")}
	c.text("method", "")
	c.text("data", "")
	return packet.AppendAuth(nil, p)
}

// bytesOf reads the notation of ../shared/conformance: two hex digits are a byte, several pairs several; iN is the byte
// N; HN, kN, mN and sN are N in 16 bits; LN is N in 32; vN and rN are N as a Variable Byte Integer; 'text' is itself.
func bytesOf(text string) (b []byte, err error) {
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		if text[0] == '\'' {
			word, rest, ok := strings.Cut(text[1:], "'")
			if !ok {
				return nil, fmt.Errorf("%s: no closing quote", text)
			}
			b, text = append(b, word...), rest
			continue
		}
		end := strings.IndexAny(text, " '")
		if end < 0 {
			end = len(text)
		}
		if b, err = appendWord(b, text[:end]); err != nil {
			return nil, err
		}
		text = text[end:]
	}
	return b, nil
}

func appendWord(b []byte, word string) ([]byte, error) {
	if !strings.ContainsRune("iHkmsLvr", rune(word[0])) {
		more, err := hex.DecodeString(word)
		return append(b, more...), err
	}
	n, err := strconv.ParseUint(word[1:], 10, 32)
	if err != nil {
		return nil, err
	}
	switch word[0] {
	case 'i':
		return append(b, byte(n)), nil
	case 'L':
		return binary.BigEndian.AppendUint32(b, uint32(n)), nil
	case 'v', 'r':
		for ; n >= 0x80; n >>= 7 { // beyond what the standard allows too: five bytes
			b = append(b, byte(n)|0x80)
		}
		return append(b, byte(n)), nil
	}
	return binary.BigEndian.AppendUint16(b, uint16(n)), nil
}
